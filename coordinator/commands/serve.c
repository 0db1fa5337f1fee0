/* serve.c - open everything, serve until told to stop, close in the reverse order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/serve.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "coordinator/cluster/config.h"
#include "coordinator/cluster/job.h"
#include "coordinator/cluster/launch.h"
#include "coordinator/cluster/replacement.h"
#include "coordinator/commands/serve_options.h"
#include "coordinator/engine/need.h"
#include "coordinator/serve/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_CONTEXT = 8192,
    DEFAULT_TOKENS = 256, /* of a completion that does not say */
    MAX_PEM = 1 << 20,
};

typedef struct {
    tr_serve_options o;
    tr_job job;
    tr_gguf *gguf;
    tr_model_config config;
    tr_tokenizer *tokenizer;
    tr_chat *chat;
    tr_guide_vocab *vocab;
    tr_engine *engine;
    tr_serving *serving;
    tr_serve_state *state;
    tr_keys *keys;
    tr_fault_plan *faults; /* NULL: none */
    char *cert, *cert_key; /* PEM */
    tr_http *http;
    tr_exchange_host host;
    char name[128];
    size_t context;
    tr_time drain_until; /* 0: not asked to stop */
} server;

/* ---- open
 * ---------------------------------------------------------------------------------------- */

static tr_status read_pem(const char *path, char **out)
{
    FILE *f = path ? fopen(path, "re") : NULL;

    if (!path)
        return TR_OK;
    if (!f)
        return tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
    char *text = calloc(1, MAX_PEM + 1);
    size_t n = text ? fread(text, 1, MAX_PEM + 1, f) : 0;
    bool is_bad = ferror(f) != 0;
    fclose(f);
    if (!text || n == 0 || n > MAX_PEM || is_bad) {
        free(text);
        return tr_fail(TR_E_CONFIG, "%s: is no PEM file of at most %d bytes", path, MAX_PEM);
    }
    *out = text;
    return TR_OK;
}

/* The name that the file gives its model, or the file's own without .gguf; of bytes that need no
 * escape in a URL or a header. */
