/* convert.c - options, and what came of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/convert.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "coordinator/commands/option.h"
#include "coordinator/convert/convert.h"
#include "coordinator/convert/family.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { MAX_RULES = 64 };

typedef struct {
    tr_convert c;
    tr_type_rule rule[MAX_RULES];
    bool has_dense;
    uint64_t threads;
} options;

static const char help[] =
    "usage: troupe convert DIR OUT.gguf [options]\n"
    "\n"
    "Writes the model of a Hugging Face directory (config.json, tokenizer.json, *.safetensors "
    "with\n"
    "or without index) as a GGUF file. Interrupted and started again with the same options, it\n"
    "goes on where it was.\n"
    "\n"
    "  --type TYPE           of matrices: F32, F16, BF16, Q8_0, Q4_K, ... (as they are; F8 "
    "becomes\n"
    "                        BF16); troupe help quantize lists them\n"
    "  --dense TYPE          of matrices that are no experts (as --type)\n"
    "  --tensor GLOB=TYPE    of tensors with such names in the GGUF file; may be given often, the\n"
    "                        last one that fits decides: --tensor 'output.*=Q6_K'\n"
    "  --pre NAME            how text is cut into words (tokenizer.ggml.pre), where "
    "tokenizer.json\n"
    "                        has a way that is not recognised\n"
    "  --overwrite           replace OUT.gguf if it is there, and OUT.gguf.part if it is of\n"
    "                        something else\n"
    "  --threads N           (0: all cores)\n"
    "  -h, --help            show this\n"
    "\n"
    "Weights in F32, F16, BF16, F8_E4M3 with block scales, and MXFP4 (which stays MXFP4 unless it\n"
    "becomes F32, F16 or BF16). Vectors and routers become F32. Known model_types:\n";

static void print_help(void)
{
    fputs(help, stdout);
    for (size_t i = 0; tr_family_at(i); i++)
        printf("%s%s", i % 8 ? ", " : i ? ",\n  " : "  ", tr_family_at(i)->model_type);
    fputs("\n", stdout);
}

static tr_status read_option(int c, options *o, const char *word)
{
    switch (c) {
    case 'y':
        o->c.types.keeps = false;
        return tr_option_type("--type", optarg, &o->c.types.experts);
    case 'd':
        o->has_dense = true;
        return tr_option_type("--dense", optarg, &o->c.types.dense);
    case 'r':
        return tr_option_type_rule(optarg, o->rule, MAX_RULES, &o->c.types.n_rules);
    case 'p':
        o->c.pre = optarg;
        return TR_OK;
    case 't':
        return tr_option_number("threads", optarg, 0, TR_POOL_MAX_THREADS, &o->threads);
    case 'o':
        o->c.overwrite = true;
        return TR_OK;
    case ':':
        return tr_fail(TR_E_USAGE, "%s needs a value; see troupe convert --help", word);
    default:
        return tr_fail(TR_E_USAGE, "unknown option %.80s; see troupe convert --help", word);
    }
}

static tr_status parse(int argc, char **argv, options *o, bool *done)
{
    static const struct option long_options[] = {
        { "type", required_argument, NULL, 'y' },   { "dense", required_argument, NULL, 'd' },
        { "tensor", required_argument, NULL, 'r' }, { "pre", required_argument, NULL, 'p' },
        { "overwrite", no_argument, NULL, 'o' },    { "threads", required_argument, NULL, 't' },
        { "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 },
    };
    int c;

    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        if (c == 'h') {
            print_help();
            *done = true;
            return TR_OK;
        }
        tr_status st = read_option(c, o, argv[optind - 1]);
        if (st != TR_OK)
            return st;
    }
    if (argc - optind != 2)
        return tr_fail(TR_E_USAGE, "give DIR OUT.gguf; see troupe convert --help");
    if (o->has_dense && o->c.types.keeps)
        return tr_fail(TR_E_USAGE, "--dense needs --type beside it");
    o->c.dir = argv[optind];
    o->c.out = argv[optind + 1];
    o->c.types.rules = o->rule;
    if (!o->has_dense)
        o->c.types.dense = o->c.types.experts;
    return TR_OK;
}

tr_status tr_command_convert(int argc, char **argv)
{
    options o = { .c.types.keeps = true };
    tr_convert_result r;
    bool done = false;

    tr_status st = parse(argc, argv, &o, &done);
    if (st != TR_OK || done)
        return st;
    tr_interrupt_watch();
    o.c.progress = isatty(STDERR_FILENO) != 0;
    st = tr_pool_new(o.threads ? (size_t)o.threads : tr_pool_default_threads(), &o.c.pool);
    if (st == TR_OK)
        st = tr_convert_run(&o.c, &r);
    tr_pool_free(&o.c.pool);
    if (st == TR_E_INTERRUPTED)
        tr_log(TR_LOG_INFO, "interrupted: the same command goes on from %s.part", o.c.out);
    if (st == TR_OK)
        tr_log(TR_LOG_INFO, "%s: %zu tensors, %llu bytes; what changed errs by %.3f %%", o.c.out,
               r.n_tensors, (unsigned long long)r.bytes,
               r.size > 0.0 ? 100.0 * sqrt(r.error / r.size) : 0.0);
    return st;
}
