/* memory_limit.h - the cgroup part of memory.c, apart so that a test can bring its own files.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_MEMORY_LIMIT_H
#define TR_BASE_MEMORY_LIMIT_H

#include <stdint.h>

typedef struct {
    uint64_t most; /* bytes that the groups may have */
    uint64_t left; /* of them those that are to be had: free, or kept for files, which can go */
} tr_memory_limit;

/* The least of all groups (cgroup.h); UINT64_MAX where there is no limit. */
tr_memory_limit tr_memory_limit_read(const char *groups, const char *root);

#endif
