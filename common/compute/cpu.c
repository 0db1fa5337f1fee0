/* cpu.c - ask the processor and the kernel.
 *
 * The cores of a process are the least of three: those that its affinity names, and the time
 * quotas of its cgroup and of every cgroup above it (containers, Slurm, systemd units).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/cpu.h"

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

/* The first numbers of a small file; how many of n there were. */
static size_t numbers_read(const char *path, long long *out, size_t n)
{
    char text[64];
    FILE *f = fopen(path, "re");
    size_t got = 0;

    if (!f)
        return 0;
    char *at = fgets(text, sizeof text, f);
    for (char *end; at && got < n; at = end) {
        long long v = strtoll(at, &end, 10);
        if (end == at)
            break;
        out[got++] = v;
    }
    fclose(f);
    return got;
}

/* Whole cores that a quota amounts to, rounded up. */
static size_t cores_of(long long quota, long long period)
{
    return quota > 0 && period > 0 ? (size_t)((quota - 1) / period + 1) : SIZE_MAX;
}

static size_t quota_v2(const char *folder)
{
    char path[TR_CPU_PATH + 32];
    long long v[2]; /* quota and period; no limit is "max 100000" */

    snprintf(path, sizeof path, "%s/cpu.max", folder);
    return numbers_read(path, v, 2) == 2 ? cores_of(v[0], v[1]) : SIZE_MAX;
}

static size_t quota_v1(const char *folder)
{
    char path[TR_CPU_PATH + 32];
    long long quota; /* no limit is -1 */
    long long period;

    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (numbers_read(path, &quota, 1) != 1)
        return SIZE_MAX;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    return numbers_read(path, &period, 1) == 1 ? cores_of(quota, period) : SIZE_MAX;
}

/* The least quota of a group and of all groups above it, up to the mount point. */
static size_t quota_upwards(const char *mount, const char *group, size_t (*quota)(const char *))
{
    char folder[TR_CPU_PATH];
    size_t root = strlen(mount);
    size_t least = SIZE_MAX;

    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, group) >= sizeof folder)
        return SIZE_MAX;
    for (;;) {
        size_t cores = quota(folder);
        if (cores < least)
            least = cores;
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < root)
            return least;
        *slash = '\0';
    }
}

/* True if controllers, "cpu,cpuacct", names cpu. */
static bool has_cpu(const char *controllers, size_t size)
{
    for (size_t at = 0; at < size;) {
        const char *comma = memchr(controllers + at, ',', size - at);
        size_t end = comma ? (size_t)(comma - controllers) : size;
        if (end - at == 3 && memcmp(controllers + at, "cpu", 3) == 0)
            return true;
        at = end + 1;
    }
    return false;
}

/* A line of /proc/self/cgroup is "number:controllers:/path"; version 2 names no controllers. */
static size_t quota_of_line(const char *root, char *line)
{
    char mount[TR_CPU_PATH];
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!group || group[1] != '/')
        return SIZE_MAX;
    *group++ = '\0';
    controllers++;
    group[strcspn(group, "\n")] = '\0';
    if (*controllers == '\0')
        return quota_upwards(root, group, quota_v2);
    if (!has_cpu(controllers, strlen(controllers)) ||
        (size_t)snprintf(mount, sizeof mount, "%s/cpu", root) >= sizeof mount)
        return SIZE_MAX;
    return quota_upwards(mount, group, quota_v1);
}

size_t tr_cpu_quota(const char *groups, const char *root)
{
    char line[TR_CPU_PATH];
    FILE *f = fopen(groups, "re");
    size_t least = SIZE_MAX;

    if (!f)
        return SIZE_MAX;
    while (fgets(line, sizeof line, f)) {
        size_t cores = quota_of_line(root, line);
        if (cores < least)
            least = cores;
    }
    fclose(f);
    return least;
}

size_t tr_cpu_cores(void)
{
    size_t cores = affinity_cores();
    size_t quota = tr_cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup");

    return quota < cores ? quota : cores;
}
