/* bench.c - options, the list of what is measured, a table and JSON.
 *
 * Under mpirun the experts are in the workers, and what is measured is the cluster; the limits are
 * those of the coordinator's own machine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/bench.h"

#include "base/interrupt.h"
#include "coordinator/cluster/cluster.h"
#include "coordinator/cluster/job.h"
#include "coordinator/cluster/launch.h"
#include "coordinator/commands/json_text.h"
#include "coordinator/commands/option.h"
#include "coordinator/engine/measure.h"
#include "proto/limits.h"

#include <jansson.h>

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_STEPS = 4096 };

static const size_t prefills[] = { 16, 128, 512 };
static const size_t batches[] = { 1, 4, 16, 64 };
static const size_t far_batches[] = { 1, 4 }; /* decoding behind FAR positions */

enum {
    N_PREFILLS = sizeof prefills / sizeof prefills[0],
    N_BATCHES = sizeof batches / sizeof batches[0],
    N_FAR = sizeof far_batches / sizeof far_batches[0],
    FAR = 2048,
    MAX_ROWS = 512,
    MAX_BATCH = 64,
};

typedef struct {
    const char *model, *json, *isa;
    bool compares;
    char **compared; /* the two files */
    uint64_t threads, repeats, steps, workers;
} bench_options;

typedef struct {
    bench_options o;
    tr_transport *transport;
    tr_gguf *gguf;
    tr_engine *engine;
    tr_measure measure;
    json_t *results; /* array */
} bench;

static const char help[] =
    "usage: troupe bench -m FILE [options]\n"
    "       troupe bench --compare A.json B.json\n"
    "       mpirun -n 1 troupe bench -m FILE : -n 2 troupe-worker\n"
    "\n"
    "Measures what this machine can do (memory reads, 8-bit products), then reading a prompt of\n"
    "16, 128 and 512 tokens and writing 1, 4, 16 and 64 answers at once, 1 and 4 behind a\n"
    "context of 2048, as a share of it, and where the time goes.\n"
    "\n"
    "  -m, --model FILE    the model\n"
    "  -w, --workers N     launch N workers with mpirun, which host the experts\n"
    "  --threads N         threads of this process (0: all cores)\n"
    "  --isa NAME          kernels to use (the best of this processor)\n"
    "  --repeats N         of each measurement; the median is shown (3)\n"
    "  --steps N           of one measurement of writing (16)\n"
    "  --json FILE         write the results as JSON too\n"
    "  --compare A B       show two such files side by side\n"
    "  -h, --help          show this\n";

/* ---- options -------------------------------------------------------------------------- */

static tr_status read_option(int c, bench_options *o, const char *word)
{
    switch (c) {
    case 'm':
        o->model = optarg;
        return TR_OK;
    case 'i':
        o->isa = optarg;
        return TR_OK;
    case 'j':
        o->json = optarg;
        return TR_OK;
    case 'c':
        o->compares = true;
        return TR_OK;
    case 'w':
        return tr_option_number("workers", optarg, 0, TR_MAX_WORKERS, &o->workers);
    case 't':
        return tr_option_number("threads", optarg, 0, TR_POOL_MAX_THREADS, &o->threads);
    case 'r':
        return tr_option_number("repeats", optarg, 1, TR_MEASURE_MAX_REPEATS, &o->repeats);
    case 's':
        return tr_option_number("steps", optarg, 1, MAX_STEPS, &o->steps);
    case ':':
        return tr_fail(TR_E_USAGE, "%s needs a value; see troupe bench --help", word);
    default:
        return tr_fail(TR_E_USAGE, "unknown option %s; see troupe bench --help", word);
    }
}

