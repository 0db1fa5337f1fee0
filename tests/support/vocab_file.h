/* vocab_file.h - write a GGUF header that holds nothing but metadata, in memory.
 *
 * For tests and fuzzers alike, so without cmocka.
 *
 * USE     vocab_file *f = vocab_file_new();
 *         vocab_file_string(f, "tokenizer.ggml.model", "gpt2");
 *         tr_gguf *g = vocab_file_parse(f);
 *         tr_gguf_close(&g);  free(f);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_SUPPORT_VOCAB_FILE_H
#define TR_TESTS_SUPPORT_VOCAB_FILE_H

#include "base/check.h"
#include "compute/gguf.h"

#include <stdlib.h>

typedef struct {
    uint8_t data[1 << 16];
    size_t size;
    uint64_t n_keys;
} vocab_file;

static inline void vocab_file_put(vocab_file *f, const void *data, size_t size)
{
    TR_CHECK(size <= sizeof f->data - f->size);
    if (size > 0)
        memcpy(f->data + f->size, data, size);
    f->size += size;
}

static inline void vocab_file_put_u32(vocab_file *f, uint32_t value)
{
    vocab_file_put(f, &value, sizeof value);
}

static inline void vocab_file_put_u64(vocab_file *f, uint64_t value)
{
    vocab_file_put(f, &value, sizeof value);
}

static inline void vocab_file_put_text(vocab_file *f, tr_bytes text)
{
    vocab_file_put_u64(f, text.size);
    vocab_file_put(f, text.data, text.size);
}

static inline vocab_file *vocab_file_new(void)
{
    vocab_file *f = calloc(1, sizeof *f);

    TR_CHECK(f);
    vocab_file_put(f, "GGUF\3\0\0\0", 8);
    vocab_file_put_u64(f, 0); /* tensors */
    vocab_file_put_u64(f, 0); /* keys, set by vocab_file_parse */
    return f;
}

static inline void vocab_file_key(vocab_file *f, const char *key, tr_gguf_kind kind)
{
    vocab_file_put_text(f, tr_bytes_of(key));
    vocab_file_put_u32(f, kind);
    f->n_keys++;
}

static inline void vocab_file_string(vocab_file *f, const char *key, const char *value)
{
    vocab_file_key(f, key, TR_GGUF_STRING);
    vocab_file_put_text(f, tr_bytes_of(value));
}

static inline void vocab_file_u32(vocab_file *f, const char *key, uint32_t value)
{
    vocab_file_key(f, key, TR_GGUF_U32);
    vocab_file_put_u32(f, value);
}

static inline void vocab_file_bool(vocab_file *f, const char *key, bool value)
{
    uint8_t byte = value;

    vocab_file_key(f, key, TR_GGUF_BOOL);
    vocab_file_put(f, &byte, 1);
}

static inline void vocab_file_array(vocab_file *f, const char *key, tr_gguf_kind item, uint64_t n)
{
    vocab_file_key(f, key, TR_GGUF_ARRAY);
    vocab_file_put_u32(f, item);
    vocab_file_put_u64(f, n);
}

/* The same entry as in another file. */
static inline void vocab_file_copy(vocab_file *f, const tr_gguf_entry *e)
{
    vocab_file_put_text(f, e->key);
    vocab_file_put_u32(f, e->kind);
    f->n_keys++;
    if (e->kind == TR_GGUF_ARRAY) {
        vocab_file_put_u32(f, e->item);
        vocab_file_put_u64(f, e->n);
    }
    vocab_file_put(f, e->raw.data, e->raw.size);
}

/* f must outlive the result.  NULL if the reader refuses it. */
static inline tr_gguf *vocab_file_parse(vocab_file *f)
{
    tr_gguf *g = NULL;
    size_t padded = tr_align_up(f->size, 32);

    TR_CHECK(padded <= sizeof f->data);
    memcpy(f->data + 16, &f->n_keys, sizeof f->n_keys);
    if (tr_gguf_parse("vocab", (tr_bytes){ f->data, padded }, padded, &g) != TR_OK)
        return NULL;
    return g;
}

#endif
