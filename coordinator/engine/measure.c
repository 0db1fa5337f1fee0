/* measure.c - run, time, count what was touched, compare with the limit.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/measure.h"

#include "base/interrupt.h"
#include "base/memory.h"
#include "coordinator/text/sampler.h"
#include "proto/frame.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 256 << 10 }; /* bytes of the file that a thread reads at once */

/* ---- what happens in a step ------------------------------------------------------------------ */

/* to += until - since */
static void add_spent(tr_forward_times *to, const tr_forward_times *since,
                      const tr_forward_times *until)
{
    to->dense += until->dense - since->dense;
    to->attention += until->attention - since->attention;
    to->router += until->router - since->router;
    to->dispatch += until->dispatch - since->dispatch;
    to->shared += until->shared - since->shared;
    to->experts += until->experts - since->experts;
    to->wait += until->wait - since->wait;
    to->combine += until->combine - since->combine;
    to->output += until->output - since->output;
}

static tr_time sum_of(const tr_forward_times *t)
{
    return t->dense + t->attention + t->router + t->dispatch + t->shared + t->experts + t->wait +
           t->combine + t->output;
}

tr_time tr_measure_beyond(const tr_forward_times *layer, tr_time longest)
{
    tr_time whole = layer->dispatch + layer->shared + layer->wait + layer->combine;
    tr_time work = layer->shared > longest ? layer->shared : longest;

    return whole > work ? whole - work : 0;
}

/* Add the layer that has ended to those before it. */
static void end_layer(tr_measure *m)
{
    tr_engine_stats now = tr_engine_get_stats(m->engine);
    tr_measure_layers *l = &m->layers;
    tr_forward_times spent = { 0 };

    add_spent(&spent, &l->spent, &now.times);
    l->beyond += tr_measure_beyond(&spent, now.dispatch.longest - l->longest);
    l->spent = now.times;
    l->longest = now.dispatch.longest;
}

void tr_measure_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows, size_t top_k)
{
    tr_measure *m = ctx;
    const tr_model *model = tr_engine_model(m->engine);
    uint64_t bytes = tr_expert_map_bytes(&model->experts, layer);

    if (m->layers.is_on) /* the one before */
        end_layer(m);
    memset(m->seen, 0, model->config.n_experts);
    for (size_t i = 0; i < n_rows * top_k; i++) {
        m->load.bytes += m->seen[picks[i].expert] ? 0 : bytes;
        m->seen[picks[i].expert] = 1;
    }
}

/* Tokens that differ, so that rows go to different experts. */
static uint32_t token_of(const tr_measure *m, size_t sequence, size_t position)
{
    return (uint32_t)((sequence * 7919 + position * 104729 + 17) %
                      tr_engine_model(m->engine)->config.n_vocab);
}

/* ---- the limit ------------------------------------------------------------------------------- */

/* Operations on each row of one step, by the kind of product. */
typedef struct {
    double int8, real;
} operations;

static void add_operations(const tr_measure *m, const tr_matrix *w, double times, operations *to)
{
    double ops = 2.0 * times * (double)w->n_in * (double)w->n_out;
    tr_act act = tr_act_for(w->type, tr_engine_compute(m->engine)->exact);

    *(act == TR_ACT_Q8 ? &to->int8 : &to->real) += ops;
}

static void add_layer(const tr_measure *m, uint32_t layer, double rows, operations *to)
{
    const tr_model *model = tr_engine_model(m->engine);
    const tr_expert_tensors *e = &model->experts.layer[layer];
    const tr_layer *y = &model->layer[layer];
    const tr_weights *dense[] = { &y->q_low,     &y->kv_low,     &y->q,      &y->k,
                                  &y->v,         &y->attn_out,   &y->router, &y->shared_gate,
                                  &y->shared_up, &y->shared_down };
    const tr_gguf_tensor *expert[] = { e->gate, e->up, e->down };

    for (size_t i = 0; i < sizeof dense / sizeof dense[0]; i++)
        add_operations(m, &dense[i]->matrix, rows, to);
    for (size_t i = 0; i < sizeof expert / sizeof expert[0]; i++) {
        if (!expert[i]) /* a network without a gate */
            continue;
        tr_matrix w = { .type = expert[i]->type,
                        .n_in = expert[i]->dim[0],
                        .n_out = expert[i]->dim[1] };
        add_operations(m, &w, rows * e->top_k, to);
    }
}

