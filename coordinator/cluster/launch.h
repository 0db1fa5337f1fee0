/* launch.h - start a whole run with mpirun and bring back how it ended.
 *
 * mpirun's own exit status can't be trusted (0 after a lost daemon, 137 after a worker that
 * did not matter).  So the coordinator leaves its exit status in a private directory, and
 * that is the one that counts.  Its process number is there too: once it is gone, the run is over.
 *
 * USE     st = tr_launch_run(&o, c, argc, argv, &code);     the user's process
 *         tr_launch_report_start();                         the coordinator, as its first act
 *         tr_launch_report_status(code);                    and as its last
 *
 * FAILS   TR_E_USAGE        options contradict each other, or mpirun runs already
 *         TR_E_CONFIG       no mpirun, no worker binary, not Open MPI, too old
 *         TR_E_PEER_LOST    mpirun failed before the coordinator could report
 *         TR_E_IO           standard output can't be written, or standard input not read
 *         TR_E_INTERRUPTED  a signal ended it
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_LAUNCH_H
#define TR_COORDINATOR_CLUSTER_LAUNCH_H

#include "coordinator/cluster/config.h"
#include "coordinator/commands/run_options.h"

/* c NULL: o->workers on this machine.  With o->dry_run the line goes to stdout and *exit_code is
 * 0; else the coordinator's exit status (status.h).  The calling process has one thread and no
 * other children.  No process and no file stays behind. */
tr_status tr_launch_run(const tr_run_options *o, const tr_cluster_config *c, int argc, char **argv,
                        int *exit_code);

/* The same for another command: words are its options, NULL-terminated.  is_gentle: it finishes
 * what it has begun when a signal asks (supervise.h). */
typedef struct {
    const char *command;
    const char *const *words;
    uint32_t n_workers;
    const tr_cluster_config *cluster; /* NULL: on this machine */
    const char *worker_binary;        /* NULL: the cluster's, or the one beside troupe */
    uint64_t worker_threads;          /* of each; 0: the cluster's, or the worker decides */
    bool is_gentle;
} tr_launch_other;

tr_status tr_launch_command(const tr_launch_other *o, int *exit_code);

/* A status of the class that an exit status stands for, so that a caller can end the same way. */
tr_status tr_launch_status(int exit_code);

/* Tells the launcher, if there is one, which process is the coordinator. */
void tr_launch_report_start(void);

/* Tells the launcher, if there is one, that all processes are up: the coordinator hears of losses
 * from now on. */
void tr_launch_report_up(void);

/* So many bytes more were written to standard output: the launcher is told the sum at the end, so
 * that it knows when mpirun has handed on all. */
void tr_launch_count_output(size_t n);

/* Tells the launcher, if there is one, how this coordinator ends; true if it was told.  Only the
 * first call counts. */
bool tr_launch_report_status(int exit_code);

/* The first line of `mpirun --version`; false if that is no Open MPI. */
bool tr_launch_version_read(const char *text, unsigned *major, unsigned *minor);

#endif
