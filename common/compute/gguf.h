/* gguf.h - read a GGUF model file (versions 2 and 3), believing nothing in it.
 *
 * USE     tr_gguf *g;
 *         st = tr_gguf_open("model.gguf", &g);       header mapped, parsed, validated
 *         uint32_t n;
 *         st = tr_gguf_get_u32(g, "qwen3moe.block_count", &n);
 *         const tr_gguf_tensor *t = tr_gguf_find(g, "token_embd.weight");
 *         st = tr_gguf_read(g, t->offset, t->size, buffer);
 *         tr_gguf_close(&g);
 *
 * A model in several files (NAME-00001-of-00003.gguf) is opened by the path of any of them, and
 * reads as one: offsets count through all files.
 *
 * The file is mapped to parse the header.  Tensor data is never touched through the
 * mapping: whoever hosts a tensor copies its bytes once with tr_gguf_read, so a process
 * is only as large as what it hosts.
 *
 * CHECKED at open: magic, byte order, version; counts, string lengths and nesting against
 * the file's size and TR_GGUF_MAX_*; alignment a power of two; keys and tensor names
 * valid UTF-8 and unique; known types; dimensions non-zero and their product in range;
 * rows whole blocks; offsets aligned, inside the file, not overlapping.
 *
 * STATE   Immutable after open.
 * THREAD  Any number of readers.
 * MEMORY  Views (tr_bytes) and tensors live until close.
 * FAILS   TR_E_IO      can't open or read
 *         TR_E_FORMAT  malformed, with what and where in the line
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_GGUF_H
#define TR_COMPUTE_GGUF_H

#include "base/bytes.h"
#include "base/status.h"
#include "compute/types.h"

enum {
    TR_GGUF_MAX_DIMS = 4,
    TR_GGUF_MAX_TENSORS = 1 << 20,
    TR_GGUF_MAX_KEYS = 1 << 16,
    TR_GGUF_MAX_NAME = 256,
};

typedef struct tr_gguf tr_gguf;

typedef struct {
    char name[TR_GGUF_MAX_NAME]; /* zero-terminated, valid UTF-8 */
    tr_type type;
    uint32_t n_dims;
    uint64_t dim[TR_GGUF_MAX_DIMS]; /* dim[0] is contiguous; unused ones are 1 */
    uint64_t offset;                /* of the first byte, from the start of the (first) file */
    uint64_t size;                  /* bytes */
} tr_gguf_tensor;

typedef enum {
    TR_GGUF_U8 = 0,
    TR_GGUF_I8 = 1,
    TR_GGUF_U16 = 2,
    TR_GGUF_I16 = 3,
    TR_GGUF_U32 = 4,
    TR_GGUF_I32 = 5,
    TR_GGUF_F32 = 6,
    TR_GGUF_BOOL = 7,
    TR_GGUF_STRING = 8,
    TR_GGUF_ARRAY = 9,
    TR_GGUF_U64 = 10,
    TR_GGUF_I64 = 11,
    TR_GGUF_F64 = 12,
} tr_gguf_kind;

/* One metadata entry.  For an array, kind is TR_GGUF_ARRAY, item its elements' kind and n
 * their number; raw is the encoded value (strings: u64 length + bytes, one after the other). */
typedef struct {
    tr_bytes key;
    tr_gguf_kind kind, item;
    uint64_t n;
    tr_bytes raw;
} tr_gguf_entry;

tr_status tr_gguf_open(const char *path, tr_gguf **out);
void tr_gguf_close(tr_gguf **g);

/* Parse a header from memory, as if it were the start of a file of file_size bytes called
 * name.  header is borrowed and must outlive *out; tr_gguf_read then fails.  For tests and
 * fuzzers. */
tr_status tr_gguf_parse(const char *name, tr_bytes header, uint64_t file_size, tr_gguf **out);

const char *tr_gguf_path(const tr_gguf *g);
uint64_t tr_gguf_file_size(const tr_gguf *g); /* of all parts */
uint32_t tr_gguf_version(const tr_gguf *g);

/* The same for two files with the same header bytes and size; workers prove with it that
 * they opened the coordinator's model.  XXH3-64 over header and size. */
uint64_t tr_gguf_identity(const tr_gguf *g);

size_t tr_gguf_n_tensors(const tr_gguf *g);
const tr_gguf_tensor *tr_gguf_tensor_at(const tr_gguf *g, size_t i);
const tr_gguf_tensor *tr_gguf_find(const tr_gguf *g, const char *name); /* NULL if absent */

size_t tr_gguf_n_entries(const tr_gguf *g);
const tr_gguf_entry *tr_gguf_entry_at(const tr_gguf *g, size_t i);
const tr_gguf_entry *tr_gguf_entry_find(const tr_gguf *g, const char *key); /* NULL if absent */

/* A required value.  Integers of any width and sign convert if the value fits; a missing key
 * or another kind is TR_E_FORMAT and says which key of which file. */
tr_status tr_gguf_get_u32(const tr_gguf *g, const char *key, uint32_t *out);
tr_status tr_gguf_get_f32(const tr_gguf *g, const char *key, float *out);
tr_status tr_gguf_get_bool(const tr_gguf *g, const char *key, bool *out);
tr_status tr_gguf_get_string(const tr_gguf *g, const char *key, tr_bytes *out);

/* An optional value: *out keeps what it has if the key is absent. */
tr_status tr_gguf_opt_u32(const tr_gguf *g, const char *key, uint32_t *out);
tr_status tr_gguf_opt_f32(const tr_gguf *g, const char *key, float *out);
tr_status tr_gguf_opt_bool(const tr_gguf *g, const char *key, bool *out);
tr_status tr_gguf_opt_string(const tr_gguf *g, const char *key, tr_bytes *out);

/* A required array of strings: *out gets a new array of *n views; free() it. */
tr_status tr_gguf_get_strings(const tr_gguf *g, const char *key, tr_bytes **out, size_t *n);

/* Copy size bytes from offset of the file into to.  TR_E_IO if the file ends earlier than it
 * did at open, or can't be read. */
tr_status tr_gguf_read(const tr_gguf *g, uint64_t offset, size_t size, void *to);

/* The same for one of many threads that read parts of what tr_fault_before_read was asked about:
 * says nothing when it fails.  tr_gguf_read of the same bytes says why. */
bool tr_gguf_try_read(const tr_gguf *g, uint64_t offset, size_t size, void *to);

#endif
