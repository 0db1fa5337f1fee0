/* bench_transport.c - how long a round trip between MPI ranks takes.
 *
 * USE     mpirun -n 4 bench_transport [rounds]
 *
 * Per size: the median and mean of a round trip with one worker, and of a round in which all
 * workers get a message and answer it (what a layer costs before any computing).  Before
 * each timed part comes an untimed tenth of it.  CSV on standard output.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_SIZE = 1 << 20, MAX_ROUNDS = 1000000 };

static const tr_time PATIENCE = 10 * TR_SECOND;

static int compare_times(const void *a, const void *b)
{
    const tr_time x = *(const tr_time *)a, y = *(const tr_time *)b;

    return (x > y) - (x < y);
}

/* One round with workers 1..n. */
static tr_status round_trip(tr_transport *t, tr_peer n, size_t size)
{
    for (tr_peer p = 1; p <= n; p++) {
        tr_msg *m = NULL;
        tr_status st = tr_transport_reserve(t, p, size, &m);
        if (st != TR_OK)
            return st;
        m->data[0] = 1;
        st = tr_transport_send(t, p, &m);
        tr_msg_free(&m);
        if (st != TR_OK)
            return st;
    }
    for (tr_peer p = 1; p <= n; p++) {
        tr_msg *m = NULL;
        tr_peer from;
        tr_status st = tr_transport_recv(t, tr_now() + PATIENCE, &from, &m);
        if (st != TR_OK)
            return st;
        tr_msg_free(&m);
    }
    return TR_OK;
}

static tr_status measure(tr_transport *t, tr_peer n, size_t size, size_t rounds, tr_time *took)
{
    tr_status st = TR_OK;
    tr_time sum = 0;

    for (size_t i = 0; i < rounds / 10 && st == TR_OK; i++)
        st = round_trip(t, n, size);
    for (size_t i = 0; i < rounds && st == TR_OK; i++) {
        tr_time start = tr_now();
        st = round_trip(t, n, size);
        took[i] = tr_now() - start;
        sum += took[i];
    }
    if (st != TR_OK)
        return tr_fail(st, "bench: round trip of %zu bytes: %s", size, tr_status_name(st));
    qsort(took, rounds, sizeof *took, compare_times);
    printf("%u,%u,%zu,%zu,%.2f,%.2f,%.2f\n", t->n_peers + 1, n, size, rounds,
           (double)took[rounds / 2] * 1e-3, (double)took[rounds * 99 / 100] * 1e-3,
           (double)sum / (double)rounds * 1e-3);
    return TR_OK;
}

static tr_status run_coordinator(tr_transport *t, size_t rounds)
{
    static const size_t sizes[] = { 1024, 8192, 65536 };
    tr_status st = TR_OK;
    tr_time *took = calloc(rounds, sizeof *took);

    if (!took)
        return tr_fail(TR_E_MEMORY, "bench: no memory for %zu rounds", rounds);
    printf("ranks,workers,bytes,rounds,median_us,p99_us,mean_us\n");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && st == TR_OK; i++)
        st = measure(t, 1, sizes[i], rounds, took);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && st == TR_OK && t->n_peers > 1; i++)
        st = measure(t, t->n_peers, sizes[i], rounds, took);
    free(took);

    for (tr_peer p = 1; p <= t->n_peers; p++) {
        tr_msg *m = NULL;
        if (tr_transport_reserve(t, p, 1, &m) != TR_OK)
            break;
        m->data[0] = 0;
        tr_transport_send(t, p, &m);
        tr_msg_free(&m);
    }
    return st;
}

/* Send back what comes, until a message says 0. */
static tr_status run_worker(tr_transport *t)
{
    for (;;) {
        tr_msg *m = NULL;
        tr_peer from;
        tr_status st = tr_transport_recv(t, tr_now() + PATIENCE, &from, &m);
        if (st != TR_OK)
            return st;
        bool goes_on = m->data[0] != 0;
        if (goes_on)
            st = tr_transport_send(t, 0, &m);
        tr_msg_free(&m);
        if (!goes_on || st != TR_OK)
            return st;
    }
}

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 4000;
    tr_transport *t = NULL;

    if (rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "bench_transport: rounds from 1 to %d\n", MAX_ROUNDS);
        _exit(2);
    }
    tr_status st = tr_mpi_open(MAX_SIZE, 60 * TR_SECOND, abort, &t);
    if (st != TR_OK)
        _exit(tr_status_exit_code(st));
    if (t->self == 0)
        st = run_coordinator(t, rounds);
    else
        st = run_worker(t);
    tr_transport_close(&t);
    fflush(NULL);
    _exit(tr_status_exit_code(st));
}
