/* state.c - copy under a lock, show as JSON or as metrics.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/state.h"

#include "base/host.h"
#include "base/memory.h"
#include "coordinator/serve/api.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_EVENTS = 100, TEXT = 200 };

static const tr_time renew_period = 200 * TR_MS;

typedef struct {
    double at;
    char level[12], text[TEXT];
} event;

struct tr_serve_state {
    tr_engine *engine;
    char name[TEXT], host[TEXT];
    tr_time began, renewed;
    size_t n_workers;
    uint32_t *home; /* [n_layers][n_experts] peer; constant */

    pthread_mutex_t lock;
    uint32_t *holder;       /* [n_layers][n_experts] peer */
    tr_worker_view *worker; /* [n_workers] */
    double *since;          /* [n_workers] of its state */
    tr_engine_stats engine_stats;
    uint64_t *peer_rows, *peer_busy; /* [n_workers + 1] */
    event events[MAX_EVENTS];
    size_t n_events; /* all there ever were */
};

static double wall_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void renew_holders(tr_serve_state *s)
{
    const tr_model_config *c = &tr_engine_model(s->engine)->config;

    for (uint32_t l = 0; l < c->n_layers; l++)
        for (uint32_t x = 0; x < c->n_experts; x++)
            s->holder[l * c->n_experts + x] = tr_engine_holder(s->engine, l, x);
}

tr_status tr_serve_state_new(tr_engine *e, const char *model_name, tr_serve_state **out)
{
    const tr_model_config *c = &tr_engine_model(e)->config;
    tr_serve_state *s = calloc(1, sizeof *s);
    size_t n = tr_engine_n_workers(e);

    if (!s)
        return tr_fail(TR_E_MEMORY, "serve: no memory");
    s->engine = e;
    s->began = tr_now();
    s->n_workers = n;
    snprintf(s->name, sizeof s->name, "%s", model_name);
    tr_host_name(s->host, sizeof s->host);
    pthread_mutex_init(&s->lock, NULL);
    s->home = calloc((size_t)c->n_layers * c->n_experts, sizeof *s->home);
    s->holder = calloc((size_t)c->n_layers * c->n_experts, sizeof *s->holder);
    s->worker = calloc(n + 1, sizeof *s->worker);
    s->since = calloc(n + 1, sizeof *s->since);
    s->peer_rows = calloc(n + 1, sizeof *s->peer_rows);
    s->peer_busy = calloc(n + 1, sizeof *s->peer_busy);
    if (!s->home || !s->holder || !s->worker || !s->since || !s->peer_rows || !s->peer_busy) {
        tr_serve_state_free(&s);
        return tr_fail(TR_E_MEMORY, "serve: no memory");
    }
    for (uint32_t l = 0; l < c->n_layers; l++)
        for (uint32_t x = 0; x < c->n_experts; x++)
            s->home[(size_t)l * c->n_experts + x] = tr_engine_home(e, l, x);
    renew_holders(s);
    for (size_t i = 0; i < n; i++)
        s->since[i] = wall_clock();
    tr_serve_state_renew(s);
    tr_serve_state_event(s, "info", "ready to serve");
    *out = s;
    return TR_OK;
}

void tr_serve_state_free(tr_serve_state **state)
{
    tr_serve_state *s = *state;

    if (!s)
        return;
    free(s->peer_busy);
    free(s->peer_rows);
    free(s->since);
    free(s->worker);
    free(s->holder);
    free(s->home);
    pthread_mutex_destroy(&s->lock);
    free(s);
    *state = NULL;
}

static void add_event(tr_serve_state *s, const char *level, const char *text)
{
    event *e = &s->events[s->n_events++ % MAX_EVENTS];

    e->at = wall_clock();
    snprintf(e->level, sizeof e->level, "%s", level);
    snprintf(e->text, sizeof e->text, "%s", text);
}

