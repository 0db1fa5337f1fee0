/* job.h - the MPI job that this process is in: its transport, and who may be what in it.
 *
 * USE     if (tr_job_exists()) st = tr_job_open(listen, join_timeout, &transport);
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

/* listen may be NULL: loopback, which serves workers on this host only. */
tr_status tr_job_open(const char *listen, tr_time join_timeout, tr_transport **out);

/* After the engine is closed; st is what the command ends with.  An engine tells its workers to
 * stop; where there was none yet that is said here.  A failure is reported to the launcher first,
 * since closing may be cut short by who started us.  Does nothing if *t is NULL. */
void tr_job_close(tr_transport **t, tr_status st, bool had_engine);

#endif
