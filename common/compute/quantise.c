/* quantise.c - rows of floats to every type.
 *
 * A block's codes are found for many scales near the one that its largest value suggests; for each
 * the best scale for those codes follows from least squares, and the scale with the least squared
 * error is taken.  Types of 256 then round the scales of their parts to a few bits and choose the
 * codes again, for the scales as they are stored.  The layouts are those of blocks.c.
 *
 * What is no number counts as 0, and what is larger than a type can say becomes its largest value.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/blocks.h"
#include "compute/quant.h"

#include "base/check.h"

#include <math.h>

enum { SUPER = TR_BLOCK * TR_SUPER };

static const float half_max = 65504.0f;

static float float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* ---- numbers and two simple types: what they are is decided by their definition -------------- */

uint16_t tr_f32_to_f16(float f)
{
    uint32_t bits = bits_of(f);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;

    if (magnitude > 0x7f800000) /* NaN stays one */
        return (uint16_t)(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
    if (magnitude >= 0x477ff000) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) { /* below 2^-14: a multiple of 2^-24, ties to even by the FPU */
        float shifted = float_of(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of(shifted) - bits_of(0.5f)));
    }
    uint32_t odd = (magnitude >> 13) & 1;
    magnitude += 0xfff + odd; /* ties to even */
    return (uint16_t)(sign | ((magnitude - 0x38000000) >> 13));
}

