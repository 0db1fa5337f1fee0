/* test_sampler.c - what each step of the sampler keeps, that the draw follows the
 * probabilities, and that the result depends on nothing but its arguments.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/text/sampler.h"
#include "coordinator/text/softmax.h"

#include <math.h>

enum { N = 50 };

static const tr_sampling plain = {
    .temperature = 1, .top_p = 1, .min_p = 0, .repeat_penalty = 1, .repeat_window = 64
};

/* One draw from a copy of the logits. */
static uint32_t draw(tr_sampling how, const float *logits, size_t n, uint64_t position)
{
    float copy[N];
    tr_sample_scratch scratch;

    memcpy(copy, logits, n * sizeof *copy);
    assert_int_equal(tr_sample_scratch_init(&scratch, n), TR_OK);
    uint32_t id = tr_sample(&how, copy, n, NULL, 0, 3, position, &scratch);
    tr_sample_scratch_fini(&scratch);
    return id;
}

/* Which of n tokens come up in many draws. */
static void drawn(tr_sampling how, const float *logits, size_t n, bool *seen)
{
    memset(seen, 0, n * sizeof *seen);
    for (uint64_t position = 0; position < 3000; position++)
        seen[draw(how, logits, n, position)] = true;
}

static void random_logits(uint64_t seed, uint64_t round, float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++)
        logits[i] = (float)(8 * tr_rng_unit(tr_rng_u64(seed, round, i)) - 4);
}

static void exponential_and_logarithm_are_exact_to_the_last_bits(void **state)
{
    (void)state;
    assert_true(tr_exp(0) == 1.0);
    assert_true(tr_exp(-INFINITY) == 0.0);
    assert_true(tr_ln(1) == 0.0);
    for (double x = -699; x < 0; x += 0.0317)
        assert_true(fabs(tr_exp(x) / exp(x) - 1) < 1e-15);
    for (double x = 1e-3; x < 1e6; x *= 1.0137)
        assert_true(fabs(tr_ln(x) - log(x)) <= 4e-16 * fmax(1, fabs(log(x))));
}

static void temperature_zero_takes_the_largest_and_the_lowest_id_wins_ties(void **state)
{
    static const float logits[] = { -1, 3, 2, 3, NAN, 3 };
    tr_sampling how = plain;

    (void)state;
    how.temperature = 0;
    assert_int_equal(draw(how, logits, 6, 0), 1);
    assert_int_equal(draw(how, logits + 2, 4, 0), 1);
    assert_int_equal(draw(how, logits + 4, 2, 0), 1); /* a NaN never wins */
    assert_int_equal(draw(how, logits + 4, 1, 0), 0);
    how.temperature = 1;
    how.top_k = 1;
    for (uint64_t position = 0; position < 50; position++)
        assert_int_equal(draw(how, logits, 6, position), 1);
}

static void infinite_logits_are_drawn_without_harm(void **state)
{
    static const float logits[] = { -INFINITY, 1, INFINITY, NAN, -INFINITY, -INFINITY };

    (void)state;
    assert_int_equal(draw(plain, logits, 6, 0), 2);
    assert_int_equal(draw(plain, logits + 4, 2, 0), 0);
    for (uint64_t position = 0; position < 200; position++)
        assert_int_equal(draw(plain, logits, 2, position), 1);
}

static void top_k_keeps_the_k_largest(void **state)
{
    uint64_t seed = tr_test_seed();
    float logits[N];
    bool seen[N];
    tr_sampling how = plain;

    (void)state;
    random_logits(seed, 0, logits, N);
    for (size_t i = 0; i < N; i++)
        logits[i] /= 8; /* nearly equal, so that all that can come up do */
    for (uint32_t k = 1; k < 8; k++) {
        size_t n_seen = 0, larger = 0;
        float least = INFINITY;
        how.top_k = k;
        drawn(how, logits, N, seen);
        for (size_t i = 0; i < N; i++) {
            n_seen += seen[i];
            if (seen[i])
                least = fminf(least, logits[i]);
        }
        for (size_t i = 0; i < N; i++)
            larger += logits[i] > least;
        assert_int_equal(n_seen, k);
        assert_int_equal(larger, k - 1);
    }
}

static void equal_logits_rank_by_id(void **state)
{
    static const float logits[] = { 1, 1, 1, 1, 1 };
    bool seen[5];
    tr_sampling how = plain;

    (void)state;
    how.top_k = 2;
    drawn(how, logits, 5, seen);
    assert_true(seen[0] && seen[1] && !seen[2] && !seen[3] && !seen[4]);
}