static tr_status parse(int argc, char **argv, bench_options *o, bool *done)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },   { "threads", required_argument, NULL, 't' },
        { "isa", required_argument, NULL, 'i' },     { "repeats", required_argument, NULL, 'r' },
        { "steps", required_argument, NULL, 's' },   { "json", required_argument, NULL, 'j' },
        { "workers", required_argument, NULL, 'w' }, { "help", no_argument, NULL, 'h' },
        { "compare", no_argument, NULL, 'c' },       { NULL, 0, NULL, 0 },
    };
    int c;

    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":m:w:h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            *done = true;
            return TR_OK;
        }
        tr_status st = read_option(c, o, argv[optind - 1]);
        if (st != TR_OK)
            return st;
    }
    if (o->compares && argc - optind != 2)
        return tr_fail(TR_E_USAGE, "--compare: give two files that bench --json wrote");
    o->compared = argv + optind;
    if (o->compares)
        return TR_OK;
    if (optind < argc)
        return tr_fail(TR_E_USAGE, "unexpected argument \"%.80s\"", argv[optind]);
    return o->model ? TR_OK : tr_fail(TR_E_USAGE, "no model: give -m FILE");
}

/* ---- measuring ------------------------------------------------------------------------ */

static tr_status open_engine(bench *b)
{
    tr_engine_options e = tr_engine_defaults();
    tr_model_config config;

    tr_status st = tr_job_exists() ? tr_job_open(NULL, e.join_timeout, &b->transport) : TR_OK;
    if (st == TR_OK)
        st = tr_gguf_open(b->o.model, &b->gguf);
    if (st == TR_OK)
        st = tr_model_config_read(b->gguf, &config);
    if (st != TR_OK)
        return st;
    b->measure.seen = calloc(config.n_experts, 1);
    if (!b->measure.seen)
        return tr_fail(TR_E_MEMORY, "bench: no memory");
    e.gguf = b->gguf;
    e.threads = (size_t)b->o.threads;
    e.isa = b->o.isa;
    e.max_rows = MAX_ROWS;
    e.max_logits = MAX_BATCH;
    e.n_sequences = MAX_BATCH;
    e.context = FAR + MAX_ROWS + (size_t)b->o.steps;
    e.kv_positions = MAX_BATCH * (MAX_ROWS / 8 + (size_t)b->o.steps) + N_FAR * 2 * e.context;
    e.transport = b->transport;
    e.n_workers = b->transport ? b->transport->n_peers : 0;
    e.progress = isatty(STDERR_FILENO) != 0;
    e.on_picks = tr_measure_picks;
    e.ctx = &b->measure;
    return tr_engine_open(&e, &b->engine);
}

/* The parts of a step, in the order they are shown. */
typedef struct {
    const char *name, *heading;
    size_t offset; /* of a tr_time in tr_forward_times */
} part;

static const part parts[] = {
    { "dense", "dense", offsetof(tr_forward_times, dense) },
    { "attention", "attn", offsetof(tr_forward_times, attention) },
    { "router", "router", offsetof(tr_forward_times, router) },
    { "dispatch", "disp", offsetof(tr_forward_times, dispatch) },
    { "experts", "experts", offsetof(tr_forward_times, experts) },
    { "wait", "wait", offsetof(tr_forward_times, wait) },
    { "combine", "comb", offsetof(tr_forward_times, combine) },
    { "output", "output", offsetof(tr_forward_times, output) },
};

enum { N_PARTS = sizeof parts / sizeof parts[0] };

static tr_time part_of(const tr_forward_times *t, size_t i)
{
    tr_time v;

    memcpy(&v, (const char *)t + parts[i].offset, sizeof v);
    return v;
}

static double percent(const tr_forward_times *t, size_t i)
{
    tr_time all = 0;

    for (size_t k = 0; k < N_PARTS; k++)
        all += part_of(t, k);
    return all > 0 ? 100.0 * (double)part_of(t, i) / (double)all : 0.0;
}

static void show_heading(void)
{
    printf("%-8s %4s %7s %9s %20s %9s %7s  %-6s %6s %7s  ", "", "rows", "context", "tokens/s",
           "(slowest..fastest)", "limit", "reached", "bound", "GB/s", "GOP/s");
    for (size_t i = 0; i < N_PARTS; i++)
        printf(" %s%%", parts[i].heading);
    putchar('\n');
}

static tr_status show(const char *what, const tr_measure_result *r)
{
    printf("%-8s %4zu %7zu %9.1f %9.1f..%-9.1f %9.1f %5.0f %%  %-6s %6.1f %7.1f  ", what, r->rows,
           r->context, r->median, r->slowest, r->fastest, r->limit, 100.0 * r->median / r->limit,
           r->is_memory ? "memory" : "int8", r->bytes * 1e-9, r->ops * 1e-9);
    for (size_t i = 0; i < N_PARTS; i++)
        printf(" %*.0f", (int)strlen(parts[i].heading) + 1, percent(&r->times, i));
    putchar('\n');
    return fflush(stdout) == 0 ? TR_OK : tr_fail(TR_E_IO, "standard output: %s", strerror(errno));
}

