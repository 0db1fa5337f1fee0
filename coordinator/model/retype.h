/* retype.h - rows of a tensor from one type to another, a stripe at a time, over all threads.
 *
 * USE     tr_retype r;
 *         st = tr_retype_init(&r, TR_TYPE_BF16, TR_TYPE_Q4_K, 4096);
 *         ... put n <= r.n_rows rows of r.row_in bytes into r.in ...
 *         tr_bytes rows = tr_retype_rows(&r, pool, n);     n rows of r.row_out bytes
 *         tr_retype_fini(&r);
 *
 * Where both types are the same the rows are handed through.  A stripe is a megabyte of values, or
 * one row if that is longer.
 *
 * FAILS   TR_E_FORMAT  a row is no whole number of blocks of either type
 *         TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_RETYPE_H
#define TR_COORDINATOR_MODEL_RETYPE_H

#include "base/status.h"
#include "compute/pool.h"
#include "compute/types.h"

typedef struct {
    tr_type from, to;
    size_t n_in, row_in, row_out; /* values, bytes, bytes */
    size_t n_rows;                /* of a stripe */
    uint8_t *in;                  /* [n_rows][row_in], the caller's to fill */
    double error, size; /* sums of squares over what changed so far: of differences, of values */

    float *floats;          /* [n_rows][n_in] */
    uint8_t *out;           /* [n_rows][row_out] */
    double *errors, *sizes; /* [n_rows] */
} tr_retype;

tr_status tr_retype_init(tr_retype *r, tr_type from, tr_type to, size_t n_in);
void tr_retype_fini(tr_retype *r);

/* A view that lives until the next call. */
tr_bytes tr_retype_rows(tr_retype *r, tr_pool *pool, size_t n);

#endif
