/* blocks.c - scales and codes of each format, and a table of them.
 *
 * Byte offsets in these functions are the formats' definitions; tests/golden/quant has vectors of
 * each.  Half-precision numbers lie at even offsets of a block, but a block of odd size makes
 * that no alignment, so they are read byte by byte.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/blocks.h"

#include "base/check.h"
#include "compute/kernels.h"

static uint16_t half_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
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

static void scale_both(tr_block_scales *s, int32_t scale, int32_t min)
{
    s->scale[0] = s->scale[1] = scale;
    s->min[0] = s->min[1] = min;
}

/* ---- blocks of 32: p is the block ------------------------------------------------------------ */

/* A half-precision scale. */
static void scales_one(const uint8_t *p, size_t i, tr_block_scales *s)
{
    (void)i;
    s->d = half_at(p);
    scale_both(s, 1, 0);
}

/* A scale and the lowest value, which is a minimum of the other sign. */
static void scales_lowest(const uint8_t *p, size_t i, tr_block_scales *s)
{
    (void)i;
    s->d = half_at(p);
    s->dmin = half_at(p + 2) ^ 0x8000;
    scale_both(s, 1, 1);
}

/* One byte of scale; the levels are twice the values that the format names. */
static void scales_mxfp4(const uint8_t *p, size_t i, tr_block_scales *s)
{
    (void)i;
    s->d = p[0];
    s->d_is_exponent = true;
    scale_both(s, 1, 0);
}

static void codes_q8_0(const uint8_t *p, size_t i, uint8_t *code)
{
    (void)i;
    for (size_t k = 0; k < 32; k++)
        code[k] = p[2 + k] ^ 0x80;
}

static void codes_q5_0(const uint8_t *p, size_t i, uint8_t *code)
{
    (void)i;
    nibbles(p + 6, code);
    fifth_bits(p + 2, code);
}

static void codes_q5_1(const uint8_t *p, size_t i, uint8_t *code)
{
    (void)i;
    nibbles(p + 8, code);
    fifth_bits(p + 4, code);
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

static void scales_q2_k(const uint8_t *p, size_t i, tr_block_scales *s)
{
    s->d = half_at(p + 80);
    s->dmin = half_at(p + 82);
    for (size_t h = 0; h < 2; h++) {
        s->scale[h] = p[2 * i + h] & 15;
        s->min[h] = p[2 * i + h] >> 4;
    }
}

static void codes_q2_k(const uint8_t *p, size_t i, uint8_t *code)
{
    bit_pairs(p + 16, i, code);
}

/* Sixteen scales of 6 bits: low nibbles in 8 bytes, high pairs in 4. */
static int32_t q3_k_scale(const uint8_t *p, size_t n)
{
    int32_t low = p[n % 8] >> n / 8 * 4 & 15;
    int32_t high = p[8 + n % 4] >> n / 4 * 2 & 3;

    return (low | high << 4) - 32;
}

static void scales_q3_k(const uint8_t *p, size_t i, tr_block_scales *s)
{
    s->d = half_at(p + 108);
    for (size_t h = 0; h < 2; h++)
        s->scale[h] = q3_k_scale(p + 96, 2 * i + h);
}

static void codes_q3_k(const uint8_t *p, size_t i, uint8_t *code)
{
    bit_pairs(p + 32, i, code);
    for (size_t k = 0; k < 32; k++)
        code[k] |= (uint8_t)((p[k] >> i & 1) << 2);
}

/* Eight scales and eight minima of 6 bits in 12 bytes. */
static void scales_q4_k(const uint8_t *p, size_t i, tr_block_scales *s)
{
    const uint8_t *six = p + 4;

    s->d = half_at(p);
    s->dmin = half_at(p + 2);
    if (i < 4)
        scale_both(s, six[i] & 63, six[4 + i] & 63);
    else
        scale_both(s, (six[4 + i] & 15) | (six[i - 4] >> 6) << 4,
                   six[4 + i] >> 4 | (six[i] >> 6) << 4);
}

static void codes_q4_k(const uint8_t *p, size_t i, uint8_t *code)
{
    nibble_pairs(p + 16, i, code);
}

static void codes_q5_k(const uint8_t *p, size_t i, uint8_t *code)
{
    nibble_pairs(p + 48, i, code);
    for (size_t k = 0; k < 32; k++)
        code[k] |= (uint8_t)((p[16 + k] >> i & 1) << 4);
}

static void scales_q6_k(const uint8_t *p, size_t i, tr_block_scales *s)
{
    s->d = half_at(p + 208);
    for (size_t h = 0; h < 2; h++)
        s->scale[h] = (int8_t)p[192 + 2 * i + h];
}

static void codes_q6_k(const uint8_t *p, size_t i, uint8_t *code)
{
    const uint8_t *low = p + i / 4 * 64 + i % 2 * 32;
    const uint8_t *high = p + 128 + i / 4 * 32;

    for (size_t k = 0; k < 32; k++)
        code[k] = (uint8_t)((low[k] >> i % 4 / 2 * 4 & 15) | (high[k] >> i % 4 * 2 & 3) << 4);
}

static void scales_iq4_xs(const uint8_t *p, size_t i, tr_block_scales *s)
{
    int32_t low = p[4 + i / 2] >> i % 2 * 4 & 15;
    int32_t high = (p[2] | p[3] << 8) >> 2 * i & 3;

    s->d = half_at(p);
    scale_both(s, (low | high << 4) - 32, 0);
}

/* ---- the table ----------------------------------------------------------------------------- */

/* The 4-bit levels of the IQ4 types, spaced for weights that are normally distributed. */
static const int8_t iq4_level[TR_BLOCK_LEVELS] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                                   1,    13,   25,  38,  53,  69,  89,  113 };

