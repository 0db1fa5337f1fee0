/* test_interrupt.c - the end of a terminal interrupts like Ctrl-C, but not who was told not to
 * mind. SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/interrupt.h"

#include <signal.h>

static void a_hangup_interrupts_unless_it_is_ignored(void **state)
{
    (void)state;
    signal(SIGHUP, SIG_IGN); /* nohup */
    tr_interrupt_watch();
    assert_int_equal(raise(SIGHUP), 0);
    assert_false(tr_interrupted());
    signal(SIGHUP, SIG_DFL);
    tr_interrupt_watch();
    assert_int_equal(raise(SIGHUP), 0);
    assert_true(tr_interrupted());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hangup_interrupts_unless_it_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
