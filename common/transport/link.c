/* link.c - a ROUTER or DEALER socket with CURVE, its monitor, and the server's door-keeper.
 *
 * libzmq asks on "inproc://zeromq.zap.01" whether a client may come in (ZAP,
 * rfc.zeromq.org/spec/27). The server answers in tr_link_poll, in its own thread: a known public
 * key gets the peer's number as user id, which libzmq then attaches to each message of that
 * connection.
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
#include <unistd.h>

enum {
    LINGER_MS = 200,
    MAX_ENDPOINT = 512,
    MAX_ROUTING_ID = 64,
    Z85_KEY = 41, /* 32 bytes as Z85 text with its final zero */
};

typedef struct {
    uint8_t public_key[TR_LINK_KEY];
    uint8_t routing_id[MAX_ROUTING_ID];
    size_t routing_size; /* 0: never heard */
    int fd;              /* of its connection; -1: unknown */
    uint64_t since;      /* orders when the descriptors became known */
} client;

typedef struct {
    tr_link base;
    void *context, *socket, *monitor, *door;
    bool is_server;
    char endpoint[MAX_ENDPOINT];
    client *clients; /* [n]; a client's link has one: the server */
    uint32_t n;
    uint64_t n_connections; /* counted for client.since */
    zmq_msg_t message;      /* that the last event points into */
} zmq_link;

static const tr_link_ops zmq_link_ops; /* at the end */

static tr_status zmq_failed(const char *what)
{
    return tr_fail(TR_E_SYSTEM, "control plane: %s: %s", what, zmq_strerror(zmq_errno()));
}

tr_status tr_link_keys_new(tr_link_keys *out)
{
    char public_text[Z85_KEY];
    char secret_text[Z85_KEY];

    if (zmq_curve_keypair(public_text, secret_text) != 0)
        return zmq_failed("no keys (is libzmq built with CURVE?)");
    bool ok = zmq_z85_decode(out->public_key, public_text) != NULL &&
              zmq_z85_decode(out->secret_key, secret_text) != NULL;
    explicit_bzero(secret_text, sizeof secret_text);
    return ok ? TR_OK : zmq_failed("keys");
}