static void keep(bench *b, const char *what, const tr_measure_result *r)
{
    json_t *one = json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f}", "what", what,
                            "rows", (int)r->rows, "context", (int)r->context, "tokens_per_second",
                            r->median, "slowest", r->slowest, "fastest", r->fastest, "limit",
                            r->limit, "percent_of_limit", 100.0 * r->median / r->limit, "bound_by",
                            r->is_memory ? "memory" : "int8", "gb_per_second", r->bytes * 1e-9,
                            "gop_per_second", r->ops * 1e-9);

    for (size_t i = 0; i < N_PARTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_percent", parts[i].name);
        json_object_set_new(one, key, json_real(percent(&r->times, i)));
    }
    json_array_append_new(b->results, one);
}

static tr_status keep_and_show(bench *b, const char *what, const tr_measure_result *r)
{
    keep(b, what, r);
    return show(what, r);
}

static tr_status measure_decode(bench *b, size_t n, size_t context)
{
    tr_measure_result r;

    if (tr_interrupted())
        return TR_E_INTERRUPTED;
    tr_status st = tr_measure_decode(&b->measure, n, context, &r);
    return st == TR_OK ? keep_and_show(b, "decode", &r) : st;
}

static tr_status measure_all(bench *b)
{
    tr_measure_result r;
    tr_status st = TR_OK;

    show_heading();
    for (size_t i = 0; i < N_PREFILLS && st == TR_OK; i++) {
        st = tr_interrupted() ? TR_E_INTERRUPTED : tr_measure_prefill(&b->measure, prefills[i], &r);
        if (st == TR_OK)
            st = keep_and_show(b, "prefill", &r);
    }
    for (size_t i = 0; i < N_BATCHES && st == TR_OK; i++)
        st = measure_decode(b, batches[i], 0);
    for (size_t i = 0; i < N_FAR && st == TR_OK; i++)
        st = measure_decode(b, far_batches[i], FAR);
    return st;
}

static tr_status write_json(const bench *b, const tr_engine_stats *s)
{
    const tr_limits *l = &b->measure.limits;
    json_t *o = json_pack("{s:o, s:s, s:i, s:i, s:f, s:f, s:f, s:O}", "model",
                          tr_json_text(tr_bytes_of(b->o.model)), "kernels",
                          tr_engine_kernels(b->engine)->name, "threads",
                          (int)tr_pool_threads(tr_engine_compute(b->engine)->pool), "workers",
                          b->transport ? (int)b->transport->n_peers : 0, "memory_gb_per_second",
                          l->read_bytes * 1e-9, "int8_gop_per_second", l->int8_ops * 1e-9,
                          "load_seconds", s->load_seconds, "results", b->results);
    int written = o ? json_dump_file(o, b->o.json, JSON_INDENT(1)) : -1;

    json_decref(o);
    return written == 0 ? TR_OK
                        : tr_fail(TR_E_IO, "%s: can't be written: %s", b->o.json, strerror(errno));
}

static tr_status run(bench *b)
{
    tr_status st = open_engine(b);

    if (st != TR_OK)
        return st;
    const tr_compute *c = tr_engine_compute(b->engine);
    tr_engine_stats s = tr_engine_get_stats(b->engine);
    b->measure.engine = b->engine;
    b->measure.repeats = (size_t)b->o.repeats;
    b->measure.steps = (size_t)b->o.steps;
    st = tr_limits_measure(c, &b->measure.limits);
    if (st != TR_OK)
        return st;
    printf("%zu threads, kernels %s, %u workers: memory %.1f GB/s, int8 %.0f GOP/s; loaded in %.2f "
           "s\n",
           tr_pool_threads(c->pool), c->kernels->name, b->transport ? b->transport->n_peers : 0,
           b->measure.limits.read_bytes * 1e-9, b->measure.limits.int8_ops * 1e-9, s.load_seconds);
    st = measure_all(b);
    return st == TR_OK && b->o.json ? write_json(b, &s) : st;
}

