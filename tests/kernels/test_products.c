/* test_products.c - matrix products: right to rounding, the same in every table, the same in
 * every batch, and nothing written beside the outputs.
 *
 * Plain C is compared with sums in double of the dequantised values.  The bound is that of a
 * sum in float of as many terms as the longest chain has (n/16 lanes' steps for float
 * activations, one per block for 8-bit ones).  Every other table is compared with plain C,
 * bit for bit.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernels/kernel_cases.h"

static const tr_type types[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_BF16, TR_TYPE_Q8_0,
                                 TR_TYPE_Q4_0 };

enum { N_TYPES = sizeof types / sizeof types[0], MAX_IN = 544, MAX_OUT = 37, MAX_ROWS = 19 };

typedef enum {
    FILL_RANDOM,
    FILL_LOWEST,  /* every code the lowest: -128, nibble 0 */
    FILL_HIGHEST, /* every code the highest */
    FILL_ZERO,    /* random codes, scale 0 */
    FILL_WILD,    /* random codes, any finite half-precision scale, signs and subnormals too */
    FILL_COUNT,
} fill;

typedef struct {
    dice d;
    tr_matrix w;
    tr_act act;
    size_t n_rows, x_stride;
    uint8_t *x;
    float *y;
} fixture;

static uint16_t half_of(dice *d, fill f)
{
    uint16_t h = (uint16_t)dice_u64(d);

    if (f == FILL_ZERO)
        return 0;
    if (f != FILL_WILD)
        return tr_f32_to_f16(dice_float(d));
    return (h & 0x7c00) == 0x7c00 ? (uint16_t)(h & 0x83ff) : h;
}

static uint8_t code_of(dice *d, fill f, uint8_t lowest, uint8_t highest)
{
    return f == FILL_LOWEST ? lowest : f == FILL_HIGHEST ? highest : (uint8_t)dice_u64(d);
}

static void weights_fill(dice *d, fill f, tr_type type, size_t n, uint8_t *row)
{
    const tr_type_info *t = tr_type_get(type);

    for (size_t b = 0; b < n / t->block; b++, row += t->size) {
        uint16_t h = half_of(d, f);
        float v =
            f == FILL_WILD ? ldexpf(dice_float(d), (int)dice_below(d, 120) - 90) : dice_float(d);
        if (type == TR_TYPE_F32) {
            memcpy(row, &v, sizeof v);
        } else if (type == TR_TYPE_BF16) {
            assert_true(tr_quantise_row(type, &v, 1, row));
        } else {
            memcpy(row, &h, sizeof h);
            for (size_t i = 2; i < t->size; i++)
                row[i] =
                    type == TR_TYPE_Q8_0 ? code_of(d, f, 0x80, 0x7f) : code_of(d, f, 0x00, 0xff);
        }
    }
}

/* A row as act_q8 makes it, but with any codes, -128 included. */
static void act_fill(dice *d, fill f, size_t n, uint8_t *row)
{
    float *scale = (float *)(void *)(row + n);
    int16_t *sum = (int16_t *)(void *)(row + n + n / 32 * sizeof(float));

    for (size_t b = 0; b < n / 32; b++) {
        int32_t total = 0;
        for (size_t i = b * 32; i < b * 32 + 32; i++) {
            row[i] = code_of(d, f, 0x80, 0x7f);
            total += (int8_t)row[i];
        }
        sum[b] = (int16_t)total;
        float any = ldexpf(dice_float(d), (int)dice_below(d, 150) - 120);
        scale[b] = f == FILL_ZERO ? 0.0f : f == FILL_WILD ? any : dice_float(d);
    }
}

