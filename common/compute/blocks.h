/* blocks.h - what thirty-two weights of any quantised type say.
 *
 * Every quantised type comes apart into the same thing: 32 small codes, an integer scale and an
 * integer minimum for each half, and two floats:
 *
 *   value[i] = d * scale[i / 16] * q[i] - dmin * min[i / 16]
 *   q[i]     = code[i] - offset, or level[code[i]] for the types with a table of levels
 *
 * Types whose two halves are scaled alike have the same number twice, types without minima have
 * min = 0 and dmin = 0.  d * scale * q is exact in float for every type.  Products, conversion to
 * float and the layout of panels are all written once, in these terms.
 *
 * The formats are those of GGUF files; blocks are little-endian.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_BLOCKS_H
#define TR_COMPUTE_BLOCKS_H

#include "compute/types.h"

enum {
    TR_BLOCK = 32,        /* weights */
    TR_SUPER = 8,         /* blocks that share d in the types of 256 */
    TR_BLOCK_LEVELS = 16, /* of a type with a table */
};

/* The numbers that scale a block.  d and dmin are bits of half-precision numbers; in types with
 * exponents d is the exponent (tr_block_d). */
typedef struct {
    uint16_t d, dmin;
    bool d_is_exponent;
    int32_t scale[2], min[2];
} tr_block_scales;

typedef struct {
    tr_block_scales s;
    uint8_t code[TR_BLOCK];
} tr_block;

/* How a type's codes are to be read. */
typedef struct {
    uint8_t bits;        /* of a code: 2, 3, 4, 5, 6 or 8 */
    uint8_t offset;      /* to take off a code; 0 where there are levels */
    const int8_t *level; /* [TR_BLOCK_LEVELS] or NULL */
} tr_block_codes;

/* True for the types that blocks.h speaks of: all computable ones but F32, F16 and BF16. */
bool tr_block_has(tr_type type);

tr_block_codes tr_block_codes_of(tr_type type);

/* Block i of a row in the file's layout: all of it, its scales, its codes. tr_block_has(type) must
 * hold. */
void tr_block_get(tr_type type, const void *row, size_t i, tr_block *out);
void tr_block_get_scales(tr_type type, const void *row, size_t i, tr_block_scales *out);
void tr_block_get_codes(tr_type type, const void *row, size_t i, uint8_t *code);

/* The 16 bytes of a block that have the low four bits of codes 0..15 in low nibbles and those of
 * 16..31 in high ones; NULL for types that keep them another way. */
const uint8_t *tr_block_nibbles(tr_type type, const void *row, size_t i);

/* The scale that one byte of a type with exponents means: 2^(e - 128). */
float tr_block_exponent(uint8_t e);

float tr_block_d(const tr_block_scales *s);
float tr_block_dmin(const tr_block_scales *s);

/* The 32 values q of a block. */
void tr_block_values(const tr_block_codes *c, const tr_block *b, int8_t *q);

/* The 32 weights, rounded once each: d * scale * q and dmin * min are exact. */
void tr_block_floats(const tr_block_codes *c, const tr_block *b, float *out);

#endif
