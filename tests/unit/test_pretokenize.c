/* test_pretokenize.c - where each family of expressions cuts, and that no text makes it slow.
 *
 * Expected cuts are written with '|' between the pieces.  The ids in tests/golden/tok check the
 * same families through a vocabulary; here are the places where families differ.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/text/pretokenize.h"

static tr_pretokenizer *pretokenizer_new(const char *name)
{
    tr_pretokenizer *p = NULL;

    assert_int_equal(tr_pretokenizer_new(tr_bytes_of(name), &p), TR_OK);
    return p;
}

/* The pieces of text, with '|' between them. */
static void join(const char *name, const char *text, char *out)
{
    tr_pretokenizer *p = pretokenizer_new(name);
    tr_pieces pieces;
    size_t from = 0, n = 0;

    assert_int_equal(tr_pieces_init(&pieces), TR_OK);
    assert_int_equal(tr_pretokenize(p, tr_bytes_of(text), &pieces), TR_OK);
    for (size_t i = 0; i < pieces.n; i++) {
        if (i > 0)
            out[n++] = '|';
        memcpy(out + n, text + from, pieces.end[i] - from);
        n += pieces.end[i] - from;
        from = pieces.end[i];
    }
    out[n] = '\0';
    assert_int_equal(from, strlen(text));
    tr_pieces_fini(&pieces);
    tr_pretokenizer_free(&p);
}

static void each_family_cuts_where_its_expressions_say(void **state)
{
    static const struct {
        const char *name, *text_with_cuts;
    } cases[] = {
        { "gpt-2", "It|'s| a|  | test|  " },
        { "gpt-2", "a|\n| b|\n\n" },
        { "gpt-2", "IT|'|S| 12345|.|5|\n| x" },
        { "gpt-2", "x|\xc2\xa0|y" },      /* U+00A0 is white space */
        { "gpt-2", "a|\xe1\xa0\x8e|b" },  /* U+180E is none: a symbol run */
        { "gpt-2", "a| \xe1\xa0\x8e|b" }, /* so a space joins it */
        { "refact", "a|1|2|3| b" },
        { "qwen2", "IT|'S|1|2|.x|(a|)\n\n| b" }, /* words take the character before them */
        { "qwen2", "a|  \n| | b" },
        { "llama-bpe", "a|123|45| x" },
        { "qwen35", "\xe0\xa4\xb9\xe0\xa4\xbf\xe0\xa4\xa8" }, /* a mark inside a word */
        { "qwen2", "\xe0\xa4\xb9|\xe0\xa4\xbf\xe0\xa4\xa8" }, /* a mark before a word */
        { "gpt-4o", "Hello|World|HTTPServer's|12|x" },
        { "gpt-4o", "\xe0\xa4\xb9|\xe0\xa4\xbf\xe0\xa4\xa8|'\xe0\xa4\xbf" }, /* as qwen2 */
        { "gpt-4o", "they'LL|!//\n| a" },
        { "tekken", "a|Bc|Cd|'LL|1|2" },
        { "tekken", "\xd0\xbf\xd1\x80\xd0\x9f\xd0\xa0|'LL|1" }, /* case is known in ASCII alone */
        { "kimi-k2", "HelloWorld's|'LL|\xe4\xb8\xad\xe6\x96\x87|abc|\xe4\xb8\xad|123|4" },
        { "kimi-k2", "\xe3\x81\xae\xe3\x82\xab|\xe4\xb8\xad" }, /* kana are no Han */
        { "seed-coder", "a| !?|\n\n|b|1|2" },
        { "bailingmoe", "a|'S| !?\n\n|b" },
        { "falcon", "a|,|123|45| b|`" },
        { "deepseek-coder", "a|\n|\n| b|,,|1|2" },
        { "deepseek-llm", "a|\n| b|  " },
        { "deepseek-v3", "123|4|\xe4\xb8\xad\xe6\x96\x87| a|.b|(c|)\n\n" },
        { "bloom", "a| b|,| c|." },
        { "viking", "a|1|2| b|." },
        { "default", "a|,|b| |123|4" },
        { "superbpe", "a b, c|1|234|567|d|12|e|123|f|123|456" },
        { "superbpe", "a|100\xc2\xb2"
                      "12|345| x" }, /* a number that is no digit cuts nothing */
    };
    char text[128], found[256];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = 0;
        for (const char *c = cases[i].text_with_cuts; *c; c++)
            if (*c != '|')
                text[n++] = *c;
        text[n] = '\0';
        join(cases[i].name, text, found);
        if (strcmp(found, cases[i].text_with_cuts) != 0)
            print_message("%s: \"%s\", expected \"%s\"\n", cases[i].name, found,
                          cases[i].text_with_cuts);
        assert_string_equal(found, cases[i].text_with_cuts);
    }
}

