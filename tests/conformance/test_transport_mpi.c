/* test_transport_mpi.c - the suite between the ranks of an mpirun job.
 *
 * With the argument "losses" the scenarios that lose ranks: a rank that is told to die kills
 * itself, so mpirun needs the option that lets the others live.  With it mpirun ends with 0
 * whatever the ranks say, so the last line is the result.
 *
 * With the argument "hang" the workers are still busy elsewhere when the coordinator closes,
 * longer than it has patience for.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/transport_suite.h"
#include "tests/support/tr_test.h"
#include "transport/mpi.h"

#include <signal.h>
#include <unistd.h>

enum { MAX_SIZE = 1 << 20 };

static void the_launcher_says_how_many_we_are(void **state)
{
    transport_suite *s = *state;
    uint32_t n_ranks = 0, local_ranks = 0;

    assert_true(tr_mpi_launched(&n_ranks, &local_ranks));
    assert_int_equal(n_ranks, s->t->n_peers + 1);
    assert_int_equal(local_ranks, n_ranks); /* the tests run on one host */
}

static int run_coordinator(tr_transport *t, bool losses)
{
    transport_suite s = { .t = t, .max_size = MAX_SIZE, .has_huge = true };
    const struct CMUnitTest own[] = {
        { "the_launcher_says_how_many_we_are", the_launcher_says_how_many_we_are, NULL, NULL, &s },
    };
    int n_failed = cmocka_run_group_tests_name("mpi", own, NULL, NULL);

    n_failed += losses ? transport_suite_losses(&s) : transport_suite_traffic(&s);
    transport_suite_stop(&s);
    return n_failed;
}

static _Noreturn void run_hang(tr_transport *t)
{
    if (t->self != 0) {
        tr_sleep(4 * TR_SECOND);
        _exit(0);
    }
    tr_time start = tr_now();
    tr_transport_close(&t);
    tr_time passed = tr_now() - start;
    bool is_good = passed > TR_SECOND && passed < 3 * TR_SECOND;
    print_message("close took %ld ms: %s\n", (long)(passed / TR_MS),
                  is_good ? "all scenarios passed" : "some scenarios failed");
    fflush(NULL);
    _exit(!is_good);
}

int main(int argc, char **argv)
{
    bool losses = argc > 1 && strcmp(argv[1], "losses") == 0;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    bool is_worker = rank && strcmp(rank, "0") != 0;
    tr_transport *t = NULL;
    int n_failed = 0;

    /* Workers may send more than the coordinator takes: one scenario lies so. */
    if (tr_mpi_open(is_worker ? 2 * MAX_SIZE : MAX_SIZE, 60 * TR_SECOND, abort, &t) != TR_OK)
        _exit(1);
    if (argc > 1 && strcmp(argv[1], "hang") == 0)
        run_hang(t);
    if (t->self == 0)
        n_failed = run_coordinator(t, losses);
    else if (transport_suite_worker(t))
        raise(SIGKILL);
    if (losses)
        tr_mpi_abandon(t);
    bool is_coordinator = t->self == 0;
    tr_transport_close(&t);
    if (is_coordinator) /* once closing has gone well too */
        print_message("%s\n", n_failed ? "some scenarios failed" : "all scenarios passed");
    fflush(NULL);
    _exit(n_failed != 0);
}
