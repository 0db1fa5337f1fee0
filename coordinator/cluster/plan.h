/* plan.h - turn the router's picks into one share of work per peer.
 *
 * The router says "row 5 goes to experts 17 and 203".  A holder needs the opposite view: which
 * rows come to me, and which picks, expert by expert.  This file turns the view around, once,
 * with a counting sort that is stable in row order: the result depends on the input alone.
 *
 * USE     tr_plan plan;
 *         st = tr_plan_init(&plan, max_rows, top_k, n_experts, n_workers);
 *         tr_plan_build(&plan, picks, n_rows, top_k, &placement, layer);
 *         for (i = 0; i < plan.n_shares; i++) plan.share[i] ...
 *         tr_plan_split(&plan, i, picks, &placement, layer);   share i's peer is lost
 *         tr_plan_fini(&plan);
 *
 * Pure after init: no I/O, no clock, no allocation, no logging.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_PLAN_H
#define TR_COORDINATOR_CLUSTER_PLAN_H

#include "coordinator/cluster/placement.h"

#include "base/memory.h"

/* One decision of the router.  A row's picks stand together, in ascending expert order. */
typedef struct {
    uint32_t row;
    uint32_t expert;
    float weight;
} tr_pick;

/* What goes to one peer. */
typedef struct {
    uint32_t peer;
    size_t first_pick, n_picks; /* of plan.order, ascending (expert, row) */
    size_t first_row, n_rows;   /* of plan.row, ascending; first_row is first_pick */
} tr_share;

typedef struct {
    size_t n_rows, top_k, n_picks, n_shares;
    tr_share *share;     /* [n_shares], ascending peer until one is split */
    uint32_t *order;     /* [n_picks]: place in share order -> index of the router's pick */
    uint32_t *share_row; /* [n_picks]: index of the router's pick -> row within its share */
    uint32_t *row;       /* [n_picks], of which each share uses its first n_rows */

    size_t max_rows, max_top_k, n_experts, n_peers;
    tr_arena arena;
    size_t *peer_picks;  /* [n_peers] counts, then cursors */
    size_t *peer_rows;   /* [n_peers] */
    uint32_t *peer_last; /* [n_peers] last row seen + 1 */
    size_t *expert_at;   /* [n_experts] counts, then cursors */
    uint32_t *spare;     /* [n_picks] order of a share that is split */
    uint32_t *row_place; /* [max_rows] place + 1 of a row in its share */
} tr_plan;

tr_status tr_plan_init(tr_plan *p, size_t max_rows, size_t top_k, uint32_t n_experts,
                       uint32_t n_workers);
void tr_plan_fini(tr_plan *p);

/* picks is [n_rows][top_k] with picks[r * top_k + j].row == r; n_rows and top_k at most those of
 * init. */
void tr_plan_build(tr_plan *p, const tr_pick *picks, size_t n_rows, size_t top_k,
                   const tr_placement *placement, uint32_t layer);

/* The picks of share i go to the peers that placement names now: it becomes one share for each, the
 * first in its place, the others behind the last.  Other shares keep their places. */
void tr_plan_split(tr_plan *p, size_t i, const tr_pick *picks, const tr_placement *placement,
                   uint32_t layer);

#endif