void tr_serve_state_event(tr_serve_state *s, const char *level, const char *text)
{
    pthread_mutex_lock(&s->lock);
    add_event(s, level, text);
    pthread_mutex_unlock(&s->lock);
}

/* What happened to a worker, for those who look at the page. */
static void tell_change(tr_serve_state *s, size_t i, const tr_worker_view *now, bool is_another)
{
    const char *before = s->worker[i].state;
    char text[TEXT];

    if (!before)
        return;
    if (is_another) /* between two looks it was lost and replaced */
        snprintf(text, sizeof text, "worker %zu was lost: process %u has its place", i + 1,
                 now->pid);
    else if (now->why[0])
        snprintf(text, sizeof text, "worker %zu %.150s", i + 1, now->why);
    else
        snprintf(text, sizeof text, "worker %zu: %s", i + 1, now->state);
    add_event(s,
              strcmp(now->state, "lost") == 0 ? "error"
              : now->why[0]                   ? "warning"
                                              : "info",
              text);
}

void tr_serve_state_renew(tr_serve_state *s)
{
    tr_time now = tr_now();

    if (s->renewed != 0 && now - s->renewed < renew_period)
        return;
    s->renewed = now;
    pthread_mutex_lock(&s->lock);
    uint64_t moved = s->engine_stats.recovery.experts_moved;
    s->engine_stats = tr_engine_get_stats(s->engine);
    for (size_t i = 0; i <= s->n_workers; i++) {
        s->peer_rows[i] = s->engine_stats.dispatch.peer_rows[i];
        s->peer_busy[i] = s->engine_stats.dispatch.peer_busy[i];
    }
    for (size_t i = 0; i < s->n_workers; i++) {
        tr_worker_view v = tr_engine_worker(s->engine, (uint32_t)i + 1);
        bool is_another = s->worker[i].pid != 0 && v.pid != 0 && s->worker[i].pid != v.pid;
        if (is_another || strcmp(v.state, s->worker[i].state ? s->worker[i].state : "") != 0) {
            s->since[i] = wall_clock();
            tell_change(s, i, &v, is_another);
        }
        s->worker[i] = v;
    }
    if (moved != s->engine_stats.recovery.experts_moved)
        renew_holders(s);
    pthread_mutex_unlock(&s->lock);
}

/* The first worker that others compute for, and why; empty if there is none. */
static void find_reason(tr_serve_state *s, char *out, size_t size)
{
    size_t n = 0;

    out[0] = '\0';
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_workers; i++)
        if (s->worker[i].why[0] && n++ == 0)
            snprintf(out, size, "worker %zu %.150s", i + 1, s->worker[i].why);
    pthread_mutex_unlock(&s->lock);
    if (n > 1 && strlen(out) < size)
        snprintf(out + strlen(out), size - strlen(out), "; and %zu more", n - 1);
}

json_t *tr_serve_state_health(tr_serve_state *s, tr_serving *serving, unsigned *http)
{
    tr_serving_stats stats;
    char reason[TEXT];

    tr_serving_get_stats(serving, &stats, NULL, NULL);
    *http = stats.is_draining ? 503 : 200;
    if (stats.is_draining)
        return json_pack("{s:s, s:s}", "status", "draining", "reason",
                         "the server was told to stop");
    find_reason(s, reason, sizeof reason);
    if (reason[0])
        return json_pack("{s:s, s:o}", "status", "degraded", "reason",
                         tr_api_text(tr_bytes_of(reason)));
    return json_pack("{s:s, s:n}", "status", "ready", "reason");
}

/* ---- /cluster -------------------------------------------------------------------------------- */

