/* bench.c - options, the list of what is measured, a table and JSON.
 *
 * Under mpirun the experts are in the workers, and what is measured is the cluster; the limits are
 * those of the coordinator's own machine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/bench.h"

#include "base/interrupt.h"
#include "base/memory.h"
#include "compute/cpu.h"
#include "coordinator/cluster/cluster.h"
#include "coordinator/cluster/job.h"
#include "coordinator/cluster/launch.h"
#include "coordinator/commands/bench_file.h"
#include "coordinator/commands/bench_report.h"
#include "coordinator/commands/bench_serve.h"
#include "coordinator/commands/json_text.h"
#include "coordinator/commands/option.h"
#include "coordinator/engine/measure.h"
#include "coordinator/engine/need.h"
#include "proto/limits.h"

#include <jansson.h>

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_STEPS = 4096 };

static const double MIB = 1024.0 * 1024.0;

static const size_t prefills[] = { 16, 128, 512 };
static const size_t batches[] = { 1, 4, 16, 64 };
static const size_t far_batches[] = { 1, 4, 16, 64 }; /* decoding behind FAR positions */

enum {
    N_PREFILLS = sizeof prefills / sizeof prefills[0],
    N_BATCHES = sizeof batches / sizeof batches[0],
    N_FAR = sizeof far_batches / sizeof far_batches[0],
    FAR = 2048,
    N_FAR_ALWAYS = 2, /* of these; more where there is memory */
    MAX_ROWS = 512,
    MAX_BATCH = 64,
};

typedef struct {
    const char *model, *json, *isa, *plot, *worker_binary;
    bool compares, by_zmq;
    char **compared; /* the two files */
    tr_type kv;
    uint64_t threads, repeats, steps, workers, idle;
} bench_options;

typedef struct {
    bench_options o;
    tr_job job;
    tr_gguf *gguf;
    tr_engine *engine;
    tr_measure measure;
    size_t far_at_once; /* sequences behind FAR positions for which the cache has room */
    double beaten;      /* bytes of the largest step that was faster than memory's limit; 0: none */
    tr_bench_file json, plot;
    json_t *results; /* array */
} bench;

static const char help[] =
    "usage: troupe bench -m FILE [options]\n"
    "       troupe bench --compare A.json B.json\n"
    "       troupe bench --serve --help\n"
    "       mpirun -n 1 troupe bench -m FILE : -n 2 troupe-worker\n"
    "\n"
    "Measures what this machine can do (memory reads, products of 8-bit and of real numbers, the\n"
    "way to a worker and back), then reading a prompt of 16, 128 and 512 tokens and writing 1, 4,\n"
    "16 and 64 answers at once, the same behind a context of 2048, as a share of it, and where\n"
    "the time goes; then memory, and a token after some idle seconds. What the model has no\n"
    "positions for, or this machine no memory, is left out. From all logits a token is drawn with\n"
    "the defaults of troupe run.\n"
    "\n"
    "  -m, --model FILE    the model\n"
    "  -w, --workers N     launch N workers with mpirun, which host the experts\n"
    "  --worker-binary F   the worker's program (troupe-worker beside troupe)\n"
    "  --transport NAME    how they get their rows: mpi, zmq or auto (auto: mpi)\n"
    "  --threads N         threads of this process, and of each worker that -w launches (0: all\n"
    "                      cores)\n"
    "  --kv TYPE           of keys and values: f16, f32 or q8_0 (f16)\n"
    "  --isa NAME          kernels: c, avx2, avx512 or neon (the best of this processor)\n"
    "  --repeats N         of each measurement; the median is shown (3)\n"
    "  --steps N           of one measurement of writing (16)\n"
    "  --idle SECONDS      to wait before the token after a pause (5)\n"
    "  --json FILE         write the results as JSON too\n"
    "  --plot FILE.svg     draw them (needs gnuplot)\n"
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
    case 'p':
        o->plot = optarg;
        return TR_OK;
    case 'c':
        o->compares = true;
        return TR_OK;
    case 'b':
        o->worker_binary = optarg;
        return TR_OK;
    case 'x':
        return tr_option_transport(optarg, &o->by_zmq);
    case 'k':
        return tr_option_kv(optarg, &o->kv);
    case 'w':
        return tr_option_number("workers", optarg, 0, TR_MAX_WORKERS, &o->workers);
    case 't':
        return tr_option_number("threads", optarg, 0, TR_POOL_MAX_THREADS, &o->threads);
    case 'r':
        return tr_option_number("repeats", optarg, 1, TR_MEASURE_MAX_REPEATS, &o->repeats);
    case 'z':
        return tr_option_number("idle", optarg, 1, 3600, &o->idle);
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
        { "model", required_argument, NULL, 'm' },
        { "threads", required_argument, NULL, 't' },
        { "isa", required_argument, NULL, 'i' },
        { "repeats", required_argument, NULL, 'r' },
        { "steps", required_argument, NULL, 's' },
        { "json", required_argument, NULL, 'j' },
        { "workers", required_argument, NULL, 'w' },
        { "help", no_argument, NULL, 'h' },
        { "kv", required_argument, NULL, 'k' },
        { "idle", required_argument, NULL, 'z' },
        { "compare", no_argument, NULL, 'c' },
        { "plot", required_argument, NULL, 'p' },
        { "transport", required_argument, NULL, 'x' },
        { "worker-binary", required_argument, NULL, 'b' },
        { NULL, 0, NULL, 0 },
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

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Whether the cache for so many fits beside all weights, those of workers too: they may be on this
 * machine.  A tenth of the memory stays free. */