static void only_families_that_say_so_take_whole_words_and_add_bos(void **state)
{
    (void)state;
    for (size_t i = 0; tr_pretokenizer_name_at(i); i++) {
        const char *name = tr_pretokenizer_name_at(i);
        tr_pretokenizer *p = pretokenizer_new(name);
        bool is_llama3 = strcmp(name, "llama-bpe") == 0 || strcmp(name, "tekken") == 0;
        bool is_other = strcmp(name, "qwen2") == 0 || strcmp(name, "gpt-2") == 0;
        if (is_llama3 || is_other) {
            assert_int_equal(tr_pretokenizer_takes_whole_words(p), is_llama3);
            assert_int_equal(tr_pretokenizer_adds_bos(p), is_llama3);
        }
        tr_pretokenizer_free(&p);
        assert_null(p);
    }
}

static void an_unknown_name_is_said(void **state)
{
    char reason[128];
    tr_pretokenizer *p = NULL;

    (void)state;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_pretokenizer_new(tr_bytes_of("gpt-9"), &p), TR_E_UNSUPPORTED);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "\"gpt-9\""));
    assert_null(p);
}

/* A million bytes of one kind, with another kind behind them.  Quadratic matching would take
 * hours, and so run into the test's time limit; deep recursion would fail with an error. */
static void long_runs_are_cut_in_linear_time(void **state)
{
    static const char *const runs[] = { "a", "A", "1", " ", "\n", "!", "'s", "\xe4\xb8\xad" };
    static const char *const ends[] = { "", "\x01", "\xe0\xb9\x84" };
    static const char *const names[] = { "default",      "gpt-2",          "llama-bpe",
                                         "gpt-4o",       "kimi-k2",        "bailingmoe",
                                         "deepseek-llm", "deepseek-coder", "deepseek-v3",
                                         "falcon",       "viking",         "seed-coder",
                                         "superbpe" };
    enum { SIZE = 1000 * 1000 };
    uint8_t *text = malloc(SIZE + 8);
    tr_pieces pieces;

    (void)state;
    assert_non_null(text);
    assert_int_equal(tr_pieces_init(&pieces), TR_OK);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        tr_pretokenizer *p = pretokenizer_new(names[i]);
        for (size_t run = 0; run < sizeof runs / sizeof runs[0]; run++) {
            const char *end = ends[(i + run) % 3];
            size_t unit = strlen(runs[run]), n = 0;
            for (; n + unit <= SIZE; n += unit)
                memcpy(text + n, runs[run], unit);
            memcpy(text + n, end, strlen(end));
            n += strlen(end);
            assert_int_equal(tr_pretokenize(p, (tr_bytes){ text, n }, &pieces), TR_OK);
            assert_true(pieces.n > 0);
            assert_int_equal(pieces.end[pieces.n - 1], n);
        }
        tr_pretokenizer_free(&p);
    }
    tr_pieces_fini(&pieces);
    free(text);
}

static size_t random_text(uint64_t seed, uint64_t round, uint8_t *out)
{
    static const char *const parts[] = {
        "a",
        "B",
        " ",
        "\n",
        "\r",
        "1",
        "'s",
        "'LL",
        "!",
        "_",
        "\t",
        "\xc3\xa4",
        "\xd0\x9f",
        "\xd9\xa1",
        "\xe4\xb8\xad",
        "\xe0\xa4\xbf",
        "\xcc\x81",
        "\xe2\x80\x8d",
        "\xc2\xa0",
        "\x01",
        "\xe2\x85\xa7",
        "\xf0\x9f\x98\x80",
        "/",
        "\xe3\x80\x82",
    };
    size_t n = 0, n_parts = tr_rng_u64(seed, round, 0) % 40;

    for (size_t i = 0; i < n_parts; i++) {
        const char *part = parts[tr_rng_u64(seed, round, i + 1) % (sizeof parts / sizeof parts[0])];
        memcpy(out + n, part, strlen(part));
        n += strlen(part);
    }
    return n;
}

static void pieces_cover_the_text_and_are_not_empty(void **state)
{
    uint64_t seed = tr_test_seed();
    tr_pieces pieces;

    (void)state;
    assert_int_equal(tr_pieces_init(&pieces), TR_OK);
    for (size_t i = 0; tr_pretokenizer_name_at(i); i++) {
        tr_pretokenizer *p = pretokenizer_new(tr_pretokenizer_name_at(i));
        for (uint64_t round = 0; round < 200; round++) {
            uint8_t text[40 * 4];
            size_t n = random_text(seed, round, text), from = 0;
            assert_int_equal(tr_pretokenize(p, (tr_bytes){ text, n }, &pieces), TR_OK);
            for (size_t k = 0; k < pieces.n; k++) {
                assert_true(pieces.end[k] > from);
                assert_true((text[from] & 0xc0) != 0x80); /* a character begins here */
                from = pieces.end[k];
            }
            assert_int_equal(from, n);
        }
        tr_pretokenizer_free(&p);
    }
    tr_pieces_fini(&pieces);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_family_cuts_where_its_expressions_say),
        cmocka_unit_test(only_families_that_say_so_take_whole_words_and_add_bos),
        cmocka_unit_test(an_unknown_name_is_said),
        cmocka_unit_test(long_runs_are_cut_in_linear_time),
        cmocka_unit_test(pieces_cover_the_text_and_are_not_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
