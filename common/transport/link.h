/* link.h - encrypted, authenticated messages of the control plane, over ZeroMQ; a transport that
 * simulates a network brings links of its own.
 *
 * One server (the coordinator), one client a worker.  CURVE (libzmq with libsodium) encrypts; the
 * server knows each client's public key beforehand, so who sent a message can't be forged, and a
 * stranger gets no answer.
 *
 * USE     tr_curve_keys_new(&server_keys);  tr_curve_keys_new(&worker_keys[i]); ...
 *         st = tr_link_serve(NULL, &server_keys, worker_publics, n, &link);    loopback, any port
 *         ... tr_link_endpoint(link) and the keys travel to the workers ...
 *         st = tr_link_connect(endpoint, server_public, &keys, &link);         at a worker
 *
 *         st = tr_link_send(link, peer, bytes);
 *         while ((st = tr_link_poll(link, timeout, &event)) == TR_OK) ...
 *         tr_link_close(&link);
 *
 * PEERS   The server's clients are 1..n in the order of their keys; a client's server is 0.
 * THREAD  One thread uses one link; libzmq's own thread does the network.
 * MEMORY  event.bytes is valid until the next poll.
 * FAILS   TR_E_DEADLINE   nothing came in time (no line)
 *         TR_E_PEER_LOST  send: the peer is not connected (no line)
 *         TR_E_SYSTEM     an address can't be bound, libzmq lacks CURVE
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_LINK_H
#define TR_TRANSPORT_LINK_H

#include "base/bytes.h"
#include "base/clock.h"
#include "base/status.h"
#include "transport/curve.h"
#include "transport/transport.h"

enum { TR_LINK_MAX_MESSAGE = 1 << 20 };

typedef enum {
    TR_LINK_MESSAGE,
    TR_LINK_GONE, /* the peer's connection ended */
} tr_link_event_kind;

typedef struct {
    tr_link_event_kind kind;
    uint32_t peer;
    tr_bytes bytes;
} tr_link_event;

typedef struct tr_link tr_link;

/* What a link implements; callers use the functions below. */
typedef struct {
    void (*close)(tr_link *l);
    const char *(*endpoint)(const tr_link *l);
    tr_status (*send)(tr_link *l, uint32_t peer, tr_bytes message);
    tr_status (*poll)(tr_link *l, tr_time timeout, tr_link_event *out);
    void (*admit)(tr_link *l, uint32_t peer, const uint8_t *public_key);
} tr_link_ops;

/* The first member of every link's own struct. */
struct tr_link {
    const tr_link_ops *ops;
};

/* How a transport makes links that belong to it, without addresses and keys; tr_transport.links. */
typedef struct tr_link_maker {
    tr_status (*serve)(tr_transport *t, tr_link **out);
    tr_status (*connect)(tr_transport *t, tr_link **out);
} tr_link_maker;

/* address is "HOST", "HOST:PORT", "[IPv6]" or "[IPv6]:PORT"; NULL listens on loopback only.
 * clients is [n][32] public keys. */
tr_status tr_link_serve(const char *address, const tr_curve_keys *keys,
                        const uint8_t (*clients)[TR_CURVE_KEY], uint32_t n, tr_link **out);
tr_status tr_link_connect(const char *endpoint, const uint8_t *server_public,
                          const tr_curve_keys *keys, tr_link **out);

/* The same for the peers of t, by t itself if it brings links of its own.  clients is
 * [n_peers][32]. */
tr_status tr_link_serve_beside(tr_transport *t, const char *address, const tr_curve_keys *keys,
                               const uint8_t (*clients)[TR_CURVE_KEY], tr_link **out);
tr_status tr_link_connect_beside(tr_transport *t, const char *endpoint,
                                 const uint8_t *server_public, const tr_curve_keys *keys,
                                 tr_link **out);

/* Waits up to 200 ms for what was sent to leave; clears *l. */
static inline void tr_link_close(tr_link **l)
{
    if (*l)
        (*l)->ops->close(*l);
    *l = NULL;
}

/* "tcp://HOST:PORT" to hand to clients. */
static inline const char *tr_link_endpoint(const tr_link *l)
{
    return l->ops->endpoint(l);
}

/* True if the server listens where only this host can reach it. */
bool tr_link_is_loopback(const tr_link *l);

/* Never blocks. */
static inline tr_status tr_link_send(tr_link *l, uint32_t peer, tr_bytes message)
{
    return l->ops->send(l, peer, message);
}

/* The client's place is another process's from now on, with this key; whoever had it is a stranger.
 * Not for links of a simulation. */
static inline void tr_link_admit(tr_link *l, uint32_t peer, const uint8_t *public_key)
{
    l->ops->admit(l, peer, public_key);
}

/* The next event, waiting up to timeout (0: look once). */
static inline tr_status tr_link_poll(tr_link *l, tr_time timeout, tr_link_event *out)
{
    return l->ops->poll(l, timeout, out);
}

#endif