/* A row a layer, as long as the layer has experts: a dense one has one. */
static json_t *table(const tr_serve_state *s, const uint64_t *cells)
{
    const tr_model_config *c = &tr_engine_model(s->engine)->config;
    json_t *rows = json_array();

    for (uint32_t l = 0; l < c->n_layers; l++) {
        json_t *row = json_array();
        for (uint32_t x = 0; x < tr_engine_n_experts(s->engine, l); x++)
            json_array_append_new(row, json_integer((json_int_t)cells[l * c->n_experts + x]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *holders(const tr_serve_state *s)
{
    const tr_model_config *c = &tr_engine_model(s->engine)->config;
    json_t *rows = json_array();

    for (uint32_t l = 0; l < c->n_layers; l++) {
        json_t *row = json_array();
        for (uint32_t x = 0; x < tr_engine_n_experts(s->engine, l); x++)
            json_array_append_new(row, json_integer(s->holder[l * c->n_experts + x]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static double seconds(tr_time t)
{
    return (double)t / (double)TR_SECOND;
}

static json_t *worker_json(const tr_serve_state *s, size_t i)
{
    const tr_worker_view *w = &s->worker[i];

    return json_pack(
        "{s:I, s:s, s:I, s:s, s:o?, s:f, s:I, s:I, s:I, s:I, s:f, s:I, s:I}", "rank",
        (json_int_t)(i + 1), "host", w->host ? w->host : "", "pid", (json_int_t)w->pid, "state",
        w->state, "reason", w->why[0] ? tr_api_text(tr_bytes_of(w->why)) : NULL, "since",
        s->since[i], "memory_bytes", (json_int_t)w->stats.resident, "expert_bytes",
        (json_int_t)w->expert_bytes, "experts", (json_int_t)w->n_experts, "rows",
        (json_int_t)s->peer_rows[i + 1], "compute_seconds", (double)s->peer_busy[i + 1] * 1e-9,
        "bytes_out", (json_int_t)w->stats.bytes_out, "bytes_in", (json_int_t)w->stats.bytes_in);
}

static json_t *events_json(const tr_serve_state *s)
{
    json_t *list = json_array();
    size_t first = s->n_events > MAX_EVENTS ? s->n_events - MAX_EVENTS : 0;

    for (size_t i = first; i < s->n_events; i++) {
        const event *e = &s->events[i % MAX_EVENTS];
        json_array_append_new(list, json_pack("{s:f, s:s, s:o}", "time", e->at, "level", e->level,
                                              "text", tr_api_text(tr_bytes_of(e->text))));
    }
    return list;
}

static json_t *quantiles(const tr_serving_histogram *h)
{
    return json_pack("{s:f, s:f, s:f}", "p50", 1e3 * tr_serving_quantile(h, 0.5), "p95",
                     1e3 * tr_serving_quantile(h, 0.95), "p99", 1e3 * tr_serving_quantile(h, 0.99));
}

/* What is not about workers. */
static void put_figures(const tr_serve_state *s, const tr_serving_stats *t, json_t *o)
{
    const tr_model_config *c = &tr_engine_model(s->engine)->config;
    const tr_compute *compute = tr_engine_compute(s->engine);

    json_object_set_new(o, "model",
                        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "name", s->name, "architecture",
                                  c->arch, "layers", (json_int_t)c->n_layers, "experts",
                                  (json_int_t)c->n_experts, "top_k", (json_int_t)c->top_k,
                                  "context", (json_int_t)tr_engine_context(s->engine)));
    json_object_set_new(o, "coordinator",
                        json_pack("{s:s, s:I, s:s, s:I, s:I, s:f}", "host", s->host, "pid",
                                  (json_int_t)getpid(), "isa", compute->kernels->name, "threads",
                                  (json_int_t)tr_pool_threads(compute->pool), "memory_bytes",
                                  (json_int_t)tr_memory_resident(), "uptime_seconds",
                                  seconds(tr_now() - s->began)));
    json_object_set_new(o, "requests",
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "running",
                                  (json_int_t)t->running, "waiting", (json_int_t)t->waiting,
                                  "finished", (json_int_t)t->finished, "failed",
                                  (json_int_t)t->failed, "cancelled", (json_int_t)t->cancelled,
                                  "preempted", (json_int_t)t->preempted));
    json_object_set_new(o, "tokens",
                        json_pack("{s:I, s:I}", "prompt", (json_int_t)t->prompt_tokens, "generated",
                                  (json_int_t)t->generated_tokens));
    json_object_set_new(o, "batch",
                        json_pack("{s:I, s:I, s:I}", "rows",
                                  (json_int_t)(t->running ? t->last_rows : 0), "max_rows",
                                  (json_int_t)t->max_rows, "steps", (json_int_t)t->steps));
    json_object_set_new(o, "ttft_ms", quantiles(&t->first_token));
    json_object_set_new(o, "inter_token_ms", quantiles(&t->between_tokens));
    json_object_set_new(o, "kv",
                        json_pack("{s:I, s:I, s:I, s:I, s:I}", "pages", (json_int_t)t->kv.n, "used",
                                  (json_int_t)t->kv.used, "cached", (json_int_t)t->kv.kept,
                                  "prefix_hit_tokens", (json_int_t)t->prefix_hits, "prefix_tokens",
                                  (json_int_t)t->prefix_tokens));
}

json_t *tr_serve_state_cluster(tr_serve_state *s, tr_serving *serving)
{
    const tr_model_config *c = &tr_engine_model(s->engine)->config;
    size_t cells = (size_t)c->n_layers * c->n_experts;
    uint64_t *picks = calloc(2 * cells, sizeof *picks);
    tr_serving_stats t;
    json_t *o = json_object();
    json_t *workers = json_array();

    if (!picks) {
        json_decref(workers);
        json_decref(o);
        return NULL;
    }
    tr_serving_get_stats(serving, &t, picks, picks + cells);
    pthread_mutex_lock(&s->lock);
    json_object_set_new(o, "time", json_real(wall_clock()));
    put_figures(s, &t, o);
    for (size_t i = 0; i < s->n_workers; i++)
        json_array_append_new(workers, worker_json(s, i));
    json_object_set_new(o, "workers", workers);
    json_object_set_new(o, "picks", table(s, picks));
    json_object_set_new(o, "holder", holders(s));
    json_t *last = json_null();
    if (t.traced)
        last = json_pack("{s:s, s:I, s:o}", "id", t.traced_name, "tokens",
                         (json_int_t)t.traced_tokens, "picks", table(s, picks + cells));
    json_object_set_new(o, "last_request", last);
    json_object_set_new(o, "events", events_json(s));
    pthread_mutex_unlock(&s->lock);
    free(picks);
    return o;
}

/* ---- /metrics ---------------------------------------------------------------------------------
 */

__attribute__((format(printf, 5, 6))) static void
metric(FILE *f, const char *name, const char *type, const char *help, const char *format, ...)
{
    va_list args;

    fprintf(f, "# HELP troupe_%s %s\n# TYPE troupe_%s %s\ntroupe_%s ", name, help, name, type,
            name);
    va_start(args, format);
    vfprintf(f, format, args);
    va_end(args);
    fputc('\n', f);
}

static void count(FILE *f, const char *name, const char *help, uint64_t v)
{
    metric(f, name, "counter", help, "%llu", (unsigned long long)v);
}

static void gauge(FILE *f, const char *name, const char *help, double v)
{
    metric(f, name, "gauge", help, "%.9g", v);
}

static void histogram(FILE *f, const char *name, const char *help, const tr_serving_histogram *h)
{
    uint64_t sum = 0;

    fprintf(f, "# HELP troupe_%s %s\n# TYPE troupe_%s histogram\n", name, help, name);
    for (size_t i = 0; i < TR_SERVING_BUCKETS; i++) {
        sum += h->bucket[i];
        if (i + 1 < TR_SERVING_BUCKETS)
            fprintf(f, "troupe_%s_bucket{le=\"%g\"} %llu\n", name, tr_serving_bounds[i],
                    (unsigned long long)sum);
        else
            fprintf(f, "troupe_%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)sum);
    }
    fprintf(f, "troupe_%s_sum %.9g\ntroupe_%s_count %llu\n", name, h->sum, name,
            (unsigned long long)h->n);
}

static void put_serving(FILE *f, const tr_serving_stats *t)
{
    fprintf(f,
            "# HELP troupe_requests_total Requests by how they ended.\n"
            "# TYPE troupe_requests_total counter\n"
            "troupe_requests_total{result=\"finished\"} %llu\n"
            "troupe_requests_total{result=\"failed\"} %llu\n"
            "troupe_requests_total{result=\"cancelled\"} %llu\n",
            (unsigned long long)t->finished, (unsigned long long)t->failed,
            (unsigned long long)t->cancelled);
    count(f, "preemptions_total", "Times a sequence gave its pages back and was computed again.",
          t->preempted);
    gauge(f, "requests_running", "Sequences in the batch.", (double)t->running);
    gauge(f, "requests_waiting", "Requests in the queue.", (double)t->waiting);
    count(f, "prompt_tokens_total", "Tokens of prompts.", t->prompt_tokens);
    count(f, "generated_tokens_total", "Tokens of answers.", t->generated_tokens);
    count(f, "prefix_tokens_total", "Tokens of prompts looked up in the cache.", t->prefix_tokens);
    count(f, "prefix_hit_tokens_total", "Of them, found.", t->prefix_hits);
    count(f, "steps_total", "Passes through the model.", t->steps);
    count(f, "rows_total", "Rows of all steps.", t->rows);
    gauge(f, "batch_rows", "Rows of the last step.", (double)t->last_rows);
    gauge(f, "kv_pages", "Pages of the key/value cache.", (double)t->kv.n);
    gauge(f, "kv_pages_used", "Pages that sequences use.", (double)t->kv.used);
    gauge(f, "kv_pages_kept", "Pages kept because their tokens may come again.",
          (double)t->kv.kept);
    metric(f, "step_seconds_total", "counter", "Time in the model.", "%.9g", seconds(t->in_steps));
    metric(f, "draw_seconds_total", "counter", "Time drawing tokens.", "%.9g",
           seconds(t->in_drawing));
    metric(f, "schedule_seconds_total", "counter", "Time scheduling and handing out tokens.",
           "%.9g", seconds(t->in_schedule));
    histogram(f, "time_to_first_token_seconds", "From a request's arrival to its first token.",
              &t->first_token);
    histogram(f, "inter_token_seconds", "From one token of an answer to the next.",
              &t->between_tokens);
}

static void put_workers(FILE *f, const tr_serve_state *s)
{
    fputs("# HELP troupe_worker_up Whether a worker serves.\n# TYPE troupe_worker_up gauge\n", f);
    for (size_t i = 0; i < s->n_workers; i++)
        fprintf(f, "troupe_worker_up{worker=\"%zu\"} %d\n", i + 1,
                strcmp(s->worker[i].state, "ready") == 0);
    fputs("# HELP troupe_worker_resident_bytes Memory of a worker.\n"
          "# TYPE troupe_worker_resident_bytes gauge\n",
          f);
    for (size_t i = 0; i < s->n_workers; i++)
        fprintf(f, "troupe_worker_resident_bytes{worker=\"%zu\"} %llu\n", i + 1,
                (unsigned long long)s->worker[i].stats.resident);
    fputs("# HELP troupe_picks_total Picks computed; worker 0 is the coordinator.\n"
          "# TYPE troupe_picks_total counter\n",
          f);
    for (size_t i = 0; i <= s->n_workers; i++)
        fprintf(f, "troupe_picks_total{worker=\"%zu\"} %llu\n", i,
                (unsigned long long)s->peer_rows[i]);
    fputs("# HELP troupe_compute_seconds_total Time that a worker computed.\n"
          "# TYPE troupe_compute_seconds_total counter\n",
          f);
    for (size_t i = 0; i <= s->n_workers; i++)
        fprintf(f, "troupe_compute_seconds_total{worker=\"%zu\"} %.9g\n", i,
                (double)s->peer_busy[i] * 1e-9);
}

/* By layer and worker: which experts are asked for is in /cluster. */
static void put_loads(FILE *f, const tr_serve_state *s, const uint64_t *picks)
{
    const tr_model_config *c = &tr_engine_model(s->engine)->config;
    uint64_t *sum = calloc(s->n_workers + 1, sizeof *sum);

    if (!sum)
        return;
    fputs(
        "# HELP troupe_layer_picks_total Picks by layer and the worker that was given the expert.\n"
        "# TYPE troupe_layer_picks_total counter\n",
        f);
    for (uint32_t l = 0; l < c->n_layers; l++) {
        memset(sum, 0, (s->n_workers + 1) * sizeof *sum);
        for (uint32_t x = 0; x < c->n_experts; x++)
            sum[s->home[l * c->n_experts + x]] += picks[l * c->n_experts + x];
        for (size_t i = 0; i <= s->n_workers; i++)
            if (i > 0 || s->n_workers == 0)
                fprintf(f, "troupe_layer_picks_total{layer=\"%u\",worker=\"%zu\"} %llu\n", l, i,
                        (unsigned long long)sum[i]);
    }
    free(sum);
}

static void put_engine(FILE *f, const tr_serve_state *s)
{
    const tr_engine_stats *e = &s->engine_stats;

    count(f, "bytes_sent_total", "Bytes of shares to workers.", e->transport.bytes_sent);
    count(f, "bytes_received_total", "Bytes of answers from workers.", e->transport.bytes_received);
    count(f, "frames_dropped_total", "Frames that nobody waited for.", e->dispatch.frames_dropped);
    count(f, "answers_refused_total", "Answers that were damaged or no finite numbers.",
          e->dispatch.answers_refused);
    count(f, "workers_lost_total", "Workers that died, hung or were cut off.", e->recovery.lost);
    count(f, "workers_replaced_total", "New processes in the place of lost workers.",
          e->recovery.replaced);
    count(f, "workers_suspected_total", "Times that a worker was passed over.",
          e->recovery.suspected);
    count(f, "workers_returned_total", "Times that one was taken back.", e->recovery.returned);
    count(f, "experts_moved_total", "Changes of an expert's holder.", e->recovery.experts_moved);
    count(f, "shares_resent_total", "Shares that others had to compute.",
          e->recovery.shares_resent);
    metric(f, "stalled_seconds_total", "counter", "Time that layers waited for them.", "%.9g",
           seconds(e->recovery.stalled));
    metric(f, "wait_seconds_total", "counter", "Time waiting for workers.", "%.9g",
           seconds(e->times.wait));
    count(f, "dispatches_total", "Round trips, one a layer.", e->dispatch.layers);
    gauge(f, "resident_bytes", "Memory of the coordinator.", (double)tr_memory_resident());
}

char *tr_serve_state_metrics(tr_serve_state *s, tr_serving *serving)
{
    const tr_model_config *c = &tr_engine_model(s->engine)->config;
    uint64_t *picks = calloc((size_t)c->n_layers * c->n_experts, sizeof *picks);
    tr_serving_stats t;
    char *text = NULL;
    size_t size;
    FILE *f = picks ? open_memstream(&text, &size) : NULL;

    if (!f) {
        free(picks);
        return NULL;
    }
    tr_serving_get_stats(serving, &t, picks, NULL);
    pthread_mutex_lock(&s->lock);
    put_serving(f, &t);
    put_engine(f, s);
    put_workers(f, s);
    put_loads(f, s, picks);
    pthread_mutex_unlock(&s->lock);
    fclose(f);
    free(picks);
    return text;
}
