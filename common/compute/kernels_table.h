/* kernels_table.h - how the tables of instruction sets are put together.
 *
 * tr_kernels_c fills everything; each following function overwrites what it improves and sets
 * the name.  kernels.c builds each table once.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_KERNELS_TABLE_H
#define TR_COMPUTE_KERNELS_TABLE_H

#include "compute/kernels.h"

/* A part of a kernel that is made again for each type: worth nothing unless it is inlined. */
#define TR_INLINE static inline __attribute__((always_inline))

void tr_kernels_c(tr_kernels *k);

/* Only where the build has TR_HAVE_AVX2; the _panels functions are called by the ones before. */
void tr_kernels_avx2(tr_kernels *k);
void tr_kernels_avx2_panels(tr_kernels *k);
void tr_kernels_avx512(tr_kernels *k);
void tr_kernels_avx512_panels(tr_kernels *k);

#endif
