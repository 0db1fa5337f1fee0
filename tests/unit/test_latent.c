/* test_latent.c - queries and values by way of the latent are the formula, from every layout and
 * type of the file's matrices; a row does not depend on the rows beside it; and the matrices take
 * the file's bytes, not floats. SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/memory.h"
#include "base/rng.h"
#include "compute/cpu.h"
#include "compute/gguf_write.h"
#include "coordinator/model/latent.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    N_HEADS = 3,
    LATENT = 256,
    N_KEY = 64,
    N_ROT = 32,
    N_VALUE = 40,
    HEAD = N_KEY + N_ROT,
    N_ROWS = 19,
    HEAD_ROWS = N_KEY + N_VALUE,
};

typedef struct {
    tr_type type;
    bool is_joint, exact;
    double bound;    /* of the error, of sums whose deviation is about 1 */
    double per_byte; /* memory of the matrices, of what they are in the file */
} variant;

typedef struct {
    tr_compute compute;
    tr_model_config config;
    tr_gguf *gguf;
    tr_latent_weights up;
    float *k, *v; /* [N_HEADS][N_KEY][LATENT], [N_HEADS][N_VALUE][LATENT] as the file gives them */
    uint8_t *scratch;
    float *q, *heads; /* what goes in */
} fixture;

static float number(uint64_t a, uint64_t b)
{
    return (float)(2.0 * tr_rng_unit(tr_rng_u64(77, a, b)) - 1.0);
}

/* n rows of a type, and what they mean. */
static uint8_t *rows_of(tr_type type, uint64_t what, size_t n, size_t n_in, float *means)
{
    size_t size = 0;
    float x[LATENT];

    assert_true(tr_type_row_size(type, n_in, &size));
    uint8_t *rows = malloc(n * size);
    assert_non_null(rows);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n_in; j++)
            x[j] = number(what, i * n_in + j) * 0.1f;
        assert_true(tr_quantise_row(type, x, n_in, rows + i * size));
        tr_dequantise_row(type, rows + i * size, n_in, means + i * n_in);
    }
    return rows;
}

static void write_tensor(tr_gguf_writer *w, tr_type type, const uint8_t *rows, size_t n,
                         size_t n_in)
{
    size_t size = 0;

    assert_true(tr_type_row_size(type, n_in, &size));
    assert_int_equal(tr_gguf_writer_data(w, (tr_bytes){ rows, n * size }), TR_OK);
}

/* attn_kv_b: each head's K_h, then V_h. */
static void write_joint(fixture *f, tr_gguf_writer *w, tr_type type)
{
    float *means = malloc((size_t)N_HEADS * HEAD_ROWS * LATENT * sizeof *means);
    uint8_t *rows = rows_of(type, 1, (size_t)N_HEADS * HEAD_ROWS, LATENT, means);

    tr_gguf_put_tensor(w, "kv", type, (uint64_t[]){ LATENT, N_HEADS * HEAD_ROWS }, 2);
    assert_int_equal(tr_gguf_writer_begin_data(w), TR_OK);
    write_tensor(w, type, rows, (size_t)N_HEADS * HEAD_ROWS, LATENT);
    for (size_t h = 0; h < N_HEADS; h++) {
        const float *head = means + h * HEAD_ROWS * LATENT;
        memcpy(f->k + h * N_KEY * LATENT, head, (size_t)N_KEY * LATENT * sizeof *head);
        memcpy(f->v + h * N_VALUE * LATENT, head + (size_t)N_KEY * LATENT,
               (size_t)N_VALUE * LATENT * sizeof *head);
    }
    free(rows);
    free(means);
}

