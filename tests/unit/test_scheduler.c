/* test_scheduler.c - who gets rows, who is let in, who has to leave, and how a chunk finds its
 * size. SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/engine/scheduler.h"

static tr_schedule_item item(size_t known, size_t computed, int32_t priority, uint64_t arrival)
{
    return (tr_schedule_item){ known, computed, priority, arrival, true };
}

static void writers_go_first_and_readers_share_the_chunk(void **state)
{
    const tr_schedule_item items[] = {
        item(100, 0, 0, 1), /* reads */
        item(11, 10, 0, 2), /* writes */
        item(50, 45, 0, 3), /* reads its last five */
        item(8, 7, 0, 4),   /* writes */
    };
    size_t rows[4];
    tr_schedule_limits l = { 64, 8, 20 };

    (void)state;
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 20 && rows[1] == 1 && rows[2] == 0 && rows[3] == 1);
    l.chunk = 1000; /* then the step's rows are the limit */
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 62 && rows[1] == 1 && rows[2] == 0 && rows[3] == 1);
    l.max_rows = 200;
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 100 && rows[1] == 1 && rows[2] == 5 && rows[3] == 1);
}

static void without_writers_readers_have_the_whole_step(void **state)
{
    const tr_schedule_item items[] = { item(100, 0, 0, 2), item(100, 0, 1, 3), item(9, 0, 0, 1) };
    size_t rows[3];
    tr_schedule_limits l = { 128, 8, 4 };

    (void)state;
    tr_schedule_rows(items, 3, &l, rows);
    assert_true(rows[1] == 100); /* the higher priority */
    assert_true(rows[2] == 9);   /* then who came first */
    assert_true(rows[0] == 19);
}

static void those_who_wait_get_nothing(void **state)
{
    tr_schedule_item items[] = { item(5, 0, 0, 1), item(6, 5, 0, 2) };
    size_t rows[2];
    tr_schedule_limits l = { 16, 2, 16 };

    (void)state;
    items[0].is_running = items[1].is_running = false;
    tr_schedule_rows(items, 2, &l, rows);
    assert_true(rows[0] == 0 && rows[1] == 0);
}

static void no_more_logits_than_there_is_room_for(void **state)
{
    const tr_schedule_item items[] = { item(5, 4, 0, 1), item(9, 8, 0, 2), item(3, 0, 0, 3),
                                       item(2, 0, 0, 4) };
    size_t rows[4];
    tr_schedule_limits l = { 16, 3, 16 };

    (void)state;
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 1 && rows[1] == 1 && rows[2] == 3 && rows[3] == 0);
}

static void order_is_priority_then_arrival(void **state)
{
    tr_schedule_item items[] = { item(1, 0, 0, 9), item(1, 0, 2, 8), item(1, 0, 0, 7),
                                 item(1, 0, -1, 1) };

    (void)state;
    assert_true(tr_schedule_next(items, 4) == TR_SCHEDULE_NONE);
    assert_true(tr_schedule_victim(items, 4) == 3);
    items[3].is_running = false;
    assert_true(tr_schedule_victim(items, 4) == 0);
    for (size_t i = 0; i < 4; i++)
        items[i].is_running = false;
    assert_true(tr_schedule_victim(items, 4) == TR_SCHEDULE_NONE);
    assert_true(tr_schedule_next(items, 4) == 1);
    items[1].is_running = true;
    assert_true(tr_schedule_next(items, 4) == 2);
}

static void a_chunk_makes_steps_half_as_long_again(void **state)
{
    tr_chunk c = { .rows = 64, .least = 8, .most = 512 };

    (void)state;
    tr_chunk_update(&c, 0, 64, TR_SECOND); /* nobody waits for it */
    tr_chunk_update(&c, 4, 64, TR_SECOND); /* nothing to compare with yet */
    assert_int_equal(c.rows, 64);
    tr_chunk_update(&c, 4, 0, 10 * TR_MS);
    for (int i = 0; i < 200; i++) /* a row costs 0.1 ms */
        tr_chunk_update(&c, 4, c.rows, 10 * TR_MS + (tr_time)c.rows * 100 * TR_US);
    assert_in_range(c.rows, 40, 60);
    for (int i = 0; i < 200; i++) /* a row costs nothing */
        tr_chunk_update(&c, 4, c.rows, 10 * TR_MS);
    assert_int_equal(c.rows, 512);
    for (int i = 0; i < 200; i++) /* a row costs 10 ms */
        tr_chunk_update(&c, 4, c.rows, 10 * TR_MS + (tr_time)c.rows * 10 * TR_MS);
    assert_int_equal(c.rows, 8);
    for (int i = 0; i < 200; i++) /* the end of a prompt says nothing about whole chunks */
        tr_chunk_update(&c, 4, 1, 10 * TR_MS);
    assert_int_equal(c.rows, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writers_go_first_and_readers_share_the_chunk),
        cmocka_unit_test(without_writers_readers_have_the_whole_step),
        cmocka_unit_test(those_who_wait_get_nothing),
        cmocka_unit_test(no_more_logits_than_there_is_room_for),
        cmocka_unit_test(order_is_priority_then_arrival),
        cmocka_unit_test(a_chunk_makes_steps_half_as_long_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
