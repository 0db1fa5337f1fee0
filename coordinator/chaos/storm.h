/* storm.h - real clusters on this machine whose workers are killed, told to end, stopped,
 * continued.
 *
 * Runs this very program, `troupe run -w N`, again and again until the time is over.  At random
 * moments of each run some of its workers get SIGKILL, SIGTERM or SIGSTOP, and most of the last
 * SIGCONT later.  The text must be that of a run without workers, and no process may be left
 * behind.  Only processes of its own runs are touched: those that have a mark of the run in their
 * environment.
 *
 * USE     tr_storm_options o = { .model = path, .n_workers = 4, .n_tokens = 200,
 *                                .duration = 60 * TR_SECOND };
 *         st = tr_storm_run(&o, &report);    runs that go wrong are said at once
 *
 * FAILS   TR_E_SYSTEM  a process can't be started, /proc can't be read
 *         TR_E_CONFIG  already a run without faults fails: its own line says why
 *         SIGINT ends it early: the report is of the runs that were done.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CHAOS_STORM_H
#define TR_COORDINATOR_CHAOS_STORM_H

#include "base/clock.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const char *model;
    const char *transport; /* as of troupe run; NULL: its own choice */
    uint32_t n_workers;
    uint64_t n_tokens;
    uint64_t seed; /* of moments and victims; what happens then is the machine's affair */
    tr_time duration;
    bool shows_progress;
} tr_storm_options;

typedef struct {
    uint64_t n_runs, n_equal;
    uint64_t n_not_joined; /* the documented end: a worker was lost before it had its experts */
    uint64_t n_bad;
    uint64_t n_killed, n_told, n_stopped, n_continued; /* workers; told to end */
    double seconds, calm_seconds, longest_seconds; /* of all; of a run without faults; of a run */
} tr_storm_report;

tr_status tr_storm_run(const tr_storm_options *o, tr_storm_report *out);

#endif
