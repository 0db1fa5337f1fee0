/* evaluate.c - windows in steps, and the sums over a vocabulary on all threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/evaluate.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "coordinator/text/sampler.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    tr_engine *e;
    const tr_eval_request *r;
    tr_sequence *sequence; /* of the window under way */
    size_t window;         /* its number */
    tr_row *rows;          /* [max_rows] */
    float *logits;         /* [max_logits][n_vocab] */
    double *log_total;     /* [max_logits]; NaN: not all logits are numbers */
    size_t n_vocab;
    tr_eval_result result;
} evaluation;

size_t tr_eval_windows(size_t n, size_t window)
{
    return n / window;
}

size_t tr_eval_positions(size_t n, size_t window, size_t skip)
{
    return tr_eval_windows(n, window) * (window - 1 - skip);
}

static tr_status check(const evaluation *v)
{
    const tr_eval_request *r = v->r;

    TR_CHECK(r->window >= 2 && r->window <= tr_engine_context(v->e));
    TR_CHECK(r->skip + 2 <= r->window);
    if (r->n < r->window)
        return tr_fail(TR_E_REQUEST,
                       "the text has %zu tokens, and a window %zu: give a longer text or a smaller "
                       "--ctx",
                       r->n, r->window);
    for (size_t i = 0; i < r->n; i++)
        if (r->ids[i] >= v->n_vocab)
            return tr_fail(TR_E_REQUEST,
                           "token %zu of the text is %u, but the model has %zu tokens", i,
                           r->ids[i], v->n_vocab);
    return TR_OK;
}

static tr_status reserve(evaluation *v)
{
    const tr_eval_request *r = v->r;
    size_t size;

    v->rows = calloc(tr_engine_max_rows(v->e), sizeof *v->rows);
    v->log_total = calloc(r->max_logits, sizeof *v->log_total);
    if (tr_mul_size(r->max_logits * sizeof(float), v->n_vocab, &size))
        v->logits = malloc(size);
    return v->rows && v->log_total && v->logits
               ? TR_OK
               : tr_fail(TR_E_MEMORY, "eval: no memory for the logits of %zu positions",
                         r->max_logits);
}

static void total_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    evaluation *v = ctx;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *logits = v->logits + r * v->n_vocab;
        bool is_sound = true;
        for (size_t i = 0; i < v->n_vocab; i++)
            is_sound = is_sound && isfinite(logits[i]);
        v->log_total[r] = is_sound ? tr_log_total(logits, v->n_vocab) : (double)NAN;
    }
}

/* Hand on the n positions whose logits a step gave; the first is number first of the window. */
static tr_status hand_on(evaluation *v, size_t first, size_t n)
{
    tr_status st = TR_OK;

    tr_pool_for(tr_engine_compute(v->e)->pool, n, 1, total_rows, v);
    for (size_t i = 0; i < n && st == TR_OK; i++) {
        if (isnan(v->log_total[i]))
            return tr_fail(TR_E_FORMAT,
                           "the model's output at position %zu of window %zu is no number: its "
                           "weights are broken, or overflow; is the file whole?",
                           first + i, v->window);
        tr_eval_position p = { .token = tr_eval_token(v->r, v->window, first + i + 1),
                               .logits = v->logits + i * v->n_vocab,
                               .n_vocab = v->n_vocab,
                               .log_total = v->log_total[i] };
        st = v->r->on_position(v->r->ctx, &p);
        v->result.n_positions++;
    }
    return st;
}

/* The next rows of the window.  Its last token goes nowhere: what follows it is not known. */
static tr_status step(evaluation *v)
{
    const tr_eval_request *r = v->r;
    size_t begin = tr_sequence_length(v->sequence);
    size_t n = 0, n_logits = 0;

    while (begin + n + 1 < r->window && n < tr_engine_max_rows(v->e)) {
        bool counts = begin + n >= r->skip;
        if (counts && n_logits == r->max_logits)
            break;
        v->rows[n] = (tr_row){ v->sequence, tr_eval_token(r, v->window, begin + n), counts };
        n++;
        n_logits += counts;
    }
    if (tr_interrupted())
        return TR_E_INTERRUPTED;
    tr_status st = tr_engine_step(v->e, v->rows, n, v->logits);
    if (st != TR_OK)
        return st;
    v->result.n_fed += n;
    return hand_on(v, begin + n - n_logits, n_logits);
}

static tr_status run_window(evaluation *v)
{
    tr_status st = tr_sequence_new(v->e, &v->sequence);

    while (st == TR_OK && tr_sequence_length(v->sequence) + 1 < v->r->window)
        st = step(v);
    tr_sequence_free(&v->sequence);
    return st;
}

tr_status tr_evaluate(tr_engine *e, const tr_eval_request *r, tr_eval_result *out)
{
    evaluation v = { .e = e, .r = r, .n_vocab = tr_engine_model(e)->config.n_vocab };
    tr_time begin = tr_now();

    tr_status st = check(&v);
    if (st == TR_OK)
        st = reserve(&v);
    v.result.n_windows = tr_eval_windows(r->n, r->window);
    for (; v.window < v.result.n_windows && st == TR_OK; v.window++)
        st = run_window(&v);
    v.result.elapsed = tr_now() - begin;
    free(v.logits);
    free(v.log_total);
    free(v.rows);
    if (st == TR_OK)
        *out = v.result;
    return st;
}
