/* test_kernels.c - vector kernels: plain C against double, every other table against plain C
 * in every bit, lengths that are no multiple of a vector, and nothing written behind the end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernels/kernel_cases.h"

#include "compute/blocks.h"
#include "compute/matrix.h"

enum { MAX = 300, GUARD = 16, MAX_KEYS = 40, MAX_QUERIES = 9 };

static const uint32_t guard = 0xdeadbeef;

static bool guard_is_whole(const void *p, size_t size)
{
    const uint8_t *bytes = p;

    for (size_t i = 0; i < size; i++)
        if (bytes[i] != ((const uint8_t *)&guard)[i % 4])
            return false;
    return true;
}

static void guard_set(void *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)p)[i] = ((const uint8_t *)&guard)[i % 4];
}

/* The same bits, or neither a number: what a NaN carries is the processor's own affair. */
static void assert_alike(const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isnan(got[i]) || !isnan(want[i]))
            assert_memory_equal(&got[i], &want[i], sizeof *got);
}

/* ---- which table --------------------------------------------------------------------- */

static void tables_are_chosen_by_features_and_name(void **state)
{
    (void)state;
    assert_string_equal(tr_kernels_select(0, NULL)->name, "c");
    assert_string_equal(tr_kernels_select(0, "auto")->name, "c");
    assert_string_equal(tr_kernels_select(UINT32_MAX, "c")->name, "c");
    assert_null(tr_kernels_select(UINT32_MAX, "abacus"));
    assert_null(tr_kernels_select(UINT32_MAX, ""));
    assert_string_equal(tr_kernels_names()[0], "c");
    for (size_t i = 0; tr_kernels_names()[i]; i++) {
        const char *name = tr_kernels_names()[i];
        assert_string_equal(tr_kernels_select(UINT32_MAX, name)->name, name);
        if (i > 0)
            assert_null(tr_kernels_select(0, name));
        if (!tr_kernels_names()[i + 1])
            assert_string_equal(tr_kernels_select(UINT32_MAX, NULL)->name, name);
    }
}

/* A table that a build forgot would be missed by nobody: plain C compared with itself. */
static void every_architecture_has_its_tables(void **state)
{
    static const char *const want[] = {
        "c",
#if defined(__x86_64__)
        "avx2",
        "avx512",
#elif defined(__aarch64__)
        "neon",
#endif
    };
    const size_t n = sizeof want / sizeof want[0];

    (void)state;
    for (size_t i = 0; i < n; i++)
        assert_string_equal(tr_kernels_names()[i], want[i]);
    assert_null(tr_kernels_names()[n]);
}

/* Who knows the processor says in TR_TEST_BEST which table it is to get. */
static void the_best_table_is_what_the_processor_has(void **state)
{
    const char *want = getenv("TR_TEST_BEST");

    (void)state;
    if (!want)
        skip();
    assert_string_equal(tr_kernels_select(tr_cpu_features(), NULL)->name, want);
}

/* ---- exp ----------------------------------------------------------------------------- */

static void exp_is_right_to_2e7(void **state)
{
    double worst = 0.0;

    (void)state;
    for (float x = -87.0f; x <= 88.0f; x += 0.0007f) {
        double want = exp((double)x);
        worst = fmax(worst, fabs((double)tr_expf(x) - want) / want);
    }
    print_message("  worst relative error %.3g\n", worst);
    assert_true(worst < 2e-7);
    assert_true(tr_expf(0.0f) == 1.0f);
    assert_true(tr_expf(-87.1f) == 0.0f);
    assert_true(tr_expf(-INFINITY) == 0.0f);
    assert_true(isinf(tr_expf(89.0f)));
    assert_true(isinf(tr_expf(INFINITY)));
    assert_true(isfinite(tr_expf(88.72f)));
    assert_true(isnan(tr_expf(NAN)));
}

/* ---- sums ---------------------------------------------------------------------------- */

/* n dot products with rows of dim: right to rounding, as plain C's, each alone as among others,
 * and nothing written behind. */