static bool has_room(tr_engine_options e, const tr_model_config *c, const tr_expert_map *map)
{
    e.n_workers = 0;
    e.memory = tr_memory_available() / 10 * 9;
    tr_need n = tr_need_of(&e, c, map);
    return tr_need_fits(&n, &e);
}

/* As long a context as the measurements need and the model knows, as many of them as memory
 * holds. */
static tr_status choose_sizes(bench *b, const tr_model_config *c, tr_engine_options *e)
{
    size_t answer = TR_MEASURE_PROMPT + (size_t)b->o.steps;
    tr_expert_map map;

    e->max_rows = MAX_ROWS;
    e->max_logits = MAX_BATCH;
    e->n_sequences = MAX_BATCH;
    e->context = FAR + answer;
    if (c->has_positions && c->context < e->context)
        e->context = c->context;
    tr_status st = tr_model_check(b->gguf);
    if (st == TR_OK)
        st = tr_expert_map_read(b->gguf, &map);
    if (st != TR_OK)
        return st;
    for (size_t i = N_FAR; i >= N_FAR_ALWAYS; i--) {
        b->far_at_once = far_batches[i - 1];
        e->kv_positions = larger(larger(MAX_ROWS, MAX_BATCH * answer), b->far_at_once * e->context);
        if (has_room(*e, c, &map))
            break;
    }
    tr_expert_map_fini(&map);
    return TR_OK;
}

static tr_status open_engine(bench *b)
{
    tr_engine_options e = tr_engine_defaults();
    tr_job_options job = { .join_timeout = e.join_timeout, .by_zmq = b->o.by_zmq };
    tr_model_config config;

    tr_status st = tr_job_exists() ? tr_job_open(&job, &b->job) : TR_OK;
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
    e.kv_type = b->o.kv;
    e.transport = b->job.data;
    e.inviter = b->job.inviter;
    e.n_workers = b->job.data ? b->job.data->n_peers : 0;
    e.progress = isatty(STDERR_FILENO) != 0;
    e.on_picks = tr_measure_picks;
    e.ctx = &b->measure;
    st = choose_sizes(b, &config, &e);
    return st == TR_OK ? tr_engine_open(&e, &b->engine) : st;
}

static tr_status keep_and_show(bench *b, const char *what, const tr_measure_result *r)
{
    double step = r->bytes * (double)r->rows / r->median;

    if (r->median > r->limit && strcmp(r->bound, "memory") == 0 && step > b->beaten)
        b->beaten = step;
    tr_bench_keep(b->results, what, r);
    return tr_bench_show(what, r);
}

