/* kernels_table.h - how the tables of instruction sets are put together.
 *
 * tr_kernels_c fills everything; each following function overwrites what it improves and sets
 * the name.  kernels.c builds each table once.
 *
 * The rest is what products with panels share, whatever the instruction set.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_TABLE_H
#define TR_COMPUTE_KERNELS_TABLE_H

#include "compute/kernels.h"
#include "compute/panels.h"

/* A part of a kernel that is made again for each type: worth nothing unless it is inlined. */
#define TR_INLINE static inline __attribute__((always_inline))

/* X(name, type) for each type that has panels. */
#define TR_PANEL_TYPES(X)                                                                          \
    X(q8_0, TR_TYPE_Q8_0)                                                                          \
    X(q4_0, TR_TYPE_Q4_0)                                                                          \
    X(q4_1, TR_TYPE_Q4_1)                                                                          \
    X(q5_0, TR_TYPE_Q5_0)                                                                          \
    X(q5_1, TR_TYPE_Q5_1)                                                                          \
    X(q2_k, TR_TYPE_Q2_K)                                                                          \
    X(q3_k, TR_TYPE_Q3_K)                                                                          \
    X(q4_k, TR_TYPE_Q4_K)                                                                          \
    X(q5_k, TR_TYPE_Q5_K)                                                                          \
    X(q6_k, TR_TYPE_Q6_K)                                                                          \
    X(iq4_nl, TR_TYPE_IQ4_NL)                                                                      \
    X(iq4_xs, TR_TYPE_IQ4_XS)                                                                      \
    X(mxfp4, TR_TYPE_MXFP4)

/* X(name, type) for each type whose rows of a cache are read as they are. */
#define TR_CACHE_TYPES(X)                                                                          \
    X(f32, TR_TYPE_F32)                                                                            \
    X(f16, TR_TYPE_F16)

/* Bytes of a row of dim values of such a type. */
TR_INLINE size_t tr_cache_row_size(tr_type type, size_t dim)
{
    size_t size = 0;

    (void)tr_type_row_size(type, dim, &size);
    return size;
}

/* What the rows of one pass over a panel need from x; at most TR_PANEL_ROWS. */
enum { TR_PANEL_ROWS = 8 };

typedef struct {
    const int8_t *q[TR_PANEL_ROWS];
    const float *scale[TR_PANEL_ROWS];
    const int16_t *sum[TR_PANEL_ROWS];
} tr_panel_rows;

TR_INLINE tr_panel_rows tr_panel_rows_of(const uint8_t *x, size_t stride, size_t n_in, size_t n)
{
    tr_panel_rows a;

    for (size_t r = 0; r < n; r++) {
        const void *row = x + r * stride;
        a.q[r] = tr_q8_values(row);
        a.scale[r] = tr_q8_scales(row, n_in);
        a.sum[r] = tr_q8_sums(row, n_in);
    }
    return a;
}

TR_INLINE bool tr_panel_has_two_scales(tr_panel_format f)
{
    return f.small == TR_SMALL_SCALES || f.small == TR_SMALL_SCALES_MINS;
}

void tr_kernels_c(tr_kernels *k);

/* The _panels and _cache functions are called by the ones before.  Only where the build has
 * TR_HAVE_AVX2: */
void tr_kernels_avx2(tr_kernels *k);
void tr_kernels_avx2_cache(tr_kernels *k);
void tr_kernels_avx2_panels(tr_kernels *k);
void tr_kernels_avx512(tr_kernels *k);
void tr_kernels_avx512_cache(tr_kernels *k);
void tr_kernels_avx512_panels(tr_kernels *k);

/* Only where the build has TR_HAVE_NEON: */
void tr_kernels_neon(tr_kernels *k);
void tr_kernels_neon_cache(tr_kernels *k);
void tr_kernels_neon_panels(tr_kernels *k);

#endif
