/* test_transport_inproc.c - the suite between threads, and what only inproc promises.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/transport_suite.h"
#include "tests/support/tr_test.h"
#include "transport/inproc.h"

#include <pthread.h>

enum { N_WORKERS = 4, MAX_SIZE = 1 << 20 };

static void *run_worker(void *ctx)
{
    tr_transport *t = ctx;

    transport_suite_worker(t); /* death and stop are the same here: the end closes */
    tr_transport_close(&t);
    return NULL;
}

static int run_suite(int (*run)(transport_suite *s))
{
    tr_inproc *net = NULL;
    tr_transport *t = NULL;
    pthread_t thread[N_WORKERS];

    if (tr_inproc_new(N_WORKERS, MAX_SIZE, &net) != TR_OK || tr_inproc_open(net, 0, &t) != TR_OK)
        return 1;
    for (tr_peer p = 1; p <= N_WORKERS; p++) {
        tr_transport *end = NULL;
        if (tr_inproc_open(net, p, &end) != TR_OK ||
            pthread_create(&thread[p - 1], NULL, run_worker, end) != 0)
            return 1;
    }
    transport_suite s = { .t = t, .max_size = MAX_SIZE };
    int n_failed = run(&s);
    transport_suite_stop(&s);
    tr_transport_close(&t);
    for (size_t i = 0; i < N_WORKERS; i++)
        pthread_join(thread[i], NULL);
    tr_inproc_free(&net);
    return n_failed;
}

static void a_closed_end_is_reported_once_after_its_last_message(void **state)
{
    tr_inproc *net = NULL;
    tr_transport *t[3] = { NULL };
    tr_peer from = 9;
    tr_msg *m = NULL;

    (void)state;
    assert_int_equal(tr_inproc_new(2, 100, &net), TR_OK);
    for (tr_peer p = 0; p <= 2; p++)
        assert_int_equal(tr_inproc_open(net, p, &t[p]), TR_OK);
    assert_int_equal(tr_transport_reserve(t[2], 0, 3, &m), TR_OK);
    memcpy(m->data, "bye", 3);
    assert_int_equal(tr_transport_send(t[2], 0, &m), TR_OK);
    tr_transport_close(&t[2]);

    assert_int_equal(tr_transport_recv(t[0], 0, &from, &m), TR_OK);
    assert_int_equal(from, 2);
    assert_memory_equal(m->data, "bye", 3);
    tr_msg_free(&m);
    from = 9;
    assert_int_equal(tr_transport_recv(t[0], 0, &from, &m), TR_E_PEER_LOST);
    assert_int_equal(from, 2);
    assert_int_equal(tr_transport_recv(t[0], 0, &from, &m), TR_E_DEADLINE);
    assert_int_equal(tr_transport_recv(t[1], 0, &from, &m), TR_E_DEADLINE);

    tr_transport_close(&t[0]);
    assert_int_equal(tr_transport_recv(t[1], TR_FOREVER, &from, &m), TR_E_PEER_LOST);
    assert_int_equal(from, 0);
    tr_transport_close(&t[1]);
    tr_inproc_free(&net);
    assert_null(net);
}

static void messages_wait_for_an_end_that_opens_late_or_never(void **state)
{
    tr_inproc *net = NULL;
    tr_transport *t[3] = { NULL };
    tr_peer from = 9;
    tr_msg *m = NULL;

    (void)state;
    assert_int_equal(tr_inproc_new(2, 100, &net), TR_OK);
    assert_int_equal(tr_inproc_open(net, 0, &t[0]), TR_OK);
    for (tr_peer p = 1; p <= 2; p++) {
        assert_int_equal(tr_transport_reserve(t[0], 1, 3, &m), TR_OK);
        assert_int_equal(tr_transport_send(t[0], p, &m), TR_OK);
    }
    assert_int_equal(tr_inproc_open(net, 1, &t[1]), TR_OK);
    assert_int_equal(tr_transport_recv(t[1], 0, &from, &m), TR_OK);
    assert_int_equal(m->size, 3);
    tr_msg_free(&m);
    tr_transport_close(&t[0]);
    tr_transport_close(&t[1]);
    tr_inproc_free(&net);
}

int main(void)
{
    const struct CMUnitTest own[] = {
        cmocka_unit_test(a_closed_end_is_reported_once_after_its_last_message),
        cmocka_unit_test(messages_wait_for_an_end_that_opens_late_or_never),
    };
    int n_failed = cmocka_run_group_tests_name("inproc", own, NULL, NULL);

    n_failed += run_suite(transport_suite_traffic);
    n_failed += run_suite(transport_suite_losses);
    return n_failed != 0;
}
