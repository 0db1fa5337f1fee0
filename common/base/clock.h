/* clock.h - the only source of time for coordinator and worker code.
 *
 * Time is monotonic nanoseconds.  A test or a simulation puts its own source in place;
 * the code above can't tell.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_CLOCK_H
#define TR_BASE_CLOCK_H

#include <stdint.h>

typedef int64_t tr_time; /* nanoseconds */

#define TR_US      ((tr_time)1000)
#define TR_MS      ((tr_time)1000000)
#define TR_SECOND  ((tr_time)1000000000)
#define TR_FOREVER INT64_MAX

tr_time tr_now(void);

/* At least d nanoseconds, unless a signal comes. */
void tr_sleep(tr_time d);

/* now + d without overflow. */
static inline tr_time tr_deadline_after(tr_time now, tr_time d)
{
    return d > TR_FOREVER - now ? TR_FOREVER : now + d;
}

typedef struct {
    tr_time (*now)(void *ctx);
    void (*sleep)(void *ctx, tr_time d);
    void *ctx;
} tr_clock_source;

/* Use another source from now on; NULL brings the machine's clock back.  Not while other
 * threads read the clock. */
void tr_clock_use(const tr_clock_source *source);

/* The same for the calling thread alone, so that several simulations can run beside each other.
 * Borrowed until the next call; NULL: the thread has the clock of all again. */
void tr_clock_use_here(const tr_clock_source *source);

#endif
