/* placement.h - which peer holds which expert.
 *
 * A placement is a table (layer, expert) -> peer under an epoch.  Peer 0 is the coordinator
 * itself.  What is generated does not depend on it; how fast, does.  Layers may have fewer than
 * n_experts: the places of those that don't exist mean nothing.
 *
 * USE     tr_placement p;
 *         st = tr_placement_new(n_layers, n_experts, n_workers, TR_PLACE_EVEN, NULL, &p);
 *         tr_peer holder = tr_placement_holder(&p, layer, expert);
 *         tr_placement_move(&p, layer, expert, peer);        its holder is lost
 *         tr_placement_fini(&p);
 *
 * An expert's home is the peer that the rule gave it to; its holder is another while the home can't
 * be used.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_PLACEMENT_H
#define TR_COORDINATOR_CLUSTER_PLACEMENT_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
    TR_PLACE_EVEN,   /* worker w holds one contiguous run of each layer's experts; with one expert
                      * a layer, one contiguous run of layers */
    TR_PLACE_ROTATE, /* expert e of layer l is with worker (e + l) mod W: spreads hot experts */
    TR_PLACE_COUNTS, /* as even, but the length of each run is given */
} tr_placement_rule;

typedef struct {
    uint32_t n_layers, n_experts, n_workers;
    uint32_t epoch;
    uint32_t *holder; /* [n_layers][n_experts] */
    uint32_t *home;   /* [n_layers][n_experts] */
} tr_placement;

/* n_workers 0: the coordinator holds all.  counts is [n_workers] for TR_PLACE_COUNTS, else NULL.
 * TR_E_CONFIG if there are more workers than experts of a layer (than layers where each has one),
 * or counts don't add up to n_experts. */
tr_status tr_placement_new(uint32_t n_layers, uint32_t n_experts, uint32_t n_workers,
                           tr_placement_rule rule, const uint32_t *counts, tr_placement *out);
void tr_placement_fini(tr_placement *p);

static inline uint32_t tr_placement_holder(const tr_placement *p, uint32_t layer, uint32_t expert)
{
    return p->holder[(size_t)layer * p->n_experts + expert];
}

static inline uint32_t tr_placement_home(const tr_placement *p, uint32_t layer, uint32_t expert)
{
    return p->home[(size_t)layer * p->n_experts + expert];
}

static inline void tr_placement_move(tr_placement *p, uint32_t layer, uint32_t expert,
                                     uint32_t peer)
{
    p->holder[(size_t)layer * p->n_experts + expert] = peer;
}

#endif
