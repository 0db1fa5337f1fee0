/* kernels_avx2.c - the table for x86-64 processors with AVX2 and F16C.
 *
 * Every entry gives the bits of its twin in kernels_c.c: the same lanes, the same tree, a
 * product rounded before it is added (no fused multiply-add).  On the processors this is for
 * the sums below are bound by loads and integer work, so the promise costs nothing, and a
 * cluster whose machines differ still agrees to the last bit.
 *
 * Products with 8-bit activations are in kernels_avx2_panels.c, those with rows of a cache in
 * kernels_avx2_cache.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_avx2_lanes.h"
#include "compute/kernels_table.h"
#include "compute/quant.h"

#include <math.h>

enum {
    CHUNK = 256,
    GROUP = 8, /* rows of x that share one pass over the weights */
};

/* ---- products with float activations ------------------------------------------------- */

static inline __m256 half_load(const uint16_t *h)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)h));
}

static void from_f16(const uint16_t *h, size_t n, float *out)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, half_load(h + i));
    for (; i < n; i++)
        out[i] = _cvtsh_ss(h[i]);
}

static void from_q8_0(const void *blocks, size_t n, float *out)
{
    const tr_block_q8_0 *b = blocks;

    for (size_t i = 0; i < n / 32; i++, out += 32) {
        __m256 d = _mm256_set1_ps(_cvtsh_ss(b[i].d));
        for (size_t j = 0; j < 32; j += 8) {
            __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(b[i].q + j)));
            _mm256_storeu_ps(out + j, _mm256_mul_ps(d, _mm256_cvtepi32_ps(q)));
        }
    }
}

static void from_bf16(const uint16_t *h, size_t n, float *out)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(h + i)));
        _mm256_storeu_si256((void *)(out + i), _mm256_slli_epi32(wide, 16));
    }
    tr_dequantise_row(TR_TYPE_BF16, h + i, n - i, out + i);
}

/* n weights from element `at` of a row as floats: in place if they are, else in buffer. */
static const float *weights_at(tr_type type, const void *row, size_t at, size_t n, float *buffer)
{
    const tr_type_info *t = tr_type_get(type);

    switch (type) {
    case TR_TYPE_F32:
        return (const float *)row + at;
    case TR_TYPE_F16:
        from_f16((const uint16_t *)row + at, n, buffer);
        break;
    case TR_TYPE_BF16:
        from_bf16((const uint16_t *)row + at, n, buffer);
        break;
    default:
        tr_dequantise_row(type, (const uint8_t *)row + at / t->block * t->size, n, buffer);
        break;
    }
    return buffer;
}

static inline const float *float_row(const uint8_t *x, size_t stride, size_t row)
{
    return (const float *)(const void *)(x + row * stride);
}

/* Four rows at once: their sums don't wait for each other. */
static void four_rows_add(lanes *s, const float *w, const uint8_t *x, size_t x_stride, size_t at,
                          size_t n)
{
    const float *x0 = float_row(x, x_stride, 0) + at;
    const float *x1 = float_row(x, x_stride, 1) + at;
    const float *x2 = float_row(x, x_stride, 2) + at;
    const float *x3 = float_row(x, x_stride, 3) + at;
    lanes s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        s0 = lanes_step(s0, w + i, x0 + i);
        s1 = lanes_step(s1, w + i, x1 + i);
        s2 = lanes_step(s2, w + i, x2 + i);
        s3 = lanes_step(s3, w + i, x3 + i);
    }
    if (i < n) {
        s0 = lanes_rest(s0, w + i, x0 + i, n - i);
        s1 = lanes_rest(s1, w + i, x1 + i, n - i);
        s2 = lanes_rest(s2, w + i, x2 + i, n - i);
        s3 = lanes_rest(s3, w + i, x3 + i, n - i);
    }
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3;
}

static void output_f32(const tr_matrix *w, size_t o, const uint8_t *x, size_t x_stride,
                       size_t n_rows, float *y, size_t y_stride)
{
    const uint8_t *row = (const uint8_t *)w->data + o * w->row_size;
    float buffer[CHUNK];
    lanes s[GROUP];

    for (size_t r = 0; r < n_rows; r++)
        s[r] = lanes_zero();
    for (size_t at = 0; at < w->n_in; at += CHUNK) {
        size_t n = w->n_in - at < CHUNK ? w->n_in - at : CHUNK;
        const float *weights = weights_at(w->type, row, at, n, buffer);
        size_t r = 0;
        for (; r + 4 <= n_rows; r += 4)
            four_rows_add(s + r, weights, x + r * x_stride, x_stride, at, n);
        for (; r < n_rows; r++)
            s[r] = lanes_add(s[r], weights, float_row(x, x_stride, r) + at, n);
    }
    for (size_t r = 0; r < n_rows; r++)
        y[r * y_stride + o] = lanes_sum(s[r]);
}

