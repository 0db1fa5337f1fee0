/* cluster.h - bring workers together: they join, agree on kernels, get their experts, load; and
 * hand a lost worker's experts to others.
 *
 * USE     st = tr_cluster_open(&options, &c);       all have joined and know what to load
 *         ... load the dense layers meanwhile ...
 *         st = tr_cluster_wait_ready(c, timeout, watch, ctx);
 *         tr_cluster_close(&c);                     they are told to stop
 *
 * A worker that is lost while it loads is replaced by the others, as one that is lost later.
 *
 * FAILS   TR_E_PEER_LOST, TR_E_REFUSED, TR_E_DEADLINE  with one line that names the worker
 *         TR_E_USAGE   no kernel table that all processes have is called options.isa
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_CLUSTER_H
#define TR_COORDINATOR_CLUSTER_CLUSTER_H

#include "coordinator/cluster/members.h"
#include "coordinator/cluster/placement.h"
#include "coordinator/cluster/recovery.h"
#include "experts/expert_map.h"
#include "transport/transport.h"

typedef struct tr_cluster tr_cluster;

typedef struct {
    const tr_gguf *gguf;
    const tr_expert_map *map;
    tr_transport *transport; /* of the data plane */
    tr_transport *inviter;   /* as in members.h */
    const char *invite_dir;  /* as in members.h */
    uint32_t n_outside;      /* as in members.h */
    tr_placement *placement; /* its holders change when workers are lost */
    const char *listen;      /* NULL: loopback */
    const char *isa;         /* NULL: the best common table */
    bool exact;
    size_t max_rows;
    tr_time join_timeout, suspect_timeout, silence_timeout;
    uint64_t worker_memory, coordinator_memory; /* as in tr_recovery_options */
    const char *replacement; /* command of a lost worker's replacement; NULL: none */
    bool replaces_here;      /* as in tr_recovery_options */
    tr_fault_log *faults;    /* as in tr_members_options */
} tr_cluster_options;

tr_status tr_cluster_open(const tr_cluster_options *o, tr_cluster **out);

/* watch (may be NULL) gets the bytes of experts that workers have loaded so far. */
tr_status tr_cluster_wait_ready(tr_cluster *c, tr_time timeout,
                                void (*watch)(void *ctx, uint64_t bytes), void *ctx);
void tr_cluster_close(tr_cluster **c);

const tr_kernels *tr_cluster_kernels(const tr_cluster *c);
tr_members *tr_cluster_members(tr_cluster *c);
tr_recovery *tr_cluster_recovery(tr_cluster *c);
uint64_t tr_cluster_job(const tr_cluster *c);

/* Tell every worker on the transport to stop, before or after it joined.  For a coordinator that
 * fails before it has a cluster. */
void tr_cluster_call_off(tr_transport *t);

#endif
