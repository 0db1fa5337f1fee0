/* measure.c - run, time, count what was touched, compare with the limit.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/measure.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum { PROMPT = 4 }; /* tokens before decoding begins */

void tr_measure_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows)
{
    tr_measure *m = ctx;
    const tr_model_config *c = &tr_engine_model(m->engine)->config;
    size_t n = n_rows * c->top_k;

    (void)layer;
    memset(m->seen, 0, c->n_experts);
    for (size_t i = 0; i < n; i++) {
        m->load.experts += !m->seen[picks[i].expert];
        m->seen[picks[i].expert] = 1;
    }
    m->load.picks += n;
}

/* Tokens that differ, so that rows go to different experts. */
static uint32_t token_of(const tr_measure *m, size_t sequence, size_t position)
{
    return (uint32_t)((sequence * 7919 + position * 104729 + 17) %
                      tr_engine_model(m->engine)->config.n_vocab);
}

static uint64_t parameters_of(const tr_matrix *w)
{
    return (uint64_t)w->n_in * w->n_out;
}

/* Seconds that the limits allow for what was touched in n_steps of n_rows rows, n_logits of them
 * with logits. */
static double least_seconds(const tr_measure *m, size_t n_steps, size_t n_rows, size_t n_logits,
                            tr_measure_result *out)
{
    const tr_model *model = tr_engine_model(m->engine);
    const tr_layer *y = &model->layer[0];
    double steps = (double)n_steps;
    bool is_tied = model->output == &model->embedding.matrix;
    double dense_bytes = (double)(model->bytes - (is_tied ? 0 : model->embedding.size));
    double row_parameters =
        (double)model->config.n_layers *
        (double)(parameters_of(&y->q.matrix) + parameters_of(&y->k.matrix) +
                 parameters_of(&y->v.matrix) + parameters_of(&y->attn_out.matrix) +
                 parameters_of(&y->router.matrix));
    double expert_parameters = 3.0 * (double)model->experts.dim * (double)model->experts.ffn;

    out->bytes = steps * dense_bytes +
                 (double)m->load.experts * (double)tr_expert_map_bytes(&model->experts, 0);
    out->ops =
        2.0 * (steps * (double)n_rows * row_parameters + (double)m->load.picks * expert_parameters +
               steps * (double)n_logits * (double)parameters_of(model->output));
    double by_memory = out->bytes / m->limits.read_bytes;
    double by_products = out->ops / m->limits.int8_ops;
    out->is_memory = by_memory >= by_products;
    return out->is_memory ? by_memory : by_products;
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
        .experts = a.experts - b.experts,
        .wait = a.wait - b.wait,
        .combine = a.combine - b.combine,
        .output = a.output - b.output,
    };
}

/* seconds [repeats] of n_tokens each; the load is that of the last repeat. */
static void conclude(const tr_measure *m, double *seconds, size_t n_steps, size_t n_rows,
                     size_t n_logits, tr_measure_result *out)
{
    double tokens = (double)(n_steps * n_rows);
    double least = least_seconds(m, n_steps, n_rows, n_logits, out);

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
    conclude(m, seconds, 1, n_tokens, 1, out);
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
    conclude(m, seconds, m->steps, n, n, out);
    out->context = context;
    out->times = difference(tr_engine_get_stats(m->engine).times, before);
    return TR_OK;
}
