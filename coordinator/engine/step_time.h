/* step_time.h - how long a step of so many rows takes, learnt from steps.
 *
 * Time grows with rows, but not in proportion: a few rows read most of the weights that many read.
 * So recent means are kept by number of rows, and what lies between is drawn as straight lines.
 * What was not seen for a while is forgotten, since the load and the machine change.
 *
 * Where no step without prompts comes by itself, one is asked for now and then, to learn from.
 *
 * USE     tr_step_time t = { 0 };
 *         tr_step_time_add(&t, n_rows, elapsed);              after each step
 *         seconds = tr_step_time_expect(&t, n_rows);
 *         n = tr_step_time_rows(&t, n_rows, seconds);         what fits into this time
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_STEP_TIME_H
#define TR_COORDINATOR_ENGINE_STEP_TIME_H

#include "base/bytes.h"
#include "base/clock.h"

/* Up to 8 rows each number has its own class, then four classes to a doubling. */
enum { TR_STEP_TIME_CLASSES = 64 };

typedef struct {
    uint64_t step; /* when a step of this class was last seen; 0: never */
    double rows, seconds;
} tr_step_time_class;

typedef struct {
    uint64_t n_steps;
    tr_step_time_class class[TR_STEP_TIME_CLASSES];
} tr_step_time;

/* n_rows is at least 1. */
void tr_step_time_add(tr_step_time *t, size_t n_rows, tr_time elapsed);

/* Should the next step have no more than these rows, to learn how long it takes?  One in 32 at
 * most.
 */
bool tr_step_time_asks(const tr_step_time *t, size_t n_rows);

/* Seconds; 0 if nothing is known. */
double tr_step_time_expect(const tr_step_time *t, size_t n_rows);

/* The most rows, n_rows or more, whose step takes at most these seconds, which are at least what is
 * expected for n_rows.  Beyond what was seen it goes to about twice as many at most: guesses are
 * tried out in small steps.  n_rows if nothing is known. */
size_t tr_step_time_rows(const tr_step_time *t, size_t n_rows, double seconds);

#endif
