/* test_memory_limit.c - the memory that made-up cgroup trees allow and have left.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"
#include "base/memory_limit.h"
#include "tests/support/file_tree.h"
#include "tests/support/tr_test.h"

#include <stdlib.h>

typedef struct {
    const char *path, *text;
} entry;

typedef struct {
    const char *groups; /* /proc/self/cgroup */
    entry file[6];
    uint64_t most, left;
} tree;

static const tree trees[] = {
    { "0::/\n",
      { { "memory.max", "max\n" }, { "memory.current", "5000\n" } },
      UINT64_MAX,
      UINT64_MAX },
    { "0::/\n", { { "memory.max", "9000\n" } }, 9000, 9000 },
    { "0::/\n", { { "memory.max", "9000\n" }, { "memory.current", "5000\n" } }, 9000, 4000 },
    { "0::/\n", { { "memory.max", "9000\n" }, { "memory.current", "9500\n" } }, 9000, 0 },
    /* pages of files can go, and what the kernel remembers of them */
    { "0::/\n",
      { { "memory.max", "9000\n" },
        { "memory.current", "5000\n" },
        { "memory.stat", "anon 3000\nfile 2000\ninactive_file 900\nactive_file 600\n" } },
      9000,
      5500 },
    { "0::/\n",
      { { "memory.max", "9000\n" },
        { "memory.current", "5000\n" },
        { "memory.stat", "slab_reclaimable 700\nslab_unreclaimable 100\nslab 800\nfile 9\n" } },
      9000,
      4700 },
    { "0::/\n",
      { { "memory.max", "9000\n" },
        { "memory.current", "500\n" },
        { "memory.stat", "inactive_file 900\n" } },
      9000,
      9000 },
    /* the least on the way up counts, each for itself */
    { "0::/a/b\n",
      { { "a/b/memory.max", "7000\n" },
        { "a/b/memory.current", "1000\n" },
        { "a/memory.max", "9000\n" },
        { "a/memory.current", "8000\n" } },
      7000,
      1000 },
    /* version 1, where no limit is a large one */
    { "4:memory:/a\n3:cpu:/\n",
      { { "memory/a/memory.limit_in_bytes", "8000\n" },
        { "memory/a/memory.usage_in_bytes", "6000\n" },
        { "memory/a/memory.stat",
          "inactive_file 1\ntotal_inactive_file 700\ntotal_active_file 300\n" },
        { "memory/memory.limit_in_bytes", "9223372036854771712\n" },
        { "memory/memory.usage_in_bytes", "123456\n" } },
      8000,
      3000 },
    { "4:cpu:/\n", { { "memory/memory.limit_in_bytes", "8000\n" } }, UINT64_MAX, UINT64_MAX },
    { "0::/\n", { { "memory.max", "-1\n" } }, UINT64_MAX, UINT64_MAX },
    { "0::/\n", { { NULL, NULL } }, UINT64_MAX, UINT64_MAX },
};

static void the_least_limit_of_all_groups_counts(void **state)
{
    char groups[128];

    (void)state;
    for (size_t i = 0; i < sizeof trees / sizeof trees[0]; i++) {
        char root[] = "/tmp/test_memory_limit.XXXXXX";
        assert_non_null(mkdtemp(root));
        file_tree_put(root, "groups", trees[i].groups);
        for (size_t j = 0; j < 6 && trees[i].file[j].path; j++)
            file_tree_put(root, trees[i].file[j].path, trees[i].file[j].text);
        snprintf(groups, sizeof groups, "%s/groups", root);
        tr_memory_limit got = tr_memory_limit_read(groups, root);
        file_tree_remove(root);
        if (got.most != trees[i].most || got.left != trees[i].left)
            fail_msg("tree %zu: %llu and %llu, not %llu and %llu", i, (unsigned long long)got.most,
                     (unsigned long long)got.left, (unsigned long long)trees[i].most,
                     (unsigned long long)trees[i].left);
    }
}

static void this_process_has_no_more_than_its_groups_allow(void **state)
{
    tr_memory_limit l = tr_memory_limit_read("/proc/self/cgroup", "/sys/fs/cgroup");

    (void)state;
    assert_true(tr_memory_physical() > 0 && tr_memory_physical() <= l.most);
    assert_true(tr_memory_available() <= tr_memory_physical());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_limit_of_all_groups_counts),
        cmocka_unit_test(this_process_has_no_more_than_its_groups_allow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
