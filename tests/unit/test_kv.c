/* test_kv.c - what is put into the cache comes out at its layer, head and position, pages are
 * given back, and a full pool says so without losing any.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "compute/cpu.h"
#include "coordinator/model/kv.h"

#include <math.h>

enum { LAYERS = 2, HEADS = 3, DIM = 4, POSITIONS = 70 };

static tr_kv_shape shape_of(size_t n_layers, size_t n_heads, size_t head_dim, tr_type type)
{
    return (tr_kv_shape){ .kernels = tr_kernels_select(tr_cpu_features(), NULL),
                          .n_layers = n_layers,
                          .n_heads = n_heads,
                          .head_dim = head_dim,
                          .type = type };
}

static float value(size_t layer, size_t head, size_t position, size_t i)
{
    return (float)(layer * 1000 + head * 100 + position) + (float)i * 0.25f;
}

static void put_all(tr_kv *kv, const tr_kv_table *t, float add)
{
    float k[HEADS * DIM];
    float v[HEADS * DIM];

    for (size_t layer = 0; layer < LAYERS; layer++) {
        for (size_t p = 0; p < POSITIONS; p++) {
            for (size_t i = 0; i < HEADS * DIM; i++) {
                k[i] = value(layer, i / DIM, p, i % DIM) + add;
                v[i] = -k[i];
            }
            tr_kv_put(kv, t, layer, p, k, v);
        }
    }
}

static void check_all(const tr_kv *kv, const tr_kv_table *t, float add, bool f32)
{
    for (size_t layer = 0; layer < LAYERS; layer++) {
        for (size_t head = 0; head < HEADS; head++) {
            for (size_t p = 0; p < POSITIONS; p++) {
                tr_kv_span s = tr_kv_get(kv, t, layer, head, p / TR_KV_PAGE);
                for (size_t i = 0; i < DIM; i++) {
                    size_t at = p % TR_KV_PAGE * DIM + i;
                    float k = f32 ? ((const float *)s.keys)[at]
                                  : tr_f16_to_f32(((const uint16_t *)s.keys)[at]);
                    float v = f32 ? ((const float *)s.values)[at]
                                  : tr_f16_to_f32(((const uint16_t *)s.values)[at]);
                    float want = value(layer, head, p, i) + add;
                    /* half precision has 11 bits: below 2048 steps are at most 1 */
                    assert_true(k >= want - (f32 ? 0.0f : 1.0f));
                    assert_true(k <= want + (f32 ? 0.0f : 1.0f));
                    assert_true(v == -k);
                }
            }
        }
    }
}

static void two_sequences_keep_their_own_rows(void **state)
{
    (void)state;
    for (int f32 = 0; f32 < 2; f32++) {
        tr_kv_shape shape = shape_of(LAYERS, HEADS, DIM, f32 ? TR_TYPE_F32 : TR_TYPE_F16);
        tr_kv_table a = { 0 };
        tr_kv_table b = { 0 };
        tr_kv *kv = NULL;
        assert_int_equal(tr_kv_new(&shape, 2 * tr_kv_pages_for(POSITIONS), 0, &kv), TR_OK);
        for (size_t n = 1; n <= POSITIONS; n++) { /* pages interleave */
            assert_int_equal(tr_kv_reserve(kv, &a, n), TR_OK);
            assert_int_equal(tr_kv_reserve(kv, &b, n), TR_OK);
        }
        put_all(kv, &a, 0.0f);
        put_all(kv, &b, 10.0f);
        check_all(kv, &a, 0.0f, f32 == 1);
        check_all(kv, &b, 10.0f, f32 == 1);
        tr_kv_release(kv, &a);
        tr_kv_release(kv, &b);
        tr_kv_free(&kv);
    }
}

static void a_full_pool_refuses_and_takes_nothing(void **state)
{
    tr_kv_shape shape = shape_of(1, 1, 2, TR_TYPE_F16);
    tr_kv_table a = { 0 };
    tr_kv_table b = { 0 };
    tr_kv *kv = NULL;

    (void)state;
    assert_int_equal(tr_kv_new(&shape, 3, 0, &kv), TR_OK);
    assert_int_equal(tr_kv_reserve(kv, &a, 2 * TR_KV_PAGE), TR_OK);
    assert_int_equal(tr_kv_reserve(kv, &b, TR_KV_PAGE + 1), TR_E_BUSY);
    assert_int_equal(b.n, 0);
    assert_int_equal(tr_kv_reserve(kv, &b, TR_KV_PAGE), TR_OK);
    tr_kv_release(kv, &a);
    assert_int_equal(tr_kv_reserve(kv, &b, 3 * TR_KV_PAGE), TR_OK);
    tr_kv_release(kv, &b);
    tr_kv_free(&kv);
}

