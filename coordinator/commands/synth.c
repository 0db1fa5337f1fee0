/* synth.c - the options of `troupe synth`.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/synth.h"

#include "base/interrupt.h"

#include "coordinator/commands/option.h"
#include "coordinator/model/random_model.h"
#include "proto/limits.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char help[] =
    "usage: troupe synth --like NAME -o FILE [options]\n"
    "\n"
    "Writes a model of a known shape with random weights, for tests and benchmarks.\n"
    "\n"
    "  --like NAME         the shape; --list shows all\n"
    "  --list              show the shapes\n"
    "  -o, --output FILE   where to write\n"
    "  --overwrite         replace FILE if it is there\n"
    "  --type TYPE         of the experts: F32, F16, BF16, Q8_0, Q4_0, Q4_K, ... (Q8_0)\n"
    "  --dense-type TYPE   of the other matrices (as --type)\n"
    "  --layers N          instead of the shape's\n"
    "  --experts N         instead of the shape's\n"
    "  --context N         instead of the shape's\n"
    "  --seed N            of the weights (1)\n"
    "  -h, --help          show this\n";

static tr_status read_shape(const char *name, tr_model_shape *out)
{
    const tr_model_shape *s = tr_model_shape_find(name);

    if (!s)
        return tr_fail(TR_E_USAGE, "--like \"%.40s\": no such shape; --list shows all", name);
    *out = *s;
    return TR_OK;
}

static void list_shapes(void)
{
    const tr_model_shape *s;

    for (size_t i = 0; (s = tr_model_shape_at(i)); i++) {
        printf("%-18s %s: %u layers ", s->name, s->what, s->n_layers);
        if (s->n_experts > 0)
            printf("of %u experts, top-%u, width %u\n", s->n_experts, s->top_k, s->dim);
        else
            printf("without experts, width %u\n", s->dim);
    }
}

/* What replaces a part of the shape, wherever it stands among the options. */
typedef struct {
    const char *dense;
    uint64_t layers, experts, context; /* 0: not given */
} synth_given;

static const struct option long_options[] = {
    { "like", required_argument, NULL, 'l' },    { "output", required_argument, NULL, 'o' },
    { "type", required_argument, NULL, 't' },    { "dense-type", required_argument, NULL, 'd' },
    { "layers", required_argument, NULL, 'n' },  { "experts", required_argument, NULL, 'e' },
    { "context", required_argument, NULL, 'c' }, { "seed", required_argument, NULL, 's' },
    { "overwrite", no_argument, NULL, 'w' },     { "list", no_argument, NULL, 'L' },
    { "help", no_argument, NULL, 'h' },          { NULL, 0, NULL, 0 },
};

static tr_status read_option(int c, tr_random_model *o, synth_given *g, char *word)
{
    switch (c) {
    case 'l':
        return read_shape(optarg, &o->shape);
    case 'o':
        o->path = optarg;
        return TR_OK;
    case 't':
        return tr_option_type("--type", optarg, &o->experts);
    case 'd':
        g->dense = optarg;
        return tr_option_type("--dense-type", optarg, &o->dense);
    case 'n':
        return tr_option_number("layers", optarg, 1, TR_MAX_LAYERS, &g->layers);
    case 'e':
        return tr_option_number("experts", optarg, 1, TR_MAX_EXPERTS, &g->experts);
    case 'c':
        return tr_option_number("context", optarg, 1, 1 << 24, &g->context);
    case 's':
        return tr_option_number("seed", optarg, 0, UINT64_MAX, &o->seed);
    case 'w':
        o->overwrite = true;
        return TR_OK;
    case ':':
        return tr_fail(TR_E_USAGE, "%s needs a value; see troupe synth --help", word);
    default: /* getopt moves on to the next word only behind the last of several letters */
        if (optopt && strncmp(word, "--", 2) != 0)
            return tr_fail(TR_E_USAGE, "unknown option -%c; see troupe synth --help", optopt);
        return tr_fail(TR_E_USAGE, "unknown option %.80s; see troupe synth --help", word);
    }
}

static tr_status parse(int argc, char **argv, tr_random_model *o, bool *done)
{
    synth_given g = { 0 };
    int c;

    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":o:h", long_options, NULL)) != -1) {
        if (c == 'h' || c == 'L') {
            *done = true;
            if (c == 'h')
                fputs(help, stdout);
            else
                list_shapes();
            return TR_OK;
        }
        tr_status st = read_option(c, o, &g, argv[optind - 1]);
        if (st != TR_OK)
            return st;
    }
    if (optind < argc)
        return tr_fail(TR_E_USAGE, "unexpected argument \"%.80s\"", argv[optind]);
    if (!o->shape.name)
        return tr_fail(TR_E_USAGE, "--like NAME is missing; --list shows all shapes");
    if (!o->path)
        return tr_fail(TR_E_USAGE, "-o FILE is missing");
    o->shape.n_layers = g.layers ? (uint32_t)g.layers : o->shape.n_layers;
    o->shape.n_experts = g.experts ? (uint32_t)g.experts : o->shape.n_experts;
    o->shape.context = g.context ? (uint32_t)g.context : o->shape.context;
    if (!g.dense)
        o->dense = o->experts;
    if (g.experts && o->shape.top_k == 0)
        return tr_fail(TR_E_USAGE, "--experts: %s is a dense model", o->shape.name);
    if (o->shape.top_k > o->shape.n_experts)
        return tr_fail(TR_E_USAGE, "--experts %u: each token picks %u", o->shape.n_experts,
                       o->shape.top_k);
    return TR_OK;
}

tr_status tr_command_synth(int argc, char **argv)
{
    tr_random_model o = {
        .experts = TR_TYPE_Q8_0,
        .seed = 1,
        .progress = isatty(STDERR_FILENO) != 0,
    };
    bool done = false;

    tr_status st = parse(argc, argv, &o, &done);
    tr_interrupt_watch(); /* an unfinished file is removed */
    return st == TR_OK && !done ? tr_random_model_write(&o) : st;
}
