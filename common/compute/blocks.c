/* blocks.c - one function per format, and a table of them.
 *
 * Byte offsets in these functions are the formats' definitions; tests/golden/quant has vectors of
 * each.  Half-precision numbers lie at even offsets of a block, but a block of odd size makes
 * that no alignment, so they are read byte by byte.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/blocks.h"

#include "base/check.h"
#include "compute/kernels.h"

static float half_at(const uint8_t *p)
{
    return tr_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* Low nibbles are values 0..15, high ones 16..31. */
static void nibbles(const uint8_t *p, uint8_t *code)
{
    for (size_t k = 0; k < 16; k++) {
        code[k] = p[k] & 15;
        code[16 + k] = p[k] >> 4;
    }
}

/* Bit k of 32 is bit 4 of code k. */
static void fifth_bits(const uint8_t *p, uint8_t *code)
{
    for (size_t k = 0; k < 32; k++)
        code[k] |= (uint8_t)((p[k / 8] >> k % 8 & 1) << 4);
}

static void scale_both(tr_block *b, int32_t scale, int32_t min)
{
    b->scale[0] = b->scale[1] = scale;
    b->min[0] = b->min[1] = min;
}

/* ---- blocks of 32: a half-precision scale, some with a half-precision lowest value ---------- */

static void get_q8_0(const uint8_t *p, size_t i, tr_block *b)
{
    (void)i;
    b->d = half_at(p);
    b->dmin = 0.0f;
    scale_both(b, 1, 0);
    for (size_t k = 0; k < 32; k++)
        b->code[k] = p[2 + k] ^ 0x80;
}

static void get_q4_0(const uint8_t *p, size_t i, tr_block *b)
{
    (void)i;
    b->d = half_at(p);
    b->dmin = 0.0f;
    scale_both(b, 1, 0);
    nibbles(p + 2, b->code);
}

static void get_q4_1(const uint8_t *p, size_t i, tr_block *b)
{
    (void)i;
    b->d = half_at(p);
    b->dmin = -half_at(p + 2);
    scale_both(b, 1, 1);
    nibbles(p + 4, b->code);
}

static void get_q5_0(const uint8_t *p, size_t i, tr_block *b)
{
    get_q4_0(p + 4, i, b); /* its scale is replaced */
    b->d = half_at(p);
    fifth_bits(p + 2, b->code);
}

static void get_q5_1(const uint8_t *p, size_t i, tr_block *b)
{
    (void)i;
    b->d = half_at(p);
    b->dmin = -half_at(p + 2);
    scale_both(b, 1, 1);
    nibbles(p + 8, b->code);
    fifth_bits(p + 4, b->code);
}

float tr_block_exponent(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23; /* two are subnormal */
    float d;

    memcpy(&d, &bits, sizeof d);
    return d;
}

/* One byte of scale; the levels are twice the values that the format names. */
static void get_mxfp4(const uint8_t *p, size_t i, tr_block *b)
{
    (void)i;
    b->d = tr_block_exponent(p[0]);
    b->dmin = 0.0f;
    scale_both(b, 1, 0);
    nibbles(p + 1, b->code);
}

/* ---- blocks of 256: eight of 32 under one d; p is the big block, i which of the eight ------- */

/* Codes of the four blocks of each half of 256 are the bit pairs of the same 32 bytes. */
static void bit_pairs(const uint8_t *p, size_t i, uint8_t *code)
{
    for (size_t k = 0; k < 32; k++)
        code[k] = p[i / 4 * 32 + k] >> i % 4 * 2 & 3;
}

/* Codes of two blocks are the low and the high nibbles of the same 32 bytes. */
static void nibble_pairs(const uint8_t *p, size_t i, uint8_t *code)
{
    for (size_t k = 0; k < 32; k++)
        code[k] = p[i / 2 * 32 + k] >> i % 2 * 4 & 15;
}

static void get_q2_k(const uint8_t *p, size_t i, tr_block *b)
{
    b->d = half_at(p + 80);
    b->dmin = half_at(p + 82);
    for (size_t h = 0; h < 2; h++) {
        b->scale[h] = p[2 * i + h] & 15;
        b->min[h] = p[2 * i + h] >> 4;
    }
    bit_pairs(p + 16, i, b->code);
}

/* Sixteen scales of 6 bits: low nibbles in 8 bytes, high pairs in 4. */
static int32_t q3_k_scale(const uint8_t *p, size_t n)
{
    int32_t low = p[n % 8] >> n / 8 * 4 & 15;
    int32_t high = p[8 + n % 4] >> n / 4 * 2 & 3;

    return (low | high << 4) - 32;
}

static void get_q3_k(const uint8_t *p, size_t i, tr_block *b)
{
    b->d = half_at(p + 108);
    b->dmin = 0.0f;
    for (size_t h = 0; h < 2; h++) {
        b->scale[h] = q3_k_scale(p + 96, 2 * i + h);
        b->min[h] = 0;
    }
    bit_pairs(p + 32, i, b->code);
    for (size_t k = 0; k < 32; k++)
        b->code[k] |= (uint8_t)((p[k] >> i & 1) << 2);
}

