/* measure.c - run, time, count what was touched, compare with the limit.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/measure.h"

#include "base/interrupt.h"
#include "proto/frame.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PROMPT = 4, /* tokens before decoding begins */
    TRIPS = 32, /* steps that are timed one by one */
};

void tr_measure_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows, size_t top_k)
{
    tr_measure *m = ctx;
    const tr_model *model = tr_engine_model(m->engine);
    uint64_t bytes = tr_expert_map_bytes(&model->experts, layer);

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

static tr_forward_times difference(tr_forward_times a, tr_forward_times b)
{
    return (tr_forward_times){
        .dense = a.dense - b.dense,
        .attention = a.attention - b.attention,
        .router = a.router - b.router,
        .dispatch = a.dispatch - b.dispatch,
        .shared = a.shared - b.shared,
        .experts = a.experts - b.experts,
        .wait = a.wait - b.wait,
        .combine = a.combine - b.combine,
        .output = a.output - b.output,
    };
}

/* seconds [repeats] of n_tokens each; the load is that of the last repeat. */
static void conclude(const tr_measure *m, double *seconds, size_t n_steps, size_t n_rows,
                     size_t n_logits, double cache, tr_measure_result *out)
{
    double tokens = (double)(n_steps * n_rows);
    double least = least_seconds(m, n_steps, n_rows, n_logits, cache, out);

    qsort(seconds, m->repeats, sizeof *seconds, ascending);
    double median = seconds[m->repeats / 2];
    out->rows = n_rows;
    out->median = tokens / median;
    out->fastest = tokens / seconds[0];
    out->slowest = tokens / seconds[m->repeats - 1];
    out->limit = tokens / least;
    out->bytes /= median;
    out->ops /= median;
}

static double seconds_since(tr_time begin)
{
    return (double)(tr_now() - begin) / (double)TR_SECOND;
}

tr_status tr_measure_prefill(tr_measure *m, size_t n_tokens, tr_measure_result *out)
{
    double seconds[TR_MEASURE_MAX_REPEATS];
    tr_forward_times before = tr_engine_get_stats(m->engine).times;
    tr_row *rows = calloc(n_tokens, sizeof *rows);
    float *logits = malloc(tr_engine_model(m->engine)->config.n_vocab * sizeof *logits);
    tr_status st =
        rows && logits ? TR_OK : tr_fail(TR_E_MEMORY, "bench: no memory for %zu rows", n_tokens);

    for (size_t t = 0; t < m->repeats && st == TR_OK; t++) {
        tr_sequence *s = NULL;
        st = tr_sequence_new(m->engine, &s);
        if (st != TR_OK)
            break;
        for (size_t i = 0; i < n_tokens; i++)
            rows[i] = (tr_row){ s, token_of(m, t, i), i + 1 == n_tokens };
        m->load = (tr_measure_load){ 0 };
        tr_time begin = tr_now();
        st = tr_engine_step(m->engine, rows, n_tokens, logits);
        seconds[t] = seconds_since(begin);
        tr_sequence_free(&s);
    }
    free(logits);
    free(rows);
    if (st != TR_OK)
        return st;
    conclude(m, seconds, 1, n_tokens, 1, cache_bytes(m, 1, 1, n_tokens), out);
    out->context = 0;
    out->times = difference(tr_engine_get_stats(m->engine).times, before);
    return TR_OK;
}

/* One step of n sequences at a position. */
static tr_status decode_step(tr_measure *m, tr_sequence *const *sequence, size_t n, size_t position,
                             tr_row *rows, float *logits)
{
    for (size_t i = 0; i < n; i++)
        rows[i] = (tr_row){ sequence[i], token_of(m, i, position), true };
    return tr_engine_step(m->engine, rows, n, logits);
}

static tr_status decode_once(tr_measure *m, tr_sequence *const *sequence, size_t n, size_t context,
                             tr_row *rows, float *logits, double *seconds)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < n && st == TR_OK; i++)
        st = tr_sequence_skip(sequence[i], context);
    for (size_t i = 0; i < PROMPT && st == TR_OK; i++)
        st = decode_step(m, sequence, n, i, rows, logits);
    m->load = (tr_measure_load){ 0 };
    tr_time begin = tr_now();
    for (size_t i = 0; i < m->steps && st == TR_OK; i++)
        st = decode_step(m, sequence, n, PROMPT + i, rows, logits);
    *seconds = seconds_since(begin);
    return st;
}

