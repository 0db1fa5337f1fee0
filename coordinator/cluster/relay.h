/* relay.h - bytes from a pipe to a file descriptor, without ever blocking on the writer's side.
 *
 * USE     tr_relay r = { .from = pipe, .to = 1 };
 *         struct pollfd p = tr_relay_poll(&r, now);     then poll(&p, 1, tr_relay_wait_ms(...))
 *         tr_relay_turn(&r, p.revents, now);
 *         tr_relay_close(&r);                           does nothing at the end of the stream
 *
 * STATE   from is -1 once the stream is over: its end, an error, or closed.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_RELAY_H
#define TR_COORDINATOR_CLUSTER_RELAY_H

#include "base/clock.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TR_RELAY_CHUNK = 4096 }; /* PIPE_BUF: what poll promises to take without blocking */

typedef struct {
    int from, to;
    tr_time hold; /* what arrives is kept back for so long, so that another stream goes first */

    tr_time held_until; /* 0: nothing is kept back */
    int error;          /* errno of a failed write, 0: none */
    size_t n, sent;     /* of chunk */
    uint64_t total;     /* bytes written */
    char chunk[TR_RELAY_CHUNK];
} tr_relay;

/* True while bytes wait for a reader who pauses. */
static inline bool tr_relay_is_blocked(const tr_relay *r)
{
    return r->n > 0;
}

/* What to wait for; fd is -1 when only time or nothing is awaited. */
struct pollfd tr_relay_poll(const tr_relay *r, tr_time now);

/* ms, or less if something kept back is due earlier. */
int tr_relay_wait_ms(const tr_relay *r, tr_time now, int ms);

/* One read or one write. */
void tr_relay_turn(tr_relay *r, short revents, tr_time now);

void tr_relay_close(tr_relay *r);

#endif
