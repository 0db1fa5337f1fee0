/* test_spm.c - SentencePiece gives what its definition gives, its pieces are the text, spaces and
 * special tokens stand where they should, and broken vocabularies are refused.
 *
 * Ids of real vocabularies are in test_tokenizer.c; here the vocabularies are made up.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"
#include "tests/support/vocab_file.h"

#include "base/rng.h"
#include "coordinator/text/spm.h"
#include "coordinator/text/tokenizer.h"

#include <math.h>

#define SPACE "\xe2\x96\x81"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct {
    const char *text;
    float score;
    int32_t type; /* 0 is NORMAL */
} token;

/* Behind these tokens come the 256 bytes, but for the first n_bytes_less. */
typedef struct {
    const token *tokens;
    size_t n, n_bytes_less, n_scores_less;
    int64_t bos, eos, add_bos, add_eos; /* -1: no such key */
    bool no_space_prefix, no_scores;
    tr_gguf_kind scores_kind; /* other than F32 */
} vocabulary;

static vocabulary vocabulary_of(const token *tokens, size_t n)
{
    return (
        vocabulary){ .tokens = tokens, .n = n, .bos = -1, .eos = -1, .add_bos = -1, .add_eos = -1 };
}

static void put_scores(vocab_file *f, const vocabulary *v, size_t n)
{
    vocab_file_array(f, "tokenizer.ggml.scores", v->scores_kind ? v->scores_kind : TR_GGUF_F32,
                     n - v->n_scores_less);
    for (size_t i = 0; i < n - v->n_scores_less; i++) {
        float score = i < v->n ? v->tokens[i].score : 0;
        vocab_file_put(f, &score, sizeof score);
    }
}

static void put_ends(vocab_file *f, const vocabulary *v)
{
    if (v->bos >= 0)
        vocab_file_u32(f, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    if (v->eos >= 0)
        vocab_file_u32(f, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    if (v->add_bos >= 0)
        vocab_file_bool(f, "tokenizer.ggml.add_bos_token", v->add_bos > 0);
    if (v->add_eos >= 0)
        vocab_file_bool(f, "tokenizer.ggml.add_eos_token", v->add_eos > 0);
    if (v->no_space_prefix)
        vocab_file_bool(f, "tokenizer.ggml.add_space_prefix", false);
}

static tr_status load(const vocabulary *v, tr_tokenizer **t)
{
    vocab_file *f = vocab_file_new();
    size_t n = v->n + 256 - v->n_bytes_less;

    vocab_file_string(f, "tokenizer.ggml.model", "llama");
    vocab_file_array(f, "tokenizer.ggml.tokens", TR_GGUF_STRING, n);
    for (size_t i = 0; i < v->n; i++)
        vocab_file_put_text(f, tr_bytes_of(v->tokens[i].text));
    for (size_t b = v->n_bytes_less; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, b % 2 ? "<0x%02X>" : "<0x%02x>", (unsigned)b);
        vocab_file_put_text(f, tr_bytes_of(text));
    }
    vocab_file_array(f, "tokenizer.ggml.token_type", TR_GGUF_I32, n);
    for (size_t i = 0; i < n; i++) {
        int32_t given = i < v->n ? v->tokens[i].type : BYTE, type = given ? given : NORMAL;
        vocab_file_put(f, &type, sizeof type);
    }
    if (!v->no_scores)
        put_scores(f, v, n);
    put_ends(f, v);
    tr_gguf *g = vocab_file_parse(f);
    assert_non_null(g);
    tr_status st = tr_tokenizer_new(g, t);
    tr_gguf_close(&g);
    free(f);
    return st;
}

static tr_tokenizer *tokenizer_of(const vocabulary *v)
{
    tr_tokenizer *t = NULL;

    assert_int_equal(load(v, &t), TR_OK);
    return t;
}

static const char *list(const uint32_t *ids, size_t n)
{
    static char text[1024];
    size_t at = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n && at < sizeof text; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u", i ? " " : "", ids[i]);
    return text;
}

static void ids_equal(const tr_tokenizer *t, const char *text, bool parse_special,
                      const char *expected)
{
    uint32_t *ids;
    size_t n;

    assert_int_equal(tr_tokenizer_encode(t, tr_bytes_of(text), parse_special, &ids, &n), TR_OK);
    assert_string_equal(list(ids, n), expected);
    free(ids);
}

/* ---- the definition ---- */

enum { MAX_WORDS = 40, MAX_TEXT = 15, WORD_ROOM = 32, TEXT_ROOM = 4 * MAX_TEXT + 4 };

/* The first token with this text, or -1. */
static int word_find(const token *tokens, size_t n, const char *text, size_t size)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(tokens[i].text) == size && memcmp(tokens[i].text, text, size) == 0)
            return (int)i;
    return -1;
}

