/* kernels_neon_lanes.h - the sixteen partial sums of plain C in four registers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_NEON_LANES_H
#define TR_COMPUTE_KERNELS_NEON_LANES_H

#include "compute/kernels_table.h"

#include <arm_neon.h>

enum { LANES = 16, QUADS = LANES / 4 }; /* as in kernels_c.c */

typedef struct {
    float32x4_t quad[QUADS]; /* lanes 0..3, 4..7, 8..11, 12..15 */
} lanes;

TR_INLINE lanes lanes_zero(void)
{
    const float32x4_t zero = vdupq_n_f32(0.0f);

    return (lanes){ { zero, zero, zero, zero } };
}

TR_INLINE lanes lanes_step(lanes s, const float *a, const float *b)
{
    for (size_t i = 0; i < QUADS; i++)
        s.quad[i] = vaddq_f32(s.quad[i], vmulq_f32(vld1q_f32(a + 4 * i), vld1q_f32(b + 4 * i)));
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

/* Lane i plus lane i + 8, then 4, 2, 1. */
TR_INLINE float lanes_sum(lanes s)
{
    float32x4_t t4 = vaddq_f32(vaddq_f32(s.quad[0], s.quad[2]), vaddq_f32(s.quad[1], s.quad[3]));

    return vpadds_f32(vadd_f32(vget_low_f32(t4), vget_high_f32(t4)));
}

#endif