/* Eight scales and eight minima of 6 bits in 12 bytes. */
static void scale_and_min(const uint8_t *p, size_t i, tr_block *b)
{
    if (i < 4)
        scale_both(b, p[i] & 63, p[4 + i] & 63);
    else
        scale_both(b, (p[4 + i] & 15) | (p[i - 4] >> 6) << 4, p[4 + i] >> 4 | (p[i] >> 6) << 4);
}

static void get_q4_k(const uint8_t *p, size_t i, tr_block *b)
{
    b->d = half_at(p);
    b->dmin = half_at(p + 2);
    scale_and_min(p + 4, i, b);
    nibble_pairs(p + 16, i, b->code);
}

static void get_q5_k(const uint8_t *p, size_t i, tr_block *b)
{
    b->d = half_at(p);
    b->dmin = half_at(p + 2);
    scale_and_min(p + 4, i, b);
    nibble_pairs(p + 48, i, b->code);
    for (size_t k = 0; k < 32; k++)
        b->code[k] |= (uint8_t)((p[16 + k] >> i & 1) << 4);
}

static void get_q6_k(const uint8_t *p, size_t i, tr_block *b)
{
    const uint8_t *low = p + i / 4 * 64 + i % 2 * 32;
    const uint8_t *high = p + 128 + i / 4 * 32;

    b->d = half_at(p + 208);
    b->dmin = 0.0f;
    for (size_t h = 0; h < 2; h++) {
        b->scale[h] = (int8_t)p[192 + 2 * i + h];
        b->min[h] = 0;
    }
    for (size_t k = 0; k < 32; k++)
        b->code[k] = (uint8_t)((low[k] >> i % 4 / 2 * 4 & 15) | (high[k] >> i % 4 * 2 & 3) << 4);
}

static void get_iq4_xs(const uint8_t *p, size_t i, tr_block *b)
{
    int32_t low = p[4 + i / 2] >> i % 2 * 4 & 15;
    int32_t high = (p[2] | p[3] << 8) >> 2 * i & 3;

    b->d = half_at(p);
    b->dmin = 0.0f;
    scale_both(b, (low | high << 4) - 32, 0);
    nibbles(p + 8 + 16 * i, b->code);
}

/* ---- the table ----------------------------------------------------------------------------- */

/* The 4-bit levels of the IQ4 types, spaced for weights that are normally distributed. */
static const int8_t iq4_level[TR_BLOCK_LEVELS] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                                   1,    13,   25,  38,  53,  69,  89,  113 };

/* Twice the values of a 4-bit float with two bits of exponent and one of mantissa. */
static const int8_t fp4_level[TR_BLOCK_LEVELS] = { 0, 1,  2,  3,  4,  6,  8,  12,
                                                   0, -1, -2, -3, -4, -6, -8, -12 };

typedef struct {
    void (*get)(const uint8_t *p, size_t i, tr_block *b);
    tr_block_codes codes;
} format;

static const format formats[TR_TYPE_COUNT] = {
    [TR_TYPE_Q8_0] = { get_q8_0, { 8, 128, NULL } },
    [TR_TYPE_Q4_0] = { get_q4_0, { 4, 8, NULL } },
    [TR_TYPE_Q4_1] = { get_q4_1, { 4, 0, NULL } },
    [TR_TYPE_Q5_0] = { get_q5_0, { 5, 16, NULL } },
    [TR_TYPE_Q5_1] = { get_q5_1, { 5, 0, NULL } },
    [TR_TYPE_Q2_K] = { get_q2_k, { 2, 0, NULL } },
    [TR_TYPE_Q3_K] = { get_q3_k, { 3, 4, NULL } },
    [TR_TYPE_Q4_K] = { get_q4_k, { 4, 0, NULL } },
    [TR_TYPE_Q5_K] = { get_q5_k, { 5, 0, NULL } },
    [TR_TYPE_Q6_K] = { get_q6_k, { 6, 32, NULL } },
    [TR_TYPE_IQ4_NL] = { get_q4_0, { 4, 0, iq4_level } },
    [TR_TYPE_IQ4_XS] = { get_iq4_xs, { 4, 0, iq4_level } },
    [TR_TYPE_MXFP4] = { get_mxfp4, { 4, 0, fp4_level } },
};

bool tr_block_has(tr_type type)
{
    return type < TR_TYPE_COUNT && formats[type].get;
}

tr_block_codes tr_block_codes_of(tr_type type)
{
    TR_CHECK(tr_block_has(type));
    return formats[type].codes;
}

void tr_block_get(tr_type type, const void *row, size_t i, tr_block *out)
{
    const tr_type_info *t = tr_type_get(type);
    size_t per = t->block / TR_BLOCK;

    formats[type].get((const uint8_t *)row + i / per * t->size, i % per, out);
}

void tr_block_values(const tr_block_codes *c, const tr_block *b, int8_t *q)
{
    for (size_t k = 0; k < TR_BLOCK; k++)
        q[k] = c->level ? c->level[b->code[k]] : (int8_t)(b->code[k] - c->offset);
}

void tr_block_floats(const tr_block_codes *c, const tr_block *b, float *out)
{
    int8_t q[TR_BLOCK];

    tr_block_values(c, b, q);
    for (size_t h = 0; h < 2; h++) {
        float scale = b->d * (float)b->scale[h];
        float min = b->dmin * (float)b->min[h];
        for (size_t k = h * 16; k < h * 16 + 16; k++)
            out[k] = scale * (float)q[k] - min;
    }
}
