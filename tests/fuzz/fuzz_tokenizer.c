/* fuzz_tokenizer.c - no text and no vocabulary makes the tokenizer crash, and the pieces of what it
 * accepts are the text again (SentencePiece's but for spaces, which it may add).
 *
 * The first byte of an input chooses.  Below 0x80: the rest is text for a small vocabulary, with
 * parse_special and the pre-tokenizer, or SentencePiece behind the last of them, taken from the
 * byte's bits.  From 0x80 on: the rest
 * is a GGUF header, and the tokenizer made from it encodes fixed texts and a conversation.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/vocab_file.h"

#include "base/check.h"
#include "coordinator/text/chat.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"
#include "coordinator/text/vocab.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A text without its spaces, and without U+2581, which SentencePiece takes for one. */
static size_t strip(tr_bytes text, uint8_t *out)
{
    static const uint8_t mark[] = { 0xe2, 0x96, 0x81 };
    size_t n = 0;

    for (size_t i = 0; i < text.size; i++) {
        if (text.size - i >= sizeof mark && memcmp(text.data + i, mark, sizeof mark) == 0)
            i += sizeof mark - 1;
        else if (text.data[i] != ' ')
            out[n++] = text.data[i];
    }
    return n;
}

/* The pieces are the text, but for spaces.  At most one id is added for each byte. */
static void check_spm(const tr_tokenizer *t, tr_bytes text, const uint32_t *ids, size_t n)
{
    uint8_t *joined, *want = malloc(text.size + 1);
    size_t n_joined = 0, n_want;

    TR_CHECK(n <= 2 * text.size);
    for (size_t i = 0; i < n; i++)
        n_joined += tr_tokenizer_piece(t, ids[i]).size;
    TR_CHECK(n_joined <= 2 * text.size);
    joined = malloc(n_joined + 1);
    TR_CHECK(joined && want);
    n_joined = 0;
    for (size_t i = 0; i < n; i++) {
        tr_bytes piece = tr_tokenizer_piece(t, ids[i]);
        memcpy(joined + n_joined, piece.data, piece.size);
        n_joined += piece.size;
    }
    n_joined = strip((tr_bytes){ joined, n_joined }, joined);
    n_want = strip(text, want);
    TR_CHECK(n_joined == n_want);
    TR_CHECK(memcmp(joined, want, n_want) == 0);
    free(joined);
    free(want);
}

static void check_encode(const tr_tokenizer *t, bool is_spm, tr_bytes text, bool parse_special)
{
    uint32_t *ids;
    size_t n, pos = 0, bad;
    tr_status st = tr_tokenizer_encode(t, text, parse_special, &ids, &n);

    TR_CHECK(st == TR_OK || st == TR_E_REQUEST);
    if (st != TR_OK)
        return;
    TR_CHECK(tr_utf8_valid(text, &bad));
    for (size_t i = 0; i < n; i++)
        TR_CHECK(ids[i] < tr_tokenizer_n_vocab(t));
    if (is_spm) {
        check_spm(t, text, ids, n);
        free(ids);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        tr_bytes piece = tr_tokenizer_piece(t, ids[i]);
        TR_CHECK(piece.size <= text.size - pos);
        TR_CHECK(tr_bytes_equal(piece, (tr_bytes){ text.data + pos, piece.size }));
        pos += piece.size;
    }
    TR_CHECK(pos == text.size);
    free(ids);
}

/* All bytes, a few merges, a control and a user-defined token. */
static tr_tokenizer *small_tokenizer(const char *pre)
{
    static const char *const merges[] = { "a a", "aa aa", "' s", "1 1", "\xc4\xa0 \xc4\xa0" };
    static const char *const more[] = { "aa",      "aaaa",     "'s", "11", "\xc4\xa0\xc4\xa0",
                                        "<|end|>", "<|end|>x", "  " };
    static const int32_t types[] = { 1, 1, 1, 1, 1, 3, 3, 4 };
    enum { N_MORE = sizeof more / sizeof more[0], N_MERGES = sizeof merges / sizeof merges[0] };
    vocab_file *f = vocab_file_new();
    tr_tokenizer *t = NULL;

    vocab_file_string(f, "tokenizer.ggml.model", "gpt2");
    vocab_file_string(f, "tokenizer.ggml.pre", pre);
    vocab_file_array(f, "tokenizer.ggml.tokens", TR_GGUF_STRING, 256 + N_MORE);
    for (size_t b = 0; b < 256; b++) {
        uint8_t text[2];
        vocab_file_put_text(f, (tr_bytes){ text, tr_vocab_encode_byte((uint8_t)b, text) });
    }
    for (size_t i = 0; i < N_MORE; i++)
        vocab_file_put_text(f, tr_bytes_of(more[i]));
    vocab_file_array(f, "tokenizer.ggml.token_type", TR_GGUF_I32, 256 + N_MORE);
    for (size_t b = 0; b < 256; b++)
        vocab_file_put_u32(f, 1);
    for (size_t i = 0; i < N_MORE; i++)
        vocab_file_put_u32(f, (uint32_t)types[i]);
    vocab_file_array(f, "tokenizer.ggml.merges", TR_GGUF_STRING, N_MERGES);
    for (size_t i = 0; i < N_MERGES; i++)
        vocab_file_put_text(f, tr_bytes_of(merges[i]));
    tr_gguf *g = vocab_file_parse(f);
    TR_CHECK(g);
    TR_CHECK(tr_tokenizer_new(g, &t) == TR_OK);
    tr_gguf_close(&g);
    free(f);
    return t;
}