static operations count_operations(const tr_measure *m, size_t n_steps, size_t n_rows,
                                   size_t n_logits)
{
    const tr_model *model = tr_engine_model(m->engine);
    operations o = { 0 };

    for (uint32_t l = 0; l < model->config.n_layers; l++)
        add_layer(m, l, (double)n_steps * (double)n_rows, &o);
    add_operations(m, model->output, (double)n_steps * (double)n_logits, &o);
    return o;
}

/* Keys and values that one row at each of n positions from `first` on must read; the rows of a
 * prompt share what they read. */
static double cache_bytes(const tr_measure *m, size_t n_steps, size_t n_sequences, size_t first)
{
    double mean = (double)first + ((double)n_steps + 1.0) / 2.0;

    return (double)n_steps * (double)n_sequences * tr_engine_cache_bytes(m->engine, mean);
}

/* Seconds that the limits allow for what was touched in n_steps of n_rows rows, n_logits of them
 * with logits, and for `cache` bytes of keys and values. */
static double least_seconds(const tr_measure *m, size_t n_steps, size_t n_rows, size_t n_logits,
                            double cache, tr_measure_result *out)
{
    const tr_model *model = tr_engine_model(m->engine);
    bool is_tied = model->output == &model->embedding.matrix;
    double dense_bytes = (double)(model->bytes - (is_tied ? 0 : model->embedding.size));
    operations o = count_operations(m, n_steps, n_rows, n_logits);

    out->bytes = (double)n_steps * dense_bytes + cache + (double)m->load.bytes;
    out->ops = o.int8 + o.real;
    double by_memory = out->bytes / m->limits.read_bytes;
    double by_int8 = o.int8 / m->limits.int8_ops;
    double by_float = o.real / m->limits.float_ops;
    bool is_memory = by_memory >= by_int8 + by_float;
    out->bound = is_memory ? "memory" : by_int8 >= by_float ? "int8" : "float";
    return is_memory ? by_memory : by_int8 + by_float;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts; the mean of the middle two where there are two. */
static double median_of(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return (values[(n - 1) / 2] + values[n / 2]) / 2.0;
}

/* seconds [repeats] of n_tokens each; the load is that of the last repeat. */
static void conclude(const tr_measure *m, double *seconds, size_t n_steps, size_t n_rows,
                     size_t n_logits, double cache, tr_measure_result *out)
{
    double tokens = (double)(n_steps * n_rows);
    double least = least_seconds(m, n_steps, n_rows, n_logits, cache, out);

    double median = median_of(seconds, m->repeats);
    out->rows = n_rows;
    out->median = tokens / median;
    out->fastest = tokens / seconds[0];
    out->slowest = tokens / seconds[m->repeats - 1];
    out->limit = tokens / least;
    out->bytes /= median;
    out->ops /= median;
    tr_time other = out->times.wall - sum_of(&out->times.step) - out->times.sampling;
    out->times.other = other > 0 ? other : 0;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* What a measurement's steps are made with. */
typedef struct {
    tr_measure *m;
    size_t n_vocab;
    tr_row *rows;
    size_t n_rows;
    float *logits; /* [n_logits][n_vocab] */
    tr_sampling how;
    tr_sample_scratch *scratch; /* [threads] */
    size_t n_scratch;
    tr_time sampling; /* so far */
} stepper;

static void stepper_fini(stepper *s)
{
    for (size_t i = 0; i < s->n_scratch; i++)
        tr_sample_scratch_fini(&s->scratch[i]);
    free(s->scratch);
    free(s->logits);
    free(s->rows);
}

static tr_status stepper_init(stepper *s, tr_measure *m, size_t max_rows, size_t max_logits)
{
    size_t threads = tr_pool_threads(tr_engine_compute(m->engine)->pool);

    *s = (stepper){ .m = m, .how = tr_sampling_default() };
    s->n_vocab = tr_engine_model(m->engine)->config.n_vocab;
    s->rows = calloc(max_rows, sizeof *s->rows);
    s->logits = malloc(max_logits * s->n_vocab * sizeof *s->logits);
    s->scratch = calloc(threads, sizeof *s->scratch);
    tr_status st = s->rows && s->logits && s->scratch
                       ? TR_OK
                       : tr_fail(TR_E_MEMORY, "bench: no memory for %zu rows", max_rows);
    while (st == TR_OK && s->n_scratch < threads) {
        st = tr_sample_scratch_init(&s->scratch[s->n_scratch], s->n_vocab);
        s->n_scratch += st == TR_OK;
    }
    if (st != TR_OK)
        stepper_fini(s);
    return st;
}

static void draw_some(void *ctx, size_t thread, size_t begin, size_t end)
{
    stepper *s = ctx;

    for (size_t i = begin; i < end; i++)
        tr_sample(&s->how, s->logits + i * s->n_vocab, s->n_vocab, NULL, 0, i, 0,
                  &s->scratch[thread]);
}

/* n_logits of the rows want them. */
static tr_status step(stepper *s, size_t n_logits)
{
    tr_status st = tr_engine_step(s->m->engine, s->rows, s->n_rows, s->logits);
    tr_time begin = tr_now();

    if (st == TR_OK)
        tr_pool_for(tr_engine_compute(s->m->engine)->pool, n_logits, 1, draw_some, s);
    s->sampling += tr_now() - begin;
    return st;
}

/* The moment at which timing begins. */
typedef struct {
    tr_time at, sampling;
    tr_forward_times spent;
} mark;

static mark mark_now(const stepper *s)
{
    return (mark){ .spent = tr_engine_get_stats(s->m->engine).times,
                   .sampling = s->sampling,
                   .at = tr_now() };
}

/* Add what passed since then; returns the seconds. */
static double count_since(const stepper *s, const mark *since, tr_measure_times *to)
{
    tr_time wall = tr_now() - since->at;
    tr_engine_stats now = tr_engine_get_stats(s->m->engine);

    to->wall += wall;
    to->sampling += s->sampling - since->sampling;
    add_spent(&to->step, &since->spent, &now.times);
    return (double)wall / (double)TR_SECOND;
}

static tr_status prefill_once(stepper *s, size_t n_tokens, size_t turn, tr_measure_times *times,
                              double *seconds)
{
    tr_sequence *q = NULL;

    tr_status st = tr_sequence_new(s->m->engine, &q);
    if (st != TR_OK)
        return st;
    for (size_t i = 0; i < n_tokens; i++)
        s->rows[i] = (tr_row){ q, token_of(s->m, turn, i), i + 1 == n_tokens };
    s->n_rows = n_tokens;
    s->m->load = (tr_measure_load){ 0 };
    mark begin = mark_now(s);
    st = step(s, 1);
    *seconds = count_since(s, &begin, times);
    tr_sequence_free(&q);
    return st;
}

tr_status tr_measure_prefill(tr_measure *m, size_t n_tokens, tr_measure_result *out)
{
    double seconds[TR_MEASURE_MAX_REPEATS];
    stepper s;

    tr_status st = stepper_init(&s, m, n_tokens, 1);
    if (st != TR_OK)
        return st;
    *out = (tr_measure_result){ 0 };
    for (size_t t = 0; t < m->repeats && st == TR_OK; t++)
        st = prefill_once(&s, n_tokens, t, &out->times, &seconds[t]);
    stepper_fini(&s);
    if (st == TR_OK)
        conclude(m, seconds, 1, n_tokens, 1, cache_bytes(m, 1, 1, n_tokens), out);
    return st;
}

/* One step of n sequences at a position. */
static tr_status decode_step(stepper *s, tr_sequence *const *sequence, size_t n, size_t position)
{
    for (size_t i = 0; i < n; i++)
        s->rows[i] = (tr_row){ sequence[i], token_of(s->m, i, position), true };
    s->n_rows = n;
    return step(s, n);
}

static tr_status decode_once(stepper *s, tr_sequence *const *sequence, size_t n, size_t context,
                             tr_measure_times *times, double *seconds)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < n && st == TR_OK; i++)
        st = tr_sequence_skip(sequence[i], context);
    for (size_t i = 0; i < TR_MEASURE_PROMPT && st == TR_OK; i++)
        st = decode_step(s, sequence, n, i);
    s->m->load = (tr_measure_load){ 0 };
    mark begin = mark_now(s);
    for (size_t i = 0; i < s->m->steps && st == TR_OK; i++)
        st = decode_step(s, sequence, n, TR_MEASURE_PROMPT + i);
    *seconds = count_since(s, &begin, times);
    return st;
}