static void close_all(bench *b, tr_status st)
{
    bool had_engine = b->engine != NULL;

    json_decref(b->results);
    tr_engine_close(&b->engine);
    tr_gguf_close(&b->gguf);
    free(b->measure.seen);
    tr_job_close(&b->transport, st, had_engine);
}

/* ---- two results side by side --------------------------------------------------------------- */

static tr_status result_load(const char *path, json_t **out)
{
    json_error_t error;
    json_t *o = json_load_file(path, 0, &error);

    if (!o)
        return tr_fail(TR_E_IO, "%s: %s", path, error.text);
    if (!json_is_array(json_object_get(o, "results"))) {
        json_decref(o);
        return tr_fail(TR_E_USAGE, "%s: is no result of troupe bench --json", path);
    }
    *out = o;
    return TR_OK;
}

/* The entry of b that measures what a does, or NULL. */
static json_t *counterpart(const json_t *a, const json_t *results)
{
    size_t i;
    json_t *b;

    json_array_foreach(results, i, b)
    {
        if (json_equal(json_object_get(a, "what"), json_object_get(b, "what")) &&
            json_equal(json_object_get(a, "rows"), json_object_get(b, "rows")) &&
            json_equal(json_object_get(a, "context"), json_object_get(b, "context")))
            return b;
    }
    return NULL;
}

static tr_status compare(const char *path_a, const char *path_b)
{
    json_t *a = NULL, *b = NULL, *x;
    size_t i;

    tr_status st = result_load(path_a, &a);
    if (st == TR_OK)
        st = result_load(path_b, &b);
    if (st != TR_OK) {
        json_decref(a);
        return st;
    }
    printf("%-8s %4s %7s %12s %12s %8s\n", "", "rows", "context", "A tokens/s", "B tokens/s",
           "B / A");
    json_array_foreach(json_object_get(a, "results"), i, x)
    {
        const json_t *y = counterpart(x, json_object_get(b, "results"));
        double p = json_number_value(json_object_get(x, "tokens_per_second"));
        double q = json_number_value(json_object_get(y, "tokens_per_second"));
        const char *what = json_string_value(json_object_get(x, "what"));
        if (y && what && p > 0.0)
            printf("%-8s %4lld %7lld %12.1f %12.1f %7.2f\n", what,
                   json_integer_value(json_object_get(x, "rows")),
                   json_integer_value(json_object_get(x, "context")), p, q, q / p);
    }
    json_decref(a);
    json_decref(b);
    return TR_OK;
}

/* ---- with workers ---------------------------------------------------------------------------- */

/* The same command again, without -w, as the coordinator of an mpirun job. */
static tr_status launch(const bench_options *o)
{
    char threads[32], repeats[32], steps[32];
    const char *words[13] = { "-m",        o->model, "--threads", threads,
                              "--repeats", repeats,  "--steps",   steps };
    size_t n = 8;
    int exit_code = 0;

    snprintf(threads, sizeof threads, "%llu", (unsigned long long)o->threads);
    snprintf(repeats, sizeof repeats, "%llu", (unsigned long long)o->repeats);
    snprintf(steps, sizeof steps, "%llu", (unsigned long long)o->steps);
    if (o->isa) {
        words[n++] = "--isa";
        words[n++] = o->isa;
    }
    if (o->json) {
        words[n++] = "--json";
        words[n++] = o->json;
    }
    tr_status st = tr_launch_command("bench", words, (uint32_t)o->workers, &exit_code);
    return st == TR_OK ? tr_launch_status(exit_code) : st;
}

tr_status tr_command_bench(int argc, char **argv)
{
    bench b = { .o = { .repeats = 3, .steps = 16 } };
    bool done = false;

    tr_status st = parse(argc, argv, &b.o, &done);
    if (st != TR_OK || done)
        return st;
    if (b.o.compares)
        return compare(b.o.compared[0], b.o.compared[1]);
    if (b.o.workers > 0)
        return launch(&b.o);
    tr_interrupt_watch();
    b.results = json_array();
    st = b.results ? run(&b) : tr_fail(TR_E_MEMORY, "bench: no memory");
    close_all(&b, st);
    return st;
}
