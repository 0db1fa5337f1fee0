/* recovery.h - who computes the experts of a worker that is lost or suspected.
 *
 * Experts keep nothing of a request, so nothing has to be undone: whoever holds an expert computes
 * the same bytes.  An expert whose home can't be used gets a substitute: the usable worker with the
 * most memory left, or, if no worker has enough, the coordinator.  A substitute loads first what a
 * share waits for and the rest when it is idle; for a worker that is only suspected it loads
 * nothing else.  When the home is back, its experts are its own again, and what substitutes have
 * loaded stays with them for the next time.  A lost worker's place is given to a new process, which
 * is the home when it is ready.  A worker that asks to leave keeps its experts until others have
 * loaded them.
 *
 * USE     st = tr_recovery_new(&options, &r);
 *         st = tr_recovery_look(r);         whenever shares are about to go out, or one came to
 * grief TR_OK: every expert has a usable holder, in placement; TR_E_BUSY: memory is short
 *         tr_recovery_short(r, text, size)  how many bytes are missing
 *         tr_recovery_free(&r);
 *
 * THREAD  The step thread.
 * MEMORY  Reserved at new.
 * FAILS   TR_E_BUSY  without a line; what tr_members_assign fails with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_RECOVERY_H
#define TR_COORDINATOR_CLUSTER_RECOVERY_H

#include "coordinator/cluster/members.h"
#include "coordinator/cluster/placement.h"
#include "coordinator/cluster/replacement.h"
#include "experts/expert_map.h"

typedef struct tr_recovery tr_recovery;

typedef struct {
    tr_members *members;
    tr_placement *placement; /* its holders are changed */
    const tr_expert_map *map;
    const tr_assignment *first; /* kernels, exact, max_rows of every assignment; copied */
    uint32_t n_workers;
    uint64_t worker_memory; /* bytes of experts a worker may hold; 0: its part of nine tenths of
                             * what its host has, or what its groups may have if that is less */
    uint64_t coordinator_memory; /* the same for the coordinator */
    tr_replacement *replacement; /* NULL: lost workers are not replaced */
    bool replaces_here;          /* on this machine, whose memory must suffice */
} tr_recovery_options;

/* What happened since new. */
typedef struct {
    uint64_t lost, suspected, returned, replaced; /* workers */
    uint64_t experts_moved;                       /* that got another holder */
    uint64_t shares_resent;
    /* of layers in which something was sent again, from when that had gone out first: it includes
     * the time until anybody noticed */
    tr_time stalled, longest_stall;
} tr_recovery_stats;

tr_status tr_recovery_new(const tr_recovery_options *o, tr_recovery **out);
void tr_recovery_free(tr_recovery **r);

/* To be called often; costs next to nothing while nobody's state changes. */
tr_status tr_recovery_look(tr_recovery *r);

/* Between two layers, when nobody owes anything: workers that asked to leave, and whose experts
 * others hold, may go. */
void tr_recovery_release(tr_recovery *r);

/* Every expert is with its home. */
bool tr_recovery_is_calm(const tr_recovery *r);

/* A share that names the expert goes to its holder, which loads it if it is not there. */
void tr_recovery_asked(tr_recovery *r, uint32_t layer, uint32_t expert);

/* The coordinator loads an expert now: false if it has no memory left for it. */
bool tr_recovery_take_here(tr_recovery *r, uint32_t layer, uint32_t expert);

/* peer could not load what it was given in addition: for a minute it gets no more, others do it. */
void tr_recovery_is_full(tr_recovery *r, uint32_t peer);

/* Bytes of experts that peer may still take, beside those that it has or that are kept for it. */
uint64_t tr_recovery_room(const tr_recovery *r, uint32_t peer);

/* After TR_E_BUSY: "experts of worker 2 need 123 MiB, and no process has that much left". */
void tr_recovery_short(const tr_recovery *r, char *out, size_t size);

/* For dispatch: n shares went out again, and the layer waited so long for them in all. */
void tr_recovery_count(tr_recovery *r, uint64_t shares_resent, tr_time stalled);

tr_recovery_stats tr_recovery_get_stats(const tr_recovery *r);

#endif
