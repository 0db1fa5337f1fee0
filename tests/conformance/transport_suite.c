/* transport_suite.c - what every transport must keep, as scenarios between one coordinator
 * and several workers.
 *
 * A command's first byte says what the worker does; ECHO takes any size, the others begin
 * with the struct order.  Contents are a function of (seed, peer, number), so each side
 * can check every byte without sharing anything.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/transport_suite.h"
#include "base/check.h"
#include "base/rng.h"
#include "tests/support/tr_test.h"

#include <sys/resource.h>

enum {
    ECHO = 'e',   /* the same bytes back */
    MANY = 'm',   /* n messages of size bytes back */
    SINK = 's',   /* one of a numbered series; no reply */
    REPORT = 'r', /* a worker_report back */
    SLEEP = 'z',  /* n milliseconds without a look at the transport */
    IDLE = 'i',   /* n milliseconds waiting in recv, then a worker_report */
    DIE = 'd',
    STOP = 'q',
};

typedef struct {
    uint8_t op;
    uint8_t zero[3];
    uint32_t n;
    uint64_t size;
    uint64_t seed;
} order;

typedef struct {
    uint8_t op;
    uint8_t misaligned; /* messages received so */
    uint8_t disordered; /* SINK messages out of turn or damaged */
    uint8_t zero;
    uint32_t cpu_permille; /* of the last IDLE */
    uint64_t n_sunk;
    tr_transport_stats stats;
} worker_report;

/* No limit of speed: a bound on how long a broken transport can hold the suite up. */
static const tr_time PATIENCE = 20 * TR_SECOND;

static void fill(uint8_t *data, size_t size, uint64_t seed, tr_peer peer, uint64_t number)
{
    uint64_t key = tr_rng_u64(seed, peer, number);

    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)((key >> (i % 8 * 8)) + i / 8);
}

static bool is_filled(const uint8_t *data, size_t size, uint64_t seed, tr_peer peer,
                      uint64_t number)
{
    uint64_t key = tr_rng_u64(seed, peer, number);

    for (size_t i = 0; i < size; i++)
        if (data[i] != (uint8_t)((key >> (i % 8 * 8)) + i / 8))
            return false;
    return true;
}

