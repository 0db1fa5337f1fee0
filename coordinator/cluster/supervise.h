/* supervise.h - run a launcher such as mpirun, and leave no process behind, whatever it does.
 *
 * The child gets a process group of its own, this process adopts every orphan below it, and
 * at the end what is left below is killed.  Signals (INT, TERM, HUP) are handed on; a second one
 * kills.  Once the run has reported its status (the file run_dir/status), or the process whose
 * number is in run_dir/pid is gone, the child has a grace period to end by itself.
 *
 * USE     tr_supervise_result r;
 *         st = tr_supervise(&(tr_supervise_job){ .argv = argv, .input = fd, .run_dir = dir }, &r);
 *
 * THREAD  The calling process has one thread and no other children: all children are reaped.
 * FAILS   TR_E_CONFIG  argv[0] can't be run
 *         TR_E_SYSTEM  no process, pipe, ...
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_SUPERVISE_H
#define TR_COORDINATOR_CLUSTER_SUPERVISE_H

#include "base/clock.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    int input;         /* becomes its standard input; stays open here */
    int live;          /* not 0: the write end of the pipe that input reads; what this process reads
                        * from its own standard input goes there, and its end closes it */
    int output;        /* what it writes to standard output goes there */
    int errors;        /* and to standard error, a little later: text before what is said of it */

    /* A private directory; the child finds it in TROUPE_RUN_DIR, and in TMPDIR so that its own
     * temporary files vanish with it. */
    const char *run_dir;

    /* Programs of this name below the child are watched until the file "up" is in run_dir: if one
     * ends before, all are ended.  NULL: none. */
    const char *worker;
    size_t n_workers; /* how many of them there must be soon after the start; 0: unknown */

    /* Once all are up the first signal goes to the coordinator alone, which finishes what it has
     * begun and reports: a server. */
    bool is_gentle;

    tr_time grace;        /* from the report to SIGTERM; does not run while output is blocked */
    tr_time term_grace;   /* from SIGTERM to SIGKILL */
    tr_time signal_grace; /* from a signal handed on to SIGKILL */
} tr_supervise_job;

typedef struct {
    int wait_status;   /* as of waitpid */
    int signal;        /* the first that was handed on, 0: none */
    int output_error;  /* errno of a failed write to output, 0: none */
    int lost_pid;      /* a worker that ended before all were up, -1: unseen, 0: none */
    uint64_t n_output; /* bytes that went to output */
    bool was_ended;    /* it did not end by itself */
    bool was_cut;      /* and it had reported, so output may be missing */
    bool left_some;    /* processes were left below it, and are killed now */
} tr_supervise_result;

tr_status tr_supervise(const tr_supervise_job *job, tr_supervise_result *out);

#endif
