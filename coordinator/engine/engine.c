/* engine.c - open the parts in order, and turn rows of sequences into a batch.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/engine.h"

#include "base/check.h"
#include "base/host.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "compute/cpu.h"
#include "coordinator/cluster/cluster.h"
#include "coordinator/cluster/echo.h"
#include "coordinator/engine/need.h"
#include "proto/limits.h"

#include <stdlib.h>

struct tr_sequence {
    tr_engine *engine;
    tr_kv_table table;
    size_t length;
};

struct tr_engine {
    tr_engine_options o;
    tr_compute compute;
    tr_expert_map map;
    tr_placement placement;
    tr_cluster *cluster; /* NULL without workers */
    tr_shards *local;    /* NULL with workers */
    tr_model *model;
    tr_kv *kv;
    tr_dispatch *dispatch;
    tr_fault_log *faults; /* NULL: none are planned */
    tr_forward *forward;
    size_t n_sequences;
    tr_need need;
    uint64_t left, available; /* bytes of memory here before anything was loaded: all, ours */
    size_t kv_bytes;
    double load_seconds;

    tr_arena arena; /* the batch of a step */
    uint32_t *token, *position;
    const tr_kv_table **table;
    uint8_t *wants_logits;
};

/* The bar counts the dense bytes loaded here and the expert bytes loaded anywhere. */
typedef struct {
    tr_engine *e;
    tr_progress bar;
    uint64_t dense, experts;
} load_watch;

tr_engine_options tr_engine_defaults(void)
{
    return (tr_engine_options){
        .kv_type = TR_TYPE_F16,
        .max_rows = 256,
        .max_logits = 1,
        .n_sequences = 1,
        .context = 512,
        .placement = TR_PLACE_EVEN,
        .join_timeout = 60 * TR_SECOND,
        .suspect_timeout = 600 * TR_MS,
        .silence_timeout = 10 * TR_SECOND,
        .share_timeout = 30 * TR_SECOND,
        .load_timeout = 3600 * TR_SECOND,
    };
}

static tr_status watch_dense(void *ctx, uint64_t bytes)
{
    load_watch *w = ctx;

    w->dense = bytes;
    tr_progress_show(&w->bar, w->dense + w->experts);
    if (tr_interrupted())
        return TR_E_INTERRUPTED;
    /* Workers load meanwhile, hear that this process lives, and are missed when they don't. */
    return w->e->cluster ? tr_members_pump(tr_cluster_members(w->e->cluster)) : TR_OK;
}

static void watch_experts(void *ctx, uint64_t bytes)
{
    load_watch *w = ctx;

    w->experts = bytes;
    tr_progress_show(&w->bar, w->dense + w->experts);
}

static tr_status load_local(tr_engine *e, load_watch *w)
{
    tr_status st = TR_OK;

    for (uint32_t l = 0; l < e->map.n_layers && st == TR_OK; l++) {
        for (uint32_t x = 0; x < e->map.layer[l].n_experts && st == TR_OK; x++)
            st = tr_interrupted() ? TR_E_INTERRUPTED : tr_shards_load(e->local, l, x);
        watch_experts(w, tr_shards_bytes(e->local));
    }
    return st;
}

static void ignore_groups(tr_model_config *c)
{
    if (c->n_groups <= 1)
        tr_log(TR_LOG_WARN, "--expert-groups off: this model has none");
    c->n_groups = 0;
}

/* Workers say where they are when they join. */
static tr_status foresee_host(const tr_engine *e)
{
    const char *worker[TR_MAX_WORKERS + 1] = { NULL };
    char here[TR_MAX_NAME];

    tr_host_name(here, sizeof here);
    for (uint32_t w = 1; w <= e->o.n_workers; w++)
        worker[w] = tr_members_get(tr_cluster_members(e->cluster), w)->hello.host;
    tr_need_host h = { .name = here, .worker = worker, .machine = e->left, .groups = e->available };
    return tr_need_check_host(&e->need, &e->o, &e->map, &e->placement, &h);
}

/* Kernels first: workers and coordinator must agree on the table before anything is loaded for
 * it.  Then everybody loads at once. */
