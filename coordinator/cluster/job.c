/* job.c - see job.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/job.h"

#include "coordinator/cluster/cluster.h"
#include "coordinator/cluster/launch.h"
#include "proto/limits.h"
#include "transport/mpi.h"

#include <unistd.h>

bool tr_job_exists(void)
{
    uint32_t n_ranks, n_local;

    return tr_mpi_launched(&n_ranks, &n_local);
}

/* MPI is not up, so it can't be told; mpirun ends the others when a rank ends like this. */
static void end_now(void)
{
    int code = tr_status_exit_code(TR_E_PEER_LOST);

    _exit(tr_launch_report_status(code) ? 0 : code);
}

tr_status tr_job_open(const char *listen, tr_time join_timeout, tr_transport **out)
{
    uint32_t n_ranks = 0;
    uint32_t n_local = 0;

    tr_mpi_launched(&n_ranks, &n_local);
    tr_status st = tr_mpi_open(TR_MAX_MESSAGE, join_timeout, end_now, out);
    if (st != TR_OK)
        return st;
    if ((*out)->self != 0)
        return tr_fail(TR_E_USAGE,
                       "rank %u runs troupe: only rank 0 is the coordinator; start the others as "
                       "': -n N troupe-worker'",
                       (*out)->self);
    if (n_ranks > n_local && !listen)
        return tr_fail(TR_E_CONFIG,
                       "%u workers run on other hosts, but the coordinator listens to this one "
                       "only: give --listen ADDRESS (coordinator: listen: in a cluster file; "
                       "0.0.0.0 is every interface)",
                       n_ranks - n_local);
    return TR_OK;
}

void tr_job_close(tr_transport **t, tr_status st, bool had_engine)
{
    if (!*t)
        return;
    if (!had_engine && (*t)->self == 0)
        tr_cluster_call_off(*t);
    if (st != TR_OK)
        tr_launch_report_status(tr_status_exit_code(st));
    if (tr_status_scope(st) == TR_SCOPE_PEER)
        tr_mpi_abandon(*t);
    tr_transport_close(t);
}
