/* zmq.c - messages over one ROUTER and its DEALERs.
 *
 * Each worker calls itself by its public key (the routing id).  So a connection that is made again
 * takes the place of the broken one, and no worker can take another's place: it does not know
 * the other's key.  What comes must also bear the number that the door gave to that key.
 *
 * libzmq hands out buffers that are often not even 4-byte aligned, so what comes is copied
 * into messages of the pool; what is sent is copied by libzmq, since its own thread frees it.
 *
 * libzmq bounds queues by messages, one queue for each peer and direction at both ends.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/zmq.h"
#include "base/check.h"
#include "transport/msg_pool.h"

#include <zmq.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    QUEUE_MAX = 8,        /* messages to or from one peer that libzmq holds at this end */
    LINGER_MS = 500,      /* what was sent last has this long to leave */
    HANDSHAKE_MS = 10000, /* the coordinator may compute and answer the door late */
    RECONNECT_MS = 20,    /* between attempts, doubled each time */
    RECONNECT_MAX_MS = 500,
    SPARE_SIZE = 1 << 16, /* longer by this is refused by libzmq, which ends the connection */
    ROUTING_ID = 1 + TR_CURVE_KEY,
    SPIN_POLLS = 4,  /* polls before the first yield */
    KEEPALIVE_S = 5, /* a connection without traffic is tried after this, then each ... */
    KEEPALIVE_STEP_S = 2,
    KEEPALIVE_TRIES = 3,
    UNACKNOWLEDGED_MS = 15000, /* a connection that carries nothing for so long has ended */
};

/* A wait yields up to here, then sleeps. */
static const tr_time YIELD_UNTIL = 40 * TR_US;

static const char plane[] = "data plane";

typedef enum {
    PEER_LIVE = 0,
    PEER_FAILED, /* by its behaviour; recv has not told yet */
    PEER_LOST,   /* dropped, or told */
} peer_state;

typedef struct {
    uint8_t routing_id[ROUTING_ID]; /* begins with 0 until the peer is invited */
    peer_state state;
    bool has_come;
} peer_link;

typedef struct {
    tr_transport base;
    size_t max_size;
    tr_msg_pool pool;
    void *context, *socket, *door; /* door: the coordinator's */
    char endpoint[TR_CURVE_ENDPOINT];
    uint8_t server_public[TR_CURVE_KEY];
    peer_link *peer; /* [n_peers + 1] */
    zmq_msg_t part;  /* being received */
    size_t n_failed; /* peers that are PEER_FAILED */
} end;

static void zmq_msg_put(tr_msg *m)
{
    tr_msg_pool_put(tr_slab_of(m));
}

static const struct tr_msg_ops msg_ops = { zmq_msg_put };

static void peer_fail(end *e, tr_peer peer, const char *why)
{
    if (e->peer[peer].state != PEER_LIVE)
        return;
    tr_fail(TR_E_PEER_LOST, "zmq: peer %u is lost: %s", peer, why);
    e->peer[peer].state = PEER_FAILED;
    e->n_failed++;
}

/* Also lets libzmq look at what its other thread has to say. */
static bool has_event(void *socket)
{
    int events = 0;
    size_t size = sizeof events;

    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN);
}

/* ---- sending -------------------------------------------------------------------------- */

static tr_status end_reserve(tr_transport *t, tr_peer to, size_t size, tr_msg **out)
{
    end *e = (end *)t;
    tr_slab *slab = NULL;

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(size >= 1);
    TR_CHECK(size <= e->max_size);
    tr_status st = tr_msg_pool_take(&e->pool, size, &slab);
    if (st == TR_OK)
        *out = &slab->msg;
    return st;
}

/* Strangers and workers whose ticket is void are not let in. */
static uint32_t worker_of(const void *ctx, const uint8_t *key)
{
    const end *e = ctx;

    for (tr_peer p = 1; p <= e->base.n_peers; p++) {
        const peer_link *link = &e->peer[p];
        if (link->state == PEER_LIVE && link->routing_id[0] != 0 &&
            memcmp(link->routing_id + 1, key, TR_CURVE_KEY) == 0)
            return p;
    }
    return 0;
}

static void look_at_door(end *e)
{
    if (e->door)
        tr_curve_door_answer(e->door, worker_of, e);
}