/* attn_k_b, whose rows run along the key, and attn_v_b. */
static void write_split(fixture *f, tr_gguf_writer *w, tr_type type)
{
    float *turned = malloc((size_t)N_HEADS * LATENT * N_KEY * sizeof *turned);
    uint8_t *k = rows_of(type, 2, (size_t)N_HEADS * LATENT, N_KEY, turned);
    uint8_t *v = rows_of(type, 3, (size_t)N_HEADS * N_VALUE, LATENT, f->v);

    tr_gguf_put_tensor(w, "k", type, (uint64_t[]){ N_KEY, LATENT, N_HEADS }, 3);
    tr_gguf_put_tensor(w, "v", type, (uint64_t[]){ LATENT, N_VALUE, N_HEADS }, 3);
    assert_int_equal(tr_gguf_writer_begin_data(w), TR_OK);
    write_tensor(w, type, k, (size_t)N_HEADS * LATENT, N_KEY);
    write_tensor(w, type, v, (size_t)N_HEADS * N_VALUE, LATENT);
    for (size_t h = 0; h < N_HEADS; h++)
        for (size_t i = 0; i < N_KEY; i++)
            for (size_t j = 0; j < LATENT; j++)
                f->k[(h * N_KEY + i) * LATENT + j] = turned[(h * LATENT + j) * N_KEY + i];
    free(k);
    free(v);
    free(turned);
}

static void load(fixture *f, const variant *v)
{
    char path[] = "/tmp/troupe-latent-XXXXXX";
    tr_gguf_writer *w = NULL;

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(tr_gguf_writer_new(path, true, &w), TR_OK);
    tr_gguf_put_string(w, "general.architecture", tr_bytes_of("deepseek2"));
    (v->is_joint ? write_joint : write_split)(f, w, v->type);
    assert_int_equal(tr_gguf_writer_finish(&w), TR_OK);
    assert_int_equal(tr_gguf_open(path, &f->gguf), TR_OK);
    unlink(path);
    if (v->is_joint)
        assert_int_equal(tr_latent_load_joint(&f->compute, f->gguf, &f->config,
                                              tr_gguf_find(f->gguf, "kv"), &f->up),
                         TR_OK);
    else
        assert_int_equal(tr_latent_load(&f->compute, f->gguf, tr_gguf_find(f->gguf, "k"),
                                        tr_gguf_find(f->gguf, "v"), &f->up),
                         TR_OK);
}

static void begin(fixture *f, const variant *v, const char *isa)
{
    void *scratch = NULL;

    *f = (fixture){ .config = { .n_heads = N_HEADS,
                                .head_dim = HEAD,
                                .n_rot = N_ROT,
                                .latent = LATENT,
                                .value_dim = N_VALUE,
                                .cache_dim = LATENT + N_ROT } };
    f->compute.kernels = tr_kernels_select(tr_cpu_features(), isa);
    f->compute.exact = v->exact;
    assert_int_equal(tr_pool_new(2, &f->compute.pool), TR_OK);
    assert_int_equal(tr_memory_new(2 * tr_latent_scratch(&f->config), "scratch", &scratch), TR_OK);
    f->scratch = scratch;
    f->k = malloc((size_t)N_HEADS * N_KEY * LATENT * sizeof *f->k);
    f->v = malloc((size_t)N_HEADS * N_VALUE * LATENT * sizeof *f->v);
    f->q = malloc((size_t)N_ROWS * N_HEADS * HEAD * sizeof *f->q);
    f->heads = malloc((size_t)N_ROWS * N_HEADS * f->config.cache_dim * sizeof *f->heads);
    for (size_t i = 0; i < (size_t)N_ROWS * N_HEADS * HEAD; i++)
        f->q[i] = number(4, i) * 2.0f;
    for (size_t i = 0; i < (size_t)N_ROWS * N_HEADS * f->config.cache_dim; i++)
        f->heads[i] = number(5, i);
    load(f, v);
}

static void end(fixture *f)
{
    void *scratch = f->scratch;

    tr_memory_free(&scratch, 2 * tr_latent_scratch(&f->config));
    tr_latent_weights_free(&f->up);
    tr_gguf_close(&f->gguf);
    tr_pool_free(&f->compute.pool);
    free(f->k);
    free(f->v);
    free(f->q);
    free(f->heads);
}

