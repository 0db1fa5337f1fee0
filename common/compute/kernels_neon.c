/* kernels_neon.c - the table for 64-bit ARM processors with dot products of bytes.
 *
 * Every entry gives the bits of its twin in kernels_c.c: the same lanes, the same tree, a
 * product rounded before it is added (no fused multiply-add).  Conversions name their rounding:
 * to nearest, ties to even.
 *
 * Products with 8-bit activations are in kernels_neon_panels.c, those with rows of a cache in
 * kernels_neon_cache.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_neon_lanes.h"
#include "compute/kernels_table.h"
#include "compute/quant.h"

#include <math.h>

enum {
    CHUNK = 256,
    GROUP = 8, /* rows of x that share one pass over the weights */
};

/* ---- products with float activations ------------------------------------------------- */

TR_INLINE float32x4_t half_load(const uint16_t *h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h)));
}

static void from_f16(const uint16_t *h, size_t n, float *out)
{
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, half_load(h + i));
    for (; i < n; i++)
        out[i] = tr_f16_to_f32(h[i]);
}

static void from_q8_0(const void *blocks, size_t n, float *out)
{
    const tr_block_q8_0 *b = blocks;

    for (size_t i = 0; i < n / 32; i++, out += 32) {
        float d = tr_f16_to_f32(b[i].d);
        for (size_t j = 0; j < 32; j += 8) {
            int16x8_t q = vmovl_s8(vld1_s8(b[i].q + j));
            float32x4_t lo = vcvtq_f32_s32(vmovl_s16(vget_low_s16(q)));
            float32x4_t hi = vcvtq_f32_s32(vmovl_s16(vget_high_s16(q)));
            vst1q_f32(out + j, vmulq_n_f32(lo, d));
            vst1q_f32(out + j + 4, vmulq_n_f32(hi, d));
        }
    }
}

static void from_bf16(const uint16_t *h, size_t n, float *out)
{
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(h + i), 16)));
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

TR_INLINE const float *float_row(const uint8_t *x, size_t stride, size_t row)
{
    return (const float *)(const void *)(x + row * stride);
}

/* Four rows at once: a weight is loaded once for all, and sums don't wait for each other. */
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

/* The "nm" instructions pass over a NaN, as fmaxf does. */
TR_INLINE float largest_magnitude(const float *x)
{
    float32x4_t m = vdupq_n_f32(0.0f);

    for (size_t j = 0; j < 32; j += 4)
        m = vmaxnmq_f32(m, vabsq_f32(vld1q_f32(x + j)));
    return vmaxnmvq_f32(m);
}

TR_INLINE int16x4_t rounded(const float *x, float inverse)
{
    float32x4_t v = vmulq_n_f32(vld1q_f32(x), inverse);

    v = vmaxnmq_f32(v, vdupq_n_f32(-127.0f)); /* a NaN becomes -127, as in plain C */
    return vmovn_s32(vcvtnq_s32_f32(vminnmq_f32(v, vdupq_n_f32(127.0f))));
}

/* Quantise half a block; its sum is returned. */
TR_INLINE int16_t half_block_q8(const float *x, float inverse, int8_t *q)
{
    int16x8_t lo = vcombine_s16(rounded(x, inverse), rounded(x + 4, inverse));
    int16x8_t hi = vcombine_s16(rounded(x + 8, inverse), rounded(x + 12, inverse));

    vst1q_s8(q, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
    return vaddvq_s16(vaddq_s16(lo, hi));
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
            continue;
        }
        for (size_t h = 0; h < 2; h++)
            sum[2 * i + h] =
                half_block_q8(x + i * 32 + h * 16, 127.0f / largest, q + i * 32 + h * 16);
    }
    memset((uint8_t *)row + used, 0, tr_act_row_size(TR_ACT_Q8, n) - used);
}

/* ---- vectors -------------------------------------------------------------------------- */

/* p * r + c, rounded twice. */
TR_INLINE float32x4_t times_plus(float32x4_t p, float32x4_t r, float c)
{
    return vaddq_f32(vmulq_f32(p, r), vdupq_n_f32(c));
}

