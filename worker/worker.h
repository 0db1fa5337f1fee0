/* worker.h - a process that hosts experts: rows in, answers out, until told to stop.
 *
 * USE     st = tr_worker_run(transport, &options);      returns when the job is over
 *
 * The worker joins (worker/join.h), loads the experts that it is assigned and no others, and
 * answers shares one after the other; when another worker is lost, it may be assigned more.  It
 * keeps nothing of a request: whatever it computed can be computed again elsewhere.
 *
 * FAILS   TR_E_PEER_LOST   the coordinator is gone
 *         TR_E_REFUSED     the coordinator does not want this worker, or it not the coordinator
 *         what loading fails with; the coordinator has then been told
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_WORKER_WORKER_H
#define TR_WORKER_WORKER_H

#include "transport/transport.h"

typedef struct {
    const char *version;    /* of this program */
    const char *model_path; /* NULL: the path that the coordinator names */
    size_t threads;         /* at least 1 */
} tr_worker_options;

/* *had_losses: the coordinator lost a worker, so that MPI's own farewell could hang. */
tr_status tr_worker_run(tr_transport *transport, const tr_worker_options *o, bool *had_losses);

#endif
