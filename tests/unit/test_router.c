/* test_router.c - the k largest probabilities are chosen, come in expert order, and carry the
 * weights that the architecture wants.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "compute/cpu.h"
#include "coordinator/model/router.h"

#include <math.h>

static const tr_kernels *kernels(void)
{
    return tr_kernels_select(tr_cpu_features(), NULL);
}

/* Softmax and selection by their definitions, in double. */
static void check_random(uint64_t seed, uint64_t *counter, uint32_t n, uint32_t k, bool renormalise)
{
    tr_model_config c = { .n_experts = n,
                          .top_k = k,
                          .renormalise = renormalise,
                          .routed_scale = 1.0f,
                          .residual_scale = 1.0f };
    float logits[64];
    double p[64];
    tr_pick picks[8];
    double sum = 0;
    double chosen = 0;

    for (uint32_t e = 0; e < n; e++) {
        logits[e] = (float)(tr_rng_unit(tr_rng_u64(seed, 0, (*counter)++)) * 12 - 6);
        p[e] = exp((double)logits[e]);
        sum += p[e];
    }
    tr_router_pick(kernels(), &c, NULL, logits, 3, picks);
    for (uint32_t j = 0; j < k; j++)
        chosen += p[picks[j].expert] / sum;
    for (uint32_t j = 0; j < k; j++) {
        double want = p[picks[j].expert] / sum / (renormalise ? chosen : 1.0);
        assert_int_equal(picks[j].row, 3);
        assert_true(j == 0 || picks[j].expert > picks[j - 1].expert);
        assert_true(fabs((double)picks[j].weight - want) < 1e-6);
        uint32_t larger = 0;
        for (uint32_t e = 0; e < n; e++)
            larger += p[e] > p[picks[j].expert];
        assert_true(larger < k);
    }
}

static void the_largest_win_with_the_right_weights(void **state)
{
    uint64_t seed = tr_test_seed();
    uint64_t counter = 0;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        uint32_t n = 1 + (uint32_t)(tr_rng_u64(seed, 1, counter) % 64);
        uint32_t k = 1 + (uint32_t)(tr_rng_u64(seed, 2, counter) % (n < 8 ? n : 8));
        check_random(seed, &counter, n, k, round % 2 == 0);
    }
}

/* Chosen by sigmoid plus bias, weighted by the sigmoid alone, then both scales. */
static void a_bias_changes_the_choice_and_not_the_weight(void **state)
{
    tr_model_config c = { .n_experts = 4,
                          .top_k = 2,
                          .gate = TR_GATE_SIGMOID,
                          .renormalise = true,
                          .routed_scale = 2.5f,
                          .residual_scale = 0.5f };
    const float logits[] = { 2.0f, 1.0f, -1.0f, 0.0f };
    const float bias[] = { -1.0f, 0.0f, 0.5f, 0.0f };
    float row[4];
    tr_pick picks[2];
    double a = 1 / (1 + exp(-1.0));
    double b = 1 / (1 + exp(1.0));

    (void)state;
    memcpy(row, logits, sizeof row);
    tr_router_pick(kernels(), &c, bias, row, 7, picks);
    assert_int_equal(picks[0].expert, 1);
    assert_int_equal(picks[1].expert, 2);
    assert_true(fabs((double)picks[0].weight - 1.25 * a / (a + b)) < 1e-6);
    assert_true(fabs((double)picks[1].weight - 1.25 * b / (a + b)) < 1e-6);
    memcpy(row, logits, sizeof row);
    c.renormalise = false;
    tr_router_pick(kernels(), &c, NULL, row, 7, picks);
    assert_int_equal(picks[0].expert, 0);
    assert_int_equal(picks[1].expert, 1);
    assert_true(fabs((double)picks[1].weight - 1.25 * a) < 1e-6);
}

/* Eight experts in four groups, of which two can be used. */
static void check_groups(tr_gate gate, const float *logits, uint32_t first, uint32_t second)
{
    tr_model_config c = { .n_experts = 8,
                          .top_k = 2,
                          .gate = gate,
                          .n_groups = 4,
                          .used_groups = 2,
                          .renormalise = true,
                          .routed_scale = 1.0f,
                          .residual_scale = 1.0f };
    float row[8];
    tr_pick picks[2];

    memcpy(row, logits, sizeof row);
    tr_router_pick(kernels(), &c, NULL, row, 0, picks);
    assert_int_equal(picks[0].expert, first);
    assert_int_equal(picks[1].expert, second);
    assert_true(fabs((double)picks[0].weight + (double)picks[1].weight - 1.0) < 1e-6);
}

static void experts_of_the_best_groups_alone_are_chosen(void **state)
{
    static const float by_two[] = { 3.0f, -9.0f, 2.0f, 2.0f, 2.9f, -9.0f, 2.1f, 2.0f };
    static const float by_one[] = { 3.0f, -9.0f, 2.9f, 2.9f, 2.8f, -9.0f, 2.8f, 2.8f };

    (void)state;
    check_groups(TR_GATE_SIGMOID, by_two, 2, 6); /* though 0 and 4 are larger */
    check_groups(TR_GATE_SOFTMAX, by_two, 0, 4);
    check_groups(TR_GATE_SOFTMAX, by_one, 0, 2);
}

/* The two groups whose two best sigmoids with bias are largest, by trying every pair of groups;
 * then the best experts of these, again with bias. */