/* Text in characters, spaces as marks: again and again the pair with the highest score, the
 * leftmost one of equals, becomes one.  Returns the number of ids. */
static size_t encode_naively(const token *tokens, size_t n_tokens, const char *text, uint32_t *ids)
{
    size_t ends[MAX_TEXT + 3] = { 0 }, n = 0, n_ids = 0;

    for (size_t i = 1; text[0] && i <= strlen(text); i++)
        if (((uint8_t)text[i] & 0xc0) != 0x80)
            ends[++n] = i; /* symbol k is ends[k] .. ends[k + 1] */
    for (;;) {
        size_t best = n;
        float best_score = 0;
        for (size_t k = 0; k + 2 <= n; k++) {
            int id = word_find(tokens, n_tokens, text + ends[k], ends[k + 2] - ends[k]);
            if (id >= 0 && (best == n || tokens[id].score > best_score)) {
                best = k;
                best_score = tokens[id].score;
            }
        }
        if (best == n)
            break;
        memmove(ends + best + 1, ends + best + 2, (n - best - 1) * sizeof *ends);
        n--;
    }
    for (size_t k = 0; k < n; k++) {
        int id = word_find(tokens, n_tokens, text + ends[k], ends[k + 1] - ends[k]);
        if (id >= 0)
            ids[n_ids++] = (uint32_t)id;
        for (size_t b = ends[k]; id < 0 && b < ends[k + 1]; b++)
            ids[n_ids++] = (uint32_t)(n_tokens + (uint8_t)text[b]);
    }
    return n_ids;
}

static const char *const alphabet[] = { "a", "b", SPACE, "\xc3\xa4", "\xf0\x9f\x98\x80" };

static void append(char *text, size_t room, const char *more)
{
    size_t used = strlen(text);

    snprintf(text + used, room - used, "%s", more);
}

/* 1 to 5 characters; with inner spaces or without. */
static void random_word(uint64_t seed, uint64_t round, uint64_t i, char out[WORD_ROOM])
{
    size_t length = 1 + tr_rng_u64(seed, round, 8 * i) % 5;

    out[0] = '\0';
    for (size_t k = 0; k < length; k++) {
        size_t c = tr_rng_u64(seed, round, 8 * i + 1 + k) % 5;
        bool is_inner = c == 2 && k > 0;
        append(out, WORD_ROOM, alphabet[is_inner && round % 2 ? 0 : c]);
    }
}

/* The same text as people write it and as the definition reads it, beginning with a space. */
static void random_text(uint64_t seed, uint64_t round, char plain[TEXT_ROOM],
                        char marked[TEXT_ROOM])
{
    size_t length = tr_rng_u64(seed ^ 1, round, 0) % (MAX_TEXT + 1);

    plain[0] = marked[0] = '\0';
    append(marked, TEXT_ROOM, length > 0 ? SPACE : "");
    for (size_t k = 0; k < length; k++) {
        uint64_t r = tr_rng_u64(seed ^ 1, round, 1 + k);
        append(plain, TEXT_ROOM, r % 5 == 2 && r >> 60 ? " " : alphabet[r % 5]);
        append(marked, TEXT_ROOM, alphabet[r % 5]);
    }
}

