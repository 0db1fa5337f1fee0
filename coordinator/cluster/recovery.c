/* recovery.c - keep every expert with somebody who can compute it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/recovery.h"

#include "base/host.h"
#include "base/log.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a substitute was told about an expert. */
enum { TOLD_NOTHING, TOLD_LAZY, TOLD_ALL };

/* What a peer has of an expert whose home it is not: nothing, room that is kept for it, or the
 * expert itself, of which nobody knows when it is given up. */
enum { NONE, RESERVED, LOADED };

enum { NOBODY = UINT32_MAX };

/* Between two looks after replacements, and how long one may take to say hello. */
static const tr_time replacement_period = 5 * TR_MS;
static const tr_time join_patience = 60 * TR_SECOND;

/* How long a worker whose memory did not suffice is given nothing more. */
static const tr_time full_period = 60 * TR_SECOND;

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
    size_t n_moved;       /* experts that are not at home */
    uint8_t *held;        /* [n_peers][n_layers][n_experts] NONE, RESERVED or LOADED */
    uint64_t *room;       /* [n_peers] bytes left */
    uint64_t *home_bytes; /* [n_peers] of those that are at home there */
    uint64_t *first_room; /* [n_peers] of a worker that holds no more than these */
    tr_time *retry;       /* [n_peers] when a lost worker may be replaced (again) */
    uint32_t *n_tries;    /* [n_peers] */
    tr_time replaced;     /* when it was last looked who needs a replacement */
    bool some_gone;       /* somebody is lost or not yet replaced */
    bool *is_full;        /* [n_peers] */
    tr_time full_next;    /* when that is forgotten; 0: nobody is */
    bool *is_counted;     /* [n_peers] a replacement whose experts count on this machine */
    presence *presence;   /* [n_peers] */
    bool *is_due;         /* [n_layers][n_experts] to be told in this round */
    tr_recovery_stats stats;
};

/* ---- memory ---------------------------------------------------------------------------- */

/* How many processes of the job share a host, the coordinator among them if it does: all, or those
 * that our launcher started. */
