/* logit_edit.c - bias, then penalties token by token.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/logit_edit.h"

static void subtract_presence(float presence, float *logits, const uint32_t *answer, size_t n,
                              bool *seen)
{
    for (size_t i = 0; i < n; i++) {
        if (!seen[answer[i]])
            logits[answer[i]] -= presence;
        seen[answer[i]] = true;
    }
    for (size_t i = 0; i < n; i++)
        seen[answer[i]] = false;
}

void tr_logit_edit_apply(const tr_logit_edit *e, float *logits, size_t n_vocab,
                         const uint32_t *answer, size_t n_answer, bool *seen)
{
    for (size_t i = 0; i < e->n_bias; i++)
        if (e->bias[i].id < n_vocab)
            logits[e->bias[i].id] += e->bias[i].value;
    if (e->presence != 0.0f)
        subtract_presence(e->presence, logits, answer, n_answer, seen);
    if (e->frequency != 0.0f)
        for (size_t i = 0; i < n_answer; i++)
            logits[answer[i]] -= e->frequency;
}
