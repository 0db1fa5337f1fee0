/* test_quantise.c - what is written in a type errs as little as the reference quantiser's blocks
 * do, stays defined for any input, and is stable. SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernels/kernel_cases.h"

#include "compute/blocks.h"

enum { N_IN = 512, MAX_BYTES = N_IN * 4 };

/* Root mean square errors of ggml's reference quantisers on the first row of
 * golden/quant/source.bin, relative to its root mean square. */
static const struct {
    tr_type type;
    double error;
} reference[] = {
    { TR_TYPE_F32, 0.0 },       { TR_TYPE_F16, 0.0002173 },  { TR_TYPE_BF16, 0.001702 },
    { TR_TYPE_Q8_0, 0.005267 }, { TR_TYPE_Q4_0, 0.08841 },   { TR_TYPE_Q4_1, 0.08139 },
    { TR_TYPE_Q5_0, 0.04436 },  { TR_TYPE_Q5_1, 0.04021 },   { TR_TYPE_Q2_K, 0.31587 },
    { TR_TYPE_Q3_K, 0.15718 },  { TR_TYPE_Q4_K, 0.07437 },   { TR_TYPE_Q5_K, 0.03802 },
    { TR_TYPE_Q6_K, 0.01733 },  { TR_TYPE_IQ4_NL, 0.07605 }, { TR_TYPE_IQ4_XS, 0.07700 },
    { TR_TYPE_MXFP4, 0.11059 },
};

enum { N_TYPES = sizeof reference / sizeof reference[0] };

static void write_and_read(tr_type type, const float *x, float *back)
{
    uint8_t *row = aligned_new(MAX_BYTES);

    assert_true(tr_quantise_row(type, x, N_IN, row));
    tr_dequantise_row(type, row, N_IN, back);
    free(row);
}

static double relative_error(const float *x, const float *y)
{
    double error = 0.0, size = 0.0;

    for (size_t i = 0; i < N_IN; i++) {
        error += ((double)y[i] - x[i]) * ((double)y[i] - x[i]);
        size += (double)x[i] * x[i];
    }
    return sqrt(error / size);
}

static void errors_are_those_of_the_reference_or_less(void **state)
{
    float x[N_IN], back[N_IN];

    (void)state;
    FILE *f = fopen(TR_TEST_DIR "/golden/quant/source.bin", "rb");
    assert_non_null(f);
    assert_int_equal(fread(x, sizeof *x, N_IN, f), N_IN);
    fclose(f);
    for (size_t i = 0; i < N_TYPES; i++) {
        write_and_read(reference[i].type, x, back);
        double error = relative_error(x, back);
        print_message("  %-7s %.5f (reference %.5f)\n", tr_type_get(reference[i].type)->name, error,
                      reference[i].error);
        assert_true(error <= reference[i].error * 1.03 + 1e-9);
    }
}

/* Rows that a search for scales could stumble over; the last has what is no number. */
static void edge_fill(size_t edge, float *x)
{
    for (size_t i = 0; i < N_IN; i++) {
        float wave = sinf((float)i);
        const float of[] = { 0.0f,
                             -0.0f,
                             1e-45f * wave,
                             1e-38f * wave,
                             1e30f * wave,
                             3.5f,
                             -3.5f,
                             i == 7 ? 1000.0f : 0.0f,
                             i % 32 ? 0.0f : -1e-3f,
                             wave + 100.0f,
                             wave - 100.0f,
                             i % 5 ? wave : INFINITY,
                             i % 7 ? wave : NAN };
        x[i] = of[edge];
    }
}

enum { N_EDGES = 13, N_FINITE = 11 };

static void every_input_gives_numbers(void **state)
{
    float x[N_IN], back[N_IN];

    (void)state;
    for (size_t i = 3; i < N_TYPES; i++) { /* floats keep what they are given */
        for (size_t edge = 0; edge < N_EDGES; edge++) {
            edge_fill(edge, x);
            write_and_read(reference[i].type, x, back);
            for (size_t k = 0; k < N_IN; k++)
                if (!isfinite(back[k]))
                    fail_msg("%s, edge %zu: value %zu is %g", tr_type_get(reference[i].type)->name,
                             edge, k, (double)back[k]);
            if (edge < 2)
                for (size_t k = 0; k < N_IN; k++)
                    assert_true(back[k] == 0.0f);
        }
    }
}

/* A constant is a level of every type to within its scale's rounding; MXFP4 has powers of two. */
static void a_constant_stays_one(void **state)
{
    float x[N_IN], back[N_IN];

    (void)state;
    for (size_t i = 1; i < N_TYPES; i++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            for (size_t k = 0; k < N_IN; k++)
                x[k] = (float)sign * 3.0f;
            write_and_read(reference[i].type, x, back);
            for (size_t k = 0; k < N_IN; k++)
                if (!(fabsf(back[k] - x[k]) <= 0.05f))
                    fail_msg("%s: %g of %g", tr_type_get(reference[i].type)->name, (double)back[k],
                             (double)x[k]);
        }
    }
}

/* Written again, values of a type stay nearly what they are. */
static void what_was_read_is_written_back(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float x[N_IN], once[N_IN], twice[N_IN];

    (void)state;
    dice_floats(&d, x, N_IN);
    for (size_t i = 0; i < N_TYPES; i++) {
        write_and_read(reference[i].type, x, once);
        write_and_read(reference[i].type, once, twice);
        assert_true(relative_error(once, twice) <= 0.25 * reference[i].error + 1e-3);
    }
}

static void other_types_are_refused(void **state)
{
    float x[256] = { 0 };
    uint8_t row[1024];

    (void)state;
    assert_false(tr_quantise_row(TR_TYPE_IQ2_S, x, 256, row));
    assert_false(tr_quantise_row(TR_TYPE_I32, x, 256, row));
    assert_false(tr_quantise_row(TR_TYPE_COUNT, x, 256, row));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_those_of_the_reference_or_less),
        cmocka_unit_test(every_input_gives_numbers),
        cmocka_unit_test(a_constant_stays_one),
        cmocka_unit_test(what_was_read_is_written_back),
        cmocka_unit_test(other_types_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