tr_status tr_measure_decode(tr_measure *m, size_t n, size_t context, tr_measure_result *out)
{
    double seconds[TR_MEASURE_MAX_REPEATS];
    tr_sequence **sequence = calloc(n, sizeof(tr_sequence *));
    stepper s;

    tr_status st = sequence ? stepper_init(&s, m, n, n)
                            : tr_fail(TR_E_MEMORY, "bench: no memory for %zu sequences", n);
    if (st != TR_OK) {
        free(sequence);
        return st;
    }
    *out = (tr_measure_result){ .context = context };
    for (size_t t = 0; t < m->repeats && st == TR_OK; t++) {
        for (size_t i = 0; i < n && st == TR_OK; i++)
            st = tr_sequence_new(m->engine, &sequence[i]);
        if (st == TR_OK)
            st = decode_once(&s, sequence, n, context, &out->times, &seconds[t]);
        for (size_t i = 0; i < n; i++)
            tr_sequence_free(&sequence[i]);
    }
    stepper_fini(&s);
    free(sequence);
    double cache = cache_bytes(m, m->steps, n, context + TR_MEASURE_PROMPT);
    if (st == TR_OK)
        conclude(m, seconds, m->steps, n, n, cache, out);
    return st;
}

/* ---- what is measured once ------------------------------------------------------------------- */