static void merging_gives_what_the_definition_gives(void **state)
{
    uint64_t seed = tr_test_seed();

    (void)state;
    for (uint64_t round = 0; round < 400; round++) {
        static char texts[MAX_WORDS][WORD_ROOM];
        token tokens[MAX_WORDS];
        size_t n = 1 + tr_rng_u64(seed ^ 2, round, 0) % MAX_WORDS;
        for (size_t i = 0; i < n; i++) {
            random_word(seed, round, i, texts[i]);
            float score = (float)(tr_rng_u64(seed ^ 2, round, 1 + i) % 7) - 3;
            tokens[i] = (token){ texts[i], score == 0 && i % 2 ? -0.0f : score, NORMAL };
        }
        /* The definition has a byte for each byte of a mark; with a token for it, nothing differs.
         */
        tokens[0] = (token){ SPACE, 0, NORMAL };
        vocabulary v = vocabulary_of(tokens, n);
        tr_tokenizer *t = tokenizer_of(&v);
        for (uint64_t k = 0; k < 20; k++) {
            char plain[TEXT_ROOM], marked[TEXT_ROOM];
            uint32_t *ids, expected[TEXT_ROOM];
            size_t n_ids;
            random_text(seed, 1000 * round + k, plain, marked);
            size_t n_expected = encode_naively(tokens, n, marked, expected);
            assert_int_equal(tr_tokenizer_encode(t, tr_bytes_of(plain), false, &ids, &n_ids),
                             TR_OK);
            if (n_ids != n_expected || memcmp(ids, expected, n_ids * sizeof *ids) != 0) {
                print_message("round %d \"%s\": %s\n", (int)round, plain, list(ids, n_ids));
                fail_msg("expected %s", list(expected, n_expected));
            }
            free(ids);
        }
        tr_tokenizer_free(&t);
    }
}

/* ---- text again ---- */

static const token words[] = {
    { "<unk>", 0, UNKNOWN },
    { "<s>", 0, CONTROL },
    { "</s>", 9, CONTROL },
    { SPACE, -9, 0 },
    { "a", -9, 0 },
    { "b", -9, 0 },
    { SPACE "a", -1, 0 },
    { "ab", -2, 0 },
    { "<", -3, 0 },
    { "/s>", -4, UNUSED },
    { "/", -9, 0 },
    { "s", -9, 0 },
    { ">", -9, 0 },
    { "s>", -3, 0 },
    { "<mark>", 0, USER_DEFINED },
    { SPACE SPACE, 0, USER_DEFINED },
    { "c d", 0, 0 },
    { "<0x41>", 0, 0 },
};
enum { N_WORDS = sizeof words / sizeof words[0] };

static vocabulary sound(void)
{
    return vocabulary_of(words, N_WORDS);
}

static void pieces_are(const tr_tokenizer *t, const uint32_t *ids, size_t n, const char *expected)
{
    char text[256];
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        tr_bytes piece = tr_tokenizer_piece(t, ids[i]);
        assert_true(at + piece.size < sizeof text);
        memcpy(text + at, piece.data, piece.size);
        at += piece.size;
    }
    text[at] = '\0';
    assert_string_equal(text, expected);
}

static void pieces_are_the_text_with_spaces_in_front_and_behind_special_tokens(void **state)
{
    static const struct {
        const char *text, *pieces, *pieces_of_rest;
    } cases[] = {
        { "", "", "" },
        { "a", " a", "a" },
        { " a", "  a", " a" },
        { "a b\n", " a b\n", "a b\n" },
        { "<s>a</s></s>b", "<s> a</s></s> b", "<s> a</s></s> b" },
        { "<s>", "<s>", "<s>" },
        { "a<mark>b", " a<mark> b", "a<mark> b" },
        { "a" SPACE "b", " a b", "a b" },
        { "\xc3\xa4\xf0\x9f\x98\x80", " \xc3\xa4\xf0\x9f\x98\x80", "\xc3\xa4\xf0\x9f\x98\x80" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int has_prefix = 0; has_prefix < 2; has_prefix++) {
            vocabulary v = sound();
            tr_bytes text = tr_bytes_of(cases[i].text);
            uint32_t *ids;
            size_t n;
            v.no_space_prefix = !has_prefix;
            tr_tokenizer *t = tokenizer_of(&v);
            assert_int_equal(tr_tokenizer_encode(t, text, true, &ids, &n), TR_OK);
            if (has_prefix)
                pieces_are(t, ids, n, cases[i].pieces);
            free(ids);
            assert_int_equal(tr_tokenizer_encode_rest(t, text, true, &ids, &n), TR_OK);
            if (has_prefix)
                pieces_are(t, ids, n, cases[i].pieces_of_rest);
            else if (!strstr(cases[i].text, SPACE))
                pieces_are(t, ids, n, cases[i].text);
            free(ids);
            tr_tokenizer_free(&t);
        }
    }
}