static int64_t thread_cpu_us(void)
{
    struct rusage u;

    getrusage(RUSAGE_THREAD, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000L + u.ru_utime.tv_usec +
           u.ru_stime.tv_usec;
}

/* ---- the worker ---- */

typedef struct {
    tr_transport *t;
    worker_report report;
} worker;

static void worker_send(worker *w, tr_msg **m)
{
    while (tr_transport_send(w->t, 0, m) == TR_E_BUSY)
        tr_sleep(50 * TR_US);
    tr_msg_free(m);
}

static void worker_send_many(worker *w, const order *o)
{
    for (uint32_t i = 0; i < o->n; i++) {
        tr_msg *m;
        TR_CHECK(tr_transport_reserve(w->t, 0, o->size, &m) == TR_OK);
        fill(m->data, m->size, o->seed, w->t->self, i);
        worker_send(w, &m);
    }
}

static void worker_send_report(worker *w)
{
    tr_msg *m;

    w->report.op = REPORT;
    w->report.stats = w->t->stats;
    TR_CHECK(tr_transport_reserve(w->t, 0, sizeof w->report, &m) == TR_OK);
    memcpy(m->data, &w->report, sizeof w->report);
    worker_send(w, &m);
}

static void worker_sink(worker *w, const tr_msg *m, const order *o)
{
    if (o->n != w->report.n_sunk ||
        !is_filled(m->data + sizeof *o, m->size - sizeof *o, o->seed, w->t->self, o->n))
        w->report.disordered = 1;
    w->report.n_sunk++;
}

static void worker_idle(worker *w, const order *o)
{
    tr_time start = tr_now();
    int64_t cpu = thread_cpu_us();
    tr_peer from;
    tr_msg *m;

    TR_CHECK(tr_transport_recv(w->t, start + o->n * TR_MS, &from, &m) == TR_E_DEADLINE);
    int64_t passed_us = (tr_now() - start) / TR_US;
    w->report.cpu_permille = (uint32_t)((thread_cpu_us() - cpu) * 1000 / passed_us);
    worker_send_report(w);
}

/* True to go on. */
static bool worker_obey(worker *w, tr_msg **m)
{
    order o = { 0 };

    memcpy(&o, (*m)->data, (*m)->size < sizeof o ? (*m)->size : sizeof o);
    switch (o.op) {
    case ECHO:
        worker_send(w, m);
        break;
    case MANY:
        worker_send_many(w, &o);
        break;
    case SINK:
        worker_sink(w, *m, &o);
        break;
    case REPORT:
        worker_send_report(w);
        break;
    case SLEEP:
        tr_sleep(o.n * TR_MS);
        break;
    case IDLE:
        worker_idle(w, &o);
        break;
    default:
        return false;
    }
    return true;
}

bool transport_suite_worker(tr_transport *t)
{
    worker w = { .t = t };
    uint8_t op = STOP;
    bool goes_on = true;

    while (goes_on) {
        tr_peer from;
        tr_msg *m = NULL;
        tr_status st = tr_transport_recv(t, tr_now() + PATIENCE / 2, &from, &m);
        if (st != TR_OK)
            return false; /* the coordinator is gone, or has dropped this worker */
        TR_CHECK(from == 0);
        if ((uintptr_t)m->data % 64 != 0)
            w.report.misaligned = 1;
        op = m->data[0];
        goes_on = worker_obey(&w, &m);
        tr_msg_free(&m);
    }
    return op == DIE;
}

/* ---- the coordinator's tools ---- */

static void send(transport_suite *s, tr_peer to, tr_msg **m)
{
    tr_time until = tr_now() + PATIENCE;
    tr_status st;

    while ((st = tr_transport_send(s->t, to, m)) == TR_E_BUSY && tr_now() < until)
        tr_sleep(50 * TR_US);
    assert_int_equal(st, TR_OK);
    assert_null(*m);
}

static tr_msg *reserve(transport_suite *s, size_t size)
{
    tr_msg *m = NULL;

    assert_int_equal(tr_transport_reserve(s->t, 1, size, &m), TR_OK);
    assert_int_equal(m->size, size);
    assert_int_equal((uintptr_t)m->data % 64, 0);
    return m;
}

static void send_order(transport_suite *s, tr_peer to, order o)
{
    tr_msg *m = reserve(s, sizeof o);

    memcpy(m->data, &o, sizeof o);
    send(s, to, &m);
}

static tr_msg *make_echo(transport_suite *s, tr_peer to, size_t size, uint64_t seed, uint64_t i)
{
    tr_msg *m = reserve(s, size);

    fill(m->data, size, seed, to, i);
    m->data[0] = ECHO;
    return m;
}

static tr_msg *receive(transport_suite *s, tr_peer *from)
{
    tr_msg *m = NULL;

    assert_int_equal(tr_transport_recv(s->t, tr_now() + PATIENCE, from, &m), TR_OK);
    assert_non_null(m);
    assert_int_equal((uintptr_t)m->data % 64, 0);
    return m;
}

static tr_msg *receive_from(transport_suite *s, tr_peer want)
{
    tr_peer from = UINT32_MAX;
    tr_msg *m = receive(s, &from);

    assert_int_equal(from, want);
    return m;
}

/* An echo is checked by making what was sent once more. */
static void check_echo(tr_msg *m, tr_peer peer, size_t size, uint64_t seed, uint64_t i)
{
    assert_int_equal(m->size, size);
    assert_int_equal(m->data[0], ECHO);
    uint64_t key = tr_rng_u64(seed, peer, i);
    m->data[0] = (uint8_t)key;
    assert_true(is_filled(m->data, size, seed, peer, i));
    tr_msg_free(&m);
}

static void echo_once(transport_suite *s, tr_peer peer, size_t size, uint64_t seed)
{
    tr_msg *m = make_echo(s, peer, size, seed, size);

    send(s, peer, &m);
    check_echo(receive_from(s, peer), peer, size, seed, size);
}

static worker_report report_of(transport_suite *s, tr_peer peer)
{
    worker_report r;

    send_order(s, peer, (order){ .op = REPORT });
    tr_msg *m = receive_from(s, peer);
    assert_int_equal(m->size, sizeof r);
    memcpy(&r, m->data, sizeof r);
    tr_msg_free(&m);
    return r;
}

static void nothing_comes_for(transport_suite *s, tr_time d)
{
    tr_peer from;
    tr_msg *m = NULL;

    assert_int_equal(tr_transport_recv(s->t, tr_now() + d, &from, &m), TR_E_DEADLINE);
    assert_null(m);
}

/* ---- traffic ---- */

static void messages_arrive_whole_once_and_in_order(void **state)
{
    enum { N = 300, WINDOW = 12 };
    transport_suite *s = *state;
    uint64_t seed = tr_test_seed();
    size_t size[N];

    for (uint64_t i = 0; i < N; i++) {
        uint64_t bits = tr_rng_u64(seed, 1, i) % 17; /* sizes of every order of magnitude */
        size[i] = 1 + tr_rng_u64(seed, 2, i) % (1u << bits);
    }
    for (tr_peer p = 1; p <= s->t->n_peers; p++) {
        for (size_t i = 0; i < N + WINDOW; i++) {
            if (i >= WINDOW)
                check_echo(receive_from(s, p), p, size[i - WINDOW], seed, i - WINDOW);
            if (i >= N)
                continue;
            tr_msg *m = make_echo(s, p, size[i], seed, i);
            send(s, p, &m);
        }
    }
    nothing_comes_for(s, TR_MS);
}

static void one_byte_and_the_largest_message_arrive(void **state)
{
    transport_suite *s = *state;
    static const size_t edge[] = { 1, 2, 63, 64, 65, 1023, 1024, 1025, 4095, 4096, 4097, 65536 };

    for (tr_peer p = 1; p <= s->t->n_peers; p++) {
        for (size_t i = 0; i < sizeof edge / sizeof edge[0]; i++)
            echo_once(s, p, edge[i], p);
        echo_once(s, p, s->max_size - 1, p);
        echo_once(s, p, s->max_size, p);
    }
}

static void workers_get_aligned_memory_too(void **state)
{
    transport_suite *s = *state;

    for (tr_peer p = 1; p <= s->t->n_peers; p++)
        assert_int_equal(report_of(s, p).misaligned, 0);
}

static void an_empty_transport_returns_at_the_deadline_and_not_before(void **state)
{
    transport_suite *s = *state;
    static const tr_time waits[] = { -TR_SECOND, 0, 10 * TR_US, TR_MS, 30 * TR_MS };

    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        tr_time start = tr_now();
        nothing_comes_for(s, waits[i]);
        tr_time passed = tr_now() - start;
        assert_true(passed >= waits[i]);
        assert_true(passed < waits[i] + 5 * TR_SECOND); /* returns at all */
    }
}

