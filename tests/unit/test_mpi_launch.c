/* test_mpi_launch.c - what the environment says about an MPI launcher, and refusals that need
 * no MPI job.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"
#include "transport/mpi.h"

static const char *const names[] = {
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "PMI_SIZE",
    "MPI_LOCALNRANKS",
    "PMIX_RANK",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_TASKS_PER_NODE",
};

static int clear_environment(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    return 0;
}

static void launchers_are_told_by_their_variables(void **state)
{
    static const struct {
        const char *why;
        const char *set[6];            /* name, value, ... */
        uint32_t n_ranks, local_ranks; /* 0: not launched */
    } cases[] = {
        { "no launcher", { NULL }, 0, 0 },
        { "Open MPI", { "OMPI_COMM_WORLD_SIZE", "8", "OMPI_COMM_WORLD_LOCAL_SIZE", "4" }, 8, 4 },
        { "Open MPI, one rank", { "OMPI_COMM_WORLD_SIZE", "1" }, 1, 1 },
        { "MPICH", { "PMI_SIZE", "6", "MPI_LOCALNRANKS", "3" }, 6, 3 },
        { "srun",
          { "PMIX_RANK", "0", "SLURM_STEP_NUM_TASKS", "11", "SLURM_STEP_TASKS_PER_NODE",
            "4(x2),3" },
          11,
          4 },
        { "a batch script is no rank", { "SLURM_STEP_NUM_TASKS", "1" }, 0, 0 },
        { "local ranks unknown: all", { "PMI_SIZE", "6" }, 6, 6 },
        { "more local ranks than ranks",
          { "OMPI_COMM_WORLD_SIZE", "2", "OMPI_COMM_WORLD_LOCAL_SIZE", "3" },
          2,
          2 },
        { "not a number", { "OMPI_COMM_WORLD_SIZE", "many" }, 0, 0 },
        { "negative", { "OMPI_COMM_WORLD_SIZE", "-1" }, 0, 0 },
        { "empty", { "OMPI_COMM_WORLD_SIZE", "" }, 0, 0 },
        { "too large", { "OMPI_COMM_WORLD_SIZE", "99999999999999999999" }, 0, 0 },
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t n_ranks = 0, local_ranks = 0;
        clear_environment(state);
        for (size_t k = 0; k < 6 && cases[i].set[k]; k += 2)
            assert_int_equal(setenv(cases[i].set[k], cases[i].set[k + 1], 1), 0);
        print_message("  %s\n", cases[i].why);
        assert_int_equal(tr_mpi_launched(&n_ranks, &local_ranks), cases[i].n_ranks > 0);
        assert_int_equal(n_ranks, cases[i].n_ranks);
        assert_int_equal(local_ranks, cases[i].local_ranks);
    }
}

static void a_process_without_launcher_is_refused(void **state)
{
    char line[200];
    tr_transport *t = NULL;

    (void)state;
    tr_fail_capture_begin(line, sizeof line);
    tr_status st = tr_mpi_open(1024, TR_SECOND, abort, &t);
    tr_fail_capture_end();
    assert_int_equal(st, TR_E_USAGE);
    assert_non_null(strstr(line, "mpirun"));
    assert_null(t);
}

static void messages_beyond_mpis_counts_are_refused(void **state)
{
    static const size_t sizes[] = { 0, (size_t)1 << 31, SIZE_MAX };

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char line[200];
        tr_transport *t = NULL;
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = tr_mpi_open(sizes[i], TR_SECOND, abort, &t);
        tr_fail_capture_end();
        assert_int_equal(st, TR_E_CONFIG);
        assert_non_null(strstr(line, "bytes"));
        assert_null(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(launchers_are_told_by_their_variables, clear_environment),
        cmocka_unit_test_setup(a_process_without_launcher_is_refused, clear_environment),
        cmocka_unit_test_setup(messages_beyond_mpis_counts_are_refused, clear_environment),
    };
    return cmocka_run_group_tests_name("mpi_launch", tests, NULL, NULL);
}
