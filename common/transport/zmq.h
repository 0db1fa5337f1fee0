/* zmq.h - the transport over ZeroMQ sockets: where MPI can't go, or connections break.
 *
 * The coordinator has a ROUTER, each worker a DEALER; encrypted and authenticated (curve.h).  A
 * worker needs a ticket, which the coordinator makes and somebody carries (the invitation).
 *
 * USE     st = tr_zmq_serve(address, n_workers, max_size, &t);       the coordinator
 *         st = tr_zmq_invite(t, worker, &ticket);                     ... to the worker, secretly
 *         st = tr_zmq_join(&ticket, worker, max_size, &t);            the worker; returns at once
 *         tr_zmq_ticket_forget(&ticket);                              both
 *
 * A connection that breaks is made again, by the worker and for as long as it takes; messages on
 * the way in that moment may be lost.  Meanwhile the coordinator's send says TR_E_BUSY, as before a
 * worker's first connection.  So this transport never knows that a peer is lost, but for one that
 * sends what it must not.
 *
 * FAILS   TR_E_SYSTEM  an address can't be bound or connected to, libzmq lacks CURVE
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_ZMQ_H
#define TR_TRANSPORT_ZMQ_H

#include "transport/curve.h"
#include "transport/transport.h"

typedef struct {
    char endpoint[TR_CURVE_ENDPOINT];
    uint8_t server_public[TR_CURVE_KEY];
    tr_curve_keys keys; /* of the worker */
} tr_zmq_ticket;

/* address as in tr_curve_bind.  max_size: as in tr_mpi_open. */
tr_status tr_zmq_serve(const char *address, tr_peer n_workers, size_t max_size, tr_transport **out);

/* A new ticket; an earlier one of that worker is void from now on, and so is its connection.  For a
 * worker that was dropped this brings its place back to life, for another process. */
tr_status tr_zmq_invite(tr_transport *t, tr_peer worker, tr_zmq_ticket *out);
tr_status tr_zmq_join(const tr_zmq_ticket *ticket, tr_peer self, size_t max_size,
                      tr_transport **out);

/* Overwrite it. */
void tr_zmq_ticket_forget(tr_zmq_ticket *ticket);

/* True if t is of this kind, so that workers need tickets. */
bool tr_zmq_is(const tr_transport *t);

/* At the coordinator: has the worker connected once?  Only receiving finds out. */
bool tr_zmq_has_come(const tr_transport *t, tr_peer worker);

#endif
