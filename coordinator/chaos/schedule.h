/* schedule.h - a trial as text: its seed, its workers, and the faults that happen in it.
 *
 *     # what a world suffers; times are nanoseconds since it began
 *     seed 351
 *     workers 2
 *     lost data 19 from 0 to 2
 *     late control 34 from 0 to 2 by 5034000
 *     killed process 2 at 48336097
 *     hung process 1 before-message 8 for ever
 *     cut from 0 to 2 at 52727339 for 900000000
 *
 * A line for each fault, a word and then names with values in any order.  Memory, delays and the
 * rest are what the seed draws (trial.h).
 *
 * USE     tr_schedule_print(stdout, &schedule);
 *         st = tr_schedule_read(path, &schedule);
 *         ... trial.schedule = schedule.fault ...
 *         tr_schedule_fini(&schedule);
 *
 * FAILS   TR_E_IO      the file can't be read
 *         TR_E_CONFIG  a line is wrong: which, and what is expected
 *         TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CHAOS_SCHEDULE_H
#define TR_COORDINATOR_CHAOS_SCHEDULE_H

#include "coordinator/chaos/trial.h"

#include <stdio.h>

typedef struct {
    uint64_t seed;
    tr_peer n_workers;
    tr_sim_fault *fault; /* [n] */
    size_t n;
} tr_schedule;

void tr_schedule_print(FILE *stream, const tr_schedule *s);

tr_status tr_schedule_read(const char *path, tr_schedule *out);

/* name is the file's, for errors. */
tr_status tr_schedule_parse(const char *name, const char *text, tr_schedule *out);
void tr_schedule_fini(tr_schedule *s);

/* "lost", "slow-disk": the word of a kind of fault. */
const char *tr_schedule_word(tr_sim_what what);

#endif