static void dots_check(const tr_kernels *k, const float *q, const float *keys, size_t n, size_t dim)
{
    float got[MAX_KEYS + GUARD], c[MAX_KEYS], one;
    float *out[] = { got, c, &one };

    guard_set(got + n, GUARD * sizeof *got);
    k->dots[TR_TYPE_F32](&q, 1, keys, n, dim, &out[0]);
    table_at(0)->dots[TR_TYPE_F32](&q, 1, keys, n, dim, &out[1]);
    assert_memory_equal(got, c, n * sizeof *c);
    assert_true(guard_is_whole(got + n, GUARD * sizeof *got));
    for (size_t i = 0; i < n; i++) {
        double sum = 0.0, size = 0.0;
        for (size_t j = 0; j < dim; j++) {
            sum += (double)q[j] * keys[i * dim + j];
            size += fabs((double)q[j] * keys[i * dim + j]);
        }
        assert_true(fabs(got[i] - sum) <= ((double)dim / 16 + 6) * 0x1p-24 * size * 1.001);
        k->dots[TR_TYPE_F32](&q, 1, keys + i * dim, 1, dim, &out[2]);
        assert_memory_equal(&one, &got[i], sizeof one);
    }
}

static void dots_are_right_and_the_same_in_every_table(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float q[MAX], keys[MAX_KEYS * MAX];

    (void)state;
    for (size_t dim = 0; dim < MAX - 3; dim++) {
        size_t shift = dim % 3; /* rows need not be aligned */
        dice_floats(&d, q, MAX);
        dice_floats(&d, keys, MAX_KEYS * (MAX - 3) + 3);
        for (size_t i = 0; table_at(i); i++)
            dots_check(table_at(i), q + shift, keys + shift, dice_below(&d, MAX_KEYS + 1), dim);
    }
}

/* Of all sizes below one that the dice choose: some calls give nothing but subnormals, some give
 * products that overflow, most neither. */
static void extreme_floats(dice *d, float *x, size_t n)
{
    size_t reach = 1 + dice_below(d, 277);

    for (size_t i = 0; i < n; i++)
        x[i] = ldexpf(dice_float(d), (int)dice_below(d, reach) - 149);
}

/* Sums run over the values in order, each product rounded before it is added. */
static void mix_check(const tr_kernels *k, const float *w, const float *values, size_t n,
                      size_t dim)
{
    float got[MAX + GUARD], want[MAX];
    float *out = got;

    for (size_t j = 0; j < dim; j++)
        got[j] = want[j] = (float)j;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < dim; j++)
            want[j] += w[i] * values[i * dim + j];
    guard_set(got + dim, GUARD * sizeof *got);
    k->mix[TR_TYPE_F32](&w, 1, values, n, dim, &out);
    assert_alike(got, want, dim);
    assert_true(guard_is_whole(got + dim, GUARD * sizeof *got));
}

static void mix_adds_in_the_order_of_the_values(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float w[MAX_KEYS], values[MAX_KEYS * MAX];

    (void)state;
    for (size_t dim = 0; dim < MAX - 3; dim++) {
        size_t shift = dim % 3;
        void (*floats)(dice *, float *, size_t) = dim % 2 ? extreme_floats : dice_floats;
        floats(&d, w, MAX_KEYS);
        floats(&d, values, MAX_KEYS * (MAX - 3) + 3);
        for (size_t i = 0; table_at(i); i++)
            mix_check(table_at(i), w, values + shift, dice_below(&d, MAX_KEYS + 1), dim);
    }
}

/* ---- rows of a cache ------------------------------------------------------------------- */

/* Some queries against rows of one of the types that caches keep. */
typedef struct {
    tr_type type;
    size_t n_queries, n, dim;
    uint8_t rows[(MAX_KEYS * MAX + 1) * sizeof(float)];
    float as_floats[MAX_KEYS * MAX];
    float x[MAX_QUERIES][MAX]; /* queries, or weights */
} page;

typedef enum {
    USUAL,   /* -1..1 */
    EXTREME, /* any that are finite */
    ODD,     /* the usual ones, and here and there one that is infinite or no number */
} values;

static void page_put(page *p, size_t i, float value)
{
    if (p->type == TR_TYPE_F32)
        memcpy(p->rows + i * sizeof value, &value, sizeof value);
    else
        ((uint16_t *)(void *)p->rows)[i] = tr_f32_to_f16(value);
}