/* The workers look away until the way to them is full.  Messages of this size are not taken in
 * by anything between the ends (MPI over TCP swallows what is below 64 KiB). */
static void a_full_way_keeps_the_message_with_its_sender(void **state)
{
    enum { N = 100, SIZE = 131072 };
    transport_suite *s = *state;
    size_t n_busy = 0;

    for (tr_peer p = 1; p <= 2; p++) {
        send_order(s, p, (order){ .op = SLEEP, .n = 300 });
        for (uint32_t i = 0; i < N; i++) {
            tr_msg *m = reserve(s, SIZE), *same = m;
            order o = { .op = SINK, .n = i, .seed = 9 };
            memcpy(m->data, &o, sizeof o);
            fill(m->data + sizeof o, SIZE - sizeof o, 9, p, i);
            tr_status st = tr_transport_send(s->t, p, &m);
            if (st == TR_E_BUSY) {
                n_busy++;
                assert_ptr_equal(m, same);
                assert_memory_equal(m->data, &o, sizeof o);
                send(s, p, &m);
                continue;
            }
            assert_int_equal(st, TR_OK);
            assert_null(m);
        }
        worker_report r = report_of(s, p);
        assert_int_equal(r.n_sunk, N);
        assert_int_equal(r.disordered, 0);
    }
    assert_true(n_busy > 0);
}

