/* bench_serve.c - options, one load, a table and JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/bench_serve.h"

#include "base/interrupt.h"
#include "coordinator/cluster/job.h"
#include "coordinator/cluster/launch.h"
#include "coordinator/commands/bench_file.h"
#include "coordinator/commands/json_text.h"
#include "coordinator/commands/option.h"
#include "coordinator/engine/load.h"
#include "proto/limits.h"

#include <jansson.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LENGTH = 65536, MAX_CONCURRENT = 1024, PERCENT = 100, SHARED_TOKENS = 64 };

#define UNSET UINT64_MAX

typedef struct {
    const char *model, *json, *worker_binary;
    uint64_t threads, workers, rate, concurrent, seconds, prompt, answer, shared, shared_tokens;
    uint64_t long_prompt, seed, batch, ctx;
    tr_type kv;
} options;

typedef struct {
    options o;
    tr_job job;
    tr_gguf *gguf;
    tr_engine *engine;
    tr_bench_file json;
} bench;

static const char help[] =
    "usage: troupe bench --serve -m FILE [options]\n"
    "\n"
    "Sends requests as many users would, in this process, and measures what they wait for: the\n"
    "first token, each further one. Requests come at random at --rate a minute (open loop), or,\n"
    "without it, so that --concurrent of them are always under way (closed loop).\n"
    "\n"
    "  -m, --model FILE    the model\n"
    "  -w, --workers N     launch N workers with mpirun, which host the experts\n"
    "  --worker-binary F   the worker's program (troupe-worker beside troupe)\n"
    "  --threads N         threads of this process, and of each worker that -w launches (0: all\n"
    "                      cores)\n"
    "  --kv TYPE           of keys and values: f16, f32 or q8_0 (f16)\n"
    "  --rate N            requests a minute; 0: closed loop (0)\n"
    "  --concurrent N      answers at once at most (16)\n"
    "  --seconds N         to send requests (30)\n"
    "  --prompt N          tokens of a prompt, the mean of an exponential distribution (64)\n"
    "  --answer N          tokens of an answer, likewise (64)\n"
    "  --shared PERCENT    of the prompts that begin with the same tokens (0)\n"
    "  --shared-tokens N   how many tokens these are (64, or what a quarter of --ctx holds)\n"
    "  --long N            a further prompt of N tokens every two seconds, one at a time (0)\n"
    "  --batch N           rows of one step (256)\n"
    "  --ctx N             tokens of one prompt and its answer (512)\n"
    "  --seed N            of lengths and tokens (1)\n"
    "  --json FILE         write the results as JSON too\n"
    "  -h, --help          show this\n";

static const struct {
    const char *name;
    size_t offset;
    uint64_t low, high;
} numbers[] = {
    { "workers", offsetof(options, workers), 0, TR_MAX_WORKERS },
    { "threads", offsetof(options, threads), 0, TR_POOL_MAX_THREADS },
    { "rate", offsetof(options, rate), 0, 1000000 },
    { "concurrent", offsetof(options, concurrent), 1, MAX_CONCURRENT },
    { "seconds", offsetof(options, seconds), 1, 86400 },
    { "prompt", offsetof(options, prompt), 1, MAX_LENGTH },
    { "answer", offsetof(options, answer), 1, MAX_LENGTH },
    { "shared", offsetof(options, shared), 0, PERCENT },
    { "shared-tokens", offsetof(options, shared_tokens), 0, MAX_LENGTH },
    { "long", offsetof(options, long_prompt), 0, MAX_LENGTH },
    { "batch", offsetof(options, batch), 1, TR_MAX_ROWS },
    { "ctx", offsetof(options, ctx), 8, 1 << 24 },
    { "seed", offsetof(options, seed), 0, UINT32_MAX },
};

enum { N_NUMBERS = sizeof numbers / sizeof numbers[0], FIRST = 256 };

static tr_status settle(options *o)
{
    uint64_t quarter = (o->ctx - 1) / 4;

    if (o->shared_tokens == UNSET)
        o->shared_tokens = quarter < SHARED_TOKENS ? quarter : SHARED_TOKENS;
    if (!o->model)
        return tr_fail(TR_E_USAGE, "no model: give -m FILE");
    if (o->shared_tokens * 4 >= o->ctx)
        return tr_fail(TR_E_USAGE, "--shared-tokens %llu: must be under a quarter of --ctx %llu",
                       (unsigned long long)o->shared_tokens, (unsigned long long)o->ctx);
    if (o->long_prompt + 2 > o->ctx)
        return tr_fail(TR_E_USAGE, "--long %llu: does not fit into --ctx %llu",
                       (unsigned long long)o->long_prompt, (unsigned long long)o->ctx);
    return TR_OK;
}

static tr_status set(int c, options *o, const char *word, bool *done)
{
    if (c >= FIRST) {
        size_t i = (size_t)(c - FIRST);
        return tr_option_number(numbers[i].name, optarg, numbers[i].low, numbers[i].high,
                                (uint64_t *)(void *)((char *)o + numbers[i].offset));
    }
    switch (c) {
    case 'm':
        o->model = optarg;
        return TR_OK;
    case 'w':
        return set(FIRST, o, word, done);
    case 'j':
        o->json = optarg;
        return TR_OK;
    case 'b':
        o->worker_binary = optarg;
        return TR_OK;
    case 'k':
        return tr_option_kv(optarg, &o->kv);
    case 'h':
        fputs(help, stdout);
        *done = true;
        return TR_OK;
    case ':':
        return tr_fail(TR_E_USAGE, "%s needs a value; see troupe bench --serve --help", word);
    default:
        return tr_fail(TR_E_USAGE, "unknown option %s; see troupe bench --serve --help", word);
    }
}

static tr_status parse(int argc, char **argv, options *o, bool *done)
{
    enum { N_OTHERS = 5 };
    struct option longs[N_NUMBERS + N_OTHERS + 1] = { { "model", required_argument, NULL, 'm' },
                                                      { "json", required_argument, NULL, 'j' },
                                                      { "help", no_argument, NULL, 'h' },
                                                      { "worker-binary", required_argument, NULL,
                                                        'b' },
                                                      { "kv", required_argument, NULL, 'k' } };
    tr_status st = TR_OK;
    int c;

    for (size_t i = 0; i < N_NUMBERS; i++)
        longs[i + N_OTHERS] =
            (struct option){ numbers[i].name, required_argument, NULL, FIRST + (int)i };
    optind = 2;
    opterr = 0;
    while (st == TR_OK && !*done && (c = getopt_long(argc, argv, ":m:w:h", longs, NULL)) != -1)
        st = set(c, o, argv[optind - 1], done);
    if (st == TR_OK && !*done && optind < argc)
        st = tr_fail(TR_E_USAGE, "unexpected argument \"%.80s\"", argv[optind]);
    return st == TR_OK && !*done ? settle(o) : st;
}

/* ---- measuring ---------------------------------------------------------------------------------
 */

