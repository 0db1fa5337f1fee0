/* quant.c - rows to float; quantise.c goes the other way.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/quant.h"

#include "compute/blocks.h"

#include <assert.h>

static_assert(sizeof(tr_block_q8_0) == 34, "as in the file");
static_assert(sizeof(tr_block_q4_0) == 18, "as in the file");

static float float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof f);
    return f;
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

static float bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
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