static void answers_of_several_workers_keep_their_order_each(void **state)
{
    enum { N = 200 };
    transport_suite *s = *state;
    uint64_t next[8] = { 0 };
    uint64_t n_left = (uint64_t)N * s->t->n_peers;

    for (tr_peer p = 1; p <= s->t->n_peers; p++)
        send_order(s, p, (order){ .op = MANY, .n = N, .size = 100u * p * p, .seed = 4 });
    while (n_left-- > 0) {
        tr_peer from = 0;
        tr_msg *m = receive(s, &from);
        assert_in_range(from, 1, s->t->n_peers);
        assert_int_equal(m->size, 100u * from * from);
        assert_true(is_filled(m->data, m->size, 4, from, next[from]++));
        tr_msg_free(&m);
    }
    for (tr_peer p = 1; p <= s->t->n_peers; p++)
        assert_int_equal(next[p], N);
    nothing_comes_for(s, TR_MS);
}

/* A short message may complete while a long one before it is still on its way. */
static void a_small_message_does_not_overtake_a_large_one(void **state)
{
    transport_suite *s = *state;

    for (uint64_t round = 0; round < 20; round++) {
        size_t sizes[] = { s->max_size, 1, 100, s->max_size / 2, 2 };
        for (tr_peer p = 1; p <= 2; p++) {
            for (size_t i = 0; i < 5; i++) {
                tr_msg *m = make_echo(s, p, sizes[i], round, i);
                send(s, p, &m);
            }
        }
        size_t next[3] = { 0 };
        for (size_t i = 0; i < 10; i++) {
            tr_peer from = 0;
            tr_msg *m = receive(s, &from);
            assert_in_range(from, 1, 2);
            check_echo(m, from, sizes[next[from]], round, next[from]);
            next[from]++;
        }
    }
}

static void both_ends_count_messages_and_bytes(void **state)
{
    transport_suite *s = *state;
    tr_transport_stats before = s->t->stats;
    worker_report r = report_of(s, 1);

    echo_once(s, 1, 1000, 1);
    echo_once(s, 1, 24, 1);
    worker_report after = report_of(s, 1);

    /* Two echoes and two reports. */
    assert_int_equal(s->t->stats.messages_sent - before.messages_sent, 4);
    assert_int_equal(s->t->stats.bytes_sent - before.bytes_sent, 1024 + 2 * sizeof(order));
    assert_int_equal(s->t->stats.messages_received - before.messages_received, 4);
    assert_int_equal(s->t->stats.bytes_received - before.bytes_received,
                     1024 + 2 * sizeof(worker_report));
    /* The worker's, between the two moments at which it wrote its report. */
    assert_int_equal(after.stats.messages_received - r.stats.messages_received, 3);
    assert_int_equal(after.stats.bytes_received - r.stats.bytes_received, 1024 + sizeof(order));
    assert_int_equal(after.stats.messages_sent - r.stats.messages_sent, 3);
    assert_int_equal(after.stats.bytes_sent - r.stats.bytes_sent, 1024 + sizeof(worker_report));
}

/* An idle cluster is quiet: a spinning wait would take the whole time.  The bound is far above
 * the 2 % of the contract, since a loaded machine charges more for each awakening. */
