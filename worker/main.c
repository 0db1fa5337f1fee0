/* main.c - troupe-worker: started by mpirun beside a coordinator, hosts experts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/interrupt.h"
#include "base/log.h"
#include "base/standard_files.h"
#include "base/version.h"
#include "compute/cpu.h"
#include "compute/pool.h"
#include "proto/limits.h"
#include "transport/mpi.h"
#include "worker/worker.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tests build a worker of another version. */
#ifndef TR_WORKER_VERSION
#define TR_WORKER_VERSION TR_VERSION
#endif

/* The coordinator, which knows how long its user wants to wait, gives up before. */
#define START_TIMEOUT (24 * 3600 * TR_SECOND)

static const char help[] =
    "troupe-worker - host experts for a troupe coordinator\n"
    "\n"
    "mpirun -n 1 troupe run -m MODEL -p TEXT : -n 3 troupe-worker [OPTIONS]\n"
    "\n"
    "  -m, --model FILE    the model's path on this host (default: the coordinator's)\n"
    "  -t, --threads N     threads, 1..512 (default: all cores, fewer where many ranks share a "
    "host)\n"
    "      --version       print the version\n"
    "  -h, --help          show this\n";

static tr_status parse_threads(const char *text, size_t *out)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n < 1 || n > TR_POOL_MAX_THREADS)
        return tr_fail(TR_E_USAGE, "--threads %s: give a number from 1 to %d", text,
                       TR_POOL_MAX_THREADS);
    *out = n;
    return TR_OK;
}

static tr_status parse(int argc, char **argv, tr_worker_options *o, bool *done)
{
    static const struct option options[] = {
        { "model", required_argument, NULL, 'm' },
        { "threads", required_argument, NULL, 't' },
        { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    tr_status st = TR_OK;
    int c;

    opterr = 0;
    while (st == TR_OK && (c = getopt_long(argc, argv, "+:m:t:h", options, NULL)) != -1) {
        switch (c) {
        case 'm':
            o->model_path = optarg;
            break;
        case 't':
            st = parse_threads(optarg, &o->threads);
            break;
        case 'v':
        case 'h':
            fputs(c == 'h' ? help : "troupe-worker " TR_WORKER_VERSION "\n", stdout);
            *done = true;
            return TR_OK;
        case ':':
            return tr_fail(TR_E_USAGE, "%s needs a value: see --help", argv[optind - 1]);
        default:
            return tr_fail(TR_E_USAGE, "unknown option %s: see --help", argv[optind - 1]);
        }
    }
    if (st == TR_OK && optind < argc)
        return tr_fail(TR_E_USAGE, "unexpected argument %s: see --help", argv[optind]);
    return st;
}

static void give_up(void)
{
    _exit(tr_status_exit_code(TR_E_PEER_LOST));
}

/* Every core, as the processes of a host work by turns and unevenly: the coordinator while workers
 * wait, and then the worker with most rows longest.  Where many share a host, no more than four
 * threads a core in all. */
static size_t default_threads(uint32_t local_ranks)
{
    size_t all = tr_pool_default_threads();
    size_t n = (4 * tr_cpu_cores() + local_ranks - 1) / local_ranks;

    return n < all ? n : all;
}

static tr_status run(int argc, char **argv, bool *has_losses)
{
    tr_worker_options o = { .version = TR_WORKER_VERSION };
    tr_transport *transport = NULL;
    uint32_t n_ranks = 0;
    uint32_t local_ranks = 0;
    bool done = false;

    tr_status st = parse(argc, argv, &o, &done);
    if (st != TR_OK || done)
        return st;
    if (!tr_mpi_launched(&n_ranks, &local_ranks) || n_ranks < 2)
        return tr_fail(TR_E_USAGE,
                       "not started by mpirun beside a coordinator: use troupe run -w N, "
                       "or mpirun -n 1 troupe run ... : -n N troupe-worker");
    if (o.threads == 0)
        o.threads = default_threads(local_ranks);
    st = tr_mpi_open(TR_MAX_MESSAGE, START_TIMEOUT, give_up, &transport);
    if (st != TR_OK)
        return st;
    if (transport->self == 0) {
        st = tr_fail(TR_E_USAGE, "rank 0 must be the coordinator: mpirun -n 1 troupe run ... : "
                                 "-n N troupe-worker");
    } else {
        char name[32];
        snprintf(name, sizeof name, "worker %u", transport->self);
        tr_log_init(name, TR_LOG_INFO);
        st = tr_worker_run(transport, &o, has_losses);
    }
    if (st != TR_OK || *has_losses)
        tr_mpi_abandon(transport);
    tr_transport_close(&transport);
    return st;
}

int main(int argc, char **argv)
{
    tr_standard_files_open();
    signal(SIGPIPE, SIG_IGN);
    tr_log_init("troupe-worker", TR_LOG_INFO);
    tr_interrupt_watch();
    bool has_losses = false;
    tr_status st = run(argc, argv, &has_losses);
    errno = EIO; /* should an earlier write have failed, whose reason is gone */
    if ((fflush(stdout) != 0 || ferror(stdout)) && st == TR_OK)
        st = tr_fail(TR_E_IO, "standard output: %s", strerror(errno));
    if (st == TR_OK && !has_losses)
        return 0;
    _exit(tr_status_exit_code(st)); /* MPI was abandoned: its exit handlers could hang */
}