/* Half precision has every value there is, in equal parts. */
static void page_make_extreme(page *p, dice *d)
{
    for (size_t i = 0; i < MAX_QUERIES; i++)
        extreme_floats(d, p->x[i], MAX);
    if (p->type == TR_TYPE_F32)
        extreme_floats(d, (float *)(void *)p->rows, p->n * p->dim);
    for (size_t i = 0; p->type != TR_TYPE_F32 && i < p->n * p->dim; i++) {
        uint16_t bits = (uint16_t)dice_u64(d);
        ((uint16_t *)(void *)p->rows)[i] = (bits & 0x7c00) == 0x7c00 ? bits ^ 0x4000 : bits;
    }
}

/* Few of them: where all sums are NaN there is little to compare. */
static void page_add_odd(page *p, dice *d)
{
    const float odd[] = { INFINITY, -INFINITY, NAN };

    for (size_t i = 0; i < p->n && p->dim > 0; i++)
        if (dice_below(d, 3) == 0)
            page_put(p, i * p->dim + dice_below(d, p->dim), odd[dice_below(d, 3)]);
    for (size_t i = 0; i < MAX_QUERIES; i++)
        if (dice_below(d, 4) == 0)
            p->x[i][dice_below(d, MAX)] = odd[dice_below(d, 3)];
}

static void page_make(page *p, dice *d, tr_type type, size_t dim, values kind)
{
    p->type = type;
    p->n_queries = dice_below(d, MAX_QUERIES + 1);
    p->n = dice_below(d, MAX_KEYS + 1);
    p->dim = dim;
    if (kind == EXTREME) {
        page_make_extreme(p, d);
    } else {
        for (size_t i = 0; i < p->n * dim; i++)
            page_put(p, i, dice_float(d));
        for (size_t i = 0; i < MAX_QUERIES; i++)
            dice_floats(d, p->x[i], MAX);
    }
    if (kind == ODD)
        page_add_odd(p, d);
    tr_dequantise_row(type, p->rows, p->n * dim, p->as_floats);
}

/* What plain C makes of the rows as floats, one query at a time. */
static void page_check(const tr_kernels *k, const page *p)
{
    static float got[MAX_QUERIES][MAX + GUARD], want[MAX];
    const float *x[MAX_QUERIES];
    float *out[MAX_QUERIES], *one = want;

    for (size_t i = 0; i < p->n_queries; i++) {
        x[i] = p->x[i];
        out[i] = got[i];
        guard_set(got[i], sizeof got[i]);
    }
    k->dots[p->type](x, p->n_queries, p->rows, p->n, p->dim, out);
    for (size_t i = 0; i < p->n_queries; i++) {
        table_at(0)->dots[TR_TYPE_F32](&x[i], 1, p->as_floats, p->n, p->dim, &one);
        assert_alike(got[i], want, p->n);
        assert_true(guard_is_whole(got[i] + p->n, GUARD * sizeof *want));
        memset(got[i], 0, p->dim * sizeof *want);
        guard_set(got[i] + p->dim, GUARD * sizeof *want);
    }
    k->mix[p->type](x, p->n_queries, p->rows, p->n, p->dim, out);
    for (size_t i = 0; i < p->n_queries; i++) {
        memset(want, 0, sizeof want);
        table_at(0)->mix[TR_TYPE_F32](&x[i], 1, p->as_floats, p->n, p->dim, &one);
        assert_alike(got[i], want, p->dim);
        assert_true(guard_is_whole(got[i] + p->dim, GUARD * sizeof *want));
    }
}

static void rows_of_a_cache_are_read_as_if_they_were_floats(void **state)
{
    static const tr_type types[] = { TR_TYPE_F32, TR_TYPE_F16 };
    static page p;
    dice d = { tr_test_seed(), 0 };

    (void)state;
    for (size_t t = 0; t < 2; t++) {
        for (size_t at = 0; at < 3 * (MAX - GUARD); at++) {
            page_make(&p, &d, types[t], at / 3, (values)(at % 3));
            for (size_t i = 0; table_at(i); i++)
                page_check(table_at(i), &p);
        }
    }
}

