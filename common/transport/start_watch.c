/* start_watch.c - see start_watch.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/start_watch.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *start_watch_main(void *ctx)
{
    tr_start_watch *w = ctx;
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(w->timeout / TR_SECOND);
    until.tv_nsec += (long)(w->timeout % TR_SECOND);
    if (until.tv_nsec >= TR_SECOND) {
        until.tv_sec++;
        until.tv_nsec -= TR_SECOND;
    }
    pthread_mutex_lock(&w->lock);
    while (!w->is_up && pthread_cond_timedwait(&w->changed, &w->lock, &until) != ETIMEDOUT) {
    }
    bool is_late = !w->is_up;
    pthread_mutex_unlock(&w->lock);
    if (!is_late)
        return NULL;
    tr_fail(TR_E_PEER_LOST,
            "mpi: not all %u processes of this job came up within %.1f s: one ended at its start "
            "(what it says is above), or its program is no troupe-worker",
            w->n_ranks, (double)w->timeout / (double)TR_SECOND);
    w->give_up();
    abort(); /* give_up did not end the process */
}

tr_status tr_start_watch_begin(tr_start_watch *w)
{
    pthread_condattr_t monotonic;
    sigset_t all, before;

    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all); /* signals belong to the main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&w->thread, NULL, start_watch_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0 ? TR_OK : tr_fail(TR_E_SYSTEM, "mpi: no thread: %s", strerror(error));
}

void tr_start_watch_end(tr_start_watch *w)
{
    pthread_mutex_lock(&w->lock);
    w->is_up = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
}
