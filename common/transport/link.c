/* link.c - a ROUTER or DEALER socket with CURVE, and its monitor.
 *
 * Who wants to come in is answered in tr_link_poll (curve.h).
 *
 * A connection's end is seen on the socket's monitor, which names file descriptors; the peer of a
 * descriptor is learnt from the messages that came over it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/link.h"

#include <zmq.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LINGER_MS = 200,
    MAX_ROUTING_ID = 64,
};

typedef struct {
    uint8_t public_key[TR_CURVE_KEY];
    uint8_t routing_id[MAX_ROUTING_ID];
    size_t routing_size; /* 0: never heard */
    int fd;              /* of its connection; -1: unknown */
    int old_fd;          /* of the connection of whoever had its place before; -1: ended */
    uint64_t since;      /* orders when the descriptors became known */
    uint32_t n_before;   /* who had its place before */
} client;

typedef struct {
    tr_link base;
    void *context, *socket, *monitor, *door;
    bool is_server;
    char endpoint[TR_CURVE_ENDPOINT];
    client *clients; /* [n]; a client's link has one: the server */
    uint32_t n;
    uint64_t n_connections; /* counted for client.since */
    zmq_msg_t message;      /* that the last event points into */
} zmq_link;

static const tr_link_ops zmq_link_ops; /* at the end */

static const char plane[] = "control plane";

static tr_status zmq_failed(const char *what)
{
    return tr_curve_failed(plane, what);
}

static void zmq_link_close(tr_link *link)
{
    zmq_link *l = (zmq_link *)link;

    zmq_msg_close(&l->message);
    if (l->monitor) {
        zmq_socket_monitor(l->socket, NULL, 0);
        zmq_close(l->monitor);
    }
    if (l->socket)
        zmq_close(l->socket);
    if (l->door)
        zmq_close(l->door);
    tr_curve_context_end(l->context);
    free(l->clients);
    free(l);
}

/* What both ends have in common. */
static tr_status new_link(int type, uint32_t n, zmq_link **out)
{
    zmq_link *l = calloc(1, sizeof *l);
    int64_t max_size = TR_LINK_MAX_MESSAGE;

    if (!l)
        return tr_fail(TR_E_MEMORY, "control plane: no memory");
    l->base.ops = &zmq_link_ops;
    l->n = n;
    l->clients = calloc(n ? n : 1, sizeof *l->clients);
    zmq_msg_init(&l->message);
    tr_status st = l->clients ? TR_OK : tr_fail(TR_E_MEMORY, "control plane: no memory");
    for (uint32_t i = 0; st == TR_OK && i < n; i++)
        l->clients[i].fd = l->clients[i].old_fd = -1;
    if (st == TR_OK && !(l->context = zmq_ctx_new()))
        st = zmq_failed("context");
    if (st == TR_OK && !(l->socket = zmq_socket(l->context, type)))
        st = zmq_failed("socket");
    if (st == TR_OK && (!tr_curve_set(l->socket, ZMQ_LINGER, LINGER_MS) ||
                        !tr_curve_set(l->socket, ZMQ_HANDSHAKE_IVL, 10000) ||
                        zmq_setsockopt(l->socket, ZMQ_MAXMSGSIZE, &max_size, sizeof max_size) != 0))
        st = zmq_failed("socket options");
    if (st != TR_OK) {
        zmq_link_close(&l->base);
        return st;
    }
    *out = l;
    return TR_OK;
}

static tr_status watch(zmq_link *l)
{
    if (zmq_socket_monitor(l->socket, "inproc://monitor", ZMQ_EVENT_DISCONNECTED) != 0)
        return zmq_failed("monitor");
    l->monitor = zmq_socket(l->context, ZMQ_PAIR);
    if (!l->monitor || !tr_curve_set(l->monitor, ZMQ_LINGER, 0) ||
        zmq_connect(l->monitor, "inproc://monitor") != 0)
        return zmq_failed("monitor");
    return TR_OK;
}

tr_status tr_link_serve(const char *address, const tr_curve_keys *keys,
                        const uint8_t (*clients)[TR_CURVE_KEY], uint32_t n, tr_link **out)
{
    zmq_link *l = NULL;

    tr_status st = new_link(ZMQ_ROUTER, n, &l);
    if (st != TR_OK)
        return st;
    l->is_server = true;
    for (uint32_t i = 0; i < n; i++)
        memcpy(l->clients[i].public_key, clients[i], TR_CURVE_KEY);
    st = tr_curve_set(l->socket, ZMQ_ROUTER_MANDATORY, 1) ? tr_curve_serve(l->socket, keys, plane)
                                                          : zmq_failed("socket options");
    if (st == TR_OK)
        st = tr_curve_door_open(l->context, plane, &l->door);
    if (st == TR_OK)
        st = watch(l);
    if (st == TR_OK)
        st = tr_curve_bind(l->socket, address, plane, l->endpoint);
    if (st != TR_OK) {
        zmq_link_close(&l->base);
        return st;
    }
    *out = &l->base;
    return TR_OK;
}

