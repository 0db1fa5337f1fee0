/* quantize.c - options, rules, and what came of it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/quantize.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "coordinator/commands/option.h"
#include "coordinator/model/requantise.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { MAX_RULES = 64 };

typedef struct {
    tr_requantise r;
    tr_type_rule rule[MAX_RULES];
    bool has_dense;
    uint64_t threads;
} quantize;

static const char help[] =
    "usage: troupe quantize IN.gguf OUT.gguf TYPE [options]\n"
    "\n"
    "Writes a model again with its matrices in another type: F32, F16, BF16, Q8_0, Q6_K, Q5_K,\n"
    "Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, IQ4_NL, IQ4_XS, MXFP4, Q3_K or Q2_K.\n"
    "\n"
    "  --dense TYPE          of matrices that are no experts (as TYPE)\n"
    "  --tensor GLOB=TYPE    of tensors with such names; may be given often, the last one that\n"
    "                        fits decides: --tensor 'blk.0.*=Q8_0' --tensor 'output.*=Q6_K'\n"
    "  --force               quantise what is quantised already\n"
    "  --overwrite           replace OUT.gguf if it is there\n"
    "  --threads N           (0: all cores)\n"
    "  -h, --help            show this\n"
    "\n"
    "Vectors, routers and learned positions stay as they are. K types need rows of a multiple\n"
    "of 256 values, others of 32; other rows get the nearest type that fits, and a line says so.\n"
    "A --tensor that fits no name gets a warning.\n";

static tr_status read_option(int c, quantize *q, const char *word)
{
    switch (c) {
    case 'd':
        q->has_dense = true;
        return tr_option_type("--dense", optarg, &q->r.types.dense);
    case 'r':
        return tr_option_type_rule(optarg, q->rule, MAX_RULES, &q->r.types.n_rules);
    case 'f':
        q->r.force = true;
        return TR_OK;
    case 'o':
        q->r.overwrite = true;
        return TR_OK;
    case 't':
        return tr_option_number("threads", optarg, 0, TR_POOL_MAX_THREADS, &q->threads);
    case ':':
        return tr_fail(TR_E_USAGE, "%s needs a value; see troupe quantize --help", word);
    default:
        return tr_fail(TR_E_USAGE, "unknown option %.80s; see troupe quantize --help", word);
    }
}

static tr_status parse(int argc, char **argv, quantize *q, bool *done)
{
    static const struct option options[] = {
        { "dense", required_argument, NULL, 'd' },
        { "tensor", required_argument, NULL, 'r' },
        { "force", no_argument, NULL, 'f' },
        { "overwrite", no_argument, NULL, 'o' },
        { "threads", required_argument, NULL, 't' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            *done = true;
            return TR_OK;
        }
        tr_status st = read_option(c, q, argv[optind - 1]);
        if (st != TR_OK)
            return st;
    }
    if (argc - optind != 3)
        return tr_fail(TR_E_USAGE, "give IN.gguf OUT.gguf TYPE; see troupe quantize --help");
    q->r.in = argv[optind];
    q->r.out = argv[optind + 1];
    tr_status st = tr_option_type("TYPE", argv[optind + 2], &q->r.types.experts);
    if (st == TR_OK && !q->has_dense)
        q->r.types.dense = q->r.types.experts;
    return st;
}

static void sum_up(const tr_requantise_result *r)
{
    uint64_t before = 0, after = 0;

    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++) {
        before += r->before[t];
        after += r->after[t];
        if (r->before[t] || r->after[t])
            tr_log(TR_LOG_INFO, "%-7s %12llu bytes before, %12llu after", tr_type_get(t)->name,
                   (unsigned long long)r->before[t], (unsigned long long)r->after[t]);
    }
    tr_log(TR_LOG_INFO, "in all  %12llu bytes before, %12llu after; what changed errs by %.3f %%",
           (unsigned long long)before, (unsigned long long)after,
           r->size > 0.0 ? 100.0 * sqrt(r->error / r->size) : 0.0);
}

tr_status tr_command_quantize(int argc, char **argv)
{
    quantize q = { .threads = 0 };
    tr_requantise_result result;
    bool done = false;

    tr_status st = parse(argc, argv, &q, &done);
    if (st != TR_OK || done)
        return st;
    tr_interrupt_watch();
    q.r.types.rules = q.rule;
    q.r.progress = isatty(STDERR_FILENO) != 0;
    st = tr_pool_new(q.threads ? (size_t)q.threads : tr_pool_default_threads(), &q.r.pool);
    if (st == TR_OK)
        st = tr_requantise_run(&q.r, &result);
    tr_pool_free(&q.r.pool);
    if (st == TR_OK)
        sum_up(&result);
    return st;
}
