/* plan.c - counting sort of picks by (peer, expert), stable in row order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/plan.h"

#include "base/check.h"

#include <string.h>

tr_status tr_plan_init(tr_plan *p, size_t max_rows, size_t top_k, uint32_t n_experts,
                       uint32_t n_workers)
{
    size_t n_picks = max_rows * top_k;
    size_t n_peers = (size_t)n_workers + 1;
    tr_plan plan = {
        .max_rows = max_rows, .max_top_k = top_k, .n_experts = n_experts, .n_peers = n_peers
    };

    size_t size =
        tr_arena_size(n_peers * sizeof(tr_share)) + 3 * tr_arena_size(n_picks * sizeof(uint32_t)) +
        2 * tr_arena_size(n_peers * sizeof(size_t)) + tr_arena_size(n_peers * sizeof(uint32_t)) +
        tr_arena_size(n_experts * sizeof(size_t));
    tr_status st = tr_arena_init(&plan.arena, size, "plan");
    if (st != TR_OK)
        return st;
    plan.share = tr_arena_get(&plan.arena, n_peers * sizeof(tr_share));
    plan.order = tr_arena_get(&plan.arena, n_picks * sizeof(uint32_t));
    plan.share_row = tr_arena_get(&plan.arena, n_picks * sizeof(uint32_t));
    plan.row = tr_arena_get(&plan.arena, n_picks * sizeof(uint32_t));
    plan.peer_picks = tr_arena_get(&plan.arena, n_peers * sizeof(size_t));
    plan.peer_rows = tr_arena_get(&plan.arena, n_peers * sizeof(size_t));
    plan.peer_last = tr_arena_get(&plan.arena, n_peers * sizeof(uint32_t));
    plan.expert_at = tr_arena_get(&plan.arena, n_experts * sizeof(size_t));
    *p = plan;
    return TR_OK;
}

void tr_plan_fini(tr_plan *p)
{
    tr_arena_fini(&p->arena);
    *p = (tr_plan){ 0 };
}

/* First pass: how many picks and distinct rows each peer gets, and picks each expert. */
static void count(tr_plan *p, const tr_pick *picks, const tr_placement *placement, uint32_t layer)
{
    memset(p->peer_picks, 0, p->n_peers * sizeof *p->peer_picks);
    memset(p->peer_rows, 0, p->n_peers * sizeof *p->peer_rows);
    memset(p->peer_last, 0, p->n_peers * sizeof *p->peer_last);
    memset(p->expert_at, 0, p->n_experts * sizeof *p->expert_at);
    for (size_t i = 0; i < p->n_picks; i++) {
        uint32_t peer = tr_placement_holder(placement, layer, picks[i].expert);
        TR_CHECK(peer < p->n_peers);
        p->expert_at[picks[i].expert]++;
        p->peer_picks[peer]++;
        if (p->peer_last[peer] != picks[i].row + 1) {
            p->peer_last[peer] = picks[i].row + 1;
            p->share_row[i] = (uint32_t)p->peer_rows[peer]++;
        } else {
            p->share_row[i] = (uint32_t)p->peer_rows[peer] - 1;
        }
    }
}

/* A share for each peer that got something; counts become cursors. */
static void lay_out(tr_plan *p, const tr_placement *placement, uint32_t layer)
{
    size_t pick = 0;
    size_t row = 0;

    p->n_shares = 0;
    for (uint32_t peer = 0; peer < p->n_peers; peer++) {
        if (p->peer_picks[peer] == 0)
            continue;
        p->share[p->n_shares++] =
            (tr_share){ peer, pick, p->peer_picks[peer], row, p->peer_rows[peer] };
        size_t rows = p->peer_rows[peer];
        size_t picks = p->peer_picks[peer];
        p->peer_picks[peer] = pick;
        p->peer_rows[peer] = row;
        pick += picks;
        row += rows;
    }
    for (uint32_t e = 0; e < p->n_experts; e++) {
        size_t n = p->expert_at[e];
        uint32_t peer = tr_placement_holder(placement, layer, e);
        p->expert_at[e] = p->peer_picks[peer];
        p->peer_picks[peer] += n;
    }
}

void tr_plan_build(tr_plan *p, const tr_pick *picks, size_t n_rows, size_t top_k,
                   const tr_placement *placement, uint32_t layer)
{
    TR_CHECK(n_rows <= p->max_rows);
    TR_CHECK(top_k <= p->max_top_k);
    TR_CHECK(placement->n_experts == p->n_experts);
    p->n_rows = n_rows;
    p->top_k = top_k;
    p->n_picks = n_rows * top_k;
    count(p, picks, placement, layer);
    lay_out(p, placement, layer);
    for (size_t i = 0; i < p->n_picks; i++) {
        uint32_t peer = tr_placement_holder(placement, layer, picks[i].expert);
        size_t at = p->expert_at[picks[i].expert]++;
        p->order[at] = (uint32_t)i;
        p->row[p->peer_rows[peer] + p->share_row[i]] = picks[i].row;
    }
}