/* False, with a line, if the model does not know so many positions or the cache has no room. */
static bool can_measure(const bench *b, const char *what, size_t rows, size_t context,
                        size_t positions)
{
    size_t known = tr_engine_context(b->engine);

    if (positions > known)
        printf("%-8s %4zu %7zu  left out: needs %zu positions, and this model knows %zu\n", what,
               rows, context, positions, known);
    else if (context > 0 && rows > b->far_at_once)
        printf("%-8s %4zu %7zu  left out: keys and values of so many don't fit into memory\n", what,
               rows, context);
    else
        return true;
    return false;
}

static tr_status measure_prefill(bench *b, size_t n)
{
    tr_measure_result r;

    if (!can_measure(b, "prefill", n, 0, n))
        return TR_OK;
    if (tr_interrupted())
        return TR_E_INTERRUPTED;
    tr_status st = tr_measure_prefill(&b->measure, n, &r);
    return st == TR_OK ? keep_and_show(b, "prefill", &r) : st;
}

static tr_status measure_decode(bench *b, size_t n, size_t context)
{
    tr_measure_result r;

    if (!can_measure(b, "decode", n, context, context + TR_MEASURE_PROMPT + b->measure.steps))
        return TR_OK;
    if (tr_interrupted())
        return TR_E_INTERRUPTED;
    tr_status st = tr_measure_decode(&b->measure, n, context, &r);
    return st == TR_OK ? keep_and_show(b, "decode", &r) : st;
}

/* The first step finds threads asleep and buffers that were never touched. */
static tr_status warm_up(const bench *b)
{
    tr_measure once = b->measure;
    tr_measure_result ignored;

    once.repeats = 1;
    return tr_measure_prefill(&once, 1, &ignored);
}

static void explain_shares(const bench *b)
{
    double cache = (double)tr_cpu_last_cache();

    if (b->beaten > 0.0 && b->beaten <= cache)
        printf(
            "a share over 100 %%: the limit is that of memory, but the %.1f MB that a step reads "
            "stay in the last cache (%.0f MB)\n",
            b->beaten * 1e-6, cache * 1e-6);
    else if (b->beaten > 0.0)
        printf("a share over 100 %%: caches keep part of the %.1f MB that a step reads, or the "
               "machine was slower while its limits were measured\n",
               b->beaten * 1e-6);
}

static tr_status measure_all(bench *b)
{
    tr_status st = warm_up(b);

    tr_bench_heading();
    for (size_t i = 0; i < N_PREFILLS && st == TR_OK; i++)
        st = measure_prefill(b, prefills[i]);
    for (size_t i = 0; i < N_BATCHES && st == TR_OK; i++)
        st = measure_decode(b, batches[i], 0);
    for (size_t i = 0; i < N_FAR && st == TR_OK; i++)
        st = measure_decode(b, far_batches[i], FAR);
    if (st == TR_OK)
        explain_shares(b);
    return st;
}

/* ---- what is measured once ---------------------------------------------------------------------
 */

static double micros(tr_time t)
{
    return (double)t / (double)TR_US;
}

static tr_status measure_trip(bench *b, json_t *summary)
{
    tr_measure_trip t;

    if (tr_engine_n_workers(b->engine) == 0)
        return TR_OK;
    tr_status st = tr_measure_round_trip(&b->measure, &t);
    if (st != TR_OK)
        return st;
    printf("one row to a worker and back (%zu + %zu bytes): %.1f us; a layer's dispatch, wait and "
           "combine beyond the work itself: %.1f us\n",
           t.share_bytes, t.answer_bytes, micros(t.transport), micros(t.layer));
    json_object_set_new(summary, "round_trip",
                        json_pack("{s:I, s:I, s:f, s:f}", "share_bytes", (json_int_t)t.share_bytes,
                                  "answer_bytes", (json_int_t)t.answer_bytes, "transport_us",
                                  micros(t.transport), "layer_us", micros(t.layer)));
    return TR_OK;
}

