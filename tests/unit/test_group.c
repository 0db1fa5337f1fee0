/* test_group.c - grouping neither loses, repeats nor reorders picks, wherever chunks end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "experts/group.h"

enum { MAX_PICKS = 200 };

static void groups_cover_every_pick_once_and_in_order(void **state)
{
    uint64_t seed = tr_test_seed();
    uint64_t counter = 0;
    tr_share_pick picks[MAX_PICKS];
    tr_group groups[MAX_PICKS];

    (void)state;
    for (int round = 0; round < 1000; round++) {
        size_t n = tr_rng_u64(seed, 0, counter++) % (MAX_PICKS + 1);
        size_t max_picks = 1 + tr_rng_u64(seed, 0, counter++) % 40;
        size_t max_groups = 1 + tr_rng_u64(seed, 0, counter++) % 10;
        uint32_t expert = 0;
        for (size_t i = 0; i < n; i++) {
            expert += tr_rng_u64(seed, 0, counter++) % 3 == 0;
            picks[i] = (tr_share_pick){ (uint32_t)i, expert };
        }
        size_t at = 0;
        while (at < n) {
            size_t next;
            size_t n_groups = tr_group_picks(picks, n, at, max_picks, groups, max_groups, &next);
            assert_in_range(n_groups, 1, max_groups);
            assert_in_range(next, at + 1, at + max_picks);
            for (size_t g = 0; g < n_groups; g++) {
                assert_int_equal(groups[g].first, at);
                assert_true(groups[g].n > 0);
                for (size_t i = 0; i < groups[g].n; i++)
                    assert_int_equal(picks[at + i].expert, groups[g].expert);
                at += groups[g].n;
            }
            assert_int_equal(at, next);
        }
        assert_int_equal(at, n);
    }
}

static void a_full_chunk_has_one_group_per_expert(void **state)
{
    const tr_share_pick picks[] = { { 0, 2 }, { 1, 2 }, { 0, 5 }, { 3, 7 }, { 4, 7 } };
    tr_group groups[5];
    size_t next;

    (void)state;
    assert_int_equal(tr_group_picks(picks, 5, 0, 100, groups, 5, &next), 3);
    assert_int_equal(next, 5);
    assert_int_equal(groups[2].expert, 7);
    assert_int_equal(groups[2].n, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_cover_every_pick_once_and_in_order),
        cmocka_unit_test(a_full_chunk_has_one_group_per_expert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
