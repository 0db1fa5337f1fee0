/* kernels_neon_cache.c - queries against rows of a cache, by NEON.
 *
 * Rows are turned into floats in registers.  A tile is four dot products, or 16 vectors of sums
 * of values, of one query or of two that share what is loaded.  Each sum has the order of plain C,
 * whatever the tile.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_neon_lanes.h"
#include "compute/kernels_table.h"

#include "compute/quant.h"

enum {
    TILE = 4,  /* dot products */
    WIDTH = 4, /* floats of a vector */
    HELD = 16, /* vectors of sums of values */
    MOST_QUERIES = 2,
};

/* Rows of a cache from the first on. */
typedef struct {
    tr_type type; /* a constant where this is inlined */
    const uint8_t *row;
    size_t row_size;
} rows;

/* Elements at..at+3 of row k. */
TR_INLINE float32x4_t values_at(rows r, size_t k, size_t at)
{
    const uint8_t *row = r.row + k * r.row_size;

    if (r.type == TR_TYPE_F32)
        return vld1q_f32((const float *)(const void *)row + at);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(const void *)row + at)));
}

TR_INLINE float value_at(rows r, size_t k, size_t at)
{
    const uint8_t *row = r.row + k * r.row_size;

    if (r.type == TR_TYPE_F32)
        return ((const float *)(const void *)row)[at];
    return tr_f16_to_f32(((const uint16_t *)(const void *)row)[at]);
}

/* ---- scores ---------------------------------------------------------------------------- */

/* s[i * n_keys + k] += the products of query i and key k in all lanes. */
TR_INLINE void score_lanes(const float *const *q, size_t n_queries, rows keys, size_t n_keys,
                           size_t at, lanes *s)
{
    for (size_t j = 0; j < QUADS; j++) {
        for (size_t k = 0; k < n_keys; k++) {
            float32x4_t key = values_at(keys, k, at + j * WIDTH);
            for (size_t i = 0; i < n_queries; i++) {
                float32x4_t *sum = &s[i * n_keys + k].quad[j];
                *sum = vaddq_f32(*sum, vmulq_f32(vld1q_f32(q[i] + at + j * WIDTH), key));
            }
        }
    }
}

/* ---- sums of values ---------------------------------------------------------------------- */

/* n_vectors vectors of n_queries sums from `at` on, both constants. */
TR_INLINE void mix_tile(const float *const *w, size_t n_queries, rows values, size_t n, size_t at,
                        size_t n_vectors, float *const *out)
{
    float32x4_t s[HELD];

    for (size_t i = 0; i < n_queries; i++)
        for (size_t j = 0; j < n_vectors; j++)
            s[i * n_vectors + j] = vld1q_f32(out[i] + at + j * WIDTH);
    for (size_t k = 0; k < n; k++) {
        for (size_t j = 0; j < n_vectors; j++) {
            float32x4_t v = values_at(values, k, at + j * WIDTH);
            for (size_t i = 0; i < n_queries; i++)
                s[i * n_vectors + j] = vaddq_f32(s[i * n_vectors + j], vmulq_n_f32(v, w[i][k]));
        }
    }
    for (size_t i = 0; i < n_queries; i++)
        for (size_t j = 0; j < n_vectors; j++)
            vst1q_f32(out[i] + at + j * WIDTH, s[i * n_vectors + j]);
}

#include "compute/kernels_cache_pairs.h"
#include "compute/kernels_cache_entries.h"

void tr_kernels_neon_cache(tr_kernels *k)
{
    install_entries(k);
}
