/* test_quant.c - formats of numbers, against vectors of the reference engines and against
 * their definitions in double.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernels/kernel_cases.h"

enum { N_ROWS = 8, N_IN = 512, N = N_ROWS * N_IN };

static void *file_read(const char *name, size_t size)
{
    char path[512];
    uint8_t *data = aligned_new(size);

    snprintf(path, sizeof path, "%s/golden/quant/%s", TR_TEST_DIR, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(data, 1, size, f), size);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    return data;
}

/* Types that have one right way to be written: the reference's bytes are ours. */
static bool has_one_way(tr_type type)
{
    return type == TR_TYPE_F16 || type == TR_TYPE_BF16 || type == TR_TYPE_Q8_0 ||
           type == TR_TYPE_Q4_0;
}

static void golden_check(tr_type type, const float *source)
{
    char name[32];
    size_t row_size;
    float got[N];
    uint8_t blocks[N * sizeof(float)];

    assert_true(tr_type_row_size(type, N_IN, &row_size));
    size_t raw = N_ROWS * row_size;
    snprintf(name, sizeof name, "%s.bin", tr_type_get(type)->name);
    uint8_t *file = file_read(name, 2 * (raw + sizeof got));
    for (size_t part = 0; part < 2; part++) {
        const uint8_t *from = file + part * (raw + sizeof got);
        for (size_t r = 0; r < N_ROWS; r++)
            tr_dequantise_row(type, from + r * row_size, N_IN, got + r * N_IN);
        assert_memory_equal(got, from + raw, sizeof got);
    }
    if (has_one_way(type)) {
        for (size_t r = 0; r < N_ROWS; r++)
            assert_true(tr_quantise_row(type, source + r * N_IN, N_IN, blocks + r * row_size));
        assert_memory_equal(blocks, file, raw);
    }
    free(file);
}

static void blocks_agree_with_the_reference_in_every_bit(void **state)
{
    float *source = file_read("source.bin", N * sizeof(float));

    (void)state;
    size_t n = 0;
    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++) {
        if (t == TR_TYPE_F32 || !tr_type_get(t) || !tr_type_get(t)->computable)
            continue;
        golden_check((tr_type)t, source);
        n++;
    }
    assert_int_equal(n, 15);
    free(source);
}

static void f32_rows_are_copied(void **state)
{
    float x[5] = { 1.0f, -0.0f, 1e-45f, -INFINITY, 3.5f };
    float row[5];
    float back[5];

    (void)state;
    assert_true(tr_quantise_row(TR_TYPE_F32, x, 5, row));
    tr_dequantise_row(TR_TYPE_F32, row, 5, back);
    assert_memory_equal(x, back, sizeof x);
}

static void other_types_cannot_be_written(void **state)
{
    float x[256] = { 0 };
    uint8_t row[1024] = { 0 };

    (void)state;
    assert_false(tr_quantise_row(TR_TYPE_Q8_1, x, 256, row));
    assert_false(tr_quantise_row(TR_TYPE_I32, x, 256, row));
}

/* The value of half-precision bits by the definition of the format. */
static double half_value(uint16_t h)
{
    int exponent = (h >> 10) & 31;
    double mantissa = h & 0x3ff;
    double v = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);

    return h & 0x8000 ? -v : v;
}

static void every_half_converts_exactly_and_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 0x10000; i++) {
        uint16_t h = (uint16_t)i;
        float f = tr_f16_to_f32(h);
        if ((h & 0x7fff) > 0x7c00) {
            assert_true(isnan(f));
            assert_true(isnan(tr_f16_to_f32(tr_f32_to_f16(f))));
            continue;
        }
        if ((h & 0x7fff) == 0x7c00)
            assert_true(isinf(f));
        else
            assert_true((double)f == half_value(h));
        assert_int_equal(signbit(f) != 0, h >> 15);
        assert_int_equal(tr_f32_to_f16(f), h);
    }
}

/* Between two neighbours: below the middle goes down, above up, the middle to the even one. */
static void floats_round_to_the_nearest_half(void **state)
{
    (void)state;
    for (uint16_t h = 0; h < 0x7c00; h++) {
        double next = h == 0x7bff ? 65536.0 : half_value((uint16_t)(h + 1));
        float middle = (float)((half_value(h) + next) / 2); /* exact */
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        assert_int_equal(tr_f32_to_f16(middle), even);
        assert_int_equal(tr_f32_to_f16(-middle), even | 0x8000);
        assert_int_equal(tr_f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(tr_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
    }
    assert_int_equal(tr_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(tr_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(tr_f32_to_f16(1e-45f), 0);
}

static void blocks_of_zeros_and_of_tiny_values_stay_finite(void **state)
{
    const float values[] = { 0.0f, -0.0f, 1e-45f, 1e-38f, 3e-37f };
    const tr_type types[] = { TR_TYPE_Q8_0, TR_TYPE_Q4_0 };
    uint8_t row[64];
    float x[32] = { 0 };
    float back[32];

    (void)state;
    for (size_t t = 0; t < 2; t++) {
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            x[7] = values[v];
            assert_true(tr_quantise_row(types[t], x, 32, row));
            tr_dequantise_row(types[t], row, 32, back);
            for (size_t i = 0; i < 32; i++)
                assert_true(back[i] == 0.0f);
        }
    }
}

static void ties_of_q8_0_go_away_from_zero(void **state)
{
    float x[32] = { 127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.49f }; /* a step is 1 */
    const int8_t want[8] = { 127, 1, 2, 3, -1, -2, -3, 0 };
    tr_block_q8_0 b;

    (void)state;
    assert_true(tr_quantise_row(TR_TYPE_Q8_0, x, 32, &b));
    assert_memory_equal(b.q, want, sizeof want);
}

static void quantising_errs_by_half_a_step_at_most(void **state)
{
    dice d = { tr_test_seed(), 0 };

    (void)state;
    for (size_t n = 0; n < 1000; n++) {
        float x[32];
        float back[32];
        uint8_t row[64];
        float largest = 0.0f;
        dice_floats(&d, x, 32);
        for (size_t i = 0; i < 32; i++)
            largest = fmaxf(largest, fabsf(x[i]));
        assert_true(tr_quantise_row(TR_TYPE_Q8_0, x, 32, row));
        tr_dequantise_row(TR_TYPE_Q8_0, row, 32, back);
        /* half a step, and the scale's own rounding to 11 bits on up to 127 steps */
        for (size_t i = 0; i < 32; i++)
            assert_true(fabsf(back[i] - x[i]) <= largest / 127 * 0.501f + largest * 0x1p-11f);
        assert_true(tr_quantise_row(TR_TYPE_Q4_0, x, 32, row));
        tr_dequantise_row(TR_TYPE_Q4_0, row, 32, back);
        /* the far end of the other sign is one step short */
        for (size_t i = 0; i < 32; i++)
            assert_true(fabsf(back[i] - x[i]) <= largest / 8 * 1.001f + largest * 0x1p-11f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_agree_with_the_reference_in_every_bit),
        cmocka_unit_test(f32_rows_are_copied),
        cmocka_unit_test(other_types_cannot_be_written),
        cmocka_unit_test(every_half_converts_exactly_and_back),
        cmocka_unit_test(floats_round_to_the_nearest_half),
        cmocka_unit_test(blocks_of_zeros_and_of_tiny_values_stay_finite),
        cmocka_unit_test(ties_of_q8_0_go_away_from_zero),
        cmocka_unit_test(quantising_errs_by_half_a_step_at_most),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