static void blocks_of_eight_bits_need_heads_that_they_fill(void **state)
{
    tr_kv_shape shape = shape_of(1, 1, 48, TR_TYPE_Q8_0);
    tr_kv *kv = NULL;

    (void)state;
    assert_int_equal(tr_kv_new(&shape, 3, 0, &kv), TR_E_USAGE);
    assert_null(kv);
}

/* What floats gives back is what was put, to the type's rounding. */
static void floats_of_every_type_are_near_what_was_put(void **state)
{
    static const tr_type types[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_Q8_0 };
    static const float step[] = { 0.0f, 0x1p-11f, 0.5f / 127 + 0x1p-11f };
    float k[64], v[64], buffer[5 * 64];

    (void)state;
    for (size_t t = 0; t < 3; t++) {
        tr_kv_shape shape = shape_of(1, 1, 64, types[t]);
        tr_kv_table table = { 0 };
        tr_kv *kv = NULL;
        assert_int_equal(tr_kv_new(&shape, 1, 0, &kv), TR_OK);
        assert_int_equal(tr_kv_reserve(kv, &table, 5), TR_OK);
        for (size_t p = 0; p < 5; p++) {
            for (size_t i = 0; i < 64; i++) {
                k[i] = (float)i / 64 - (float)p / 5;
                v[i] = -k[i];
            }
            tr_kv_put(kv, &table, 0, p, k, v);
        }
        tr_kv_span s = tr_kv_get(kv, &table, 0, 0, 0);
        const float *keys = tr_kv_floats(kv, s.keys, 5, buffer);
        for (size_t i = 0; i < 5 * 64; i++)
            assert_true(fabsf(keys[i] - ((float)(i % 64) / 64 - (float)(i / 64) / 5)) <= step[t]);
        const float *values = tr_kv_floats(kv, s.values, 5, buffer);
        assert_true(fabsf(values[64] - 0.2f) <= step[t]);
        tr_kv_release(kv, &table);
        tr_kv_free(&kv);
    }
}

/* As latent attention has it: a page is half as large, and what comes back as values are the keys.
 */
static void keys_that_are_values_too_are_kept_once(void **state)
{
    static const tr_type types[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_Q8_0 };
    float k[2 * 32];

    (void)state;
    for (size_t t = 0; t < 3; t++) {
        tr_kv_shape twice = shape_of(LAYERS, 2, 32, types[t]);
        tr_kv_shape once = twice;
        tr_kv_table a = { 0 }, b = { 0 };
        tr_kv *kv[2] = { NULL };
        once.values_are_keys = true;
        assert_int_equal(2 * tr_kv_page_size(&once), tr_kv_page_size(&twice));
        assert_int_equal(tr_kv_new(&twice, 1, 0, &kv[0]), TR_OK);
        assert_int_equal(tr_kv_new(&once, 1, 0, &kv[1]), TR_OK);
        assert_int_equal(tr_kv_reserve(kv[0], &a, 32), TR_OK);
        assert_int_equal(tr_kv_reserve(kv[1], &b, 32), TR_OK);
        for (size_t i = 0; i < (size_t)LAYERS * 32; i++) {
            for (size_t j = 0; j < 64; j++)
                k[j] = (float)(i * 64 + j) / 4096;
            tr_kv_put(kv[0], &a, i / 32, i % 32, k, k);
            tr_kv_put(kv[1], &b, i / 32, i % 32, k, NULL);
        }
        for (size_t i = 0; i < LAYERS * 2; i++) {
            tr_kv_span want = tr_kv_get(kv[0], &a, i / 2, i % 2, 0);
            tr_kv_span got = tr_kv_get(kv[1], &b, i / 2, i % 2, 0);
            size_t size = tr_kv_page_size(&once) / (LAYERS * 2);
            assert_memory_equal(got.keys, want.keys, size);
            assert_memory_equal(got.values, want.values, size);
        }
        tr_kv_release(kv[0], &a);
        tr_kv_release(kv[1], &b);
        tr_kv_free(&kv[0]);
        tr_kv_free(&kv[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_sequences_keep_their_own_rows),
        cmocka_unit_test(blocks_of_eight_bits_need_heads_that_they_fill),
        cmocka_unit_test(floats_of_every_type_are_near_what_was_put),
        cmocka_unit_test(keys_that_are_values_too_are_kept_once),
        cmocka_unit_test(a_full_pool_refuses_and_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
