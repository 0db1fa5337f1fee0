/* kernels.h - the table of everything that is worth an instruction set of its own.
 *
 * USE     const tr_kernels *k = tr_kernels_select(tr_cpu_features(), NULL);
 *         k->rms_norm(x, w, n, eps, y);
 *         k->matmul[TR_ACT_F32][TR_TYPE_Q8_0](&w, 0, w.n_out, x, stride, n_rows, y, w.n_out);
 *
 * Plain C (kernels_c.c) fills the table and is the definition of right; each instruction set
 * overwrites what it improves.  The table's name is part of the output's identity: two
 * tables may differ in the last bits, one table never differs from itself.  (All tables of
 * today give the same bits in every entry; test_kernels.c holds them to that.)
 *
 * CONTRACT of every entry
 *   - Batch-invariant: what is computed for one row depends on that row (and the weights)
 *     alone, not on the rows beside it nor on the range of outputs asked for.
 *   - No allocation, no failure, no state.  Pointers are 64-byte aligned at row starts only
 *     where said; lengths need not be multiples of a vector.
 *   - Finite input of sane size gives finite output; infinities and NaN may spread but never
 *     write outside.
 *
 * SUMS  have an order that is a function of their length alone, and each product is rounded
 * before it is added.  Float products: element i goes into partial sum i % 16, the 16 are added
 * in a fixed tree.  8-bit products, in the terms of blocks.h: for each block of 32, in order,
 * (d * P - dmin * M) * scale(x) is added, where the integers P (scale * q * x) and M (min * x),
 * summed over the block, are exact.
 *
 * ACTIVATIONS  A row goes into a product in one of two forms:
 *   TR_ACT_F32  n floats.  Weights are dequantised and multiplied in float32: slow and exact.
 *   TR_ACT_Q8   8-bit blocks of 32, made once where the row is produced (act_q8) and sent over
 *               the wire as they are:  int8 q[n], then float scale[n/32], then int16 sum[n/16]
 *               (sums of sixteen q), padded to 64 bytes.  x[i] ~ scale[i/32] * q[i], and q is
 *               -127..127.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_H
#define TR_COMPUTE_KERNELS_H

#include "base/bytes.h"
#include "compute/types.h"

typedef enum {
    TR_ACT_F32 = 0,
    TR_ACT_Q8 = 1,
    TR_ACT_COUNT = 2,
} tr_act;

enum { TR_Q8_BLOCK = 32 };

/* Bytes of one activation row of n values, a multiple of 64.  For TR_ACT_Q8 n must be a
 * multiple of 32. */
size_t tr_act_row_size(tr_act act, size_t n);

/* Parts of a TR_ACT_Q8 row of n values. */
static inline const int8_t *tr_q8_values(const void *row)
{
    return row;
}
static inline const float *tr_q8_scales(const void *row, size_t n)
{
    return (const float *)(const void *)((const uint8_t *)row + n);
}
static inline const int16_t *tr_q8_sums(const void *row, size_t n)
{
    return (const int16_t *)(const void *)((const uint8_t *)row + n + n / 32 * sizeof(float));
}

/* The form that goes with a weight type: TR_ACT_F32 for float weights and in exact mode, else
 * TR_ACT_Q8. */
tr_act tr_act_for(tr_type weight, bool exact);

/* How a matrix's blocks lie in memory. */
typedef enum {
    TR_LAYOUT_ROWS,   /* as in the file: one row after the other */
    TR_LAYOUT_PANELS, /* sixteen rows side by side (panels.h), for tables that take them so */
} tr_layout;

/* A linear map as kernels see it: n_out rows of n_in elements. */
typedef struct {
    tr_type type;
    size_t n_out, n_in;
    size_t row_size; /* TR_LAYOUT_ROWS: bytes from one row to the next */
    const void *data;
    tr_layout layout;
} tr_matrix;

/* y[r * y_stride + o] = sum over i of w[o][i] * x[r][i], for r in 0..n_rows-1 and o in
 * out_begin..out_end-1.  x_stride in bytes, y_stride in floats.  x rows are 64-byte aligned. */
typedef void (*tr_matmul_fn)(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                             size_t x_stride, size_t n_rows, float *y, size_t y_stride);