/* tr_expf, four at once: the same operations in the same order. */
TR_INLINE float32x4_t exp_of(float32x4_t x)
{
    float32x4_t k = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vsubq_f32(x, vmulq_n_f32(k, 0.693145752f));
    r = vsubq_f32(r, vmulq_n_f32(k, 1.42860677e-6f));
    float32x4_t p = vdupq_n_f32(1.98412698e-4f);
    p = times_plus(p, r, 1.38888889e-3f);
    p = times_plus(p, r, 8.33333333e-3f);
    p = times_plus(p, r, 4.16666667e-2f);
    p = times_plus(p, r, 1.66666667e-1f);
    p = times_plus(p, r, 0.5f);
    p = times_plus(p, r, 1.0f);
    p = times_plus(p, r, 1.0f);
    /* unsigned, because it overflows where the result is replaced below */
    uint32x4_t power = vshlq_n_u32(vreinterpretq_u32_s32(vcvtnq_s32_f32(k)), 23);
    p = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), power));

    uint32x4_t is_low = vcltq_f32(x, vdupq_n_f32(-87.0f));
    uint32x4_t is_high = vcgeq_f32(x, vdupq_n_f32(88.72283f));
    uint32x4_t is_number = vceqq_f32(x, x);
    p = vbslq_f32(is_low, vdupq_n_f32(0.0f), p);
    p = vbslq_f32(is_high, vdupq_n_f32(INFINITY), p);
    return vbslq_f32(is_number, p, x);
}

static float dot_f32(const float *a, const float *b, size_t n)
{
    return lanes_sum(lanes_add(lanes_zero(), a, b, n));
}

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *y)
{
    float scale = 1.0f / sqrtf(dot_f32(x, x, n) / (float)n + eps);
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), scale), vld1q_f32(w + i)));
    for (; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static float largest_score(const float *x, size_t n)
{
    float32x4_t m = vdupq_n_f32(x[0]);
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        m = vmaxnmq_f32(m, vld1q_f32(x + i));
    float largest = vmaxnmvq_f32(m);
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static void softmax(float *x, size_t n)
{
    float largest = largest_score(x, n);
    lanes s = lanes_zero();
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < QUADS; j++) {
            float32x4_t shifted = vsubq_f32(vld1q_f32(x + i + 4 * j), vdupq_n_f32(largest));
            float32x4_t e = exp_of(shifted);
            vst1q_f32(x + i + 4 * j, e);
            s.quad[j] = vaddq_f32(s.quad[j], e);
        }
    }
    float rest[LANES] = { 0 };
    for (size_t j = 0; i + j < n; j++)
        rest[j] = x[i + j] = tr_expf(x[i + j] - largest);
    for (size_t j = 0; j < QUADS; j++)
        s.quad[j] = vaddq_f32(s.quad[j], vld1q_f32(rest + 4 * j));
    float scale = 1.0f / lanes_sum(s);
    for (i = 0; i + 4 <= n; i += 4)
        vst1q_f32(x + i, vmulq_n_f32(vld1q_f32(x + i), scale));
    for (; i < n; i++)
        x[i] *= scale;
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    size_t i = 0;

    for (; i + 4 <= n; i += 4) {
        float32x4_t g = vld1q_f32(gate + i);
        float32x4_t e = exp_of(vnegq_f32(g));
        float32x4_t silu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), e));
        vst1q_f32(gate + i, vmulq_f32(silu, vld1q_f32(up + i)));
    }
    for (; i < n; i++)
        gate[i] = gate[i] / (1.0f + tr_expf(-gate[i])) * up[i];
}

static void axpy_f32(float a, const float *x, size_t n, float *y)
{
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1q_f32(y + i, vaddq_f32(vld1q_f32(y + i), vmulq_n_f32(vld1q_f32(x + i), a)));
    for (; i < n; i++)
        y[i] += a * x[i];
}

static void to_f16(const float *x, size_t n, uint16_t *y)
{
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    for (; i < n; i++)
        y[i] = tr_f32_to_f16(x[i]);
}

/* ---- measures of the machine ------------------------------------------------------------ */

/* Chains that don't wait for each other: 16 products an instruction. */
static double int8_peak(size_t rounds, int32_t *sink)
{
    enum { CHAINS = 16 };
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(*sink | 0x01020304));
    const int8x16_t b = vreinterpretq_s8_s32(vdupq_n_s32(0x04030201));
    int32x4_t acc[CHAINS];

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = vdupq_n_s32((int32_t)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = vdotq_s32(acc[i], a, b);
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = veorq_s32(acc[0], acc[i]);
    *sink = vgetq_lane_s32(acc[0], 0);
    return 2.0 * 16 * CHAINS * (double)rounds;
}

static double float_peak(size_t rounds, float *sink)
{
    enum { CHAINS = 16 };
    const float32x4_t half = vdupq_n_f32(0.5f), one = vdupq_n_f32(1.0f);
    float32x4_t acc[CHAINS];

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = vdupq_n_f32(*sink + (float)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = vfmaq_f32(one, acc[i], half);
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = vaddq_f32(acc[0], acc[i]);
    *sink = vgetq_lane_f32(acc[0], 0);
    return 2.0 * 4 * CHAINS * (double)rounds;
}

void tr_kernels_neon(tr_kernels *k)
{
    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++)
        if (k->matmul[TR_ACT_F32][t])
            k->matmul[TR_ACT_F32][t] = matmul_f32;
    tr_kernels_neon_cache(k);
    tr_kernels_neon_panels(k);
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
