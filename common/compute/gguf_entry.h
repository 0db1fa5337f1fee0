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
};

/* Bytes of one value of a fixed-size kind; 0 for strings, arrays and unknown kinds. */
size_t tr_gguf_kind_size(tr_gguf_kind kind);

const char *tr_gguf_kind_name(tr_gguf_kind kind);

#endif
