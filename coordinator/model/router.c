/* router.c - the gate, k times the largest, sort by expert, renormalise, scale.
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

/* What an expert is chosen by. */
static float score(const float *p, const float *bias, uint32_t e)
{
    return bias ? p[e] + bias[e] : p[e];
}

/* The largest score among those not yet taken (ascending).  A NaN (a broken model) never wins
 * against a number, and experts are distinct whatever the values. */
static uint32_t largest(const float *p, const float *bias, const tr_pick *taken, size_t n_taken,
                        uint32_t n)
{
    uint32_t best = n;
    float most = 0.0f;
    size_t t = 0;

    for (uint32_t e = 0; e < n; e++) {
        float s = score(p, bias, e);
        if (t < n_taken && taken[t].expert == e) {
            t++;
        } else if (best == n || s > most || (isnan(most) && !isnan(s))) {
            best = e;
            most = s;
        }
    }
    return best;
}

static void open_gate(const tr_kernels *k, tr_gate gate, float *logits, uint32_t n)
{
    if (gate == TR_GATE_SOFTMAX) {
        k->softmax(logits, n);
        return;
    }
    for (uint32_t e = 0; e < n; e++)
        logits[e] = 1.0f / (1.0f + tr_expf(-logits[e]));
}

void tr_router_pick(const tr_kernels *k, const tr_model_config *config, const float *bias,
                    float *logits, uint32_t row, tr_pick *picks)
{
    float sum = 0.0f;

    open_gate(k, config->gate, logits, config->n_experts);
    for (size_t i = 0; i < config->top_k; i++) {
        uint32_t e = largest(logits, bias, picks, i, config->n_experts);
        insert(picks, i, (tr_pick){ row, e, logits[e] });
    }
    for (size_t i = 0; i < config->top_k; i++)
        sum += picks[i].weight;
    float scale = config->routed_scale * config->residual_scale;
    for (size_t i = 0; i < config->top_k; i++)
        picks[i].weight = (config->renormalise ? picks[i].weight / sum : picks[i].weight) * scale;
}
