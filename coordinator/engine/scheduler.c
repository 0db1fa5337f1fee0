/* scheduler.c - writers first, then readers in order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/scheduler.h"

#include <string.h>

static bool goes_before(const tr_schedule_item *a, const tr_schedule_item *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
}

static bool is_writing(const tr_schedule_item *i)
{
    return i->is_running && i->known == i->computed + 1;
}

static bool is_reading(const tr_schedule_item *i)
{
    return i->is_running && i->known > i->computed + 1;
}

/* The first in order that is reading and has no rows yet. */
static size_t next_reader(const tr_schedule_item *items, size_t n, const size_t *rows)
{
    size_t best = TR_SCHEDULE_NONE;

    for (size_t i = 0; i < n; i++)
        if (is_reading(&items[i]) && rows[i] == 0 &&
            (best == TR_SCHEDULE_NONE || goes_before(&items[i], &items[best])))
            best = i;
    return best;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

void tr_schedule_rows(const tr_schedule_item *items, size_t n, const tr_schedule_limits *limits,
                      size_t *rows)
{
    size_t left = limits->max_rows;
    size_t logits = limits->max_logits;

    memset(rows, 0, n * sizeof *rows);
    for (size_t i = 0; i < n && left > 0 && logits > 0; i++) {
        if (!is_writing(&items[i]))
            continue;
        rows[i] = 1;
        left--;
        logits--;
    }
    if (logits < limits->max_logits)
        left = least(left, limits->chunk);
    while (left > 0 && logits > 0) {
        size_t i = next_reader(items, n, rows);
        if (i == TR_SCHEDULE_NONE)
            return;
        size_t wanted = items[i].known - items[i].computed;
        rows[i] = least(wanted, left);
        left -= rows[i];
        logits -= rows[i] == wanted;
    }
}

size_t tr_schedule_next(const tr_schedule_item *items, size_t n)
{
    size_t best = TR_SCHEDULE_NONE;

    for (size_t i = 0; i < n; i++)
        if (!items[i].is_running &&
            (best == TR_SCHEDULE_NONE || goes_before(&items[i], &items[best])))
            best = i;
    return best;
}

size_t tr_schedule_victim(const tr_schedule_item *items, size_t n)
{
    size_t worst = TR_SCHEDULE_NONE;

    for (size_t i = 0; i < n; i++)
        if (items[i].is_running &&
            (worst == TR_SCHEDULE_NONE || goes_before(&items[worst], &items[i])))
            worst = i;
    return worst;
}

void tr_chunk_update(tr_chunk *c, size_t n_writing, size_t n_reading, tr_time elapsed)
{
    double seconds = (double)elapsed / (double)TR_SECOND;

    if (n_writing == 0)
        return;
    if (n_reading == 0) {
        c->alone = c->alone == 0.0 ? seconds : 0.8 * c->alone + 0.2 * seconds;
        return;
    }
    if (c->alone == 0.0)
        return;
    if (seconds > 1.6 * c->alone)
        c->rows -= c->rows / 4;
    else if (seconds < 1.4 * c->alone && n_reading >= c->rows)
        c->rows += c->rows / 8 + 1;
    c->rows = c->rows < c->least ? c->least : least(c->rows, c->most);
}
