/* progress.h - a bar on a terminal while something long goes on.
 *
 * USE     tr_progress p;
 *         tr_progress_begin(&p, "loading", total_bytes, isatty(2));
 *         tr_progress_show(&p, done_bytes);       as often as you like: draws 10 times a second
 *         tr_progress_end(&p);                    removes the bar
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_PROGRESS_H
#define TR_BASE_PROGRESS_H

#include "base/clock.h"

#include <stdbool.h>

typedef struct {
    const char *what;
    uint64_t total;
    bool is_shown;
    tr_time begin, last;
} tr_progress;

/* Draws nothing if is_shown is false.  what is borrowed. */
void tr_progress_begin(tr_progress *p, const char *what, uint64_t total, bool is_shown);
void tr_progress_show(tr_progress *p, uint64_t done);
void tr_progress_end(tr_progress *p);

#endif
