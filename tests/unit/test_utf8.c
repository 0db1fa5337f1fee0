/* test_utf8.c - what is valid UTF-8, and that the streaming filter's output is valid, complete
 * and the same however the input is cut.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/text/utf8.h"

static tr_bytes bytes_of(const char *text, size_t size)
{
    return (tr_bytes){ (const uint8_t *)text, size };
}

static void every_code_point_is_valid_but_surrogates(void **state)
{
    (void)state;
    for (uint32_t code = 0x80; code <= 0x110fff; code++) {
        uint8_t text[4], encoded[4];
        size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4, found, bad;
        uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
        for (size_t i = size; i-- > 1;)
            text[i] = (uint8_t)(0x80 | (code >> 6 * (size - 1 - i) & 0x3f));
        text[0] = (uint8_t)(lead[size] | code >> 6 * (size - 1));
        bool is_valid = (code < 0xd800 || code > 0xdfff) && code <= 0x10ffff;
        if (tr_utf8_valid((tr_bytes){ text, size }, &bad) != is_valid)
            fail_msg("U+%04X", code);
        if (is_valid) {
            assert_int_equal(tr_utf8_first((tr_bytes){ text, size }, &found), TR_UTF8_CHAR);
            assert_int_equal(found, size);
            assert_int_equal(tr_utf8_code(text, size), code);
            assert_int_equal(tr_utf8_encode(code, encoded), size);
            assert_memory_equal(encoded, text, size);
        }
    }
}

static void the_first_bad_byte_is_named(void **state)
{
    static const struct {
        const char *text;
        size_t size, bad; /* bad == size: valid */
    } cases[] = {
        { "", 0, 0 },
        { "abc", 3, 3 },
        { "a\0b", 3, 3 },
        { "\x80", 1, 0 },
        { "a\xff", 2, 1 },
        { "\xc0\x80", 2, 0 },             /* overlong */
        { "\xc1\xbf", 2, 0 },             /* overlong */
        { "\xe0\x9f\xbf", 3, 0 },         /* overlong */
        { "\xf0\x8f\xbf\xbf", 4, 0 },     /* overlong */
        { "ok\xed\xa0\x80", 5, 2 },       /* surrogate */
        { "\xf4\x90\x80\x80", 4, 0 },     /* above U+10FFFF */
        { "\xf5\x80\x80\x80", 4, 0 },     /* above U+10FFFF */
        { "\xc3\xa4\xe4\xb8", 4, 2 },     /* cut */
        { "\xf0\x9f\x98\x80\xf0", 5, 4 }, /* cut */
        { "\xe4\xb8x", 3, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t bad = cases[i].size;
        bool is_valid = tr_utf8_valid(bytes_of(cases[i].text, cases[i].size), &bad);
        assert_int_equal(is_valid, cases[i].bad == cases[i].size);
        assert_int_equal(bad, cases[i].bad);
    }
}

static void each_broken_character_becomes_one_replacement(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "plain", "plain" },
        { "\xc3\xa4\xe4\xb8\xad\xf0\x9f\x98\x80", "\xc3\xa4\xe4\xb8\xad\xf0\x9f\x98\x80" },
        { "a\xff"
          "b",
          "a\xef\xbf\xbd"
          "b" },
        { "\xe4\xb8x", "\xef\xbf\xbdx" },
        { "\xf0\x9f\x98", "\xef\xbf\xbd" },
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { "\xc3\xc3\xa4", "\xef\xbf\xbd\xc3\xa4" },
        { "\xf0\x9f\xe4\xb8\xad", "\xef\xbf\xbd\xe4\xb8\xad" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tr_utf8_filter f = { 0 };
        uint8_t out[64];
        size_t n = tr_utf8_feed(&f, tr_bytes_of(cases[i].in), out);
        n += tr_utf8_flush(&f, out + n);
        assert_int_equal(n, strlen(cases[i].out));
        assert_memory_equal(out, cases[i].out, n);
    }
}

static void a_complete_character_comes_out_at_once(void **state)
{
    tr_utf8_filter f = { 0 };
    uint8_t out[TR_UTF8_ROOM(1)];

    (void)state;
    assert_int_equal(tr_utf8_feed(&f, bytes_of("\xf0", 1), out), 0);
    assert_int_equal(tr_utf8_feed(&f, bytes_of("\x9f", 1), out), 0);
    assert_int_equal(tr_utf8_feed(&f, bytes_of("\x98", 1), out), 0);
    assert_int_equal(tr_utf8_feed(&f, bytes_of("\x80", 1), out), 4);
    assert_memory_equal(out, "\xf0\x9f\x98\x80", 4);
    assert_int_equal(tr_utf8_feed(&f, bytes_of("x", 1), out), 1);
    assert_int_equal(tr_utf8_flush(&f, out), 0);
}

/* Bytes that are often parts of characters, so that every state of the filter is reached. */
static size_t random_bytes(uint64_t seed, uint64_t round, uint8_t *out)
{
    static const uint8_t alphabet[] = {
        'a',  0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc2, 0xdf, 0xe0,
        0xe4, 0xed, 0xef, 0xf0, 0xf3, 0xf4, 0xff, 0x7f, 0xb8, 0xad
    };
    size_t n = tr_rng_u64(seed, round, 0) % 32;

    for (size_t i = 0; i < n; i++)
        out[i] = alphabet[tr_rng_u64(seed, round, i + 1) % sizeof alphabet];
    return n;
}

static void any_cut_gives_the_same_valid_output(void **state)
{
    uint64_t seed = tr_test_seed();

    (void)state;
    for (uint64_t round = 0; round < 20000; round++) {
        uint8_t in[32], whole[TR_UTF8_ROOM(32)], cut[TR_UTF8_ROOM(32) * 2];
        size_t n = random_bytes(seed, round, in), bad, n_cut = 0, pos = 0;
        tr_utf8_filter a = { 0 }, b = { 0 };
        size_t n_whole = tr_utf8_feed(&a, (tr_bytes){ in, n }, whole);
        n_whole += tr_utf8_flush(&a, whole + n_whole);
        assert_true(tr_utf8_valid((tr_bytes){ whole, n_whole }, &bad));
        if (tr_utf8_valid((tr_bytes){ in, n }, &bad)) {
            assert_int_equal(n_whole, n);
            assert_memory_equal(whole, in, n);
        }
        for (uint64_t step = 0; pos < n; step++) {
            size_t size = tr_rng_u64(seed ^ 1, round, step) % 5;
            size = size < n - pos ? size : n - pos;
            size_t got = tr_utf8_feed(&b, (tr_bytes){ in + pos, size }, cut + n_cut);
            assert_true(got <= TR_UTF8_ROOM(size));
            n_cut += got;
            pos += size;
        }
        n_cut += tr_utf8_flush(&b, cut + n_cut);
        assert_int_equal(n_cut, n_whole);
        assert_memory_equal(cut, whole, n_whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_is_valid_but_surrogates),
        cmocka_unit_test(the_first_bad_byte_is_named),
        cmocka_unit_test(each_broken_character_becomes_one_replacement),
        cmocka_unit_test(a_complete_character_comes_out_at_once),
        cmocka_unit_test(any_cut_gives_the_same_valid_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