typedef struct {
    const tr_gguf *gguf;
    const tr_gguf_tensor *tensor;
    uint8_t *piece; /* [threads][PIECE] */
    atomic_bool failed;
} reading;

static void read_pieces(void *ctx, size_t thread, size_t begin, size_t end)
{
    reading *r = ctx;

    for (size_t i = begin; i < end; i++) {
        uint64_t at = (uint64_t)i * PIECE;
        uint64_t left = r->tensor->size - at;
        size_t size = left < PIECE ? (size_t)left : PIECE;
        if (!tr_gguf_try_read(r->gguf, r->tensor->offset + at, size, r->piece + thread * PIECE))
            atomic_store(&r->failed, true);
    }
}

tr_status tr_measure_read(tr_measure *m, const tr_gguf *gguf, double *seconds)
{
    tr_pool *pool = tr_engine_compute(m->engine)->pool;
    size_t room = tr_pool_threads(pool) * PIECE;
    reading r = { .gguf = gguf };
    void *block = NULL;

    tr_status st = tr_memory_new(room, "pieces of the file", &block);
    if (st != TR_OK)
        return st;
    r.piece = block;
    tr_time begin = tr_now();
    for (size_t i = 0; i < tr_gguf_n_tensors(gguf) && st == TR_OK; i++) {
        r.tensor = tr_gguf_tensor_at(gguf, i);
        tr_pool_for(pool, (size_t)((r.tensor->size + PIECE - 1) / PIECE), 1, read_pieces, &r);
        st = tr_interrupted() ? TR_E_INTERRUPTED : TR_OK;
    }
    *seconds = (double)(tr_now() - begin) / (double)TR_SECOND;
    tr_memory_free(&block, room);
    if (st == TR_OK && atomic_load(&r.failed))
        st = tr_fail(TR_E_IO, "model %s: can't be read a second time", tr_gguf_path(gguf));
    return st;
}

static int ascending_time(const void *a, const void *b)
{
    tr_time x = *(const tr_time *)a;
    tr_time y = *(const tr_time *)b;

    return (x > y) - (x < y);
}

static tr_time median_time(tr_time *t, size_t n)
{
    qsort(t, n, sizeof *t, ascending_time);
    return (t[(n - 1) / 2] + t[n / 2]) / 2;
}

static tr_status rest(tr_engine *e, tr_time pause)
{
    tr_time until = tr_now() + pause;
    tr_status st = TR_OK;

    while (st == TR_OK && tr_now() < until) {
        st = tr_interrupted() ? TR_E_INTERRUPTED : tr_engine_pump(e);
        tr_sleep(10 * TR_MS);
    }
    return st;
}

