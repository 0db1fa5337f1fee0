/* test_status.c - codes keep their scope, every code has a name and an exit status, and a
 * captured failure is not printed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/status.h"

static const tr_status every_code[] = {
    TR_E_USAGE,    TR_E_REQUEST, TR_E_BUSY,        TR_E_PEER_LOST, TR_E_DEADLINE,
    TR_E_PROTOCOL, TR_E_REFUSED, TR_E_IO,          TR_E_FORMAT,    TR_E_UNSUPPORTED,
    TR_E_CONFIG,   TR_E_MEMORY,  TR_E_INTERRUPTED, TR_E_SYSTEM,
};

static void every_code_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof every_code / sizeof every_code[0]; i++) {
        assert_string_not_equal(tr_status_name(every_code[i]), "unknown status");
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(tr_status_name(every_code[i]), tr_status_name(every_code[j]));
    }
    assert_string_equal(tr_status_name((tr_status)-999), "unknown status");
}

static void every_failure_ends_a_program_with_its_own_class(void **state)
{
    (void)state;
    assert_int_equal(tr_status_exit_code(TR_OK), 0);
    for (size_t i = 0; i < sizeof every_code / sizeof every_code[0]; i++)
        assert_in_range(tr_status_exit_code(every_code[i]), 2, 130);
    assert_int_not_equal(tr_status_exit_code(TR_E_FORMAT), tr_status_exit_code(TR_E_PEER_LOST));
    assert_int_not_equal(tr_status_exit_code(TR_E_USAGE), tr_status_exit_code(TR_E_IO));
}

static void scope_says_what_is_lost(void **state)
{
    (void)state;
    assert_int_equal(tr_status_scope(TR_OK), TR_SCOPE_NONE);
    assert_int_equal(tr_status_scope(TR_E_REQUEST), TR_SCOPE_REQUEST);
    assert_int_equal(tr_status_scope(TR_E_PEER_LOST), TR_SCOPE_PEER);
    assert_int_equal(tr_status_scope(TR_E_REFUSED), TR_SCOPE_PEER);
    assert_int_equal(tr_status_scope(TR_E_IO), TR_SCOPE_PROCESS);
    assert_int_equal(tr_status_scope(TR_E_INTERRUPTED), TR_SCOPE_PROCESS);
}

static void a_captured_failure_is_kept_and_cut_to_the_buffer(void **state)
{
    char reason[16];

    (void)state;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_fail(TR_E_FORMAT, "first %d", 1), TR_E_FORMAT);
    assert_string_equal(reason, "first 1");
    assert_int_equal(tr_fail(TR_E_IO, "%s", "0123456789abcdefgh"), TR_E_IO);
    tr_fail_capture_end();
    assert_string_equal(reason, "0123456789abcde");
}

static void an_inner_capture_leaves_the_outer_one_in_place(void **state)
{
    char outer[16];
    char inner[16];

    (void)state;
    tr_fail_capture_begin(outer, sizeof outer);
    tr_fail_capture_begin(inner, sizeof inner);
    tr_fail(TR_E_IO, "in");
    tr_fail_capture_end();
    assert_string_equal(outer, "");
    tr_fail(TR_E_IO, "out");
    tr_fail_capture_end();
    assert_string_equal(inner, "in");
    assert_string_equal(outer, "out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_of_its_own),
        cmocka_unit_test(every_failure_ends_a_program_with_its_own_class),
        cmocka_unit_test(scope_says_what_is_lost),
        cmocka_unit_test(a_captured_failure_is_kept_and_cut_to_the_buffer),
        cmocka_unit_test(an_inner_capture_leaves_the_outer_one_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
