/* dispatch.h - send a plan's shares to their holders and bring the answers back.
 *
 * USE     tr_dispatch *d;
 *         st = tr_dispatch_new(&options, &d);
 *         st = tr_dispatch_begin(d, layer, picks, rows, n_rows);   shares leave, nothing blocks
 *         ... what can be computed meanwhile ...
 *         st = tr_dispatch_finish(d, x);                           x += the experts' answers
 *         tr_dispatch_free(&d);
 *
 * STATE   One layer in flight.  picks and rows must not change until finish returns.
 * THREAD  The step thread only.
 * MEMORY  Reserved at new for the maxima; answers stay in the transport's messages until they
 *         are added.
 * LOSSES  A share whose holder is lost, is suspected or answers what can't be used goes to those
 * that recovery names; an answer that comes after all is dropped.  So the sums are the same bytes.
 * FAILS   TR_E_PEER_LOST  a holder is lost and there is no recovery; or experts have no holder
 *                         with memory for them, for the whole share_timeout; the line says which
 *         TR_E_DEADLINE   an answer did not come within share_timeout
 *         After a failure x is unspecified and the dispatch can only be freed.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_DISPATCH_H
#define TR_COORDINATOR_CLUSTER_DISPATCH_H

#include "coordinator/cluster/members.h"
#include "coordinator/cluster/plan.h"
#include "coordinator/cluster/recovery.h"
#include "experts/apply.h"
#include "transport/transport.h"

typedef struct tr_dispatch tr_dispatch;

typedef struct {
    const tr_compute *compute;
    const tr_expert_map *map;
    const tr_placement *placement;
    size_t max_rows;
    tr_shards *local;        /* what peer 0 holds, and loads when it has to */
    tr_transport *transport; /* NULL if all is local */
    tr_members *members;     /* NULL: nobody watches the peers but the deadline */
    tr_recovery *recovery;   /* NULL: a lost holder is the end */
    tr_fault_log *faults;    /* NULL: none are planned */
    uint64_t job;
    tr_time
        share_timeout; /* of a layer's progress: since it began, or since shares went out again */
} tr_dispatch_options;

/* What happened since new. */
typedef struct {
    uint64_t layers;           /* dispatches */
    uint64_t frames_dropped;   /* late or unknown */
    uint64_t answers_refused;  /* damaged, or no finite numbers */
    tr_time wait;              /* spent waiting for answers */
    tr_time longest;           /* the longest that a worker computed for each dispatch, summed */
    tr_time combine;           /* spent adding them up */
    const uint64_t *peer_rows; /* [n_peers]: picks computed by each */
    const uint64_t *peer_busy; /* [n_peers]: nanoseconds computed, as they reported */
} tr_dispatch_stats;

tr_status tr_dispatch_new(const tr_dispatch_options *o, tr_dispatch **out);
void tr_dispatch_free(tr_dispatch **d);

/* Bytes of the buffers that new takes, but for tables of a few hundred kilobytes; is_local: experts
 * are computed here. */
size_t tr_dispatch_bytes(const tr_expert_map *map, size_t max_rows, bool is_local);

/* picks [n_rows][top_k of the layer] as the router made them; rows [n_rows] activation rows of the
 * form tr_expert_map_act gives for the layer, tr_act_row_size apart. */
tr_status tr_dispatch_begin(tr_dispatch *d, uint32_t layer, const tr_pick *picks,
                            const uint8_t *rows, size_t n_rows);

/* x is [n_rows][dim], added to. */
tr_status tr_dispatch_finish(tr_dispatch *d, float *x);

/* While no layer is in flight: hear whether those that were late are back.  Costs next to nothing
 * if nobody is. */
tr_status tr_dispatch_pump(tr_dispatch *d);

tr_dispatch_stats tr_dispatch_get_stats(const tr_dispatch *d);

#endif
