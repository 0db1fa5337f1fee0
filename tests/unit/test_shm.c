/* test_shm.c - two ends of a region in one process: messages are read where they were written,
 * memory is used again, a full ring refuses, what can't be a message is refused, and a bell wakes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "transport/shm.h"

#include <pthread.h>

enum { MAX_SIZE = 1 << 20, N_WORKERS = 3 };

typedef struct {
    tr_shm *coordinator, *worker; /* peers 0 and 2 */
} fixture;

static int setup(void **state)
{
    static fixture f;

    if (tr_shm_create(N_WORKERS, MAX_SIZE, &f.coordinator) != TR_OK)
        return -1;
    tr_shm_ticket ticket = tr_shm_get_ticket(f.coordinator);
    if (tr_shm_join(&ticket, 2, MAX_SIZE, &f.worker) != TR_OK)
        return -1;
    tr_shm_open_done(f.coordinator);
    tr_shm_open_done(f.worker);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;

    tr_shm_close(&f->coordinator);
    tr_shm_close(&f->worker);
    return 0;
}

static tr_msg *message(tr_shm *s, size_t size, uint8_t value)
{
    tr_msg *m = NULL;

    assert_int_equal(tr_shm_reserve(s, size, &m), TR_OK);
    assert_int_equal(m->size, size);
    assert_int_equal((uintptr_t)m->data % 64, 0);
    memset(m->data, value, size);
    return m;
}

static tr_msg *receive(tr_shm *s, tr_peer from)
{
    tr_msg *m = NULL;
    size_t size;

    assert_int_equal(tr_shm_recv(s, from, &size, &m), TR_OK);
    return m;
}

static void messages_go_both_ways_in_order(void **state)
{
    fixture *f = *state;
    size_t size;
    tr_msg *none = NULL;

    for (uint8_t i = 0; i < 3; i++) {
        tr_msg *down = message(f->coordinator, 1000u * i + 1, i);
        assert_true(tr_shm_owns(f->coordinator, down));
        assert_false(tr_shm_owns(f->worker, down));
        assert_int_equal(tr_shm_send(f->coordinator, 2, &down), TR_OK);
        assert_null(down);
        tr_msg *up = message(f->worker, 5, (uint8_t)(100 + i));
        assert_int_equal(tr_shm_send(f->worker, 0, &up), TR_OK);
    }
    for (uint8_t i = 0; i < 3; i++) {
        tr_msg *down = receive(f->worker, 0);
        assert_int_equal(down->size, 1000u * i + 1);
        assert_int_equal(down->data[down->size - 1], i);
        tr_msg_free(&down);
        tr_msg *up = receive(f->coordinator, 2);
        assert_int_equal(up->data[4], 100 + i);
        tr_msg_free(&up);
    }
    assert_int_equal(tr_shm_recv(f->worker, 0, &size, &none), TR_E_DEADLINE);
    assert_int_equal(tr_shm_recv(f->coordinator, 1, &size, &none), TR_E_DEADLINE);
}

/* Nothing is written into a message that the receiver still holds; once it is freed its memory
 * serves again. */
static void memory_is_used_again_once_it_is_free(void **state)
{
    fixture *f = *state;

    tr_msg *m = message(f->coordinator, 5000, 1);
    const uint8_t *where = m->data;
    assert_int_equal(tr_shm_send(f->coordinator, 2, &m), TR_OK);
    tr_msg *held = receive(f->worker, 0);
    for (int i = 0; i < 10; i++) {
        tr_msg *other = message(f->coordinator, 5000, 2);
        assert_ptr_not_equal(other->data, where);
        tr_msg_free(&other);
    }
    assert_int_equal(held->data[4999], 1);
    tr_msg_free(&held);

    bool is_again = false;
    tr_msg *all[4];
    for (int i = 0; i < 4; i++) {
        all[i] = message(f->coordinator, 5000, 3);
        is_again = is_again || all[i]->data == where;
    }
    for (int i = 0; i < 4; i++)
        tr_msg_free(&all[i]);
    assert_true(is_again);
}

static void a_full_ring_refuses_and_keeps_the_message_ours(void **state)
{
    fixture *f = *state;
    tr_msg *m = NULL;
    size_t n = 0;

    for (;; n++) {
        assert_true(n < 1000);
        m = message(f->worker, 8, (uint8_t)n);
        if (tr_shm_send(f->worker, 0, &m) != TR_OK)
            break;
    }
    assert_non_null(m);
    tr_msg *first = receive(f->coordinator, 2);
    tr_msg_free(&first);
    assert_int_equal(tr_shm_send(f->worker, 0, &m), TR_OK);
    for (size_t i = 1; i <= n; i++) {
        tr_msg *next = receive(f->coordinator, 2);
        assert_int_equal(next->data[0], (uint8_t)i);
        tr_msg_free(&next);
    }
}