tr_status tr_measure_decode(tr_measure *m, size_t n, size_t context, tr_measure_result *out)
{
    double seconds[TR_MEASURE_MAX_REPEATS];
    tr_forward_times before = tr_engine_get_stats(m->engine).times;
    tr_sequence **sequence = calloc(n, sizeof(tr_sequence *));
    tr_row *rows = calloc(n, sizeof *rows);
    float *logits = malloc(n * tr_engine_model(m->engine)->config.n_vocab * sizeof *logits);
    tr_status st = sequence && rows && logits
                       ? TR_OK
                       : tr_fail(TR_E_MEMORY, "bench: no memory for %zu sequences", n);

    for (size_t t = 0; t < m->repeats && st == TR_OK; t++) {
        for (size_t i = 0; i < n && st == TR_OK; i++)
            st = tr_sequence_new(m->engine, &sequence[i]);
        if (st == TR_OK)
            st = decode_once(m, sequence, n, context, rows, logits, &seconds[t]);
        for (size_t i = 0; i < n; i++)
            tr_sequence_free(&sequence[i]);
    }
    free(logits);
    free(rows);
    free(sequence);
    if (st != TR_OK)
        return st;
    conclude(m, seconds, m->steps, n, n, cache_bytes(m, m->steps, n, context + PROMPT), out);
    out->context = context;
    out->times = difference(tr_engine_get_stats(m->engine).times, before);
    return TR_OK;
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
    return t[n / 2];
}

/* One sequence, a token at a time; elapsed [n]. */
static tr_status step_alone(tr_measure *m, size_t n, tr_time pause, tr_time *elapsed,
                            tr_time *beyond)
{
    tr_sequence *s = NULL;
    tr_row row;
    float *logits = malloc(tr_engine_model(m->engine)->config.n_vocab * sizeof *logits);
    double layers = (double)tr_engine_model(m->engine)->config.n_layers;
    tr_status st = logits ? tr_sequence_new(m->engine, &s) : TR_E_MEMORY;

    for (size_t i = 0; i < n && st == TR_OK; i++) {
        tr_engine_stats before = tr_engine_get_stats(m->engine);
        tr_time until = tr_now() + pause;
        while (st == TR_OK && tr_now() < until) {
            st = tr_interrupted() ? TR_E_INTERRUPTED : tr_engine_pump(m->engine);
            tr_sleep(10 * TR_MS);
        }
        tr_time begin = tr_now();
        if (st == TR_OK)
            st = decode_step(m, &s, 1, i, &row, logits);
        elapsed[i] = tr_now() - begin;
        tr_engine_stats after = tr_engine_get_stats(m->engine);
        tr_forward_times d = difference(after.times, before.times);
        tr_time whole = d.dispatch + d.wait + d.combine;
        beyond[i] = (tr_time)((double)(whole - (after.dispatch.longest - before.dispatch.longest)) /
                              layers);
    }
    if (s)
        tr_sequence_free(&s);
    free(logits);
    return st == TR_E_MEMORY ? tr_fail(st, "bench: no memory for logits") : st;
}

tr_status tr_measure_round_trip(tr_measure *m, tr_measure_trip *out)
{
    const tr_model_config *c = &tr_engine_model(m->engine)->config;
    const tr_expert_map *map = &tr_engine_model(m->engine)->experts;
    uint32_t workers = tr_engine_n_workers(m->engine);
    size_t picks = (c->top_k + workers - 1) / workers;
    tr_act act = tr_expert_map_act(map, 0, tr_engine_compute(m->engine)->exact);
    tr_time elapsed[TRIPS], ignored[TRIPS], beyond[TRIPS];
    size_t row_size = tr_act_row_size(act, c->dim);

    out->share_bytes = tr_frame_share_size(picks, 1, row_size);
    out->answer_bytes = tr_frame_answer_size(picks, c->dim);
    size_t half = (out->share_bytes + out->answer_bytes) / 2; /* the same there and back */
    if (half > TR_MAX_CONTROL)
        half = TR_MAX_CONTROL;
    tr_status st = TR_OK;
    for (size_t i = 0; i < TRIPS && st == TR_OK; i++)
        st = tr_engine_echo(m->engine, 1, half, &elapsed[i]);
    if (st == TR_OK)
        st = step_alone(m, TRIPS, 0, ignored, beyond);
    if (st != TR_OK)
        return st;
    out->transport = median_time(elapsed, TRIPS);
    out->layer = median_time(beyond, TRIPS);
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
    tr_time warm[TRIPS], first = 0, ignored[TRIPS];

    tr_status st = step_alone(m, TRIPS, 0, warm, ignored);
    double before = cpu_seconds();
    if (st == TR_OK)
        st = step_alone(m, 1, pause, &first, ignored);
    if (st != TR_OK)
        return st;
    out->warm = median_time(warm, TRIPS);
    out->first = first;
    double worked = (double)first / (double)TR_SECOND *
                    (double)tr_pool_threads(tr_engine_compute(m->engine)->pool);
    out->cpu_percent =
        100.0 * (cpu_seconds() - before - worked) / ((double)pause / (double)TR_SECOND);
    if (out->cpu_percent < 0.0)
        out->cpu_percent = 0.0;
    return TR_OK;
}