static void top_p_keeps_the_fewest_that_reach_its_mass(void **state)
{
    /* Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625, in another order. */
    static const float p[] = { 0.0625f, 0.25f, 0.5f, 0.0625f, 0.125f };
    static const struct {
        float top_p;
        uint32_t top_k;
        bool kept[5];
    } cases[] = {
        { 0.01f, 0, { 0, 0, 1, 0, 0 } },
        { 0.49f, 0, { 0, 0, 1, 0, 0 } },
        { 0.51f, 0, { 0, 1, 1, 0, 0 } },
        { 0.74f, 0, { 0, 1, 1, 0, 0 } },
        { 0.76f, 0, { 0, 1, 1, 0, 1 } },
        { 0.90f, 0, { 1, 1, 1, 0, 1 } },
        { 0.95f, 0, { 1, 1, 1, 1, 1 } },
        { 1.00f, 0, { 1, 1, 1, 1, 1 } },
        /* After top-k the probabilities are those of what is left: 4/7, 2/7, 1/7. */
        { 0.60f, 3, { 0, 1, 1, 0, 0 } },
        { 0.56f, 3, { 0, 0, 1, 0, 0 } },
        { 0.84f, 3, { 0, 1, 1, 0, 0 } },
        { 0.87f, 3, { 0, 1, 1, 0, 1 } },
    };
    float logits[5];

    (void)state;
    for (size_t i = 0; i < 5; i++)
        logits[i] = logf(p[i]) + 7;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        bool seen[5];
        tr_sampling how = plain;
        how.top_p = cases[c].top_p;
        how.top_k = cases[c].top_k;
        drawn(how, logits, 5, seen);
        for (size_t i = 0; i < 5; i++)
            if (seen[i] != cases[c].kept[i])
                fail_msg("top_p %g top_k %u id %zu", (double)cases[c].top_p, cases[c].top_k, i);
    }
}

static void min_p_is_measured_against_the_largest(void **state)
{
    static const float p[] = { 0.1f, 0.4f, 0.02f, 0.2f, 0.28f };
    static const struct {
        float min_p;
        bool kept[5];
    } cases[] = {
        { 0.04f, { 1, 1, 1, 1, 1 } }, { 0.06f, { 1, 1, 0, 1, 1 } }, { 0.3f, { 0, 1, 0, 1, 1 } },
        { 0.6f, { 0, 1, 0, 0, 1 } },  { 1.0f, { 0, 1, 0, 0, 0 } },
    };
    float logits[5];

    (void)state;
    for (size_t i = 0; i < 5; i++)
        logits[i] = logf(p[i]) - 3;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        bool seen[5];
        tr_sampling how = plain;
        how.min_p = cases[c].min_p;
        drawn(how, logits, 5, seen);
        for (size_t i = 0; i < 5; i++)
            assert_int_equal(seen[i], cases[c].kept[i]);
    }
}

/* Over 20,000 positions each frequency lies within 5 standard deviations of its probability. */
static void draws_follow_the_probabilities(tr_sampling how, uint64_t stream)
{
    enum { DRAWS = 20000, FEW = 12 };
    float logits[FEW];
    size_t count[FEW] = { 0 };
    double total = 0;

    random_logits(99, stream, logits, FEW);
    for (size_t i = 0; i < FEW; i++)
        total += exp((double)logits[i] / (double)how.temperature);
    for (uint64_t position = 0; position < DRAWS; position++)
        count[draw(how, logits, FEW, position)]++;
    for (size_t i = 0; i < FEW; i++) {
        double p = exp((double)logits[i] / (double)how.temperature) / total;
        double sigma = sqrt(DRAWS * p * (1 - p));
        if (fabs((double)count[i] - DRAWS * p) > 5 * sigma + 1)
            fail_msg("id %zu: %zu draws, expected %g", i, count[i], DRAWS * p);
    }
}

static void the_draw_follows_the_tempered_probabilities(void **state)
{
    static const float temperatures[] = { 0.5f, 1.0f, 2.0f };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        tr_sampling how = plain;
        how.temperature = temperatures[i];
        how.seed = 12345;
        draws_follow_the_probabilities(how, i);
        how.min_p = 1e-9f; /* keeps all, but by the other way through the code */
        draws_follow_the_probabilities(how, i);
    }
}

static void seed_sequence_and_position_decide_the_draw(void **state)
{
    float logits[N] = { 0 }, copy[N];
    tr_sample_scratch scratch;
    size_t differ = 0;

    (void)state;
    assert_int_equal(tr_sample_scratch_init(&scratch, N), TR_OK);
    for (uint64_t position = 0; position < 100; position++) {
        uint32_t ids[4];
        for (uint64_t k = 0; k < 4; k++) {
            tr_sampling how = plain;
            how.seed = k == 2;
            memcpy(copy, logits, sizeof copy);
            ids[k] = tr_sample(&how, copy, N, NULL, 0, k == 3, position, &scratch);
        }
        assert_int_equal(ids[0], ids[1]);
        differ += (ids[0] != ids[2] ? 1u : 0u) + (ids[0] != ids[3] ? 1u : 0u);
    }
    assert_true(differ > 150);
    tr_sample_scratch_fini(&scratch);
}

