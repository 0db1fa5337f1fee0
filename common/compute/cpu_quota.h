/* cpu_quota.h - the cgroup part of cpu.c, apart so that a test can bring its own files.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_CPU_QUOTA_H
#define TR_COMPUTE_CPU_QUOTA_H

#include <stddef.h>

/* Cores that the time quotas of the groups in the file `groups` (as /proc/self/cgroup) and of
 * those above them allow; SIZE_MAX if there is no quota.  root is where groups are mounted:
 * version 2 at root itself, version 1 at root/cpu. */
size_t tr_cpu_quota(const char *groups, const char *root);

#endif
