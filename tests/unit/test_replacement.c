/* test_replacement.c - processes that take lost workers' places are started, seen to end, and ended
 * without anybody waiting for them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/clock.h"
#include "coordinator/cluster/replacement.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void await_end(tr_replacement *r, uint32_t worker)
{
    while (!tr_replacement_has_ended(r, worker))
        tr_sleep(TR_MS);
}

static void an_end_is_seen(void **state)
{
    tr_replacement *r = NULL;

    (void)state;
    assert_int_equal(tr_replacement_new("cat", 2, &r), TR_OK);
    assert_true(tr_replacement_has_ended(r, 2));
    assert_int_equal(tr_replacement_start(r, 2, tr_bytes_of("secret")), TR_OK);
    await_end(r, 2);
    tr_replacement_free(&r);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left */
}

/* Each one is in the way of the next; all are killed, and buried in the end. */
static void who_only_hangs_makes_room_for_another(void **state)
{
    tr_replacement *r = NULL;

    (void)state;
    assert_int_equal(tr_replacement_new("sleep 1000", 1, &r), TR_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tr_replacement_start(r, 1, tr_bytes_of("secret")), TR_OK);
        assert_false(tr_replacement_has_ended(r, 1));
    }
    tr_replacement_free(&r);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void a_command_that_is_not_there_is_named(void **state)
{
    tr_replacement *r = NULL;
    char reason[512];

    (void)state;
    assert_int_equal(tr_replacement_new("no-such-command --join -", 1, &r), TR_OK);
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_replacement_start(r, 1, tr_bytes_of("secret")), TR_E_SYSTEM);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "no-such-command can't be run"));
    assert_true(tr_replacement_has_ended(r, 1));
    tr_replacement_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_is_seen),
        cmocka_unit_test(who_only_hangs_makes_room_for_another),
        cmocka_unit_test(a_command_that_is_not_there_is_named),
    };
    signal(SIGPIPE, SIG_IGN); /* a process may end before it reads */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
