/* test_transport_zmq.c - the suite over ZeroMQ, and what happens when connections break.
 *
 * Workers are threads with sockets of their own.  For what breaks they connect through a relay of
 * this file, which forwards bytes between two TCP connections until it is told to cut both.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/transport_suite.h"
#include "tests/support/tr_test.h"
#include "transport/zmq.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { N_WORKERS = 4, MAX_SIZE = 1 << 20 };

static const tr_time PATIENCE = 20 * TR_SECOND;

/* ---- the suite ------------------------------------------------------------------------ */

static void *run_worker(void *ctx)
{
    tr_transport *t = ctx;

    transport_suite_worker(t); /* death and stop are the same here: the end closes */
    tr_transport_close(&t);
    return NULL;
}

/* Workers may send more than the coordinator takes: one scenario lies so. */
static tr_transport *join(tr_transport *server, tr_peer worker)
{
    tr_zmq_ticket ticket;
    tr_transport *t = NULL;

    assert_int_equal(tr_zmq_invite(server, worker, &ticket), TR_OK);
    assert_int_equal(tr_zmq_join(&ticket, worker, 2 * MAX_SIZE, &t), TR_OK);
    tr_zmq_ticket_forget(&ticket);
    return t;
}

static int run_suite(int (*run)(transport_suite *s))
{
    tr_transport *t = NULL;
    pthread_t thread[N_WORKERS];

    if (tr_zmq_serve(NULL, N_WORKERS, MAX_SIZE, &t) != TR_OK)
        return 1;
    for (tr_peer p = 1; p <= N_WORKERS; p++)
        if (pthread_create(&thread[p - 1], NULL, run_worker, join(t, p)) != 0)
            return 1;
    transport_suite s = { .t = t, .max_size = MAX_SIZE, .has_huge = true };
    int n_failed = run(&s);
    transport_suite_stop(&s);
    tr_transport_close(&t);
    for (size_t i = 0; i < N_WORKERS; i++)
        pthread_join(thread[i], NULL);
    return n_failed;
}

/* ---- a relay that cuts ---------------------------------------------------------------- */

typedef struct {
    int listener, near, far; /* -1: none */
    struct sockaddr_in target;
    char endpoint[64];
    atomic_bool is_over;
    atomic_uint n_cuts, n_done; /* asked for, done */
    pthread_t thread;
} relay;

static void cut_now(relay *r)
{
    if (r->near >= 0)
        close(r->near);
    if (r->far >= 0)
        close(r->far);
    r->near = r->far = -1;
}

static void let_in(relay *r)
{
    int near = accept(r->listener, NULL, NULL);

    if (near < 0)
        return;
    cut_now(r);
    r->near = near;
    r->far = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(r->far, (const struct sockaddr *)&r->target, sizeof r->target) != 0)
        cut_now(r);
}

