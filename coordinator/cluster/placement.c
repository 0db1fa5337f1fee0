/* placement.c - fill the table by rule.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/placement.h"

#include <stdlib.h>
#include <string.h>

static tr_status check(uint32_t n_layers, uint32_t n_experts, uint32_t n_workers,
                       tr_placement_rule rule, const uint32_t *counts)
{
    if (n_experts == 1 && n_workers > n_layers)
        return tr_fail(TR_E_CONFIG,
                       "%u workers, but the model has only %u feed-forward networks, one a layer: "
                       "use at most %u workers",
                       n_workers, n_layers, n_layers);
    if (n_experts > 1 && n_workers > n_experts)
        return tr_fail(TR_E_CONFIG,
                       "%u workers, but each layer has only %u experts: use at most %u workers",
                       n_workers, n_experts, n_experts);
    if (rule != TR_PLACE_COUNTS)
        return TR_OK;
    if (n_experts == 1)
        return tr_fail(TR_E_CONFIG,
                       "numbers of experts for each worker: this model has no experts, "
                       "whole layers are shared out; leave --experts or "
                       "workers.experts out");
    uint64_t sum = 0;
    for (uint32_t w = 0; w < n_workers; w++)
        sum += counts[w];
    if (sum != n_experts)
        return tr_fail(TR_E_CONFIG,
                       "workers.experts adds up to %llu, but each layer has %u experts",
                       (unsigned long long)sum, n_experts);
    return TR_OK;
}

/* The worker (from 0) whose run of n_experts contains e. */
static uint32_t run_of(uint32_t e, uint32_t n_experts, uint32_t n_workers, const uint32_t *counts)
{
    if (!counts)
        return (uint32_t)((uint64_t)e * n_workers / n_experts);
    uint32_t w = 0;
    for (uint32_t end = counts[0]; e >= end; end += counts[w])
        w++;
    return w;
}

/* The worker (from 0) of one expert. */
static uint32_t worker_of(const tr_placement *p, tr_placement_rule rule, const uint32_t *counts,
                          uint32_t layer, uint32_t e)
{
    if (rule == TR_PLACE_ROTATE)
        return (e + layer) % p->n_workers;
    if (rule == TR_PLACE_COUNTS)
        return run_of(e, p->n_experts, p->n_workers, counts);
    if (p->n_experts == 1)
        return run_of(layer, p->n_layers, p->n_workers, NULL);
    return run_of(e, p->n_experts, p->n_workers, NULL);
}

tr_status tr_placement_new(uint32_t n_layers, uint32_t n_experts, uint32_t n_workers,
                           tr_placement_rule rule, const uint32_t *counts, tr_placement *out)
{
    tr_status st = check(n_layers, n_experts, n_workers, rule, counts);
    if (st != TR_OK)
        return st;

    size_t n = (size_t)n_layers * n_experts;
    uint32_t *holder = calloc(2 * n, sizeof *holder);
    if (!holder)
        return tr_fail(TR_E_MEMORY, "placement: no memory");
    tr_placement p = { n_layers, n_experts, n_workers, 1, holder, holder + n };
    for (uint32_t l = 0; l < n_layers && n_workers > 0; l++)
        for (uint32_t e = 0; e < n_experts; e++)
            holder[(size_t)l * n_experts + e] = worker_of(&p, rule, counts, l, e) + 1;
    memcpy(p.home, p.holder, n * sizeof *holder);
    *out = p;
    return TR_OK;
}

void tr_placement_fini(tr_placement *p)
{
    free(p->holder);
    *p = (tr_placement){ 0 };
}
