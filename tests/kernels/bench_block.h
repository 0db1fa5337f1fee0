/* bench_block.h - memory for benchmarks, which have nobody to tell that there is none.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_KERNELS_BENCH_BLOCK_H
#define TR_TESTS_KERNELS_BENCH_BLOCK_H

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

/* Zeros, at the start of a cache line. */
static inline void *block_new(size_t size)
{
    void *p = aligned_alloc(64, tr_align_up(size, 64));

    if (!p)
        abort();
    memset(p, 0, tr_align_up(size, 64));
    return p;
}

#endif
