/* bench_transport.c - how long a round trip between processes takes.
 *
 * USE     mpirun -n 4 bench_transport [rounds [zmq]]
 *
 * With zmq MPI only carries the tickets.
 *
 * Per size: the median and mean of a round trip with one worker, and of a round in which all
 * workers get a message and answer it (what a layer costs before any computing).  Before
 * each timed part comes an untimed tenth of it.  CSV on standard output.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi.h"
#include "transport/zmq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static tr_status send_ticket(tr_transport *mpi, tr_transport *data, tr_peer worker)
{
    tr_zmq_ticket ticket;
    tr_msg *m = NULL;

    tr_status st = tr_zmq_invite(data, worker, &ticket);
    if (st == TR_OK)
        st = tr_transport_reserve(mpi, worker, sizeof ticket, &m);
    if (st != TR_OK)
        return st;
    memcpy(m->data, &ticket, sizeof ticket);
    st = tr_transport_send(mpi, worker, &m);
    tr_msg_free(&m);
    return st;
}

/* Until all have come. */
static tr_status open_coordinator(tr_transport *mpi, tr_transport **out)
{
    tr_time deadline = tr_now() + PATIENCE;
    tr_status st = tr_zmq_serve(NULL, mpi->n_peers, MAX_SIZE, out);

    for (tr_peer p = 1; p <= mpi->n_peers && st == TR_OK; p++)
        st = send_ticket(mpi, *out, p);
    for (tr_peer p = 1; p <= mpi->n_peers && st == TR_OK; p++) {
        while (!tr_zmq_has_come(*out, p) && st == TR_OK) {
            tr_msg *m = NULL;
            tr_peer from;
            st = tr_transport_recv(*out, tr_now() + TR_MS, &from, &m);
            if (st == TR_E_DEADLINE && tr_now() < deadline)
                st = tr_transport_recv(mpi, 0, &from, &m); /* MPI sends only while it is called */
            if (st == TR_E_DEADLINE && tr_now() < deadline)
                st = TR_OK;
        }
    }
    return st;
}

static tr_status open_worker(tr_transport *mpi, tr_transport **out)
{
    tr_zmq_ticket ticket;
    tr_msg *m = NULL;
    tr_peer from;

    tr_status st = tr_transport_recv(mpi, tr_now() + PATIENCE, &from, &m);
    if (st != TR_OK)
        return st;
    memcpy(&ticket, m->data, sizeof ticket);
    tr_msg_free(&m);
    return tr_zmq_join(&ticket, mpi->self, MAX_SIZE, out);
}

int main(int argc, char **argv)
{
    bool by_zmq = argc > 2 && strcmp(argv[2], "zmq") == 0;
    tr_transport *mpi = NULL;
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 4000;
    tr_transport *t = NULL;

    if (rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "bench_transport: rounds from 1 to %d\n", MAX_ROUNDS);
        _exit(2);
    }
    tr_status st = tr_mpi_open(MAX_SIZE, 60 * TR_SECOND, abort, &mpi);
    if (st != TR_OK)
        _exit(tr_status_exit_code(st));
    if (by_zmq)
        st = mpi->self == 0 ? open_coordinator(mpi, &t) : open_worker(mpi, &t);
    else
        t = mpi;
    if (st == TR_OK)
        st = mpi->self == 0 ? run_coordinator(t, rounds) : run_worker(t);
    if (by_zmq)
        tr_transport_close(&t);
    tr_transport_close(&mpi);
    fflush(NULL);
    _exit(tr_status_exit_code(st));
}
