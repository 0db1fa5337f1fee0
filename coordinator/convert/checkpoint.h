/* checkpoint.h - all tensors of a Hugging Face directory, whichever of its files they are in.
 *
 * The files are those that model.safetensors.index.json names, or all *.safetensors where there is
 * no index.
 *
 * USE     tr_checkpoint *c;
 *         st = tr_checkpoint_open(dir, &c);
 *         tr_source *t = tr_checkpoint_find(c, "model.norm.weight");     NULL if absent
 *         st = tr_safetensors_read(t->file, t->tensor, 0, n, buffer);
 *         tr_checkpoint_close(&c);
 *
 * FAILS   TR_E_IO      no file, or one that can't be read
 *         TR_E_FORMAT  a malformed file; a tensor in two files; an index that promises what is not
 *                      there
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_CHECKPOINT_H
#define TR_COORDINATOR_CONVERT_CHECKPOINT_H

#include "coordinator/convert/safetensors.h"

typedef struct {
    const tr_safetensors *file;
    const tr_st_tensor *tensor;
    bool is_used; /* the caller's mark */
} tr_source;

typedef struct tr_checkpoint tr_checkpoint;

tr_status tr_checkpoint_open(const char *dir, tr_checkpoint **out);

/* The same of one file that is open already, which the checkpoint closes, also when this fails: for
 * who makes its header up, as a fuzzer does. */
tr_status tr_checkpoint_of(const char *dir, tr_safetensors *file, tr_checkpoint **out);

void tr_checkpoint_close(tr_checkpoint **c);

tr_source *tr_checkpoint_find(tr_checkpoint *c, const char *name);

/* In the order of their names. */
size_t tr_checkpoint_n(const tr_checkpoint *c);
const tr_source *tr_checkpoint_at(const tr_checkpoint *c, size_t i);

/* A number that changes when a file does. */
uint64_t tr_checkpoint_identity(const tr_checkpoint *c);

#endif
