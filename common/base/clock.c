/* clock.c - CLOCK_MONOTONIC, or whatever a test or a simulation put in its place.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stddef.h>
#include <time.h>

static tr_time machine_now(void *ctx)
{
    struct timespec ts;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (tr_time)ts.tv_sec * TR_SECOND + (tr_time)ts.tv_nsec;
}

static void machine_sleep(void *ctx, tr_time d)
{
    (void)ctx;
    if (d <= 0)
        return;
    struct timespec ts = { .tv_sec = (time_t)(d / TR_SECOND), .tv_nsec = (long)(d % TR_SECOND) };
    nanosleep(&ts, NULL);
}

static const tr_clock_source machine = { machine_now, machine_sleep, NULL };
static tr_clock_source current = { machine_now, machine_sleep, NULL };
static _Thread_local const tr_clock_source *own; /* NULL: current */

tr_time tr_now(void)
{
    const tr_clock_source *c = own ? own : &current;

    return c->now(c->ctx);
}

void tr_sleep(tr_time d)
{
    const tr_clock_source *c = own ? own : &current;

    c->sleep(c->ctx, d);
}

void tr_clock_use(const tr_clock_source *source)
{
    current = source ? *source : machine;
}

void tr_clock_use_here(const tr_clock_source *source)
{
    own = source;
}
