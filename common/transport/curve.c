/* curve.c - keys, CURVE on a socket, and who may come in.
 *
 * libzmq asks on "inproc://zeromq.zap.01" whether a client may come in (ZAP,
 * rfc.zeromq.org/spec/27).  The server answers in its own thread: a known public key gets the
 * client's number as user id, which libzmq then attaches to each message of that connection.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/curve.h"

#include "base/host.h"

#include <zmq.h>

#include <errno.h>
#include <stdio.h>

enum { Z85_KEY = 41 }; /* 32 bytes as Z85 text with its final zero */

tr_status tr_curve_failed(const char *plane, const char *what)
{
    return tr_fail(TR_E_SYSTEM, "%s: %s: %s", plane, what, zmq_strerror(zmq_errno()));
}

tr_status tr_curve_keys_new(tr_curve_keys *out)
{
    char public_text[Z85_KEY];
    char secret_text[Z85_KEY];

    if (zmq_curve_keypair(public_text, secret_text) != 0)
        return tr_curve_failed("keys", "can't be made (is libzmq built with CURVE?)");
    bool ok = zmq_z85_decode(out->public_key, public_text) != NULL &&
              zmq_z85_decode(out->secret_key, secret_text) != NULL;
    explicit_bzero(secret_text, sizeof secret_text);
    return ok ? TR_OK : tr_curve_failed("keys", "can't be made");
}

void tr_curve_keys_forget(tr_curve_keys *k)
{
    explicit_bzero(k, sizeof *k);
}

bool tr_curve_set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

tr_status tr_curve_serve(void *socket, const tr_curve_keys *keys, const char *plane)
{
    bool ok = tr_curve_set(socket, ZMQ_CURVE_SERVER, 1) &&
              zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, TR_CURVE_KEY) == 0 &&
              zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "troupe", 6) == 0;

    return ok ? TR_OK : tr_curve_failed(plane, "encryption");
}

/* For an address that means "all interfaces" this host's name is what is given out. */
tr_status tr_curve_bind(void *socket, const char *address, const char *plane,
                        char endpoint[TR_CURVE_ENDPOINT])
{
    char text[TR_CURVE_ENDPOINT];
    size_t size = TR_CURVE_ENDPOINT;
    const char *after = address ? strrchr(address, ']') : NULL; /* of an IPv6 address */
    bool has_port = address && strchr(after ? after : address, ':');

    if (after && !tr_curve_set(socket, ZMQ_IPV6, 1))
        return tr_curve_failed(plane, "socket options");

    snprintf(text, sizeof text, "tcp://%s%s", address ? address : "127.0.0.1",
             has_port ? "" : ":*");
    if (zmq_bind(socket, text) != 0)
        return tr_fail(TR_E_SYSTEM,
                       "%s: can't listen on %s: %s: give a numeric address or an "
                       "interface of this host, and a free port or none",
                       plane, address ? address : "127.0.0.1", zmq_strerror(zmq_errno()));
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0)
        return tr_curve_failed(plane, "endpoint");
    const char *port = strrchr(endpoint, ':');
    if (!strstr(endpoint, "//0.0.0.0:") && !strstr(endpoint, "//[::]:"))
        return TR_OK;
    char host[256];
    tr_host_name(host, sizeof host);
    snprintf(text, sizeof text, "tcp://%s%s", host, port);
    snprintf(endpoint, TR_CURVE_ENDPOINT, "%s", text);
    return TR_OK;
}

tr_status tr_curve_connect(void *socket, const char *endpoint, const uint8_t *server_public,
                           const tr_curve_keys *keys, const char *plane)
{
    if (!tr_curve_set(socket, ZMQ_IPV6, strchr(endpoint, '[') != NULL) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_public, TR_CURVE_KEY) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, TR_CURVE_KEY) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, TR_CURVE_KEY) != 0)
        return tr_curve_failed(plane, "encryption");
    if (zmq_connect(socket, endpoint) != 0)
        return tr_fail(TR_E_SYSTEM, "%s: %s is no address to connect to: %s", plane, endpoint,
                       zmq_strerror(zmq_errno()));
    return TR_OK;
}

tr_status tr_curve_door_open(void *context, const char *plane, void **door)
{
    *door = zmq_socket(context, ZMQ_REP);
    if (!*door || !tr_curve_set(*door, ZMQ_LINGER, 0) ||
        zmq_bind(*door, "inproc://zeromq.zap.01") != 0)
        return tr_curve_failed(plane, "authentication");
    return TR_OK;
}

/* One ZAP request: version, id, domain, address, identity, mechanism, key. */
void tr_curve_door_answer(void *door, tr_curve_find find, const void *ctx)
{
    enum { FRAMES = 7, FRAME = 256 };
    uint8_t frame[FRAMES][FRAME];
    size_t size[FRAMES] = { 0 };
    size_t n = 0;
    int more = 1;

    while (more) {
        uint8_t rest[FRAME];
        int got = zmq_recv(door, n < FRAMES ? frame[n] : rest, FRAME, ZMQ_DONTWAIT);
        size_t more_size = sizeof more;
        if (got < 0)
            return;
        if (n < FRAMES)
            size[n] = (size_t)got < FRAME ? (size_t)got : FRAME;
        n++;
        if (zmq_getsockopt(door, ZMQ_RCVMORE, &more, &more_size) != 0)
            return;
    }
    uint32_t peer = 0;
    if (n == FRAMES && size[5] == 5 && memcmp(frame[5], "CURVE", 5) == 0 && size[6] == TR_CURVE_KEY)
        peer = find(ctx, frame[6]);
    char user[16];
    snprintf(user, sizeof user, "%u", peer);
    zmq_send(door, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(door, frame[1], size[1], ZMQ_SNDMORE);
    zmq_send(door, peer ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(door, peer ? "OK" : "unknown key", peer ? 2 : 11, ZMQ_SNDMORE);
    zmq_send(door, user, peer ? strlen(user) : 0, ZMQ_SNDMORE);
    zmq_send(door, "", 0, 0);
}

void tr_curve_context_end(void *context)
{
    while (context && zmq_ctx_term(context) != 0 && zmq_errno() == EINTR)
        continue; /* what lingers has its own limit */
}