/* A step of one row with all layers watched: *beyond is a layer's. */
static tr_status step_watched(stepper *s, tr_sequence *const *sequence, size_t position,
                              tr_time *beyond)
{
    tr_engine_stats before = tr_engine_get_stats(s->m->engine);

    s->m->layers = (tr_measure_layers){ .is_on = true,
                                        .spent = before.times,
                                        .longest = before.dispatch.longest };
    tr_status st = decode_step(s, sequence, 1, position);
    end_layer(s->m);
    s->m->layers.is_on = false;
    *beyond = s->m->layers.beyond / (tr_time)tr_engine_model(s->m->engine)->config.n_layers;
    return st;
}

/* One sequence, a token at a time; elapsed and beyond [n]. */
static tr_status step_alone(tr_measure *m, size_t n, tr_time pause, tr_time *elapsed,
                            tr_time *beyond)
{
    tr_sequence *sequence = NULL;
    stepper s;

    tr_status st = stepper_init(&s, m, 1, 1);
    if (st != TR_OK)
        return st;
    st = tr_sequence_new(m->engine, &sequence);
    for (size_t i = 0; i < n && st == TR_OK; i++) {
        st = rest(m->engine, pause);
        tr_time begin = tr_now();
        if (st == TR_OK)
            st = step_watched(&s, &sequence, i, &beyond[i]);
        elapsed[i] = tr_now() - begin;
    }
    if (sequence)
        tr_sequence_free(&sequence);
    stepper_fini(&s);
    return st;
}

static size_t n_trips(const tr_measure *m)
{
    size_t context = tr_engine_context(m->engine);

    return context < TR_MEASURE_TRIPS ? context : TR_MEASURE_TRIPS;
}

tr_status tr_measure_round_trip(tr_measure *m, tr_measure_trip *out)
{
    const tr_model_config *c = &tr_engine_model(m->engine)->config;
    const tr_expert_map *map = &tr_engine_model(m->engine)->experts;
    uint32_t workers = tr_engine_n_workers(m->engine);
    size_t picks = (c->top_k + workers - 1) / workers;
    tr_act act = tr_expert_map_act(map, 0, tr_engine_compute(m->engine)->exact);
    tr_time elapsed[TR_MEASURE_TRIPS], ignored[TR_MEASURE_TRIPS], beyond[TR_MEASURE_TRIPS];
    size_t n = n_trips(m);
    size_t row_size = tr_act_row_size(act, c->dim);

    out->share_bytes = tr_frame_share_size(picks, 1, row_size);
    out->answer_bytes = tr_frame_answer_size(picks, c->dim);
    size_t half = (out->share_bytes + out->answer_bytes) / 2; /* the same there and back */
    if (half > TR_MAX_CONTROL)
        half = TR_MAX_CONTROL;
    tr_status st = TR_OK;
    for (size_t i = 0; i < n && st == TR_OK; i++)
        st = tr_engine_echo(m->engine, 1, half, &elapsed[i]);
    if (st == TR_OK)
        st = step_alone(m, n, 0, ignored, beyond);
    if (st != TR_OK)
        return st;
    out->transport = median_time(elapsed, n);
    out->layer = median_time(beyond, n);
    return TR_OK;
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

tr_status tr_measure_idle(tr_measure *m, tr_time pause, tr_measure_rest *out)
{
    tr_time warm[TR_MEASURE_TRIPS], first = 0, ignored[TR_MEASURE_TRIPS];
    size_t n = n_trips(m);

    tr_status st = step_alone(m, n, 0, warm, ignored);
    double before = cpu_seconds();
    if (st == TR_OK)
        st = step_alone(m, 1, pause, &first, ignored);
    if (st != TR_OK)
        return st;
    out->warm = median_time(warm, n);
    out->first = first;
    double worked = (double)first / (double)TR_SECOND *
                    (double)tr_pool_threads(tr_engine_compute(m->engine)->pool);
    out->cpu_percent =
        100.0 * (cpu_seconds() - before - worked) / ((double)pause / (double)TR_SECOND);
    if (out->cpu_percent < 0.0)
        out->cpu_percent = 0.0;
    return TR_OK;
}