void tr_link_keys_forget(tr_link_keys *k)
{
    explicit_bzero(k, sizeof *k);
}

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
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
    while (l->context && zmq_ctx_term(l->context) != 0 && zmq_errno() == EINTR)
        continue; /* a signal came; what lingers has its own limit */
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
        l->clients[i].fd = -1;
    if (st == TR_OK && !(l->context = zmq_ctx_new()))
        st = zmq_failed("context");
    if (st == TR_OK && !(l->socket = zmq_socket(l->context, type)))
        st = zmq_failed("socket");
    if (st == TR_OK && (!set_int(l->socket, ZMQ_LINGER, LINGER_MS) ||
                        !set_int(l->socket, ZMQ_HANDSHAKE_IVL, 10000) ||
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
    if (!l->monitor || !set_int(l->monitor, ZMQ_LINGER, 0) ||
        zmq_connect(l->monitor, "inproc://monitor") != 0)
        return zmq_failed("monitor");
    return TR_OK;
}

static tr_status open_door(zmq_link *l)
{
    l->door = zmq_socket(l->context, ZMQ_REP);
    if (!l->door || !set_int(l->door, ZMQ_LINGER, 0) ||
        zmq_bind(l->door, "inproc://zeromq.zap.01") != 0)
        return zmq_failed("authentication");
    return TR_OK;
}

/* The text to bind and, for an address that means "all interfaces", this host's name to give
 * out. */
static tr_status bind_to(zmq_link *l, const char *address)
{
    char text[MAX_ENDPOINT];
    size_t size = sizeof l->endpoint;
    const char *after = address ? strrchr(address, ']') : NULL; /* of an IPv6 address */
    bool has_port = address && strchr(after ? after : address, ':');

    if (after && !set_int(l->socket, ZMQ_IPV6, 1))
        return zmq_failed("socket options");

    snprintf(text, sizeof text, "tcp://%s%s", address ? address : "127.0.0.1",
             has_port ? "" : ":*");
    if (zmq_bind(l->socket, text) != 0)
        return tr_fail(TR_E_SYSTEM,
                       "control plane: can't listen on %s: %s: give a numeric address or an "
                       "interface of this host, and a free port or none",
                       address ? address : "127.0.0.1", zmq_strerror(zmq_errno()));
    if (zmq_getsockopt(l->socket, ZMQ_LAST_ENDPOINT, l->endpoint, &size) != 0)
        return zmq_failed("endpoint");
    const char *port = strrchr(l->endpoint, ':');
    if (!strstr(l->endpoint, "//0.0.0.0:") && !strstr(l->endpoint, "//[::]:"))
        return TR_OK;
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    snprintf(text, sizeof text, "tcp://%s%s", host, port);
    snprintf(l->endpoint, sizeof l->endpoint, "%s", text);
    return TR_OK;
}

tr_status tr_link_serve(const char *address, const tr_link_keys *keys,
                        const uint8_t (*clients)[TR_LINK_KEY], uint32_t n, tr_link **out)
{
    zmq_link *l = NULL;

    tr_status st = new_link(ZMQ_ROUTER, n, &l);
    if (st != TR_OK)
        return st;
    l->is_server = true;
    for (uint32_t i = 0; i < n; i++)
        memcpy(l->clients[i].public_key, clients[i], TR_LINK_KEY);
    if (!set_int(l->socket, ZMQ_CURVE_SERVER, 1) || !set_int(l->socket, ZMQ_ROUTER_MANDATORY, 1) ||
        zmq_setsockopt(l->socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, TR_LINK_KEY) != 0 ||
        zmq_setsockopt(l->socket, ZMQ_ZAP_DOMAIN, "troupe", 6) != 0)
        st = zmq_failed("encryption");
    if (st == TR_OK)
        st = open_door(l);
    if (st == TR_OK)
        st = watch(l);
    if (st == TR_OK)
        st = bind_to(l, address);
    if (st != TR_OK) {
        zmq_link_close(&l->base);
        return st;
    }
    *out = &l->base;
    return TR_OK;
}

tr_status tr_link_connect(const char *endpoint, const uint8_t *server_public,
                          const tr_link_keys *keys, tr_link **out)
{
    zmq_link *l = NULL;

    tr_status st = new_link(ZMQ_DEALER, 1, &l);
    if (st != TR_OK)
        return st;
    snprintf(l->endpoint, sizeof l->endpoint, "%s", endpoint);
    if (!set_int(l->socket, ZMQ_IPV6, strchr(endpoint, '[') != NULL) ||
        zmq_setsockopt(l->socket, ZMQ_CURVE_SERVERKEY, server_public, TR_LINK_KEY) != 0 ||
        zmq_setsockopt(l->socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, TR_LINK_KEY) != 0 ||
        zmq_setsockopt(l->socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, TR_LINK_KEY) != 0)
        st = zmq_failed("encryption");
    if (st == TR_OK)
        st = watch(l);
    if (st == TR_OK && zmq_connect(l->socket, endpoint) != 0)
        st = tr_fail(TR_E_SYSTEM, "control plane: %s is no address to connect to: %s", endpoint,
                     zmq_strerror(zmq_errno()));
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

/* ---- the door-keeper ------------------------------------------------------------------ */

/* The number of the client with this key, 0 for a stranger. */
static uint32_t client_of(const zmq_link *l, const uint8_t *key)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (memcmp(l->clients[i].public_key, key, TR_LINK_KEY) == 0)
            return i + 1;
    return 0;
}

/* One ZAP request: version, id, domain, address, identity, mechanism, key. */
static void answer_door(zmq_link *l)
{
    enum { FRAMES = 7, FRAME = 256 };
    uint8_t frame[FRAMES][FRAME];
    size_t size[FRAMES] = { 0 };
    size_t n = 0;
    int more = 1;

    while (more) {
        uint8_t rest[FRAME];
        int got = zmq_recv(l->door, n < FRAMES ? frame[n] : rest, FRAME, ZMQ_DONTWAIT);
        size_t more_size = sizeof more;
        if (got < 0)
            return;
        if (n < FRAMES)
            size[n] = (size_t)got < FRAME ? (size_t)got : FRAME;
        n++;
        if (zmq_getsockopt(l->door, ZMQ_RCVMORE, &more, &more_size) != 0)
            return;
    }
    uint32_t peer = 0;
    if (n == FRAMES && size[5] == 5 && memcmp(frame[5], "CURVE", 5) == 0 && size[6] == TR_LINK_KEY)
        peer = client_of(l, frame[6]);
    char user[16];
    snprintf(user, sizeof user, "%u", peer);
    zmq_send(l->door, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(l->door, frame[1], size[1], ZMQ_SNDMORE);
    zmq_send(l->door, peer ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(l->door, peer ? "OK" : "unknown key", peer ? 2 : 11, ZMQ_SNDMORE);
    zmq_send(l->door, user, peer ? strlen(user) : 0, ZMQ_SNDMORE);
    zmq_send(l->door, "", 0, 0);
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
    unsigned long peer = user ? strtoul(user, NULL, 10) : 0;

    if (peer < 1 || peer > l->n || routing_size > MAX_ROUTING_ID)
        return 0;
    client *c = &l->clients[peer - 1];
    memcpy(c->routing_id, routing_id, routing_size);
    c->routing_size = routing_size;
    int fd = zmq_msg_get(&l->message, ZMQ_SRCFD);
    if (fd != c->fd)
        c->since = ++l->n_connections;
    c->fd = fd;
    return (uint32_t)peer;
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

static bool take_end(zmq_link *l, tr_link_event *out)
{
    uint8_t event[6]; /* u16 event, u32 value: the descriptor */
    uint8_t address[MAX_ENDPOINT];
    int32_t fd;

    if (zmq_recv(l->monitor, event, sizeof event, ZMQ_DONTWAIT) != (int)sizeof event)
        return false;
    zmq_recv(l->monitor, address, sizeof address, ZMQ_DONTWAIT);
    memcpy(&fd, event + 2, sizeof fd);
    client *c = owner_of(l, fd);
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
            answer_door(l);
        /* What a peer said before it went comes first. */
        if (items[0].revents && take_message(l, out))
            return TR_OK;
        if (!items[0].revents && items[1].revents && take_end(l, out))
            return TR_OK;
    }
}

static const tr_link_ops zmq_link_ops = { zmq_link_close, zmq_link_endpoint, zmq_link_send,
                                          zmq_link_poll };

/* ---- links of any make ------------------------------------------------------------------- */

tr_status tr_link_serve_beside(tr_transport *t, const char *address, const tr_link_keys *keys,
                               const uint8_t (*clients)[TR_LINK_KEY], tr_link **out)
{
    return t->links ? t->links->serve(t, out)
                    : tr_link_serve(address, keys, clients, t->n_peers, out);
}

tr_status tr_link_connect_beside(tr_transport *t, const char *endpoint,
                                 const uint8_t *server_public, const tr_link_keys *keys,
                                 tr_link **out)
{
    return t->links ? t->links->connect(t, out)
                    : tr_link_connect(endpoint, server_public, keys, out);
}

bool tr_link_is_loopback(const tr_link *l)
{
    const char *endpoint = tr_link_endpoint(l);

    return strncmp(endpoint, "tcp://127.", 10) == 0 || strncmp(endpoint, "tcp://[::1]", 11) == 0;
}
