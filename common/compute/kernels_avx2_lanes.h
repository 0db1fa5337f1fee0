/* kernels_avx2_lanes.h - the sixteen partial sums of plain C in two registers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_AVX2_LANES_H
#define TR_COMPUTE_KERNELS_AVX2_LANES_H

#include "compute/kernels_table.h"

#include <immintrin.h>

enum { LANES = 16 }; /* as in kernels_c.c */

typedef struct {
    __m256 lo, hi; /* lanes 0..7 and 8..15 */
} lanes;

TR_INLINE lanes lanes_zero(void)
{
    return (lanes){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

TR_INLINE lanes lanes_step(lanes s, const float *a, const float *b)
{
    s.lo = _mm256_add_ps(s.lo, _mm256_mul_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b)));
    s.hi = _mm256_add_ps(s.hi, _mm256_mul_ps(_mm256_loadu_ps(a + 8), _mm256_loadu_ps(b + 8)));
    return s;
}

/* The last n < LANES products.  The other lanes get +0, which changes no sum: a lane begins
 * at +0 and so is never -0. */
static inline lanes lanes_rest(lanes s, const float *a, const float *b, size_t n)
{
    float x[LANES] = { 0 };
    float y[LANES] = { 0 };

    memcpy(x, a, n * sizeof *x);
    memcpy(y, b, n * sizeof *y);
    return lanes_step(s, x, y);
}

TR_INLINE lanes lanes_add(lanes s, const float *a, const float *b, size_t n)
{
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        s = lanes_step(s, a + i, b + i);
    return i < n ? lanes_rest(s, a + i, b + i, n - i) : s;
}

TR_INLINE float lanes_sum(lanes s)
{
    __m256 t8 = _mm256_add_ps(s.lo, s.hi);
    __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
    return _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)));
}

#endif