/* Infinite and missing values spread as they do among floats, to the queries that see them. */
static void rows_of_a_cache_may_hold_infinities(void **state)
{
    static page p;
    dice d = { tr_test_seed(), 0 };
    float got[MAX_KEYS], want[MAX_KEYS];
    const float *x = p.x[0];
    float *out[] = { got, want };

    (void)state;
    do
        page_make(&p, &d, TR_TYPE_F16, 40, USUAL);
    while (p.n < 5);
    ((uint16_t *)(void *)p.rows)[40 + 7] = 0x7c00;
    ((uint16_t *)(void *)p.rows)[120 + 33] = 0x7e00;
    tr_dequantise_row(TR_TYPE_F16, p.rows, 40 * p.n, p.as_floats);
    table_at(0)->dots[TR_TYPE_F32](&x, 1, p.as_floats, p.n, 40, &out[1]);
    for (size_t t = 0; table_at(t); t++) {
        table_at(t)->dots[TR_TYPE_F16](&x, 1, p.rows, p.n, 40, &out[0]);
        for (size_t i = 0; i < p.n; i++)
            assert_true(i == 3 ? isnan(got[i]) : got[i] == want[i]);
        assert_true(isinf(got[1]));
    }
}

static void axpy_check(const tr_kernels *k, float a, const float *x, const float *y, size_t n)
{
    float got[MAX + GUARD];

    memcpy(got, y, n * sizeof *y);
    guard_set(got + n, GUARD * sizeof *got);
    k->axpy_f32(a, x, n, got);
    for (size_t i = 0; i < n; i++)
        assert_true(got[i] == y[i] + a * x[i]);
    assert_true(guard_is_whole(got + n, GUARD * sizeof *got));
}

static void axpy_rounds_each_product_and_sum_once(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float x[MAX], y[MAX];

    (void)state;
    for (size_t n = 0; n < 70; n++) {
        dice_floats(&d, x, n);
        dice_floats(&d, y, n);
        for (size_t i = 0; table_at(i); i++)
            axpy_check(table_at(i), dice_float(&d), x, y, n);
    }
}

static void halves_are_made_alike_in_every_table(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float x[MAX];
    uint16_t got[MAX + GUARD];
    float back[MAX + GUARD];

    (void)state;
    for (size_t n = 0; n < MAX; n++) {
        for (size_t i = 0; i < n; i++)
            x[i] =
                i % 2 ? dice_any_float(&d) : ldexpf(dice_float(&d), (int)dice_below(&d, 50) - 30);
        if (n > 9) {
            x[3] = NAN;
            x[8] = -INFINITY;
        }
        for (size_t t = 0; table_at(t); t++) {
            guard_set(got, sizeof got);
            table_at(t)->to_f16(x, n, got);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(got[i], tr_f32_to_f16(x[i]));
            assert_true(guard_is_whole(got + n + n % 2, (GUARD - 1) * sizeof *got));
            guard_set(back, sizeof back);
            table_at(t)->from_f16(got, n, back);
            for (size_t i = 0; i < n; i++)
                assert_true(back[i] == tr_f16_to_f32(got[i]) || isnan(x[i]));
            assert_true(guard_is_whole(back + n, GUARD * sizeof *back));
        }
    }
}

/* Every sort of scale: zeros, subnormals, the largest, infinities and NaN among any others. */
static void blocks_make(dice *d, tr_block_q8_0 *b, size_t n)
{
    static const uint16_t odd[] = { 0x0000, 0x8000, 0x0001, 0x83ff, 0x0400,
                                    0x7bff, 0x7c00, 0xfc00, 0x7e00, 0xfd01 };

    for (size_t i = 0; i < n; i++) {
        b[i].d = dice_below(d, 2) ? odd[dice_below(d, 10)] : (uint16_t)dice_u64(d);
        for (size_t j = 0; j < 32; j++)
            b[i].q[j] = (int8_t)dice_u64(d);
    }
}

static void blocks_become_floats_alike_in_every_table(void **state)
{
    enum { MOST = 9, REPEAT = 50 };
    dice d = { tr_test_seed(), 0 };
    tr_block_q8_0 blocks[MOST];
    float got[1 + MOST * 32 + GUARD], want[MOST * 32];

    (void)state;
    for (size_t n = 0; n <= MOST * REPEAT; n++) {
        size_t size = n / REPEAT * 32;
        float *out = got + n % 2; /* need not be aligned */
        blocks_make(&d, blocks, MOST);
        tr_dequantise_row(TR_TYPE_Q8_0, blocks, size, want);
        for (size_t t = 0; table_at(t); t++) {
            guard_set(got, sizeof got);
            table_at(t)->from_q8_0(blocks, size, out);
            assert_alike(out, want, size);
            assert_true(guard_is_whole(got, (size_t)(out - got) * sizeof *got));
            assert_true(guard_is_whole(out + size, (GUARD + 1 - n % 2) * sizeof *got));
        }
    }
}

