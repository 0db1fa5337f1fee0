/* test_scheduler.c - who gets rows, who is let in, who has to leave, and how a chunk finds its
 * size. SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/engine/scheduler.h"

#include <math.h>

static tr_schedule_item item(size_t known, size_t computed, tr_time due, uint64_t ticket)
{
    return (tr_schedule_item){ known, computed, due, ticket, true, false };
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
    assert_true(rows[0] == 15 && rows[1] == 1 && rows[2] == 5 && rows[3] == 1);
    l.chunk = 1000; /* then the step's rows are the limit */
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 57 && rows[1] == 1 && rows[2] == 5 && rows[3] == 1);
    l.max_rows = 200;
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 100 && rows[1] == 1 && rows[2] == 5 && rows[3] == 1);
}

static void without_writers_readers_have_the_whole_step(void **state)
{
    const tr_schedule_item items[] = { item(100, 0, 0, 2), item(100, 0, -1, 3), item(9, 0, 0, 1) };
    size_t rows[3];
    tr_schedule_limits l = { 128, 8, 4 };

    (void)state;
    tr_schedule_rows(items, 3, &l, rows);
    assert_true(rows[1] == 100); /* due first */
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
    assert_true(rows[0] == 1 && rows[1] == 1 && rows[2] == 0 && rows[3] == 2);
}

static void order_is_who_is_due_then_the_ticket(void **state)
{
    tr_schedule_item items[] = { item(1, 0, 0, 9), item(1, 0, -2, 8), item(1, 0, 0, 7),
                                 item(1, 0, 1, 1) };

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

static void a_short_prompt_does_not_wait_for_a_long_one(void **state)
{
    const tr_schedule_item items[] = { item(9, 8, 0, 1), item(2000, 0, 0, 2), item(15, 0, 0, 3),
                                       item(14, 0, 0, 4) };
    size_t rows[4];
    tr_schedule_limits l = { 256, 8, 20 };

    (void)state;
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 1 && rows[1] == 10 && rows[2] == 0 && rows[3] == 10);
    l.chunk = 40;
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 1 && rows[1] == 26 && rows[2] == 0 && rows[3] == 14);
    l.max_logits =
        2; /* then the last token of the short one's prompt is the only one to get them */
    tr_schedule_rows(items, 4, &l, rows);
    assert_true(rows[0] == 1 && rows[1] == 0 && rows[2] == 0 && rows[3] == 14);
}

static void who_is_held_gets_nothing_until_the_other_has_read(void **state)
{
    tr_schedule_item items[] = { item(50, 0, 0, 1), item(50, 0, 0, 2), item(9, 8, 0, 3) };
    size_t rows[3];
    tr_schedule_limits l = { 128, 8, 100 };

    (void)state;
    items[1].is_held = true;
    tr_schedule_rows(items, 3, &l, rows);
    assert_true(rows[0] == 50 && rows[1] == 0 && rows[2] == 1);
}

/* A machine: a step of so many rows takes so long, give or take a tenth. */
typedef struct {
    double fixed, per_row, concave; /* ms; of the root of the rows */
} machine;

static uint64_t seed;

static double milliseconds(const machine *m, size_t rows)
{
    return m->fixed + m->per_row * (double)rows + m->concave * sqrt((double)rows);
}

static void run_step(const machine *m, tr_step_time *t, size_t rows, uint64_t number)
{
    double noise = 0.9 + 0.2 * tr_rng_unit(tr_rng_u64(seed, number, 0));

    tr_step_time_add(t, rows, (tr_time)(milliseconds(m, rows) * noise * (double)TR_MS));
}

/* Writers and readers, and always more to read; returns how many times as long as without readers
 * the later steps are, in the mean. */
static double steps_with_readers(const machine *m, tr_step_time *t, size_t writers, size_t readers)
{
    tr_schedule_item items[64];
    double sum = 0.0;

    for (size_t i = 0; i < writers; i++)
        items[i] = item(10, 9, 0, i);
    for (size_t i = writers; i < writers + readers; i++)
        items[i] = item(100000, 0, 0, i);
    for (size_t k = 0; k < 400; k++) {
        size_t chunk = tr_schedule_chunk(items, writers + readers, t, 512 - writers);
        assert_true(chunk <= 512 - writers);
        run_step(m, t, writers + chunk, k);
        if (k >= 200)
            sum += milliseconds(m, writers + chunk) / milliseconds(m, writers);
    }
    return sum / 200.0;
}

