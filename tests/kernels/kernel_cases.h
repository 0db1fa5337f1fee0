/* kernel_cases.h - random numbers, tables of this machine and weights for tests of kernels.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_KERNELS_KERNEL_CASES_H
#define TR_TESTS_KERNELS_KERNEL_CASES_H

#include "base/rng.h"
#include "compute/cpu.h"
#include "compute/kernels.h"
#include "compute/quant.h"
#include "tests/support/tr_test.h"

#include <math.h>

typedef struct {
    uint64_t seed, at;
} dice;

static inline uint64_t dice_u64(dice *d)
{
    return tr_rng_u64(d->seed, 0, d->at++);
}

/* 0..n-1 */
static inline size_t dice_below(dice *d, size_t n)
{
    return (size_t)(dice_u64(d) % n);
}

/* -1..1 */
static inline float dice_float(dice *d)
{
    return (float)(2.0 * tr_rng_unit(dice_u64(d)) - 1.0);
}

static inline void dice_floats(dice *d, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = dice_float(d);
}

/* Any finite float: every exponent, subnormals and zeros of both signs. */
static inline float dice_any_float(dice *d)
{
    for (;;) {
        uint32_t bits = (uint32_t)dice_u64(d);
        float f;
        memcpy(&f, &bits, sizeof f);
        if (isfinite(f))
            return f;
    }
}

/* Table number i that this machine can run; NULL past the last one.  The first is "c". */
static inline const tr_kernels *table_at(size_t i)
{
    const char *const *names = tr_kernels_names();

    for (size_t n = 0; names[n]; n++) {
        const tr_kernels *k = tr_kernels_select(tr_cpu_features(), names[n]);
        if (k && i-- == 0)
            return k;
    }
    return NULL;
}

/* 64-byte aligned, zeroed; freed with free. */
static inline void *aligned_new(size_t size)
{
    size_t padded = tr_align_up(size + 1, 64);
    void *p = aligned_alloc(64, padded);

    assert_non_null(p);
    memset(p, 0, padded);
    return p;
}

/* Where a block of a quantised type has half-precision numbers: as many as returned. */
static inline size_t scale_offsets_of(tr_type type, size_t at[2])
{
    at[0] = 0;
    at[1] = 2;
    switch (type) {
    case TR_TYPE_Q4_1:
    case TR_TYPE_Q5_1:
    case TR_TYPE_Q4_K:
    case TR_TYPE_Q5_K:
        return 2;
    case TR_TYPE_Q2_K:
        at[0] = 80;
        at[1] = 82;
        return 2;
    case TR_TYPE_Q3_K:
        at[0] = 108;
        return 1;
    case TR_TYPE_Q6_K:
        at[0] = 208;
        return 1;
    default:
        return type == TR_TYPE_MXFP4 ? 0 : 1;
    }
}

#endif
