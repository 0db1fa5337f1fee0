/* forward.h - one step: a batch of tokens through all layers.
 *
 * USE     tr_forward *f;
 *         st = tr_forward_new(&options, &f);
 *         st = tr_forward_step(f, &batch, logits);
 *         tr_forward_free(&f);
 *
 * A batch holds any mixture of rows of any sequences: a prompt's chunk, one new token each, both.
 * What is computed for a row does not depend on the others.  Rows of one sequence stand in
 * ascending position order, and its earlier positions went through in earlier steps or stand
 * before.
 *
 * STATE   One step at a time.
 * MEMORY  All buffers of a step, for the given maxima, are taken at new.
 * FAILS   What dispatch fails with; the step is then lost, and so is the forward.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_FORWARD_H
#define TR_COORDINATOR_MODEL_FORWARD_H

#include "base/clock.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/model/kv.h"
#include "coordinator/model/model.h"

typedef struct tr_forward tr_forward;

typedef struct {
    size_t n_rows;
    const uint32_t *token;           /* [n_rows] below n_vocab */
    const uint32_t *position;        /* [n_rows] */
    const tr_kv_table *const *table; /* [n_rows] the row's sequence; has pages for position */
    const uint8_t *wants_logits;     /* [n_rows] */
} tr_batch;

/* Where the time of steps went. */
typedef struct {
    tr_time dense;     /* projections to queries, keys, values and back, norms, rotation */
    tr_time attention; /* over the cache */
    tr_time router;
    tr_time dispatch; /* choosing and sending shares */
    tr_time shared;   /* the shared expert, while rows are away */
    tr_time experts;  /* computed in this process */
    tr_time wait;     /* for answers */
    tr_time combine;
    tr_time output; /* projection to logits, and the embedding */
} tr_forward_times;

typedef struct {
    const tr_model *model;
    const tr_compute *compute;
    tr_kv *kv;
    tr_dispatch *dispatch;
    size_t max_rows, max_logits; /* rows of a batch, and of those that want logits */
    size_t max_context;          /* positions of a sequence */

    /* May be NULL: sees the router's picks [n_rows][top_k] of each layer; top_k is the layer's. */
    void (*on_picks)(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows, size_t top_k);
    void *ctx;
} tr_forward_options;

tr_status tr_forward_new(const tr_forward_options *o, tr_forward **out);
void tr_forward_free(tr_forward **f);

/* Bytes of the buffers that new would take for a model that is not loaded, with so many threads. */
size_t tr_forward_bytes(const tr_model_config *c, const tr_kv_shape *kv, size_t threads,
                        size_t max_rows, size_t max_context);

/* logits is [number of rows that want them][n_vocab], in row order. */
tr_status tr_forward_step(tr_forward *f, const tr_batch *batch, float *logits);

tr_forward_times tr_forward_get_times(const tr_forward *f);

#endif
