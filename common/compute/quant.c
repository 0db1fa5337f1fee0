/* quant.c - rows to float and back.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/quant.h"

#include "compute/blocks.h"

#include <assert.h>
#include <math.h>

static_assert(sizeof(tr_block_q8_0) == 34, "as in the file");
static_assert(sizeof(tr_block_q4_0) == 18, "as in the file");

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

float tr_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 0x1f;
    uint32_t mantissa = h & 0x3ff;

    if (exponent == 0) {
        /* zero or subnormal: mantissa * 2^-24 is exact */
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31)
        return float_of(sign | 0x7f800000u | (mantissa << 13));
    return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

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

static float bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

static uint16_t f32_to_bf16(float f)
{
    uint32_t bits = bits_of(f);

    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* ---- to float: n elements, whole blocks ------------------------------------------------ */

static void from_f32(const void *row, size_t n, float *out)
{
    memcpy(out, row, n * sizeof(float));
}

static void from_f16(const void *row, size_t n, float *out)
{
    const uint16_t *half = row;

    for (size_t i = 0; i < n; i++)
        out[i] = tr_f16_to_f32(half[i]);
}

static void from_bf16(const void *row, size_t n, float *out)
{
    const uint16_t *half = row;

    for (size_t i = 0; i < n; i++)
        out[i] = bf16_to_f32(half[i]);
}

static void from_blocks(tr_type type, const void *row, size_t n, float *out)
{
    tr_block_codes codes = tr_block_codes_of(type);

    for (size_t i = 0; i < n / TR_BLOCK; i++) {
        tr_block b;
        tr_block_get(type, row, i, &b);
        tr_block_floats(&codes, &b, out + i * TR_BLOCK);
    }
}

void tr_dequantise_row(tr_type type, const void *row, size_t n, float *out)
{
    if (type == TR_TYPE_F32)
        from_f32(row, n, out);
    else if (type == TR_TYPE_F16)
        from_f16(row, n, out);
    else if (type == TR_TYPE_BF16)
        from_bf16(row, n, out);
    else
        from_blocks(type, row, n, out);
}

/* ---- from float --------------------------------------------------------------------- */

/* 1 / d, or 0 where that is no number: such a block is all zero in half precision anyway. */
static float inverse_of(float d)
{
    float inverse = 1.0f / d;

    return isfinite(inverse) ? inverse : 0.0f;
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

static void to_q8_0(const float *x, size_t n, void *row)
{
    tr_block_q8_0 *b = row;

    for (size_t i = 0; i < n / 32; i++, x += 32) {
        float largest = 0.0f;
        for (size_t j = 0; j < 32; j++)
            largest = fmaxf(largest, fabsf(x[j]));
        float d = largest / 127.0f;
        float inverse = inverse_of(d);
        b[i].d = tr_f32_to_f16(d);
        for (size_t j = 0; j < 32; j++)
            b[i].q[j] = (int8_t)roundf(x[j] * inverse);
    }
}

/* The value of largest magnitude becomes -8, the end of the range that has one more step. */
static void to_q4_0(const float *x, size_t n, void *row)
{
    tr_block_q4_0 *b = row;

    for (size_t i = 0; i < n / 32; i++, x += 32) {
        float extreme = 0.0f;
        for (size_t j = 0; j < 32; j++)
            if (fabsf(x[j]) > fabsf(extreme))
                extreme = x[j];
        float d = extreme / -8.0f;
        float inverse = inverse_of(d);
        b[i].d = tr_f32_to_f16(d);
        for (size_t j = 0; j < 16; j++) {
            float lo = fminf(15.0f, floorf(x[j] * inverse + 8.5f));
            float hi = fminf(15.0f, floorf(x[16 + j] * inverse + 8.5f));
            b[i].q[j] = (uint8_t)((unsigned)lo | (unsigned)hi << 4);
        }
    }
}

typedef void (*to_fn)(const float *x, size_t n, void *row);

static const to_fn to_type[TR_TYPE_COUNT] = {
    [TR_TYPE_F32] = to_f32,   [TR_TYPE_F16] = to_f16,   [TR_TYPE_BF16] = to_bf16,
    [TR_TYPE_Q8_0] = to_q8_0, [TR_TYPE_Q4_0] = to_q4_0,
};

bool tr_quantise_row(tr_type type, const float *x, size_t n, void *row)
{
    if (type >= TR_TYPE_COUNT || !to_type[type])
        return false;
    to_type[type](x, n, row);
    return true;
}
