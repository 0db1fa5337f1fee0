/* test_logit_edit.c - bias and penalties change what they name and nothing else.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/text/logit_edit.h"

#include <math.h>

static void only_named_tokens_change(void **state)
{
    tr_logit_bias bias[] = { { 1, 2.5f }, { 3, -INFINITY }, { 99, 1.0f } };
    tr_logit_edit e = { .bias = bias, .n_bias = 3, .presence = 0.5f, .frequency = 0.25f };
    float logits[5] = { 1, 1, 1, 1, 1 };
    const uint32_t answer[] = { 2, 4, 2, 2 };
    bool seen[5] = { false };

    (void)state;
    tr_logit_edit_apply(&e, logits, 5, answer, 4, seen);
    assert_true(logits[0] == 1.0f);
    assert_true(logits[1] == 3.5f);
    assert_true(logits[2] == 1.0f - 0.5f - 3 * 0.25f);
    assert_true(logits[3] == -INFINITY);
    assert_true(logits[4] == 1.0f - 0.5f - 0.25f);
}

/* A long answer with many tokens, some often: presence counts each once, and the marks are clean
 * for the next one. */
static void presence_counts_each_token_once(void **state)
{
    enum { N_VOCAB = 5000, N = 20000 };
    static float logits[N_VOCAB];
    static uint32_t answer[N], times[N_VOCAB];
    static bool seen[N_VOCAB];
    tr_logit_edit e = { .presence = 0.5f };
    uint64_t seed = tr_test_seed();

    (void)state;
    for (size_t i = 0; i < N; i++) {
        answer[i] = (uint32_t)(tr_rng_u64(seed, 0, i) % (i % 2 ? N_VOCAB : 7));
        times[answer[i]]++;
    }
    tr_logit_edit_apply(&e, logits, N_VOCAB, answer, N, seen);
    for (size_t i = 0; i < N_VOCAB; i++) {
        assert_true(logits[i] == (times[i] ? -0.5f : 0.0f));
        assert_false(seen[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_named_tokens_change),
        cmocka_unit_test(presence_counts_each_token_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