/* All bytes, a few words with scores, a control and a user-defined token. */
static tr_tokenizer *small_spm(void)
{
    static const struct {
        const char *text;
        float score;
        int32_t type;
    } more[] = {
        { "<unk>", 0, 2 },
        { "<s>", 0, 3 },
        { "</s>", 0, 3 },
        { "\xe2\x96\x81", -1, 1 },
        { "\xe2\x96\x81\xe2\x96\x81", 1, 1 },
        { "a", -1, 1 },
        { "aa", 2, 1 },
        { "aaaa", 3, 1 },
        { "\xe2\x96\x81"
          "a",
          2, 1 },
        { "\xc3\xa4\xc3\xa4", 2, 1 },
        { "</s", 4, 1 },
        { "  ", 0, 4 },
        { "x", 0, 5 },
    };
    enum { N_MORE = sizeof more / sizeof more[0] };
    vocab_file *f = vocab_file_new();
    tr_tokenizer *t = NULL;

    vocab_file_string(f, "tokenizer.ggml.model", "llama");
    vocab_file_array(f, "tokenizer.ggml.tokens", TR_GGUF_STRING, 256 + N_MORE);
    for (size_t i = 0; i < N_MORE; i++)
        vocab_file_put_text(f, tr_bytes_of(more[i].text));
    for (size_t b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        vocab_file_put_text(f, tr_bytes_of(text));
    }
    vocab_file_array(f, "tokenizer.ggml.token_type", TR_GGUF_I32, 256 + N_MORE);
    for (size_t i = 0; i < 256 + N_MORE; i++)
        vocab_file_put_u32(f, i < N_MORE ? (uint32_t)more[i].type : 6);
    vocab_file_array(f, "tokenizer.ggml.scores", TR_GGUF_F32, 256 + N_MORE);
    for (size_t i = 0; i < 256 + N_MORE; i++) {
        float score = i < N_MORE ? more[i].score : 0;
        vocab_file_put(f, &score, sizeof score);
    }
    tr_gguf *g = vocab_file_parse(f);
    TR_CHECK(g);
    TR_CHECK(tr_tokenizer_new(g, &t) == TR_OK);
    tr_gguf_close(&g);
    free(f);
    return t;
}

static void fuzz_text(uint8_t choice, tr_bytes text)
{
    size_t n_names = 0;

    while (tr_pretokenizer_name_at(n_names))
        n_names++;
    const char *name = tr_pretokenizer_name_at((choice >> 1) % (n_names + 1));
    tr_tokenizer *t = name ? small_tokenizer(name) : small_spm();
    check_encode(t, !name, text, choice & 1);
    tr_tokenizer_free(&t);
}

/* The header may have a chat template. */
static void check_chat(const tr_gguf *g, const tr_tokenizer *t)
{
    const tr_chat_message messages[] = {
        { tr_bytes_of("system"), tr_bytes_of("<|im_end|>") },
        { tr_bytes_of("user"), tr_bytes_of("Hello") },
        { tr_bytes_of("assistant"), tr_bytes_of("</think>\nHi") },
        { tr_bytes_of("user"), tr_bytes_of("[/INST]</s>") },
    };
    uint32_t *ids;
    size_t n;
    tr_chat *c;

    if (tr_chat_open(g, t, NULL, &c) != TR_OK)
        return;
    for (size_t from = 0; from < 2; from++) {
        tr_status st = tr_chat_encode(c, messages + from, 4 - from, true, &ids, &n);
        TR_CHECK(st == TR_OK || st == TR_E_REQUEST);
        for (size_t i = 0; st == TR_OK && i < n; i++)
            TR_CHECK(ids[i] < tr_tokenizer_n_vocab(t));
        if (st == TR_OK)
            free(ids);
    }
    tr_chat_close(&c);
}

static void fuzz_vocabulary(tr_bytes header)
{
    static const char *const texts[] = {
        "",
        "Hello  world's 123\n\n",
        "<|im_end|><|endoftext|>",
        "a\xc3\xa4\xe4\xb8\xad\xf0\x9f\x98\x80",
        "aaaaaaaaaaaaaaaaaaaaaaa  \xe2\x96\x81 ab<s></s><unk>a",
    };
    tr_bytes model;
    tr_gguf *g = NULL;
    tr_tokenizer *t = NULL;

    if (tr_gguf_parse("fuzz", header, header.size, &g) != TR_OK)
        return;
    if (tr_tokenizer_new(g, &t) == TR_OK) {
        bool is_spm = tr_gguf_get_string(g, "tokenizer.ggml.model", &model) == TR_OK &&
                      tr_bytes_equal(model, tr_bytes_of("llama"));
        for (size_t i = 0; i < 2 * sizeof texts / sizeof texts[0]; i++)
            check_encode(t, is_spm, tr_bytes_of(texts[i / 2]), i % 2);
        for (uint32_t id = 0; id < tr_tokenizer_n_vocab(t); id++)
            TR_CHECK(!tr_tokenizer_is_special(t, id) || tr_tokenizer_piece(t, id).data);
        check_chat(g, t);
    }
    tr_tokenizer_free(&t);
    tr_gguf_close(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[256];

    if (size == 0)
        return 0;
    tr_fail_capture_begin(reason, sizeof reason);
    tr_bytes rest = { data + 1, size - 1 };
    if (data[0] < 0x80)
        fuzz_text(data[0], rest);
    else
        fuzz_vocabulary(rest);
    tr_fail_capture_end();
    return 0;
}