static uint32_t processes_on(const tr_recovery *r, const char *host, const char *here,
                             bool with_outside)
{
    uint32_t n = strcmp(host, here) == 0;

    for (uint32_t w = 1; w < r->n_peers; w++)
        n += strcmp(tr_members_get(r->o.members, w)->hello.host, host) == 0 &&
             (with_outside || !tr_members_is_outside(r->o.members, w));
    return n ? n : 1;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Of each process of a host.  What one launcher started shares a group and its limit, another
 * worker's is its own. */
static uint64_t part_of(const tr_recovery *r, const tr_hello *h, bool is_outside, const char *here)
{
    uint64_t of_host = h->memory / processes_on(r, h->host, here, true);
    uint64_t of_group = h->memory_limit / (is_outside ? 1 : processes_on(r, h->host, here, false));

    return (of_host < of_group ? of_host : of_group) / 10 * 9;
}

/* For experts, of a worker that said hello. */
static uint64_t room_of(const tr_recovery *r, uint32_t w, const char *here)
{
    if (r->o.worker_memory)
        return r->o.worker_memory;
    return part_of(r, &tr_members_get(r->o.members, w)->hello,
                   tr_members_is_outside(r->o.members, w), here);
}

static uint64_t room_here(const tr_recovery *r, const char *here)
{
    tr_hello h = { .memory = tr_memory_of_machine(), .memory_limit = tr_memory_physical() };

    if (r->o.coordinator_memory)
        return r->o.coordinator_memory;
    snprintf(h.host, sizeof h.host, "%s", here);
    return less(part_of(r, &h, false, here), tr_memory_resident());
}

static void measure_room(tr_recovery *r)
{
    const tr_placement *p = r->o.placement;
    char here[TR_MAX_NAME];

    tr_host_name(here, sizeof here);
    r->room[0] = room_here(r, here);
    for (uint32_t w = 1; w < r->n_peers; w++) {
        r->room[w] = room_of(r, w, here);
        r->is_counted[w] = strcmp(tr_members_get(r->o.members, w)->hello.host, here) == 0;
    }
    for (uint32_t l = 0; l < p->n_layers; l++)
        for (uint32_t e = 0; e < r->o.map->layer[l].n_experts; e++) {
            uint32_t home = tr_placement_home(p, l, e);
            uint64_t bytes = tr_expert_map_bytes(r->o.map, l);
            r->room[home] = less(r->room[home], bytes);
            r->home_bytes[home] += bytes;
        }
    memcpy(r->first_room, r->room, r->n_peers * sizeof *r->room);
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
    r->held = calloc(n * r->n_peers, sizeof *r->held);
    r->is_due = calloc(n, sizeof *r->is_due);
    r->room = calloc(r->n_peers, sizeof *r->room);
    r->home_bytes = calloc(r->n_peers, sizeof *r->home_bytes);
    r->first_room = calloc(r->n_peers, sizeof *r->first_room);
    r->retry = calloc(r->n_peers, sizeof *r->retry);
    r->n_tries = calloc(r->n_peers, sizeof *r->n_tries);
    r->is_full = calloc(r->n_peers, sizeof *r->is_full);
    r->is_counted = calloc(r->n_peers, sizeof *r->is_counted);
    r->presence = calloc(r->n_peers, sizeof *r->presence);
    if (!r->substitute || !r->told || !r->held || !r->is_due || !r->room || !r->home_bytes ||
        !r->first_room || !r->retry || !r->n_tries || !r->is_full || !r->is_counted ||
        !r->presence) {
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
    free(r->held);
    free(r->is_due);
    free(r->room);
    free(r->home_bytes);
    free(r->first_room);
    free(r->retry);
    free(r->n_tries);
    free(r->is_full);
    free(r->is_counted);
    free(r->presence);
    free(r);
    *recovery = NULL;
}

/* ---- who holds what -------------------------------------------------------------------- */

static bool is_usable(const tr_recovery *r, uint32_t peer)
{
    return peer == 0 || (peer != NOBODY && tr_members_is_usable(r->o.members, peer));
}

static bool comes_back(const tr_recovery *r, uint32_t home)
{
    return tr_members_get(r->o.members, home)->state < TR_MEMBER_DRAINING;
}

static bool is_leaving(const tr_recovery *r, uint32_t peer)
{
    return tr_members_get(r->o.members, peer)->state == TR_MEMBER_DRAINING;
}

static uint8_t *held(const tr_recovery *r, uint32_t peer, size_t at)
{
    size_t n = (size_t)r->o.placement->n_layers * r->o.placement->n_experts;

    return &r->held[peer * n + at];
}

/* One that has room for the expert already; else the usable worker with the most room for so many
 * bytes; else the coordinator; else nobody. */
static uint32_t find_room(const tr_recovery *r, size_t at, uint64_t bytes)
{
    uint32_t best = NOBODY;

    for (uint32_t w = 0; w < r->n_peers; w++)
        if (*held(r, w, at) != NONE && is_usable(r, w) && !r->is_full[w])
            return w;
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
    s = find_room(r, at, bytes);
    if (s != NOBODY) {
        if (*held(r, s, at) == NONE) {
            r->room[s] -= bytes;
            *held(r, s, at) = RESERVED;
        }
        r->substitute[at] = s;
        r->told[at] = TOLD_NOTHING;
    }
    return s;
}

/* Its home is back: whoever was never asked for it has not loaded it. */
static void give_back_room(tr_recovery *r, size_t at, uint64_t bytes)
{
    uint32_t s = r->substitute[at];

    if (s == NOBODY)
        return;
    for (uint32_t peer = 0; peer < r->n_peers; peer++) {
        if (*held(r, peer, at) != RESERVED)
            continue;
        r->room[peer] += bytes;
        *held(r, peer, at) = NONE;
    }
    if (*held(r, s, at) == NONE)
        r->substitute[at] = NOBODY;
}

/* Whoever is to hold it has it, or has to load it when asked. */
static bool is_taken_over(const tr_recovery *r, size_t at, uint32_t holder)
{
    return holder == 0 ||
           (r->told[at] == TOLD_ALL && !tr_members_get(r->o.members, holder)->is_adopting);
}

static void place_expert(tr_recovery *r, uint32_t layer, uint32_t expert)
{
    tr_placement *p = r->o.placement;
    size_t at = (size_t)layer * p->n_experts + expert;
    uint64_t bytes = tr_expert_map_bytes(r->o.map, layer);
    uint32_t home = tr_placement_home(p, layer, expert);
    uint32_t now = tr_placement_holder(p, layer, expert);
    uint32_t holder = is_usable(r, home) ? home : substitute_for(r, at, bytes);

    if (holder == home)
        give_back_room(r, at, bytes);
    if (holder == NOBODY && now != 0 && tr_members_answers(r->o.members, now))
        holder = now; /* it wants to leave, but nobody has room */
    if (holder == NOBODY) {
        r->missing += bytes;
        r->missing_of = home;
        return;
    }
    if (holder != home && holder != 0) {
        r->is_due[at] = r->told[at] < (comes_back(r, home) ? TOLD_LAZY : TOLD_ALL);
        if (now != holder && now != 0 && is_leaving(r, now) && !is_taken_over(r, at, holder))
            holder = now;
    }
    r->n_moved += holder != home;
    if (now != holder) {
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
            if (!r->is_due[at] || r->substitute[at] != peer || lazy != comes_back(r, home))
                continue;
            r->is_due[at] = false;
            r->told[at] = lazy ? TOLD_LAZY : TOLD_ALL;
            if (!lazy)
                *held(r, peer, at) = LOADED;
            a.layer[l].expert[a.layer[l].n++] = e;
            n++;
        }
    }
    if (st == TR_OK && n > 0)
        st = tr_members_assign(r->o.members, peer, &a);
    tr_assignment_fini(&a);
    return st;
}

void tr_recovery_release(tr_recovery *r)
{
    const tr_placement *p = r->o.placement;

    for (uint32_t w = 1; r->some_gone && w < r->n_peers; w++) {
        bool is_needed = tr_members_get(r->o.members, w)->state != TR_MEMBER_DRAINING;
        for (uint32_t l = 0; l < p->n_layers && !is_needed; l++)
            for (uint32_t e = 0; e < r->o.map->layer[l].n_experts && !is_needed; e++)
                is_needed = tr_placement_holder(p, l, e) == w;
        if (!is_needed)
            tr_members_release(r->o.members, w);
    }
}

static void count_presence(tr_recovery *r)
{
    r->some_gone = false;
    for (uint32_t w = 1; w < r->n_peers; w++) {
        presence now = tr_members_is_usable(r->o.members, w)                         ? AT_HOME
                       : tr_members_get(r->o.members, w)->state == TR_MEMBER_SUSPECT ? AWAY
                                                                                     : GONE;
        r->some_gone = r->some_gone || now == GONE;
        r->stats.replaced += now == AT_HOME && r->presence[w] == GONE;
        r->stats.lost += now == GONE && r->presence[w] != GONE &&
                         tr_members_get(r->o.members, w)->state == TR_MEMBER_LOST;
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
    r->n_moved = 0;
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

/* ---- replacements ---------------------------------------------------------------------- */

/* Seconds between tries: 1, 2, 4, ... 64. */
static tr_time pause_after(uint32_t n_tries)
{
    return TR_SECOND << (n_tries < 6 ? n_tries : 6);
}

/* What the lost process held beside its own is nowhere now. */
static void forget_holdings(tr_recovery *r, uint32_t w)
{
    size_t n = (size_t)r->o.placement->n_layers * r->o.placement->n_experts;

    for (size_t i = 0; i < n; i++)
        if (r->substitute[i] == w)
            r->substitute[i] = NOBODY;
    memset(held(r, w, 0), NONE, n * sizeof *r->held);
    r->room[w] = r->first_room[w];
    r->is_full[w] = false;
}

/* The new process may be on another host than the lost one was, and on the coordinator's it takes
 * from what the coordinator could use. */
static void measure_room_again(tr_recovery *r, uint32_t w)
{
    char here[TR_MAX_NAME];

    tr_host_name(here, sizeof here);
    r->room[w] = r->first_room[w] = less(room_of(r, w, here), r->home_bytes[w]);
    if (r->is_counted[w] || r->o.coordinator_memory != 0 ||
        strcmp(tr_members_get(r->o.members, w)->hello.host, here) != 0)
        return;
    r->is_counted[w] = true;
    r->room[0] = less(r->room[0], r->home_bytes[w]);
}

static tr_status start_replacement(tr_recovery *r, uint32_t w)
{
    uint8_t invitation[TR_MEMBERS_INVITATION];
    size_t size = 0;

    r->retry[w] = tr_deadline_after(tr_now(), pause_after(r->n_tries[w]++));
    if (r->o.replaces_here && r->home_bytes[w] > tr_memory_available() / 10 * 9) {
        tr_log(TR_LOG_WARN, "worker %u is not replaced: its experts need %llu bytes, more than %s",
               w, (unsigned long long)r->home_bytes[w], "this machine has left");
        return TR_OK;
    }
    char reason[512];
    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_members_invite_again(r->o.members, w, invitation, &size);
    tr_fail_capture_end();
    if (st != TR_OK) { /* a port may be taken for a while */
        tr_log(TR_LOG_WARN, "worker %u is not replaced for now: %s", w, reason);
        return TR_OK;
    }
    forget_holdings(r, w);
    st = tr_replacement_start(r->o.replacement, w, (tr_bytes){ invitation, size });
    explicit_bzero(invitation, sizeof invitation);
    if (st != TR_OK) /* said; the job goes on without */
        tr_members_lose(r->o.members, w, "has no replacement: it can't be started");
    return TR_OK;
}

static bool has_table(const tr_hello *h, const char *name)
{
    for (uint32_t i = 0; i < h->n_kernels; i++)
        if (strcmp(h->kernels[i], name) == 0)
            return true;
    return false;
}

/* A replacement that has said hello gets what the lost worker had. */
static tr_status assign_home(tr_recovery *r, uint32_t w)
{
    const tr_placement *p = r->o.placement;
    tr_assignment a;

    if (!has_table(&tr_members_get(r->o.members, w)->hello, r->first.kernels)) {
        tr_members_lose(r->o.members, w, "has no kernel table %s, which this job computes with",
                        r->first.kernels);
        return TR_OK;
    }
    measure_room_again(r, w);
    tr_status st = tr_assignment_init(&a, p->n_layers);
    memcpy(a.kernels, r->first.kernels, sizeof a.kernels);
    a.exact = r->first.exact;
    a.max_rows = r->first.max_rows;
    a.epoch = p->epoch;
    for (uint32_t l = 0; l < p->n_layers && st == TR_OK; l++) {
        a.layer[l].expert = malloc(p->n_experts * sizeof(uint32_t));
        if (!a.layer[l].expert)
            st = tr_fail(TR_E_MEMORY, "recovery: no memory");
        for (uint32_t e = 0; e < r->o.map->layer[l].n_experts && st == TR_OK; e++)
            if (tr_placement_home(p, l, e) == w)
                a.layer[l].expert[a.layer[l].n++] = e;
    }
    if (st == TR_OK)
        st = tr_members_assign(r->o.members, w, &a);
    tr_assignment_fini(&a);
    return st;
}

static tr_status look_after_replacement(tr_recovery *r, uint32_t w, tr_time now)
{
    const tr_member *m = tr_members_get(r->o.members, w);

    if (m->state == TR_MEMBER_LOST)
        return now >= r->retry[w] ? start_replacement(r, w) : TR_OK;
    if (!m->is_replacement || m->state > TR_MEMBER_LOADING)
        return TR_OK;
    if (tr_replacement_has_ended(r->o.replacement, w))
        tr_members_lose(r->o.members, w, "has no replacement: its process ended");
    else if (m->state == TR_MEMBER_JOINING && now - m->changed > join_patience)
        tr_members_lose(r->o.members, w, "has no replacement: it did not join within %.0f s",
                        (double)join_patience / (double)TR_SECOND);
    else if (m->state == TR_MEMBER_JOINING && m->is_accepted)
        return assign_home(r, w);
    return TR_OK;
}

static tr_status replace_lost(tr_recovery *r)
{
    tr_status st = TR_OK;
    tr_time now;

    if (!r->o.replacement || !r->some_gone)
        return TR_OK;
    now = tr_now();
    if (now - r->replaced < replacement_period)
        return TR_OK;
    r->replaced = now;
    for (uint32_t w = 1; w < r->n_peers && st == TR_OK; w++)
        st = look_after_replacement(r, w, now);
    return st;
}

/* Whoever had no memory for more may have some again. */
static void forget_full(tr_recovery *r)
{
    if (r->full_next == 0 || tr_now() < r->full_next)
        return;
    memset(r->is_full, 0, r->n_peers * sizeof *r->is_full);
    r->full_next = 0;
    r->seen = UINT64_MAX; /* another look is due */
}

tr_status tr_recovery_look(tr_recovery *r)
{
    tr_status st = replace_lost(r);

    if (st != TR_OK)
        return st;
    forget_full(r);
    /* Telling a substitute may find it gone, which is another change. */
    while (r->seen != tr_members_changes(r->o.members)) {
        r->seen = tr_members_changes(r->o.members);
        count_presence(r);
        st = replace_lost(r);
        if (st == TR_OK)
            st = place_all(r);
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

bool tr_recovery_is_calm(const tr_recovery *r)
{
    return r->n_moved == 0;
}

void tr_recovery_asked(tr_recovery *r, uint32_t layer, uint32_t expert)
{
    uint32_t holder = tr_placement_holder(r->o.placement, layer, expert);
    uint8_t *h = held(r, holder, (size_t)layer * r->o.placement->n_experts + expert);

    if (*h == RESERVED)
        *h = LOADED;
}

bool tr_recovery_take_here(tr_recovery *r, uint32_t layer, uint32_t expert)
{
    size_t at = (size_t)layer * r->o.placement->n_experts + expert;
    uint64_t bytes = tr_expert_map_bytes(r->o.map, layer);

    if (tr_placement_home(r->o.placement, layer, expert) == 0)
        return true;
    if (*held(r, 0, at) == NONE) {
        if (r->is_full[0] || r->room[0] < bytes)
            return false;
        r->room[0] -= bytes;
    }
    *held(r, 0, at) = LOADED; /* it is loaded at once */
    return true;
}

void tr_recovery_is_full(tr_recovery *r, uint32_t peer)
{
    size_t n = (size_t)r->o.placement->n_layers * r->o.placement->n_experts;

    r->is_full[peer] = true;
    r->full_next = tr_deadline_after(tr_now(), full_period);
    for (size_t i = 0; i < n; i++)
        if (r->substitute[i] == peer)
            r->substitute[i] = NOBODY;
    r->seen = UINT64_MAX; /* another look is due */
}

uint64_t tr_recovery_room(const tr_recovery *r, uint32_t peer)
{
    return r->room[peer];
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
