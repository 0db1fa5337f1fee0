/* test_kv.c - what is put into the cache comes out at its layer, head and position, pages are
 * given back, and a full pool says so without losing any.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "compute/cpu.h"
#include "coordinator/model/kv.h"

enum { LAYERS = 2, HEADS = 3, DIM = 4, POSITIONS = 70 };

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
        tr_kv_shape shape = { tr_kernels_select(tr_cpu_features(), NULL), LAYERS, HEADS, DIM,
                              f32 == 1 };
        tr_kv_table a = { 0 };
        tr_kv_table b = { 0 };
        tr_kv *kv = NULL;
        assert_int_equal(tr_kv_new(&shape, 2 * tr_kv_pages_for(POSITIONS), &kv), TR_OK);
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
    tr_kv_shape shape = { tr_kernels_select(tr_cpu_features(), NULL), 1, 1, 2, false };
    tr_kv_table a = { 0 };
    tr_kv_table b = { 0 };
    tr_kv *kv = NULL;

    (void)state;
    assert_int_equal(tr_kv_new(&shape, 3, &kv), TR_OK);
    assert_int_equal(tr_kv_reserve(kv, &a, 2 * TR_KV_PAGE), TR_OK);
    assert_int_equal(tr_kv_reserve(kv, &b, TR_KV_PAGE + 1), TR_E_BUSY);
    assert_int_equal(b.n, 0);
    assert_int_equal(tr_kv_reserve(kv, &b, TR_KV_PAGE), TR_OK);
    tr_kv_release(kv, &a);
    assert_int_equal(tr_kv_reserve(kv, &b, 3 * TR_KV_PAGE), TR_OK);
    tr_kv_release(kv, &b);
    tr_kv_free(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_sequences_keep_their_own_rows),
        cmocka_unit_test(a_full_pool_refuses_and_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
