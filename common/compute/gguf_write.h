/* gguf_write.h - write a GGUF file from beginning to end, without holding it in memory.
 *
 * USE     tr_gguf_writer *w;
 *         st = tr_gguf_writer_new("out.gguf", overwrite, &w);
 *         tr_gguf_put_u32(w, "qwen3moe.block_count", 8);  ...      all metadata
 *         tr_gguf_put_tensor(w, name, type, dim, n_dims);  ...     all tensors, in data order
 *         st = tr_gguf_writer_begin_data(w);
 *         st = tr_gguf_writer_data(w, bytes);  ...                 each tensor's bytes, in pieces
 *         st = tr_gguf_writer_finish(&w);                          checked, then in place
 *         tr_gguf_writer_abandon(&w);                              instead: nothing is left
 *
 * Or the header alone, for who writes the data otherwise:
 *
 *         st = tr_gguf_writer_new(NULL, false, &w);  ...           metadata, tensors as above
 *         st = tr_gguf_writer_header(w, &header, &size);           a new block, padding included
 *         tr_gguf_writer_abandon(&w);
 *
 * The file grows as PATH.part and is renamed when it is complete, so a path never holds half a
 * model; what exists is replaced with overwrite only (base/new_file.h).  Padding between tensors is
 * written where it belongs.
 *
 * FAILS   TR_E_IO, TR_E_MEMORY.  Errors of the put functions are kept and come out of begin_data
 *         or header, once.  Declaring and writing other sizes than promised is a bug and aborts.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_GGUF_WRITE_H
#define TR_COMPUTE_GGUF_WRITE_H

#include "compute/gguf.h"

typedef struct tr_gguf_writer tr_gguf_writer;

tr_status tr_gguf_writer_new(const char *path, bool overwrite, tr_gguf_writer **out);

void tr_gguf_put_u32(tr_gguf_writer *w, const char *key, uint32_t v);
void tr_gguf_put_f32(tr_gguf_writer *w, const char *key, float v);
void tr_gguf_put_bool(tr_gguf_writer *w, const char *key, bool v);
void tr_gguf_put_string(tr_gguf_writer *w, const char *key, tr_bytes v);
void tr_gguf_put_strings(tr_gguf_writer *w, const char *key, const tr_bytes *v, size_t n);
void tr_gguf_put_i32s(tr_gguf_writer *w, const char *key, const int32_t *v, size_t n);
void tr_gguf_put_f32s(tr_gguf_writer *w, const char *key, const float *v, size_t n);

/* An entry of another file, as it is there. */
void tr_gguf_put_entry(tr_gguf_writer *w, const tr_gguf_entry *e);

/* dim[0] is contiguous; rows must be whole blocks. */
void tr_gguf_put_tensor(tr_gguf_writer *w, const char *name, tr_type type, const uint64_t *dim,
                        uint32_t n_dims);

tr_status tr_gguf_writer_header(const tr_gguf_writer *w, uint8_t **header, size_t *size);
tr_status tr_gguf_writer_begin_data(tr_gguf_writer *w);
tr_status tr_gguf_writer_data(tr_gguf_writer *w, tr_bytes bytes);
tr_status tr_gguf_writer_finish(tr_gguf_writer **w);
void tr_gguf_writer_abandon(tr_gguf_writer **w);

/* Bytes of tensor data declared so far, padding included. */
uint64_t tr_gguf_writer_data_size(const tr_gguf_writer *w);

#endif
