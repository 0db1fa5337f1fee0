/* bytes.h - views of memory, and arithmetic on sizes that come from outside.
 *
 * A tr_bytes never owns what it points to.  Sizes from a file or a peer are multiplied
 * and added only through tr_mul_size and tr_add_size.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_BYTES_H
#define TR_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *data;
    size_t size;
} tr_bytes;

/* False on overflow; *out is then untouched. */
static inline bool tr_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;

    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool tr_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;

    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* The smallest multiple of align (a power of two) that is >= n.  n must be below SIZE_MAX - align.
 */
static inline size_t tr_align_up(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

static inline bool tr_bytes_equal(tr_bytes a, tr_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline tr_bytes tr_bytes_of(const char *text)
{
    return (tr_bytes){ (const uint8_t *)text, strlen(text) };
}

#endif