static void waiting_takes_little_cpu(void **state)
{
    transport_suite *s = *state;

    send_order(s, 1, (order){ .op = IDLE, .n = 400 });
    int64_t cpu = thread_cpu_us();
    tr_time start = tr_now();
    nothing_comes_for(s, 300 * TR_MS);
    int64_t permille = (thread_cpu_us() - cpu) * 1000 / ((tr_now() - start) / TR_US);

    tr_msg *m = receive_from(s, 1);
    worker_report r;
    memcpy(&r, m->data, sizeof r);
    tr_msg_free(&m);
    print_message("  coordinator %ld, worker %u permille of a core\n", (long)permille,
                  r.cpu_permille);
    assert_in_range(permille, 0, 300);
    assert_in_range(r.cpu_permille, 0, 300);
}

static void a_reserved_message_need_not_be_sent(void **state)
{
    transport_suite *s = *state;

    for (size_t i = 0; i < 100; i++) {
        tr_msg *m = reserve(s, s->max_size);
        memset(m->data, 0xff, m->size);
        tr_msg_free(&m);
        assert_null(m);
    }
    echo_once(s, 1, 10, 3);
}

/* ---- losses ---- */

static void a_hung_worker_delays_nobody_beyond_the_deadline(void **state)
{
    transport_suite *s = *state;

    send_order(s, 1, (order){ .op = SLEEP, .n = 300 });
    tr_msg *m = make_echo(s, 1, s->max_size, 6, 0);
    send(s, 1, &m);
    nothing_comes_for(s, 20 * TR_MS);
    for (size_t i = 1; i < 20; i++)
        echo_once(s, 2, i * 1000, i);
    nothing_comes_for(s, 20 * TR_MS);
    check_echo(receive_from(s, 1), 1, s->max_size, 6, 0);
}

/* Worker 3 is dropped with messages on their way in both directions. */
static void a_dropped_worker_is_silent_and_the_others_go_on(void **state)
{
    transport_suite *s = *state;

    send_order(s, 3, (order){ .op = MANY, .n = 20, .size = 40000, .seed = 1 });
    tr_msg *m = receive_from(s, 3);
    tr_msg_free(&m);
    tr_sleep(20 * TR_MS); /* the others arrive meanwhile, or come after the drop */
    send_order(s, 3, (order){ .op = SLEEP, .n = 50 });
    for (size_t i = 0; i < 4; i++) {
        m = make_echo(s, 3, s->max_size, 1, i);
        send(s, 3, &m);
    }
    send_order(s, 3, (order){ .op = STOP });
    tr_transport_drop(s->t, 3);
    s->is_lost[3] = true;

    m = reserve(s, 5);
    tr_msg *same = m;
    assert_int_equal(tr_transport_send(s->t, 3, &m), TR_E_PEER_LOST);
    assert_ptr_equal(m, same);
    tr_msg_free(&m);
    for (size_t i = 0; i < 20; i++) {
        echo_once(s, 1, 1 + i * 3000, i);
        echo_once(s, 2, 1 + i * 3000, i);
    }
    nothing_comes_for(s, 200 * TR_MS);
    tr_transport_drop(s->t, 3); /* once more is no more */
    echo_once(s, 1, 10, 1);
}

/* Worker 2 dies.  Who knows says so, once; who does not lets deadlines pass.  Either way the
 * others go on, before and after it is dropped. */
