/* curve.h - what the ZeroMQ sockets of both planes have in common: keys, encryption, the door.
 *
 * For link.c and zmq.c; others use the keys only.  Sockets and contexts are libzmq's.
 *
 * USE     st = tr_curve_keys_new(&keys);  ...  tr_curve_keys_forget(&keys);
 *
 *         st = tr_curve_serve(socket, &keys, "data plane");            before bind
 *         st = tr_curve_door_open(context, "data plane", &door);       one a context
 *         st = tr_curve_bind(socket, address, "data plane", endpoint); what clients are to connect
 * to tr_curve_door_answer(door, find, ctx);                       when the door is readable
 *
 *         st = tr_curve_connect(socket, endpoint, server_public, &keys, "data plane");
 *
 * The server's libzmq asks at the door about each client that wants to connect; a client whose
 * number is not 0 comes in, and its messages carry that number as "User-Id".
 *
 * FAILS   TR_E_SYSTEM  an address can't be bound or connected to, libzmq lacks CURVE
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_CURVE_H
#define TR_TRANSPORT_CURVE_H

#include "base/bytes.h"
#include "base/status.h"

enum {
    TR_CURVE_KEY = 32,
    TR_CURVE_ENDPOINT = 512, /* bytes of "tcp://HOST:PORT", final zero included */
};

typedef struct {
    uint8_t public_key[TR_CURVE_KEY], secret_key[TR_CURVE_KEY];
} tr_curve_keys;

tr_status tr_curve_keys_new(tr_curve_keys *out);

/* Overwrite the keys. */
void tr_curve_keys_forget(tr_curve_keys *k);

/* One line about libzmq's last error. */
tr_status tr_curve_failed(const char *plane, const char *what);

bool tr_curve_set(void *socket, int option, int value);

tr_status tr_curve_serve(void *socket, const tr_curve_keys *keys, const char *plane);

/* address is "HOST", "HOST:PORT", "[IPv6]" or "[IPv6]:PORT"; NULL is loopback. */
tr_status tr_curve_bind(void *socket, const char *address, const char *plane,
                        char endpoint[TR_CURVE_ENDPOINT]);
tr_status tr_curve_connect(void *socket, const char *endpoint, const uint8_t *server_public,
                           const tr_curve_keys *keys, const char *plane);

tr_status tr_curve_door_open(void *context, const char *plane, void **door);

/* The number of the client with this key, 0 for a stranger. */
typedef uint32_t (*tr_curve_find)(const void *ctx, const uint8_t *public_key);

/* One request, if there is one; never waits. */
void tr_curve_door_answer(void *door, tr_curve_find find, const void *ctx);

/* Closes the context after its sockets, however often signals come between. */
void tr_curve_context_end(void *context);

#endif
