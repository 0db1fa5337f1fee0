/* test_tokenizer.c - ids equal those of reference tokenizers, pieces put together are the text
 * again, special tokens are found where they should, and broken vocabularies are refused.
 *
 * Vectors: tests/golden/tok (in the tree), tests/golden/demo_tokens.vec (the shipped model), and
 * published vocabularies where TROUPE_REFERENCE or ../shared/reference has them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"
#include "tests/support/vocab_file.h"

#include "base/rng.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"

#include <unistd.h>

/* ---- files ---- */

/* The whole file with a zero behind it; NULL if there is none. */
static char *file_read(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 16);

    assert_non_null(text);
    if (!f) {
        free(text);
        return NULL;
    }
    *size = fread(text, 1, (1 << 16) - 1, f);
    fclose(f);
    assert_true(*size < (1 << 16) - 1);
    return text;
}

/* Strings of an .inp file, in order; *next is where to go on, NULL after the last. */
static tr_bytes next_string(char **next, char *end)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    size_t left = (size_t)(end - *next);
    char *found = memmem(*next, left, separator, strlen(separator));
    tr_bytes text = { (uint8_t *)*next, found ? (size_t)(found - *next) : left };

    *next = found && found + strlen(separator) < end ? found + strlen(separator) : NULL;
    return text;
}

/* True if the line holds exactly these ids; *line moves behind it. */
static bool line_equals(char **line, const uint32_t *ids, size_t n)
{
    char *end = strchr(*line, '\n'), *at = *line;
    size_t found = 0;
    bool is_equal = true;

    assert_non_null(end);
    for (;; found++) {
        at += strspn(at, " ");
        if (at >= end)
            break;
        unsigned long id = strtoul(at, &at, 10);
        is_equal = is_equal && found < n && ids[found] == id;
    }
    *line = end + 1;
    return is_equal && found == n;
}

/* How many strings get other ids than the vectors have. */
static size_t vectors_differ(const tr_tokenizer *t, const char *inp, const char *out)
{
    size_t inp_size, out_size, n_bad = 0, i = 0;
    char *texts = file_read(inp, &inp_size), *lines = file_read(out, &out_size);
    char *line = lines;

    assert_non_null(texts);
    assert_non_null(lines);
    for (char *next = texts; next; i++) {
        uint32_t *ids;
        size_t n;
        tr_bytes text = next_string(&next, texts + inp_size);
        assert_int_equal(tr_tokenizer_encode(t, text, false, &ids, &n), TR_OK);
        bool is_equal = line_equals(&line, ids, n);
        free(ids);
        if (is_equal)
            continue;
        print_message("%s: string %zu differs\n", out, i);
        n_bad++;
    }
    assert_true(i >= 46);
    free(texts);
    free(lines);
    return n_bad;
}

static tr_tokenizer *tokenizer_open(const char *path)
{
    tr_gguf *g = NULL;
    tr_tokenizer *t = NULL;

    assert_int_equal(tr_gguf_open(path, &g), TR_OK);
    assert_int_equal(tr_tokenizer_new(g, &t), TR_OK);
    tr_gguf_close(&g); /* the tokenizer doesn't need it any more */
    return t;
}

/* The small vocabulary with another family of pre-tokenizers. */
static tr_tokenizer *tiny_tokenizer(const char *pre)
{
    vocab_file *f = vocab_file_new();
    tr_gguf *original = NULL, *g;
    tr_tokenizer *t = NULL;

    assert_int_equal(tr_gguf_open(TR_TEST_DIR "/golden/tok/tiny.gguf", &original), TR_OK);
    for (size_t i = 0; i < tr_gguf_n_entries(original); i++) {
        const tr_gguf_entry *e = tr_gguf_entry_at(original, i);
        if (!tr_bytes_equal(e->key, tr_bytes_of("tokenizer.ggml.pre")))
            vocab_file_copy(f, e);
    }
    vocab_file_string(f, "tokenizer.ggml.pre", pre);
    g = vocab_file_parse(f);
    assert_non_null(g);
    assert_int_equal(tr_tokenizer_new(g, &t), TR_OK);
    tr_gguf_close(&g);
    tr_gguf_close(&original);
    free(f);
    return t;
}

/* ---- vectors ---- */