/* ---- rows ---------------------------------------------------------------------------- */

static void norm_check(const tr_kernels *k, const float *x, const float *w, size_t n)
{
    float got[MAX + GUARD], c[MAX], in_place[MAX];
    double squares = 0.0;

    guard_set(got, sizeof got);
    k->rms_norm(x, w, n, 1e-6f, got);
    for (size_t i = 0; i < n; i++)
        squares += (double)x[i] * x[i];
    for (size_t i = 0; i < n; i++) {
        double want = x[i] / sqrt(squares / (double)n + 1e-6) * w[i];
        /* the sum's error halves under the root; then five roundings */
        assert_true(fabs(got[i] - want) <= ((double)n / 32 + 10) * 0x1p-24 * fabs(want));
    }
    assert_true(guard_is_whole(got + n, GUARD * sizeof *got));
    table_at(0)->rms_norm(x, w, n, 1e-6f, c);
    assert_memory_equal(got, c, n * sizeof *c);
    memcpy(in_place, x, n * sizeof *x);
    k->rms_norm(in_place, w, n, 1e-6f, in_place);
    assert_memory_equal(in_place, c, n * sizeof *c);
}

static void rms_norm_is_right_in_place_too(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float x[MAX], w[MAX];

    (void)state;
    for (size_t n = 1; n < MAX; n += 1 + n / 16) {
        dice_floats(&d, x, n);
        dice_floats(&d, w, n);
        for (size_t i = 0; table_at(i); i++)
            norm_check(table_at(i), x, w, n);
    }
}

static void softmax_check(const tr_kernels *k, const float *x, size_t n)
{
    float got[MAX + GUARD], c[MAX];
    double largest = -INFINITY, total = 0.0, sum = 0.0;

    memcpy(got, x, n * sizeof *x);
    memcpy(c, x, n * sizeof *x);
    guard_set(got + n, GUARD * sizeof *got);
    k->softmax(got, n);
    for (size_t i = 0; i < n; i++)
        largest = x[i] > largest ? x[i] : largest; /* gcc 12 for ARM breaks on fmax here */
    for (size_t i = 0; i < n; i++)
        total += exp(x[i] - largest);
    for (size_t i = 0; i < n; i++) {
        double want = exp(x[i] - largest) / total;
        /* the difference of two scores is rounded before exp: up to 100 * 2^-24 */
        assert_true(fabs(got[i] - want) <= 1e-5 * want + 1e-37);
        sum += got[i];
    }
    assert_true(fabs(sum - 1.0) < 1e-5);
    assert_true(guard_is_whole(got + n, GUARD * sizeof *got));
    table_at(0)->softmax(c, n);
    assert_memory_equal(got, c, n * sizeof *c);
}

static void softmax_gives_probabilities(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float x[MAX];

    (void)state;
    for (size_t n = 1; n < MAX; n += 1 + n / 16) {
        for (size_t i = 0; i < n; i++)
            x[i] = 100.0f * dice_float(&d);
        if (n > 2)
            x[dice_below(&d, n - 1)] = -INFINITY;
        for (size_t i = 0; table_at(i); i++)
            softmax_check(table_at(i), x, n);
    }
}

static void silu_check(const tr_kernels *k, const float *gate, const float *up, size_t n)
{
    float got[MAX + GUARD], c[MAX];

    memcpy(got, gate, n * sizeof *gate);
    memcpy(c, gate, n * sizeof *gate);
    guard_set(got + n, GUARD * sizeof *got);
    k->silu_mul(got, up, n);
    for (size_t i = 0; i < n; i++) {
        double want = gate[i] / (1.0 + exp(-(double)gate[i])) * up[i];
        /* where exp(-gate) overflows a float the result is zero */
        assert_true(fabs(got[i] - want) <= 4e-7 * fabs(want) + 1e-36 * fabs(up[i]));
    }
    assert_true(guard_is_whole(got + n, GUARD * sizeof *got));
    table_at(0)->silu_mul(c, up, n);
    assert_memory_equal(got, c, n * sizeof *c);
}

