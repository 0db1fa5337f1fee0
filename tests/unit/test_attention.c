/* test_attention.c - attention is the formula, for any grouping of heads and type of cache, and a
 * row's result does not depend on the rows beside it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "compute/cpu.h"
#include "coordinator/model/attention.h"

#include <math.h>
#include <stdlib.h>

enum { DIM = 32, MAX_HEADS = 40, N_SEQUENCES = 2, MAX_ROWS = 90, SCORES = 128 };

typedef struct {
    tr_compute compute;
    tr_kv_shape shape;
    tr_kv *kv;
    size_t n_heads;
    tr_kv_table table[N_SEQUENCES];
    const tr_kv_table *row_table[MAX_ROWS];
    uint32_t position[MAX_ROWS], block_begin[MAX_ROWS];
    size_t n_rows;
    float *q, *out, *scratch;
    size_t window;
    const float *sinks;
} fixture;

static float number(uint64_t a, uint64_t b, uint64_t c)
{
    return (float)(2.0 * tr_rng_unit(tr_rng_u64(a, b, c)) - 1.0);
}

static void cache_fill(fixture *f, size_t sequence, size_t n)
{
    float k[MAX_HEADS * DIM], v[MAX_HEADS * DIM];

    assert_int_equal(tr_kv_reserve(f->kv, &f->table[sequence], n), TR_OK);
    for (size_t p = 0; p < n; p++) {
        for (size_t i = 0; i < f->shape.n_heads * DIM; i++) {
            k[i] = number(sequence + 1, p, i);
            v[i] = number(sequence + 100, p, i);
        }
        tr_kv_put(f->kv, &f->table[sequence], 0, p, k, v);
    }
}

/* A prompt's rows of one sequence, then some of another: as a mixed batch has them. */
static void fixture_init(fixture *f, const char *isa, tr_type type, size_t kv_heads, size_t group)
{
    *f = (fixture){ .n_heads = kv_heads * group };
    f->compute.kernels = tr_kernels_select(tr_cpu_features(), isa);
    assert_non_null(f->compute.kernels);
    assert_int_equal(tr_pool_new(2, &f->compute.pool), TR_OK);
    f->shape = (tr_kv_shape){ .kernels = f->compute.kernels,
                              .n_layers = 1,
                              .n_heads = kv_heads,
                              .head_dim = DIM,
                              .type = type };
    assert_int_equal(tr_kv_new(&f->shape, 8, 0, &f->kv), TR_OK);
    cache_fill(f, 0, 71);
    cache_fill(f, 1, 40);
    for (uint32_t p = 30; p < 71; p++, f->n_rows++) {
        f->row_table[f->n_rows] = &f->table[0];
        f->position[f->n_rows] = p;
    }
    for (uint32_t p = 0; p < 40; p += 13, f->n_rows++) {
        f->row_table[f->n_rows] = &f->table[1];
        f->position[f->n_rows] = p;
    }
    size_t values = f->n_rows * f->n_heads * DIM;
    f->q = malloc(values * sizeof *f->q);
    f->out = malloc(values * sizeof *f->out);
    f->scratch = malloc(2 * tr_attention_scratch(&f->shape, SCORES) * sizeof *f->scratch);
    for (size_t i = 0; i < values; i++)
        f->q[i] = 3.0f * number(7, 7, i);
}

static void fixture_fini(fixture *f)
{
    for (size_t i = 0; i < N_SEQUENCES; i++)
        tr_kv_release(f->kv, &f->table[i]);
    tr_kv_free(&f->kv);
    tr_pool_free(&f->compute.pool);
    free(f->q);
    free(f->out);
    free(f->scratch);
}

static void attention(fixture *f, size_t first, size_t n_rows, float *out)
{
    tr_attention a = {
        .compute = &f->compute,
        .kv = f->kv,
        .n_rows = n_rows,
        .n_heads = f->n_heads,
        .scale = 0.25f,
        .window = f->window,
        .sinks = f->sinks,
        .q = f->q + first * f->n_heads * DIM,
        .table = f->row_table + first,
        .position = f->position + first,
        .score_stride = SCORES,
        .scratch = f->scratch,
        .block_begin = f->block_begin,
        .out = out,
    };
    tr_attention_run(&a);
}