static void check_random_groups(const tr_model_config *c, uint64_t seed, uint64_t round)
{
    float logits[16], bias[16];
    double score[16];
    tr_pick picks[4];
    double best = -INFINITY;
    uint32_t open[2] = { 0 };

    for (uint32_t e = 0; e < 16; e++) {
        logits[e] = (float)(tr_rng_unit(tr_rng_u64(seed, round, e)) * 8 - 4);
        bias[e] = (float)(tr_rng_unit(tr_rng_u64(seed, round, 100 + e)) - 0.5);
        score[e] = 1 / (1 + exp(-(double)logits[e])) + (double)bias[e];
    }
    for (uint32_t pair = 0; pair < 16; pair++) {
        uint32_t g[2] = { pair / 4, pair % 4 };
        double sum = 0;
        for (int k = 0; k < 2; k++) {
            double pair_best = -INFINITY;
            for (uint32_t a = 0; a < 4; a++)
                for (uint32_t b = a + 1; b < 4; b++)
                    pair_best = fmax(pair_best, score[g[k] * 4 + a] + score[g[k] * 4 + b]);
            sum += pair_best;
        }
        if (g[0] < g[1] && sum > best) {
            best = sum;
            memcpy(open, g, sizeof open);
        }
    }
    tr_router_pick(kernels(), c, bias, logits, 0, picks);
    for (uint32_t j = 0; j < 4; j++) {
        uint32_t better = 0;
        assert_true(picks[j].expert / 4 == open[0] || picks[j].expert / 4 == open[1]);
        for (uint32_t e = 0; e < 16; e++)
            better += (e / 4 == open[0] || e / 4 == open[1]) && score[e] > score[picks[j].expert];
        assert_true(better < 4);
    }
}

static void biases_count_in_the_choice_of_groups(void **state)
{
    tr_model_config c = { .n_experts = 16,
                          .top_k = 4,
                          .gate = TR_GATE_SIGMOID,
                          .n_groups = 4,
                          .used_groups = 2,
                          .renormalise = true,
                          .routed_scale = 2.5f,
                          .residual_scale = 1.0f };
    uint64_t seed = tr_test_seed();

    (void)state;
    for (uint64_t round = 0; round < 2000; round++)
        check_random_groups(&c, seed, round);
}

static void sigmoids_that_are_all_nothing_weigh_nothing(void **state)
{
    tr_model_config c = { .n_experts = 4,
                          .top_k = 2,
                          .gate = TR_GATE_SIGMOID,
                          .renormalise = true,
                          .routed_scale = 2.5f,
                          .residual_scale = 1.0f };
    float logits[] = { -120.0f, -95.0f, -100.0f, -200.0f };
    tr_pick picks[2];

    (void)state;
    tr_router_pick(kernels(), &c, NULL, logits, 0, picks);
    assert_true(picks[0].weight >= 0.0f && picks[0].weight < 1e-6f);
    assert_true(picks[1].weight >= 0.0f && picks[1].weight < 1e-6f);
}

static void the_lower_expert_wins_a_tie(void **state)
{
    tr_model_config c = { .n_experts = 5,
                          .top_k = 2,
                          .renormalise = true,
                          .routed_scale = 1.0f,
                          .residual_scale = 1.0f };
    float logits[] = { 0.0f, 1.0f, 1.0f, 1.0f, 0.5f };
    tr_pick picks[2];

    (void)state;
    tr_router_pick(kernels(), &c, NULL, logits, 0, picks);
    assert_int_equal(picks[0].expert, 1);
    assert_int_equal(picks[1].expert, 2);
    assert_true(picks[0].weight == 0.5f);
}

static void a_broken_model_still_gives_distinct_experts_that_exist(void **state)
{
    tr_model_config c = { .n_experts = 4,
                          .top_k = 3,
                          .renormalise = true,
                          .routed_scale = 1.0f,
                          .residual_scale = 1.0f };
    float logits[] = { NAN, NAN, NAN, NAN };
    tr_pick picks[3];

    (void)state;
    tr_router_pick(kernels(), &c, NULL, logits, 0, picks);
    for (int j = 0; j < 3; j++) {
        assert_true(picks[j].expert < 4);
        assert_true(j == 0 || picks[j].expert > picks[j - 1].expert);
    }
}

static void nor_do_groups_of_nan_give_an_expert_twice(void **state)
{
    tr_model_config c = { .n_experts = 4,
                          .top_k = 2,
                          .n_groups = 4,
                          .used_groups = 2,
                          .routed_scale = 1.0f,
                          .residual_scale = 1.0f };
    float logits[] = { NAN, NAN, NAN, NAN };
    tr_pick picks[2];

    (void)state;
    tr_router_pick(kernels(), &c, NULL, logits, 0, picks);
    assert_true(picks[0].expert < picks[1].expert);
    assert_true(picks[1].expert < 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_win_with_the_right_weights),
        cmocka_unit_test(a_bias_changes_the_choice_and_not_the_weight),
        cmocka_unit_test(experts_of_the_best_groups_alone_are_chosen),
        cmocka_unit_test(biases_count_in_the_choice_of_groups),
        cmocka_unit_test(sigmoids_that_are_all_nothing_weigh_nothing),
        cmocka_unit_test(the_lower_expert_wins_a_tie),
        cmocka_unit_test(a_broken_model_still_gives_distinct_experts_that_exist),
        cmocka_unit_test(nor_do_groups_of_nan_give_an_expert_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
