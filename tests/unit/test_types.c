/* test_types.c - every type has a name of its own and a size; rows are whole blocks.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "compute/types.h"

static void a_type_is_found_by_its_name_in_any_case(void **state)
{
    size_t n_types = 0;

    (void)state;
    for (uint32_t i = 0; i < TR_TYPE_COUNT + 10; i++) {
        const tr_type_info *t = tr_type_get(i);
        tr_type found;
        char lower[16] = "";
        if (!t)
            continue;
        n_types++;
        assert_true(t->block > 0 && t->size > 0);
        for (size_t c = 0; t->name[c]; c++)
            lower[c] =
                (char)(t->name[c] >= 'A' && t->name[c] <= 'Z' ? t->name[c] + 32 : t->name[c]);
        assert_true(tr_type_find(lower, &found));
        assert_int_equal(found, i);
    }
    assert_int_equal(n_types, 32);
    assert_null(tr_type_get(UINT32_MAX));
    assert_false(tr_type_find("Q9_9", &(tr_type){ 0 }));
}

static void rows_are_whole_blocks_and_never_overflow(void **state)
{
    size_t size = 1;

    (void)state;
    assert_true(tr_type_row_size(TR_TYPE_Q8_0, 64, &size));
    assert_int_equal(size, 68);
    assert_true(tr_type_row_size(TR_TYPE_Q4_K, 512, &size));
    assert_int_equal(size, 288);
    assert_false(tr_type_row_size(TR_TYPE_Q8_0, 33, &size));
    assert_false(tr_type_row_size(TR_TYPE_F64, SIZE_MAX / 4, &size));
    assert_int_equal(size, 288);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_type_is_found_by_its_name_in_any_case),
        cmocka_unit_test(rows_are_whole_blocks_and_never_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
