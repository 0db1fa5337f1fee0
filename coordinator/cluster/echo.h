/* echo.h - how long the way to a worker and back takes, with nothing to compute at its end.
 *
 * USE     st = tr_echo(transport, job, worker, n_bytes, timeout, &elapsed);
 *
 * A frame of n_bytes goes out and the same bytes come back.  Only while no share is out.
 *
 * FAILS   TR_E_DEADLINE   no answer within the timeout
 *         TR_E_PEER_LOST  the worker is gone, or sent something else
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_ECHO_H
#define TR_COORDINATOR_CLUSTER_ECHO_H

#include "base/clock.h"
#include "transport/transport.h"

/* n_bytes is at most TR_MAX_CONTROL (proto/limits.h). */
tr_status tr_echo(tr_transport *t, uint64_t job, tr_peer worker, size_t n_bytes, tr_time timeout,
                  tr_time *elapsed);

/* The question alone; the answer is a frame of kind TR_FRAME_ECHO.  TR_E_BUSY, TR_E_PEER_LOST as
 * tr_transport_send. */
tr_status tr_echo_send(tr_transport *t, uint64_t job, tr_peer worker, size_t n_bytes);

#endif