/* The formula in double, on the values as the cache gives them back. */
static void expected(const fixture *f, size_t row, size_t head, double *out)
{
    size_t kv_head = head / (f->n_heads / f->shape.n_heads);
    size_t n = (size_t)f->position[row] + 1;
    const float *q = f->q + (row * f->n_heads + head) * DIM;
    size_t begin = f->window > 0 && n > f->window ? n - f->window : 0;
    double weight[SCORES], sum = f->sinks ? exp((double)f->sinks[head]) : 0.0;
    float buffer[TR_KV_PAGE * DIM];

    for (size_t i = 0; i < DIM; i++)
        out[i] = 0.0;
    for (size_t pass = 0; pass < 2; pass++) {
        const float *all = NULL;
        for (size_t p = begin; p < n; p++) {
            tr_kv_span s = tr_kv_get(f->kv, f->row_table[row], 0, kv_head, p / TR_KV_PAGE);
            if (!all || p % TR_KV_PAGE == 0)
                all = tr_kv_floats(f->kv, pass ? s.values : s.keys, TR_KV_PAGE, buffer);
            const float *x = all + p % TR_KV_PAGE * DIM;
            double dot = 0.0;
            for (size_t i = 0; i < DIM; i++)
                dot += (double)q[i] * x[i];
            if (pass == 0) {
                weight[p] = exp(0.25 * dot);
                sum += weight[p];
            } else {
                for (size_t i = 0; i < DIM; i++)
                    out[i] += weight[p] / sum * x[i];
            }
        }
    }
}

static void check_formula(fixture *f)
{
    double want[DIM];

    attention(f, 0, f->n_rows, f->out);
    for (size_t row = 0; row < f->n_rows; row++) {
        for (size_t head = 0; head < f->n_heads; head++) {
            expected(f, row, head, want);
            for (size_t i = 0; i < DIM; i++)
                assert_true(fabs(f->out[(row * f->n_heads + head) * DIM + i] - want[i]) < 2e-6);
        }
    }
}

static void check_alone(fixture *f)
{
    float alone[MAX_HEADS * DIM];
    size_t size = f->n_heads * DIM;

    attention(f, 0, f->n_rows, f->out);
    for (size_t row = 0; row < f->n_rows; row++) {
        attention(f, row, 1, alone);
        assert_memory_equal(alone, f->out + row * size, size * sizeof *alone);
    }
}

/* Heads that share none, some, and more than a block of queries; all of them one key/value head, so
 * that a row alone is shared out among the threads; and many key/value heads, some of which a row
 * alone takes together. */
static void for_all(void (*check)(fixture *f))
{
    static const tr_type types[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_Q8_0 };
    static const struct {
        size_t kv_heads, group;
    } heads[] = {
        { 2, 1 }, { 2, 3 }, { 2, 8 }, { 2, 20 }, { 1, 5 }, { 1, 20 }, { 20, 1 }, { 7, 2 }
    };

    for (size_t i = 0; tr_kernels_names()[i]; i++) {
        const char *isa = tr_kernels_names()[i];
        if (!tr_kernels_select(tr_cpu_features(), isa))
            continue;
        for (size_t t = 0; t < 3; t++) {
            for (size_t g = 0; g < sizeof heads / sizeof heads[0]; g++) {
                fixture f;
                fixture_init(&f, isa, types[t], heads[g].kv_heads, heads[g].group);
                check(&f);
                fixture_fini(&f);
            }
        }
    }
}

static void the_result_is_the_formula(void **state)
{
    (void)state;
    for_all(check_formula);
}

static void a_row_alone_equals_it_in_a_batch(void **state)
{
    (void)state;
    for_all(check_alone);
}

static const float sinks[MAX_HEADS] = { 1.0f, -2.0f, 0.5f, 3.0f, 0.0f, 6.0f, -1.0f };

/* A window within a page, one that begins on a page's first position for some rows, one of several
 * pages, one larger than all there is. */
static void check_windows(fixture *f)
{
    static const size_t windows[] = { 1, 8, 32, 50, 100 };

    f->sinks = sinks;
    check_formula(f);
    for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
        f->window = windows[w];
        f->sinks = w % 2 == 0 ? sinks : NULL;
        check_formula(f);
        if (w % 2 == 1)
            check_alone(f);
    }
}

static void windows_and_sinks_are_the_formula_too(void **state)
{
    (void)state;
    for_all(check_windows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_result_is_the_formula),
        cmocka_unit_test(a_row_alone_equals_it_in_a_batch),
        cmocka_unit_test(windows_and_sinks_are_the_formula_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