static uint16_t f32_to_bf16(float f)
{
    uint32_t bits = bits_of(f);

    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static void to_f32(const float *x, size_t n, void *row)
{
    memcpy(row, x, n * sizeof(float));
}

static void to_f16(const float *x, size_t n, void *row)
{
    uint16_t *half = row;

    for (size_t i = 0; i < n; i++)
        half[i] = tr_f32_to_f16(x[i]);
}

static void to_bf16(const float *x, size_t n, void *row)
{
    uint16_t *half = row;

    for (size_t i = 0; i < n; i++)
        half[i] = f32_to_bf16(x[i]);
}

/* 1 / d, or 0 where that is no number: such a block is all zero in half precision anyway. */
static float inverse_of(float d)
{
    float inverse = 1.0f / d;

    return isfinite(inverse) ? inverse : 0.0f;
}

/* x as integer within low..high, ties away from zero; what is no number as 0. */
static int32_t rounded(float x, int32_t low, int32_t high)
{
    if (!(x >= (float)low))
        return isnan(x) ? 0 : low;
    return x >= (float)high ? high : (int32_t)roundf(x);
}

static float bounded_scale(float d)
{
    return d > half_max ? half_max : d < -half_max ? -half_max : isnan(d) ? 0.0f : d;
}

static void to_q8_0(const float *x, size_t n, void *row)
{
    tr_block_q8_0 *b = row;

    for (size_t i = 0; i < n / 32; i++, x += 32) {
        float largest = 0.0f;
        for (size_t j = 0; j < 32; j++)
            largest = fmaxf(largest, fabsf(x[j]));
        float d = bounded_scale(largest / 127.0f);
        float inverse = inverse_of(d);
        b[i].d = tr_f32_to_f16(d);
        for (size_t j = 0; j < 32; j++)
            b[i].q[j] = (int8_t)rounded(x[j] * inverse, -127, 127);
    }
}

/* ---- fitting -------------------------------------------------------------------------------- */

/* Numbers only, none so large that it would take all codes from the others of its block. */
static void sane_copy(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = isnan(x[i]) ? 0.0f : fminf(fmaxf(x[i], -half_max), half_max);
}

/* The value of largest magnitude; 0 where it is too small for its inverse to be a number. */
static float extreme_of(const float *x, size_t n)
{
    float extreme = 0.0f;

    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    return fabsf(extreme) < 0x1p-100f ? 0.0f : extreme;
}

/* The nearest integer, ties to even, within low..high (less than 2^22 in magnitude): adding and
 * taking off 1.5 * 2^23 leaves no room for a fraction, and needs no call in these loops. */
static inline float nearest(float x, float low, float high)
{
    const float no_fraction = 12582912.0f;
    float bounded = x < low ? low : x > high ? high : x;

    return (bounded + no_fraction) - no_fraction;
}

/* Sums for the scale s that is best for codes q: s = xq / qq, and xq^2 / qq is what it takes off
 * the squared error. */
typedef struct {
    float xq, qq;
} sums;

static bool is_better(sums a, sums b)
{
    return a.qq > 0.0f && (b.qq == 0.0f || a.xq * a.xq * b.qq > b.xq * b.xq * a.qq);
}

/* The scale for codes low..high, low being the end that has one more step. */
static float fit_symmetric(const float *x, size_t n, float low, float high)
{
    float extreme = extreme_of(x, n);
    sums best = { 0.0f, 0.0f };

    if (extreme == 0.0f)
        return 0.0f;
    for (int step = -9; step <= 9; step++) {
        float inverse = (low - 0.1f * (float)step) / extreme;
        sums s = { 0.0f, 0.0f };
        for (size_t i = 0; i < n; i++) {
            float q = nearest(inverse * x[i], low, high);
            s.xq += x[i] * q;
            s.qq += q * q;
        }
        if (is_better(s, best))
            best = s;
    }
    return best.qq > 0.0f ? best.xq / best.qq : 0.0f;
}

/* Values as scale * q - min with codes 0..high and min >= 0. */
typedef struct {
    float scale, min, error;
} affine;

/* The best scale and minimum for codes that inverse and low give. */
static affine affine_for(const float *x, size_t n, float high, float low, float inverse)
{
    float sx = 0.0f, sq = 0.0f, sxx = 0.0f, sxq = 0.0f, sqq = 0.0f;
    affine a = { 0.0f, 0.0f, 0.0f };

    for (size_t i = 0; i < n; i++) {
        float q = nearest(inverse * (x[i] - low), 0.0f, high);
        sx += x[i];
        sq += q;
        sxx += x[i] * x[i];
        sxq += x[i] * q;
        sqq += q * q;
    }
    float determinant = (float)n * sqq - sq * sq;
    if (determinant > 0.0f) {
        a.scale = ((float)n * sxq - sq * sx) / determinant;
        a.min = (sq * sxq - sqq * sx) / determinant;
    }
    if (determinant <= 0.0f || a.min < 0.0f) {
        a.min = 0.0f;
        a.scale = sqq > 0.0f ? sxq / sqq : 0.0f;
    }
    a.error = sxx + a.scale * (a.scale * sqq - 2.0f * sxq - 2.0f * a.min * sq) +
              a.min * (2.0f * sx + (float)n * a.min);
    return a;
}

static affine fit_affine(const float *x, size_t n, float high)
{
    float low = 0.0f;
    float top = x[0];

    for (size_t i = 0; i < n; i++) {
        low = fminf(low, x[i]);
        top = fmaxf(top, x[i]);
    }
    if (!(top - low >= 0x1p-100f)) /* all the same: nothing but a minimum, or nothing */
        return (affine){ 0.0f, -low, 0.0f };
    affine best = affine_for(x, n, high, low, high / (top - low));
    for (int step = -4; step <= 6; step++) {
        affine a = affine_for(x, n, high, low, (high + 0.25f * (float)step) / (top - low));
        if (a.scale > 0.0f) /* once more with codes for what was found */
            a = affine_for(x, n, high, -a.min, 1.0f / a.scale);
        if (a.error < best.error && a.scale > 0.0f)
            best = a;
    }
    return best;
}

/* The nearest of sixteen ascending levels. */
static uint8_t level_index(const int8_t *level, float x)
{
    uint8_t index = 0;

    for (size_t k = 0; k + 1 < TR_BLOCK_LEVELS; k++)
        index = (uint8_t)(index + (x > 0.5f * (float)(level[k] + level[k + 1])));
    return index;
}

static float fit_levels(const float *x, size_t n, const int8_t *level)
{
    float extreme = extreme_of(x, n);
    sums best = { 0.0f, 0.0f };

    if (extreme == 0.0f)
        return 0.0f;
    for (int step = -12; step <= 12; step++) {
        for (int side = 0; side < 2; side++) { /* the largest at either end: they differ */
            float end = side ? (float)level[TR_BLOCK_LEVELS - 1] : (float)level[0];
            float inverse = end * (1.0f + 0.03f * (float)step) / extreme;
            sums s = { 0.0f, 0.0f };
            for (size_t i = 0; i < n; i++) {
                float q = (float)level[level_index(level, inverse * x[i])];
                s.xq += x[i] * q;
                s.qq += q * q;
            }
            if (is_better(s, best))
                best = s;
        }
    }
    return best.qq > 0.0f ? best.xq / best.qq : 0.0f;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* As it will be read. */
static float put_half(uint8_t *p, float d)
{
    uint16_t h = tr_f32_to_f16(bounded_scale(d));

    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
    return tr_f16_to_f32(h);
}

static void put_nibbles(const uint8_t *code, uint8_t *p)
{
    for (size_t k = 0; k < 16; k++)
        p[k] = (uint8_t)((code[k] & 15) | (code[16 + k] & 15) << 4);
}

static void put_fifth_bits(const uint8_t *code, uint8_t *p)
{
    memset(p, 0, 4);
    for (size_t k = 0; k < 32; k++)
        p[k / 8] |= (uint8_t)((code[k] >> 4 & 1) << k % 8);
}

/* Codes of eight blocks by pairs of 32 bytes: low nibbles, high nibbles. */
static void put_nibble_pairs(const uint8_t *code, uint8_t *p)
{
    for (size_t k = 0; k < SUPER / 2; k++)
        p[k] = (uint8_t)((code[k / 32 * 64 + k % 32] & 15) | (code[k / 32 * 64 + 32 + k % 32] & 15)
                                                                 << 4);
}

/* Codes of four blocks in the bit pairs of 32 bytes; bits `from` and above of each code. */
static void put_bit_pairs(const uint8_t *code, unsigned from, uint8_t *p)
{
    memset(p, 0, SUPER / 4);
    for (size_t i = 0; i < SUPER; i++)
        p[i / 128 * 32 + i % 32] |= (uint8_t)((code[i] >> from & 3) << i / 32 % 4 * 2);
}

/* One bit of each code of eight blocks in 32 bytes. */
static void put_bits(const uint8_t *code, unsigned from, uint8_t *p)
{
    memset(p, 0, SUPER / 8);
    for (size_t i = 0; i < SUPER; i++)
        p[i % 32] |= (uint8_t)((code[i] >> from & 1) << i / 32);
}

/* Codes of n values for a scale as it is stored, plus offset. */
static void codes_symmetric(const float *x, size_t n, float scale, float low, float high,
                            uint8_t *code)
{
    float inverse = inverse_of(scale);

    for (size_t i = 0; i < n; i++)
        code[i] = (uint8_t)(nearest(inverse * x[i], low, high) - low);
}

static void codes_affine(const float *x, size_t n, float scale, float min, float high,
                         uint8_t *code)
{
    float inverse = inverse_of(scale);

    for (size_t i = 0; i < n; i++)
        code[i] = (uint8_t)nearest(inverse * (x[i] + min), 0.0f, high);
}

static void codes_levels(const float *x, size_t n, float scale, const int8_t *level, uint8_t *code)
{
    float inverse = inverse_of(scale);

    for (size_t i = 0; i < n; i++)
        code[i] = level_index(level, inverse * x[i]);
}

/* ---- blocks of 32 --------------------------------------------------------------------------- */

/* The value of largest magnitude becomes -8, the end of the range that has one more step. */
static void to_q4_0(const float *x, size_t n, void *row)
{
    tr_block_q4_0 *b = row;

    for (size_t i = 0; i < n / 32; i++, x += 32) {
        float extreme = 0.0f;
        uint8_t code[32];
        for (size_t j = 0; j < 32; j++)
            if (fabsf(x[j]) > fabsf(extreme))
                extreme = x[j];
        float d = bounded_scale(extreme / -8.0f);
        float inverse = inverse_of(d);
        b[i].d = tr_f32_to_f16(d);
        for (size_t j = 0; j < 32; j++) {
            float v = floorf(x[j] * inverse + 8.5f);
            code[j] = (uint8_t)(isnan(v) ? 8.0f : fminf(fmaxf(v, 0.0f), 15.0f));
        }
        put_nibbles(code, b[i].q);
    }
}

static void block_q5_0(const float *x, uint8_t *p)
{
    uint8_t code[32];
    float d = put_half(p, fit_symmetric(x, 32, -16.0f, 15.0f));

    codes_symmetric(x, 32, d, -16.0f, 15.0f, code);
    put_fifth_bits(code, p + 2);
    put_nibbles(code, p + 6);
}

/* A lowest value of either sign, which is no minimum in the sense of the types of 256. */
static void lowest_and_step(const float *x, float high, uint8_t *p, uint8_t *code)
{
    float low = x[0], top = x[0];

    for (size_t i = 1; i < 32; i++) {
        low = fminf(low, x[i]);
        top = fmaxf(top, x[i]);
    }
    float d = put_half(p, (top - low) / high);
    float base = put_half(p + 2, low);
    codes_affine(x, 32, d, -base, high, code);
}

static void block_q4_1(const float *x, uint8_t *p)
{
    uint8_t code[32];

    lowest_and_step(x, 15.0f, p, code);
    put_nibbles(code, p + 4);
}

static void block_q5_1(const float *x, uint8_t *p)
{
    uint8_t code[32];

    lowest_and_step(x, 31.0f, p, code);
    put_fifth_bits(code, p + 4);
    put_nibbles(code, p + 8);
}

static void block_iq4_nl(const float *x, uint8_t *p)
{
    const int8_t *level = tr_block_codes_of(TR_TYPE_IQ4_NL).level;
    uint8_t code[32];
    float d = put_half(p, fit_levels(x, 32, level));

    codes_levels(x, 32, d, level, code);
    put_nibbles(code, p + 2);
}

/* The index of the nearest level of a 4-bit float: magnitudes ascend, then the same with a sign. */
static uint8_t fp4_index(const int8_t *level, float x)
{
    float magnitude = fabsf(x);
    uint8_t index = 0;

    for (size_t k = 0; k < 7; k++)
        index = (uint8_t)(index + (magnitude > 0.5f * (float)(level[k] + level[k + 1])));
    return (uint8_t)(index | (x < 0.0f && index > 0 ? 8 : 0));
}

static float fp4_error(const float *x, const int8_t *level, float d)
{
    float inverse = inverse_of(d);
    float error = 0.0f;

    for (size_t i = 0; i < 32; i++) {
        float e = x[i] - d * (float)level[fp4_index(level, inverse * x[i])];
        error += e * e;
    }
    return error;
}

/* Of the exponents that put the largest value near the largest level, 12, the best. */
static void block_mxfp4(const float *x, uint8_t *p)
{
    const int8_t *level = tr_block_codes_of(TR_TYPE_MXFP4).level;
    float extreme = fabsf(extreme_of(x, 32));
    uint8_t code[32] = { 0 };
    int exponent = 0;
    int best = 0;

    if (extreme > 0.0f) {
        frexpf(extreme / 12.0f, &exponent);
        float least = INFINITY;
        for (int e = exponent + 126; e <= exponent + 129; e++) {
            int bounded = e < 0 ? 0 : e > 254 ? 254 : e;
            float error = fp4_error(x, level, tr_block_exponent((uint8_t)bounded));
            if (error < least) {
                least = error;
                best = bounded;
            }
        }
        float inverse = inverse_of(tr_block_exponent((uint8_t)best));
        for (size_t i = 0; i < 32; i++)
            code[i] = fp4_index(level, inverse * x[i]);
    }
    p[0] = (uint8_t)best;
    put_nibbles(code, p + 1);
}

/* ---- blocks of 256 -------------------------------------------------------------------------- */

/* Scales of n parts as signed integers under one d, which p takes; the scales as they will be read.
 */
static void signed_scales(float *scale, size_t n, float low, float high, uint8_t *p, int8_t *stored)
{
    float extreme = extreme_of(scale, n);
    float d = put_half(p, extreme / low);
    float inverse = inverse_of(d);

    for (size_t j = 0; j < n; j++) {
        stored[j] = (int8_t)nearest(inverse * scale[j], low, high);
        scale[j] = d * (float)stored[j];
    }
}

/* The same for numbers that are not negative. */
static void unsigned_scales(float *scale, size_t n, float high, uint8_t *p, uint8_t *stored)
{
    float d = put_half(p, extreme_of(scale, n) / high);
    float inverse = inverse_of(d);

    for (size_t j = 0; j < n; j++) {
        stored[j] = (uint8_t)nearest(inverse * scale[j], 0.0f, high);
        scale[j] = d * (float)stored[j];
    }
}

static void block_q6_k(const float *x, uint8_t *p)
{
    float scale[16];
    uint8_t code[SUPER];

    for (size_t j = 0; j < 16; j++)
        scale[j] = fit_symmetric(x + 16 * j, 16, -32.0f, 31.0f);
    signed_scales(scale, 16, -128.0f, 127.0f, p + 208, (int8_t *)(p + 192));
    for (size_t j = 0; j < 16; j++)
        codes_symmetric(x + 16 * j, 16, scale[j], -32.0f, 31.0f, code + 16 * j);
    for (size_t i = 0; i < SUPER / 2; i++) {
        size_t at = i / 64 * 128 + i % 64; /* a block and the one two after it share bytes */
        p[i] = (uint8_t)((code[at] & 15) | (code[at + 64] & 15) << 4);
    }
    put_bit_pairs(code, 4, p + 128);
}

static void block_q3_k(const float *x, uint8_t *p)
{
    float scale[16];
    int8_t stored[16];
    uint8_t code[SUPER];

    for (size_t j = 0; j < 16; j++)
        scale[j] = fit_symmetric(x + 16 * j, 16, -4.0f, 3.0f);
    signed_scales(scale, 16, -32.0f, 31.0f, p + 108, stored);
    for (size_t j = 0; j < 16; j++)
        codes_symmetric(x + 16 * j, 16, scale[j], -4.0f, 3.0f, code + 16 * j);
    put_bits(code, 2, p);
    put_bit_pairs(code, 0, p + 32);
    memset(p + 96, 0, 12);
    for (size_t j = 0; j < 16; j++) {
        unsigned s = (unsigned)(stored[j] + 32);
        p[96 + j % 8] |= (uint8_t)((s & 15) << j / 8 * 4);
        p[104 + j % 4] |= (uint8_t)((s >> 4) << j / 4 * 2);
    }
}

/* Scales and minima of parts of `size` values, and the codes that go with them. */
static void affine_parts(const float *x, size_t size, float high, float most, uint8_t *d,
                         uint8_t *scales, uint8_t *mins, uint8_t *code)
{
    float scale[16], min[16];
    size_t n = SUPER / size;

    for (size_t j = 0; j < n; j++) {
        affine a = fit_affine(x + size * j, size, high);
        scale[j] = a.scale;
        min[j] = a.min;
    }
    unsigned_scales(scale, n, most, d, scales);
    unsigned_scales(min, n, most, d + 2, mins);
    for (size_t j = 0; j < n; j++)
        codes_affine(x + size * j, size, scale[j], min[j], high, code + size * j);
}

static void block_q2_k(const float *x, uint8_t *p)
{
    uint8_t code[SUPER], scales[16], mins[16];

    affine_parts(x, 16, 3.0f, 15.0f, p + 80, scales, mins, code);
    for (size_t j = 0; j < 16; j++)
        p[j] = (uint8_t)(scales[j] | mins[j] << 4);
    put_bit_pairs(code, 0, p + 16);
}

/* Eight scales and eight minima of 6 bits in 12 bytes. */
static void put_scales_and_mins(const uint8_t *scale, const uint8_t *min, uint8_t *p)
{
    for (size_t i = 0; i < 4; i++) {
        p[i] = (uint8_t)(scale[i] | (scale[4 + i] >> 4) << 6);
        p[4 + i] = (uint8_t)(min[i] | (min[4 + i] >> 4) << 6);
        p[8 + i] = (uint8_t)((scale[4 + i] & 15) | (min[4 + i] & 15) << 4);
    }
}

static void block_q4_k(const float *x, uint8_t *p)
{
    uint8_t code[SUPER], scales[8], mins[8];

    affine_parts(x, 32, 15.0f, 63.0f, p, scales, mins, code);
    put_scales_and_mins(scales, mins, p + 4);
    put_nibble_pairs(code, p + 16);
}

static void block_q5_k(const float *x, uint8_t *p)
{
    uint8_t code[SUPER], scales[8], mins[8];

    affine_parts(x, 32, 31.0f, 63.0f, p, scales, mins, code);
    put_scales_and_mins(scales, mins, p + 4);
    put_bits(code, 4, p + 16);
    put_nibble_pairs(code, p + 48);
}

static void block_iq4_xs(const float *x, uint8_t *p)
{
    const int8_t *level = tr_block_codes_of(TR_TYPE_IQ4_XS).level;
    float scale[8];
    int8_t stored[8];

    for (size_t j = 0; j < 8; j++)
        scale[j] = fit_levels(x + 32 * j, 32, level);
    signed_scales(scale, 8, -32.0f, 31.0f, p, stored);
    memset(p + 2, 0, 6);
    for (size_t j = 0; j < 8; j++) {
        uint8_t code[32];
        unsigned s = (unsigned)(stored[j] + 32);
        p[2 + j / 4] |= (uint8_t)((s >> 4) << j % 4 * 2);
        p[4 + j / 2] |= (uint8_t)((s & 15) << j % 2 * 4);
        codes_levels(x + 32 * j, 32, scale[j], level, code);
        put_nibbles(code, p + 8 + 16 * j);
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

typedef struct {
    void (*row)(const float *x, size_t n, void *row);
    void (*block)(const float *x, uint8_t *p); /* where row is NULL: of sane numbers */
} writer;

static const writer writers[TR_TYPE_COUNT] = {
    [TR_TYPE_F32] = { to_f32, NULL },          [TR_TYPE_F16] = { to_f16, NULL },
    [TR_TYPE_BF16] = { to_bf16, NULL },        [TR_TYPE_Q8_0] = { to_q8_0, NULL },
    [TR_TYPE_Q4_0] = { to_q4_0, NULL },        [TR_TYPE_Q4_1] = { NULL, block_q4_1 },
    [TR_TYPE_Q5_0] = { NULL, block_q5_0 },     [TR_TYPE_Q5_1] = { NULL, block_q5_1 },
    [TR_TYPE_Q2_K] = { NULL, block_q2_k },     [TR_TYPE_Q3_K] = { NULL, block_q3_k },
    [TR_TYPE_Q4_K] = { NULL, block_q4_k },     [TR_TYPE_Q5_K] = { NULL, block_q5_k },
    [TR_TYPE_Q6_K] = { NULL, block_q6_k },     [TR_TYPE_IQ4_NL] = { NULL, block_iq4_nl },
    [TR_TYPE_IQ4_XS] = { NULL, block_iq4_xs }, [TR_TYPE_MXFP4] = { NULL, block_mxfp4 },
};

bool tr_quantise_row(tr_type type, const float *x, size_t n, void *row)
{
    const tr_type_info *t = tr_type_get(type);
    uint8_t *p = row;

    if (type >= TR_TYPE_COUNT || (!writers[type].row && !writers[type].block))
        return false;
    if (writers[type].row) {
        writers[type].row(x, n, row);
        return true;
    }
    for (size_t i = 0; i < n; i += t->block, p += t->size) {
        float sane[SUPER];
        sane_copy(x + i, t->block, sane);
        writers[type].block(sane, p);
    }
    return true;
}