static tr_status measure_rest(bench *b, json_t *summary)
{
    tr_measure_rest r;

    tr_status st = tr_measure_idle(&b->measure, (tr_time)b->o.idle * TR_SECOND, &r);
    if (st != TR_OK)
        return st;
    printf("idle for %d s: %.1f %% of a core; a token right after another %.2f ms, the first after "
           "it %.2f ms\n",
           (int)b->o.idle, r.cpu_percent, micros(r.warm) * 1e-3, micros(r.first) * 1e-3);
    json_object_set_new(summary, "idle",
                        json_pack("{s:f, s:f, s:f}", "cpu_percent", r.cpu_percent, "warm_ms",
                                  micros(r.warm) * 1e-3, "first_ms", micros(r.first) * 1e-3));
    return TR_OK;
}

static void show_memory(const bench *b, uint64_t resident_bytes, json_t *summary)
{
    tr_engine_stats s = tr_engine_get_stats(b->engine);
    double weights = (double)(s.dense_bytes + s.local_expert_bytes);
    double resident = (double)resident_bytes;

    printf("memory: %.1f MiB of weights, %.1f MiB resident after loading (%+.1f %%)\n",
           weights / MIB, resident / MIB, 100.0 * (resident / weights - 1.0));
    json_object_set_new(
        summary, "memory",
        json_pack("{s:f, s:f}", "weight_bytes", weights, "resident_bytes", resident));
}

static json_t *begin_summary(const bench *b, double read_seconds)
{
    const tr_limits *l = &b->measure.limits;
    const tr_compute *c = tr_engine_compute(b->engine);
    double load_seconds = tr_engine_get_stats(b->engine).load_seconds;
    char identity[32];

    snprintf(identity, sizeof identity, "%016llx", (unsigned long long)tr_gguf_identity(b->gguf));
    return json_pack("{s:o, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:O}",
                     "model", tr_json_text(tr_bytes_of(b->o.model)), "identity", identity, "kv",
                     tr_type_get(b->o.kv)->name, "kernels", c->kernels->name, "threads",
                     (int)tr_pool_threads(c->pool), "workers", (int)tr_engine_n_workers(b->engine),
                     "memory_gb_per_second", l->read_bytes * 1e-9, "int8_gop_per_second",
                     l->int8_ops * 1e-9, "float_gop_per_second", l->float_ops * 1e-9,
                     "bf16_gop_per_second", l->bf16_ops * 1e-9, "load_seconds", load_seconds,
                     "read_seconds", read_seconds, "load_times_reading",
                     load_seconds / read_seconds, "results", b->results);
}

static void show_limits(const bench *b, double read_seconds)
{
    const tr_limits *l = &b->measure.limits;
    const tr_compute *c = tr_engine_compute(b->engine);
    double load_seconds = tr_engine_get_stats(b->engine).load_seconds;

    printf("%zu threads, kernels %s, %u workers: memory %.1f GB/s, int8 %.0f, float %.0f",
           tr_pool_threads(c->pool), c->kernels->name, tr_engine_n_workers(b->engine),
           l->read_bytes * 1e-9, l->int8_ops * 1e-9, l->float_ops * 1e-9);
    if (l->bf16_ops > 0.0)
        printf(", bf16 %.0f", l->bf16_ops * 1e-9);
    printf(" GOP/s; loaded in %.2f s, %.1f times reading the file again\n", load_seconds,
           load_seconds / read_seconds);
}

static tr_status measure_and_write(bench *b, json_t *summary)
{
    tr_status st = measure_all(b);

    if (st == TR_OK)
        st = measure_trip(b, summary);
    if (st == TR_OK)
        st = measure_rest(b, summary);
    if (st == TR_OK)
        st = tr_bench_file_json(&b->json, summary);
    return st == TR_OK ? tr_bench_file_plot(&b->plot, b->results) : st;
}

