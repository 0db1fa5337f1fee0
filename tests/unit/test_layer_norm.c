/* test_layer_norm.c - a row has the mean of the bias and the spread of the weight, whatever it was.
 *
 * Method: the definition in double precision, on rows far from zero too, where a variance that is
 * computed as the mean of squares less the square of the mean would lose its digits.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/model/layer_norm.h"

#include <math.h>

enum { N = 257 };

static float draw(uint64_t stream, uint64_t i)
{
    return (float)(2.0 * tr_rng_unit(tr_rng_u64(5, stream, i)) - 1.0);
}

static void check_rows_about(float middle, double bound)
{
    float x[N], weight[N], bias[N], y[N];
    double mean = 0.0;
    double variance = 0.0;

    for (size_t i = 0; i < N; i++) {
        x[i] = middle + draw(0, i);
        weight[i] = 1.0f + draw(1, i);
        bias[i] = draw(2, i);
        mean += (double)x[i] / N;
    }
    for (size_t i = 0; i < N; i++)
        variance += ((double)x[i] - mean) * ((double)x[i] - mean) / N;
    tr_layer_norm(x, weight, bias, N, 1e-5f, y);
    for (size_t i = 0; i < N; i++) {
        double want = ((double)x[i] - mean) / sqrt(variance + 1e-5) * (double)weight[i];
        assert_true(fabs((double)y[i] - want - (double)bias[i]) < bound);
    }
    tr_layer_norm(x, weight, bias, N, 1e-5f, x);
    assert_memory_equal(x, y, sizeof x);
}

static void rows_are_normed_by_the_definition_and_in_place(void **state)
{
    (void)state;
    check_rows_about(0.0f, 1e-6);
    check_rows_about(1000.0f, 1e-6);
}

static void a_row_of_equal_values_becomes_the_bias(void **state)
{
    float x[N], weight[N], bias[N], y[N];

    (void)state;
    for (size_t i = 0; i < N; i++) {
        x[i] = 3.25f;
        weight[i] = 2.0f;
        bias[i] = draw(2, i);
    }
    tr_layer_norm(x, weight, bias, N, 1e-5f, y);
    assert_memory_equal(y, bias, sizeof y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_normed_by_the_definition_and_in_place),
        cmocka_unit_test(a_row_of_equal_values_becomes_the_bias),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