static tr_status join_and_load(tr_engine *e)
{
    load_watch w = { .e = e };
    tr_time begin = tr_now();
    tr_status st = TR_OK;

    if (e->o.faults)
        st = tr_fault_log_new(e->o.faults, e->o.n_workers, &e->faults);
    if (st != TR_OK)
        return st;
    if (e->o.n_workers > 0) {
        tr_cluster_options c = {
            .gguf = e->o.gguf,
            .map = &e->map,
            .transport = e->o.transport,
            .inviter = e->o.inviter,
            .invite_dir = e->o.invite_dir,
            .n_outside = e->o.n_outside,
            .placement = &e->placement,
            .listen = e->o.listen,
            .isa = e->o.isa,
            .exact = e->o.exact,
            .max_rows = e->o.max_rows,
            .join_timeout = e->o.join_timeout,
            .suspect_timeout = e->o.suspect_timeout,
            .silence_timeout = e->o.silence_timeout,
            .worker_memory = e->o.worker_memory,
            .coordinator_memory = e->o.coordinator_memory,
            .replacement = e->o.replacement,
            .replaces_here = e->o.replaces_here,
            .faults = e->faults,
        };
        st = tr_cluster_open(&c, &e->cluster);
        if (st != TR_OK)
            return st;
        e->compute.kernels = tr_cluster_kernels(e->cluster);
        st = foresee_host(e);
        if (st != TR_OK)
            return st;
    } else {
        e->compute.kernels = tr_kernels_select(tr_cpu_features(), e->o.isa);
        if (!e->compute.kernels)
            return tr_fail(TR_E_USAGE, "--isa %s: this machine has no such kernel table", e->o.isa);
    }
    st = tr_shards_new(&e->compute, e->o.gguf, &e->map, &e->local);
    if (st != TR_OK)
        return st;
    tr_progress_begin(&w.bar, "loading",
                      tr_model_dense_bytes(e->o.gguf, &e->map) + tr_need_experts(&e->map),
                      e->o.progress);
    st = tr_model_open(e->o.gguf, &e->compute, watch_dense, &w, &e->model);
    if (st == TR_OK && e->o.ignores_groups)
        ignore_groups(&e->model->config);
    if (st == TR_OK)
        st = e->cluster ? tr_cluster_wait_ready(e->cluster, e->o.load_timeout, watch_experts, &w)
                        : load_local(e, &w);
    tr_progress_end(&w.bar);
    e->load_seconds = (double)(tr_now() - begin) / (double)TR_SECOND;
    return st;
}

static tr_status reserve_batch(tr_engine *e)
{
    size_t rows = e->o.max_rows;

    tr_status st =
        tr_arena_init(&e->arena,
                      2 * tr_arena_size(rows * sizeof(uint32_t)) +
                          tr_arena_size(rows * sizeof(tr_kv_table *)) + tr_arena_size(rows),
                      "batch");
    if (st != TR_OK)
        return st;
    e->token = tr_arena_get(&e->arena, rows * sizeof(uint32_t));
    e->position = tr_arena_get(&e->arena, rows * sizeof(uint32_t));
    e->table = tr_arena_get(&e->arena, rows * sizeof(tr_kv_table *));
    e->wants_logits = tr_arena_get(&e->arena, rows);
    return TR_OK;
}

static tr_status open_step(tr_engine *e)
{
    const tr_model_config *c = &e->model->config;
    tr_kv_shape shape = tr_need_kv_shape(c, e->o.exact ? TR_TYPE_F32 : e->o.kv_type);

    shape.kernels = e->compute.kernels;
    e->kv_bytes = e->need.cache;
    tr_status st = tr_kv_new(&shape, e->need.pages, e->need.window_pages, &e->kv);
    if (st != TR_OK)
        return st;
    tr_dispatch_options d = {
        .compute = &e->compute,
        .map = &e->map,
        .placement = &e->placement,
        .max_rows = e->o.max_rows,
        .local = e->local,
        .transport = e->o.transport,
        .members = e->cluster ? tr_cluster_members(e->cluster) : NULL,
        .recovery = e->cluster ? tr_cluster_recovery(e->cluster) : NULL,
        .faults = e->faults,
        .job = e->cluster ? tr_cluster_job(e->cluster) : 0,
        .share_timeout = e->o.share_timeout,
    };
    st = tr_dispatch_new(&d, &e->dispatch);
    if (st != TR_OK)
        return st;
    tr_forward_options f = {
        .model = e->model,
        .compute = &e->compute,
        .kv = e->kv,
        .dispatch = e->dispatch,
        .max_rows = e->o.max_rows,
        .max_logits = e->o.max_logits,
        .max_context = e->o.context,
        .on_picks = e->o.on_picks,
        .ctx = e->o.ctx,
    };
    st = tr_forward_new(&f, &e->forward);
    return st == TR_OK ? reserve_batch(e) : st;
}

