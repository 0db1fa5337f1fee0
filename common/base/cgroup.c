/* cgroup.c - lines of /proc/self/cgroup, and the folders that they mean.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *root, *controller;
    tr_cgroup_visit *visit;
    void *ctx;
} walk;

size_t tr_cgroup_numbers(const char *folder, const char *name, long long *out, size_t n)
{
    char path[TR_CGROUP_PATH + 64];
    char text[64];
    size_t got = 0;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "re");
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

static void upwards(const walk *w, const char *mount, const char *group, int version)
{
    char folder[TR_CGROUP_PATH];
    size_t root = strlen(mount);

    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, group) >= sizeof folder)
        return;
    for (;;) {
        w->visit(w->ctx, folder, version);
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < root)
            return;
        *slash = '\0';
    }
}

/* True if controllers, such as "cpu,cpuacct", names one. */
static bool has_controller(const char *controllers, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = controllers; *at; at += strspn(at, ",")) {
        size_t size = strcspn(at, ",");
        if (size == n && memcmp(at, name, n) == 0)
            return true;
        at += size;
    }
    return false;
}

/* A line is "number:controllers:/path"; version 2 names no controllers. */
static void visit_line(const walk *w, char *line)
{
    char mount[TR_CGROUP_PATH];
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!group || group[1] != '/')
        return;
    *group++ = '\0';
    controllers++;
    group[strcspn(group, "\n")] = '\0';
    if (*controllers == '\0')
        upwards(w, w->root, group, 2);
    else if (has_controller(controllers, w->controller) &&
             (size_t)snprintf(mount, sizeof mount, "%s/%s", w->root, w->controller) < sizeof mount)
        upwards(w, mount, group, 1);
}

void tr_cgroup_each(const char *groups, const char *root, const char *controller,
                    tr_cgroup_visit *visit, void *ctx)
{
    const walk w = { root, controller, visit, ctx };
    char line[TR_CGROUP_PATH];
    FILE *f = fopen(groups, "re");

    if (!f)
        return;
    while (fgets(line, sizeof line, f))
        visit_line(&w, line);
    fclose(f);
}
