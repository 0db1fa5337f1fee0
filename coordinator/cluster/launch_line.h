/* launch_line.h - the mpirun line for a run: options and facts in, words out.  Pure.
 *
 * Open MPI 4 and 5 survive a dead rank under different options, and neither does so by
 * default; what goes where was measured (docs/architecture.md).  Each host gets a program context
 * of its own (`:`), so that no mapping rule decides who runs where, and rank 0, the coordinator,
 * is the first.
 *
 * USE     tr_launch_line line;
 *         st = tr_launch_line_compose(&o, c, argc, argv, &facts, &line);
 *         ... line.word[0..n-1], then NULL: an argv ...
 *         st = tr_launch_line_quote(&line, &text);      what a shell reads back as the same
 *         free(text);
 *         tr_launch_line_fini(&line);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_LAUNCH_LINE_H
#define TR_COORDINATOR_CLUSTER_LAUNCH_LINE_H

#include "coordinator/cluster/config.h"
#include "coordinator/commands/run_options.h"

typedef struct {
    unsigned open_mpi;    /* major version, 4 or more */
    const char *mpirun;   /* what to call it */
    const char *program;  /* troupe */
    const char *worker;   /* troupe-worker */
    const char *hostname; /* of this machine */
    bool is_root;
    bool shows_progress;      /* standard error is a terminal */
    bool reports;             /* pass TROUPE_RUN_DIR on (launch.h) */
    const char *command;      /* of troupe, "run" or another */
    const char *const *words; /* of another command: its options as they are, NULL-terminated */
} tr_launch_facts;

typedef struct {
    char **word; /* NULL-terminated */
    size_t n, capacity;
    bool coordinator_is_here;
    bool worker_is_here; /* at least one */
} tr_launch_line;

/* c NULL: o->workers on this machine.  argv is the one that o was parsed from.
 * TR_E_USAGE if options and file contradict each other. */
tr_status tr_launch_line_compose(const tr_run_options *o, const tr_cluster_config *c, int argc,
                                 char **argv, const tr_launch_facts *facts, tr_launch_line *out);
void tr_launch_line_fini(tr_launch_line *line);

/* One line without control characters; *out is for free. */
tr_status tr_launch_line_quote(const tr_launch_line *line, char **out);

#endif
