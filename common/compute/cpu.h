/* cpu.h - what this processor can do, and how many cores this process may use.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_CPU_H
#define TR_COMPUTE_CPU_H

#include <stddef.h>
#include <stdint.h>

enum {
    TR_CPU_AVX2 = 1 << 0,    /* AVX2, FMA and F16C, enabled by the operating system */
    TR_CPU_AVX512 = 1 << 1,  /* AVX-512 F, BW, DQ, VL and VNNI, enabled likewise */
    TR_CPU_DOTPROD = 1 << 2, /* 64-bit ARM's dot products of bytes, SDOT and UDOT */
};

uint32_t tr_cpu_features(void);

/* Cores that this process may run on (affinity and cgroup included); at least 1. */
size_t tr_cpu_cores(void);

/* Bytes of the largest cache as the system tells them; 0 if it does not. */
uint64_t tr_cpu_last_cache(void);

#endif