static void choose_name(server *s)
{
    tr_bytes name = { NULL, 0 };
    const char *slash = strrchr(s->o.model, '/');
    const char *base = slash ? slash + 1 : s->o.model;
    size_t n = strlen(base);

    if (n > 5 && strcmp(base + n - 5, ".gguf") == 0)
        n -= 5;
    if (s->o.name)
        name = tr_bytes_of(s->o.name);
    else
        name = (tr_bytes){ (const uint8_t *)base, n };
    size_t used = 0;
    for (size_t i = 0; i < name.size && used < sizeof s->name - 1; i++) {
        char c = (char)name.data[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                        (c >= 'A' && c <= 'Z') || strchr("-_.:/", c) != NULL;
        s->name[used++] = is_plain && c != '\0' ? c : '-';
    }
    s->name[used] = '\0';
}

static tr_status open_text(server *s)
{
    tr_status st = s->o.api_keys ? tr_keys_load(s->o.api_keys, &s->keys) : TR_OK;

    if (st == TR_OK)
        st = read_pem(s->o.tls_cert, &s->cert);
    if (st == TR_OK)
        st = read_pem(s->o.tls_key, &s->cert_key);
    if (st == TR_OK)
        st = tr_gguf_open(s->o.model, &s->gguf);
    if (st == TR_OK)
        st = tr_model_config_read(s->gguf, &s->config);
    if (st == TR_OK)
        st = tr_tokenizer_new(s->gguf, &s->tokenizer);
    if (st == TR_OK)
        st = tr_chat_open(s->gguf, s->tokenizer, s->o.chat_template, &s->chat);
    if (st == TR_OK)
        st = tr_guide_vocab_new(s->tokenizer, &s->vocab);
    if (st != TR_OK)
        return st;
    choose_name(s);
    s->context = s->o.ctx                              ? (size_t)s->o.ctx
                 : s->config.context < DEFAULT_CONTEXT ? s->config.context
                                                       : DEFAULT_CONTEXT;
    if (s->o.ctx > s->config.context)
        tr_log(TR_LOG_WARN, "--ctx %llu: the model was trained for %u tokens",
               (unsigned long long)s->o.ctx, s->config.context);
    if (s->o.cache && s->o.cache < s->context) {
        if (s->o.ctx)
            tr_log(TR_LOG_WARN, "--ctx %llu: --cache %llu has room for no more than that",
                   (unsigned long long)s->o.ctx, (unsigned long long)s->o.cache);
        s->context = (size_t)s->o.cache;
    }
    return TR_OK;
}

/* Positions of the cache: what was asked for; else what an eighth of this machine's memory holds,
 * but no more than all sequences could fill, and at least one. */
static size_t cache_positions(const server *s)
{
    size_t most = (size_t)s->o.parallel * s->context;
    uint64_t memory = tr_memory_physical();
    tr_kv_shape shape = tr_need_kv_shape(&s->config, s->o.kv);
    size_t page = tr_kv_page_size(&shape) + tr_kv_window_page_size(&shape) / 8; /* need.c */

    if (s->o.cache)
        return (size_t)s->o.cache;
    if (page == 0) /* said by the cache itself */
        return most;
    uint64_t fits = memory / 8 / page * TR_KV_PAGE;
    if (fits > most)
        return most;
    return fits < s->context ? s->context : (size_t)fits;
}

static tr_status open_engine(server *s)
{
    tr_engine_options e = tr_engine_defaults();

    e.gguf = s->gguf;
    e.threads = (size_t)s->o.threads;
    e.isa = s->o.isa;
    e.kv_type = s->o.kv;
    e.ignores_groups = s->o.ignores_groups;
    e.max_rows = (size_t)(s->o.batch > s->o.parallel ? s->o.batch : s->o.parallel);
    e.max_logits = (size_t)s->o.parallel;
    e.n_sequences = (size_t)s->o.parallel;
    e.context = s->context;
    e.kv_positions = cache_positions(s);
    e.transport = s->job.data;
    e.inviter = s->job.inviter;
    e.invite_dir = s->o.invite_dir;
    e.n_outside = (uint32_t)s->o.outside;
    e.n_workers = s->job.data ? s->job.data->n_peers : 0;
    e.listen = s->o.listen;
    e.placement = s->o.n_experts         ? TR_PLACE_COUNTS
                  : s->o.places_rotating ? TR_PLACE_ROTATE
                                         : TR_PLACE_EVEN;
    e.expert_counts = s->o.n_experts ? s->o.experts : NULL;
    e.n_expert_counts = s->o.n_experts;
    e.join_timeout = (tr_time)s->o.join_ms * TR_MS;
    e.suspect_timeout = (tr_time)s->o.suspect_ms * TR_MS;
    e.silence_timeout = (tr_time)s->o.silence_ms * TR_MS;
    e.faults = s->faults;
    e.replacement = tr_replacement_choice(s->o.replacement, &e.replaces_here);
    e.memory = s->o.memory_mib << 20;
    e.worker_memory = s->o.worker_memory_mib << 20;
    e.coordinator_memory = s->o.coordinator_memory_mib << 20;
    e.share_timeout = (tr_time)s->o.share_ms * TR_MS;
    e.progress = isatty(STDERR_FILENO) != 0;
    e.on_picks = tr_serving_picks;
    e.ctx = &s->serving;
    return tr_engine_open(&e, &s->engine);
}

/* ---- serve
 * --------------------------------------------------------------------------------------- */

/* The engine's thread passes here some times a second. */
static void tick(void *ctx)
{
    server *s = ctx;

    if (s->state)
        tr_serve_state_renew(s->state);
    if (!tr_interrupt_asked())
        return;
    if (s->drain_until == 0) {
        tr_log(TR_LOG_INFO,
               "finishing what has begun, for at most %llu s; a second signal ends at "
               "once",
               (unsigned long long)s->o.drain_s);
        tr_serve_state_event(s->state, "warning", "the server was told to stop");
        s->drain_until = tr_deadline_after(tr_now(), (tr_time)s->o.drain_s * TR_SECOND);
        tr_serving_drain(s->serving);
        if (s->http)
            tr_http_quiesce(s->http);
    }
    if (tr_now() >= s->drain_until || tr_interrupted())
        tr_serving_stop(s->serving);
}

/* Bytes of the longest text that the context could hold. */
static size_t longest_text(const server *s)
{
    size_t longest = 1, most;

    for (size_t i = 0; i < tr_tokenizer_n_vocab(s->tokenizer); i++) {
        size_t size = tr_tokenizer_piece(s->tokenizer, (uint32_t)i).size;
        longest = size > longest ? size : longest;
    }
    return tr_mul_size(s->context, longest, &most) ? most : SIZE_MAX;
}

static tr_status open_server(server *s)
{
    tr_serving_options so = { .engine = s->engine,
                              .max_running = (size_t)s->o.parallel,
                              .max_waiting = (size_t)s->o.queue,
                              .tick = tick,
                              .ctx = s };
    tr_status st = tr_serving_new(&so, &s->serving);

    if (st == TR_OK)
        st = tr_serve_state_new(s->engine, s->name, &s->state);
    if (st != TR_OK)
        return st;
    s->host = (tr_exchange_host){
        .model = { s->name, s->tokenizer, s->chat, s->context, DEFAULT_TOKENS, longest_text(s) },
        .serving = s->serving,
        .vocab = s->vocab,
    };
    tr_http_options ho = {
        .address = s->o.host,
        .port = (uint16_t)s->o.port,
        .cert = s->cert,
        .key = s->cert_key,
        .names = s->o.host_names,
        .keys = s->keys,
        .max_body = (size_t)s->o.max_body_kib * 1024,
        .max_connections = (unsigned)s->o.connections,
        .idle_seconds = (unsigned)s->o.idle_s,
        .host = &s->host,
        .state = s->state,
    };
    return tr_http_open(&ho, &s->http);
}

static tr_status serve(server *s)
{
    bool is_v6 = strchr(s->o.host, ':') != NULL;

    tr_interrupt_defer();
    tr_log(TR_LOG_INFO,
           "serving %s on %s://%s%s%s:%u: %llu answers at once, %zu tokens each, %zu in memory; "
           "conversations as %s",
           s->name, s->cert ? "https" : "http", is_v6 ? "[" : "", s->o.host, is_v6 ? "]" : "",
           tr_http_port(s->http), (unsigned long long)s->o.parallel, s->context,
           tr_engine_kv_count(s->engine).n * TR_KV_PAGE, tr_chat_name(s->chat));
    tr_status st = tr_serving_run(s->serving);
    if (st == TR_E_INTERRUPTED && s->drain_until != 0)
        st = TR_OK; /* who asked twice knows that answers were cut */
    return st;
}

static void close_all(server *s, tr_status st)
{
    bool had_engine = s->engine != NULL;

    tr_http_close(&s->http);
    tr_serve_state_free(&s->state);
    tr_serving_free(&s->serving);
    tr_engine_close(&s->engine);
    tr_fault_plan_free(&s->faults);
    tr_guide_vocab_free(&s->vocab);
    tr_chat_close(&s->chat);
    tr_tokenizer_free(&s->tokenizer);
    tr_gguf_close(&s->gguf);
    tr_keys_free(&s->keys);
    free(s->cert);
    free(s->cert_key);
    tr_job_close(&s->job, st, had_engine);
}

static tr_status coordinate(server *s)
{
    tr_job_options job = { .listen = s->o.listen,
                           .join_timeout = (tr_time)s->o.join_ms * TR_MS,
                           .by_zmq = s->o.by_zmq || s->o.outside > 0,
                           .n_outside = (uint32_t)s->o.outside };

    tr_interrupt_watch();
    bool has_workers = tr_job_exists() || s->o.outside > 0;
    tr_status st = has_workers ? tr_job_open(&job, &s->job) : TR_OK;
    if (st == TR_OK)
        st = tr_fault_plan_open(s->o.faults, s->job.data ? s->job.data->n_peers : 0, &s->faults);
    if (st == TR_OK)
        st = open_text(s);
    if (st == TR_OK)
        st = open_engine(s);
    if (st == TR_OK)
        st = open_server(s);
    if (st == TR_OK)
        st = serve(s);
    if (s->engine)
        tr_engine_print_faults(s->engine);
    if (st == TR_E_INTERRUPTED)
        tr_log(TR_LOG_WARN, "interrupted");
    close_all(s, st);
    return st;
}

/* ---- around it
 * ----------------------------------------------------------------------------------- */

static tr_status launch(const tr_serve_options *o, int argc, char **argv)
{
    tr_cluster_config *config = NULL;
    tr_fault_plan *faults = NULL;
    const char **words = NULL;
    int exit_code = 0;
    tr_status st = o->cluster ? tr_cluster_config_load(o->cluster, &config) : TR_OK;

    if (st == TR_OK && o->faults) /* a mistake is said before anything starts */
        st = tr_fault_plan_load(o->faults, &faults);
    tr_fault_plan_free(&faults);
    if (st == TR_OK)
        st = tr_serve_options_words(argc, argv, &words);
    if (st == TR_OK)
        st = tr_launch_command(&(tr_launch_other){ .command = "serve",
                                                   .words = words,
                                                   .n_workers = (uint32_t)o->workers,
                                                   .cluster = config,
                                                   .worker_binary = o->worker_binary,
                                                   .is_gentle = true },
                               &exit_code);
    free(words);
    tr_cluster_config_free(&config);
    return st == TR_OK ? tr_launch_status(exit_code) : st;
}

static tr_status make_key(const char *path)
{
    char key[TR_KEY_TEXT];

    tr_status st = tr_keys_make(path, key);
    if (st == TR_OK && (puts(key) < 0 || fflush(stdout) != 0))
        st = tr_fail(TR_E_IO, "standard output: %s", strerror(errno));
    return st;
}

tr_status tr_command_serve(int argc, char **argv)
{
    server *s = calloc(1, sizeof *s);
    bool done = false;

    if (!s)
        return tr_fail(TR_E_MEMORY, "serve: no memory");
    tr_status st = tr_serve_options_parse(argc, argv, &s->o, &done);
    if (st == TR_OK && !done) {
        if (s->o.new_key)
            st = make_key(s->o.new_key);
        else if (s->o.workers > 0 || s->o.cluster)
            st = launch(&s->o, argc, argv);
        else
            st = coordinate(s);
    }
    free(s);
    return st;
}