static void silu_mul_is_right_at_both_ends(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float gate[MAX], up[MAX];

    (void)state;
    for (size_t n = 0; n < 70; n++) {
        float reach = n % 3 ? 10.0f : 200.0f;
        for (size_t i = 0; i < n; i++)
            gate[i] = reach * dice_float(&d);
        dice_floats(&d, up, n);
        for (size_t i = 0; table_at(i); i++)
            silu_check(table_at(i), gate, up, n);
    }
}

/* ---- 8-bit activations --------------------------------------------------------------- */

static void q8_check(const float *x, size_t n, const uint8_t *row)
{
    const int8_t *q = tr_q8_values(row);

    for (size_t b = 0; b < n / 32; b++, x += 32, q += 32) {
        float scale = tr_q8_scales(row, n)[b];
        float largest = 0.0f;
        int32_t sum[2] = { 0 };
        for (size_t i = 0; i < 32; i++) {
            largest = fmaxf(largest, fabsf(x[i]));
            sum[i / 16] += q[i];
        }
        if (largest < TR_Q8_TINY)
            largest = 0.0f;
        assert_true(scale == largest / 127.0f);
        assert_int_equal(tr_q8_sums(row, n)[2 * b], sum[0]);
        assert_int_equal(tr_q8_sums(row, n)[2 * b + 1], sum[1]);
        for (size_t i = 0; i < 32; i++) {
            assert_in_range(q[i] + 127, 0, 254);
            double step = largest > 0.0f ? (double)x[i] * 127.0 / largest : 0.0;
            assert_true(fabs(q[i] - step) <= 0.50002);
        }
    }
}

static void q8_compare(const float *x, size_t n)
{
    size_t size = tr_act_row_size(TR_ACT_Q8, n);
    uint8_t *c = aligned_new(size + 64);
    uint8_t *got = aligned_new(size + 64);

    guard_set(c, size + 64);
    table_at(0)->act_q8(x, n, c);
    for (size_t i = 0; table_at(i); i++) {
        guard_set(got, size + 64);
        table_at(i)->act_q8(x, n, got);
        assert_memory_equal(got, c, size + 64);
    }
    for (size_t i = n + n / 32 * 8; i < size; i++)
        assert_int_equal(c[i], 0);
    assert_true(guard_is_whole(c + size, 64));
    q8_check(x, n, c);
    free(c);
    free(got);
}

static void parts_of_activations_make_the_whole(void **state)
{
    enum { N = 224 }; /* no multiple of 64: the row has padding */
    size_t size = tr_act_row_size(TR_ACT_Q8, N);
    float x[N];
    uint8_t *whole = aligned_new(size);
    uint8_t *parts = aligned_new(size);
    static const size_t cuts[][4] = {
        { 0, 224, 224, 224 }, { 0, 64, 128, 224 }, { 0, 32, 192, 224 }, { 0, 96, 160, 224 }
    };

    (void)state;
    for (size_t i = 0; i < N; i++)
        x[i] = (float)((int)(i * 37 % 101) - 50) * 0.37f;
    for (size_t t = 0; table_at(t); t++) {
        table_at(t)->act_q8(x, N, whole);
        for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
            memset(parts, 0xee, size);
            for (size_t i = 3; i-- > 0;) /* in any order */
                tr_act_q8_part(table_at(t), x + cuts[c][i], cuts[c][i], cuts[c][i + 1], N, parts);
            assert_memory_equal(parts, whole, size);
        }
    }
    free(whole);
    free(parts);
}

static void activations_are_within_half_a_step(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float x[MAX];

    (void)state;
    for (size_t n = 32; n < MAX; n += 32) {
        for (size_t repeat = 0; repeat < 50; repeat++) {
            dice_floats(&d, x, n);
            for (size_t b = 0; b < n / 32; b++) {
                int exponent = (int)dice_below(&d, 250) - 145;
                for (size_t i = b * 32; i < b * 32 + 32; i++)
                    x[i] = ldexpf(x[i], repeat % 2 ? exponent : 0);
            }
            q8_compare(x, n);
        }
    }
}

static void blocks_of_zeros_and_of_extremes_are_exact(void **state)
{
    float x[32];

    (void)state;
    for (size_t i = 0; i < 32; i++)
        x[i] = i % 2 ? -0.0f : 0.0f;
    q8_compare(x, 32);
    for (size_t i = 0; i < 32; i++)
        x[i] = 1e-44f;
    q8_compare(x, 32);
    for (size_t i = 0; i < 32; i++)
        x[i] = i % 2 ? -3.4e38f : 3.4e38f;
    q8_compare(x, 32);
}

