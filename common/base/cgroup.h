/* cgroup.h - the control groups that a process is in: its own and all above it, up to where they
 * are mounted.  Limits of containers, Slurm and systemd stand there, and the least one counts.
 *
 * USE     tr_cgroup_each(groups, root, "memory", visit, &least);
 *         n = tr_cgroup_numbers(folder, "memory.max", v, 1);
 *
 * groups is a file such as /proc/self/cgroup, root where groups are mounted (/sys/fs/cgroup):
 * version 2 at root itself, version 1 at root/CONTROLLER.  A test brings its own.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_CGROUP_H
#define TR_BASE_CGROUP_H

#include <stddef.h>

enum { TR_CGROUP_PATH = 1024 };

/* A group's folder; version is 1 or 2. */
typedef void tr_cgroup_visit(void *ctx, const char *folder, int version);

void tr_cgroup_each(const char *groups, const char *root, const char *controller,
                    tr_cgroup_visit *visit, void *ctx);

/* The first numbers of a small file of a group; how many of n there were: "max" is none. */
size_t tr_cgroup_numbers(const char *folder, const char *name, long long *out, size_t n);

#endif
