/* test_far.c - far positions are right: tokens behind 32762 and 131060 positions of zeros get the
 * logits that the float64 forward pass gives them there.  Layers with a window see the tokens' own
 * positions, the others mostly the zeros.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cluster.h"
#include "tests/support/golden.h"
#include "tests/support/tr_test.h"

#include "coordinator/engine/engine.h"

#include <math.h>

enum { N_VOCAB = 512, N_TOKENS = 12, CONTEXT = 131072 };

static const uint32_t tokens[N_TOKENS] = { 5, 17, 99, 300, 41, 8, 77, 210, 33, 400, 12, 64 };

/* How far the logits are from the reference's. */
static double largest_error(const float *want, const float *got)
{
    double largest = 0;

    for (size_t i = 0; i < (size_t)N_TOKENS * N_VOCAB; i++)
        largest = fmax(largest, fabs((double)want[i] - (double)got[i]));
    return largest;
}

static void check(tr_type type, bool exact, size_t skip, double bound)
{
    static float got[N_TOKENS * N_VOCAB];
    tr_engine_options o = test_cluster_engine();
    tr_row rows[N_TOKENS];
    tr_sequence *s = NULL;
    tr_gguf *g = NULL;
    tr_engine *e = NULL;
    char name[64];

    assert_int_equal(tr_gguf_open(TR_GOLDEN_MODELS "/gpt-oss.F32.gguf", &g), TR_OK);
    o.gguf = g;
    o.threads = 2;
    o.exact = exact;
    o.kv_type = type;
    o.max_logits = N_TOKENS;
    o.context = CONTEXT;
    assert_int_equal(tr_engine_open(&o, &e), TR_OK);
    assert_int_equal(tr_sequence_new(e, &s), TR_OK);
    assert_int_equal(tr_sequence_skip(s, skip), TR_OK);
    for (size_t i = 0; i < N_TOKENS; i++)
        rows[i] = (tr_row){ s, tokens[i], true };
    assert_int_equal(tr_engine_step(e, rows, N_TOKENS, got), TR_OK);
    snprintf(name, sizeof name, "far/gpt-oss.F32.%zu.bin", skip);
    float *want = golden_floats(name, (size_t)N_TOKENS * N_VOCAB);
    double error = largest_error(want, got);
    print_message("  %s, %s: %.2g (%.2g)\n", name, tr_type_get(type)->name, error, bound);
    assert_true(error <= bound);
    free(want);
    tr_sequence_free(&s);
    tr_engine_close(&e);
    tr_gguf_close(&g);
}

/* The bounds are those of test_golden; blocks of eight bits are coarser than half precision. */
static void logits_at_far_positions_are_the_reference_s(void **state)
{
    (void)state;
    check(TR_TYPE_F32, true, 32762, 1e-4);
    check(TR_TYPE_F32, true, 131060, 1e-4);
    check(TR_TYPE_F16, false, 131060, 0.1);
    check(TR_TYPE_Q8_0, false, 131060, 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_at_far_positions_are_the_reference_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
