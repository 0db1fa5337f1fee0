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
        tr_arena_size(n_picks * sizeof(tr_share)) + 4 * tr_arena_size(n_picks * sizeof(uint32_t)) +
        2 * tr_arena_size(n_peers * sizeof(size_t)) + tr_arena_size(n_peers * sizeof(uint32_t)) +
        tr_arena_size(n_experts * sizeof(size_t)) + tr_arena_size(max_rows * sizeof(uint32_t));
    tr_status st = tr_arena_init(&plan.arena, size, "plan");
    if (st != TR_OK)
        return st;
    plan.share = tr_arena_get(&plan.arena, n_picks * sizeof(tr_share));
    plan.order = tr_arena_get(&plan.arena, n_picks * sizeof(uint32_t));
    plan.share_row = tr_arena_get(&plan.arena, n_picks * sizeof(uint32_t));
    plan.row = tr_arena_get(&plan.arena, n_picks * sizeof(uint32_t));
    plan.peer_picks = tr_arena_get(&plan.arena, n_peers * sizeof(size_t));
    plan.peer_rows = tr_arena_get(&plan.arena, n_peers * sizeof(size_t));
    plan.peer_last = tr_arena_get(&plan.arena, n_peers * sizeof(uint32_t));
    plan.expert_at = tr_arena_get(&plan.arena, n_experts * sizeof(size_t));
    plan.spare = tr_arena_get(&plan.arena, n_picks * sizeof(uint32_t));
    plan.row_place = tr_arena_get(&plan.arena, max_rows * sizeof(uint32_t));
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

    p->n_shares = 0;
    for (uint32_t peer = 0; peer < p->n_peers; peer++) {
        size_t picks = p->peer_picks[peer];
        if (picks == 0)
            continue;
        p->share[p->n_shares++] = (tr_share){ peer, pick, picks, pick, p->peer_rows[peer] };
        p->peer_picks[peer] = pick;
        p->peer_rows[peer] = pick;
        pick += picks;
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

/* Rows of a share from its picks: each once, ascending. */
static void number_rows(tr_plan *p, tr_share *s, const tr_pick *picks)
{
    memset(p->row_place, 0, p->n_rows * sizeof *p->row_place);
    for (size_t i = 0; i < s->n_picks; i++)
        p->row_place[picks[p->order[s->first_pick + i]].row] = 1;
    s->n_rows = 0;
    for (size_t r = 0; r < p->n_rows; r++) {
        if (p->row_place[r] == 0)
            continue;
        p->row[s->first_row + s->n_rows++] = (uint32_t)r;
        p->row_place[r] = (uint32_t)s->n_rows;
    }
    for (size_t i = 0; i < s->n_picks; i++) {
        uint32_t pick = p->order[s->first_pick + i];
        p->share_row[pick] = p->row_place[picks[pick].row] - 1;
    }
}

void tr_plan_split(tr_plan *p, size_t i, const tr_pick *picks, const tr_placement *placement,
                   uint32_t layer)
{
    const tr_share whole = p->share[i];
    uint32_t *order = p->order + whole.first_pick;
    size_t n_before = p->n_shares;
    size_t at = whole.first_pick;

    TR_CHECK(i < p->n_shares);
    memcpy(p->spare, order, whole.n_picks * sizeof *order);
    memset(p->peer_picks, 0, p->n_peers * sizeof *p->peer_picks);
    for (size_t k = 0; k < whole.n_picks; k++)
        p->peer_picks[tr_placement_holder(placement, layer, picks[p->spare[k]].expert)]++;
    for (uint32_t peer = 0; peer < p->n_peers; peer++) {
        size_t n = p->peer_picks[peer];
        if (n == 0)
            continue;
        size_t place = at == whole.first_pick ? i : p->n_shares++;
        p->share[place] = (tr_share){ peer, at, n, at, 0 };
        p->peer_picks[peer] = at;
        at += n;
    }
    for (size_t k = 0; k < whole.n_picks; k++) {
        uint32_t peer = tr_placement_holder(placement, layer, picks[p->spare[k]].expert);
        p->order[p->peer_picks[peer]++] = p->spare[k];
    }
    number_rows(p, &p->share[i], picks);
    for (size_t s = n_before; s < p->n_shares; s++)
        number_rows(p, &p->share[s], picks);
}