static tr_status place(tr_engine *e)
{
    if (e->o.placement == TR_PLACE_COUNTS && e->o.n_expert_counts != e->o.n_workers)
        return tr_fail(TR_E_CONFIG, "experts are given for %zu workers, but there are %u",
                       e->o.n_expert_counts, e->o.n_workers);
    return tr_placement_new(e->map.n_layers, e->map.n_experts, e->o.n_workers, e->o.placement,
                            e->o.expert_counts, &e->placement);
}

/* The answers to one step's rows, all from one worker, must fit a message. */
static tr_status check_messages(const tr_engine *e)
{
    uint64_t answer = (uint64_t)e->o.max_rows * e->map.top_k * e->map.dim * sizeof(float);

    if (e->o.n_workers == 0 || answer < TR_MAX_MESSAGE - 4096)
        return TR_OK;
    return tr_fail(TR_E_USAGE,
                   "%zu rows at once could need an answer of %llu bytes, and messages have at most "
                   "%d: lower --batch",
                   e->o.max_rows, (unsigned long long)answer, TR_MAX_MESSAGE);
}

/* Rotation goes on for ever; learned positions end. */
static tr_status check_context(const tr_engine *e, const tr_model_config *c)
{
    if (!c->has_positions || e->o.context <= c->context)
        return TR_OK;
    return tr_fail(TR_E_USAGE,
                   "a context of %zu tokens is more than the %u positions that this model knows: "
                   "lower --ctx",
                   e->o.context, c->context);
}

/* Whether all of it will fit is known before anything is loaded. */
static tr_status foresee(tr_engine *e)
{
    tr_model_config c;

    tr_status st = tr_model_config_read(e->o.gguf, &c);
    if (st == TR_OK)
        st = check_context(e, &c);
    if (st != TR_OK)
        return st;
    e->need = tr_need_of(&e->o, &c, &e->map);
    e->left = tr_memory_left_on_machine();
    e->available = tr_memory_available();
    return tr_need_check(&e->need, &e->o);
}

static tr_status open_parts(tr_engine *e)
{
    /* What is wrong with the model is said before anybody waits for workers. */
    tr_status st = tr_model_check(e->o.gguf);
    if (st == TR_OK)
        st = tr_expert_map_read(e->o.gguf, &e->map);
    if (st == TR_OK)
        st = check_messages(e);
    if (st == TR_OK)
        st = foresee(e);
    if (st == TR_OK)
        st = place(e);
    if (st == TR_OK)
        st = tr_pool_new(e->o.threads ? e->o.threads : tr_pool_default_threads(), &e->compute.pool);
    if (st == TR_OK)
        st = join_and_load(e);
    if (st == TR_OK)
        st = open_step(e);
    return st;
}

tr_status tr_engine_open(const tr_engine_options *o, tr_engine **out)
{
    tr_engine *e = calloc(1, sizeof *e);

    if (!e)
        return tr_fail(TR_E_MEMORY, "engine: no memory");
    e->o = *o;
    e->compute.exact = o->exact;
    tr_status st = open_parts(e);
    if (st != TR_OK) {
        tr_fault_log_print(e->faults); /* they may be why */
        tr_engine_close(&e);
        return st;
    }
    *out = e;
    return TR_OK;
}

void tr_engine_close(tr_engine **engine)
{
    tr_engine *e = *engine;

    if (!e)
        return;
    TR_CHECK(e->n_sequences == 0);
    tr_forward_free(&e->forward);
    tr_dispatch_free(&e->dispatch);
    tr_kv_free(&e->kv);
    tr_model_close(&e->model);
    tr_cluster_close(&e->cluster);
    tr_fault_log_free(&e->faults);
    tr_shards_free(&e->local);
    tr_pool_free(&e->compute.pool);
    tr_placement_fini(&e->placement);
    tr_expert_map_fini(&e->map);
    tr_arena_fini(&e->arena);
    free(e);
    *engine = NULL;
}

