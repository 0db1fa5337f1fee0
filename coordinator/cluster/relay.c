/* relay.c - one chunk at a time: read when it is empty, write when poll says that it fits.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/relay.h"

#include <errno.h>
#include <unistd.h>

struct pollfd tr_relay_poll(const tr_relay *r, tr_time now)
{
    if (r->n > 0)
        return (struct pollfd){ .fd = r->to, .events = POLLOUT };
    if (r->held_until > now)
        return (struct pollfd){ .fd = -1 };
    return (struct pollfd){ .fd = r->from, .events = POLLIN };
}

int tr_relay_wait_ms(const tr_relay *r, tr_time now, int ms)
{
    if (r->from < 0 || r->n > 0 || r->held_until <= now)
        return ms;
    tr_time left = (r->held_until - now) / TR_MS + 1;
    return left < ms ? (int)left : ms;
}

static void relay_read(tr_relay *r)
{
    ssize_t got = read(r->from, r->chunk, sizeof r->chunk);

    if (got > 0)
        r->n = (size_t)got;
    else if (got == 0 || (errno != EINTR && errno != EAGAIN))
        tr_relay_close(r);
}

static void relay_write(tr_relay *r)
{
    ssize_t put = write(r->to, r->chunk + r->sent, r->n - r->sent);

    if (put >= 0) {
        r->sent += (size_t)put;
        r->total += (uint64_t)put;
        if (r->sent == r->n)
            r->n = r->sent = 0;
    } else if (errno != EINTR && errno != EAGAIN) {
        r->error = errno;
        if (r->hold == 0)
            tr_relay_close(r);
        r->n = r->sent = 0; /* of standard error the rest is read and thrown away */
    }
}

void tr_relay_turn(tr_relay *r, short revents, tr_time now)
{
    if (r->from < 0 || revents == 0)
        return;
    if (r->n > 0) {
        relay_write(r);
    } else if (r->hold > 0 && r->held_until == 0) {
        r->held_until = tr_deadline_after(now, r->hold);
    } else {
        r->held_until = 0;
        relay_read(r);
    }
}

void tr_relay_close(tr_relay *r)
{
    if (r->from >= 0)
        close(r->from);
    r->from = -1;
    r->n = r->sent = 0;
}