static void special_tokens_come_from_their_whole_text_alone(void **state)
{
    vocabulary v = sound();
    tr_tokenizer *t = tokenizer_of(&v);
    uint32_t id;

    (void)state;
    ids_equal(t, "</s>", true, "2");
    ids_equal(t, "</s>", false, "3 8 9"); /* by its score it would be joined first of all */
    ids_equal(t, "<unk>a", true, "0 6");
    ids_equal(t, "a<mark>a", false, "6 14 6");
    ids_equal(t, "a  b", false, "6 15 3 5");   /* what a user added is searched with its spaces */
    ids_equal(t, "c d", false, "3 117 3 118"); /* nor does a space in a token stand for a mark */
    ids_equal(t, "<0x41>", false, "3 8 66 138 70 67 12");
    assert_true(tr_tokenizer_special(t, tr_bytes_of("<mark>"), &id));
    assert_int_equal(id, 14);
    assert_false(tr_tokenizer_special(t, tr_bytes_of("ab"), &id));
    assert_true(tr_tokenizer_is_special(t, 0));
    assert_true(tr_tokenizer_is_special(t, 2));
    assert_false(tr_tokenizer_is_special(t, 6));
    assert_false(tr_tokenizer_is_special(t, 14));
    assert_false(tr_tokenizer_is_special(t, N_WORDS)); /* a byte */
    tr_tokenizer_free(&t);
}

static void characters_without_a_piece_become_bytes(void **state)
{
    vocabulary v = sound();
    tr_tokenizer *t = tokenizer_of(&v);
    char reason[128];
    uint32_t *ids = NULL;
    size_t n = 77;

    (void)state;
    assert_int_equal(N_WORDS, 18);
    ids_equal(t,
              "a\xc3\xa4"
              "b",
              false, "6 213 182 5"); /* 18 + 0xc3, 18 + 0xa4 */
    tr_tokenizer_free(&t);
    v.n_bytes_less = 0xa5;
    t = tokenizer_of(&v);
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_tokenizer_encode(t, tr_bytes_of("\xc3\xa4"), false, &ids, &n),
                     TR_E_REQUEST);
    assert_non_null(strstr(reason, "0xa4"));
    assert_int_equal(tr_tokenizer_encode(t, tr_bytes_of("a\xff"), false, &ids, &n), TR_E_REQUEST);
    assert_non_null(strstr(reason, "position 1"));
    tr_fail_capture_end();
    assert_null(ids);
    assert_int_equal(n, 77);
    tr_tokenizer_free(&t);
}

static void begin_and_end_are_as_the_file_says_or_as_usual(void **state)
{
    static const token plain[] = { { "a", 0, 0 }, { "b", 0, 0 }, { "c", 0, 0 } };
    vocabulary v = sound();
    uint32_t id = 99;

    (void)state;
    tr_tokenizer *t = tokenizer_of(&v);
    assert_true(tr_tokenizer_bos(t, &id));
    assert_int_equal(id, 1);
    assert_true(tr_tokenizer_eos(t, &id));
    assert_int_equal(id, 2);
    assert_true(tr_tokenizer_is_eog(t, 2));
    assert_true(tr_tokenizer_adds_bos(t));
    assert_false(tr_tokenizer_adds_eos(t));
    tr_tokenizer_free(&t);

    v.bos = 4, v.eos = 5, v.add_bos = 0, v.add_eos = 1;
    t = tokenizer_of(&v);
    assert_true(tr_tokenizer_bos(t, &id));
    assert_int_equal(id, 4);
    assert_true(tr_tokenizer_eos(t, &id));
    assert_int_equal(id, 5);
    assert_false(tr_tokenizer_is_eog(t, 2));
    assert_false(tr_tokenizer_adds_bos(t));
    assert_true(tr_tokenizer_adds_eos(t));
    tr_tokenizer_free(&t);

    v = vocabulary_of(plain, 3); /* what stands in the usual places is no control token */
    v.add_eos = 1;
    t = tokenizer_of(&v);
    assert_false(tr_tokenizer_bos(t, &id));
    assert_false(tr_tokenizer_eos(t, &id));
    assert_false(tr_tokenizer_adds_bos(t));
    assert_false(tr_tokenizer_adds_eos(t));
    tr_tokenizer_free(&t);
}

