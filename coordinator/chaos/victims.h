/* victims.h - the processes of a run, found by a mark in their environment.
 *
 * USE     n = tr_victims_find("TROUPE_CHAOS=17.3", "troupe-worker", pids, TR_VICTIMS_MAX);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CHAOS_VICTIMS_H
#define TR_COORDINATOR_CHAOS_VICTIMS_H

#include <stddef.h>
#include <sys/types.h>

enum { TR_VICTIMS_MAX = 256 };

/* At most max of those that are alive, have the mark, and are called name (NULL: anything). */
size_t tr_victims_find(const char *mark, const char *name, pid_t *out, size_t max);

#endif