/* Twice the values of a 4-bit float with two bits of exponent and one of mantissa. */
static const int8_t fp4_level[TR_BLOCK_LEVELS] = { 0, 1,  2,  3,  4,  6,  8,  12,
                                                   0, -1, -2, -3, -4, -6, -8, -12 };

/* codes may be NULL where nibbles are all there is of them. */
typedef struct {
    tr_block_codes codes;
    void (*get_scales)(const uint8_t *p, size_t i, tr_block_scales *s);
    void (*get_codes)(const uint8_t *p, size_t i, uint8_t *code);
    uint8_t nibbles; /* offset of tr_block_nibbles, 0: none */
} format;

static const format formats[TR_TYPE_COUNT] = {
    [TR_TYPE_Q8_0] = { { 8, 128, NULL }, scales_one, codes_q8_0, 0 },
    [TR_TYPE_Q4_0] = { { 4, 8, NULL }, scales_one, NULL, 2 },
    [TR_TYPE_Q4_1] = { { 4, 0, NULL }, scales_lowest, NULL, 4 },
    [TR_TYPE_Q5_0] = { { 5, 16, NULL }, scales_one, codes_q5_0, 6 },
    [TR_TYPE_Q5_1] = { { 5, 0, NULL }, scales_lowest, codes_q5_1, 8 },
    [TR_TYPE_Q2_K] = { { 2, 0, NULL }, scales_q2_k, codes_q2_k, 0 },
    [TR_TYPE_Q3_K] = { { 3, 4, NULL }, scales_q3_k, codes_q3_k, 0 },
    [TR_TYPE_Q4_K] = { { 4, 0, NULL }, scales_q4_k, codes_q4_k, 0 },
    [TR_TYPE_Q5_K] = { { 5, 0, NULL }, scales_q4_k, codes_q5_k, 0 },
    [TR_TYPE_Q6_K] = { { 6, 32, NULL }, scales_q6_k, codes_q6_k, 0 },
    [TR_TYPE_IQ4_NL] = { { 4, 0, iq4_level }, scales_one, NULL, 2 },
    [TR_TYPE_IQ4_XS] = { { 4, 0, iq4_level }, scales_iq4_xs, NULL, 8 },
    [TR_TYPE_MXFP4] = { { 4, 0, fp4_level }, scales_mxfp4, NULL, 1 },
};

bool tr_block_has(tr_type type)
{
    return type < TR_TYPE_COUNT && formats[type].get_scales;
}

tr_block_codes tr_block_codes_of(tr_type type)
{
    TR_CHECK(tr_block_has(type));
    return formats[type].codes;
}

/* The file's block that has block i of 32. */
static const uint8_t *file_block(tr_type type, const void *row, size_t i, size_t *part)
{
    const tr_type_info *t = tr_type_get(type);

    if (t->block == TR_BLOCK) {
        *part = 0;
        return (const uint8_t *)row + i * t->size;
    }
    *part = i % TR_SUPER;
    return (const uint8_t *)row + i / TR_SUPER * t->size;
}

void tr_block_get_scales(tr_type type, const void *row, size_t i, tr_block_scales *out)
{
    size_t part;
    const uint8_t *p = file_block(type, row, i, &part);

    *out = (tr_block_scales){ 0 };
    formats[type].get_scales(p, part, out);
}

const uint8_t *tr_block_nibbles(tr_type type, const void *row, size_t i)
{
    size_t part;
    const uint8_t *p = file_block(type, row, i, &part);

    return formats[type].nibbles ? p + formats[type].nibbles + part * 16 : NULL;
}

void tr_block_get_codes(tr_type type, const void *row, size_t i, uint8_t *code)
{
    size_t part;
    const uint8_t *p = file_block(type, row, i, &part);

    if (formats[type].get_codes)
        formats[type].get_codes(p, part, code);
    else
        nibbles(p + formats[type].nibbles + part * 16, code);
}

void tr_block_get(tr_type type, const void *row, size_t i, tr_block *out)
{
    tr_block_get_scales(type, row, i, &out->s);
    tr_block_get_codes(type, row, i, out->code);
}

float tr_block_exponent(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23; /* two are subnormal */
    float d;

    memcpy(&d, &bits, sizeof d);
    return d;
}

float tr_block_d(const tr_block_scales *s)
{
    return s->d_is_exponent ? tr_block_exponent((uint8_t)s->d) : tr_f16_to_f32(s->d);
}

float tr_block_dmin(const tr_block_scales *s)
{
    return tr_f16_to_f32(s->dmin);
}

void tr_block_values(const tr_block_codes *c, const tr_block *b, int8_t *q)
{
    for (size_t k = 0; k < TR_BLOCK; k++)
        q[k] = c->level ? c->level[b->code[k]] : (int8_t)(b->code[k] - c->offset);
}

void tr_block_floats(const tr_block_codes *c, const tr_block *b, float *out)
{
    float d = tr_block_d(&b->s);
    float dmin = tr_block_dmin(&b->s);
    int8_t q[TR_BLOCK];

    tr_block_values(c, b, q);
    for (size_t h = 0; h < 2; h++) {
        float scale = d * (float)b->s.scale[h];
        float min = dmin * (float)b->s.min[h];
        for (size_t k = h * 16; k < h * 16 + 16; k++)
            out[k] = scale * (float)q[k] - min;
    }
}