tr_status tr_link_connect(const char *endpoint, const uint8_t *server_public,
                          const tr_curve_keys *keys, tr_link **out)
{
    zmq_link *l = NULL;

    tr_status st = new_link(ZMQ_DEALER, 1, &l);
    if (st != TR_OK)
        return st;
    snprintf(l->endpoint, sizeof l->endpoint, "%s", endpoint);
    st = watch(l);
    if (st == TR_OK)
        st = tr_curve_connect(l->socket, endpoint, server_public, keys, plane);
    if (st != TR_OK) {
        zmq_link_close(&l->base);
        return st;
    }
    *out = &l->base;
    return TR_OK;
}

static const char *zmq_link_endpoint(const tr_link *link)
{
    return ((const zmq_link *)link)->endpoint;
}

static tr_status zmq_link_send(tr_link *link, uint32_t peer, tr_bytes message)
{
    zmq_link *l = (zmq_link *)link;

    if (l->is_server) {
        const client *c = peer >= 1 && peer <= l->n ? &l->clients[peer - 1] : NULL;
        if (!c || c->routing_size == 0 ||
            zmq_send(l->socket, c->routing_id, c->routing_size, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
            return TR_E_PEER_LOST;
    }
    if (zmq_send(l->socket, message.data, message.size, ZMQ_DONTWAIT) < 0)
        return TR_E_PEER_LOST;
    return TR_OK;
}

/* Connections keep the number that they came in with, so a client's changes with its key. */
static uint32_t number_of(const zmq_link *l, uint32_t i)
{
    return i + 1 + l->clients[i].n_before * l->n;
}

static uint32_t client_of(const void *ctx, const uint8_t *key)
{
    const zmq_link *l = ctx;

    for (uint32_t i = 0; i < l->n; i++)
        if (memcmp(l->clients[i].public_key, key, TR_CURVE_KEY) == 0)
            return number_of(l, i);
    return 0;
}

static void zmq_link_admit(tr_link *link, uint32_t peer, const uint8_t *public_key)
{
    zmq_link *l = (zmq_link *)link;
    client *c = &l->clients[peer - 1];

    memcpy(c->public_key, public_key, TR_CURVE_KEY);
    c->n_before++;
    c->routing_size = 0;
    c->old_fd = c->fd >= 0 ? c->fd : c->old_fd;
    c->fd = -1;
}

/* ---- events --------------------------------------------------------------------------- */

/* Throw away what is left of a message of several parts. */
static void drop_rest(zmq_link *l)
{
    while (zmq_msg_more(&l->message))
        if (zmq_msg_recv(&l->message, l->socket, ZMQ_DONTWAIT) < 0)
            return;
}

/* Who a message is from, by the key that its connection was authenticated with. */
static uint32_t sender_of(zmq_link *l, const uint8_t *routing_id, size_t routing_size)
{
    const char *user = zmq_msg_gets(&l->message, "User-Id");
    unsigned long number = user ? strtoul(user, NULL, 10) : 0;

    if (number < 1 || routing_size > MAX_ROUTING_ID)
        return 0;
    uint32_t i = (uint32_t)((number - 1) % l->n);
    if (number != number_of(l, i))
        return 0;
    client *c = &l->clients[i];
    memcpy(c->routing_id, routing_id, routing_size);
    c->routing_size = routing_size;
    int fd = zmq_msg_get(&l->message, ZMQ_SRCFD);
    if (fd != c->fd)
        c->since = ++l->n_connections;
    c->fd = fd;
    return i + 1;
}

static bool take_message(zmq_link *l, tr_link_event *out)
{
    uint8_t routing_id[MAX_ROUTING_ID];
    int routing_size = 0;

    if (l->is_server) {
        routing_size = zmq_recv(l->socket, routing_id, sizeof routing_id, ZMQ_DONTWAIT);
        if (routing_size < 0)
            return false;
    }
    if (zmq_msg_recv(&l->message, l->socket, ZMQ_DONTWAIT) < 0)
        return false;
    if (l->is_server) {
        out->peer = sender_of(l, routing_id, (size_t)routing_size);
        if (out->peer == 0) {
            drop_rest(l);
            return false;
        }
    } else {
        out->peer = 0;
        l->clients[0].fd = zmq_msg_get(&l->message, ZMQ_SRCFD);
    }
    if (zmq_msg_more(&l->message)) { /* ours have one part */
        drop_rest(l);
        return false;
    }
    out->kind = TR_LINK_MESSAGE;
    out->bytes = (tr_bytes){ zmq_msg_data(&l->message), zmq_msg_size(&l->message) };
    return true;
}

/* Whose connection ended with this descriptor?  The system gives the lowest free number to the next
 * connection at once, so two may claim it: the end is that of the older. */
static client *owner_of(zmq_link *l, int fd)
{
    client *owner = NULL;

    if (!l->is_server)
        return &l->clients[0]; /* it has one connection in its life */
    for (uint32_t i = 0; i < l->n; i++) {
        client *c = &l->clients[i];
        if (c->fd == fd && (!owner || c->since < owner->since))
            owner = c;
    }
    return owner;
}

/* The end of a connection whose client was replaced before it ended is no news. */
static bool was_replaced(zmq_link *l, int fd)
{
    for (uint32_t i = 0; l->is_server && i < l->n; i++)
        if (l->clients[i].old_fd == fd) {
            l->clients[i].old_fd = -1;
            return true;
        }
    return false;
}

static bool take_end(zmq_link *l, tr_link_event *out)
{
    uint8_t event[6]; /* u16 event, u32 value: the descriptor */
    uint8_t address[TR_CURVE_ENDPOINT];
    int32_t fd;

    if (zmq_recv(l->monitor, event, sizeof event, ZMQ_DONTWAIT) != (int)sizeof event)
        return false;
    zmq_recv(l->monitor, address, sizeof address, ZMQ_DONTWAIT);
    memcpy(&fd, event + 2, sizeof fd);
    client *c = was_replaced(l, fd) ? NULL : owner_of(l, fd);
    if (!c)
        return false;
    c->fd = -1;
    *out = (tr_link_event){ TR_LINK_GONE,
                            l->is_server ? (uint32_t)(c - l->clients) + 1 : 0,
                            { NULL, 0 } };
    return true;
}

static tr_status zmq_link_poll(tr_link *link, tr_time timeout, tr_link_event *out)
{
    zmq_link *l = (zmq_link *)link;
    tr_time deadline = tr_deadline_after(tr_now(), timeout);

    for (;;) {
        zmq_pollitem_t items[] = {
            { l->socket, 0, ZMQ_POLLIN, 0 },
            { l->monitor, 0, ZMQ_POLLIN, 0 },
            { l->door, 0, ZMQ_POLLIN, 0 },
        };
        tr_time left = deadline - tr_now();
        long wait_ms = left > 0 ? (long)((left + TR_MS - 1) / TR_MS) : 0;
        int n = zmq_poll(items, l->door ? 3 : 2, wait_ms);
        if (n < 0 && zmq_errno() != EINTR)
            return zmq_failed("poll");
        if (n <= 0) {
            if (tr_now() >= deadline)
                return TR_E_DEADLINE;
            continue;
        }
        if (l->door && items[2].revents)
            tr_curve_door_answer(l->door, client_of, l);
        /* What a peer said before it went comes first. */
        if (items[0].revents && take_message(l, out))
            return TR_OK;
        if (!items[0].revents && items[1].revents && take_end(l, out))
            return TR_OK;
    }
}

static const tr_link_ops zmq_link_ops = { zmq_link_close, zmq_link_endpoint, zmq_link_send,
                                          zmq_link_poll, zmq_link_admit };

/* ---- links of any make ------------------------------------------------------------------- */

tr_status tr_link_serve_beside(tr_transport *t, const char *address, const tr_curve_keys *keys,
                               const uint8_t (*clients)[TR_CURVE_KEY], tr_link **out)
{
    return t && t->links ? t->links->serve(t, out)
                         : tr_link_serve(address, keys, clients, t->n_peers, out);
}

tr_status tr_link_connect_beside(tr_transport *t, const char *endpoint,
                                 const uint8_t *server_public, const tr_curve_keys *keys,
                                 tr_link **out)
{
    return t && t->links ? t->links->connect(t, out)
                         : tr_link_connect(endpoint, server_public, keys, out);
}

bool tr_link_is_loopback(const tr_link *l)
{
    const char *endpoint = tr_link_endpoint(l);

    return strncmp(endpoint, "tcp://127.", 10) == 0 || strncmp(endpoint, "tcp://[::1]", 11) == 0;
}
