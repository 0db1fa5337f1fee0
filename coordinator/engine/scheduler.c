/* scheduler.c - writers first, then readers in order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/scheduler.h"

#include <string.h>

/* A step should not become too small to tell something of the next. */
enum { LEAST_CHUNK = 4 };

bool tr_schedule_goes_before(const tr_schedule_item *a, const tr_schedule_item *b)
{
    return a->due != b->due ? a->due < b->due : a->ticket < b->ticket;
}

static bool is_writing(const tr_schedule_item *i)
{
    return i->is_running && i->known == i->computed + 1;
}

static bool is_reading(const tr_schedule_item *i)
{
    return i->is_running && !i->is_held && i->known > i->computed + 1;
}

static size_t to_read(const tr_schedule_item *i)
{
    return i->known - i->computed;
}

/* The first in order that reads and has not all its rows yet. */
static size_t next_reader(const tr_schedule_item *items, size_t n, const size_t *rows)
{
    size_t best = TR_SCHEDULE_NONE;

    for (size_t i = 0; i < n; i++)
        if (is_reading(&items[i]) && rows[i] < to_read(&items[i]) &&
            (best == TR_SCHEDULE_NONE || tr_schedule_goes_before(&items[i], &items[best])))
            best = i;
    return best;
}

/* Who has least to read, the first in order of these. */
static size_t shortest_reader(const tr_schedule_item *items, size_t n)
{
    size_t best = TR_SCHEDULE_NONE;

    for (size_t i = 0; i < n; i++) {
        if (!is_reading(&items[i]))
            continue;
        if (best == TR_SCHEDULE_NONE || to_read(&items[i]) < to_read(&items[best]) ||
            (to_read(&items[i]) == to_read(&items[best]) &&
             tr_schedule_goes_before(&items[i], &items[best])))
            best = i;
    }
    return best;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t tr_schedule_chunk(const tr_schedule_item *items, size_t n, const tr_step_time *times,
                         size_t max_rows)
{
    size_t writers = 0, readers = 0;

    for (size_t i = 0; i < n; i++) {
        writers += is_writing(&items[i]);
        readers += items[i].is_running && !is_writing(&items[i]); /* those held wait no less */
    }
    if (writers == 0)
        return max_rows;
    if (tr_step_time_asks(times, writers))
        return 0;
    double alone = tr_step_time_expect(times, writers);
    double more = 0.5 * (double)writers > (double)readers ? 0.5 : (double)readers / (double)writers;
    size_t rows = tr_step_time_rows(times, writers, alone * (1.0 + more));
    size_t chunk = rows - writers > LEAST_CHUNK ? rows - writers : LEAST_CHUNK;
    return least(chunk, max_rows);
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
    size_t i = shortest_reader(items, n);
    size_t most = (left + 1) / 2;
    while (i != TR_SCHEDULE_NONE && left > 0 && logits > 0) {
        size_t wanted = to_read(&items[i]) - rows[i];
        size_t given = least(wanted, most);
        rows[i] += given;
        left -= given;
        logits -= given == wanted;
        i = next_reader(items, n, rows);
        most = left;
    }
}

size_t tr_schedule_next(const tr_schedule_item *items, size_t n)
{
    size_t best = TR_SCHEDULE_NONE;

    for (size_t i = 0; i < n; i++)
        if (!items[i].is_running &&
            (best == TR_SCHEDULE_NONE || tr_schedule_goes_before(&items[i], &items[best])))
            best = i;
    return best;
}

size_t tr_schedule_victim(const tr_schedule_item *items, size_t n)
{
    size_t worst = TR_SCHEDULE_NONE;

    for (size_t i = 0; i < n; i++)
        if (items[i].is_running &&
            (worst == TR_SCHEDULE_NONE || tr_schedule_goes_before(&items[worst], &items[i])))
            worst = i;
    return worst;
}
