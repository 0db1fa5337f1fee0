/* job.h - the job that this process is in: its transports, and who may be what in it.
 *
 * USE     tr_job job = { NULL };                    stays where it is until it is closed
 *         if (tr_job_exists() || options.n_outside > 0) st = tr_job_open(&options, &job);
 *         ... shares over job.data, invitations over job.inviter if there is one ...
 *         tr_job_close(&job, st, had_engine);
 *
 * FAILS   TR_E_USAGE   another rank than 0 runs a command of the coordinator
 *         TR_E_CONFIG  ranks on other hosts, but no address where they reach the coordinator
 *
 * If not all ranks come up in time, one line says so and the process ends with the status of a
 * lost peer: MPI's own start-up waits for ever, and can't be called off.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_JOB_H
#define TR_COORDINATOR_CLUSTER_JOB_H

#include "base/clock.h"
#include "transport/transport.h"

/* True if an MPI launcher started this process. */
bool tr_job_exists(void);

typedef struct {
    tr_transport *data;     /* shares and answers */
    tr_transport *inviter;  /* MPI, where it only carries invitations; else NULL */
    tr_transport *mpi;      /* NULL if no launcher started this process */
    char data_address[300]; /* where workers that MPI does not reach connect; "": loopback */
} tr_job;

typedef struct {
    const char *listen; /* NULL: loopback, which serves workers on this host only */
    tr_time join_timeout;
    bool by_zmq;        /* data goes over ZeroMQ; at listen's port, if it names one, + 1 */
    uint32_t n_outside; /* workers that no launcher of ours starts, after the job's ranks; only by
                         * ZeroMQ */
} tr_job_options;

/* What was opened before something failed is in *out too, for tr_job_close. */
tr_status tr_job_open(const tr_job_options *o, tr_job *out);

/* After the engine is closed; st is what the command ends with.  An engine tells its workers to
 * stop; where there was none yet that is said here.  A failure is reported to the launcher first,
 * since closing may be cut short by who started us.  Does nothing if no job was opened. */
void tr_job_close(tr_job *job, tr_status st, bool had_engine);

#endif
