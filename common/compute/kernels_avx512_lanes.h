/* kernels_avx512_lanes.h - the sixteen partial sums of plain C in one register.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_AVX512_LANES_H
#define TR_COMPUTE_KERNELS_AVX512_LANES_H

#include "compute/kernels_table.h"

#include <immintrin.h>

enum { LANES = 16 };

/* The first n lanes, n <= LANES. */
TR_INLINE __mmask16 first_lanes(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

/* The fixed tree: lane i plus lane i + 8, then 4, 2, 1. */
TR_INLINE float lanes_sum(__m512 s)
{
    __m256 t8 = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));

    return _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)));
}

#endif
