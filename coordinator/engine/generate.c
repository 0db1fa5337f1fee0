/* generate.c - prefill in chunks, then sample and step.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/generate.h"

#include "base/check.h"
#include "base/interrupt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    tr_engine *e;
    const tr_generate_request *r;
    tr_sequence *sequence;
    size_t n_vocab;
    float *logits;     /* [n_vocab] */
    float *sampled;    /* [n_vocab] */
    tr_row *rows;      /* [max_rows] */
    uint32_t *history; /* prompt, then what was generated */
    size_t n_history;
    tr_sample_scratch scratch;
    tr_alternative alternatives[TR_MAX_ALTERNATIVES];
} generation;

const char *tr_finish_name(tr_finish f)
{
    switch (f) {
    case TR_FINISH_LENGTH:
        return "length";
    case TR_FINISH_END:
        return "end";
    case TR_FINISH_STOP:
        return "stop";
    }
    return "unknown";
}

static tr_status check(const generation *g)
{
    const tr_generate_request *r = g->r;

    TR_CHECK(r->n_alternatives <= TR_MAX_ALTERNATIVES);
    if (r->n_prompt == 0)
        return tr_fail(TR_E_REQUEST, "the prompt is empty: give at least one token");
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] >= g->n_vocab)
            return tr_fail(TR_E_REQUEST,
                           "token %u of the prompt is %u, but the model has %zu tokens",
                           (unsigned)i, r->prompt[i], g->n_vocab);
    return TR_OK;
}

static tr_status begin(generation *g)
{
    tr_status st = check(g);

    if (st == TR_OK)
        st = tr_sequence_new(g->e, &g->sequence);
    if (st == TR_OK)
        st = tr_sample_scratch_init(&g->scratch, g->n_vocab);
    if (st != TR_OK)
        return st;
    g->logits = malloc(g->n_vocab * sizeof *g->logits);
    g->sampled = malloc(g->n_vocab * sizeof *g->sampled);
    g->rows = calloc(tr_engine_max_rows(g->e), sizeof *g->rows);
    g->history = malloc((g->r->n_prompt + g->r->max_tokens) * sizeof *g->history);
    if (!g->logits || !g->sampled || !g->rows || !g->history)
        return tr_fail(TR_E_MEMORY, "generate: no memory for %zu tokens",
                       g->r->n_prompt + g->r->max_tokens);
    memcpy(g->history, g->r->prompt, g->r->n_prompt * sizeof *g->history);
    g->n_history = g->r->n_prompt;
    tr_sequence_find(g->sequence, g->history, g->n_history); /* what an earlier request left */
    return TR_OK;
}

static void end(generation *g)
{
    free(g->history);
    free(g->rows);
    free(g->sampled);
    free(g->logits);
    tr_sample_scratch_fini(&g->scratch);
    tr_sequence_free(&g->sequence);
}

/* Weights that are no numbers, or too large, end in logits that are none. */
static tr_status logits_check(const generation *g)
{
    for (size_t i = 0; i < g->n_vocab; i++)
        if (isnan(g->logits[i]) || g->logits[i] == INFINITY)
            return tr_fail(TR_E_FORMAT,
                           "the model's output after %zu tokens is no number: its weights are "
                           "broken, or overflow; is the file whole?",
                           g->n_history);
    return TR_OK;
}

/* All tokens of history that have not gone through yet; logits of the last. */
static tr_status feed(generation *g)
{
    size_t max_rows = tr_engine_max_rows(g->e);

    while (tr_sequence_length(g->sequence) < g->n_history) {
        size_t done = tr_sequence_length(g->sequence);
        size_t n = g->n_history - done < max_rows ? g->n_history - done : max_rows;
        for (size_t i = 0; i < n; i++)
            g->rows[i] =
                (tr_row){ g->sequence, g->history[done + i], done + i + 1 == g->n_history };
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        tr_status st = tr_engine_step(g->e, g->rows, n, g->logits);
        if (st != TR_OK)
            return st;
        tr_sequence_name(g->sequence, g->history);
    }
    return logits_check(g);
}

/* Draw the next token and say what the model thought of it.  Sampling works on a copy: the
 * probability is the model's own. */
static tr_generated draw(generation *g)
{
    const tr_generate_request *r = g->r;
    tr_generated t = { .alternatives = g->alternatives };

    memcpy(g->sampled, g->logits, g->n_vocab * sizeof *g->sampled);
    t.id = tr_sample(&r->sampling, g->sampled, g->n_vocab, g->history, g->n_history, r->number,
                     g->n_history, &g->scratch);
    if (!r->wants_log_probs)
        return t;
    t.log_prob = tr_log_prob(g->logits, g->n_vocab, t.id);
    t.n_alternatives = tr_alternatives(g->logits, g->n_vocab, g->alternatives, r->n_alternatives);
    return t;
}

static tr_status decode(generation *g, tr_generate_result *out)
{
    const tr_generate_request *r = g->r;

    out->finish = TR_FINISH_LENGTH;
    while (out->n_generated < r->max_tokens) {
        tr_generated t = draw(g);
        if (r->is_end && r->is_end(r->ctx, t.id)) {
            out->finish = TR_FINISH_END;
            return TR_OK;
        }
        g->history[g->n_history++] = t.id;
        out->n_generated++;
        if (!r->on_token(r->ctx, &t)) {
            out->finish = TR_FINISH_STOP;
            return TR_OK;
        }
        if (out->n_generated == r->max_tokens)
            return TR_OK;
        tr_status st = feed(g);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

tr_status tr_generate(tr_engine *e, const tr_generate_request *r, tr_generate_result *out)
{
    generation g = { .e = e, .r = r, .n_vocab = tr_engine_model(e)->config.n_vocab };
    tr_generate_result result = { .n_prompt = r->n_prompt };
    tr_time t0 = tr_now();

    tr_status st = begin(&g);
    if (st == TR_OK)
        st = feed(&g);
    tr_time t1 = tr_now();
    result.prefill = t1 - t0;
    if (st == TR_OK)
        st = decode(&g, &result);
    result.decode = tr_now() - t1;
    end(&g);
    if (st == TR_OK)
        *out = result;
    return st;
}