/* What can't be written is said before anything is loaded. */
static tr_status open_files(bench *b)
{
    tr_status st = b->o.plot ? tr_bench_can_plot() : TR_OK;

    if (st == TR_OK)
        st = tr_bench_file_open(b->o.json, &b->json);
    return st == TR_OK ? tr_bench_file_open(b->o.plot, &b->plot) : st;
}

static tr_status run(bench *b)
{
    double read_seconds;

    tr_status st = open_files(b);
    if (st == TR_OK)
        st = open_engine(b);
    if (st != TR_OK)
        return st;
    b->measure.engine = b->engine;
    b->measure.repeats = (size_t)b->o.repeats;
    b->measure.steps = (size_t)b->o.steps;
    /* Measuring the limits takes a gigabyte for itself. */
    uint64_t resident = tr_memory_resident();
    st = tr_measure_read(&b->measure, b->gguf, &read_seconds);
    if (st == TR_OK)
        st = tr_limits_measure(tr_engine_compute(b->engine), &b->measure.limits);
    if (st != TR_OK)
        return st;
    json_t *summary = begin_summary(b, read_seconds);
    if (!summary)
        return tr_fail(TR_E_MEMORY, "bench: no memory");
    show_limits(b, read_seconds);
    show_memory(b, resident, summary);
    st = measure_and_write(b, summary);
    json_decref(summary);
    return st;
}

static void close_all(bench *b, tr_status st)
{
    bool had_engine = b->engine != NULL;

    tr_bench_file_close(&b->json);
    tr_bench_file_close(&b->plot);
    json_decref(b->results);
    tr_engine_close(&b->engine);
    tr_gguf_close(&b->gguf);
    free(b->measure.seen);
    tr_job_close(&b->job, st, had_engine);
}

/* ---- with workers ---------------------------------------------------------------------------- */

/* The same command again, without -w, as the coordinator of an mpirun job. */
static tr_status launch(const bench_options *o)
{
    char threads[32], repeats[32], steps[32], idle[32];
    const char *words[21] = { "-m",        o->model, "--threads", threads,
                              "--repeats", repeats,  "--steps",   steps,
                              "--idle",    idle,     "--kv",      tr_type_get(o->kv)->name };
    size_t n = 12;
    int exit_code = 0;

    snprintf(threads, sizeof threads, "%llu", (unsigned long long)o->threads);
    snprintf(repeats, sizeof repeats, "%llu", (unsigned long long)o->repeats);
    snprintf(steps, sizeof steps, "%llu", (unsigned long long)o->steps);
    snprintf(idle, sizeof idle, "%llu", (unsigned long long)o->idle);
    if (o->isa) {
        words[n++] = "--isa";
        words[n++] = o->isa;
    }
    if (o->by_zmq) {
        words[n++] = "--transport";
        words[n++] = "zmq";
    }
    if (o->json) {
        words[n++] = "--json";
        words[n++] = o->json;
    }
    if (o->plot) {
        words[n++] = "--plot";
        words[n++] = o->plot;
    }
    tr_status st = tr_launch_command(&(tr_launch_other){ .command = "bench",
                                                         .words = words,
                                                         .n_workers = (uint32_t)o->workers,
                                                         .worker_binary = o->worker_binary,
                                                         .worker_threads = o->threads },
                                     &exit_code);
    return st == TR_OK ? tr_launch_status(exit_code) : st;
}

tr_status tr_command_bench(int argc, char **argv)
{
    bench b = { .o = { .repeats = 3, .steps = 16, .idle = 5, .kv = TR_TYPE_F16 } };
    bool done = false;

    if (argc > 1 && strcmp(argv[1], "--serve") == 0)
        return tr_command_bench_serve(argc, argv);
    tr_status st = parse(argc, argv, &b.o, &done);
    if (st != TR_OK || done)
        return st;
    if (b.o.compares)
        return tr_bench_compare(b.o.compared[0], b.o.compared[1]);
    if (b.o.workers > 0)
        return launch(&b.o);
    tr_interrupt_watch();
    b.results = json_array();
    st = b.results ? run(&b) : tr_fail(TR_E_MEMORY, "bench: no memory");
    close_all(&b, st);
    return st;
}
