/* gguf_bytes.h - build a GGUF header byte by byte, right or wrong, in memory.
 *
 * USE     gguf_bytes b = { 0 };
 *         gb_start(&b, 3, 1, 2);                        version, tensors, keys
 *         gb_text_entry(&b, "general.architecture", "x");
 *         gb_u32_entry(&b, "k", 7);
 *         gb_tensor(&b, "t", (uint64_t[]){ 32, 2 }, 2, TR_TYPE_F32, 0);
 *         b.data, b.size
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_SUPPORT_GGUF_BYTES_H
#define TR_TESTS_SUPPORT_GGUF_BYTES_H

#include "base/check.h"
#include "compute/gguf.h"

typedef struct {
    uint8_t data[8192];
    size_t size;
} gguf_bytes;

static inline void gb_put(gguf_bytes *b, const void *data, size_t size)
{
    TR_CHECK(b->size + size <= sizeof b->data);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static inline void gb_u32(gguf_bytes *b, uint32_t v)
{
    gb_put(b, &v, sizeof v);
}

static inline void gb_u64(gguf_bytes *b, uint64_t v)
{
    gb_put(b, &v, sizeof v);
}

static inline void gb_text(gguf_bytes *b, const char *text)
{
    gb_u64(b, strlen(text));
    gb_put(b, text, strlen(text));
}

static inline void gb_start(gguf_bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    gb_put(b, "GGUF", 4);
    gb_u32(b, version);
    gb_u64(b, n_tensors);
    gb_u64(b, n_keys);
}

static inline void gb_text_entry(gguf_bytes *b, const char *key, const char *value)
{
    gb_text(b, key);
    gb_u32(b, TR_GGUF_STRING);
    gb_text(b, value);
}

static inline void gb_u32_entry(gguf_bytes *b, const char *key, uint32_t v)
{
    gb_text(b, key);
    gb_u32(b, TR_GGUF_U32);
    gb_u32(b, v);
}

static inline void gb_tensor(gguf_bytes *b, const char *name, const uint64_t *dim, uint32_t n_dims,
                             uint32_t type, uint64_t offset)
{
    gb_text(b, name);
    gb_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        gb_u64(b, dim[i]);
    gb_u32(b, type);
    gb_u64(b, offset);
}

#endif