static tr_status open_engine(bench *b)
{
    tr_engine_options e = tr_engine_defaults();
    tr_job_options job = { .join_timeout = e.join_timeout };

    tr_status st = tr_job_exists() ? tr_job_open(&job, &b->job) : TR_OK;
    if (st == TR_OK)
        st = tr_gguf_open(b->o.model, &b->gguf);
    if (st != TR_OK)
        return st;
    e.gguf = b->gguf;
    e.threads = (size_t)b->o.threads;
    size_t at_once = (size_t)b->o.concurrent + (b->o.long_prompt > 0);
    e.max_rows = b->o.batch > at_once ? (size_t)b->o.batch : at_once;
    e.max_logits = at_once;
    e.n_sequences = at_once;
    e.context = (size_t)b->o.ctx;
    e.kv_type = b->o.kv;
    e.transport = b->job.data;
    e.inviter = b->job.inviter;
    e.n_workers = b->job.data ? b->job.data->n_peers : 0;
    e.progress = isatty(STDERR_FILENO) != 0;
    return tr_engine_open(&e, &b->engine);
}

static void show_times(const char *what, const tr_load_times *t)
{
    printf("%-14s p50 %9.2f ms   p95 %9.2f ms   p99 %9.2f ms   of %zu\n", what, 1e3 * t->p50,
           1e3 * t->p95, 1e3 * t->p99, t->n);
}

static double share(tr_time part, const tr_serving_stats *s)
{
    tr_time all = s->in_steps + s->in_drawing + s->in_schedule;

    return all > 0 ? 100.0 * (double)part / (double)all : 0.0;
}

static void show(const tr_load_result *r)
{
    const tr_serving_stats *s = &r->serving;

    printf("%zu requests: %zu finished, %zu refused, %zu failed, in %.1f s\n"
           "%.1f tokens/s written, %.1f tokens/s read, %.1f rows a step\n",
           r->sent, r->finished, r->refused, r->failed, r->seconds,
           (double)r->answer_tokens / r->seconds, (double)r->prompt_tokens / r->seconds,
           s->steps ? (double)s->rows / (double)s->steps : 0.0);
    show_times("first token", &r->first_token);
    show_times("between tokens", &r->between);
    printf("prompts found in the cache: %.0f %%; sent back for want of room: %llu\n"
           "time: model %.1f %%, drawing %.1f %%, scheduling %.1f %%\n",
           s->prefix_tokens ? 100.0 * (double)s->prefix_hits / (double)s->prefix_tokens : 0.0,
           (unsigned long long)s->preempted, share(s->in_steps, s), share(s->in_drawing, s),
           share(s->in_schedule, s));
}

