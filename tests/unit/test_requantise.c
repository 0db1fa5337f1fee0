/* test_requantise.c - a model written again in another type has the same tensors with nearly the
 * same values, follows its rules, and is not made from what was quantised before unless told.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/memory.h"
#include "compute/gguf.h"
#include "compute/matrix.h"
#include "coordinator/model/random_model.h"
#include "coordinator/model/requantise.h"

#include <math.h>
#include <unistd.h>

static char in_path[64], out_path[64];
static tr_pool *pool;

static int setup(void **state)
{
    (void)state;
    snprintf(in_path, sizeof in_path, "/tmp/requantise-in-%d.gguf", (int)getpid());
    snprintf(out_path, sizeof out_path, "/tmp/requantise-out-%d.gguf", (int)getpid());
    tr_random_model m = { .shape = *tr_model_shape_find("tiny"),
                          .path = in_path,
                          .experts = TR_TYPE_F32,
                          .dense = TR_TYPE_F32,
                          .seed = 1,
                          .overwrite = true };
    return tr_random_model_write(&m) == TR_OK && tr_pool_new(2, &pool) == TR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tr_pool_free(&pool);
    unlink(in_path);
    unlink(out_path);
    return 0;
}

static tr_requantise to_type(tr_type type)
{
    return (tr_requantise){ .in = in_path,
                            .out = out_path,
                            .types = { .experts = type, .dense = type },
                            .pool = pool,
                            .overwrite = true };
}

static void every_tensor_keeps_its_name_shape_and_values(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < TR_TYPE_COUNT; type++) {
        tr_requantise r = to_type((tr_type)type);
        tr_requantise_result result;
        tr_gguf *a = NULL, *b = NULL;
        if (!tr_type_get(type) || !tr_type_get(type)->computable)
            continue;
        assert_int_equal(tr_requantise_run(&r, &result), TR_OK);
        assert_true(sqrt(result.error) <= 0.35 * sqrt(result.size));
        assert_int_equal(tr_gguf_open(in_path, &a), TR_OK);
        assert_int_equal(tr_gguf_open(out_path, &b), TR_OK);
        assert_int_equal(tr_gguf_n_tensors(a), tr_gguf_n_tensors(b));
        for (size_t i = 0; i < tr_gguf_n_tensors(a); i++) {
            const tr_gguf_tensor *x = tr_gguf_tensor_at(a, i);
            const tr_gguf_tensor *y = tr_gguf_tensor_at(b, i);
            float *v = NULL, *w = NULL;
            double error = 0.0, size = 0.0;
            size_t n = x->dim[0] * x->dim[1] * x->dim[2];
            assert_string_equal(x->name, y->name);
            assert_memory_equal(x->dim, y->dim, sizeof x->dim);
            assert_int_equal(tr_vector_load(a, x, &v), TR_OK);
            assert_int_equal(tr_vector_load(b, y, &w), TR_OK);
            for (size_t k = 0; k < n; k++) {
                error += ((double)v[k] - w[k]) * ((double)v[k] - w[k]);
                size += (double)v[k] * v[k];
            }
            assert_true(sqrt(error) <= 0.4 * sqrt(size));
            tr_memory_free((void **)&v, n * sizeof *v);
            tr_memory_free((void **)&w, n * sizeof *w);
        }
        tr_gguf_close(&a);
        tr_gguf_close(&b);
    }
}

static tr_type type_of(const char *name)
{
    tr_gguf *g = NULL;

    assert_int_equal(tr_gguf_open(out_path, &g), TR_OK);
    const tr_gguf_tensor *t = tr_gguf_find(g, name);
    assert_non_null(t);
    tr_type type = t->type;
    tr_gguf_close(&g);
    return type;
}

static void rules_decide_the_last_one_first(void **state)
{
    const tr_type_rule rules[] = { { "blk.0.*", TR_TYPE_F16 },
                                   { "blk.0.attn_k.weight", TR_TYPE_BF16 } };
    tr_requantise r = to_type(TR_TYPE_Q4_0);
    tr_requantise_result result;

    (void)state;
    r.types.dense = TR_TYPE_Q8_0;
    r.types.rules = rules;
    r.types.n_rules = 2;
    assert_int_equal(tr_requantise_run(&r, &result), TR_OK);
    assert_int_equal(type_of("blk.0.attn_k.weight"), TR_TYPE_BF16);
    assert_int_equal(type_of("blk.0.attn_q.weight"), TR_TYPE_F16);
    assert_int_equal(type_of("blk.0.ffn_up_exps.weight"), TR_TYPE_F16);
    assert_int_equal(type_of("blk.1.ffn_up_exps.weight"), TR_TYPE_Q4_0);
    assert_int_equal(type_of("blk.1.attn_q.weight"), TR_TYPE_Q8_0);
    assert_int_equal(type_of("blk.1.ffn_gate_inp.weight"), TR_TYPE_F32);
    assert_int_equal(type_of("blk.1.attn_norm.weight"), TR_TYPE_F32);
}

static void what_is_quantised_is_not_quantised_again_unless_told(void **state)
{
    tr_requantise r = to_type(TR_TYPE_Q8_0);
    tr_requantise_result result;
    char again[80];

    (void)state;
    assert_int_equal(tr_requantise_run(&r, &result), TR_OK);
    snprintf(again, sizeof again, "%s.again", out_path);
    r.in = out_path;
    r.out = again;
    r.types.experts = TR_TYPE_Q4_0;
    assert_int_equal(tr_requantise_run(&r, &result), TR_E_UNSUPPORTED);
    assert_int_not_equal(access(again, F_OK), 0);
    r.force = true;
    assert_int_equal(tr_requantise_run(&r, &result), TR_OK);
    r.overwrite = false;
    assert_int_equal(tr_requantise_run(&r, &result), TR_E_IO);
    unlink(again);
    r.out = out_path;
    assert_int_equal(tr_requantise_run(&r, &result), TR_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_keeps_its_name_shape_and_values),
        cmocka_unit_test(rules_decide_the_last_one_first),
        cmocka_unit_test(what_is_quantised_is_not_quantised_again_unless_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
