/* test_kv_pages.c - pages are shared by name alone, kept by last use, and never lost.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/model/kv_pages.h"

enum { N = 8 };

/* The tokens of page i of text t. */
static const uint32_t *tokens_of(uint32_t t, uint32_t i)
{
    static uint32_t tokens[TR_KV_PAGE];

    for (uint32_t k = 0; k < TR_KV_PAGE; k++)
        tokens[k] = t * 1000 + i * TR_KV_PAGE + k;
    return tokens;
}

static uint32_t take(tr_kv_pages *p)
{
    uint32_t page = TR_KV_NO_PAGE;

    assert_true(tr_kv_pages_take(p, &page));
    return page;
}

static void counts(const tr_kv_pages *p, size_t used, size_t kept)
{
    tr_kv_pages_counts c = tr_kv_pages_count(p);

    assert_int_equal(c.n, N);
    assert_int_equal(c.used, used);
    assert_int_equal(c.kept, kept);
    assert_int_equal(tr_kv_pages_available(p), N - used);
}

static void a_name_is_the_tokens_and_the_page_before(void **state)
{
    tr_kv_pages *p = NULL;
    uint32_t found = 0;

    (void)state;
    assert_int_equal(tr_kv_pages_new(N, &p), TR_OK);
    uint32_t a = take(p), b = take(p);
    assert_false(tr_kv_pages_find(p, TR_KV_NO_PAGE, tokens_of(1, 0), &found));
    assert_int_equal(tr_kv_pages_name(p, a, TR_KV_NO_PAGE, tokens_of(1, 0)), a);
    assert_int_equal(tr_kv_pages_name(p, b, a, tokens_of(1, 1)), b);
    assert_true(tr_kv_pages_find(p, TR_KV_NO_PAGE, tokens_of(1, 0), &found));
    assert_int_equal(found, a);
    assert_true(tr_kv_pages_find(p, a, tokens_of(1, 1), &found));
    assert_int_equal(found, b);
    assert_false(tr_kv_pages_find(p, b, tokens_of(1, 1), &found));
    assert_false(tr_kv_pages_find(p, TR_KV_NO_PAGE, tokens_of(1, 1), &found));
    assert_false(tr_kv_pages_find(p, a, tokens_of(2, 1), &found));
    counts(p, 2, 0);
    for (int i = 0; i < 2; i++) {
        tr_kv_pages_drop(p, b);
        tr_kv_pages_drop(p, a);
        counts(p, i == 0 ? 2 : 0, i == 0 ? 0 : 2);
    }
    tr_kv_pages_free(&p);
}

static void an_equal_page_keeps_the_first_name(void **state)
{
    tr_kv_pages *p = NULL;

    (void)state;
    assert_int_equal(tr_kv_pages_new(N, &p), TR_OK);
    uint32_t a = take(p), b = take(p);
    assert_int_equal(tr_kv_pages_name(p, a, TR_KV_NO_PAGE, tokens_of(1, 0)), a);
    assert_int_equal(tr_kv_pages_name(p, b, TR_KV_NO_PAGE, tokens_of(1, 0)), a);
    counts(p, 1, 0); /* the other is free, its reference is here */
    tr_kv_pages_drop(p, a);
    counts(p, 1, 0);
    tr_kv_pages_drop(p, a);
    counts(p, 0, 1);
    tr_kv_pages_free(&p);
}

static void the_page_used_longest_ago_goes_first(void **state)
{
    tr_kv_pages *p = NULL;
    uint32_t page[N], found;

    (void)state;
    assert_int_equal(tr_kv_pages_new(N, &p), TR_OK);
    for (uint32_t i = 0; i < N; i++) {
        page[i] = take(p);
        tr_kv_pages_name(p, page[i], TR_KV_NO_PAGE, tokens_of(i, 0));
    }
    uint32_t none;
    assert_false(tr_kv_pages_take(p, &none));
    for (uint32_t i = 0; i < N; i++)
        tr_kv_pages_drop(p, page[i]);
    counts(p, 0, N);
    assert_true(tr_kv_pages_find(p, TR_KV_NO_PAGE, tokens_of(0, 0), &found)); /* used again */
    tr_kv_pages_drop(p, found);
    assert_int_equal(take(p), page[1]);
    assert_false(tr_kv_pages_find(p, TR_KV_NO_PAGE, tokens_of(1, 0), &found));
    assert_true(tr_kv_pages_find(p, TR_KV_NO_PAGE, tokens_of(0, 0), &found));
    counts(p, 2, N - 2);
    tr_kv_pages_free(&p);
}

/* The number of a forgotten page may come again with other tokens: what was named after it must not
 * be found after the new ones. */
static void what_followed_a_forgotten_page_is_not_found(void **state)
{
    tr_kv_pages *p = NULL;
    uint32_t found;

    (void)state;
    assert_int_equal(tr_kv_pages_new(2, &p), TR_OK);
    uint32_t a = take(p), b = take(p);
    tr_kv_pages_name(p, a, TR_KV_NO_PAGE, tokens_of(1, 0));
    tr_kv_pages_name(p, b, a, tokens_of(1, 1));
    tr_kv_pages_drop(p, a); /* against the rule: the first page is the older */
    tr_kv_pages_drop(p, b);
    uint32_t c = take(p);
    assert_int_equal(c, a);
    assert_int_equal(tr_kv_pages_name(p, c, TR_KV_NO_PAGE, tokens_of(2, 0)), c);
    assert_false(tr_kv_pages_find(p, c, tokens_of(1, 1), &found));
    assert_int_equal(take(p), b);
    assert_false(tr_kv_pages_take(p, &found));
    tr_kv_pages_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_the_tokens_and_the_page_before),
        cmocka_unit_test(an_equal_page_keeps_the_first_name),
        cmocka_unit_test(the_page_used_longest_ago_goes_first),
        cmocka_unit_test(what_followed_a_forgotten_page_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