static void fixture_init(fixture *x, dice *d, tr_act act, tr_type type, fill w_fill, fill x_fill)
{
    size_t n_in = act == TR_ACT_Q8 || tr_type_get(type)->block == 32
                      ? 32 * (1 + dice_below(d, MAX_IN / 32))
                      : 1 + dice_below(d, MAX_IN);
    size_t n_out = 1 + dice_below(d, MAX_OUT);
    size_t row_size;

    assert_true(tr_type_row_size(type, n_in, &row_size));
    size_t stride = row_size + (dice_below(d, 2) ? tr_type_get(type)->size : 0);
    uint8_t *data = aligned_new(n_out * stride);
    for (size_t o = 0; o < n_out; o++)
        weights_fill(d, w_fill, type, n_in, data + o * stride);
    x->act = act;
    x->w =
        (tr_matrix){ .type = type, .n_out = n_out, .n_in = n_in, .row_size = stride, .data = data };
    x->n_rows = 1 + dice_below(d, MAX_ROWS);
    x->x_stride = tr_act_row_size(act, n_in) + 64 * dice_below(d, 2);
    x->x = aligned_new(x->n_rows * x->x_stride);
    x->y = aligned_new(x->n_rows * n_out * sizeof(float));
    for (size_t r = 0; r < x->n_rows; r++) {
        if (act == TR_ACT_F32)
            dice_floats(d, (float *)(void *)(x->x + r * x->x_stride), n_in);
        else
            act_fill(d, x_fill, n_in, x->x + r * x->x_stride);
    }
}

static void fixture_fini(fixture *x)
{
    free((void *)(uintptr_t)x->w.data);
    free(x->x);
    free(x->y);
}

static void product(const tr_kernels *k, const fixture *x, float *y)
{
    k->matmul[x->act][x->w.type](&x->w, 0, x->w.n_out, x->x, x->x_stride, x->n_rows, y, x->w.n_out);
}

/* Run fn for every pair of forms, every kind of content, several random shapes. */
static void for_all(uint64_t seed, size_t n_shapes, void (*fn)(fixture *x, dice *d))
{
    dice d = { seed, 0 };

    for (size_t act = 0; act < TR_ACT_COUNT; act++) {
        for (size_t t = 0; t < N_TYPES; t++) {
            if (!table_at(0)->matmul[act][types[t]])
                continue;
            for (size_t i = 0; i < n_shapes * FILL_COUNT * FILL_COUNT; i++) {
                fixture x;
                fixture_init(&x, &d, (tr_act)act, types[t], (fill)(i % FILL_COUNT),
                             (fill)(i / FILL_COUNT % FILL_COUNT));
                fn(&x, &d);
                fixture_fini(&x);
            }
        }
    }
}

/* ---- right to rounding --------------------------------------------------------------- */

static double x_at(const fixture *x, size_t r, size_t i)
{
    const uint8_t *row = x->x + r * x->x_stride;

    if (x->act == TR_ACT_F32)
        return ((const float *)(const void *)row)[i];
    return (double)tr_q8_scales(row, x->w.n_in)[i / 32] * tr_q8_values(row)[i];
}

static void output_check(const fixture *x, const float *w, size_t r, size_t o)
{
    double sum = 0.0;
    double size = 0.0;

    for (size_t i = 0; i < x->w.n_in; i++) {
        double p = (double)w[i] * x_at(x, r, i);
        sum += p;
        size += fabs(p);
    }
    size_t steps = x->act == TR_ACT_F32 ? x->w.n_in / 16 + 6 : x->w.n_in / 32 + 4;
    double least = (double)x->w.n_in * 128 * 128 * 0x1p-149; /* where scales are subnormal */
    double bound = (double)steps * 0x1p-24 * size + least;
    double got = x->y[r * x->w.n_out + o];
    if (!(fabs(got - sum) <= bound))
        fail_msg("type %s, act %d, row %zu, output %zu of %zu x %zu: %.9g, not %.9g +- %.2g",
                 tr_type_get(x->w.type)->name, x->act, r, o, x->w.n_out, x->w.n_in, got, sum,
                 bound);
}

static void c_check(fixture *x, dice *d)
{
    float w[MAX_IN];

    (void)d;
    product(table_at(0), x, x->y);
    for (size_t o = 0; o < x->w.n_out; o++) {
        tr_dequantise_row(x->w.type, (const uint8_t *)x->w.data + o * x->w.row_size, x->w.n_in, w);
        for (size_t r = 0; r < x->n_rows; r++)
            output_check(x, w, r, o);
    }
}

