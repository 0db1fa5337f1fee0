/* members_state.h - what the coordinator keeps of its workers; private to members*.c.
 *
 * members.c       states, what workers say, who is silent, loading and leaving
 * members_join.c  invitations out, hellos and data connections in
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_MEMBERS_STATE_H
#define TR_COORDINATOR_CLUSTER_MEMBERS_STATE_H

#include "coordinator/cluster/members.h"
#include "transport/link.h"

/* How long a wait's single look lasts. */
#define TR_MEMBERS_WAIT (5 * TR_MS)

struct tr_members {
    tr_members_options o;
    tr_transport *transport;
    tr_link *link;
    uint64_t job;
    uint8_t server_public[TR_CURVE_KEY];
    uint32_t n;
    tr_member *member; /* [n], of peers 1..n */
    tr_status lost;    /* sticky */
    bool is_closing;
    bool has_lost; /* somebody, sticky or not: MPI's own farewell could hang */
    uint64_t changes;
    tr_time looked, said_alive;
    tr_time attentive; /* looking often enough since then to know who is silent */
    uint64_t n_dropped;
    uint8_t *buffer; /* [TR_MAX_CONTROL] for messages to send */
    char *model_path;
};

/* All that has come, waiting up to timeout for the first of it; then who is silent.  TR_OK, or the
 * sticky status of members.h. */
tr_status tr_members_look(tr_members *m, tr_time timeout);

void tr_members_enter(tr_members *m, uint32_t peer, tr_member_state state);

/* "worker 2, worker 5" for those that are not in the state; false if there is none. */
bool tr_members_name_missing(const tr_members *m, bool (*is_there)(const tr_member *), char *out,
                             size_t size);

/* Every worker is invited, has said hello and is reached by the data plane.  Fails as
 * tr_members_open. */
tr_status tr_members_join(tr_members *m);

#endif