static void matmul_f32(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                       size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    for (size_t r = 0; r < n_rows; r += GROUP) {
        size_t n = n_rows - r < GROUP ? n_rows - r : GROUP;
        for (size_t o = out_begin; o < out_end; o++)
            output_f32(w, o, (const uint8_t *)x + r * x_stride, x_stride, n, y + r * y_stride,
                       y_stride);
    }
}

/* ---- 8-bit activations --------------------------------------------------------------- */

static inline float largest_of(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline float largest_magnitude(const float *x)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 m = _mm256_setzero_ps();

    /* Of two operands with a NaN the second is the result, so NaNs are passed over. */
    for (size_t j = 0; j < 32; j += 8)
        m = _mm256_max_ps(_mm256_and_ps(_mm256_loadu_ps(x + j), magnitude), m);
    return largest_of(m);
}

static inline __m256i rounded(const float *x, __m256 inverse)
{
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), inverse);

    v = _mm256_max_ps(v, _mm256_set1_ps(-127.0f)); /* a NaN becomes -127, as in plain C */
    return _mm256_cvtps_epi32(_mm256_min_ps(v, _mm256_set1_ps(127.0f)));
}

static inline int16_t sum_of_16(__m256i v)
{
    __m256i t = _mm256_madd_epi16(v, _mm256_set1_epi16(1));
    __m128i u = _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));

    u = _mm_add_epi32(u, _mm_shuffle_epi32(u, 0x4e));
    u = _mm_add_epi32(u, _mm_shuffle_epi32(u, 0xb1));
    return (int16_t)_mm_cvtsi128_si32(u);
}

/* Quantise one block; sum takes the sums of its two halves. */
static inline void block_q8(const float *x, float inverse, int8_t *q, int16_t *sum)
{
    __m256 s = _mm256_set1_ps(inverse);
    __m256i a = _mm256_packs_epi32(rounded(x, s), rounded(x + 8, s));
    __m256i b = _mm256_packs_epi32(rounded(x + 16, s), rounded(x + 24, s));
    __m256i v = _mm256_packs_epi16(a, b); /* groups of 4 in the order 0 2 4 6 1 3 5 7 */

    v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((void *)q, v);
    sum[0] = sum_of_16(a);
    sum[1] = sum_of_16(b);
}

static void act_q8(const float *x, size_t n, void *row)
{
    int8_t *q = row;
    float *scale = (float *)(void *)((uint8_t *)row + n);
    int16_t *sum = (int16_t *)(void *)((uint8_t *)row + n + n / 32 * sizeof(float));
    size_t used = n + n / 32 * (sizeof(float) + 2 * sizeof(int16_t));

    for (size_t i = 0; i < n / 32; i++) {
        float largest = largest_magnitude(x + i * 32);
        bool is_zero = largest < TR_Q8_TINY;
        scale[i] = is_zero ? 0.0f : largest / 127.0f;
        if (is_zero) {
            memset(q + i * 32, 0, 32);
            sum[2 * i] = sum[2 * i + 1] = 0;
        } else {
            block_q8(x + i * 32, 127.0f / largest, q + i * 32, sum + 2 * i);
        }
    }
    memset((uint8_t *)row + used, 0, tr_act_row_size(TR_ACT_Q8, n) - used);
}

/* ---- vectors -------------------------------------------------------------------------- */

/* tr_expf, eight at once: the same operations in the same order. */
static inline __m256 exp_of(__m256 x)
{
    __m256 k = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_sub_ps(x, _mm256_mul_ps(k, _mm256_set1_ps(0.693145752f)));
    r = _mm256_sub_ps(r, _mm256_mul_ps(k, _mm256_set1_ps(1.42860677e-6f)));
    __m256 p = _mm256_set1_ps(1.98412698e-4f);
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.38888889e-3f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(8.33333333e-3f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(4.16666667e-2f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.66666667e-1f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(0.5f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.0f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(k), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));

    __m256 is_low = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_LT_OQ);
    __m256 is_high = _mm256_cmp_ps(x, _mm256_set1_ps(88.72283f), _CMP_GE_OQ);
    __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    p = _mm256_andnot_ps(is_low, p);
    p = _mm256_blendv_ps(p, _mm256_set1_ps(INFINITY), is_high);
    return _mm256_blendv_ps(p, x, is_nan);
}

