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

#include "compute/blocks.h"

enum { MAX_IN = 544, MAX_OUT = 37, MAX_ROWS = 19 };

typedef enum {
    FILL_RANDOM,
    FILL_LOWEST,  /* every code and small scale the lowest: weights -128 or 0, x -127 */
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

static void float_fill(dice *d, fill f, tr_type type, uint8_t *row)
{
    float v = f == FILL_WILD ? ldexpf(dice_float(d), (int)dice_below(d, 120) - 90) : dice_float(d);
    uint16_t h = half_of(d, f);

    if (type == TR_TYPE_F16)
        memcpy(row, &h, sizeof h);
    else
        assert_true(tr_quantise_row(type, &v, 1, row));
}

/* Any bytes, then halves where the type has them (scale_offsets_of). */
static void weights_fill(dice *d, fill f, tr_type type, size_t n, uint8_t *row)
{
    const tr_type_info *t = tr_type_get(type);
    size_t at[2];
    size_t n_halves = scale_offsets_of(type, at);

    for (size_t b = 0; b < n / t->block; b++, row += t->size) {
        if (t->block == 1) {
            float_fill(d, f, type, row);
            continue;
        }
        for (size_t i = 0; i < t->size; i++)
            row[i] = type == TR_TYPE_Q8_0 ? code_of(d, f, 0x80, 0x7f) : code_of(d, f, 0x00, 0xff);
        if (type == TR_TYPE_MXFP4) /* up to 2^71, so that sums stay finite; 0 and 1 are special */
            row[0] = f == FILL_ZERO ? 0 : (uint8_t)dice_below(d, dice_below(d, 2) ? 200 : 3);
        for (size_t i = 0; i < n_halves; i++) {
            uint16_t h = half_of(d, f);
            memcpy(row + at[i], &h, sizeof h);
        }
    }
}

/* A row as act_q8 makes it, but with any codes and scales. */
static void act_fill(dice *d, fill f, size_t n, uint8_t *row)
{
    float *scale = (float *)(void *)(row + n);
    int16_t *sum = (int16_t *)(void *)(row + n + n / 32 * sizeof(float));

    for (size_t b = 0; b < n / 32; b++) {
        sum[2 * b] = sum[2 * b + 1] = 0;
        for (size_t i = b * 32; i < b * 32 + 32; i++) {
            row[i] = code_of(d, f, 0x81, 0x7f);
            if (row[i] == 0x80)
                row[i] = 0x81;
            sum[i / 16] = (int16_t)(sum[i / 16] + (int8_t)row[i]);
        }
        float any = ldexpf(dice_float(d), (int)dice_below(d, 150) - 120);
        scale[b] = f == FILL_ZERO ? 0.0f : f == FILL_WILD ? any : dice_float(d);
    }
}

static void fixture_init(fixture *x, dice *d, tr_act act, tr_type type, fill w_fill, fill x_fill)
{
    size_t block = tr_type_get(type)->block;
    size_t step = act == TR_ACT_Q8 && block < 32 ? 32 : block;
    size_t n_in = step * (1 + dice_below(d, MAX_IN / step));
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
        for (uint32_t t = 0; t < TR_TYPE_COUNT; t++) {
            if (!table_at(0)->matmul[act][t])
                continue;
            for (size_t i = 0; i < n_shapes * FILL_COUNT * FILL_COUNT; i++) {
                fixture x;
                fixture_init(&x, &d, (tr_act)act, (tr_type)t, (fill)(i % FILL_COUNT),
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

/* What the magnitudes of a product's terms are in the order it is computed in: a value with a
 * minimum is the difference of two, which may be much larger than it is. */
static void magnitudes_of(const fixture *x, size_t o, const float *w, float *out)
{
    const uint8_t *row = (const uint8_t *)x->w.data + o * x->w.row_size;

    for (size_t i = 0; i < x->w.n_in; i++)
        out[i] = fabsf(w[i]);
    if (x->act != TR_ACT_Q8)
        return;
    tr_block_codes codes = tr_block_codes_of(x->w.type);
    for (size_t i = 0; i < x->w.n_in / 32; i++) {
        tr_block b;
        int8_t q[32];
        tr_block_get(x->w.type, row, i, &b);
        tr_block_values(&codes, &b, q);
        for (size_t k = 0; k < 32; k++)
            out[i * 32 + k] = fabsf(tr_block_d(&b.s) * (float)(b.s.scale[k / 16] * q[k])) +
                              fabsf(tr_block_dmin(&b.s) * (float)b.s.min[k / 16]);
    }
}

static void output_check(const fixture *x, const float *w, const float *magnitude, size_t r,
                         size_t o)
{
    double sum = 0.0;
    double size = 0.0;

    for (size_t i = 0; i < x->w.n_in; i++) {
        sum += (double)w[i] * x_at(x, r, i);
        size += magnitude[i] * fabs(x_at(x, r, i));
    }
    size_t steps = x->act == TR_ACT_F32 ? x->w.n_in / 16 + 6 : x->w.n_in / 32 + 6;
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
    float magnitude[MAX_IN];

    (void)d;
    product(table_at(0), x, x->y);
    for (size_t o = 0; o < x->w.n_out; o++) {
        tr_dequantise_row(x->w.type, (const uint8_t *)x->w.data + o * x->w.row_size, x->w.n_in, w);
        magnitudes_of(x, o, w, magnitude);
        for (size_t r = 0; r < x->n_rows; r++)
            output_check(x, w, magnitude, r, o);
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