/* No step without readers ever comes, so what one would take can't be seen; and whatever was learnt
 * in other times does not stay. */
static void one_long_prompt_makes_steps_about_half_as_long_again(void **state)
{
    static const machine machines[] = { { 10.0, 0.1, 0.0 }, { 0.3, 0.1, 1.5 }, { 20.0, 0.5, 8.0 } };
    tr_step_time lone = { 0 };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        tr_step_time t = { 0 };
        assert_in_range(100.0 * steps_with_readers(&machines[i], &t, 16, 1), 125, 175);
        assert_in_range(100.0 * steps_with_readers(&machines[i], &t, 4, 1), 125, 175);
        for (size_t k = 0; k < 1000; k++)
            run_step(&machines[i], &lone, 1, k); /* one user for a long time */
        assert_in_range(100.0 * steps_with_readers(&machines[i], &lone, 16, 1), 125, 175);
        tr_step_time_add(&t, 20, TR_SECOND); /* a worker died */
        assert_in_range(100.0 * steps_with_readers(&machines[i], &t, 16, 1), 125, 175);
    }
}

static void many_prompts_get_their_share(void **state)
{
    static const machine m = { 5.0, 0.1, 0.5 };
    tr_step_time t = { 0 };

    (void)state;
    assert_in_range(100.0 * steps_with_readers(&m, &t, 8, 8), 175, 230);
    assert_in_range(100.0 * steps_with_readers(&m, &t, 8, 24), 340, 460);
}

static void nobody_writes_so_nobody_is_held_up(void **state)
{
    const tr_schedule_item items[] = { item(100, 0, 0, 1), item(100, 0, 0, 2) };
    tr_step_time t = { 0 };

    (void)state;
    assert_int_equal(tr_schedule_chunk(items, 2, &t, 256), 256);
}

static void times_of_steps_are_learnt_and_forgotten(void **state)
{
    tr_step_time t = { 0 };

    (void)state;
    assert_true(tr_step_time_expect(&t, 5) == 0.0);
    assert_int_equal(tr_step_time_rows(&t, 5, 1.0), 5);
    tr_step_time_add(&t, 10, 10 * TR_MS); /* all that is known: in proportion */
    assert_float_equal(tr_step_time_expect(&t, 5), 0.005, 1e-9);
    assert_float_equal(tr_step_time_expect(&t, 20), 0.02, 1e-9);
    assert_int_equal(tr_step_time_rows(&t, 10, 0.015), 15);
    assert_int_equal(tr_step_time_rows(&t, 10, 1.0), 21); /* no further into what is unknown */
    tr_step_time_add(&t, 30, 14 * TR_MS);
    assert_float_equal(tr_step_time_expect(&t, 20), 0.012, 1e-9);
    assert_float_equal(tr_step_time_expect(&t, 40), 0.016, 1e-9);
    assert_int_equal(tr_step_time_rows(&t, 5, 0.0121), 20);
    for (size_t k = 0; k < 40; k++)
        tr_step_time_add(&t, 1000000, TR_MS); /* never seen in order, and quick: no line falls */
    assert_true(tr_step_time_rows(&t, 10, 0.015) >= 1000000);
    for (size_t k = 0; k < 300; k++)
        tr_step_time_add(&t, 100, 200 * TR_MS);
    assert_float_equal(tr_step_time_expect(&t, 20), 0.04, 1e-9);
}

int main(void)
{
    seed = tr_test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writers_go_first_and_readers_share_the_chunk),
        cmocka_unit_test(without_writers_readers_have_the_whole_step),
        cmocka_unit_test(those_who_wait_get_nothing),
        cmocka_unit_test(no_more_logits_than_there_is_room_for),
        cmocka_unit_test(order_is_who_is_due_then_the_ticket),
        cmocka_unit_test(a_short_prompt_does_not_wait_for_a_long_one),
        cmocka_unit_test(who_is_held_gets_nothing_until_the_other_has_read),
        cmocka_unit_test(one_long_prompt_makes_steps_about_half_as_long_again),
        cmocka_unit_test(many_prompts_get_their_share),
        cmocka_unit_test(nobody_writes_so_nobody_is_held_up),
        cmocka_unit_test(times_of_steps_are_learnt_and_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
