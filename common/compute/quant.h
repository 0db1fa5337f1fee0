/* quant.h - the block formats as they lie in files.
 *
 * Each quantised row is a sequence of blocks; a block's values are (scale of the block) times
 * (small integers).  Sizes are pinned by static asserts in quant.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_QUANT_H
#define TR_COMPUTE_QUANT_H

#include "compute/kernels.h"

/* A block of activations without a value of this magnitude counts as zero: the inverse of
 * its scale would overflow. */
#define TR_Q8_TINY 0x1p-120f

/* value[i] = d * q[i] */
typedef struct {
    uint16_t d; /* half precision */
    int8_t q[32];
} tr_block_q8_0;

/* value[i] = d * (nibble - 8): low nibbles are values 0..15, high ones 16..31 */
typedef struct {
    uint16_t d;
    uint8_t q[16];
} tr_block_q4_0;

#endif