/* One attempt. */
static bool try_send(end *e, tr_peer to, const tr_msg *m)
{
    if (e->base.self == 0 &&
        zmq_send(e->socket, e->peer[to].routing_id, ROUTING_ID, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return false;
    return zmq_send(e->socket, m->data, m->size, ZMQ_DONTWAIT) >= 0;
}

/* A worker that is not connected may be at the door.  And libzmq hears only now and then that its
 * other thread has taken messages out of a full queue, unless its state is asked. */
static tr_status send_again(end *e, tr_peer to, const tr_msg *m)
{
    if (zmq_errno() == EHOSTUNREACH)
        look_at_door(e);
    has_event(e->socket);
    if (try_send(e, to, m))
        return TR_OK;
    int error = zmq_errno();
    if (error == EAGAIN || error == EHOSTUNREACH || error == EINTR)
        return TR_E_BUSY;
    return tr_curve_failed(plane, "send");
}

/* A lost peer gives no line here: the reason has been said. */
static tr_status end_send(tr_transport *t, tr_peer to, tr_msg **m)
{
    end *e = (end *)t;
    size_t size = (*m)->size;

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(to != t->self);
    if (e->peer[to].state != PEER_LIVE)
        return TR_E_PEER_LOST;
    tr_status st = try_send(e, to, *m) ? TR_OK : send_again(e, to, *m);
    if (st != TR_OK)
        return st;
    tr_msg_free(m);
    t->stats.messages_sent++;
    t->stats.bytes_sent += size;
    return TR_OK;
}

/* ---- receiving ------------------------------------------------------------------------ */

static void drop_rest(end *e)
{
    while (zmq_msg_more(&e->part))
        if (zmq_msg_recv(&e->part, e->socket, ZMQ_DONTWAIT) < 0)
            return;
}

/* The worker whose name and key a message bears; 0 if they do not belong together, or no longer. */
static tr_peer sender_of(end *e, const uint8_t *name, int name_size)
{
    const char *user = zmq_msg_gets(&e->part, "User-Id");
    unsigned long peer = user ? strtoul(user, NULL, 10) : 0;

    if (peer < 1 || peer > e->base.n_peers || name_size != ROUTING_ID)
        return 0;
    return memcmp(e->peer[peer].routing_id, name, ROUTING_ID) == 0 ? (tr_peer)peer : 0;
}

/* The next message as libzmq has it in e->part; false if there is none.  *from is 0 at the
 * coordinator for one that counts for nothing. */
static bool next_part(end *e, tr_peer *from)
{
    uint8_t name[ROUTING_ID];
    int name_size = 0;

    *from = 0;
    if (e->base.self == 0) {
        name_size = zmq_recv(e->socket, name, sizeof name, ZMQ_DONTWAIT);
        if (name_size < 0)
            return false;
    }
    if (zmq_msg_recv(&e->part, e->socket, ZMQ_DONTWAIT) < 0)
        return false;
    if (e->base.self == 0)
        *from = sender_of(e, name, name_size);
    return true;
}

/* Copy what came into a message of ours; NULL if it is none. */
static tr_msg *copy_part(end *e, tr_peer from)
{
    size_t size = zmq_msg_size(&e->part);
    tr_slab *slab = NULL;
    char why[80];

    if (zmq_msg_more(&e->part)) { /* ours have one part */
        drop_rest(e);
        peer_fail(e, from, "message of several parts");
    } else if (size < 1 || size > e->max_size) {
        snprintf(why, sizeof why, "message of %zu bytes, 1..%zu are allowed", size, e->max_size);
        peer_fail(e, from, why);
    } else if (tr_msg_pool_take(&e->pool, size, &slab) != TR_OK) {
        peer_fail(e, from, "no memory for its message");
    } else {
        memcpy(slab->msg.data, zmq_msg_data(&e->part), size);
        return &slab->msg;
    }
    return NULL;
}

/* A worker's first message is empty: libzmq sends it when it has connected. */
static bool is_greeting(end *e, tr_peer from)
{
    if (from == 0)
        return false;
    bool is_first = !e->peer[from].has_come;
    e->peer[from].has_come = true;
    return is_first && zmq_msg_size(&e->part) == 0 && !zmq_msg_more(&e->part);
}

/* A message of a peer that is listened to, if there is one. */
static tr_msg *poll_once(end *e, tr_peer *from)
{
    tr_msg *m = NULL;

    while (!m && next_part(e, from)) {
        bool is_known = *from != 0 || e->base.self != 0;
        if (is_known && e->peer[*from].state == PEER_LIVE && !is_greeting(e, *from))
            m = copy_part(e, *from);
        else
            drop_rest(e);
    }
    return m;
}

/* The next peer that failed and has not been told of. */
static tr_peer tell_failed(end *e)
{
    tr_peer peer = 0;

    while (e->peer[peer].state != PEER_FAILED)
        peer++;
    e->peer[peer].state = PEER_LOST;
    e->n_failed--;
    return peer;
}

static struct pollfd descriptor_of(void *socket)
{
    int fd = -1;
    size_t size = sizeof fd;

    zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
    return (struct pollfd){ fd, POLLIN, 0 };
}

/* libzmq's descriptors say that something changed, not that something is there; so its state
 * is asked before each sleep.  zmq_poll knows milliseconds only. */
static void sleep_until_event(end *e, tr_time left)
{
    struct pollfd fds[2] = { descriptor_of(e->socket) };
    nfds_t n = 1;

    if (e->door) {
        if (has_event(e->door))
            return;
        fds[n++] = descriptor_of(e->door);
    }
    if (has_event(e->socket))
        return;
    struct timespec limit = { .tv_sec = (time_t)(left / TR_SECOND),
                              .tv_nsec = (long)(left % TR_SECOND) };
    ppoll(fds, n, left < 3600 * TR_SECOND ? &limit : NULL, NULL);
}

static tr_status received(end *e, tr_msg *m, tr_msg **out)
{
    e->base.stats.messages_received++;
    e->base.stats.bytes_received += m->size;
    *out = m;
    return TR_OK;
}

static tr_status end_recv(tr_transport *t, tr_time deadline, tr_peer *from, tr_msg **out)
{
    end *e = (end *)t;
    tr_time begin = tr_now();

    for (uint32_t i = 0;; i++) {
        tr_msg *m = poll_once(e, from);
        if (m)
            return received(e, m, out);
        if (e->n_failed > 0) {
            *from = tell_failed(e);
            return TR_E_PEER_LOST;
        }
        tr_time now = tr_now();
        if (i == 0 || now - begin >= YIELD_UNTIL)
            look_at_door(e);
        if (now >= deadline)
            return TR_E_DEADLINE;
        if (now - begin >= YIELD_UNTIL)
            sleep_until_event(e, deadline - now);
        else if (i >= SPIN_POLLS)
            sched_yield();
    }
}

/* ---- ending --------------------------------------------------------------------------- */

/* What the peer still sends is thrown away as it comes; the door does not let it in again. */
static void end_drop(tr_transport *t, tr_peer peer)
{
    end *e = (end *)t;

    TR_CHECK(peer <= t->n_peers);
    TR_CHECK(peer != t->self);
    if (e->peer[peer].state == PEER_FAILED)
        e->n_failed--;
    e->peer[peer].state = PEER_LOST;
}

static void end_close(tr_transport *t)
{
    end *e = (end *)t;

    zmq_msg_close(&e->part);
    if (e->socket)
        zmq_close(e->socket);
    if (e->door)
        zmq_close(e->door);
    tr_curve_context_end(e->context);
    tr_msg_pool_fini(&e->pool);
    explicit_bzero(e->peer, (t->n_peers + (size_t)1) * sizeof *e->peer);
    free(e->peer);
    free(e);
}

static const tr_transport_ops zmq_ops = { "zmq",    end_reserve, end_send,
                                          end_recv, end_drop,    end_close };

/* ---- opening -------------------------------------------------------------------------- */

static bool set_options(end *e)
{
    void *s = e->socket;
    int64_t most = (int64_t)e->max_size + SPARE_SIZE;

    return tr_curve_set(s, ZMQ_LINGER, LINGER_MS) && tr_curve_set(s, ZMQ_SNDHWM, QUEUE_MAX) &&
           tr_curve_set(s, ZMQ_RCVHWM, QUEUE_MAX) &&
           tr_curve_set(s, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
           tr_curve_set(s, ZMQ_TCP_KEEPALIVE, 1) &&
           tr_curve_set(s, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S) &&
           tr_curve_set(s, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_STEP_S) &&
           tr_curve_set(s, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_TRIES) &&
           tr_curve_set(s, ZMQ_TCP_MAXRT, UNACKNOWLEDGED_MS) &&
           zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &most, sizeof most) == 0;
}

/* What both ends have in common. */
static tr_status end_new(int type, tr_peer self, tr_peer n_peers, size_t max_size, end **out)
{
    end *e = calloc(1, sizeof *e);
    peer_link *links = calloc(n_peers + (size_t)1, sizeof *links);
    tr_status st = TR_OK;

    if (!e || !links) {
        free(e);
        free(links);
        return tr_fail(TR_E_MEMORY, "zmq: no memory for %u peers", n_peers);
    }
    e->base = (tr_transport){ .ops = &zmq_ops, .self = self, .n_peers = n_peers };
    e->max_size = max_size;
    e->peer = links;
    tr_msg_pool_init(&e->pool, &msg_ops, e);
    zmq_msg_init(&e->part);
    if (!(e->context = zmq_ctx_new()))
        st = tr_curve_failed(plane, "context");
    if (st == TR_OK && !(e->socket = zmq_socket(e->context, type)))
        st = tr_curve_failed(plane, "socket");
    if (st == TR_OK && !set_options(e))
        st = tr_curve_failed(plane, "socket options");
    if (st != TR_OK) {
        end_close(&e->base);
        return st;
    }
    *out = e;
    return TR_OK;
}

static tr_status listen_at(end *e, const char *address)
{
    tr_curve_keys keys;

    tr_status st = tr_curve_keys_new(&keys);
    if (st != TR_OK)
        return st;
    memcpy(e->server_public, keys.public_key, TR_CURVE_KEY);
    st = tr_curve_set(e->socket, ZMQ_ROUTER_MANDATORY, 1) &&
                 tr_curve_set(e->socket, ZMQ_ROUTER_HANDOVER, 1)
             ? tr_curve_serve(e->socket, &keys, plane)
             : tr_curve_failed(plane, "socket options");
    tr_curve_keys_forget(&keys);
    if (st == TR_OK)
        st = tr_curve_door_open(e->context, plane, &e->door);
    return st == TR_OK ? tr_curve_bind(e->socket, address, plane, e->endpoint) : st;
}

tr_status tr_zmq_serve(const char *address, tr_peer n_workers, size_t max_size, tr_transport **out)
{
    end *e = NULL;

    tr_status st = end_new(ZMQ_ROUTER, 0, n_workers, max_size, &e);
    if (st != TR_OK)
        return st;
    st = listen_at(e, address);
    if (st != TR_OK) {
        end_close(&e->base);
        return st;
    }
    *out = &e->base;
    return TR_OK;
}

/* A name of a ROUTER's peer must not begin with zero. */
static void routing_id_of(const uint8_t *public_key, uint8_t out[ROUTING_ID])
{
    out[0] = 1;
    memcpy(out + 1, public_key, TR_CURVE_KEY);
}

tr_status tr_zmq_invite(tr_transport *t, tr_peer worker, tr_zmq_ticket *out)
{
    end *e = (end *)t;
    tr_zmq_ticket ticket = { .endpoint = "" };

    TR_CHECK(tr_zmq_is(t));
    TR_CHECK(t->self == 0);
    TR_CHECK(worker >= 1);
    TR_CHECK(worker <= t->n_peers);
    tr_status st = tr_curve_keys_new(&ticket.keys);
    if (st != TR_OK)
        return st;
    snprintf(ticket.endpoint, sizeof ticket.endpoint, "%s", e->endpoint);
    memcpy(ticket.server_public, e->server_public, TR_CURVE_KEY);
    routing_id_of(ticket.keys.public_key, e->peer[worker].routing_id);
    e->peer[worker].has_come = false;
    if (e->peer[worker].state == PEER_FAILED)
        e->n_failed--;
    e->peer[worker].state = PEER_LIVE;
    *out = ticket;
    tr_zmq_ticket_forget(&ticket);
    return TR_OK;
}

tr_status tr_zmq_join(const tr_zmq_ticket *ticket, tr_peer self, size_t max_size,
                      tr_transport **out)
{
    uint8_t name[ROUTING_ID];
    end *e = NULL;

    TR_CHECK(self >= 1);
    tr_status st = end_new(ZMQ_DEALER, self, self, max_size, &e);
    if (st != TR_OK)
        return st;
    routing_id_of(ticket->keys.public_key, name);
    if (zmq_setsockopt(e->socket, ZMQ_ROUTING_ID, name, sizeof name) != 0 ||
        !tr_curve_set(e->socket, ZMQ_PROBE_ROUTER, 1) ||
        !tr_curve_set(e->socket, ZMQ_RECONNECT_IVL, RECONNECT_MS) ||
        !tr_curve_set(e->socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS))
        st = tr_curve_failed(plane, "socket options");
    if (st == TR_OK)
        st = tr_curve_connect(e->socket, ticket->endpoint, ticket->server_public, &ticket->keys,
                              plane);
    if (st != TR_OK) {
        end_close(&e->base);
        return st;
    }
    *out = &e->base;
    return TR_OK;
}

void tr_zmq_ticket_forget(tr_zmq_ticket *ticket)
{
    explicit_bzero(ticket, sizeof *ticket);
}

bool tr_zmq_is(const tr_transport *t)
{
    return t->ops == &zmq_ops;
}

bool tr_zmq_has_come(const tr_transport *t, tr_peer worker)
{
    return ((const end *)t)->peer[worker].has_come;
}
