/* cpu.c - ask the processor and the kernel.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/cpu.h"

#include <sched.h>
#include <stdio.h>

uint32_t tr_cpu_features(void)
{
    uint32_t features = 0;

#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        features |= TR_CPU_AVX2;
#endif
    return features;
}

/* Whole cores of a cgroup v2 quota; 0 if there is none. */
static size_t cgroup_cores(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    unsigned long long quota;
    unsigned long long period;
    size_t cores = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &quota, &period) == 2 && period > 0)
        cores = (size_t)((quota + period - 1) / period);
    fclose(f);
    return cores;
}

size_t tr_cpu_cores(void)
{
    cpu_set_t set;
    size_t n = 1;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = (size_t)CPU_COUNT(&set);
    size_t limit = cgroup_cores();
    if (limit > 0 && limit < n)
        n = limit;
    return n ? n : 1;
}
