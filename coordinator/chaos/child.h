/* child.h - this program once more, as a process whose output is read while it runs.
 *
 * USE     tr_child c;
 *         st = tr_child_start(&c, argv, "TROUPE_CHAOS=17.3");     argv[0] is replaced
 *         while (!tr_child_look(&c, 10 * TR_MS))                  reads what has come
 *             ...
 *         ... c.exit_code, c.text, c.size, c.last_line ...
 *         tr_child_fini(&c);                                      kills it if it still runs
 *
 * FAILS   TR_E_SYSTEM, TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CHAOS_CHILD_H
#define TR_COORDINATOR_CHAOS_CHILD_H

#include "base/clock.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct {
    pid_t pid; /* 0 once it has ended */
    int out;   /* its standard output; -1 once that has ended */
    FILE *err; /* what it said on standard error */
    char *text;
    size_t size, room;
    int exit_code; /* 128 and more: ended by a signal */
    char last_line[256];
} tr_child;

tr_status tr_child_start(tr_child *c, char **argv, const char *mark);

/* True once it has ended and all of its output has been read. */
bool tr_child_look(tr_child *c, tr_time timeout);
void tr_child_fini(tr_child *c);

#endif
