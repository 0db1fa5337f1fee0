/* limits.h - what this machine can do at most, measured with the threads that will do the work.
 *
 * USE     tr_limits l;
 *         st = tr_limits_measure(&compute, &l);
 *         seconds at least: bytes / l.read_bytes, or the sum of operations / l.*_ops, whichever
 *         is more
 *
 * Every speed is shown beside these, measured in the same run on the same machine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_LIMITS_H
#define TR_COMPUTE_LIMITS_H

#include "compute/matrix.h"

typedef struct {
    double read_bytes; /* a second, from memory, all threads together */
    double int8_ops;   /* a second, of the kernel table's best instructions */
    double float_ops;  /* the same for float32 */
    double bf16_ops;   /* and for bfloat16; 0 if the processor has no such instruction */
} tr_limits;

/* Takes about a second and 1 GiB of memory meanwhile.  Each limit is the best of several tries. */
tr_status tr_limits_measure(const tr_compute *c, tr_limits *out);

#endif
