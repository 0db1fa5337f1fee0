/* kernels_cache_pairs.h - scores_of and mix_of for one query or two, of a table whose file has
 *
 *         values_at, value_at                      some elements of a row, or one
 *         lanes_zero, score_lanes, lanes_sum       the sums of a dot product
 *         mix_tile                                 some vectors of sums of values
 *
 * and the sizes TILE, WIDTH and HELD.  That file includes this one behind them, and before
 * kernels_cache_entries.h.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_CACHE_PAIRS_H
#define TR_COMPUTE_KERNELS_CACHE_PAIRS_H

#include "compute/kernels_table.h"

#include <string.h>

/* The last n < LANES products: as the others, behind zeros. */
TR_INLINE void score_rest(const float *const *q, size_t n_queries, rows keys, size_t n_keys,
                          size_t at, size_t n, lanes *s)
{
    float x[MOST_QUERIES][LANES] = { { 0 } };
    float y[TILE][LANES] = { { 0 } };
    const float *rest[MOST_QUERIES] = { x[0], x[1] };

    for (size_t i = 0; i < n_queries; i++)
        memcpy(x[i], q[i] + at, n * sizeof *q[i]);
    for (size_t k = 0; k < n_keys; k++)
        for (size_t j = 0; j < n; j++)
            y[k][j] = value_at(keys, k, at + j);
    score_lanes(rest, n_queries, (rows){ TR_TYPE_F32, (const void *)y, sizeof *y }, n_keys, 0, s);
}

/* The partial sums of n_queries by n_keys dot products, both constants. */
TR_INLINE void score_tile(const float *const *q, size_t n_queries, rows keys, size_t n_keys,
                          size_t dim, lanes *s)
{
    size_t at = 0;

    for (size_t i = 0; i < n_queries * n_keys; i++)
        s[i] = lanes_zero();
    for (; at + LANES <= dim; at += LANES)
        score_lanes(q, n_queries, keys, n_keys, at, s);
    if (at < dim)
        score_rest(q, n_queries, keys, n_keys, at, dim - at, s);
}

/* 1 or 2 queries, a constant. */
TR_INLINE void scores_of(const float *const *q, size_t n_queries, rows keys, size_t n, size_t dim,
                         float *const *out)
{
    const size_t n_keys = TILE / n_queries;
    lanes s[TILE];
    size_t k = 0;

    for (; k + n_keys <= n; k += n_keys, keys.row += n_keys * keys.row_size) {
        score_tile(q, n_queries, keys, n_keys, dim, s);
        for (size_t i = 0; i < TILE; i++)
            out[i / n_keys][k + i % n_keys] = lanes_sum(s[i]);
    }
    for (; k < n; k++, keys.row += keys.row_size) {
        score_tile(q, n_queries, keys, 1, dim, s);
        for (size_t i = 0; i < n_queries; i++)
            out[i][k] = lanes_sum(s[i]);
    }
}

/* 1 or 2 queries, a constant. */
TR_INLINE void mix_of(const float *const *w, size_t n_queries, rows values, size_t n, size_t dim,
                      float *const *out)
{
    const size_t wide = HELD / n_queries;
    size_t at = 0;

    for (; at + wide * WIDTH <= dim; at += wide * WIDTH)
        mix_tile(w, n_queries, values, n, at, wide, out);
    for (; at + 4 * WIDTH <= dim; at += 4 * WIDTH)
        mix_tile(w, n_queries, values, n, at, 4, out);
    for (; at + WIDTH <= dim; at += WIDTH)
        mix_tile(w, n_queries, values, n, at, 1, out);
    for (; at < dim; at++)
        for (size_t i = 0; i < n_queries; i++)
            for (size_t k = 0; k < n; k++)
                out[i][at] += w[i][k] * value_at(values, k, at);
}

#endif
