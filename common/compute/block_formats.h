/* block_formats.h - where scales and codes of each format are, as functions that a compiler which
 * knows the type puts into the loop over blocks.  blocks.h is for everybody else.
 *
 * Byte offsets in these functions are the formats' definitions; tests/golden/quant has vectors of
 * each.  Half-precision numbers lie at even offsets of a block, but a block of odd size makes
 * that no alignment, so they are read byte by byte.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_BLOCK_FORMATS_H
#define TR_COMPUTE_BLOCK_FORMATS_H

#include "compute/blocks.h"

static inline uint16_t half_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* Low nibbles are values 0..15, high ones 16..31. */
static inline void tr_block_low_codes(const uint8_t *p, uint8_t *code)
{
    for (size_t k = 0; k < 16; k++) {
        code[k] = p[k] & 15;
        code[16 + k] = p[k] >> 4;
    }
}

/* A number in each of eight bytes. */
#define TR_EIGHT_TIMES UINT64_C(0x0101010101010101)

/* The bits of `mask` above bit `from` of 32 bytes become bits of 32 codes from `to` on.  Eight
 * bytes are one number: what its shift brings into a byte from the next is not in the mask. */
static inline void take_bits(const uint8_t *p, size_t from, uint8_t mask, size_t to, uint8_t *code)
{
    for (size_t k = 0; k < 32; k += 8) {
        uint64_t bytes, codes;
        memcpy(&bytes, p + k, 8);
        memcpy(&codes, code + k, 8);
        codes |= (bytes >> from & mask * TR_EIGHT_TIMES) << to;
        memcpy(code + k, &codes, 8);
    }
}

/* Bit k of 32 is bit 4 of code k: of eight copies of a byte each keeps the bit that is its own, and
 * adding 127 makes that its highest one. */
static inline void fifth_bits(const uint8_t *p, uint8_t *code)
{
    for (size_t k = 0; k < 32; k += 8) {
        uint64_t own = p[k / 8] * TR_EIGHT_TIMES & UINT64_C(0x8040201008040201);
        uint64_t codes;
        memcpy(&codes, code + k, 8);
        codes |= (own + 127 * TR_EIGHT_TIMES) >> 3 & 16 * TR_EIGHT_TIMES;
        memcpy(code + k, &codes, 8);
    }
}

static inline void scale_both(tr_block_scales *s, int32_t scale, int32_t min)
{
    s->scale[0] = s->scale[1] = scale;
    s->min[0] = s->min[1] = min;
}

/* ---- blocks of 32: p is the block ------------------------------------------------------------ */

/* A half-precision scale. */
static inline void scales_one(const uint8_t *p, size_t i, tr_block_scales *s)
{
    (void)i;
    s->d = half_at(p);
    scale_both(s, 1, 0);
}

/* A scale and the lowest value, which is a minimum of the other sign. */
static inline void scales_lowest(const uint8_t *p, size_t i, tr_block_scales *s)
{
    (void)i;
    s->d = half_at(p);
    s->dmin = half_at(p + 2) ^ 0x8000;
    scale_both(s, 1, 1);
}

/* One byte of scale; the levels are twice the values that the format names. */
static inline void scales_mxfp4(const uint8_t *p, size_t i, tr_block_scales *s)
{
    (void)i;
    s->d = p[0];
    s->d_is_exponent = true;
    scale_both(s, 1, 0);
}

static inline void codes_q8_0(const uint8_t *p, size_t i, uint8_t *code)
{
    (void)i;
    for (size_t k = 0; k < 32; k++)
        code[k] = p[2 + k] ^ 0x80;
}

static inline void codes_q5_0(const uint8_t *p, size_t i, uint8_t *code)
{
    (void)i;
    tr_block_low_codes(p + 6, code);
    fifth_bits(p + 2, code);
}

static inline void codes_q5_1(const uint8_t *p, size_t i, uint8_t *code)
{
    (void)i;
    tr_block_low_codes(p + 8, code);
    fifth_bits(p + 4, code);
}

/* ---- blocks of 256: eight of 32 under one d; p is the big block, i which of the eight ------- */

/* Codes of the four blocks of each half of 256 are the bit pairs of the same 32 bytes. */
static inline void bit_pairs(const uint8_t *p, size_t i, uint8_t *code)
{
    memset(code, 0, 32);
    take_bits(p + i / 4 * 32, i % 4 * 2, 3, 0, code);
}

