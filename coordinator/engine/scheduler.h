/* scheduler.h - which rows of which sequences make the next step.
 *
 * A step takes one row of every sequence that writes, and parts of the prompts that are still to be
 * read.  While somebody writes, prompts get no more rows than `chunk`, so that a long prompt does
 * not hold up the others; the chunk follows the measured times.
 *
 * USE     tr_schedule_rows(seq, n, &limits, rows);             rows[i] of sequence i
 *         i = tr_schedule_next(seq, n);                        who is let in when there is room
 *         i = tr_schedule_victim(seq, n);                      who goes back to waiting when not
 *         tr_chunk_update(&chunk, n_writing, n_reading, elapsed);
 *
 * ORDER   Higher priority first, then who came first.  Prompts are read one after the other: the
 *         first token of each comes sooner so than if all were read at the same pace.
 *
 * Pure: numbers in, numbers out.  Which rows go together changes no result, only when it is there.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_SCHEDULER_H
#define TR_COORDINATOR_ENGINE_SCHEDULER_H

#include "base/bytes.h"
#include "base/clock.h"

typedef struct {
    size_t known;    /* tokens: the prompt's and those drawn so far */
    size_t computed; /* of them have gone through the model */
    int32_t priority;
    uint64_t arrival;
    bool is_running; /* has pages of the cache */
} tr_schedule_item;

typedef struct {
    size_t max_rows;   /* of a step */
    size_t max_logits; /* rows of a step that want logits */
    size_t chunk;      /* rows of prompts while somebody writes; at least 1 */
} tr_schedule_limits;

#define TR_SCHEDULE_NONE SIZE_MAX

/* rows [n]: how many of its next tokens each sequence gets; 0 for those that wait. */
void tr_schedule_rows(const tr_schedule_item *items, size_t n, const tr_schedule_limits *limits,
                      size_t *rows);

/* The first in order of those that wait; TR_SCHEDULE_NONE. */
size_t tr_schedule_next(const tr_schedule_item *items, size_t n);

/* The last in order of those that run; TR_SCHEDULE_NONE. */
size_t tr_schedule_victim(const tr_schedule_item *items, size_t n);

/* How many rows of prompts go into a step beside rows of answers: as many as make the step at most
 * half as long again as one without. */
typedef struct {
    size_t rows, least, most; /* least..most */
    double alone;             /* seconds of a step that only writes, recent mean; 0: unknown */
} tr_chunk;

void tr_chunk_update(tr_chunk *c, size_t n_writing, size_t n_reading, tr_time elapsed);

#endif
