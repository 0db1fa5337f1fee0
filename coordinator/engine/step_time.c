/* step_time.c - classes of row counts, means that forget, straight lines between them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/step_time.h"

#include <math.h>

enum { SMALL = 8, MEMORY = 256, ASK_EVERY = 32 };

/* A worker's death or another program's burst makes one step long and says little of the next. */
static const double most_surprise = 2.0;

/* Of a mean, at each step: what was seen long ago counts less. */
static const double stays = 0.8;

static size_t class_of(size_t n_rows)
{
    size_t octave = 0;

    if (n_rows < SMALL)
        return n_rows;
    while (n_rows >> octave >= SMALL)
        octave++;
    size_t class = SMALL + (octave - 1) * 4 + (n_rows >> octave) - SMALL / 2;
    return class < TR_STEP_TIME_CLASSES ? class : TR_STEP_TIME_CLASSES - 1;
}

static bool seen_within(const tr_step_time *t, size_t i, uint64_t n_steps)
{
    return t->class[i].step > 0 && t->n_steps - t->class[i].step < n_steps;
}

static bool is_known(const tr_step_time *t, size_t i)
{
    return seen_within(t, i, MEMORY);
}

void tr_step_time_add(tr_step_time *t, size_t n_rows, tr_time elapsed)
{
    size_t i = class_of(n_rows);
    tr_step_time_class *c = &t->class[i];
    double seconds = (double)elapsed / (double)TR_SECOND;

    t->n_steps++;
    if (!is_known(t, i)) {
        *c = (tr_step_time_class){ t->n_steps, (double)n_rows, seconds };
        return;
    }
    if (seconds > most_surprise * c->seconds)
        seconds = most_surprise * c->seconds;
    double weight = 1.0 - pow(stays, (double)(t->n_steps - c->step));
    c->step = t->n_steps;
    c->rows += weight * ((double)n_rows - c->rows);
    c->seconds += weight * (seconds - c->seconds);
}

bool tr_step_time_asks(const tr_step_time *t, size_t n_rows)
{
    return t->n_steps % ASK_EVERY == 0 && !seen_within(t, class_of(n_rows), ASK_EVERY);
}

typedef struct {
    double rows, seconds;
} point;

static double slope(point a, point b)
{
    return (b.seconds - a.seconds) / (b.rows - a.rows);
}

/* What no rows would take: where the first mean and one that lies well above it point to; their
 * noise should not turn the line. */
static double seconds_of_none(const point *line, size_t n)
{
    size_t i = 2;

    while (i + 1 < n && line[i].rows < 1.25 * line[1].rows)
        i++;
    double seconds = i < n ? line[1].seconds - slope(line[1], line[i]) * line[1].rows : 0.0;
    return seconds > 0.0 ? seconds : 0.0;
}

/* The means in order, after a point for no rows; a longer step never seems shorter.  Returns how
 * many points that is. */
static size_t line_of(const tr_step_time *t, point *line)
{
    size_t n = 1;

    line[0] = (point){ 0 };
    for (size_t i = 0; i < TR_STEP_TIME_CLASSES; i++) {
        const tr_step_time_class *c = &t->class[i];
        double least = line[n - 1].seconds;
        if (is_known(t, i))
            line[n++] = (point){ c->rows, c->seconds > least ? c->seconds : least };
    }
    line[0].seconds = seconds_of_none(line, n);
    return n;
}

static double seconds_at(const point *line, size_t n, double rows)
{
    size_t i = 1;

    while (i + 1 < n && line[i].rows < rows)
        i++;
    return line[i].seconds + slope(line[i - 1], line[i]) * (rows - line[i].rows);
}

double tr_step_time_expect(const tr_step_time *t, size_t n_rows)
{
    point line[TR_STEP_TIME_CLASSES + 1];
    size_t n = line_of(t, line);

    return n > 1 ? seconds_at(line, n, (double)n_rows) : 0.0;
}

size_t tr_step_time_rows(const tr_step_time *t, size_t n_rows, double seconds)
{
    point line[TR_STEP_TIME_CLASSES + 1];
    size_t n = line_of(t, line);

    if (n == 1)
        return n_rows;
    point at = { (double)n_rows, seconds_at(line, n, (double)n_rows) };
    for (size_t i = 1; i < n; i++) {
        if (line[i].rows <= at.rows)
            continue;
        if (line[i].seconds > seconds)
            return (size_t)(at.rows + (seconds - at.seconds) / slope(at, line[i]));
        at = line[i];
    }
    double steep = slope(line[n - 2], line[n - 1]);
    double most = 2.0 * at.rows + 1.0;
    double rows = steep > 0.0 ? at.rows + (seconds - at.seconds) / steep : most;
    return (size_t)(rows < most ? rows : most);
}