static void small_vocabulary_gives_the_reference_ids_in_every_family(void **state)
{
    static const struct {
        const char *out;
        const char *names[12];
    } groups[] = {
        { "default", { "default" } },
        { "llama-bpe", { "llama-bpe", "llama3", "dbrx", "smaug-bpe", "glm4", "chatglm-bpe" } },
        { "gpt-2", { "gpt-2", "olmo", "mpt", "phi-2", "trillion", "roberta-bpe" } },
        { "qwen2",
          { "qwen2", "stablelm2", "megrez", "bailingmoe", "hunyuan", "grok-2", "deepseek-r1-qwen",
            "tekken" } },
        { "qwen35", { "qwen35" } },
        { "deepseek-llm", { "deepseek-llm" } },
        { "deepseek-coder", { "deepseek-coder" } },
        { "deepseek-v3", { "deepseek-v3", "hunyuan-dense" } },
        { "refact",
          { "refact", "starcoder", "command-r", "smollm", "codeshell", "exaone", "minerva-7b" } },
        { "falcon", { "falcon" } },
        { "seed-coder", { "seed-coder" } },
        { "viking", { "viking" } },
        { "bloom", { "bloom" } },
        { "gpt-4o", { "gpt-4o", "llama4", "minimax-m2" } },
        { "kimi-k2", { "kimi-k2" } },
        { "superbpe", { "superbpe" } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        char out[512];
        snprintf(out, sizeof out, TR_TEST_DIR "/golden/tok/%s.out", groups[i].out);
        for (size_t j = 0; groups[i].names[j]; j++) {
            tr_tokenizer *t = tiny_tokenizer(groups[i].names[j]);
            size_t n_bad = vectors_differ(t, TR_TEST_DIR "/golden/tok/tiny.inp", out);
            if (n_bad > 0)
                fail_msg("%s: %zu strings differ", groups[i].names[j], n_bad);
            tr_tokenizer_free(&t);
        }
    }
}

static void small_sentencepiece_vocabulary_gives_the_reference_ids(void **state)
{
    (void)state;
    tr_tokenizer *t = tokenizer_open(TR_TEST_DIR "/golden/tok/spm.gguf");
    assert_int_equal(
        vectors_differ(t, TR_TEST_DIR "/golden/tok/tiny.inp", TR_TEST_DIR "/golden/tok/spm.out"),
        0);
    tr_tokenizer_free(&t);
}

/* Published vocabularies are too large for the tree: ggml-vocab-NAME.gguf with .inp and .out beside
 * them, in the folder tok/ of what the environment variable names. */
static const char *reference_directory(void)
{
    return getenv("TROUPE_REFERENCE");
}

static void published_vocabularies_give_the_published_ids(void **state)
{
    static const char *const names[] = { "deepseek-coder", "deepseek-llm", "falcon",
                                         "gpt-2",          "mpt",          "refact",
                                         "starcoder",      "llama-spm",    "phi-3" };
    const char *directory = reference_directory();
    size_t n_found = 0;

    (void)state;
    for (size_t i = 0; directory && i < sizeof names / sizeof names[0]; i++) {
        char path[512], inp[600], out[600];
        snprintf(path, sizeof path, "%s/tok/ggml-vocab-%s.gguf", directory, names[i]);
        snprintf(inp, sizeof inp, "%s.inp", path);
        snprintf(out, sizeof out, "%s.out", path);
        if (access(path, R_OK) != 0)
            continue;
        tr_tokenizer *t = tokenizer_open(path);
        assert_int_equal(vectors_differ(t, inp, out), 0);
        tr_tokenizer_free(&t);
        n_found++;
    }
    if (n_found == 0) {
        print_message("skipped: no published vocabularies (set TROUPE_REFERENCE to their place)\n");
        skip();
    }
}

static size_t hex_read(char **at, uint8_t *out)
{
    size_t n = 0;
    unsigned byte;

    for (; sscanf(*at, "%2x", &byte) == 1 && **at != ' '; *at += 2)
        out[n++] = (uint8_t)byte;
    return n;
}

static void the_shipped_model_gives_the_ids_that_it_was_trained_with(void **state)
{
    size_t size, n_tests = 0;

    (void)state;
    tr_tokenizer *t = tokenizer_open(TR_SOURCE_DIR "/models/demo.gguf");
    char *file = file_read(TR_TEST_DIR "/golden/demo_tokens.vec", &size);
    assert_non_null(file);
    for (char *line = file; *line;) {
        uint8_t text[256];
        uint32_t *ids;
        size_t n;
        if (*line == '#') {
            line = strchr(line, '\n') + 1;
            continue;
        }
        tr_bytes bytes = { text, 0 };
        if (*line == '-')
            line++;
        else
            bytes.size = hex_read(&line, text);
        assert_int_equal(tr_tokenizer_encode(t, bytes, false, &ids, &n), TR_OK);
        assert_true(line_equals(&line, ids, n));
        free(ids);
        n_tests++;
    }
    assert_int_equal(n_tests, 23);
    free(file);
    tr_tokenizer_free(&t);
}

/* ---- round trip ---- */

static size_t random_text(uint64_t seed, uint64_t round, uint8_t *out)
{
    size_t n = 0, n_chars = tr_rng_u64(seed, round, 0) % 60;

    for (size_t i = 0; i < n_chars; i++) {
        uint64_t r = tr_rng_u64(seed, round, i + 1);
        uint32_t limits[] = { 0x80, 0x80, 0x80, 0x250, 0x3000, 0xd800, 0x110000 };
        uint32_t code = (uint32_t)((r >> 8) % limits[r % 7]);
        if (code >= 0xd800 && code < 0xe000)
            continue;
        if (code < 0x80) {
            out[n++] = (uint8_t)code;
        } else if (code < 0x800) {
            out[n++] = (uint8_t)(0xc0 | code >> 6);
            out[n++] = (uint8_t)(0x80 | (code & 0x3f));
        } else {
            if (code >= 0x10000) {
                out[n++] = (uint8_t)(0xf0 | code >> 18);
                out[n++] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
            } else {
                out[n++] = (uint8_t)(0xe0 | code >> 12);
            }
            out[n++] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
            out[n++] = (uint8_t)(0x80 | (code & 0x3f));
        }
    }
    return n;
}

static void pieces_put_together_are_the_text(void **state)
{
    uint64_t seed = tr_test_seed();

    (void)state;
    for (size_t i = 0; tr_pretokenizer_name_at(i); i++) {
        tr_tokenizer *t = tiny_tokenizer(tr_pretokenizer_name_at(i));
        for (uint64_t round = 0; round < 200; round++) {
            uint8_t text[60 * 4], back[60 * 4];
            uint32_t *ids;
            size_t n_text = random_text(seed, round, text), n_back = 0, n;
            tr_bytes whole = { text, n_text };
            assert_int_equal(tr_tokenizer_encode(t, whole, round % 2, &ids, &n), TR_OK);
            for (size_t k = 0; k < n; k++) {
                tr_bytes piece = tr_tokenizer_piece(t, ids[k]);
                assert_true(piece.size <= n_text - n_back);
                memcpy(back + n_back, piece.data, piece.size);
                n_back += piece.size;
            }
            assert_int_equal(n_back, n_text);
            assert_memory_equal(back, text, n_text);
            free(ids);
        }
        tr_tokenizer_free(&t);
    }
}

/* ---- made-up vocabularies ---- */

typedef struct {
    const char *model, *pre;
    const char *const *tokens; /* up to a NULL */
    const int32_t *types;      /* as many; or NULL */
    const char *const *merges; /* up to a NULL; or NULL for no such key */
    int64_t bos, eos, add_bos; /* -1: no such key */
    size_t n_types_less;       /* leave out so many types */
    tr_gguf_kind types_kind;   /* other than I32 */
} vocabulary;

static size_t count(const char *const *strings)
{
    size_t n = 0;

    while (strings[n])
        n++;
    return n;
}

static void put_strings(vocab_file *f, const char *key, const char *const *strings)
{
    vocab_file_array(f, key, TR_GGUF_STRING, count(strings));
    for (size_t i = 0; strings[i]; i++)
        vocab_file_put_text(f, tr_bytes_of(strings[i]));
}

static tr_status vocabulary_load(vocabulary v, tr_tokenizer **t)
{
    vocab_file *f = vocab_file_new();
    tr_status st = TR_E_FORMAT;

    if (v.model)
        vocab_file_string(f, "tokenizer.ggml.model", v.model);
    if (v.pre)
        vocab_file_string(f, "tokenizer.ggml.pre", v.pre);
    if (v.tokens)
        put_strings(f, "tokenizer.ggml.tokens", v.tokens);
    if (v.types) {
        size_t n = count(v.tokens) - v.n_types_less;
        vocab_file_array(f, "tokenizer.ggml.token_type", v.types_kind ? v.types_kind : TR_GGUF_I32,
                         n);
        vocab_file_put(f, v.types, n * sizeof *v.types);
    }
    if (v.merges)
        put_strings(f, "tokenizer.ggml.merges", v.merges);
    if (v.bos >= 0)
        vocab_file_u32(f, "tokenizer.ggml.bos_token_id", (uint32_t)v.bos);
    if (v.eos >= 0)
        vocab_file_u32(f, "tokenizer.ggml.eos_token_id", (uint32_t)v.eos);
    if (v.add_bos >= 0)
        vocab_file_bool(f, "tokenizer.ggml.add_bos_token", v.add_bos > 0);
    tr_gguf *g = vocab_file_parse(f);
    if (g)
        st = tr_tokenizer_new(g, t);
    tr_gguf_close(&g);
    free(f);
    return st;
}

/* U+0120 is how a space is written. */
static const char *const letters[] = {
    "a",
    "b",
    "c",
    "ab",
    "abc",
    "\xc4\xa0",
    "\xc4\xa0"
    "a",
    "<s>",
    "<|im_end|>",
    "<|im_end",
    "  ",
    "   ",
    "ab",
    "\xc3\x83",
    "\xc2\xa4",
    NULL,
};
static const int32_t letter_types[] = { 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 4, 4, 1, 1, 1 };
static const char *const letter_merges[] = { "a b", "\xc4\xa0 a", NULL };

static vocabulary sound(void)
{
    return (vocabulary){ .model = "gpt2",
                         .pre = "gpt-2",
                         .tokens = letters,
                         .types = letter_types,
                         .merges = letter_merges,
                         .bos = 7,
                         .eos = 8,
                         .add_bos = -1 };
}

static tr_tokenizer *sound_tokenizer(vocabulary v)
{
    tr_tokenizer *t = NULL;

    assert_int_equal(vocabulary_load(v, &t), TR_OK);
    return t;
}

static void ids_equal(const tr_tokenizer *t, const char *text, bool parse_special,
                      const char *expected)
{
    char found[256] = "";
    uint32_t *ids;
    size_t n, at = 0;

    assert_int_equal(tr_tokenizer_encode(t, tr_bytes_of(text), parse_special, &ids, &n), TR_OK);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(found + at, sizeof found - at, "%s%u", i ? " " : "", ids[i]);
    assert_string_equal(found, expected);
    free(ids);
}

static void special_tokens_are_found_when_asked_for(void **state)
{
    tr_tokenizer *t = sound_tokenizer(sound());

    (void)state;
    ids_equal(t, "", true, "");
    ids_equal(t, "ab a", true, "3 6");
    ids_equal(t, "<s>ab<|im_end|>", true, "7 3 8"); /* the longest of those that begin there */
    ids_equal(t, "<|im_end", true, "9");
    tr_tokenizer_free(&t);
}

static void user_defined_tokens_are_always_found(void **state)
{
    tr_tokenizer *t = sound_tokenizer(sound());

    (void)state;
    ids_equal(t, "a  b", false, "0 10 1");
    ids_equal(t, "a     b", false, "0 11 10 1");
    ids_equal(t, "a    b", true, "0 11 5 1");
    tr_tokenizer_free(&t);
}

static void tokens_know_what_they_are(void **state)
{
    uint32_t bos = 99;
    tr_tokenizer *t = sound_tokenizer(sound());

    (void)state;
    assert_int_equal(tr_tokenizer_n_vocab(t), 15);
    assert_true(tr_bytes_equal(tr_tokenizer_piece(t, 6), tr_bytes_of(" a")));
    assert_true(tr_bytes_equal(tr_tokenizer_piece(t, 8), tr_bytes_of("<|im_end|>")));
    assert_true(tr_bytes_equal(tr_tokenizer_piece(t, 10), tr_bytes_of("  ")));
    assert_true(tr_bytes_equal(tr_tokenizer_piece(t, 13), tr_bytes_of("\xc3"))); /* a part */
    uint32_t id = 0;
    assert_true(tr_tokenizer_special(t, tr_bytes_of("<|im_end|>"), &id));
    assert_int_equal(id, 8);
    assert_true(tr_tokenizer_special(t, tr_bytes_of("  "), &id));
    assert_int_equal(id, 10);
    assert_false(tr_tokenizer_special(t, tr_bytes_of("<s>a"), &id));
    assert_false(tr_tokenizer_special(t, tr_bytes_of("<|im"), &id));
    assert_false(tr_tokenizer_special(t, tr_bytes_of("ab"), &id));
    assert_false(tr_tokenizer_special(t, tr_bytes_of(""), &id));
    assert_int_equal(id, 10);
    assert_true(tr_tokenizer_is_special(t, 7));
    assert_false(tr_tokenizer_is_special(t, 10));
    assert_false(tr_tokenizer_is_special(t, 0));
    assert_true(tr_tokenizer_is_eog(t, 8));
    assert_false(tr_tokenizer_is_eog(t, 7));
    assert_true(tr_tokenizer_bos(t, &bos));
    assert_int_equal(bos, 7);
    tr_tokenizer_free(&t);
    assert_null(t);
}

static void known_end_tokens_end_a_generation_without_being_named(void **state)
{
    vocabulary v = sound();
    int32_t types[15];

    (void)state;
    v.eos = 0;
    tr_tokenizer *t = sound_tokenizer(v);
    assert_true(tr_tokenizer_is_eog(t, 0));
    assert_true(tr_tokenizer_is_eog(t, 8));
    tr_tokenizer_free(&t);
    memcpy(types, letter_types, sizeof types);
    types[8] = 1; /* only text that looks like one */
    v.types = types;
    t = sound_tokenizer(v);
    assert_false(tr_tokenizer_is_eog(t, 8));
    tr_tokenizer_free(&t);
}

static void bos_is_added_if_the_file_says_so_or_the_family_does(void **state)
{
    static const struct {
        const char *pre;
        int64_t bos, add_bos;
        bool expected;
    } cases[] = {
        { "gpt-2", 7, -1, false },    { "gpt-2", 7, 1, true },      { "gpt-2", -1, 1, false },
        { "llama-bpe", 7, -1, true }, { "llama-bpe", 7, 0, false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vocabulary v = sound();
        v.pre = cases[i].pre;
        v.bos = cases[i].bos;
        v.add_bos = cases[i].add_bos;
        tr_tokenizer *t = sound_tokenizer(v);
        assert_int_equal(tr_tokenizer_adds_bos(t), cases[i].expected);
        tr_tokenizer_free(&t);
    }
}

/* "abc" is a token, but no merge leads to it. */
static void whole_words_are_taken_only_in_families_that_do(void **state)
{
    vocabulary v = sound();

    (void)state;
    tr_tokenizer *t = sound_tokenizer(v);
    ids_equal(t, "abc", false, "3 2");
    tr_tokenizer_free(&t);
    v.pre = "llama-bpe";
    t = sound_tokenizer(v);
    ids_equal(t, "abc", false, "4");
    ids_equal(t, "abca", false, "3 2 0");
    tr_tokenizer_free(&t);
}

static void of_equal_tokens_and_merges_the_first_counts(void **state)
{
    static const char *const twice[] = { "a b", "a b", NULL };
    vocabulary v = sound();

    (void)state;
    v.merges = twice;
    tr_tokenizer *t = sound_tokenizer(v);
    ids_equal(t, "ab", false, "3"); /* token 12 is "ab" as well */
    tr_tokenizer_free(&t);
}

static void bad_text_is_refused_with_the_position(void **state)
{
    tr_tokenizer *t = sound_tokenizer(sound());
    uint32_t *ids = NULL;
    char reason[128];
    size_t n = 77;

    (void)state;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_tokenizer_encode(t, tr_bytes_of("abc\xff"), false, &ids, &n), TR_E_REQUEST);
    assert_non_null(strstr(reason, "position 3"));
    assert_int_equal(tr_tokenizer_encode(t, tr_bytes_of("abz"), false, &ids, &n), TR_E_REQUEST);
    assert_non_null(strstr(reason, "0x7a"));
    tr_fail_capture_end();
    assert_null(ids);
    assert_int_equal(n, 77);
    tr_tokenizer_free(&t);
}

static void refused(vocabulary v, tr_status expected, const char *said)
{
    char reason[256];
    tr_tokenizer *t = NULL;

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = vocabulary_load(v, &t);
    tr_fail_capture_end();
    if (st != expected || !strstr(reason, said))
        fail_msg("expected %s with \"%s\", got %s: %s", tr_status_name(expected), said,
                 tr_status_name(st), reason);
    assert_null(t);
}

static void unsupported_kinds_are_named(void **state)
{
    vocabulary v = sound();

    (void)state;
    v.model = "bert";
    refused(v, TR_E_UNSUPPORTED, "\"bert\"");
    v = sound();
    v.pre = "gpt-9";
    refused(v, TR_E_UNSUPPORTED, "\"gpt-9\"");
}

static void inconsistent_vocabularies_are_refused(void **state)
{
    static const char *const none[] = { NULL };
    static const int32_t wrong_types[15] = { 1, 1, 1, 1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    vocabulary v = sound();

    (void)state;
    v.model = NULL;
    refused(v, TR_E_FORMAT, "tokenizer.ggml.model");
    v = sound();
    v.tokens = none;
    v.types = NULL;
    refused(v, TR_E_FORMAT, "tokenizer.ggml.tokens");
    v = sound();
    v.tokens = NULL;
    v.types = NULL;
    refused(v, TR_E_FORMAT, "tokenizer.ggml.tokens");
    v = sound();
    v.n_types_less = 1;
    refused(v, TR_E_FORMAT, "14 items for 15 tokens");
    v = sound();
    v.types_kind = TR_GGUF_F32;
    refused(v, TR_E_FORMAT, "32-bit integers");
    v = sound();
    v.types = wrong_types;
    refused(v, TR_E_FORMAT, "token_type[4] is 9");
    v = sound();
    v.bos = 15;
    refused(v, TR_E_FORMAT, "bos_token_id is 15");
    v = sound();
    v.eos = 15;
    refused(v, TR_E_FORMAT, "eos_token_id is 15");
}

static void merges_of_unknown_tokens_are_refused(void **state)
{
    static const struct {
        const char *merge, *said;
    } cases[] = {
        { "ab", "[1] is not two tokens" },
        { " b", "[1] is not two tokens" },
        { "a ", "[1] is not two tokens" },
        { "", "[1] is not two tokens" },
        { "a z", "\"a z\"" },
        { "z a", "\"z a\"" },
        { "b c", "\"b c\"" }, /* both halves are tokens, the whole is none */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const merges[] = { "a b", cases[i].merge, NULL };
        vocabulary v = sound();
        v.merges = merges;
        refused(v, TR_E_FORMAT, cases[i].said);
    }
    int32_t types[15];
    vocabulary v = sound();
    v.merges = NULL;
    refused(v, TR_E_FORMAT, "tokenizer.ggml.merges");
    v = sound();
    memcpy(types, letter_types, sizeof types);
    types[6] = 4; /* the text of a user-defined token is no byte alphabet: two bytes, then "a" */
    v.types = types;
    refused(v, TR_E_FORMAT, "joins special tokens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_vocabulary_gives_the_reference_ids_in_every_family),
        cmocka_unit_test(small_sentencepiece_vocabulary_gives_the_reference_ids),
        cmocka_unit_test(published_vocabularies_give_the_published_ids),
        cmocka_unit_test(the_shipped_model_gives_the_ids_that_it_was_trained_with),
        cmocka_unit_test(pieces_put_together_are_the_text),
        cmocka_unit_test(special_tokens_are_found_when_asked_for),
        cmocka_unit_test(user_defined_tokens_are_always_found),
        cmocka_unit_test(tokens_know_what_they_are),
        cmocka_unit_test(known_end_tokens_end_a_generation_without_being_named),
        cmocka_unit_test(bos_is_added_if_the_file_says_so_or_the_family_does),
        cmocka_unit_test(whole_words_are_taken_only_in_families_that_do),
        cmocka_unit_test(of_equal_tokens_and_merges_the_first_counts),
        cmocka_unit_test(bad_text_is_refused_with_the_position),
        cmocka_unit_test(unsupported_kinds_are_named),
        cmocka_unit_test(inconsistent_vocabularies_are_refused),
        cmocka_unit_test(merges_of_unknown_tokens_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
