/* test_stop.c - text ends where the first stop string is complete, however it is cut into
 * pieces, and no more is held back than must be.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/text/stop.h"

static tr_stop *stop_new(const char *const *strings)
{
    tr_bytes views[TR_STOP_MAX_STRINGS];
    size_t n = 0;
    tr_stop *s = NULL;

    for (; strings[n]; n++)
        views[n] = tr_bytes_of(strings[n]);
    assert_int_equal(tr_stop_new(views, n, &s), TR_OK);
    return s;
}

/* Feed text in pieces of random size (seed) or of one size (step); returns what came out. */
static size_t run(tr_stop *s, const char *text, uint64_t seed, size_t step, char *out)
{
    size_t n = 0, pos = 0, size = strlen(text);
    tr_bytes shown;

    for (uint64_t i = 0; pos < size; i++) {
        size_t take = step ? step : tr_rng_u64(seed, 7, i) % 4;
        take = take < size - pos ? take : size - pos;
        tr_bytes piece = { (const uint8_t *)text + pos, take };
        assert_int_equal(tr_stop_feed(s, piece, &shown), TR_OK);
        if (shown.size > 0)
            memcpy(out + n, shown.data, shown.size);
        n += shown.size;
        pos += take;
    }
    shown = tr_stop_flush(s);
    if (shown.size > 0)
        memcpy(out + n, shown.data, shown.size);
    n += shown.size;
    out[n] = '\0';
    return n;
}

static void text_is_cut_at_the_first_complete_stop_string(void **state)
{
    static const struct {
        const char *strings[4], *text, *expected;
        bool found;
    } cases[] = {
        { { NULL }, "all of it", "all of it", false },
        { { "END" }, "one END two", "one ", true },
        { { "END" }, "one EN", "one EN", false },
        { { "END" }, "ENEND", "EN", true },
        { { "aab" }, "aaaab", "aa", true },
        { { "\n\n" }, "a\nb\n\nc", "a\nb", true },
        { { "abcd", "c" }, "abcd", "ab", true }, /* "c" is complete first */
        { { "bc", "abc" }, "xabc", "x", true },  /* both at once: the longest */
        { { "User:", "\nUser:" }, "hi\nUser: x", "hi", true },
        { { "abab" }, "abaababx", "aba", true },
        { { "\xe4\xb8\xad" }, "a\xe4\xb8\xad", "a", true },
        { { "x" }, "x", "", true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t step = 1; step <= 12; step++) {
            char out[64];
            tr_stop *s = stop_new(cases[i].strings);
            run(s, cases[i].text, 0, step, out);
            assert_string_equal(out, cases[i].expected);
            assert_int_equal(tr_stop_found(s), cases[i].found);
            tr_stop_free(&s);
            assert_null(s);
        }
    }
}

static void only_a_possible_beginning_is_held_back(void **state)
{
    static const char *const strings[] = { "STOP", NULL };
    tr_stop *s = stop_new(strings);
    tr_bytes shown;

    (void)state;
    assert_int_equal(tr_stop_feed(s, tr_bytes_of("abcST"), &shown), TR_OK);
    assert_int_equal(shown.size, 3);
    assert_int_equal(tr_stop_feed(s, tr_bytes_of("A"), &shown), TR_OK);
    assert_int_equal(shown.size, 3);
    assert_memory_equal(shown.data, "STA", 3);
    assert_int_equal(tr_stop_feed(s, tr_bytes_of("xSTOPyz"), &shown), TR_OK);
    assert_int_equal(shown.size, 1);
    assert_true(tr_stop_found(s));
    assert_int_equal(tr_stop_feed(s, tr_bytes_of("more"), &shown), TR_OK);
    assert_int_equal(shown.size, 0);
    assert_int_equal(tr_stop_flush(s).size, 0);
    tr_stop_free(&s);
}

/* The definition: after each byte, does any stop string end here? */
static size_t expected_end(const char *text, const char *const *strings)
{
    for (size_t end = 1; end <= strlen(text); end++) {
        size_t longest = 0;
        for (size_t i = 0; strings[i]; i++) {
            size_t size = strlen(strings[i]);
            if (size <= end && size > longest && memcmp(text + end - size, strings[i], size) == 0)
                longest = size;
        }
        if (longest > 0)
            return end - longest;
    }
    return strlen(text);
}

static void any_cut_gives_what_the_definition_says(void **state)
{
    uint64_t seed = tr_test_seed();

    (void)state;
    for (uint64_t round = 0; round < 20000; round++) {
        char text[40] = { 0 }, words[3][8] = { { 0 } }, out[64];
        const char *strings[4] = { words[0], words[1], words[2], NULL };
        for (size_t i = 0; i < 39; i++)
            text[i] = "ab"[tr_rng_u64(seed, round, i) % 2];
        for (size_t w = 0; w < 3; w++)
            for (size_t i = 0; i < 1 + tr_rng_u64(seed, round, 100 + w) % 7; i++)
                words[w][i] = "abc"[tr_rng_u64(seed, round, 200 + w * 8 + i) % 20 / 9];
        tr_stop *s = stop_new(strings);
        size_t n = run(s, text, seed ^ round, 0, out);
        assert_int_equal(n, expected_end(text, strings));
        assert_memory_equal(out, text, n);
        tr_stop_free(&s);
    }
}

static void bad_stop_strings_are_refused(void **state)
{
    static uint8_t long_text[TR_STOP_MAX_LENGTH + 1];
    tr_bytes many[TR_STOP_MAX_STRINGS + 1];
    char reason[128];
    tr_stop *s = NULL;

    (void)state;
    memset(long_text, 'a', sizeof long_text);
    for (size_t i = 0; i < TR_STOP_MAX_STRINGS + 1; i++)
        many[i] = tr_bytes_of("a");
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_stop_new(many, TR_STOP_MAX_STRINGS + 1, &s), TR_E_USAGE);
    many[1] = tr_bytes_of("");
    assert_int_equal(tr_stop_new(many, 2, &s), TR_E_USAGE);
    assert_string_equal(reason, "a stop string is empty");
    many[1] = tr_bytes_of("ab\xff");
    assert_int_equal(tr_stop_new(many, 2, &s), TR_E_USAGE);
    assert_non_null(strstr(reason, "byte 2"));
    many[1] = (tr_bytes){ long_text, sizeof long_text };
    assert_int_equal(tr_stop_new(many, 2, &s), TR_E_USAGE);
    tr_fail_capture_end();
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_cut_at_the_first_complete_stop_string),
        cmocka_unit_test(only_a_possible_beginning_is_held_back),
        cmocka_unit_test(any_cut_gives_what_the_definition_says),
        cmocka_unit_test(bad_stop_strings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
