/* kernels_avx512.c - the table for x86-64 processors with AVX-512 and VNNI.
 *
 * Sixteen lanes are one vector here, so the partial sums of plain C are one register: the bits
 * are the same.  Products with 8-bit activations are in kernels_avx512_panels.c, those with rows of
 * a cache in kernels_avx512_cache.c; what isn't here is the AVX2 table's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_avx512_lanes.h"
#include "compute/kernels_table.h"

static void from_f16(const uint16_t *h, size_t n, float *out)
{
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(h + i))));
    if (i < n) {
        __mmask16 rest = first_lanes(n - i);
        __m256i x = _mm256_maskz_loadu_epi16(rest, h + i);
        _mm512_mask_storeu_ps(out + i, rest, _mm512_cvtph_ps(x));
    }
}

/* ---- products with float activations --------------------------------------------------- */

enum {
    OUTPUTS = 4, /* rows of weights */
    ROWS = 4,    /* of x: OUTPUTS * ROWS sums in registers */
};

/* Sixteen weights of a float type as floats. */
TR_INLINE __m512 weights_at(tr_type type, const uint8_t *row, size_t at, __mmask16 lanes)
{
    if (type == TR_TYPE_F32)
        return _mm512_maskz_loadu_ps(lanes, row + 4 * at);
    __m256i half = _mm256_maskz_loadu_epi16(lanes, row + 2 * at);
    if (type == TR_TYPE_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

typedef struct {
    const uint8_t *weights; /* of the first output */
    size_t row_size, n_in;
    const uint8_t *x;
    size_t x_stride;
    float *y; /* of the first output and row */
    size_t y_stride;
} tile;

/* n_out outputs of n_rows rows; type, n_out and n_rows are constants where this is inlined. */
TR_INLINE void tile_do(tr_type type, const tile *t, size_t n_out, size_t n_rows)
{
    __m512 s[OUTPUTS][ROWS];

    for (size_t o = 0; o < n_out; o++)
        for (size_t r = 0; r < n_rows; r++)
            s[o][r] = _mm512_setzero_ps();
    for (size_t i = 0; i < t->n_in; i += LANES) {
        __mmask16 lanes = i + LANES <= t->n_in ? 0xffff : first_lanes(t->n_in - i);
        __m512 x[ROWS];
        for (size_t r = 0; r < n_rows; r++)
            x[r] = _mm512_maskz_loadu_ps(lanes, t->x + r * t->x_stride + 4 * i);
        for (size_t o = 0; o < n_out; o++) {
            __m512 w = weights_at(type, t->weights + o * t->row_size, i, lanes);
            for (size_t r = 0; r < n_rows; r++)
                s[o][r] = _mm512_add_ps(s[o][r], _mm512_mul_ps(w, x[r]));
        }
    }
    for (size_t o = 0; o < n_out; o++)
        for (size_t r = 0; r < n_rows; r++)
            t->y[r * t->y_stride + o] = lanes_sum(s[o][r]);
}

TR_INLINE void tile_any(tr_type type, const tile *t, size_t n_out, size_t n_rows)
{
    if (n_out < OUTPUTS) {
        for (size_t r = 0; r < n_rows; r++) {
            tile one = *t;
            one.x += r * t->x_stride;
            one.y += r * t->y_stride;
            for (size_t o = 0; o < n_out; o++, one.weights += t->row_size, one.y++)
                tile_do(type, &one, 1, 1);
        }
        return;
    }
    switch (n_rows) {
    case 1:
        tile_do(type, t, OUTPUTS, 1);
        return;
    case 2:
        tile_do(type, t, OUTPUTS, 2);
        return;
    case 3:
        tile_do(type, t, OUTPUTS, 3);
        return;
    default:
        tile_do(type, t, OUTPUTS, ROWS);
    }
}

TR_INLINE void matmul_float(tr_type type, const tr_matrix *w, size_t out_begin, size_t out_end,
                            const uint8_t *x, size_t x_stride, size_t n_rows, float *y,
                            size_t y_stride)
{
    /* A few rows of weights stay in the nearest cache while all rows of x pass over them. */
    for (size_t o = out_begin; o < out_end; o += OUTPUTS) {
        for (size_t r = 0; r < n_rows; r += ROWS) {
            tile t = { (const uint8_t *)w->data + o * w->row_size,
                       w->row_size,
                       w->n_in,
                       x + r * x_stride,
                       x_stride,
                       y + r * y_stride + o,
                       y_stride };
            tile_any(type, &t, out_end - o < OUTPUTS ? out_end - o : OUTPUTS,
                     n_rows - r < ROWS ? n_rows - r : ROWS);
        }
    }
}

static void matmul_f32(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                       size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    matmul_float(TR_TYPE_F32, w, out_begin, out_end, x, x_stride, n_rows, y, y_stride);
}

static void matmul_f16(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                       size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    matmul_float(TR_TYPE_F16, w, out_begin, out_end, x, x_stride, n_rows, y, y_stride);
}

static void matmul_bf16(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                        size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    matmul_float(TR_TYPE_BF16, w, out_begin, out_end, x, x_stride, n_rows, y, y_stride);
}

static double float_peak(size_t rounds, float *sink)
{
    enum { CHAINS = 10 };
    const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.0f);
    __m512 acc[CHAINS];

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps(*sink + (float)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], half, one);
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    *sink = _mm512_cvtss_f32(acc[0]);
    return 2.0 * 16 * CHAINS * (double)rounds;
}

/* Compiled for more than the rest of this file: called only where the processor has it. */
__attribute__((target("avx512bf16"))) static double bf16_peak(size_t rounds, float *sink)
{
    enum { CHAINS = 10 };
    const __m512bh half = (__m512bh)_mm512_set1_epi32(0x3f003f00);
    __m512 acc[CHAINS];

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps(*sink + (float)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbf16_ps(acc[i], half, half);
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    *sink = _mm512_cvtss_f32(acc[0]);
    return 2.0 * 32 * CHAINS * (double)rounds;
}

void tr_kernels_avx512(tr_kernels *k)
{
    k->matmul[TR_ACT_F32][TR_TYPE_F32] = matmul_f32;
    k->matmul[TR_ACT_F32][TR_TYPE_F16] = matmul_f16;
    k->matmul[TR_ACT_F32][TR_TYPE_BF16] = matmul_bf16;
    k->from_f16 = from_f16;
    k->float_peak = float_peak;
    if (__builtin_cpu_supports("avx512bf16"))
        k->bf16_peak = bf16_peak;
    tr_kernels_avx512_cache(k);
    tr_kernels_avx512_panels(k);
}
