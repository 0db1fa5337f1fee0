/* job.c - see job.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/job.h"

#include "base/check.h"
#include "coordinator/cluster/cluster.h"
#include "coordinator/cluster/launch.h"
#include "proto/limits.h"
#include "transport/mpi.h"
#include "transport/route.h"
#include "transport/zmq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static tr_status check_place(const tr_job_options *o, uint32_t rank, uint32_t n_far)
{
    if (rank != 0)
        return tr_fail(TR_E_USAGE,
                       "rank %u runs troupe: only rank 0 is the coordinator; start the others as "
                       "': -n N troupe-worker'",
                       rank);
    if (n_far > 0 && !o->listen)
        return tr_fail(TR_E_CONFIG,
                       "%u workers run on other hosts, but the coordinator listens to this one "
                       "only: give --listen ADDRESS (coordinator: listen: in a cluster file; "
                       "0.0.0.0 is every interface)",
                       n_far);
    return TR_OK;
}

/* The control plane's address, at the next port if it names one. */
static tr_status data_address(const char *listen, char *out, size_t size)
{
    const char *after = strrchr(listen, ']'); /* of an IPv6 address */
    const char *colon = strchr(after ? after : listen, ':');
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;

    if (!colon)
        snprintf(out, size, "%s", listen);
    else if (port < 65535)
        snprintf(out, size, "%.*s:%lu", (int)(colon - listen), listen, port + 1);
    else
        return tr_fail(TR_E_USAGE, "--listen %s: data takes the next port, so give a lower one",
                       listen);
    return TR_OK;
}

static tr_status serve_zmq(void *ctx, tr_peer n_workers, tr_transport **out)
{
    const tr_job *job = ctx;

    return tr_zmq_serve(job->data_address[0] ? job->data_address : NULL, n_workers, TR_MAX_MESSAGE,
                        out);
}

static tr_status open_zmq(const tr_job_options *o, tr_job *job)
{
    uint32_t n = o->n_outside + (job->mpi ? job->mpi->n_peers : 0);

    if (n > TR_MAX_WORKERS)
        return tr_fail(TR_E_USAGE, "%u workers in all; there can be %d", n, TR_MAX_WORKERS);
    job->inviter = job->mpi;
    return serve_zmq(job, n, &job->data);
}

tr_status tr_job_open(const tr_job_options *o, tr_job *out)
{
    uint32_t n_ranks = 0;
    uint32_t n_local = 0;
    tr_status st = TR_OK;

    TR_CHECK(o->by_zmq || o->n_outside == 0);
    if (tr_mpi_launched(&n_ranks, &n_local)) {
        st = tr_mpi_open(TR_MAX_MESSAGE, o->join_timeout, end_now, &out->mpi);
        if (st == TR_OK)
            st = check_place(o, out->mpi->self, n_ranks - n_local);
    }
    if (st == TR_OK && o->listen)
        st = data_address(o->listen, out->data_address, sizeof out->data_address);
    if (st != TR_OK)
        return st;
    return o->by_zmq ? open_zmq(o, out) : tr_route_new(out->mpi, serve_zmq, out, &out->data);
}

void tr_job_close(tr_job *job, tr_status st, bool had_engine)
{
    if (!job->data && !job->mpi)
        return;
    if (job->mpi && !had_engine && job->mpi->self == 0)
        tr_cluster_call_off(job->mpi);
    if (st != TR_OK)
        tr_launch_report_status(tr_status_exit_code(st));
    if (job->mpi && tr_status_scope(st) == TR_SCOPE_PEER)
        tr_mpi_abandon(job->mpi);
    tr_transport_close(&job->data);
    tr_transport_close(&job->mpi);
}
