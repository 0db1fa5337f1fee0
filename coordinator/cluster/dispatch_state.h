/* dispatch_state.h - the layer in flight; private to dispatch.c and retry.c.
 *
 * dispatch.c  the round trip: shares out, own share, answers in, sums
 * retry.c     what goes wrong on the way: who is to blame, who computes it instead
 *
 * answers[i] belongs to plan.share[i].  It is awaited until rows is set; it is to be sent while
 * neither rows nor is_sent are.  A share that is split gets more places behind the others.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_DISPATCH_STATE_H
#define TR_COORDINATOR_CLUSTER_DISPATCH_STATE_H

#include "coordinator/cluster/dispatch.h"

enum { TR_ROW_CLASSES = 16 }; /* batches of 1, 2 to 3, 4 to 7, ... rows */

/* An answer that is awaited or has come. */
typedef struct {
    uint64_t share;    /* id on the wire */
    uint32_t epoch;    /* under which it was sent */
    const float *rows; /* [n_picks][dim]; NULL while awaited */
    tr_msg *message;   /* that rows or refused lie in; NULL for the local share */
    bool is_sent;
    const float *refused; /* numbers that are not finite: the model's, or the fault of who sent
                           * them?  This process computes the share again; NULL: none were */
    tr_peer refused_by;
    tr_time sent;       /* when somebody was first asked for it */
    tr_time late;       /* when its holder is suspected */
    tr_time fetched;    /* when its holder last said that it loads an expert for it */
    uint32_t n_to_load; /* how often it may still say so: experts whose home it is not */
} tr_awaited;

struct tr_dispatch {
    tr_dispatch_options o;
    tr_plan plan;
    tr_apply *apply; /* NULL without local shards */
    size_t n_peers;
    uint64_t next_share, step;

    /* the layer in flight */
    uint32_t layer;
    tr_act act;
    size_t row_size, n_rows;
    const tr_pick *picks;
    const uint8_t *rows;
    tr_awaited *answers; /* [max_picks], by place in plan.share */
    bool is_begun;
    uint64_t longest; /* nanoseconds that one answer took to compute */
    tr_time begun, deadline, probed;
    tr_time looked;   /* at what has come, lately */
    tr_time troubled; /* when the first share that came to grief had gone out; 0: none did */
    uint64_t resent;

    tr_time slowest[TR_ROW_CLASSES]; /* round trips of late, by the logarithm of n_rows */

    tr_arena arena;
    float *local_rows;          /* [max_picks][dim] answers of the local share */
    uint8_t *local_in;          /* [max_rows] activation rows of the local share */
    tr_share_pick *local_picks; /* [max_picks] */
    const float **pick_answers; /* [max_picks] */

    uint64_t *peer_rows, *peer_busy; /* [n_peers] */
    tr_dispatch_stats stats;
};

static inline uint32_t tr_dispatch_expert(const tr_dispatch *d, const tr_share *s, size_t pick)
{
    return d->picks[d->plan.order[s->first_pick + pick]].expert;
}

/* Share i to its holder, unless that is this process; late after patience.  A holder that turns out
 * to be lost, or can't take it for now, is left to tr_retry_look.  Fails as tr_dispatch_begin. */
tr_status tr_dispatch_send(tr_dispatch *d, size_t i, tr_time patience);

#endif