/* Codes of two blocks are the low and the high nibbles of the same 32 bytes. */
static inline void nibble_pairs(const uint8_t *p, size_t i, uint8_t *code)
{
    memset(code, 0, 32);
    take_bits(p + i / 2 * 32, i % 2 * 4, 15, 0, code);
}

static inline void scales_q2_k(const uint8_t *p, size_t i, tr_block_scales *s)
{
    s->d = half_at(p + 80);
    s->dmin = half_at(p + 82);
    for (size_t h = 0; h < 2; h++) {
        s->scale[h] = p[2 * i + h] & 15;
        s->min[h] = p[2 * i + h] >> 4;
    }
}

static inline void codes_q2_k(const uint8_t *p, size_t i, uint8_t *code)
{
    bit_pairs(p + 16, i, code);
}

/* Sixteen scales of 6 bits: low nibbles in 8 bytes, high pairs in 4. */
static inline int32_t q3_k_scale(const uint8_t *p, size_t n)
{
    int32_t low = p[n % 8] >> n / 8 * 4 & 15;
    int32_t high = p[8 + n % 4] >> n / 4 * 2 & 3;

    return (low | high << 4) - 32;
}

static inline void scales_q3_k(const uint8_t *p, size_t i, tr_block_scales *s)
{
    s->d = half_at(p + 108);
    for (size_t h = 0; h < 2; h++)
        s->scale[h] = q3_k_scale(p + 96, 2 * i + h);
}

static inline void codes_q3_k(const uint8_t *p, size_t i, uint8_t *code)
{
    bit_pairs(p + 32, i, code);
    take_bits(p, i, 1, 2, code);
}

/* Eight scales and eight minima of 6 bits in 12 bytes. */
static inline void scales_q4_k(const uint8_t *p, size_t i, tr_block_scales *s)
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

static inline void codes_q4_k(const uint8_t *p, size_t i, uint8_t *code)
{
    nibble_pairs(p + 16, i, code);
}

static inline void codes_q5_k(const uint8_t *p, size_t i, uint8_t *code)
{
    nibble_pairs(p + 48, i, code);
    take_bits(p + 16, i, 1, 4, code);
}

static inline void scales_q6_k(const uint8_t *p, size_t i, tr_block_scales *s)
{
    s->d = half_at(p + 208);
    for (size_t h = 0; h < 2; h++)
        s->scale[h] = (int8_t)p[192 + 2 * i + h];
}

static inline void codes_q6_k(const uint8_t *p, size_t i, uint8_t *code)
{
    memset(code, 0, 32);
    take_bits(p + i / 4 * 64 + i % 2 * 32, i % 4 / 2 * 4, 15, 0, code);
    take_bits(p + 128 + i / 4 * 32, i % 4 * 2, 3, 4, code);
}

static inline void scales_iq4_xs(const uint8_t *p, size_t i, tr_block_scales *s)
{
    int32_t low = p[4 + i / 2] >> i % 2 * 4 & 15;
    int32_t high = (p[2] | p[3] << 8) >> 2 * i & 3;

    s->d = half_at(p);
    scale_both(s, (low | high << 4) - 32, 0);
}

/* ---- the table ----------------------------------------------------------------------------- */

/* The 4-bit levels of the IQ4 types, spaced for weights that are normally distributed. */
static const int8_t tr_iq4_level[TR_BLOCK_LEVELS] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113 };

/* Twice the values of a 4-bit float with two bits of exponent and one of mantissa. */
static const int8_t tr_fp4_level[TR_BLOCK_LEVELS] = { 0, 1,  2,  3,  4,  6,  8,  12,
                                                      0, -1, -2, -3, -4, -6, -8, -12 };

/* codes may be NULL where nibbles are all there is of them. */
typedef struct {
    tr_block_codes codes;
    void (*get_scales)(const uint8_t *p, size_t i, tr_block_scales *s);
    void (*get_codes)(const uint8_t *p, size_t i, uint8_t *code);
    uint8_t nibbles; /* offset of tr_block_nibbles, 0: none */
} tr_block_format;

static const tr_block_format tr_block_formats[TR_TYPE_COUNT] = {
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
    [TR_TYPE_IQ4_NL] = { { 4, 0, tr_iq4_level }, scales_one, NULL, 2 },
    [TR_TYPE_IQ4_XS] = { { 4, 0, tr_iq4_level }, scales_iq4_xs, NULL, 8 },
    [TR_TYPE_MXFP4] = { { 4, 0, tr_fp4_level }, scales_mxfp4, NULL, 1 },
};

#endif