tr_status tr_sequence_new(tr_engine *e, tr_sequence **out)
{
    if (e->n_sequences == e->o.n_sequences)
        return TR_E_BUSY;
    tr_sequence *s = calloc(1, sizeof *s);
    if (!s)
        return tr_fail(TR_E_MEMORY, "sequence: no memory");
    s->engine = e;
    tr_status st = tr_kv_table_reserve(&s->table, e->o.context);
    if (st != TR_OK) {
        free(s);
        return st;
    }
    e->n_sequences++;
    *out = s;
    return TR_OK;
}

void tr_sequence_free(tr_sequence **s)
{
    if (!*s)
        return;
    tr_kv_release((*s)->engine->kv, &(*s)->table);
    (*s)->engine->n_sequences--;
    free(*s);
    *s = NULL;
}

size_t tr_sequence_length(const tr_sequence *s)
{
    return s->length;
}

tr_status tr_sequence_reserve(tr_sequence *s, size_t n)
{
    tr_kv_pass(s->engine->kv, &s->table, s->length);
    return tr_kv_reserve(s->engine->kv, &s->table, n);
}

size_t tr_sequence_find(tr_sequence *s, const uint32_t *tokens, size_t n)
{
    if (s->table.n * TR_KV_PAGE == s->length)
        s->length = tr_kv_find(s->engine->kv, &s->table, tokens, n);
    return s->length;
}

void tr_sequence_name(tr_sequence *s, const uint32_t *tokens)
{
    tr_kv_name(s->engine->kv, &s->table, tokens, s->length);
}

void tr_sequence_empty(tr_sequence *s)
{
    tr_kv_empty(s->engine->kv, &s->table);
    s->length = 0;
}

tr_status tr_sequence_skip(tr_sequence *s, size_t n)
{
    TR_CHECK(s->length + n <= s->engine->o.context);
    tr_kv_pass(s->engine->kv, &s->table, s->length + n);
    tr_status st = tr_kv_reserve(s->engine->kv, &s->table, s->length + n);
    if (st == TR_E_BUSY)
        return tr_fail(TR_E_REQUEST, "the cache has no room for %zu positions more", n);
    if (st == TR_OK)
        tr_kv_clear(s->engine->kv, &s->table,
                    s->length / TR_KV_PAGE + (s->length % TR_KV_PAGE > 0));
    if (st == TR_OK)
        s->length += n;
    return st;
}

/* Give each row its position, and its sequence the pages for it. */
static tr_status place_rows(tr_engine *e, const tr_row *rows, size_t n_rows)
{
    for (size_t r = 0; r < n_rows; r++)
        tr_kv_pass(e->kv, &rows[r].sequence->table, rows[r].sequence->length);
    for (size_t r = 0; r < n_rows; r++) {
        tr_sequence *s = rows[r].sequence;
        tr_status st =
            s->length >= e->o.context ? TR_E_BUSY : tr_kv_reserve(e->kv, &s->table, s->length + 1);
        if (st != TR_OK) {
            while (r-- > 0)
                rows[r].sequence->length--;
            return st == TR_E_BUSY
                       ? tr_fail(TR_E_REQUEST, "the context of %zu tokens is full: raise --ctx",
                                 e->o.context)
                       : st;
        }
        e->token[r] = rows[r].token;
        e->position[r] = (uint32_t)s->length++;
        e->table[r] = &s->table;
        e->wants_logits[r] = rows[r].wants_logits;
    }
    return TR_OK;
}

tr_status tr_engine_step(tr_engine *e, const tr_row *rows, size_t n_rows, float *logits)
{
    TR_CHECK(n_rows > 0);
    TR_CHECK(n_rows <= e->o.max_rows);
    tr_status st = place_rows(e, rows, n_rows);
    if (st != TR_OK)
        return st;
    tr_batch batch = { n_rows, e->token, e->position, e->table, e->wants_logits };
    return tr_forward_step(e->forward, &batch, logits);
}

void tr_engine_print_faults(const tr_engine *e)
{
    tr_fault_log_print(e->faults);
}

