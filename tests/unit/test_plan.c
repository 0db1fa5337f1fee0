/* test_plan.c - a plan gives every pick to its holder, once, sorted and reproducibly.
 * Method: random batches and placements from a printed seed, checked against the definition.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/cluster/plan.h"

enum { MAX_ROWS = 37, MAX_K = 5, N_EXPERTS = 12, N_LAYERS = 3 };

typedef struct {
    uint64_t seed, counter;
} source;

static uint32_t below(source *s, uint32_t n)
{
    return (uint32_t)(tr_rng_u64(s->seed, 1, s->counter++) % n);
}

/* k distinct experts in ascending order for each row. */
static void random_picks(source *s, tr_pick *picks, size_t n_rows, size_t k)
{
    for (size_t r = 0; r < n_rows; r++) {
        size_t n = 0;
        for (uint32_t e = 0; e < N_EXPERTS && n < k; e++)
            if (below(s, N_EXPERTS - e) < k - n)
                picks[r * k + n++] = (tr_pick){ (uint32_t)r, e, 1.0f };
        assert_int_equal(n, k);
    }
}

static void check_share(const tr_plan *p, const tr_share *s, const tr_pick *picks,
                        const tr_placement *placement, uint32_t layer, uint32_t *seen)
{
    assert_true(s->n_picks > 0);
    for (size_t i = 0; i < s->n_rows; i++)
        if (i > 0)
            assert_true(p->row[s->first_row + i] > p->row[s->first_row + i - 1]);
    for (size_t i = 0; i < s->n_picks; i++) {
        uint32_t at = p->order[s->first_pick + i];
        const tr_pick *pick = &picks[at];
        seen[at]++;
        assert_int_equal(tr_placement_holder(placement, layer, pick->expert), s->peer);
        assert_true(p->share_row[at] < s->n_rows);
        assert_int_equal(p->row[s->first_row + p->share_row[at]], pick->row);
        if (i == 0)
            continue;
        const tr_pick *before = &picks[p->order[s->first_pick + i - 1]];
        assert_true(before->expert < pick->expert ||
                    (before->expert == pick->expert && before->row < pick->row));
    }
}

static void check_plan(const tr_plan *p, const tr_pick *picks, const tr_placement *placement,
                       uint32_t layer)
{
    uint32_t seen[MAX_ROWS * MAX_K] = { 0 };

    for (size_t i = 0; i < p->n_shares; i++) {
        if (i > 0)
            assert_true(p->share[i].peer > p->share[i - 1].peer);
        check_share(p, &p->share[i], picks, placement, layer, seen);
    }
    for (size_t i = 0; i < p->n_picks; i++)
        assert_int_equal(seen[i], 1);
}

static void every_pick_reaches_its_holder_once_and_in_order(void **state)
{
    source s = { tr_test_seed(), 0 };
    tr_pick picks[MAX_ROWS * MAX_K];

    (void)state;
    for (int round = 0; round < 500; round++) {
        size_t k = 1 + below(&s, MAX_K);
        size_t n_rows = below(&s, MAX_ROWS + 1);
        uint32_t n_workers = below(&s, 6);
        uint32_t layer = below(&s, N_LAYERS);
        tr_placement_rule rule = below(&s, 2) ? TR_PLACE_EVEN : TR_PLACE_ROTATE;
        tr_placement placement;
        tr_plan p;
        assert_int_equal(tr_placement_new(N_LAYERS, N_EXPERTS, n_workers, rule, NULL, &placement),
                         TR_OK);
        assert_int_equal(tr_plan_init(&p, MAX_ROWS, k, N_EXPERTS, n_workers), TR_OK);
        for (int again = 0; again < 2; again++) { /* a plan is built anew for each layer */
            random_picks(&s, picks, n_rows, k);
            tr_plan_build(&p, picks, n_rows, k, &placement, layer);
            assert_int_equal(p.n_picks, n_rows * k);
            check_plan(&p, picks, &placement, layer);
        }
        tr_plan_fini(&p);
        tr_placement_fini(&placement);
    }
}

static void a_row_travels_once_to_a_worker_that_has_two_of_its_experts(void **state)
{
    const tr_pick picks[] = { { 0, 1, 0.5f }, { 0, 2, 0.5f }, { 1, 1, 0.5f }, { 1, 9, 0.5f } };
    tr_placement placement;
    tr_plan p;

    (void)state;
    assert_int_equal(tr_placement_new(1, N_EXPERTS, 2, TR_PLACE_EVEN, NULL, &placement), TR_OK);
    assert_int_equal(tr_plan_init(&p, 2, 2, N_EXPERTS, 2), TR_OK);
    tr_plan_build(&p, picks, 2, 2, &placement, 0);
    assert_int_equal(p.n_shares, 2);
    assert_int_equal(p.share[0].n_picks, 3);
    assert_int_equal(p.share[0].n_rows, 2);
    assert_int_equal(p.share[1].n_picks, 1);
    assert_int_equal(p.share[1].n_rows, 1);
    tr_plan_fini(&p);
    tr_placement_fini(&placement);
}

/* Each share that was split stands for the same picks; the others are where they were. */
static void shares_of_lost_peers_are_split_among_the_new_holders(void **state)
{
    source s = { tr_test_seed(), 0 };
    tr_pick picks[MAX_ROWS * MAX_K];

    (void)state;
    for (int round = 0; round < 500; round++) {
        uint32_t seen[MAX_ROWS * MAX_K] = { 0 };
        size_t k = 1 + below(&s, MAX_K);
        size_t n_rows = 1 + below(&s, MAX_ROWS);
        uint32_t n_workers = 1 + below(&s, 5);
        tr_placement placement;
        tr_plan p;
        assert_int_equal(
            tr_placement_new(N_LAYERS, N_EXPERTS, n_workers, TR_PLACE_EVEN, NULL, &placement),
            TR_OK);
        assert_int_equal(tr_plan_init(&p, MAX_ROWS, MAX_K, N_EXPERTS, n_workers), TR_OK);
        random_picks(&s, picks, n_rows, k);
        tr_plan_build(&p, picks, n_rows, k, &placement, 1);
        for (int again = 0; again < 3; again++) { /* a substitute may be lost as well */
            uint32_t lost = below(&s, n_workers + 1);
            size_t n = p.n_shares;
            for (uint32_t e = 0; e < N_EXPERTS; e++)
                if (tr_placement_holder(&placement, 1, e) == lost)
                    tr_placement_move(&placement, 1, e, below(&s, n_workers + 1));
            for (size_t i = 0; i < n; i++)
                if (p.share[i].peer == lost)
                    tr_plan_split(&p, i, picks, &placement, 1);
        }
        for (size_t i = 0; i < p.n_shares; i++)
            check_share(&p, &p.share[i], picks, &placement, 1, seen);
        for (size_t i = 0; i < n_rows * k; i++)
            assert_int_equal(seen[i], 1);
        tr_plan_fini(&p);
        tr_placement_fini(&placement);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pick_reaches_its_holder_once_and_in_order),
        cmocka_unit_test(a_row_travels_once_to_a_worker_that_has_two_of_its_experts),
        cmocka_unit_test(shares_of_lost_peers_are_split_among_the_new_holders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