/* out[i][k] = sum over j of q[i][j] * keys[k][j], for each of n_queries vectors and of n rows of
 * dim values. */
typedef void (*tr_dots_fn)(const float *const *q, size_t n_queries, const void *keys, size_t n,
                           size_t dim, float *const *out);

/* out[i][j] += w[i][k] * values[k][j], for k in order. */
typedef void (*tr_mix_fn)(const float *const *w, size_t n_queries, const void *values, size_t n,
                          size_t dim, float *const *out);

typedef struct {
    const char *name; /* "c", "avx2", "avx512", "neon" */

    /* NULL where the type is not computable. */
    tr_matmul_fn matmul[TR_ACT_COUNT][TR_TYPE_COUNT];

    /* The product of TR_ACT_Q8 rows with panels; NULL where rows are as good.  The bits are those
     * of matmul[TR_ACT_Q8]. */
    tr_matmul_fn panels[TR_TYPE_COUNT];

    /* Quantise one row of n (a multiple of 32) floats to the TR_ACT_Q8 form: per block
     * scale = max|x| / 127, q = round to nearest (ties to even) of x / scale; a block of zeros,
     * or of values below 2^-120, has scale 0 and q 0.  The row's padding is zeroed. */
    void (*act_q8)(const float *x, size_t n, void *row);

    /* y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i].  y may be x. */
    void (*rms_norm)(const float *x, const float *w, size_t n, float eps, float *y);

    /* Turn scores into probabilities in place; n >= 1.  Scores may be -infinity, not all. */
    void (*softmax)(float *x, size_t n);

    /* gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)). */
    void (*silu_mul)(float *gate, const float *up, size_t n);

    /* Scores of rows of a cache, and their sum, of F32 or F16; NULL for other types.  The bits are
     * those of the same rows as floats. */
    tr_dots_fn dots[TR_TYPE_COUNT];
    tr_mix_fn mix[TR_TYPE_COUNT];

    /* y[i] += a * x[i]. */
    void (*axpy_f32)(float a, const float *x, size_t n, float *y);

    /* Half precision, or whole blocks of Q8_0, to float, exactly. */
    void (*from_f16)(const uint16_t *h, size_t n, float *out);
    void (*from_q8_0)(const void *blocks, size_t n, float *out);

    /* Round to half precision, ties to even; too large becomes infinity. */
    void (*to_f16)(const float *x, size_t n, uint16_t *y);

    /* Multiply and add 8-bit integers in registers as fast as this instruction set can, rounds
     * times; returns the operations done (a product and its addition are two).  A measure of
     * the machine that products are held against.  *sink takes the result. */
    double (*int8_peak)(size_t rounds, int32_t *sink);

    /* The same for floats: float32, and bfloat16 with float32 sums (NULL where the table or
     * the processor has none; no product here uses one, since they round in ways of their own). */
    double (*float_peak)(size_t rounds, float *sink);
    double (*bf16_peak)(size_t rounds, float *sink);
} tr_kernels;

/* The product for a matrix as it lies; act must be TR_ACT_Q8 for panels.  Never NULL. */
tr_matmul_fn tr_matmul_for(const tr_kernels *k, const tr_matrix *w, tr_act act);

/* The best table for these features.  isa masks: NULL or "auto" for the best, else a table's
 * name; NULL is returned if it is unknown or needs features that are absent. */
const tr_kernels *tr_kernels_select(uint32_t cpu_features, const char *isa);

/* Names of all tables of this build, slowest first, NULL-terminated. */
const char *const *tr_kernels_names(void);

/* Dequantise one row of n elements (a whole number of blocks), bit-exact with the format's
 * definition.  type must be computable. */
void tr_dequantise_row(tr_type type, const void *row, size_t n, float *out);

/* Quantise n floats (a whole number of blocks) to any computable type; false for
 * another type. */
bool tr_quantise_row(tr_type type, const float *x, size_t n, void *row);

float tr_f16_to_f32(uint16_t h);
uint16_t tr_f32_to_f16(float f);

/* The exponential that every table uses, so that results don't depend on the C library:
 * relative error below 2e-7 for -87 <= x <= 88, 0 below that range, infinity above. */
float tr_expf(float x);

#endif
