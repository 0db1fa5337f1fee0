/* test_placement.c - each rule gives every expert a holder that exists, evenly where it says so.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/cluster/placement.h"

static void count_held(const tr_placement *p, uint32_t layer, uint32_t *held)
{
    memset(held, 0, (p->n_workers + 1) * sizeof *held);
    for (uint32_t e = 0; e < p->n_experts; e++) {
        uint32_t peer = tr_placement_holder(p, layer, e);
        assert_in_range(peer, 0, p->n_workers);
        held[peer]++;
    }
}

static void even_and_rotate_differ_by_at_most_one_expert(void **state)
{
    static const tr_placement_rule rules[] = { TR_PLACE_EVEN, TR_PLACE_ROTATE };
    uint32_t held[18];

    (void)state;
    for (size_t r = 0; r < 2; r++) {
        for (uint32_t n = 1; n <= 17; n++) {
            tr_placement p;
            assert_int_equal(tr_placement_new(4, 17, n, rules[r], NULL, &p), TR_OK);
            for (uint32_t layer = 0; layer < 4; layer++) {
                count_held(&p, layer, held);
                assert_int_equal(held[0], 0);
                for (uint32_t w = 1; w <= n; w++)
                    assert_in_range(held[w], 17 / n, (17 + n - 1) / n);
            }
            tr_placement_fini(&p);
        }
    }
}

/* A dense model: one expert a layer. */
static void single_experts_go_by_layer_and_every_worker_gets_some(void **state)
{
    static const tr_placement_rule rules[] = { TR_PLACE_EVEN, TR_PLACE_ROTATE };

    (void)state;
    for (size_t r = 0; r < 2; r++) {
        for (uint32_t n = 1; n <= 7; n++) {
            uint32_t held[8] = { 0 };
            tr_placement p;
            assert_int_equal(tr_placement_new(7, 1, n, rules[r], NULL, &p), TR_OK);
            for (uint32_t layer = 0; layer < 7; layer++) {
                uint32_t peer = tr_placement_holder(&p, layer, 0);
                assert_in_range(peer, 1, n);
                held[peer]++;
            }
            for (uint32_t w = 1; w <= n; w++)
                assert_in_range(held[w], 7 / n, (7 + n - 1) / n);
            tr_placement_fini(&p);
        }
    }
}

static void without_workers_the_coordinator_holds_all(void **state)
{
    uint32_t held[1];
    tr_placement p;

    (void)state;
    assert_int_equal(tr_placement_new(2, 8, 0, TR_PLACE_EVEN, NULL, &p), TR_OK);
    count_held(&p, 1, held);
    assert_int_equal(held[0], 8);
    tr_placement_fini(&p);
}

static void counts_are_kept_even_where_a_worker_gets_none(void **state)
{
    const uint32_t counts[] = { 3, 0, 5 };
    uint32_t held[4];
    tr_placement p;

    (void)state;
    assert_int_equal(tr_placement_new(2, 8, 3, TR_PLACE_COUNTS, counts, &p), TR_OK);
    count_held(&p, 1, held);
    assert_int_equal(held[1], 3);
    assert_int_equal(held[2], 0);
    assert_int_equal(held[3], 5);
    tr_placement_fini(&p);
}

static void what_can_not_be_placed_is_refused_with_the_numbers(void **state)
{
    const uint32_t counts[] = { 3, 4 };
    char line[256];
    tr_placement p;

    (void)state;
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_placement_new(1, 8, 9, TR_PLACE_EVEN, NULL, &p), TR_E_CONFIG);
    assert_non_null(strstr(line, "9 workers"));
    assert_int_equal(tr_placement_new(4, 1, 5, TR_PLACE_EVEN, NULL, &p), TR_E_CONFIG);
    assert_non_null(strstr(line, "at most 4 workers"));
    assert_int_equal(tr_placement_new(1, 8, 2, TR_PLACE_COUNTS, counts, &p), TR_E_CONFIG);
    assert_non_null(strstr(line, "adds up to 7"));
    assert_int_equal(tr_placement_new(8, 1, 2, TR_PLACE_COUNTS, counts, &p), TR_E_CONFIG);
    assert_non_null(strstr(line, "has no experts"));
    tr_fail_capture_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_and_rotate_differ_by_at_most_one_expert),
        cmocka_unit_test(single_experts_go_by_layer_and_every_worker_gets_some),
        cmocka_unit_test(without_workers_the_coordinator_holds_all),
        cmocka_unit_test(counts_are_kept_even_where_a_worker_gets_none),
        cmocka_unit_test(what_can_not_be_placed_is_refused_with_the_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
