/* transport.h - move messages between the coordinator and its workers.
 *
 * USE     tr_msg *m;
 *         st = tr_transport_reserve(t, to, size, &m);   memory from which it goes to that peer best
 *         ... write m->data[0..size-1] ...
 *         st = tr_transport_send(t, to, &m);            on TR_OK the transport owns it
 *         tr_msg_free(&m);                              does nothing when send took it
 *
 *         st = tr_transport_recv(t, deadline, &from, &m);
 *         ... read m->data ...
 *         tr_msg_free(&m);                              back to the pool
 *
 * CONTRACT, the same for every transport (tests/conformance checks it)
 *   - A message is bytes; it arrives whole, at most once, unchanged, in the order sent by one peer.
 *     It always arrives, but for two cases: the peer is lost; or the transport makes broken
 *     connections again (zmq), and it was on the way when one broke: nobody is told, so waits
 *     have deadlines.  m->data is 64-byte aligned at both ends.
 *   - send never blocks: TR_E_BUSY means too many messages are on their way, or that there is no
 *     way just now; the message is still the caller's.
 *   - recv returns by its deadline: TR_OK, or TR_E_DEADLINE (no line is logged: waiting in
 *     vain is not an error here), or TR_E_PEER_LOST with *from set (once per lost peer, where
 *     the transport can know; many can't, so waits have deadlines).
 *     A deadline in the past polls once.
 *   - drop ends all traffic with a peer: what it sent and is not yet received is discarded,
 *     sends to it fail with TR_E_PEER_LOST.  It is never undone.
 *   - Waiting spins briefly, then sleeps in small steps: an idle process uses < 2 % of a core.
 *
 * PEERS   0 is the coordinator, 1..n its workers.  Workers talk to peer 0 only.
 * THREAD  One thread uses one tr_transport.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_TRANSPORT_H
#define TR_TRANSPORT_TRANSPORT_H

#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"

typedef uint32_t tr_peer;

typedef struct tr_transport tr_transport;

typedef struct tr_msg {
    uint8_t *data; /* 64-byte aligned */
    size_t size;
    const struct tr_msg_ops *ops; /* the owner's; not for callers */
} tr_msg;

struct tr_msg_ops {
    void (*free)(tr_msg *m);
};

/* Counted since open, data-plane bytes only. */
typedef struct {
    uint64_t messages_sent, bytes_sent, messages_received, bytes_received;
} tr_transport_stats;

/* What a transport implements; each member keeps the contract above. */
typedef struct {
    const char *name;
    tr_status (*reserve)(tr_transport *t, tr_peer to, size_t size, tr_msg **out);
    tr_status (*send)(tr_transport *t, tr_peer to, tr_msg **m);
    tr_status (*recv)(tr_transport *t, tr_time deadline, tr_peer *from, tr_msg **out);
    void (*drop)(tr_transport *t, tr_peer peer);
    void (*close)(tr_transport *t);
} tr_transport_ops;

/* The first member of every transport's own struct. */
struct tr_transport {
    const tr_transport_ops *ops;
    tr_peer self;    /* this side's number */
    tr_peer n_peers; /* workers of the job; peers are 0..n_peers */
    tr_transport_stats stats;
    const struct tr_link_maker *links; /* its own control links (link.h); NULL: ZeroMQ */
};

/* size 1..max_size of the transport.  The message may be sent to another peer after all, which may
 * cost a copy.  TR_E_MEMORY if the pool can't grow. */
static inline tr_status tr_transport_reserve(tr_transport *t, tr_peer to, size_t size, tr_msg **out)
{
    return t->ops->reserve(t, to, size, out);
}

static inline tr_status tr_transport_send(tr_transport *t, tr_peer to, tr_msg **m)
{
    return t->ops->send(t, to, m);
}

static inline tr_status tr_transport_recv(tr_transport *t, tr_time deadline, tr_peer *from,
                                          tr_msg **out)
{
    return t->ops->recv(t, deadline, from, out);
}

static inline void tr_transport_drop(tr_transport *t, tr_peer peer)
{
    t->ops->drop(t, peer);
}

static inline void tr_msg_free(tr_msg **m)
{
    if (*m)
        (*m)->ops->free(*m);
    *m = NULL;
}

/* Ends the transport and clears *t.  Messages must have been freed before. */
static inline void tr_transport_close(tr_transport **t)
{
    if (*t)
        (*t)->ops->close(*t);
    *t = NULL;
}

#endif