static float dot_f32(const float *a, const float *b, size_t n)
{
    return lanes_sum(lanes_add(lanes_zero(), a, b, n));
}

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *y)
{
    float scale = 1.0f / sqrtf(dot_f32(x, x, n) / (float)n + eps);
    __m256 s = _mm256_set1_ps(scale);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), s);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(w + i)));
    }
    for (; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static float largest_score(const float *x, size_t n)
{
    __m256 m = _mm256_set1_ps(x[0]);
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        m = _mm256_max_ps(_mm256_loadu_ps(x + i), m);
    float largest = largest_of(m);
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static void softmax(float *x, size_t n)
{
    float largest = largest_score(x, n);
    __m256 shift = _mm256_set1_ps(largest);
    lanes s = lanes_zero();
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        __m256 lo = exp_of(_mm256_sub_ps(_mm256_loadu_ps(x + i), shift));
        __m256 hi = exp_of(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), shift));
        _mm256_storeu_ps(x + i, lo);
        _mm256_storeu_ps(x + i + 8, hi);
        s.lo = _mm256_add_ps(s.lo, lo);
        s.hi = _mm256_add_ps(s.hi, hi);
    }
    float rest[LANES] = { 0 };
    for (size_t j = 0; i + j < n; j++)
        rest[j] = x[i + j] = tr_expf(x[i + j] - largest);
    s.lo = _mm256_add_ps(s.lo, _mm256_loadu_ps(rest));
    s.hi = _mm256_add_ps(s.hi, _mm256_loadu_ps(rest + 8));
    float scale = 1.0f / lanes_sum(s);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)));
    for (; i < n; i++)
        x[i] *= scale;
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i);
        __m256 e = exp_of(_mm256_xor_ps(g, sign));
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(silu, _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++)
        gate[i] = gate[i] / (1.0f + tr_expf(-gate[i])) * up[i];
}

static void axpy_f32(float a, const float *x, size_t n, float *y)
{
    __m256 va = _mm256_set1_ps(a);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(va, _mm256_loadu_ps(x + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), v));
    }
    for (; i < n; i++)
        y[i] += a * x[i];
}

static void to_f16(const float *x, size_t n, uint16_t *y)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(y + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        y[i] = tr_f32_to_f16(x[i]);
}

/* Eight chains that don't wait for each other: 32 products in three instructions. */
static double int8_peak(size_t rounds, int32_t *sink)
{
    enum { CHAINS = 8 };
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i acc[CHAINS];
    __m256i a = _mm256_set1_epi32(*sink | 0x01020304);

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_epi32((int32_t)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] =
                _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, acc[i]), ones));
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    *sink = _mm256_extract_epi32(acc[0], 0);
    return 2.0 * 32 * CHAINS * (double)rounds;
}

static double float_peak(size_t rounds, float *sink)
{
    enum { CHAINS = 10 };
    const __m256 half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(1.0f);
    __m256 acc[CHAINS];

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_ps(*sink + (float)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], half, one);
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = _mm256_add_ps(acc[0], acc[i]);
    *sink = _mm256_cvtss_f32(acc[0]);
    return 2.0 * 8 * CHAINS * (double)rounds;
}

void tr_kernels_avx2(tr_kernels *k)
{
    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++)
        if (k->matmul[TR_ACT_F32][t])
            k->matmul[TR_ACT_F32][t] = matmul_f32;
    tr_kernels_avx2_cache(k);
    tr_kernels_avx2_panels(k);
    k->act_q8 = act_q8;
    k->rms_norm = rms_norm;
    k->softmax = softmax;
    k->silu_mul = silu_mul;
    k->axpy_f32 = axpy_f32;
    k->from_f16 = from_f16;
    k->from_q8_0 = from_q8_0;
    k->to_f16 = to_f16;
    k->int8_peak = int8_peak;
    k->float_peak = float_peak;
}