static void plain_c_multiplies_right_to_rounding(void **state)
{
    (void)state;
    assert_string_equal(table_at(0)->name, "c");
    for_all(tr_test_seed(), 2, c_check);
}

/* ---- the same in every table --------------------------------------------------------- */

static void tables_check(fixture *x, dice *d)
{
    size_t size = x->n_rows * x->w.n_out * sizeof(float);
    float *other = aligned_new(size);

    (void)d;
    product(table_at(0), x, x->y);
    for (size_t i = 1; table_at(i); i++) {
        product(table_at(i), x, other);
        assert_memory_equal(x->y, other, size);
    }
    free(other);
}

static void every_table_gives_the_bits_of_plain_c(void **state)
{
    (void)state;
    for_all(tr_test_seed(), 8, tables_check);
}

static void every_table_multiplies_what_plain_c_does(void **state)
{
    (void)state;
    for (size_t i = 0; table_at(i); i++)
        for (size_t act = 0; act < TR_ACT_COUNT; act++)
            for (size_t t = 0; t < TR_TYPE_COUNT; t++)
                assert_int_equal(!table_at(i)->matmul[act][t], !table_at(0)->matmul[act][t]);
}

/* ---- the same in every batch --------------------------------------------------------- */

static void batch_check(fixture *x, dice *d)
{
    float one[MAX_OUT];

    for (size_t i = 0; table_at(i); i++) {
        tr_matmul_fn fn = table_at(i)->matmul[x->act][x->w.type];
        product(table_at(i), x, x->y);
        size_t split = dice_below(d, x->w.n_out + 1);
        for (size_t r = 0; r < x->n_rows; r++) {
            const uint8_t *row = x->x + r * x->x_stride;
            fn(&x->w, 0, split, row, x->x_stride, 1, one, MAX_OUT);
            fn(&x->w, split, x->w.n_out, row, x->x_stride, 1, one, MAX_OUT);
            assert_memory_equal(one, x->y + r * x->w.n_out, x->w.n_out * sizeof *one);
        }
    }
}

static void a_row_alone_in_any_ranges_equals_it_in_any_batch(void **state)
{
    (void)state;
    for_all(tr_test_seed(), 2, batch_check);
}

/* ---- nothing beside the outputs ------------------------------------------------------ */

static void guard_check(fixture *x, dice *d)
{
    enum { GAP = 5 };
    size_t y_stride = x->w.n_out + GAP;
    size_t n = GAP + x->n_rows * y_stride;
    size_t begin = dice_below(d, x->w.n_out);
    size_t end = begin + dice_below(d, x->w.n_out - begin + 1);
    float *y = aligned_new(n * sizeof *y);

    for (size_t i = 0; table_at(i); i++) {
        product(table_at(i), x, x->y);
        for (size_t j = 0; j < n; j++)
            y[j] = 12345.0f;
        table_at(i)->matmul[x->act][x->w.type](&x->w, begin, end, x->x, x->x_stride, x->n_rows,
                                               y + GAP, y_stride);
        for (size_t j = 0; j < n; j++) {
            size_t o = j < GAP ? x->w.n_out : (j - GAP) % y_stride;
            bool is_output = o >= begin && o < end;
            float want = is_output ? x->y[(j - GAP) / y_stride * x->w.n_out + o] : 12345.0f;
            assert_memory_equal(&y[j], &want, sizeof want);
        }
    }
    free(y);
}

static void only_the_outputs_asked_for_are_written(void **state)
{
    (void)state;
    for_all(tr_test_seed(), 1, guard_check);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_c_multiplies_right_to_rounding),
        cmocka_unit_test(every_table_gives_the_bits_of_plain_c),
        cmocka_unit_test(every_table_multiplies_what_plain_c_does),
        cmocka_unit_test(a_row_alone_in_any_ranges_equals_it_in_any_batch),
        cmocka_unit_test(only_the_outputs_asked_for_are_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
