/* router.c - the gate, the best groups, k times the largest, sort by expert, renormalise, scale.
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

/* A NaN (a broken model) never wins against a number. */
static bool is_better(float s, float most)
{
    return s > most || (isnan(most) && !isnan(s));
}

/* The largest score among those not yet taken (ascending): experts are distinct whatever the
 * values. */
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
        } else if (best == n || is_better(s, most)) {
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

/* How good a group of n experts from `first` on is. */
static float group_score(tr_gate gate, const float *p, const float *bias, uint32_t first,
                         uint32_t n)
{
    float most = score(p, bias, first);
    float second = -INFINITY;

    for (uint32_t e = first + 1; e < first + n; e++) {
        float s = score(p, bias, e);
        if (is_better(s, most)) {
            second = most;
            most = s;
        } else if (is_better(s, second)) {
            second = s;
        }
    }
    return gate == TR_GATE_SOFTMAX || n == 1 ? most : most + second;
}

/* Experts outside the best groups become such that they can't be chosen. */
static void close_groups(const tr_model_config *c, const float *bias, float *p)
{
    uint32_t size = c->n_experts / c->n_groups;
    float scores[TR_MAX_GROUPS];
    bool is_open[TR_MAX_GROUPS] = { false };

    for (uint32_t g = 0; g < c->n_groups; g++)
        scores[g] = group_score(c->gate, p, bias, g * size, size);
    for (uint32_t i = 0; i < c->used_groups; i++) {
        uint32_t best = c->n_groups;
        for (uint32_t g = 0; g < c->n_groups; g++)
            if (!is_open[g] && (best == c->n_groups || is_better(scores[g], scores[best])))
                best = g;
        is_open[best] = true;
    }
    for (uint32_t e = 0; e < c->n_experts; e++)
        if (!is_open[e / size])
            p[e] = -INFINITY;
}

void tr_router_pick(const tr_kernels *k, const tr_model_config *config, const float *bias,
                    float *logits, uint32_t row, tr_pick *picks)
{
    float sum = 1e-20f; /* as DeepSeek's own code: sigmoids can all be 0 */

    open_gate(k, config->gate, logits, config->n_experts);
    if (config->n_groups > 0)
        close_groups(config, bias, logits);
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
