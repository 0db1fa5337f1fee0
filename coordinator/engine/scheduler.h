/* scheduler.h - which rows of which sequences make the next step.
 *
 * A step takes one row of every sequence that writes, and parts of the prompts that are still to be
 * read.  While somebody writes, prompts get no more rows than `chunk`, so that a long prompt does
 * not hold up the others; the chunk follows the measured times.
 *
 * USE     limits.chunk = tr_schedule_chunk(seq, n, &times, max_rows);
 *         tr_schedule_rows(seq, n, &limits, rows);             rows[i] of sequence i
 *         i = tr_schedule_next(seq, n);                        who is let in when there is room
 *         i = tr_schedule_victim(seq, n);                      who goes back to waiting when not
 *
 * ORDER   Who is due first: who came first, but a point of priority is worth ten seconds of
 *         waiting, so that nobody waits for ever.  Prompts are read one after the other: the first
 *         token of each comes sooner so than if all were read at the same pace.  But half of the
 *         rows go to whoever has least left: a short prompt does not wait for a long one.
 *
 * Pure: numbers in, numbers out.  Which rows go together changes no result, only when it is there.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_SCHEDULER_H
#define TR_COORDINATOR_ENGINE_SCHEDULER_H

#include "coordinator/engine/step_time.h"

/* What one point of a request's priority takes off the time it came. */
static const tr_time tr_schedule_point = 10 * TR_SECOND;

typedef struct {
    size_t known;    /* tokens: the prompt's and those drawn so far */
    size_t computed; /* of them have gone through the model */
    tr_time due;     /* the order; who came at the same time goes by the ticket */
    uint64_t ticket;
    bool is_running; /* has pages of the cache */
    bool is_held;    /* another reads the same tokens first: no rows for now */
} tr_schedule_item;

typedef struct {
    size_t max_rows;   /* of a step */
    size_t max_logits; /* rows of a step that want logits */
    size_t chunk;      /* rows of prompts while somebody writes */
} tr_schedule_limits;

#define TR_SCHEDULE_NONE SIZE_MAX

/* Is it a's turn before b's? */
bool tr_schedule_goes_before(const tr_schedule_item *a, const tr_schedule_item *b);

/* How many rows of prompts go beside those of answers: prompts get a third of the step's time, or,
 * where they are more than a third of those who run, their share of it.  One long prompt makes a
 * step at most half as long again; many are read fast enough that their answers can begin.
 * 0..max_rows: now and then a step without any shows how long that takes. */
size_t tr_schedule_chunk(const tr_schedule_item *items, size_t n, const tr_step_time *times,
                         size_t max_rows);

/* rows [n]: how many of its next tokens each sequence gets; 0 for those that wait. */
void tr_schedule_rows(const tr_schedule_item *items, size_t n, const tr_schedule_limits *limits,
                      size_t *rows);

/* The first in order of those that wait; TR_SCHEDULE_NONE. */
size_t tr_schedule_next(const tr_schedule_item *items, size_t n);

/* The last in order of those that run; TR_SCHEDULE_NONE. */
size_t tr_schedule_victim(const tr_schedule_item *items, size_t n);

#endif
