/* memory_limit.c - each group's limit, use, and what of that can go.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory_limit.h"

#include "base/cgroup.h"

#include <stdio.h>
#include <string.h>

enum { N_LINES = 3 };

/* By version, less one. */
static const struct {
    const char *limit, *usage;
    const char *goes[N_LINES]; /* lines of memory.stat: what is taken away when memory is short */
} names[] = {
    { "memory.limit_in_bytes",
      "memory.usage_in_bytes",
      { "total_active_file", "total_inactive_file" } },
    { "memory.max", "memory.current", { "active_file", "inactive_file", "slab_reclaimable" } },
};

/* Pages of files, and what the kernel remembers of files. */
static uint64_t what_goes(const char *folder, const char *const *lines)
{
    char path[TR_CGROUP_PATH + 16], line[128], name[64];
    unsigned long long bytes;
    uint64_t sum = 0;

    snprintf(path, sizeof path, "%s/memory.stat", folder);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        for (size_t i = 0; i < N_LINES && lines[i]; i++)
            if (sscanf(line, "%63s %llu", name, &bytes) == 2 && strcmp(name, lines[i]) == 0)
                sum += bytes;
    if (f)
        fclose(f);
    return sum;
}

static void lower(void *ctx, const char *folder, int version)
{
    tr_memory_limit *l = ctx;
    long long limit, usage;

    if (tr_cgroup_numbers(folder, names[version - 1].limit, &limit, 1) != 1 || limit < 0)
        return;
    uint64_t most = (uint64_t)limit, left = most;
    if (tr_cgroup_numbers(folder, names[version - 1].usage, &usage, 1) == 1 && usage > 0) {
        uint64_t goes = what_goes(folder, names[version - 1].goes);
        uint64_t held = (uint64_t)usage > goes ? (uint64_t)usage - goes : 0;
        left = most > held ? most - held : 0;
    }
    l->most = most < l->most ? most : l->most;
    l->left = left < l->left ? left : l->left;
}

tr_memory_limit tr_memory_limit_read(const char *groups, const char *root)
{
    tr_memory_limit l = { UINT64_MAX, UINT64_MAX };

    tr_cgroup_each(groups, root, "memory", lower, &l);
    return l;
}
