/* panels.h - quantised weights laid out so that one vector holds sixteen outputs.
 *
 * A panel is sixteen rows.  Its codes come first, block of 32 inputs after block, then integer
 * scales, then floating scales, so that each of the three is a stream:
 *
 *   codes   [n_in / 32][code_size]       low bits, then high bits, as below
 *   small   [n_in / 32][n_small][16]     a byte for each row: scales and minima of a block
 *   halves  [n_in / 32 or / 256][n_half][16]   half precision: d, then dmin
 *
 * A code's place: byte 4*r+i of vector v is row r, input 4*v+i of the block, v = 0..7.
 *
 *   low 8   eight vectors of 64 bytes
 *   low 4   four: vector j has v = j in its low nibbles, v = j+4 in its high ones
 *   low 2   two: vector j has v = j, j+2, j+4, j+6 in its bit pairs, lowest first
 *   high 2  two more, in the same order: the codes' bits above the low ones
 *   high 1  one more: bit v of each byte belongs to vector v
 *
 * Codes are unsigned (blocks.h), because the instruction that sums four products at once wants one
 * side so; what their offset adds is taken off with the sums of the activations.
 *
 * A last panel that is not full has zeros.  Apart from that a panel takes the bytes of the file's
 * rows, and up to 4 % more where the file packs 6-bit scales that are whole bytes here.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_PANELS_H
#define TR_COMPUTE_PANELS_H

#include "compute/blocks.h"

enum {
    TR_PANEL = 16,        /* rows */
    TR_PANEL_VECTOR = 64, /* bytes: four codes of each row */
    TR_PANEL_VECTORS = 8, /* of a block, once unpacked */
};

/* What the small bytes of a block are. */
typedef enum {
    TR_SMALL_NONE,
    TR_SMALL_EXPONENT,    /* e: the scale is 2^(e - 128); there are no halves */
    TR_SMALL_SCALE,       /* int8 scale of the block */
    TR_SMALL_SCALE_MIN,   /* scale, then min */
    TR_SMALL_SCALES,      /* int8 scales of its two halves */
    TR_SMALL_SCALES_MINS, /* of its two halves: scale in the low nibble, min in the high one */
} tr_small;

typedef struct {
    uint8_t low, high; /* bits of a code's two parts */
    uint8_t offset;    /* of a code */
    bool has_levels;   /* a code is an index (blocks.h) */
    tr_small small;
    uint8_t n_small; /* bytes of a row's block */
    uint8_t n_half;  /* 0, 1: d, 2: d and dmin */
    bool is_super;   /* halves are shared by eight blocks */
} tr_panel_format;

/* The format of a type that tr_block_has.  Written so that a compiler that knows the type knows all
 * of it: kernels are one function, made again for each type. */
static inline tr_panel_format tr_panel_format_of(tr_type type)
{
    switch (type) {
    case TR_TYPE_Q8_0:
        return (tr_panel_format){ 8, 0, 128, false, TR_SMALL_NONE, 0, 1, false };
    case TR_TYPE_Q4_0:
        return (tr_panel_format){ 4, 0, 8, false, TR_SMALL_NONE, 0, 1, false };
    case TR_TYPE_Q4_1:
        return (tr_panel_format){ 4, 0, 0, false, TR_SMALL_NONE, 0, 2, false };
    case TR_TYPE_Q5_0:
        return (tr_panel_format){ 4, 1, 16, false, TR_SMALL_NONE, 0, 1, false };
    case TR_TYPE_Q5_1:
        return (tr_panel_format){ 4, 1, 0, false, TR_SMALL_NONE, 0, 2, false };
    case TR_TYPE_Q2_K:
        return (tr_panel_format){ 2, 0, 0, false, TR_SMALL_SCALES_MINS, 2, 2, true };
    case TR_TYPE_Q3_K:
        return (tr_panel_format){ 2, 1, 4, false, TR_SMALL_SCALES, 2, 1, true };
    case TR_TYPE_Q4_K:
        return (tr_panel_format){ 4, 0, 0, false, TR_SMALL_SCALE_MIN, 2, 2, true };
    case TR_TYPE_Q5_K:
        return (tr_panel_format){ 4, 1, 0, false, TR_SMALL_SCALE_MIN, 2, 2, true };
    case TR_TYPE_Q6_K:
        return (tr_panel_format){ 4, 2, 32, false, TR_SMALL_SCALES, 2, 1, true };
    case TR_TYPE_IQ4_NL:
        return (tr_panel_format){ 4, 0, 0, true, TR_SMALL_NONE, 0, 1, false };
    case TR_TYPE_IQ4_XS:
        return (tr_panel_format){ 4, 0, 0, true, TR_SMALL_SCALE, 1, 1, true };
    default: /* TR_TYPE_MXFP4 */
        return (tr_panel_format){ 4, 0, 0, true, TR_SMALL_EXPONENT, 1, 0, false };
    }
}

/* Bytes of a block's codes for sixteen rows. */
static inline size_t tr_panel_codes(tr_panel_format f)
{
    return (size_t)(f.low + f.high) * TR_PANEL_VECTOR;
}

/* Where the three parts of a panel of n_in inputs are. */
typedef struct {
    size_t small, halves, end; /* the codes are at 0 */
} tr_panel_parts;

static inline tr_panel_parts tr_panel_parts_of(tr_panel_format f, size_t n_in)
{
    size_t n_blocks = n_in / TR_BLOCK;
    size_t small = n_blocks * tr_panel_codes(f);
    size_t halves = small + n_blocks * f.n_small * TR_PANEL;
    size_t groups = f.is_super ? n_blocks / TR_SUPER : n_blocks;

    return (tr_panel_parts){ small, halves,
                             halves + groups * f.n_half * TR_PANEL * sizeof(uint16_t) };
}

/* True for the types that have panels: every quantised one. */
bool tr_panels_has(tr_type type);

/* Bytes of one panel of rows of n_in elements. */
size_t tr_panel_size(tr_type type, size_t n_in);

/* Bytes of a whole matrix. */
static inline size_t tr_panels_size(tr_type type, size_t n_in, size_t n_out)
{
    return (n_out + TR_PANEL - 1) / TR_PANEL * tr_panel_size(type, n_in);
}

/* Lay out n_rows (1..16) rows of the file's layout, row_size bytes apart, as one panel. */
void tr_panel_pack(tr_type type, size_t n_in, const void *rows, size_t row_size, size_t n_rows,
                   void *panel);

/* Row r (0..15) of a panel as n_in floats: the bits that tr_dequantise_row gives. */
void tr_panel_row(tr_type type, size_t n_in, const void *panel, size_t r, float *out);

#endif
