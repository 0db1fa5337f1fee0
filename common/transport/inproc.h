/* inproc.h - the transport between threads of one process.
 *
 * USE     tr_inproc *net;
 *         st = tr_inproc_new(3, max_size, &net);          a coordinator and three workers
 *         st = tr_inproc_open(net, 0, &t);                in the thread of peer 0
 *         ...
 *         tr_transport_close(&t);                         each end
 *         tr_inproc_free(&net);                           after all ends are closed
 *
 * Closing an end is a death that the others notice: their recv reports TR_E_PEER_LOST.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_INPROC_H
#define TR_TRANSPORT_INPROC_H

#include "transport/transport.h"

typedef struct tr_inproc tr_inproc;

tr_status tr_inproc_new(tr_peer n_workers, size_t max_size, tr_inproc **out);
void tr_inproc_free(tr_inproc **net);

/* Each peer 0..n_workers once. */
tr_status tr_inproc_open(tr_inproc *net, tr_peer self, tr_transport **out);

#endif
