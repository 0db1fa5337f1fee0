/* route.h - two transports as one: each peer is reached by the first or, once it was moved, by the
 * second.
 *
 * For the coordinator of an MPI job whose lost workers are replaced: the new ones can't be reached
 * by MPI, those that are left can.
 *
 * USE     st = tr_route_new(first, open_second, ctx, &t);
 *         ... t is used like first ...
 *         st = tr_route_move(t, worker);               from now on by the second
 *         tr_transport *second = tr_route_second(t);   to invite the worker there
 *         tr_transport_close(&t);                      the second too; the first is its owner's
 *
 * The second is opened when the first peer moves; until then a message costs no more than before.
 * Afterwards a wait looks at both by turns, so that an answer of the first may be found some
 * microseconds later.
 *
 * FAILS   what open_second fails with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_ROUTE_H
#define TR_TRANSPORT_ROUTE_H

#include "transport/transport.h"

/* Opens a transport of n_peers workers, whose self is 0. */
typedef tr_status (*tr_route_open)(void *ctx, tr_peer n_peers, tr_transport **out);

tr_status tr_route_new(tr_transport *first, tr_route_open open, void *ctx, tr_transport **out);

/* True if t is of this kind. */
bool tr_route_is(const tr_transport *t);

/* The peer was dropped before.  It may move again, when whoever it was is lost too. */
tr_status tr_route_move(tr_transport *t, tr_peer peer);

/* NULL before anybody moved. */
tr_transport *tr_route_second(tr_transport *t);

#endif