/* What they become matters little, but every table must agree. */
static void tables_agree_on_activations_that_are_no_numbers(void **state)
{
    const float odd[] = { NAN, -NAN, INFINITY, -INFINITY };
    uint8_t c[64], got[64];
    float x[32];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        for (size_t at = 0; at < 32; at++) {
            for (size_t j = 0; j < 32; j++)
                x[j] = (float)j - 3.0f;
            x[at] = odd[i];
            table_at(0)->act_q8(x, 32, c);
            for (size_t t = 1; table_at(t); t++) {
                table_at(t)->act_q8(x, 32, got);
                assert_memory_equal(got, c, sizeof c);
            }
        }
    }
}

static void ties_between_steps_go_to_the_even_one(void **state)
{
    float x[32] = { 127.0f }; /* a step is exactly 1 */

    (void)state;
    for (size_t i = 1; i < 32; i++)
        x[i] = (float)i - 16.5f;
    uint8_t *row = aligned_new(tr_act_row_size(TR_ACT_Q8, 32));
    for (size_t t = 0; table_at(t); t++) {
        table_at(t)->act_q8(x, 32, row);
        for (size_t i = 0; i < 32; i++)
            assert_true((float)tr_q8_values(row)[i] == nearbyintf(x[i]));
    }
    free(row);
}

/* ---- what the machine can do ----------------------------------------------------------- */

/* Operations that were claimed for no round, 3 and 300: each round has the same, at least one
 * product and its sum. */
static void check_claims(const double ops[3])
{
    assert_true(ops[0] == 0.0);
    assert_true(ops[1] >= 3 * 2.0);
    assert_true(ops[1] <= 3 * 2.0 * 4096);
    assert_true(ops[2] == 100.0 * ops[1]);
}

static void check_float_peak(double (*peak)(size_t rounds, float *sink))
{
    static const size_t rounds[] = { 0, 3, 300 };
    double ops[3];

    for (size_t i = 0; i < 3; i++) {
        float sink = 1.0f;
        ops[i] = peak(rounds[i], &sink);
        assert_true(isfinite(sink));
    }
    check_claims(ops);
}

static void peaks_claim_as_much_for_every_round(void **state)
{
    static const size_t rounds[] = { 0, 3, 300 };

    (void)state;
    for (size_t t = 0; table_at(t); t++) {
        const tr_kernels *k = table_at(t);
        double ops[3];
        for (size_t i = 0; i < 3; i++) {
            int32_t sink = 1;
            ops[i] = k->int8_peak(rounds[i], &sink);
        }
        check_claims(ops);
        check_float_peak(k->float_peak);
        if (k->bf16_peak)
            check_float_peak(k->bf16_peak);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_chosen_by_features_and_name),
        cmocka_unit_test(every_architecture_has_its_tables),
        cmocka_unit_test(the_best_table_is_what_the_processor_has),
        cmocka_unit_test(exp_is_right_to_2e7),
        cmocka_unit_test(dots_are_right_and_the_same_in_every_table),
        cmocka_unit_test(mix_adds_in_the_order_of_the_values),
        cmocka_unit_test(rows_of_a_cache_are_read_as_if_they_were_floats),
        cmocka_unit_test(rows_of_a_cache_may_hold_infinities),
        cmocka_unit_test(axpy_rounds_each_product_and_sum_once),
        cmocka_unit_test(halves_are_made_alike_in_every_table),
        cmocka_unit_test(blocks_become_floats_alike_in_every_table),
        cmocka_unit_test(rms_norm_is_right_in_place_too),
        cmocka_unit_test(softmax_gives_probabilities),
        cmocka_unit_test(silu_mul_is_right_at_both_ends),
        cmocka_unit_test(activations_are_within_half_a_step),
        cmocka_unit_test(parts_of_activations_make_the_whole),
        cmocka_unit_test(blocks_of_zeros_and_of_extremes_are_exact),
        cmocka_unit_test(tables_agree_on_activations_that_are_no_numbers),
        cmocka_unit_test(ties_between_steps_go_to_the_even_one),
        cmocka_unit_test(peaks_claim_as_much_for_every_round),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
