/* panels.h - weights laid out so that one vector holds sixteen outputs.
 *
 * A panel is sixteen rows.  Its codes come first, block of 32 inputs after block, then its scales:
 *
 *   codes   [n_in / 32][vectors][64]   byte 4*r+i of vector v is row r, input 4*v+i of the block
 *   scales  [n_in / 32][16]            half precision, row r at r
 *
 * Q8_0 has 8 vectors a block; a byte is the code plus 128.  Q4_0 has 4: low nibbles are vector v,
 * high nibbles vector v + 4, as in the file the code plus 8.  Codes are unsigned because the
 * instruction that sums four products at once wants one side so; what that adds is taken off
 * with the block sums of the activations.  Sixteen scales are one load, and a product needs one
 * conversion and one scaling for 512 multiplications.
 *
 * A last panel that is not full has zeros.  It takes no more bytes than the file's layout but
 * for that.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_PANELS_H
#define TR_COMPUTE_PANELS_H

#include "compute/kernels.h"

enum { TR_PANEL = 16 };

/* True for the types that have panels: Q8_0 and Q4_0. */
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

#endif
