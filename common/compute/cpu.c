/* cpu.c - ask the processor and the kernel.
 *
 * The cores of a process are the least of three: those that its affinity names, and the time
 * quotas of its cgroup and of every cgroup above it (containers, Slurm, systemd units).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/cpu.h"

#include "base/cgroup.h"
#include "compute/cpu_quota.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)
/* Half-precision conversion; not every compiler's __builtin_cpu_supports knows it. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
#endif

uint32_t tr_cpu_features(void)
{
    uint32_t features = 0;

#if defined(__x86_64__)
    __builtin_cpu_init(); /* asks the operating system too: XGETBV */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        features |= TR_CPU_AVX2;
    if ((features & TR_CPU_AVX2) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        features |= TR_CPU_AVX512;
#elif defined(__aarch64__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
        features |= TR_CPU_DOTPROD;
#endif
    return features;
}

/* Cores of the affinity mask, however many the machine has. */
static size_t affinity_cores(void)
{
    for (size_t n = 1024; n <= (size_t)1 << 20; n *= 2) {
        cpu_set_t *set = CPU_ALLOC(n);
        size_t size = CPU_ALLOC_SIZE(n);
        size_t count = 0;
        if (!set)
            break;
        if (sched_getaffinity(0, size, set) == 0)
            count = (size_t)CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
}

/* Whole cores that a quota amounts to, rounded up. */
static size_t cores_of(long long quota, long long period)
{
    return quota > 0 && period > 0 ? (size_t)((quota - 1) / period + 1) : SIZE_MAX;
}

static void lower(void *ctx, const char *folder, int version)
{
    size_t *least = ctx;
    size_t cores = SIZE_MAX;
    long long v[2]; /* quota and period; no limit is "max 100000", in version 1 a quota of -1 */

    if (version == 2 && tr_cgroup_numbers(folder, "cpu.max", v, 2) == 2)
        cores = cores_of(v[0], v[1]);
    else if (version == 1 && tr_cgroup_numbers(folder, "cpu.cfs_quota_us", &v[0], 1) == 1 &&
             tr_cgroup_numbers(folder, "cpu.cfs_period_us", &v[1], 1) == 1)
        cores = cores_of(v[0], v[1]);
    *least = cores < *least ? cores : *least;
}

size_t tr_cpu_quota(const char *groups, const char *root)
{
    size_t least = SIZE_MAX;

    tr_cgroup_each(groups, root, "cpu", lower, &least);
    return least;
}

size_t tr_cpu_cores(void)
{
    size_t cores = affinity_cores();
    size_t quota = tr_cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup");

    return quota < cores ? quota : cores;
}

uint64_t tr_cpu_last_cache(void)
{
    long size = 0;

#if defined(_SC_LEVEL3_CACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE)
    size = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (size <= 0)
        size = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return size > 0 ? (uint64_t)size : 0;
}
