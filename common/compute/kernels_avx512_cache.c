/* kernels_avx512_cache.c - queries against rows of a cache, by AVX-512.
 *
 * Rows are turned into floats in registers.  A tile is sixteen sums: few queries by many keys, or
 * by many vectors of values, so that what is loaded serves several of them.  Each sum has the
 * order of plain C, whatever the tile.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_avx512_lanes.h"
#include "compute/kernels_table.h"

enum { TILE = 16 /* sums */, MOST_QUERIES = 4 };

/* Rows of a cache from the first on. */
typedef struct {
    tr_type type; /* a constant where this is inlined */
    const uint8_t *row;
    size_t row_size;
} rows;

/* Elements at..at+15 of row k; only those of the lanes are read, the others are +0. */
TR_INLINE __m512 values_at(rows r, size_t k, size_t at, __mmask16 lanes)
{
    const uint8_t *row = r.row + k * r.row_size;

    if (r.type == TR_TYPE_F32)
        return _mm512_maskz_loadu_ps(lanes, row + 4 * at);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, row + 2 * at));
}

/* ---- scores ---------------------------------------------------------------------------- */

/* The same tree for sixteen sums at once: each step halves the vectors, and keeps what is left
 * of a sum next to its neighbours'. */
TR_INLINE __m512 sums_of_16(const __m512 *s)
{
    /* where the steps leave the sum of each vector */
    const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    __m512 a[8], b[4], c[2];

    for (size_t i = 0; i < 8; i++) /* lanes j + lanes j + 8; vectors i, i + 8 */
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(s[i], s[i + 8], 0x44),
                             _mm512_shuffle_f32x4(s[i], s[i + 8], 0xee));
    for (size_t i = 0; i < 4; i++) /* 4 apart; vectors i, i + 8, i + 4, i + 12 */
        b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88),
                             _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
    for (size_t i = 0; i < 2; i++) { /* 2 apart; each quarter has two vectors */
        __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2]));
        __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2]));
        c[i] = _mm512_add_ps(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi));
    }
    __m512 even = _mm512_shuffle_ps(c[0], c[1], 0x88);
    __m512 odd = _mm512_shuffle_ps(c[0], c[1], 0xdd);
    return _mm512_permutexvar_ps(order, _mm512_add_ps(even, odd));
}

/* s[i * n_keys + k] += the products of query i and key k in some lanes. */
TR_INLINE void score_lanes(const float *const *q, size_t n_queries, rows keys, size_t n_keys,
                           size_t at, __mmask16 lanes, __m512 *s)
{
    __m512 x[MOST_QUERIES];

    for (size_t i = 0; i < n_queries; i++)
        x[i] = _mm512_maskz_loadu_ps(lanes, q[i] + at);
    for (size_t k = 0; k < n_keys; k++) {
        __m512 key = values_at(keys, k, at, lanes);
        for (size_t i = 0; i < n_queries; i++)
            s[i * n_keys + k] = _mm512_add_ps(s[i * n_keys + k], _mm512_mul_ps(x[i], key));
    }
}

/* The partial sums of n_queries by n_keys dot products, both constants.  Four keys at once, no
 * more: memory likes few streams. */
TR_INLINE void score_tile(const float *const *q, size_t n_queries, rows keys, size_t n_keys,
                          size_t dim, __m512 *s)
{
    const size_t at_once = n_keys < 4 ? n_keys : 4;

    for (size_t k = 0; k < n_keys; k += at_once, keys.row += at_once * keys.row_size) {
        __m512 t[TILE];
        size_t at = 0;
        for (size_t i = 0; i < n_queries * at_once; i++)
            t[i] = _mm512_setzero_ps();
        for (; at + LANES <= dim; at += LANES)
            score_lanes(q, n_queries, keys, at_once, at, 0xffff, t);
        if (at < dim) /* the other lanes get +0, which changes no sum that began at +0 */
            score_lanes(q, n_queries, keys, at_once, at, first_lanes(dim - at), t);
        for (size_t i = 0; i < n_queries; i++)
            for (size_t l = 0; l < at_once; l++)
                s[i * n_keys + k + l] = t[i * at_once + l];
    }
}

