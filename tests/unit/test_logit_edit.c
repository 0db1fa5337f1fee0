/* test_logit_edit.c - bias and penalties change what they name and nothing else.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/text/logit_edit.h"

#include <math.h>

static void only_named_tokens_change(void **state)
{
    tr_logit_bias bias[] = { { 1, 2.5f }, { 3, -INFINITY }, { 99, 1.0f } };
    tr_logit_edit e = { .bias = bias, .n_bias = 3, .presence = 0.5f, .frequency = 0.25f };
    float logits[5] = { 1, 1, 1, 1, 1 };
    const uint32_t answer[] = { 2, 4, 2, 2 };

    (void)state;
    tr_logit_edit_apply(&e, logits, 5, answer, 4);
    assert_true(logits[0] == 1.0f);
    assert_true(logits[1] == 3.5f);
    assert_true(logits[2] == 1.0f - 0.5f - 3 * 0.25f);
    assert_true(logits[3] == -INFINITY);
    assert_true(logits[4] == 1.0f - 0.5f - 0.25f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(only_named_tokens_change) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
