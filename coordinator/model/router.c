/* router.c - softmax, k times the largest, sort by expert, renormalise.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/router.h"

#include <math.h>

/* Insert by expert number: k is small. */
static void insert(tr_pick *picks, size_t n, tr_pick p)
{
    size_t i = n;

    while (i > 0 && picks[i - 1].expert > p.expert) {
        picks[i] = picks[i - 1];
        i--;
    }
    picks[i] = p;
}

/* The largest value among those not yet taken (ascending).  A NaN (a broken model) never wins
 * against a number, and experts are distinct whatever the values. */
static uint32_t largest(const float *p, const tr_pick *taken, size_t n_taken, uint32_t n)
{
    uint32_t best = n;
    size_t t = 0;

    for (uint32_t e = 0; e < n; e++) {
        if (t < n_taken && taken[t].expert == e)
            t++;
        else if (best == n || p[e] > p[best] || (isnan(p[best]) && !isnan(p[e])))
            best = e;
    }
    return best;
}

void tr_router_pick(const tr_kernels *k, const tr_model_config *config, float *logits, uint32_t row,
                    tr_pick *picks)
{
    k->softmax(logits, config->n_experts);
    for (size_t i = 0; i < config->top_k; i++) {
        uint32_t e = largest(logits, picks, i, config->n_experts);
        insert(picks, i, (tr_pick){ row, e, logits[e] });
    }
    if (!config->renormalise)
        return;
    float sum = 0.0f;
    for (size_t i = 0; i < config->top_k; i++)
        sum += picks[i].weight;
    for (size_t i = 0; i < config->top_k; i++)
        picks[i].weight /= sum;
}
