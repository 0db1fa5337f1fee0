/* stop.c - one Knuth-Morris-Pratt matcher per stop string.
 *
 * A matcher's state is the length of the longest beginning of its string that the stream
 * ends with, so the largest state is exactly what has to be held back.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/stop.h"
#include "coordinator/text/utf8.h"

#include <stdlib.h>

typedef struct {
    uint8_t text[TR_STOP_MAX_LENGTH];
    uint16_t border[TR_STOP_MAX_LENGTH]; /* of text[0..i]: its longest proper prefix = suffix */
    size_t size, state;
} matcher;

struct tr_stop {
    matcher *matchers; /* n */
    size_t n;
    uint8_t *buffer;              /* held back bytes at the front, then the piece */
    size_t capacity, shown, size; /* buffer[0..shown) went out with the last feed */
    bool found;
};

/* The state after byte c. */
static size_t advance(const matcher *m, size_t state, uint8_t c)
{
    if (state == m->size)
        state = m->border[state - 1];
    while (state > 0 && m->text[state] != c)
        state = m->border[state - 1];
    return m->text[state] == c ? state + 1 : 0;
}

static tr_status matcher_init(matcher *m, tr_bytes string)
{
    size_t bad;

    if (string.size == 0)
        return tr_fail(TR_E_USAGE, "a stop string is empty");
    if (string.size > TR_STOP_MAX_LENGTH)
        return tr_fail(TR_E_USAGE, "a stop string of %zu bytes is longer than %d", string.size,
                       TR_STOP_MAX_LENGTH);
    if (!tr_utf8_valid(string, &bad))
        return tr_fail(TR_E_USAGE, "a stop string is not valid UTF-8 at byte %zu", bad);
    memcpy(m->text, string.data, string.size);
    m->size = string.size;
    for (size_t i = 1; i < m->size; i++)
        m->border[i] = (uint16_t)advance(m, m->border[i - 1], m->text[i]);
    return TR_OK;
}

tr_status tr_stop_new(const tr_bytes *strings, size_t n, tr_stop **out)
{
    if (n > TR_STOP_MAX_STRINGS)
        return tr_fail(TR_E_USAGE, "%zu stop strings are more than %d", n, TR_STOP_MAX_STRINGS);

    tr_stop *s = calloc(1, sizeof *s);
    if (!s)
        return tr_fail(TR_E_MEMORY, "stop strings: no memory");
    tr_status st = TR_OK;
    if (n > 0) {
        s->matchers = calloc(n, sizeof *s->matchers);
        if (!s->matchers)
            st = tr_fail(TR_E_MEMORY, "stop strings: no memory");
    }
    for (; st == TR_OK && s->n < n; s->n++)
        st = matcher_init(&s->matchers[s->n], strings[s->n]);
    if (st != TR_OK) {
        tr_stop_free(&s);
        return st;
    }
    *out = s;
    return TR_OK;
}

void tr_stop_free(tr_stop **s)
{
    if (!*s)
        return;
    free((*s)->matchers);
    free((*s)->buffer);
    free(*s);
    *s = NULL;
}

static tr_status reserve(tr_stop *s, size_t more)
{
    size_t need;

    if (!tr_add_size(s->size, more, &need) || need > SIZE_MAX / 2)
        return tr_fail(TR_E_MEMORY, "stop strings: no memory for %zu bytes of text", more);
    if (need <= s->capacity)
        return TR_OK;
    uint8_t *grown = realloc(s->buffer, 2 * need);
    if (!grown)
        return tr_fail(TR_E_MEMORY, "stop strings: no memory for %zu bytes of text", more);
    s->buffer = grown;
    s->capacity = 2 * need;
    return TR_OK;
}

/* Feed one byte to every matcher: how many bytes at the end belong to a (possible) stop string. */
static size_t held_after(tr_stop *s, uint8_t c)
{
    size_t held = 0, matched = 0;

    for (size_t i = 0; i < s->n; i++) {
        matcher *m = &s->matchers[i];
        m->state = advance(m, m->state, c);
        if (m->state > held)
            held = m->state;
        if (m->state == m->size && m->size > matched)
            matched = m->size;
    }
    s->found = matched > 0;
    return s->found ? matched : held;
}

tr_status tr_stop_feed(tr_stop *s, tr_bytes piece, tr_bytes *text)
{
    if (s->found) {
        *text = (tr_bytes){ NULL, 0 };
        return TR_OK;
    }
    if (s->shown > 0) {
        memmove(s->buffer, s->buffer + s->shown, s->size - s->shown);
        s->size -= s->shown;
        s->shown = 0;
    }
    tr_status st = reserve(s, piece.size);
    if (st != TR_OK)
        return st;

    size_t held = s->size;
    for (size_t i = 0; i < piece.size && !s->found; i++) {
        s->buffer[s->size++] = piece.data[i];
        held = held_after(s, piece.data[i]);
    }
    s->shown = s->size - held;
    if (s->found)
        s->size = s->shown;
    *text = (tr_bytes){ s->buffer, s->shown };
    return TR_OK;
}

bool tr_stop_found(const tr_stop *s)
{
    return s->found;
}

tr_bytes tr_stop_flush(tr_stop *s)
{
    tr_bytes text = { NULL, 0 };

    if (s->size > s->shown)
        text = (tr_bytes){ s->buffer + s->shown, s->size - s->shown };
    s->shown = s->size;
    for (size_t i = 0; i < s->n; i++)
        s->matchers[i].state = 0;
    return text;
}
