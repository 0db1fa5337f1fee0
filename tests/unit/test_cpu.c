/* test_cpu.c - cores: affinity, and quotas of made-up cgroup trees.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/cpu.h"
#include "compute/cpu_quota.h"
#include "tests/support/file_tree.h"
#include "tests/support/tr_test.h"

#include <sched.h>
#include <stdlib.h>

typedef struct {
    const char *path, *text;
} entry;

typedef struct {
    const char *groups; /* /proc/self/cgroup */
    entry file[4];
    size_t cores;
} tree;

static const tree trees[] = {
    { "0::/\n", { { "cpu.max", "max 100000\n" } }, SIZE_MAX },
    { "0::/\n", { { "cpu.max", "200000 100000\n" } }, 2 },
    { "0::/\n", { { "cpu.max", "150000 100000\n" } }, 2 },
    { "0::/\n", { { "cpu.max", "1000 100000\n" } }, 1 },
    { "0::/\n", { { "cpu.max", "0 100000\n" } }, SIZE_MAX },
    { "0::/\n", { { "cpu.max", "100000 0\n" } }, SIZE_MAX },
    { "0::/\n", { { "cpu.max", "" } }, SIZE_MAX },
    { "0::/\n", { { NULL, NULL } }, SIZE_MAX },
    { "", { { "cpu.max", "200000 100000\n" } }, SIZE_MAX },
    { "nonsense\n:\n0:\n0::no-slash\n", { { "cpu.max", "200000 100000\n" } }, SIZE_MAX },
    /* the least on the way up counts */
    { "0::/a/b\n", { { "a/b/cpu.max", "max 100000\n" }, { "a/cpu.max", "300000 100000\n" } }, 3 },
    { "0::/a/b\n",
      { { "a/b/cpu.max", "400000 100000\n" }, { "a/cpu.max", "800000 100000\n" } },
      4 },
    { "0::/elsewhere\n", { { "cpu.max", "500000 100000\n" } }, 5 },
    /* version 1 */
    { "5:memory:/\n4:cpu,cpuacct:/\n",
      { { "cpu/cpu.cfs_quota_us", "300000\n" }, { "cpu/cpu.cfs_period_us", "100000\n" } },
      3 },
    { "4:cpuacct,cpu:/a\n",
      { { "cpu/a/cpu.cfs_quota_us", "100000\n" }, { "cpu/a/cpu.cfs_period_us", "100000\n" } },
      1 },
    { "4:cpu:/\n",
      { { "cpu/cpu.cfs_quota_us", "-1\n" }, { "cpu/cpu.cfs_period_us", "100000\n" } },
      SIZE_MAX },
    { "4:cpu:/\n", { { "cpu/cpu.cfs_quota_us", "300000\n" } }, SIZE_MAX },
    { "4:cpuset:/\n",
      { { "cpu/cpu.cfs_quota_us", "300000\n" }, { "cpu/cpu.cfs_period_us", "100000\n" } },
      SIZE_MAX },
};

static void the_least_quota_of_all_groups_counts(void **state)
{
    char groups[128];

    (void)state;
    for (size_t i = 0; i < sizeof trees / sizeof trees[0]; i++) {
        char root[] = "/tmp/test_cpu.XXXXXX";
        assert_non_null(mkdtemp(root));
        file_tree_put(root, "groups", trees[i].groups);
        for (size_t j = 0; j < 4 && trees[i].file[j].path; j++)
            file_tree_put(root, trees[i].file[j].path, trees[i].file[j].text);
        snprintf(groups, sizeof groups, "%s/groups", root);
        size_t got = tr_cpu_quota(groups, root);
        file_tree_remove(root);
        if (got != trees[i].cores)
            fail_msg("tree %zu: %zu cores, not %zu", i, got, trees[i].cores);
    }
    assert_true(tr_cpu_quota("/nowhere", "/nowhere") == SIZE_MAX);
}

static void a_process_bound_to_one_core_has_one(void **state)
{
    cpu_set_t before, one;

    (void)state;
    assert_true(tr_cpu_cores() >= 1);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_true(tr_cpu_cores() <= (size_t)CPU_COUNT(&before));
    size_t core = 0;
    while (!CPU_ISSET(core, &before))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(tr_cpu_cores(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void features_do_not_change(void **state)
{
    const uint32_t known = TR_CPU_AVX2 | TR_CPU_AVX512 | TR_CPU_DOTPROD;

    (void)state;
    assert_int_equal(tr_cpu_features(), tr_cpu_features());
    assert_int_equal(tr_cpu_features() & ~known, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_quota_of_all_groups_counts),
        cmocka_unit_test(a_process_bound_to_one_core_has_one),
        cmocka_unit_test(features_do_not_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
