/* cursor.h - read little-endian values from bytes that nobody has checked yet.
 *
 * USE     tr_cursor c = tr_cursor_over(bytes);
 *         uint32_t version = tr_cursor_u32(&c);
 *         uint64_t n = tr_cursor_u64(&c);
 *         if (!tr_cursor_ok(&c))
 *             return tr_fail(TR_E_FORMAT, "... ends after %zu bytes", c.pos);
 *
 * The error is sticky: after the first read past the end every read gives zero and
 * the position stays, so a parser reads on and checks once.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_CURSOR_H
#define TR_BASE_CURSOR_H

#include "base/bytes.h"

typedef struct {
    tr_bytes bytes;
    size_t pos;
    bool failed;
} tr_cursor;

static inline tr_cursor tr_cursor_over(tr_bytes bytes)
{
    return (tr_cursor){ bytes, 0, false };
}

static inline bool tr_cursor_ok(const tr_cursor *c)
{
    return !c->failed;
}

static inline size_t tr_cursor_left(const tr_cursor *c)
{
    return c->bytes.size - c->pos;
}

/* A view of the next n bytes; empty after a failure. */
static inline tr_bytes tr_cursor_take(tr_cursor *c, uint64_t n)
{
    if (c->failed || n > tr_cursor_left(c)) {
        c->failed = true;
        return (tr_bytes){ NULL, 0 };
    }
    tr_bytes out = { c->bytes.data + c->pos, (size_t)n };
    c->pos += (size_t)n;
    return out;
}

/* The byte order of every format here is little-endian, and so is every supported machine
 * (the build refuses others in base/cursor.c). */
#define TR_CURSOR_READER(name, type)                                                               \
    static inline type tr_cursor_##name(tr_cursor *c)                                              \
    {                                                                                              \
        type v = 0;                                                                                \
        tr_bytes b = tr_cursor_take(c, sizeof v);                                                  \
        if (b.size == sizeof v)                                                                    \
            memcpy(&v, b.data, sizeof v);                                                          \
        return v;                                                                                  \
    }

TR_CURSOR_READER(u8, uint8_t)
TR_CURSOR_READER(u16, uint16_t)
TR_CURSOR_READER(u32, uint32_t)
TR_CURSOR_READER(u64, uint64_t)
TR_CURSOR_READER(f32, float)
TR_CURSOR_READER(f64, double)

#undef TR_CURSOR_READER

#endif
