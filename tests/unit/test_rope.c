/* test_rope.c - angles are right at positions up to 131071, with every way of stretching a context,
 * against the formulas in extended precision.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/model/rope.h"

#include <math.h>

enum { N = 128, PAIRS = N / 2 };

static const uint32_t positions[] = { 0, 1, 511, 8191, 32767, 32768, 65537, 131071 };
static const long double pi = 3.14159265358979323846264338327950288L;

static tr_model_config config_of(float base)
{
    return (tr_model_config){ .n_rot = N,
                              .head_dim = N,
                              .rope_base = base,
                              .rope_linear = 1.0f,
                              .yarn_factor = 1.0f,
                              .yarn_fast = 32.0f,
                              .yarn_slow = 1.0f };
}

static long double frequency(long double base, size_t pair)
{
    return powl(base, -2.0L * (long double)pair / N);
}

/* Half a unit of the last place of a float below 1, and what angles of up to 131071 lose in double:
 * a few of their last places, 2^-36 each. */
static void check(const tr_model_config *c, const float *factors, const long double *want)
{
    const double bound = 0x1p-25 + 8 * 0x1p-36;
    double inverse[PAIRS];
    float cosine[PAIRS], sine[PAIRS];

    tr_rope_frequencies(c, factors, inverse);
    for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++) {
        tr_rope_angles(positions[p], N, inverse, 1.0, cosine, sine);
        for (size_t i = 0; i < PAIRS; i++) {
            long double angle = positions[p] * want[i];
            assert_true(fabs((double)(cosine[i] - cosl(angle))) <= bound);
            assert_true(fabs((double)(sine[i] - sinl(angle))) <= bound);
        }
    }
}

static void plain_angles_are_right(void **state)
{
    static const float bases[] = { 10000.0f, 150000.0f, 500000.0f, 1000000.0f };
    long double want[PAIRS];

    (void)state;
    for (size_t b = 0; b < sizeof bases / sizeof bases[0]; b++) {
        tr_model_config c = config_of(bases[b]);
        for (size_t i = 0; i < PAIRS; i++)
            want[i] = frequency((long double)bases[b], i);
        check(&c, NULL, want);
    }
}

static void linear_ones_are_those_of_a_part_of_the_position(void **state)
{
    tr_model_config c = config_of(10000.0f);
    long double want[PAIRS];

    (void)state;
    c.rope_linear = 8.0f;
    for (size_t i = 0; i < PAIRS; i++)
        want[i] = frequency(10000.0L, i) / 8.0L;
    check(&c, NULL, want);
}

/* Llama 3.1: pairs that turn less than once in 8192 positions turn eight times slower, those that
 * turn four times or more as ever, and in between on a line ("The Llama 3 herd of models", 2024).
 * Files have the factors in single precision. */
static void llama_3_divides_the_slow_ones(void **state)
{
    tr_model_config c = config_of(500000.0f);
    float factors[PAIRS];
    long double want[PAIRS];
    size_t n_slow = 0, n_kept = 0;

    (void)state;
    for (size_t i = 0; i < PAIRS; i++) {
        long double f = frequency(500000.0L, i);
        long double turns = 8192.0L * f / (2.0L * pi);
        long double part = (turns - 1.0L) / 3.0L;
        long double scaled = turns < 1.0L   ? f / 8.0L
                             : turns > 4.0L ? f
                                            : (1.0L - part) * f / 8.0L + part * f;
        factors[i] = (float)(f / scaled);
        want[i] = f / (long double)factors[i];
        n_slow += factors[i] == 8.0f;
        n_kept += factors[i] == 1.0f;
    }
    assert_true(n_slow > 10 && n_kept > 10 && n_slow + n_kept < PAIRS);
    check(&c, factors, want);
}

/* gpt-oss: base 150000, 4096 positions stretched 32 times.  The line goes from the pair that turns
 * 32 times to the one that turns once, both to whole pairs outwards. */
static void yarn_divides_them_along_a_line(void **state)
{
    tr_model_config c = config_of(150000.0f);
    long double want[PAIRS];
    long double pairs_a_turn = N / (2.0L * logl(150000.0L));

    (void)state;
    c.yarn_factor = 32.0f;
    c.yarn_context = 4096;
    long double low = floorl(pairs_a_turn * logl(4096.0L / (32.0L * 2.0L * pi)));
    long double high = ceill(pairs_a_turn * logl(4096.0L / (2.0L * pi)));
    assert_true(low > 5.0L && high > low + 5.0L && high < PAIRS);
    for (size_t i = 0; i < PAIRS; i++) {
        long double slow = ((long double)i - low) / (high - low);
        slow = slow < 0.0L ? 0.0L : slow > 1.0L ? 1.0L : slow;
        want[i] = frequency(150000.0L, i) * (slow / 32.0L + 1.0L - slow);
    }
    check(&c, NULL, want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_angles_are_right),
        cmocka_unit_test(linear_ones_are_those_of_a_part_of_the_position),
        cmocka_unit_test(llama_3_divides_the_slow_ones),
        cmocka_unit_test(yarn_divides_them_along_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
