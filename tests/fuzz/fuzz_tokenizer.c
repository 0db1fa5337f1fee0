/* fuzz_tokenizer.c - no text and no vocabulary makes the tokenizer crash, and the pieces of what it
 * accepts are the text again.
 *
 * The first byte of an input chooses.  Below 0x80: the rest is text for a small vocabulary, with
 * the pre-tokenizer and parse_special taken from the byte's bits.  From 0x80 on: the rest
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

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_encode(const tr_tokenizer *t, tr_bytes text, bool parse_special)
{
    uint32_t *ids;
    size_t n, pos = 0, bad;
    tr_status st = tr_tokenizer_encode(t, text, parse_special, &ids, &n);

    TR_CHECK(st == TR_OK || st == TR_E_REQUEST);
    if (st != TR_OK)
        return;
    TR_CHECK(tr_utf8_valid(text, &bad));
    for (size_t i = 0; i < n; i++) {
        TR_CHECK(ids[i] < tr_tokenizer_n_vocab(t));
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

static void fuzz_text(uint8_t choice, tr_bytes text)
{
    size_t n_names = 0;

    while (tr_pretokenizer_name_at(n_names))
        n_names++;
    tr_tokenizer *t = small_tokenizer(tr_pretokenizer_name_at((choice >> 1) % n_names));
    check_encode(t, text, choice & 1);
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
    };
    tr_gguf *g = NULL;
    tr_tokenizer *t = NULL;

    if (tr_gguf_parse("fuzz", header, header.size, &g) != TR_OK)
        return;
    if (tr_tokenizer_new(g, &t) == TR_OK) {
        for (size_t i = 0; i < 2 * sizeof texts / sizeof texts[0]; i++)
            check_encode(t, tr_bytes_of(texts[i / 2]), i % 2);
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
