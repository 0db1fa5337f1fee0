/* test_msg_pool.c - freed messages are used again, and lists keep their order.
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/msg_pool.h"
#include "base/rng.h"
#include "tests/support/tr_test.h"

static void give_back(tr_msg *m)
{
    tr_msg_pool_put(tr_slab_of(m));
}

static const struct tr_msg_ops ops = { give_back };

static void messages_are_aligned_and_hold_their_size(void **state)
{
    static const size_t sizes[] = { 1, 63, 64, 1023, 1024, 1025, 65537, (1 << 21) + 1 };
    tr_msg_pool pool;

    (void)state;
    tr_msg_pool_init(&pool, &ops, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        tr_slab *slab = NULL;
        assert_int_equal(tr_msg_pool_take(&pool, sizes[i], &slab), TR_OK);
        tr_msg *m = &slab->msg;
        assert_int_equal(m->size, sizes[i]);
        assert_int_equal((uintptr_t)m->data % 64, 0);
        memset(m->data, 0xff, sizes[i]);
        tr_msg_free(&m);
        assert_null(m);
    }
    tr_msg_pool_fini(&pool);
}

static void steady_traffic_allocates_nothing(void **state)
{
    enum { N = 8 };
    tr_msg_pool pool;
    const uint8_t *first[N];

    (void)state;
    tr_msg_pool_init(&pool, &ops, NULL);
    for (size_t round = 0; round < 10; round++) {
        tr_slab *slab[N];
        for (size_t i = 0; i < N; i++)
            assert_int_equal(tr_msg_pool_take(&pool, 5000 + i * round, &slab[i]), TR_OK);
        for (size_t i = 0; i < N; i++) {
            size_t known = 0;
            if (round == 0)
                first[i] = slab[i]->msg.data;
            while (known < N && first[known] != slab[i]->msg.data)
                known++;
            if (round > 0)
                assert_true(known < N);
        }
        for (size_t i = 0; i < N; i++)
            tr_msg_pool_put(slab[i]);
    }
    tr_msg_pool_fini(&pool);
}

static void too_much_memory_is_an_error(void **state)
{
    tr_msg_pool pool;
    tr_slab *slab = NULL;
    char line[200];

    (void)state;
    tr_msg_pool_init(&pool, &ops, NULL);
    tr_fail_capture_begin(line, sizeof line);
    /* More than an address space holds. */
    tr_status st = tr_msg_pool_take(&pool, (size_t)1 << 62, &slab);
    tr_fail_capture_end();
    assert_int_equal(st, TR_E_MEMORY);
    assert_null(slab);
    assert_non_null(strstr(line, "message"));
    tr_msg_pool_fini(&pool);
}

static void a_split_keeps_both_orders(void **state)
{
    enum { N = 100 };
    tr_msg_pool pool;
    tr_slab_list list = { NULL, NULL }, out = { NULL, NULL };
    uint64_t seed = tr_test_seed();
    size_t n_out = 0, n_kept = 0, n_expected = 0;

    (void)state;
    tr_msg_pool_init(&pool, &ops, NULL);
    for (size_t i = 0; i < N; i++) {
        tr_slab *slab = NULL;
        assert_int_equal(tr_msg_pool_take(&pool, 1 + i, &slab), TR_OK);
        slab->peer = (tr_peer)(tr_rng_u64(seed, 0, i) % 3);
        n_expected += slab->peer == 1;
        tr_slab_append(&list, slab);
    }
    tr_slab_split(&list, 1, &out);

    size_t last = 0;
    for (tr_slab *slab; (slab = tr_slab_pop(&out)); last = slab->msg.size, n_out++) {
        assert_int_equal(slab->peer, 1);
        assert_true(slab->msg.size > last);
        tr_msg_pool_put(slab);
    }
    last = 0;
    for (tr_slab *slab; (slab = tr_slab_pop(&list)); last = slab->msg.size, n_kept++) {
        assert_int_not_equal(slab->peer, 1);
        assert_true(slab->msg.size > last);
        tr_msg_pool_put(slab);
    }
    assert_int_equal(n_out, n_expected);
    assert_int_equal(n_kept, N - n_expected);
    assert_null(list.tail);
    tr_msg_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_aligned_and_hold_their_size),
        cmocka_unit_test(steady_traffic_allocates_nothing),
        cmocka_unit_test(too_much_memory_is_an_error),
        cmocka_unit_test(a_split_keeps_both_orders),
    };
    return cmocka_run_group_tests_name("msg_pool", tests, NULL, NULL);
}