static void a_message_larger_than_allowed_is_refused(void **state)
{
    fixture *f = *state;
    tr_shm_ticket none = { .fd = -1, .n_workers = N_WORKERS };
    tr_shm *coordinator = NULL, *liar = NULL;
    tr_msg *m = NULL;
    size_t size = 0;

    (void)f;
    assert_int_equal(tr_shm_join(&none, 1, MAX_SIZE, &liar), TR_E_UNSUPPORTED);
    assert_int_equal(tr_shm_create(1, 100, &coordinator), TR_OK);
    tr_shm_ticket ticket = tr_shm_get_ticket(coordinator);
    assert_int_equal(tr_shm_join(&ticket, 1, 200, &liar), TR_OK);
    m = message(liar, 101, 0);
    assert_int_equal(tr_shm_send(liar, 0, &m), TR_OK);
    assert_int_equal(tr_shm_recv(coordinator, 1, &size, &m), TR_E_PROTOCOL);
    assert_int_equal(size, 101);
    tr_shm_close(&coordinator);
    tr_shm_close(&liar);
}

static void a_ticket_for_another_region_is_refused(void **state)
{
    fixture *f = *state;
    tr_shm_ticket good, bad;
    tr_shm *coordinator = NULL, *worker = NULL;

    (void)f;
    assert_int_equal(tr_shm_create(2, MAX_SIZE, &coordinator), TR_OK);
    good = tr_shm_get_ticket(coordinator);
    bad = good;
    bad.nonce++;
    assert_int_equal(tr_shm_join(&bad, 1, MAX_SIZE, &worker), TR_E_UNSUPPORTED);
    bad = good;
    bad.fd = 0; /* standard input: no region */
    assert_int_equal(tr_shm_join(&bad, 1, MAX_SIZE, &worker), TR_E_UNSUPPORTED);
    bad = good;
    bad.size += 4096;
    assert_int_equal(tr_shm_join(&bad, 1, MAX_SIZE, &worker), TR_E_UNSUPPORTED);
    bad = good;
    bad.n_workers = 3;
    assert_int_equal(tr_shm_join(&bad, 1, MAX_SIZE, &worker), TR_E_UNSUPPORTED);
    assert_int_equal(tr_shm_join(&good, 3, MAX_SIZE, &worker), TR_E_UNSUPPORTED);
    assert_null(worker);
    tr_shm_close(&coordinator);
}

static void *send_soon(void *ctx)
{
    fixture *f = ctx;

    tr_sleep(30 * TR_MS);
    tr_msg *m = message(f->coordinator, 1, 7);
    assert_int_equal(tr_shm_send(f->coordinator, 2, &m), TR_OK);
    return NULL;
}

/* The wait would end by itself only after a minute, ctest's patience. */
static void a_message_wakes_who_waits(void **state)
{
    fixture *f = *state;
    pthread_t thread;
    tr_msg *m = NULL;
    size_t size;

    assert_int_equal(pthread_create(&thread, NULL, send_soon, f), 0);
    while (tr_shm_recv(f->worker, 0, &size, &m) != TR_OK)
        tr_shm_wait(f->worker, 60 * TR_SECOND);
    assert_int_equal(m->data[0], 7);
    tr_msg_free(&m);
    pthread_join(thread, NULL);
}

/* A wait with something there returns at once, but not for who is dropped. */
static void what_is_there_keeps_from_sleeping_unless_it_is_dropped(void **state)
{
    fixture *f = *state;
    tr_msg *m = message(f->worker, 1, 7);

    assert_int_equal(tr_shm_send(f->worker, 0, &m), TR_OK);
    tr_time begin = tr_now();
    for (int i = 0; i < 10; i++)
        tr_shm_wait(f->coordinator, 10 * TR_SECOND);
    assert_true(tr_now() - begin < 10 * TR_SECOND);
    tr_shm_drop(f->coordinator, 2);
    begin = tr_now();
    tr_shm_wait(f->coordinator, 20 * TR_MS);
    assert_true(tr_now() - begin >= 20 * TR_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(messages_go_both_ways_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_is_used_again_once_it_is_free, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_ring_refuses_and_keeps_the_message_ours, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_message_larger_than_allowed_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_ticket_for_another_region_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_message_wakes_who_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_there_keeps_from_sleeping_unless_it_is_dropped,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