tr_status tr_engine_pump(tr_engine *e)
{
    if (!e->cluster)
        return TR_OK;
    tr_status st = tr_members_pump(tr_cluster_members(e->cluster));
    if (st == TR_OK)
        st = tr_dispatch_pump(e->dispatch);
    if (st == TR_OK)
        st = tr_recovery_look(tr_cluster_recovery(e->cluster));
    if (st == TR_OK)
        tr_recovery_release(tr_cluster_recovery(e->cluster));
    return st == TR_E_BUSY ? TR_OK : st; /* memory is short: a step will wait, or say so */
}

tr_worker_view tr_engine_worker(const tr_engine *e, uint32_t worker)
{
    static const char *const states[] = {
        [TR_MEMBER_JOINING] = "joining",   [TR_MEMBER_LOADING] = "loading",
        [TR_MEMBER_READY] = "ready",       [TR_MEMBER_SUSPECT] = "suspect",
        [TR_MEMBER_DRAINING] = "draining", [TR_MEMBER_LOST] = "lost",
        [TR_MEMBER_LEFT] = "left",
    };
    const tr_member *m = tr_members_get(tr_cluster_members(e->cluster), worker);

    tr_worker_view v = { .state = states[m->state],
                         .host = m->hello.host,
                         .pid = m->hello.pid,
                         .n_experts = m->n_experts,
                         .expert_bytes = m->loaded,
                         .stats = m->stats };
    if (m->state == TR_MEMBER_SUSPECT || m->state == TR_MEMBER_DRAINING ||
        m->state == TR_MEMBER_LOST || (m->is_replacement && m->state != TR_MEMBER_READY))
        memcpy(v.why, m->why, sizeof v.why);
    return v;
}

uint32_t tr_engine_holder(const tr_engine *e, uint32_t layer, uint32_t expert)
{
    return tr_placement_holder(&e->placement, layer, expert);
}

uint32_t tr_engine_n_experts(const tr_engine *e, uint32_t layer)
{
    return e->map.layer[layer].n_experts;
}

uint32_t tr_engine_home(const tr_engine *e, uint32_t layer, uint32_t expert)
{
    return tr_placement_home(&e->placement, layer, expert);
}

tr_status tr_engine_echo(tr_engine *e, uint32_t worker, size_t n_bytes, tr_time *elapsed)
{
    TR_CHECK(worker >= 1 && worker <= e->o.n_workers);
    return tr_echo(e->o.transport, tr_cluster_job(e->cluster), worker, n_bytes, e->o.share_timeout,
                   elapsed);
}

const tr_model *tr_engine_model(const tr_engine *e)
{
    return e->model;
}

const tr_kernels *tr_engine_kernels(const tr_engine *e)
{
    return e->compute.kernels;
}

const tr_compute *tr_engine_compute(const tr_engine *e)
{
    return &e->compute;
}

size_t tr_engine_max_rows(const tr_engine *e)
{
    return e->o.max_rows;
}

uint32_t tr_engine_n_workers(const tr_engine *e)
{
    return e->o.n_workers;
}

double tr_engine_cache_bytes(const tr_engine *e, double n)
{
    const tr_kv_shape *s = tr_kv_get_shape(e->kv);
    double seen = s->window > 0 && n > (double)s->window ? (double)s->window : n;

    return (n * (double)tr_kv_page_size(s) + seen * (double)tr_kv_window_page_size(s)) / TR_KV_PAGE;
}

tr_kv_pages_counts tr_engine_kv_count(const tr_engine *e)
{
    return tr_kv_count(e->kv);
}

size_t tr_engine_kv_available(const tr_engine *e)
{
    return tr_kv_available(e->kv);
}

size_t tr_engine_context(const tr_engine *e)
{
    return e->o.context;
}

tr_engine_stats tr_engine_get_stats(const tr_engine *e)
{
    return (tr_engine_stats){
        .times = tr_forward_get_times(e->forward),
        .dispatch = tr_dispatch_get_stats(e->dispatch),
        .recovery = e->cluster ? tr_recovery_get_stats(tr_cluster_recovery(e->cluster))
                               : (tr_recovery_stats){ 0 },
        .transport = e->o.transport ? e->o.transport->stats : (tr_transport_stats){ 0 },
        .dense_bytes = e->model->bytes,
        .kv_bytes = e->kv_bytes,
        .local_expert_bytes = e->local ? tr_shards_bytes(e->local) : 0,
        .load_seconds = e->load_seconds,
    };
}