static void check_queries(const fixture *f, const float *got, double bound)
{
    for (size_t r = 0; r < N_ROWS * N_HEADS; r++) {
        const float *q = f->q + r * HEAD;
        const float *k = f->k + r % N_HEADS * N_KEY * LATENT;
        const float *query = got + r * f->config.cache_dim;
        for (size_t j = 0; j < LATENT; j++) {
            double want = 0;
            for (size_t i = 0; i < N_KEY; i++)
                want += (double)q[i] * (double)k[i * LATENT + j];
            assert_true(fabs((double)query[j] - want) <= bound);
        }
        assert_memory_equal(query + LATENT, q + N_KEY, N_ROT * sizeof *q);
    }
}

static void check_values(const fixture *f, const float *got, double bound)
{
    for (size_t r = 0; r < N_ROWS * N_HEADS; r++) {
        const float *c = f->heads + r * f->config.cache_dim;
        const float *v = f->v + r % N_HEADS * N_VALUE * LATENT;
        for (size_t i = 0; i < N_VALUE; i++) {
            double want = 0;
            for (size_t j = 0; j < LATENT; j++)
                want += (double)c[j] * (double)v[i * LATENT + j];
            assert_true(fabs((double)got[r * N_VALUE + i] - want) <= bound);
        }
    }
}

static void check(const variant *v, const char *isa)
{
    static float queries[N_ROWS * N_HEADS * (LATENT + N_ROT)], values[N_ROWS * N_HEADS * N_VALUE];
    static float query[N_HEADS * (LATENT + N_ROT)], value[N_HEADS * N_VALUE];
    fixture f;

    begin(&f, v, isa);
    tr_latent l = { &f.compute, &f.config, &f.up, f.scratch };
    tr_latent_queries(&l, f.q, N_ROWS, queries);
    check_queries(&f, queries, v->bound);
    tr_latent_values(&l, f.heads, N_ROWS, values);
    check_values(&f, values, v->bound);
    for (size_t r = 0; r < N_ROWS; r += 6) {
        tr_latent_queries(&l, f.q + r * N_HEADS * HEAD, 1, query);
        assert_memory_equal(query, queries + r * sizeof query / sizeof *query, sizeof query);
        tr_latent_values(&l, f.heads + r * N_HEADS * f.config.cache_dim, 1, value);
        assert_memory_equal(value, values + r * sizeof value / sizeof *value, sizeof value);
    }
    size_t in_file = 0;
    for (size_t i = 0; i < tr_gguf_n_tensors(f.gguf); i++)
        in_file += tr_gguf_tensor_at(f.gguf, i)->size;
    assert_true((double)(f.up.keys.size + f.up.values.size) <= (double)in_file * v->per_byte);
    end(&f);
}

/* Activations of 8 bits err by half a percent of a sum, here of deviation 0.9; a half step of a
 * turned block of Q8_0 adds less.  Values of 40 rows are padded to three panels of 16. */
static void all_layouts_and_types_are_the_formula(void **state)
{
    static const variant list[] = {
        { TR_TYPE_F32, true, false, 2e-6, 1.0 },   { TR_TYPE_F32, false, false, 2e-6, 1.0 },
        { TR_TYPE_F16, true, false, 2e-6, 1.0 },   { TR_TYPE_BF16, true, false, 2e-6, 1.0 },
        { TR_TYPE_F16, false, false, 2e-6, 1.0 },  { TR_TYPE_Q8_0, true, false, 0.04, 1.1 },
        { TR_TYPE_Q8_0, true, true, 2e-6, 1.0 },   { TR_TYPE_Q8_0, false, false, 0.04, 1.1 },
        { TR_TYPE_Q8_0, false, true, 2e-6, 1.0 },  { TR_TYPE_Q4_K, true, false, 0.04, 1.7 },
        { TR_TYPE_Q4_K, true, true, 2e-6, 1.0 },   { TR_TYPE_Q5_0, true, false, 0.04, 1.5 },
        { TR_TYPE_Q5_0, false, false, 0.04, 1.1 }, { TR_TYPE_Q6_K, true, false, 0.04, 1.3 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        for (size_t k = 0; tr_kernels_names()[k]; k++)
            if (tr_kernels_select(tr_cpu_features(), tr_kernels_names()[k]))
                check(&list[i], tr_kernels_names()[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_layouts_and_types_are_the_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
