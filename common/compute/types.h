/* types.h - the element types of tensors, numbered as in GGUF files.
 *
 * A tensor's row is a sequence of blocks; a block holds `block` elements in `size` bytes.
 * Types that are not `computable` are known well enough to walk a file past them
 * and to name them in an error.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_TYPES_H
#define TR_COMPUTE_TYPES_H

#include "base/bytes.h"

typedef enum {
    TR_TYPE_F32 = 0,
    TR_TYPE_F16 = 1,
    TR_TYPE_Q4_0 = 2,
    TR_TYPE_Q4_1 = 3,
    TR_TYPE_Q5_0 = 6,
    TR_TYPE_Q5_1 = 7,
    TR_TYPE_Q8_0 = 8,
    TR_TYPE_Q8_1 = 9,
    TR_TYPE_Q2_K = 10,
    TR_TYPE_Q3_K = 11,
    TR_TYPE_Q4_K = 12,
    TR_TYPE_Q5_K = 13,
    TR_TYPE_Q6_K = 14,
    TR_TYPE_Q8_K = 15,
    TR_TYPE_IQ2_XXS = 16,
    TR_TYPE_IQ2_XS = 17,
    TR_TYPE_IQ3_XXS = 18,
    TR_TYPE_IQ1_S = 19,
    TR_TYPE_IQ4_NL = 20,
    TR_TYPE_IQ3_S = 21,
    TR_TYPE_IQ2_S = 22,
    TR_TYPE_IQ4_XS = 23,
    TR_TYPE_I8 = 24,
    TR_TYPE_I16 = 25,
    TR_TYPE_I32 = 26,
    TR_TYPE_I64 = 27,
    TR_TYPE_F64 = 28,
    TR_TYPE_IQ1_M = 29,
    TR_TYPE_BF16 = 30,
    TR_TYPE_TQ1_0 = 34,
    TR_TYPE_TQ2_0 = 35,
    TR_TYPE_MXFP4 = 39,
    TR_TYPE_COUNT = 40, /* size of a table indexed by type */
} tr_type;

typedef struct {
    const char *name; /* "Q8_0" */
    uint32_t block;   /* elements in a block */
    uint32_t size;    /* bytes of a block */
    bool computable;  /* kernels exist for it */
} tr_type_info;

/* NULL for a number that is no known type. */
const tr_type_info *tr_type_get(uint32_t type);

/* By name, in any case ("q8_0"); false if unknown. */
bool tr_type_find(const char *name, tr_type *out);

/* Bytes of a row of n elements; false if n is no multiple of the block or on overflow. */
bool tr_type_row_size(tr_type type, size_t n, size_t *out);

#endif
