/* kernels_cache_entries.h - a table's entries for rows of a cache.  Its file has, for 1, 2 and
 * MOST_QUERIES (2 or 4) queries at once,
 *
 *         scores_of(q, n_queries, keys, n, dim, out)
 *         mix_of(w, n_queries, values, n, dim, out)
 *
 * with n_queries a constant where they are inlined.  That file includes this one at its end, and
 * calls install_entries.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_CACHE_ENTRIES_H
#define TR_COMPUTE_KERNELS_CACHE_ENTRIES_H

#include "compute/kernels_table.h"

TR_INLINE rows rows_of(tr_type type, const void *first, size_t dim)
{
    return (rows){ type, first, tr_cache_row_size(type, dim) };
}

TR_INLINE void dots_any(const float *const *q, size_t n_queries, rows keys, size_t n, size_t dim,
                        float *const *out)
{
    size_t i = 0;

    for (; i + MOST_QUERIES <= n_queries; i += MOST_QUERIES)
        scores_of(q + i, MOST_QUERIES, keys, n, dim, out + i);
    for (; i + 2 <= n_queries; i += 2)
        scores_of(q + i, 2, keys, n, dim, out + i);
    if (i < n_queries)
        scores_of(q + i, 1, keys, n, dim, out + i);
}

TR_INLINE void mix_any(const float *const *w, size_t n_queries, rows values, size_t n, size_t dim,
                       float *const *out)
{
    size_t i = 0;

    for (; i + MOST_QUERIES <= n_queries; i += MOST_QUERIES)
        mix_of(w + i, MOST_QUERIES, values, n, dim, out + i);
    for (; i + 2 <= n_queries; i += 2)
        mix_of(w + i, 2, values, n, dim, out + i);
    if (i < n_queries)
        mix_of(w + i, 1, values, n, dim, out + i);
}

#define CACHE(name, type)                                                                          \
    static void dots_##name(const float *const *q, size_t n_queries, const void *keys, size_t n,   \
                            size_t dim, float *const *out)                                         \
    {                                                                                              \
        dots_any(q, n_queries, rows_of(type, keys, dim), n, dim, out);                             \
    }                                                                                              \
    static void mix_##name(const float *const *w, size_t n_queries, const void *values, size_t n,  \
                           size_t dim, float *const *out)                                          \
    {                                                                                              \
        mix_any(w, n_queries, rows_of(type, values, dim), n, dim, out);                            \
    }
TR_CACHE_TYPES(CACHE)
#undef CACHE

static void install_entries(tr_kernels *k)
{
#define INSTALL(name, type)                                                                        \
    k->dots[type] = dots_##name;                                                                   \
    k->mix[type] = mix_##name;
    TR_CACHE_TYPES(INSTALL)
#undef INSTALL
}

#endif
