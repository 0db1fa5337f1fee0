/* serving_draw.c - sampling for all whose logits a step has made.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/serving_state.h"

#include <math.h>
#include <string.h>

static bool are_numbers(const float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(logits[i]) || logits[i] == INFINITY)
            return false;
    return true;
}

static void draw_some(void *ctx, size_t thread, size_t begin, size_t end)
{
    tr_serving *s = ctx;
    float *sampled = s->sampled + thread * s->n_vocab;

    for (size_t i = begin; i < end; i++) {
        tr_serving_entry *e = s->drawing[i];
        const tr_serving_request *r = &e->r;
        const float *logits = s->logits + e->row * s->n_vocab;

        e->is_broken = !are_numbers(logits, s->n_vocab);
        if (e->is_broken)
            continue;
        memcpy(sampled, logits, s->n_vocab * sizeof *sampled);
        tr_logit_edit_apply(&r->edit, sampled, s->n_vocab, e->tokens + r->n_prompt,
                            e->n_tokens - r->n_prompt, s->scratch[thread].seen);
        e->is_stuck = r->constrain && !r->constrain(r->ctx, sampled, s->n_vocab);
        if (e->is_stuck)
            continue;
        e->drawn = (tr_generated){ .alternatives = e->alternatives };
        e->drawn.id = tr_sample(&r->sampling, sampled, s->n_vocab, e->tokens, e->n_tokens,
                                r->number, e->n_tokens, &s->scratch[thread]);
        if (!r->wants_log_probs)
            continue;
        e->drawn.log_prob = tr_log_prob(logits, s->n_vocab, e->drawn.id);
        e->drawn.n_alternatives =
            tr_alternatives(logits, s->n_vocab, e->alternatives, r->n_alternatives);
    }
}

void tr_serving_draw(tr_serving *s)
{
    tr_pool_for(tr_engine_compute(s->o.engine)->pool, s->n_drawing, 1, draw_some, s);
}
