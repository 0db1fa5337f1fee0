/* test_bpe.c - merging with the heap gives what the definition gives, also for long words.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/text/bpe.h"

/* The definition: again and again the lowest rank, the leftmost place. */
static size_t merge_naively(const tr_merges *m, uint32_t *ids, size_t n)
{
    for (;;) {
        const tr_merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const tr_merge *merge = tr_merges_find(m, ids[i], ids[i + 1]);
            if (merge && (!best || merge->rank < best->rank)) {
                best = merge;
                at = i;
            }
        }
        if (!best)
            return n;
        ids[at] = best->joined;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void the_heap_merges_as_the_definition_does(void **state)
{
    enum { LETTERS = 3, MERGES = 40, LENGTH = 60 };
    uint64_t seed = tr_test_seed();
    tr_bpe_work work = { 0 };

    (void)state;
    for (uint64_t round = 0; round < 500; round++) {
        tr_merges m;
        assert_int_equal(tr_merges_init(&m, MERGES), TR_OK);
        for (uint32_t rank = 0; rank < MERGES; rank++) {
            uint64_t r = tr_rng_u64(seed, round, rank);
            uint32_t known = LETTERS + rank; /* each merge makes a new token */
            tr_merges_put(&m, (tr_merge){ (uint32_t)(r % known), (uint32_t)(r >> 32) % known,
                                          rank * 7 % MERGES, known });
        }
        for (uint64_t word = 0; word < 20; word++) {
            uint32_t ids[LENGTH], expected[LENGTH];
            size_t n = tr_rng_u64(seed ^ 1, round, word) % (LENGTH + 1);
            for (size_t i = 0; i < n; i++)
                ids[i] = (uint32_t)(tr_rng_u64(seed ^ 2, round, word * LENGTH + i) % LETTERS);
            memcpy(expected, ids, sizeof ids);
            size_t n_expected = merge_naively(&m, expected, n);
            assert_int_equal(tr_bpe_merge(&m, &work, ids, &n), TR_OK);
            assert_int_equal(n, n_expected);
            assert_memory_equal(ids, expected, n * sizeof *ids);
        }
        tr_merges_fini(&m);
    }
    tr_bpe_work_fini(&work);
}

static void the_first_of_equal_pairs_wins(void **state)
{
    tr_merges m;

    (void)state;
    assert_int_equal(tr_merges_init(&m, 2), TR_OK);
    tr_merges_put(&m, (tr_merge){ 1, 2, 5, 9 });
    tr_merges_put(&m, (tr_merge){ 1, 2, 6, 8 });
    assert_int_equal(tr_merges_find(&m, 1, 2)->joined, 9);
    assert_null(tr_merges_find(&m, 2, 1));
    tr_merges_fini(&m);
}

/* 2^20 equal symbols and a merge for each doubling: a million joins that all have neighbours.
 * A scan for every join would take 10^12 steps and so run into the test's time limit. */
static void a_long_word_is_merged_fast(void **state)
{
    enum { LEVELS = 20 };
    size_t n = (size_t)1 << LEVELS;
    uint32_t *ids = calloc(n, sizeof *ids);
    tr_bpe_work work = { 0 };
    tr_merges m;

    (void)state;
    assert_non_null(ids);
    assert_int_equal(tr_merges_init(&m, LEVELS), TR_OK);
    for (uint32_t level = 0; level < LEVELS; level++)
        tr_merges_put(&m, (tr_merge){ level, level, level, level + 1 });
    assert_int_equal(tr_bpe_merge(&m, &work, ids, &n), TR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], LEVELS);
    tr_merges_fini(&m);
    tr_bpe_work_fini(&work);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heap_merges_as_the_definition_does),
        cmocka_unit_test(the_first_of_equal_pairs_wins),
        cmocka_unit_test(a_long_word_is_merged_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
