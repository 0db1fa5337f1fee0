/* rows.h - rows of a converted tensor, gathered from the files of a directory.
 *
 * USE     tr_row_reader r;
 *         st = tr_row_reader_init(&r, recipe, n);        at most n rows at a time
 *         st = tr_row_reader_read(&r, first, n, to);     n rows in the recipe's type `from`
 *         tr_row_reader_fini(&r);
 *
 * A few megabytes are held: the rows asked for, and the stretch of a source that they lie in.
 *
 * F8_E4M3 has 4 bits of exponent (bias 7), 3 of mantissa, no infinities (Micikevicius et al., "FP8
 * formats for deep learning", 2022); a value times its block's scale is rounded once.  MXFP4 has
 * the same exponents and codes in directories and in GGUF files, but a block's codes in another
 * order: pairs of neighbours in a byte there, values i and i + 16 here.
 *
 * FAILS   TR_E_IO  a source can't be read; TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_ROWS_H
#define TR_COORDINATOR_CONVERT_ROWS_H

#include "coordinator/convert/recipes.h"

typedef struct {
    const tr_recipe *recipe;
    uint8_t *stretch; /* rows of a source as they lie there */
    uint8_t *scales;  /* MXFP4: of that stretch; F8: of the whole source, floats */
    size_t scales_of; /* F8: index of that source + 1 */
    float f8[256];    /* the value of each code */
} tr_row_reader;

tr_status tr_row_reader_init(tr_row_reader *r, const tr_recipe *recipe, size_t n);
void tr_row_reader_fini(tr_row_reader *r);

tr_status tr_row_reader_read(tr_row_reader *r, uint64_t first, size_t n, uint8_t *to);

/* The value of one F8_E4M3 code; both of its NaN are one. */
float tr_f8_e4m3(uint8_t code);

#endif