static void a_dead_worker_delays_nobody_beyond_the_deadline(void **state)
{
    transport_suite *s = *state;
    size_t n_told = 0;

    send_order(s, 2, (order){ .op = DIE });
    for (size_t i = 0; i < 4; i++) {
        tr_msg *m = make_echo(s, 2, s->max_size, 1, i);
        tr_status st = tr_transport_send(s->t, 2, &m);
        assert_true(st == TR_OK || st == TR_E_BUSY || st == TR_E_PEER_LOST);
        tr_msg_free(&m);
    }
    for (size_t i = 0; i < 20; i++) {
        tr_peer from = 0;
        tr_msg *m = NULL;
        tr_status st = tr_transport_recv(s->t, tr_now() + 10 * TR_MS, &from, &m);
        assert_true(st == TR_E_DEADLINE || st == TR_E_PEER_LOST);
        if (st == TR_E_PEER_LOST) {
            assert_int_equal(from, 2);
            n_told++;
        }
    }
    assert_in_range(n_told, 0, 1);
    for (size_t i = 0; i < 20; i++)
        echo_once(s, 1, 1 + i * 3000, i);
    tr_transport_drop(s->t, 2);
    s->is_lost[2] = true;
    for (size_t i = 0; i < 20; i++)
        echo_once(s, 1, 1 + i * 3000, i);

    tr_msg *m = reserve(s, 5);
    assert_int_equal(tr_transport_send(s->t, 2, &m), TR_E_PEER_LOST);
    tr_msg_free(&m);
}

static void a_message_above_the_limit_ends_its_sender(void **state)
{
    transport_suite *s = *state;

    if (!s->has_huge)
        skip();
    send_order(s, 4, (order){ .op = MANY, .n = 1, .size = s->max_size + 1, .seed = 1 });
    send_order(s, 4, (order){ .op = STOP });
    tr_peer from = 0;
    tr_msg *m = NULL;
    assert_int_equal(tr_transport_recv(s->t, tr_now() + PATIENCE, &from, &m), TR_E_PEER_LOST);
    assert_int_equal(from, 4);
    assert_null(m);
    s->is_lost[4] = true;

    m = reserve(s, 5);
    assert_int_equal(tr_transport_send(s->t, 4, &m), TR_E_PEER_LOST);
    tr_msg_free(&m);
    nothing_comes_for(s, 20 * TR_MS); /* told once */
    echo_once(s, 1, 10, 1);
}

/* ---- runs ---- */

/* cmocka hands each scenario its own state. */
#define SCENARIO(f)                                                                                \
    {                                                                                              \
#f, f, NULL, NULL, s                                                                       \
    }

int transport_suite_traffic(transport_suite *s)
{
    const struct CMUnitTest tests[] = {
        SCENARIO(messages_arrive_whole_once_and_in_order),
        SCENARIO(one_byte_and_the_largest_message_arrive),
        SCENARIO(an_empty_transport_returns_at_the_deadline_and_not_before),
        SCENARIO(a_full_way_keeps_the_message_with_its_sender),
        SCENARIO(answers_of_several_workers_keep_their_order_each),
        SCENARIO(a_small_message_does_not_overtake_a_large_one),
        SCENARIO(both_ends_count_messages_and_bytes),
        SCENARIO(waiting_takes_little_cpu),
        SCENARIO(a_reserved_message_need_not_be_sent),
        SCENARIO(workers_get_aligned_memory_too),
    };
    return cmocka_run_group_tests_name("traffic", tests, NULL, NULL);
}

int transport_suite_losses(transport_suite *s)
{
    const struct CMUnitTest tests[] = {
        SCENARIO(a_hung_worker_delays_nobody_beyond_the_deadline),
        SCENARIO(a_dropped_worker_is_silent_and_the_others_go_on),
        SCENARIO(a_dead_worker_delays_nobody_beyond_the_deadline),
        SCENARIO(a_message_above_the_limit_ends_its_sender),
    };
    return cmocka_run_group_tests_name("losses", tests, NULL, NULL);
}

void transport_suite_stop(transport_suite *s)
{
    order o = { .op = STOP };

    for (tr_peer p = 1; p <= s->t->n_peers; p++) {
        tr_msg *m = NULL;
        if (s->is_lost[p] || tr_transport_reserve(s->t, p, sizeof o, &m) != TR_OK)
            continue;
        memcpy(m->data, &o, sizeof o);
        tr_transport_send(s->t, p, &m);
        tr_msg_free(&m);
    }
}
