/* victims.c - a walk through /proc.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/chaos/victims.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENVIRONMENT = 256 << 10 };

/* The beginning of a file of /proc; 0 for one that is gone or not ours. */
static size_t read_file(const char *pid, const char *file, char *out, size_t size)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%.16s/%s", pid, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t n = fread(out, 1, size - 1, f);
    fclose(f);
    out[n] = '\0';
    return n;
}

/* A zombie has no environment, so it is none of them. */
static bool has_mark(const char *pid, const char *mark, char *buffer)
{
    size_t n = read_file(pid, "environ", buffer, MAX_ENVIRONMENT);

    for (size_t i = 0; i < n; i += strlen(buffer + i) + 1)
        if (strcmp(buffer + i, mark) == 0)
            return true;
    return false;
}

static bool is_called(const char *pid, const char *name)
{
    char comm[64];

    read_file(pid, "comm", comm, sizeof comm);
    comm[strcspn(comm, "\n")] = '\0';
    return strcmp(comm, name) == 0;
}

size_t tr_victims_find(const char *mark, const char *name, pid_t *out, size_t max)
{
    DIR *proc = opendir("/proc");
    char *buffer = malloc(MAX_ENVIRONMENT);
    struct dirent *entry;
    size_t n = 0;

    while (proc && buffer && n < max && (entry = readdir(proc))) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (pid <= 0 || *end != '\0' || (name && !is_called(entry->d_name, name)) ||
            !has_mark(entry->d_name, mark, buffer))
            continue;
        out[n++] = (pid_t)pid;
    }
    free(buffer);
    if (proc)
        closedir(proc);
    return n;
}