static json_t *times_json(const tr_load_times *t)
{
    return json_pack("{s:f, s:f, s:f, s:I}", "p50", t->p50, "p95", t->p95, "p99", t->p99, "n",
                     (json_int_t)t->n);
}

static tr_status write_json(bench *b, const tr_load_result *r)
{
    const tr_serving_stats *s = &r->serving;
    json_t *o = json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:f, s:f, s:f}", "model",
        tr_json_text(tr_bytes_of(b->o.model)), "sent", (json_int_t)r->sent, "finished",
        (json_int_t)r->finished, "refused", (json_int_t)r->refused, "failed", (json_int_t)r->failed,
        "seconds", r->seconds, "written_per_second", (double)r->answer_tokens / r->seconds,
        "read_per_second", (double)r->prompt_tokens / r->seconds, "first_token_seconds",
        times_json(&r->first_token), "between_tokens_seconds", times_json(&r->between),
        "model_percent", share(s->in_steps, s), "drawing_percent", share(s->in_drawing, s),
        "scheduling_percent", share(s->in_schedule, s));

    tr_status st = o ? tr_bench_file_json(&b->json, o) : tr_fail(TR_E_MEMORY, "bench: no memory");
    json_decref(o);
    return st;
}

static tr_status run(bench *b)
{
    tr_load_options l = { .rate = (double)b->o.rate / 60.0,
                          .concurrent = (size_t)b->o.concurrent,
                          .seconds = (double)b->o.seconds,
                          .prompt_mean = (double)b->o.prompt,
                          .answer_mean = (double)b->o.answer,
                          .shared = (double)b->o.shared / PERCENT,
                          .shared_tokens = b->o.shared ? (size_t)b->o.shared_tokens : 0,
                          .long_prompt = (size_t)b->o.long_prompt,
                          .seed = b->o.seed };
    tr_load_result r;

    tr_status st = tr_bench_file_open(b->o.json, &b->json);
    if (st == TR_OK)
        st = open_engine(b);
    if (st == TR_OK)
        st = tr_load_run(b->engine, &l, &r);
    if (st == TR_OK && tr_interrupted())
        st = TR_E_INTERRUPTED;
    if (st != TR_OK)
        return st;
    show(&r);
    return write_json(b, &r);
}

/* The same command again, without -w, as the coordinator of an mpirun job. */
static tr_status launch(const options *o)
{
    char texts[N_NUMBERS][48];
    const char *words[N_NUMBERS + 8] = { "--serve", "--model", o->model, "--kv",
                                         tr_type_get(o->kv)->name };
    size_t n = 5;
    int exit_code = 0;

    for (size_t i = 1; i < N_NUMBERS; i++) { /* all but workers */
        uint64_t v;
        memcpy(&v, (const char *)o + numbers[i].offset, sizeof v);
        snprintf(texts[i], sizeof texts[i], "--%s=%llu", numbers[i].name, (unsigned long long)v);
        words[n++] = texts[i];
    }
    if (o->json) {
        words[n++] = "--json";
        words[n++] = o->json;
    }
    tr_status st = tr_launch_command(&(tr_launch_other){ .command = "bench",
                                                         .words = words,
                                                         .n_workers = (uint32_t)o->workers,
                                                         .worker_binary = o->worker_binary,
                                                         .worker_threads = o->threads },
                                     &exit_code);
    return st == TR_OK ? tr_launch_status(exit_code) : st;
}

tr_status tr_command_bench_serve(int argc, char **argv)
{
    bench b = { .o = { .concurrent = 16,
                       .seconds = 30,
                       .prompt = 64,
                       .answer = 64,
                       .shared_tokens = UNSET,
                       .batch = 256,
                       .ctx = 512,
                       .seed = 1,
                       .kv = TR_TYPE_F16 } };
    bool done = false;

    tr_status st = parse(argc, argv, &b.o, &done);
    if (st != TR_OK || done)
        return st;
    if (b.o.workers > 0)
        return launch(&b.o);
    tr_interrupt_watch();
    st = run(&b);
    bool had_engine = b.engine != NULL;
    tr_bench_file_close(&b.json);
    tr_engine_close(&b.engine);
    tr_gguf_close(&b.gguf);
    tr_job_close(&b.job, st, had_engine);
    return st;
}