static void forward(relay *r, int from, int to)
{
    uint8_t bytes[65536];
    ssize_t n = recv(from, bytes, sizeof bytes, 0);

    for (ssize_t at = 0; n > 0 && at < n;) {
        ssize_t sent = send(to, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
        if (sent <= 0)
            n = 0;
        at += sent;
    }
    if (n <= 0)
        cut_now(r);
}

static void *run_relay(void *ctx)
{
    relay *r = ctx;

    while (!r->is_over) {
        struct pollfd fds[] = {
            { r->listener, POLLIN, 0 },
            { r->near, POLLIN, 0 },
            { r->far, POLLIN, 0 },
        };
        poll(fds, 3, 2);
        if (r->n_done != r->n_cuts) {
            cut_now(r);
            r->n_done++;
            continue;
        }
        if (fds[0].revents)
            let_in(r);
        else if (fds[1].revents)
            forward(r, r->near, r->far);
        else if (fds[2].revents)
            forward(r, r->far, r->near);
    }
    cut_now(r);
    close(r->listener);
    return NULL;
}

/* The relay's address takes the place of the server's in the ticket. */
static void relay_begin(relay *r, tr_zmq_ticket *ticket)
{
    struct sockaddr_in here = { .sin_family = AF_INET };
    socklen_t size = sizeof here;
    unsigned port = 0;

    *r = (relay){ .near = -1, .far = -1 };
    assert_int_equal(sscanf(ticket->endpoint, "tcp://127.0.0.1:%u", &port), 1);
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    r->target = here;
    r->target.sin_port = htons((uint16_t)port);
    r->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(r->listener, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(listen(r->listener, 8), 0);
    assert_int_equal(getsockname(r->listener, (struct sockaddr *)&here, &size), 0);
    snprintf(ticket->endpoint, sizeof ticket->endpoint, "tcp://127.0.0.1:%u",
             (unsigned)ntohs(here.sin_port));
    assert_int_equal(pthread_create(&r->thread, NULL, run_relay, r), 0);
}

static void relay_cut(relay *r)
{
    r->n_cuts++;
    while (r->n_done != r->n_cuts)
        tr_sleep(TR_MS);
}

static void relay_end(relay *r)
{
    r->is_over = true;
    pthread_join(r->thread, NULL);
}

/* ---- what breaks ---------------------------------------------------------------------- */

static size_t size_of(uint64_t number)
{
    return 8 + number * 7919 % 50000;
}

/* Sends message number, unless it is over before there is a way. */
static void send_numbered(tr_transport *t, uint64_t number)
{
    tr_time until = tr_now() + PATIENCE;
    tr_msg *m = NULL;
    tr_status st;

    assert_int_equal(tr_transport_reserve(t, 1, size_of(number), &m), TR_OK);
    memset(m->data, (int)(number & 0x7f), m->size);
    memcpy(m->data, &number, sizeof number);
    while ((st = tr_transport_send(t, 1, &m)) == TR_E_BUSY && tr_now() < until)
        tr_sleep(50 * TR_US);
    assert_int_equal(st, TR_OK);
}

/* An answer must be a message that was sent, unchanged, later than all answers before. */
static bool receive_numbered(tr_transport *t, tr_time wait, uint64_t *last)
{
    tr_msg *m = NULL;
    tr_peer from = 9;
    uint64_t number = 0;
    tr_status st = tr_transport_recv(t, tr_now() + wait, &from, &m);

    if (st == TR_E_DEADLINE)
        return false;
    assert_int_equal(st, TR_OK);
    assert_int_equal(from, 1);
    assert_int_equal((uintptr_t)m->data % 64, 0);
    assert_true(m->size >= sizeof number);
    memcpy(&number, m->data, sizeof number);
    assert_true(number > *last);
    assert_int_equal(m->size, size_of(number));
    size_t n_wrong = 0;
    for (size_t i = sizeof number; i < m->size; i++)
        n_wrong += m->data[i] != (number & 0x7f);
    assert_int_equal(n_wrong, 0);
    *last = number;
    tr_msg_free(&m);
    return true;
}

static void *run_echo(void *ctx)
{
    tr_transport *t = ctx;
    tr_msg *m = NULL;
    tr_peer from;
    bool goes_on = true;

    while (goes_on && tr_transport_recv(t, tr_now() + PATIENCE, &from, &m) == TR_OK) {
        goes_on = m->size > 1; /* one byte: the end */
        while (goes_on && tr_transport_send(t, 0, &m) == TR_E_BUSY)
            tr_sleep(50 * TR_US);
        tr_msg_free(&m);
    }
    tr_transport_close(&t);
    return NULL;
}

static void a_cut_connection_is_made_again_and_traffic_goes_on(void **state)
{
    enum { N = 300, CUT_EACH = 40, AHEAD = 4 };
    tr_transport *server = NULL, *worker = NULL;
    tr_zmq_ticket ticket;
    pthread_t thread;
    relay r;
    uint64_t last = 0, n_answers = 0, number = 0;

    (void)state;
    assert_int_equal(tr_zmq_serve(NULL, 1, MAX_SIZE, &server), TR_OK);
    assert_int_equal(tr_zmq_invite(server, 1, &ticket), TR_OK);
    relay_begin(&r, &ticket);
    assert_int_equal(tr_zmq_join(&ticket, 1, MAX_SIZE, &worker), TR_OK);
    assert_int_equal(pthread_create(&thread, NULL, run_echo, worker), 0);

    while (number < N) { /* cut with messages on their way */
        send_numbered(server, ++number);
        if (number % CUT_EACH == 0)
            relay_cut(&r);
        if (number > AHEAD)
            n_answers += receive_numbered(server, 100 * TR_MS, &last);
    }
    while (receive_numbered(server, 500 * TR_MS, &last))
        n_answers++;
    print_message("  %u cuts: %u of %u answers came\n", N / CUT_EACH, (unsigned)n_answers, N);
    assert_true(n_answers > N / 2); /* each cut costs a few, not all that follow */

    relay_cut(&r); /* cut with nothing on its way; what is sent before the ends know is lost */
    tr_time until = tr_now() + PATIENCE;
    do {
        send_numbered(server, ++number);
        assert_true(tr_now() < until);
    } while (!receive_numbered(server, 200 * TR_MS, &last) || last != number);
    for (int i = 0; i < 100; i++) { /* and from then on nothing is */
        send_numbered(server, ++number);
        assert_true(receive_numbered(server, PATIENCE, &last));
        assert_true(last == number);
    }

    tr_msg *m = NULL;
    assert_int_equal(tr_transport_reserve(server, 1, 1, &m), TR_OK);
    assert_int_equal(tr_transport_send(server, 1, &m), TR_OK);
    pthread_join(thread, NULL);
    tr_transport_close(&server);
    relay_end(&r);
}

static void a_worker_that_is_not_there_yet_makes_the_coordinator_wait(void **state)
{
    tr_transport *server = NULL, *worker = NULL;
    tr_msg *m = NULL, *same;
    tr_peer from = 9;
    tr_status st;

    (void)state;
    assert_int_equal(tr_zmq_serve(NULL, 1, MAX_SIZE, &server), TR_OK);
    assert_int_equal(tr_transport_reserve(server, 1, 5, &m), TR_OK);
    same = m;
    assert_int_equal(tr_transport_send(server, 1, &m), TR_E_BUSY);
    assert_ptr_equal(m, same);
    assert_false(tr_zmq_has_come(server, 1));

    worker = join(server, 1);
    tr_time until = tr_now() + PATIENCE;
    while ((st = tr_transport_send(server, 1, &m)) == TR_E_BUSY && tr_now() < until)
        tr_sleep(50 * TR_US); /* only sending: the door is looked at all the same */
    assert_int_equal(st, TR_OK);
    assert_int_equal(tr_transport_recv(worker, until, &from, &m), TR_OK);
    assert_int_equal(from, 0);
    assert_int_equal(m->size, 5);
    tr_msg_free(&m);
    assert_int_equal(tr_transport_recv(server, tr_now() + 200 * TR_MS, &from, &m), TR_E_DEADLINE);
    assert_true(tr_zmq_has_come(server, 1)); /* by a greeting that is no message */
    tr_transport_close(&worker);
    tr_transport_close(&server);
}

/* A ticket is void once there is a newer one, before and after its holder has come. */
static void who_has_no_ticket_is_not_heard(void **state)
{
    tr_transport *server = NULL, *old = NULL, *stranger = NULL;
    tr_zmq_ticket forged;
    tr_msg *m = NULL;
    tr_peer from = 9;

    (void)state;
    assert_int_equal(tr_zmq_serve(NULL, 1, MAX_SIZE, &server), TR_OK);
    old = join(server, 1);
    tr_time until = tr_now() + PATIENCE;
    while (!tr_zmq_has_come(server, 1) && tr_now() < until)
        assert_int_equal(tr_transport_recv(server, tr_now() + TR_MS, &from, &m), TR_E_DEADLINE);
    assert_true(tr_zmq_has_come(server, 1));

    assert_int_equal(tr_zmq_invite(server, 1, &forged), TR_OK);
    assert_int_equal(tr_curve_keys_new(&forged.keys), TR_OK); /* the server's address, own keys */
    assert_int_equal(tr_zmq_join(&forged, 1, MAX_SIZE, &stranger), TR_OK);
    tr_transport *both[] = { old, stranger };
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tr_transport_reserve(both[i], 0, 5, &m), TR_OK);
        assert_int_equal(tr_transport_send(both[i], 0, &m), TR_OK); /* into a queue */
    }
    assert_int_equal(tr_transport_recv(server, tr_now() + 300 * TR_MS, &from, &m), TR_E_DEADLINE);
    assert_false(tr_zmq_has_come(server, 1));
    assert_int_equal(tr_transport_reserve(server, 1, 5, &m), TR_OK);
    assert_int_equal(tr_transport_send(server, 1, &m), TR_E_BUSY);
    tr_msg_free(&m);
    tr_transport_close(&old);
    tr_transport_close(&stranger);
    tr_transport_close(&server);
}

static void a_wrong_address_is_refused_with_a_reason(void **state)
{
    tr_transport *t = NULL;
    char reason[256];

    (void)state;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_zmq_serve("192.0.2.1", 1, MAX_SIZE, &t), TR_E_SYSTEM);
    tr_fail_capture_end();
    assert_null(t);
    assert_non_null(strstr(reason, "data plane: can't listen on 192.0.2.1"));
}

int main(void)
{
    const struct CMUnitTest own[] = {
        cmocka_unit_test(a_cut_connection_is_made_again_and_traffic_goes_on),
        cmocka_unit_test(a_worker_that_is_not_there_yet_makes_the_coordinator_wait),
        cmocka_unit_test(who_has_no_ticket_is_not_heard),
        cmocka_unit_test(a_wrong_address_is_refused_with_a_reason),
    };
    int n_failed = cmocka_run_group_tests_name("zmq", own, NULL, NULL);

    n_failed += run_suite(transport_suite_traffic);
    n_failed += run_suite(transport_suite_losses);
    return n_failed != 0;
}
