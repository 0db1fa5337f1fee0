/* logit_edit.c - bias, then penalties token by token.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/logit_edit.h"

static bool came_before(const uint32_t *answer, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (answer[k] == answer[i])
            return true;
    return false;
}

void tr_logit_edit_apply(const tr_logit_edit *e, float *logits, size_t n_vocab,
                         const uint32_t *answer, size_t n_answer)
{
    for (size_t i = 0; i < e->n_bias; i++)
        if (e->bias[i].id < n_vocab)
            logits[e->bias[i].id] += e->bias[i].value;
    if (e->presence != 0.0f)
        for (size_t i = 0; i < n_answer; i++)
            if (!came_before(answer, i))
                logits[answer[i]] -= e->presence;
    if (e->frequency != 0.0f)
        for (size_t i = 0; i < n_answer; i++)
            logits[answer[i]] -= e->frequency;
}
