/* kernels_avx512.c - the table for x86-64 processors with AVX-512 and VNNI.
 *
 * Sixteen lanes are one vector here, so the partial sums of plain C are one register: the bits
 * are the same.  Products with 8-bit activations are in kernels_avx512_panels.c; what isn't
 * here is the AVX2 table's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
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

/* One dot product of n_keys (a constant) keys each with q. */
TR_INLINE void key_lanes(const float *q, const float *keys, size_t n_keys, size_t dim, __m512 *s)
{
    size_t i = 0;

    for (size_t k = 0; k < n_keys; k++)
        s[k] = _mm512_setzero_ps();
    for (; i + LANES <= dim; i += LANES) {
        __m512 x = _mm512_loadu_ps(q + i);
        for (size_t k = 0; k < n_keys; k++)
            s[k] = _mm512_add_ps(s[k], _mm512_mul_ps(x, _mm512_loadu_ps(keys + k * dim + i)));
    }
    if (i < dim) { /* the other lanes get +0, which changes no sum that began at +0 */
        __mmask16 rest = first_lanes(dim - i);
        __m512 x = _mm512_maskz_loadu_ps(rest, q + i);
        for (size_t k = 0; k < n_keys; k++)
            s[k] = _mm512_add_ps(s[k],
                                 _mm512_mul_ps(x, _mm512_maskz_loadu_ps(rest, keys + k * dim + i)));
    }
}

static void dots(const float *q, const float *keys, size_t n, size_t dim, float *out)
{
    size_t k = 0;

    for (; k + 16 <= n; k += 16) {
        __m512 s[16];
        key_lanes(q, keys + k * dim, 16, dim, s);
        _mm512_storeu_ps(out + k, sums_of_16(s));
    }
    for (; k < n; k++) {
        __m512 s;
        key_lanes(q, keys + k * dim, 1, dim, &s);
        out[k] = lanes_sum(s);
    }
}

/* n_vectors (a constant) vectors of outputs, the last of which may be partly masked. */
TR_INLINE void mix_vectors(const float *w, const float *values, size_t n, size_t dim,
                           size_t n_vectors, __mmask16 last, float *out)
{
    __m512 s[8];

    for (size_t j = 0; j < n_vectors; j++)
        s[j] = _mm512_maskz_loadu_ps(j + 1 < n_vectors ? 0xffff : last, out + j * LANES);
    for (size_t k = 0; k < n; k++) {
        __m512 a = _mm512_set1_ps(w[k]);
        for (size_t j = 0; j < n_vectors; j++) {
            __m512 v = _mm512_maskz_loadu_ps(j + 1 < n_vectors ? 0xffff : last,
                                             values + k * dim + j * LANES);
            s[j] = _mm512_add_ps(s[j], _mm512_mul_ps(a, v));
        }
    }
    for (size_t j = 0; j < n_vectors; j++)
        _mm512_mask_storeu_ps(out + j * LANES, j + 1 < n_vectors ? 0xffff : last, s[j]);
}

static void mix(const float *w, const float *values, size_t n, size_t dim, float *out)
{
    size_t i = 0;

    for (; i + 8 * LANES <= dim; i += 8 * LANES)
        mix_vectors(w, values + i, n, dim, 8, 0xffff, out + i);
    for (; i + LANES <= dim; i += LANES)
        mix_vectors(w, values + i, n, dim, 1, 0xffff, out + i);
    if (i < dim)
        mix_vectors(w, values + i, n, dim, 1, first_lanes(dim - i), out + i);
}

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
    k->dots = dots;
    k->mix = mix;
    k->from_f16 = from_f16;
    k->float_peak = float_peak;
    if (__builtin_cpu_supports("avx512bf16"))
        k->bf16_peak = bf16_peak;
    tr_kernels_avx512_panels(k);
}