TR_INLINE void store_sums(__m512 sums, size_t n_queries, size_t k, float *const *out)
{
    if (n_queries == 1) {
        _mm512_storeu_ps(out[0] + k, sums);
    } else if (n_queries == 2) {
        _mm256_storeu_ps(out[0] + k, _mm512_castps512_ps256(sums));
        _mm256_storeu_ps(out[1] + k, _mm512_extractf32x8_ps(sums, 1));
    } else {
        _mm_storeu_ps(out[0] + k, _mm512_castps512_ps128(sums));
        _mm_storeu_ps(out[1] + k, _mm512_extractf32x4_ps(sums, 1));
        _mm_storeu_ps(out[2] + k, _mm512_extractf32x4_ps(sums, 2));
        _mm_storeu_ps(out[3] + k, _mm512_extractf32x4_ps(sums, 3));
    }
}

/* 1, 2 or 4 queries, a constant. */
TR_INLINE void scores_of(const float *const *q, size_t n_queries, rows keys, size_t n, size_t dim,
                         float *const *out)
{
    const size_t n_keys = TILE / n_queries;
    __m512 s[TILE];
    size_t k = 0;

    for (; k + n_keys <= n; k += n_keys, keys.row += n_keys * keys.row_size) {
        score_tile(q, n_queries, keys, n_keys, dim, s);
        store_sums(sums_of_16(s), n_queries, k, out);
    }
    for (; k < n; k++, keys.row += keys.row_size) {
        score_tile(q, n_queries, keys, 1, dim, s);
        for (size_t i = 0; i < n_queries; i++)
            out[i][k] = lanes_sum(s[i]);
    }
}

/* ---- sums of values ---------------------------------------------------------------------- */

/* n_vectors vectors of n_queries sums from `at` on, both constants; the last vector may be partly
 * masked. */
TR_INLINE void mix_tile(const float *const *w, size_t n_queries, rows values, size_t n, size_t at,
                        size_t n_vectors, __mmask16 last, float *const *out)
{
    __m512 s[TILE];

    for (size_t i = 0; i < n_queries; i++)
        for (size_t j = 0; j < n_vectors; j++)
            s[i * n_vectors + j] =
                _mm512_maskz_loadu_ps(j + 1 < n_vectors ? 0xffff : last, out[i] + at + j * LANES);
    for (size_t k = 0; k < n; k++) {
        __m512 a[MOST_QUERIES];
        for (size_t i = 0; i < n_queries; i++)
            a[i] = _mm512_set1_ps(w[i][k]);
        for (size_t j = 0; j < n_vectors; j++) {
            __m512 v = values_at(values, k, at + j * LANES, j + 1 < n_vectors ? 0xffff : last);
            for (size_t i = 0; i < n_queries; i++)
                s[i * n_vectors + j] = _mm512_add_ps(s[i * n_vectors + j], _mm512_mul_ps(a[i], v));
        }
    }
    for (size_t i = 0; i < n_queries; i++)
        for (size_t j = 0; j < n_vectors; j++)
            _mm512_mask_storeu_ps(out[i] + at + j * LANES, j + 1 < n_vectors ? 0xffff : last,
                                  s[i * n_vectors + j]);
}

/* 1, 2 or 4 queries, a constant. */
TR_INLINE void mix_of(const float *const *w, size_t n_queries, rows values, size_t n, size_t dim,
                      float *const *out)
{
    const size_t wide = n_queries < MOST_QUERIES ? 8 : TILE / MOST_QUERIES;
    size_t at = 0;

    for (; at + wide * LANES <= dim; at += wide * LANES)
        mix_tile(w, n_queries, values, n, at, wide, 0xffff, out);
    for (; at + 4 * LANES <= dim; at += 4 * LANES)
        mix_tile(w, n_queries, values, n, at, 4, 0xffff, out);
    for (; at + LANES <= dim; at += LANES)
        mix_tile(w, n_queries, values, n, at, 1, 0xffff, out);
    if (at < dim)
        mix_tile(w, n_queries, values, n, at, 1, first_lanes(dim - at), out);
}

#include "compute/kernels_cache_entries.h"

void tr_kernels_avx512_cache(tr_kernels *k)
{
    install_entries(k);
}