static void the_penalty_hits_recent_tokens_once(void **state)
{
    static const uint32_t recent[] = { 4, 0, 1, 1, 2 };
    float logits[] = { 2, 2, -2, 2, 2 };
    tr_sampling how = { .temperature = 0, .top_p = 1, .repeat_penalty = 2, .repeat_window = 4 };
    tr_sample_scratch scratch;

    (void)state;
    assert_int_equal(tr_sample_scratch_init(&scratch, 5), TR_OK);
    assert_int_equal(tr_sample(&how, logits, 5, recent, 5, 0, 0, &scratch), 3);
    assert_true(logits[0] == 1 && logits[1] == 1 && logits[2] == -4);
    assert_true(logits[3] == 2 && logits[4] == 2); /* never said; said before the window */
    how.repeat_window = 0;
    assert_int_equal(tr_sample(&how, logits, 5, recent, 5, 0, 0, &scratch), 3);
    assert_true(logits[0] == 1);
    for (size_t i = 0; i < 5; i++)
        assert_false(scratch.seen[i]);
    tr_sample_scratch_fini(&scratch);
}

static void log_probabilities_are_those_of_the_softmax(void **state)
{
    uint64_t seed = tr_test_seed();
    float logits[N];
    tr_alternative best[N + 1];
    double total = 0, sum = 0;

    (void)state;
    random_logits(seed, 1, logits, N);
    logits[7] = logits[9] = 5;
    logits[11] = -INFINITY;
    for (size_t i = 0; i < N; i++)
        total += exp((double)logits[i]);
    for (uint32_t i = 0; i < N; i++) {
        double log_prob = tr_log_prob(logits, N, i);
        sum += exp(log_prob);
        if (i != 11)
            assert_true(fabs(log_prob - ((double)logits[i] - log(total))) < 1e-12);
    }
    assert_true(fabs(sum - 1) < 1e-12);
    assert_true(tr_log_prob(logits, N, 11) == -INFINITY);

    assert_int_equal(tr_alternatives(logits, N, best, N + 1), N);
    assert_int_equal(best[0].id, 7);
    assert_int_equal(best[1].id, 9);
    for (size_t i = 0; i < N; i++) {
        assert_true(i == 0 || best[i - 1].log_prob >= best[i].log_prob);
        assert_true(best[i].log_prob == tr_log_prob(logits, N, best[i].id));
    }
    tr_alternative few[3];
    assert_int_equal(tr_alternatives(logits, N, few, 3), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(few[i].id, best[i].id);
    assert_int_equal(tr_alternatives(logits, N, few, 0), 0);
}

static void parameters_out_of_range_are_named(void **state)
{
    char reason[128];
    tr_sampling how = tr_sampling_default();

    (void)state;
    assert_int_equal(tr_sampling_check(&how), TR_OK);
    assert_int_equal(tr_sampling_check(&plain), TR_OK);
    tr_fail_capture_begin(reason, sizeof reason);
#define REFUSED(field, value, name)                                                                \
    do {                                                                                           \
        how = plain;                                                                               \
        how.field = value;                                                                         \
        assert_int_equal(tr_sampling_check(&how), TR_E_USAGE);                                     \
        assert_non_null(strstr(reason, name));                                                     \
    } while (0)
    REFUSED(temperature, -0.1f, "temperature");
    REFUSED(temperature, NAN, "temperature");
    REFUSED(temperature, INFINITY, "temperature");
    REFUSED(top_p, 0, "top-p");
    REFUSED(top_p, 1.01f, "top-p");
    REFUSED(min_p, -0.01f, "min-p");
    REFUSED(min_p, 1.5f, "min-p");
    REFUSED(repeat_penalty, 0, "repeat penalty");
    REFUSED(repeat_penalty, NAN, "repeat penalty");
#undef REFUSED
    tr_fail_capture_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential_and_logarithm_are_exact_to_the_last_bits),
        cmocka_unit_test(temperature_zero_takes_the_largest_and_the_lowest_id_wins_ties),
        cmocka_unit_test(infinite_logits_are_drawn_without_harm),
        cmocka_unit_test(top_k_keeps_the_k_largest),
        cmocka_unit_test(equal_logits_rank_by_id),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_its_mass),
        cmocka_unit_test(min_p_is_measured_against_the_largest),
        cmocka_unit_test(the_draw_follows_the_tempered_probabilities),
        cmocka_unit_test(seed_sequence_and_position_decide_the_draw),
        cmocka_unit_test(the_penalty_hits_recent_tokens_once),
        cmocka_unit_test(log_probabilities_are_those_of_the_softmax),
        cmocka_unit_test(parameters_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