/* ---- size ---- */

/* A million characters that no space divides, and pieces of all powers of two: each join has
 * neighbours.  Quadratic time would run into the test's limit. */
static void long_text_is_encoded_fast(void **state)
{
    enum { LEVELS = 10, LONGEST = 1 << (LEVELS - 1), SIZE = 1 << 20 };
    static char texts[LEVELS][LONGEST + 1];
    token tokens[LEVELS];
    uint8_t *text = malloc(SIZE);
    uint32_t *ids;
    size_t n;

    (void)state;
    assert_non_null(text);
    memset(text, 'a', SIZE);
    for (size_t i = 0; i < LEVELS; i++) {
        memset(texts[i], 'a', (size_t)1 << i);
        tokens[i] = (token){ texts[i], -(float)i, 0 };
    }
    vocabulary v = vocabulary_of(tokens, LEVELS);
    v.no_space_prefix = true;
    tr_tokenizer *t = tokenizer_of(&v);
    assert_int_equal(tr_tokenizer_encode(t, (tr_bytes){ text, SIZE }, false, &ids, &n), TR_OK);
    assert_int_equal(n, SIZE / LONGEST);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], LEVELS - 1);
    free(ids);
    free(text);
    tr_tokenizer_free(&t);
}

/* ---- refusals ---- */

static void refused(const vocabulary *v, const char *said)
{
    char reason[256];
    tr_tokenizer *t = NULL;

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = load(v, &t);
    tr_fail_capture_end();
    if (st != TR_E_FORMAT || !strstr(reason, said))
        fail_msg("expected \"%s\", got %s: %s", said, tr_status_name(st), reason);
    assert_null(t);
}

static void inconsistent_vocabularies_are_refused(void **state)
{
    static char long_text[(1 << 15) + 1]; /* its square alone is the limit */
    token odd[2] = { { "a", 0, 0 }, { "b", 0, 0 } };
    vocabulary v = sound();

    (void)state;
    v.no_scores = true;
    refused(&v, "tokenizer.ggml.scores is missing");
    v = sound();
    v.n_scores_less = 1;
    refused(&v, "273 items for 274 tokens");
    v = sound();
    v.scores_kind = TR_GGUF_I32;
    refused(&v, "no array of 32-bit floats");
    v = sound();
    v.eos = 274;
    refused(&v, "eos_token_id is 274");
    v = vocabulary_of(odd, 2);
    odd[1].score = NAN;
    refused(&v, "scores[1] is no number");
    odd[1] = (token){ "<0x4>", 0, BYTE };
    refused(&v, "tokens[1] \"<0x4>\" is a byte's token");
    odd[1].text = "<0x4G>";
    refused(&v, "\"<0x4G>\"");
    memset(long_text, 'a', 1 << 15);
    odd[1] = (token){ long_text, 0, 0 };
    refused(&v, "too long: 32768 bytes at [1]");
    odd[1].type = CONTROL; /* no words, so they may be long */
    tr_tokenizer *t = tokenizer_of(&v);
    tr_tokenizer_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_gives_what_the_definition_gives),
        cmocka_unit_test(pieces_are_the_text_with_spaces_in_front_and_behind_special_tokens),
        cmocka_unit_test(special_tokens_come_from_their_whole_text_alone),
        cmocka_unit_test(characters_without_a_piece_become_bytes),
        cmocka_unit_test(begin_and_end_are_as_the_file_says_or_as_usual),
        cmocka_unit_test(long_text_is_encoded_fast),
        cmocka_unit_test(inconsistent_vocabularies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
