/* gguf_entry.h - the inside of a tr_gguf, shared by the parser and the look-ups.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_GGUF_ENTRY_H
#define TR_COMPUTE_GGUF_ENTRY_H

#include "compute/gguf.h"

struct tr_gguf {
    char *path;
    int fd;    /* -1: parsed from memory */
    void *map; /* the file, if it is mapped */
    size_t map_size;
    uint64_t file_size;
    tr_bytes header; /* everything before the tensor data */
    uint32_t version;
    uint64_t identity;

    tr_gguf_entry *entry; /* [n_entries], as in the file */
    size_t n_entries;
    uint32_t *entry_by_key; /* [n_entries], in key order */

    tr_gguf_tensor *tensor; /* [n_tensors], as in the file */
    size_t n_tensors;
    uint32_t *tensor_by_name; /* [n_tensors], in name order */

    /* of a model in several files, which is its first file with the tensors of all */
    tr_gguf **part; /* [n_parts]; the first is NULL: it is this one itself */
    uint64_t *base; /* [n_parts] bytes of the parts before */
    size_t n_parts; /* 0: one file */
};

/* One file, a part or a whole. */
tr_status tr_gguf_open_file(const char *path, tr_gguf **out);

/* If *g is a part: all of them in its place. */
tr_status tr_gguf_join_parts(tr_gguf **g);

/* The file in which a byte lies; *offset becomes that in the file. */
const tr_gguf *tr_gguf_part_at(const tr_gguf *g, uint64_t *offset);

/* Sort the names; each may be there once. */
tr_status tr_gguf_index_tensors(tr_gguf *g);

/* Bytes of one value of a fixed-size kind; 0 for strings, arrays and unknown kinds. */
size_t tr_gguf_kind_size(tr_gguf_kind kind);

const char *tr_gguf_kind_name(tr_gguf_kind kind);

#endif
