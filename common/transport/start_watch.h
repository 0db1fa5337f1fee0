/* start_watch.h - a thread beside the start of MPI, which waits for ever for a rank that is gone.
 *
 * USE     tr_start_watch w = { .n_ranks = n, .timeout = t, .give_up = end_process };
 *         st = tr_start_watch_begin(&w);
 *         ... what may never return ...
 *         tr_start_watch_end(&w);
 *
 * If it takes longer than timeout a line says so, and give_up is called from the thread: it must
 * end the process.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_START_WATCH_H
#define TR_TRANSPORT_START_WATCH_H

#include "base/clock.h"
#include "base/status.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t n_ranks; /* for the line */
    tr_time timeout;
    void (*give_up)(void);

    pthread_t thread; /* the rest is the watch's own */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_up;
} tr_start_watch;

tr_status tr_start_watch_begin(tr_start_watch *w);
void tr_start_watch_end(tr_start_watch *w);

#endif
