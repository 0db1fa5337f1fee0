/* recovery.c - keep every expert with somebody who can compute it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/recovery.h"

#include "base/log.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a substitute was told about an expert. */
enum { TOLD_NOTHING, TOLD_LAZY, TOLD_ALL };

enum { NOBODY = UINT32_MAX };

/* As the state of each worker was when it was last looked at. */
typedef enum { AT_HOME, AWAY, GONE } presence;

struct tr_recovery {
    tr_recovery_options o;
    tr_assignment first; /* without experts */
    uint32_t n_peers;
    uint64_t seen; /* changes of members that are dealt with */
    bool is_short;
    uint64_t missing; /* bytes */
    uint32_t missing_of;
    uint32_t *substitute; /* [n_layers][n_experts] who loaded it beside its home, or NOBODY */
    uint8_t *told;        /* [n_layers][n_experts] */
    uint64_t *room;       /* [n_peers] bytes left */
    bool *is_full;        /* [n_peers] */
    presence *presence;   /* [n_peers] */
    bool *is_due;         /* [n_layers][n_experts] to be told in this round */
    tr_recovery_stats stats;
};

/* ---- memory ---------------------------------------------------------------------------- */

/* How many processes of the job share a worker's host, the coordinator among them if it does. */
static uint32_t processes_on(const tr_recovery *r, const char *host, const char *here)
{
    uint32_t n = strcmp(host, here) == 0;

    for (uint32_t w = 1; w < r->n_peers; w++)
        n += strcmp(tr_members_get(r->o.members, w)->hello.host, host) == 0;
    return n ? n : 1;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void measure_room(tr_recovery *r)
{
    const tr_placement *p = r->o.placement;
    char here[TR_MAX_NAME] = "";

    gethostname(here, sizeof here - 1);
    r->room[0] = r->o.coordinator_memory;
    if (r->room[0] == 0)
        r->room[0] =
            less(tr_memory_physical() / processes_on(r, here, here) / 10 * 9, tr_memory_resident());
    for (uint32_t w = 1; w < r->n_peers; w++) {
        const tr_hello *h = &tr_members_get(r->o.members, w)->hello;
        r->room[w] = r->o.worker_memory ? r->o.worker_memory
                                        : h->memory / processes_on(r, h->host, here) / 10 * 9;
    }
    for (uint32_t l = 0; l < p->n_layers; l++)
        for (uint32_t e = 0; e < r->o.map->layer[l].n_experts; e++) {
            uint32_t home = tr_placement_home(p, l, e);
            r->room[home] = less(r->room[home], tr_expert_map_bytes(r->o.map, l));
        }
}

/* ---- new, free ------------------------------------------------------------------------- */

tr_status tr_recovery_new(const tr_recovery_options *o, tr_recovery **out)
{
    tr_recovery *r = calloc(1, sizeof *r);
    size_t n = (size_t)o->placement->n_layers * o->placement->n_experts;

    if (!r)
        return tr_fail(TR_E_MEMORY, "recovery: no memory");
    r->o = *o;
    r->first = *o->first;
    r->first.layer = NULL;
    r->n_peers = o->n_workers + 1;
    r->substitute = malloc(n * sizeof *r->substitute);
    r->told = calloc(n, sizeof *r->told);
    r->is_due = calloc(n, sizeof *r->is_due);
    r->room = calloc(r->n_peers, sizeof *r->room);
    r->is_full = calloc(r->n_peers, sizeof *r->is_full);
    r->presence = calloc(r->n_peers, sizeof *r->presence);
    if (!r->substitute || !r->told || !r->is_due || !r->room || !r->is_full || !r->presence) {
        tr_recovery_free(&r);
        return tr_fail(TR_E_MEMORY, "recovery: no memory");
    }
    for (size_t i = 0; i < n; i++)
        r->substitute[i] = NOBODY;
    measure_room(r);
    *out = r;
    return TR_OK;
}

void tr_recovery_free(tr_recovery **recovery)
{
    tr_recovery *r = *recovery;

    if (!r)
        return;
    free(r->substitute);
    free(r->told);
    free(r->is_due);
    free(r->room);
    free(r->is_full);
    free(r->presence);
    free(r);
    *recovery = NULL;
}

/* ---- who holds what -------------------------------------------------------------------- */

static bool is_usable(const tr_recovery *r, uint32_t peer)
{
    return peer == 0 || (peer != NOBODY && tr_members_is_usable(r->o.members, peer));
}

/* The usable worker with the most room for so many bytes; else the coordinator; else nobody. */
static uint32_t find_room(const tr_recovery *r, uint64_t bytes)
{
    uint32_t best = NOBODY;

    for (uint32_t w = 1; w < r->n_peers; w++)
        if (is_usable(r, w) && !r->is_full[w] && r->room[w] >= bytes &&
            (best == NOBODY || r->room[w] > r->room[best]))
            best = w;
    if (best == NOBODY && !r->is_full[0] && r->room[0] >= bytes)
        best = 0;
    return best;
}

/* Who is to hold an expert whose home can't be used; NOBODY if there is no memory for it. */
static uint32_t substitute_for(tr_recovery *r, size_t at, uint64_t bytes)
{
    uint32_t s = r->substitute[at];

    if (s != NOBODY && is_usable(r, s))
        return s;
    s = find_room(r, bytes);
    if (s != NOBODY) {
        r->room[s] -= bytes;
        r->substitute[at] = s;
        r->told[at] = TOLD_NOTHING;
    }
    return s;
}

static void place_expert(tr_recovery *r, uint32_t layer, uint32_t expert)
{
    tr_placement *p = r->o.placement;
    size_t at = (size_t)layer * p->n_experts + expert;
    uint64_t bytes = tr_expert_map_bytes(r->o.map, layer);
    uint32_t home = tr_placement_home(p, layer, expert);
    uint32_t holder = is_usable(r, home) ? home : substitute_for(r, at, bytes);

    if (holder == NOBODY) {
        r->missing += bytes;
        r->missing_of = home;
        return;
    }
    if (holder != home && holder != 0) {
        uint8_t needs =
            tr_members_get(r->o.members, home)->state >= TR_MEMBER_LOST ? TOLD_ALL : TOLD_LAZY;
        r->is_due[at] = r->told[at] < needs;
    }
    if (tr_placement_holder(p, layer, expert) != holder) {
        tr_placement_move(p, layer, expert, holder);
        r->stats.experts_moved++;
    }
}

/* What one substitute is told now: of the homes that are lost, or of those that may come back. */
static tr_status tell(tr_recovery *r, uint32_t peer, bool lazy)
{
    const tr_placement *p = r->o.placement;
    tr_assignment a;
    size_t n = 0;

    tr_status st = tr_assignment_init(&a, p->n_layers);
    memcpy(a.kernels, r->first.kernels, sizeof a.kernels);
    a.exact = r->first.exact;
    a.max_rows = r->first.max_rows;
    a.epoch = p->epoch;
    a.lazy = lazy;
    for (uint32_t l = 0; l < p->n_layers && st == TR_OK; l++) {
        a.layer[l].expert = malloc(p->n_experts * sizeof(uint32_t));
        if (!a.layer[l].expert)
            st = tr_fail(TR_E_MEMORY, "recovery: no memory");
        for (uint32_t e = 0; e < r->o.map->layer[l].n_experts && st == TR_OK; e++) {
            size_t at = (size_t)l * p->n_experts + e;
            uint32_t home = tr_placement_home(p, l, e);
            if (!r->is_due[at] || r->substitute[at] != peer ||
                lazy != (tr_members_get(r->o.members, home)->state < TR_MEMBER_LOST))
                continue;
            r->is_due[at] = false;
            r->told[at] = lazy ? TOLD_LAZY : TOLD_ALL;
            a.layer[l].expert[a.layer[l].n++] = e;
            n++;
        }
    }
    if (st == TR_OK && n > 0)
        st = tr_members_assign(r->o.members, peer, &a);
    tr_assignment_fini(&a);
    return st;
}

static void count_presence(tr_recovery *r)
{
    for (uint32_t w = 1; w < r->n_peers; w++) {
        tr_member_state s = tr_members_get(r->o.members, w)->state;
        presence now = s >= TR_MEMBER_LOST ? GONE : s == TR_MEMBER_SUSPECT ? AWAY : AT_HOME;
        r->stats.lost += now == GONE && r->presence[w] != GONE;
        r->stats.suspected += now == AWAY && r->presence[w] == AT_HOME;
        r->stats.returned += now == AT_HOME && r->presence[w] == AWAY;
        r->presence[w] = now;
    }
}

static tr_status place_all(tr_recovery *r)
{
    tr_placement *p = r->o.placement;
    tr_status st = TR_OK;

    p->epoch++;
    r->missing = 0;
    for (uint32_t l = 0; l < p->n_layers; l++)
        for (uint32_t e = 0; e < r->o.map->layer[l].n_experts; e++)
            place_expert(r, l, e);
    for (uint32_t w = 1; w < r->n_peers && st == TR_OK; w++) {
        if (is_usable(r, w))
            st = tell(r, w, false);
        if (st == TR_OK && is_usable(r, w))
            st = tell(r, w, true);
    }
    return st;
}

tr_status tr_recovery_look(tr_recovery *r)
{
    /* Telling a substitute may find it gone, which is another change. */
    while (r->seen != tr_members_changes(r->o.members)) {
        r->seen = tr_members_changes(r->o.members);
        count_presence(r);
        tr_status st = place_all(r);
        if (st != TR_OK)
            return st;
        if (r->missing > 0 && !r->is_short) {
            char text[256];
            tr_recovery_short(r, text, sizeof text);
            tr_log(TR_LOG_WARN, "%s: requests wait", text);
        }
        r->is_short = r->missing > 0;
    }
    return r->is_short ? TR_E_BUSY : TR_OK;
}

void tr_recovery_is_full(tr_recovery *r, uint32_t peer)
{
    size_t n = (size_t)r->o.placement->n_layers * r->o.placement->n_experts;

    r->is_full[peer] = true;
    for (size_t i = 0; i < n; i++)
        if (r->substitute[i] == peer)
            r->substitute[i] = NOBODY;
    r->seen = UINT64_MAX; /* another look is due */
}

void tr_recovery_short(const tr_recovery *r, char *out, size_t size)
{
    snprintf(
        out, size,
        "experts of worker %u need %llu bytes, and no process that is left has memory for them",
        r->missing_of, (unsigned long long)r->missing);
}

void tr_recovery_count(tr_recovery *r, uint64_t shares_resent, tr_time stalled)
{
    r->stats.shares_resent += shares_resent;
    r->stats.stalled += stalled;
    if (stalled > r->stats.longest_stall)
        r->stats.longest_stall = stalled;
}

tr_recovery_stats tr_recovery_get_stats(const tr_recovery *r)
{
    return r->stats;
}
