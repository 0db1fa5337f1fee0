/* kernels_avx2_cache.c - queries against rows of a cache, by AVX2.
 *
 * Rows are turned into floats in registers.  A tile is four dot products, or 8 vectors of sums
 * of values, of one query or of two that share what is loaded.  Each sum has the order of plain C,
 * whatever the tile.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_avx2_lanes.h"
#include "compute/kernels_table.h"

enum {
    TILE = 4,  /* dot products */
    WIDTH = 8, /* floats of a vector */
    HELD = 8,  /* vectors of sums of values */
    MOST_QUERIES = 2,
};

/* Rows of a cache from the first on. */
typedef struct {
    tr_type type; /* a constant where this is inlined */
    const uint8_t *row;
    size_t row_size;
} rows;

/* Elements at..at+7 of row k. */
TR_INLINE __m256 values_at(rows r, size_t k, size_t at)
{
    const uint8_t *row = r.row + k * r.row_size;

    if (r.type == TR_TYPE_F32)
        return _mm256_loadu_ps((const float *)(const void *)row + at);
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(row + 2 * at)));
}

TR_INLINE float value_at(rows r, size_t k, size_t at)
{
    const uint8_t *row = r.row + k * r.row_size;

    if (r.type == TR_TYPE_F32)
        return ((const float *)(const void *)row)[at];
    return _cvtsh_ss(((const uint16_t *)(const void *)row)[at]);
}

/* ---- scores ---------------------------------------------------------------------------- */

/* s[i * n_keys + k] += the products of query i and key k in all lanes. */
TR_INLINE void score_lanes(const float *const *q, size_t n_queries, rows keys, size_t n_keys,
                           size_t at, lanes *s)
{
    for (size_t k = 0; k < n_keys; k++) {
        __m256 lo = values_at(keys, k, at);
        __m256 hi = values_at(keys, k, at + WIDTH);
        for (size_t i = 0; i < n_queries; i++) {
            lanes *sum = &s[i * n_keys + k];
            sum->lo = _mm256_add_ps(sum->lo, _mm256_mul_ps(_mm256_loadu_ps(q[i] + at), lo));
            sum->hi = _mm256_add_ps(sum->hi, _mm256_mul_ps(_mm256_loadu_ps(q[i] + at + WIDTH), hi));
        }
    }
}

/* ---- sums of values ---------------------------------------------------------------------- */

/* n_vectors vectors of n_queries sums from `at` on, both constants. */
TR_INLINE void mix_tile(const float *const *w, size_t n_queries, rows values, size_t n, size_t at,
                        size_t n_vectors, float *const *out)
{
    __m256 s[HELD];

    for (size_t i = 0; i < n_queries; i++)
        for (size_t j = 0; j < n_vectors; j++)
            s[i * n_vectors + j] = _mm256_loadu_ps(out[i] + at + j * WIDTH);
    for (size_t k = 0; k < n; k++) {
        for (size_t j = 0; j < n_vectors; j++) {
            __m256 v = values_at(values, k, at + j * WIDTH);
            for (size_t i = 0; i < n_queries; i++)
                s[i * n_vectors + j] =
                    _mm256_add_ps(s[i * n_vectors + j], _mm256_mul_ps(_mm256_set1_ps(w[i][k]), v));
        }
    }
    for (size_t i = 0; i < n_queries; i++)
        for (size_t j = 0; j < n_vectors; j++)
            _mm256_storeu_ps(out[i] + at + j * WIDTH, s[i * n_vectors + j]);
}

#include "compute/kernels_cache_pairs.h"
#include "compute/kernels_cache_entries.h"

void tr_kernels_avx2_cache(tr_kernels *k)
{
    install_entries(k);
}
