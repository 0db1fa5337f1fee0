/* attention.h - each row looks at what its sequence has seen.
 *
 *   out_h = sum over positions p <= row's of softmax_p(scale * q_h . k_p) * v_p
 *
 * or, with a window, over the last so many of them.  A sink is a score beside those of positions,
 * which takes weight and gives nothing (Xiao et al., "Efficient streaming language models with
 * attention sinks", 2024).
 *
 * Query head h reads key/value head h / (n_heads / n_kv_heads) (Ainslie et al., "GQA",
 * 2023). Scores of all positions first, then one softmax, then the sum in position order: the
 * result depends on the row and its cache alone, not on the batch or on how a prompt was cut.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_ATTENTION_H
#define TR_COORDINATOR_MODEL_ATTENTION_H

#include "compute/matrix.h"
#include "coordinator/model/kv.h"

typedef struct {
    const tr_compute *compute;
    const tr_kv *kv;
    size_t layer;
    size_t n_rows, n_heads;
    float scale;
    size_t window;                   /* positions that a query sees, its own included; 0: all */
    const float *sinks;              /* [n_heads]; NULL: none */
    const float *q;                  /* [n_rows][n_heads][head_dim] */
    const tr_kv_table *const *table; /* [n_rows] */
    const uint32_t *position;        /* [n_rows]; the cache holds keys and values up to it */
    size_t score_stride;             /* at least the largest position + 1; + 2 with sinks */
    float *scratch;                  /* [threads][tr_attention_scratch()] */
    uint32_t *block_begin;           /* [n_rows] scratch */
    float *out;                      /* [n_rows][n_heads][head_dim] */
} tr_attention;

/* Queries that share a page of keys and values while it is in the nearest cache. */
enum { TR_ATTENTION_BLOCK = 16 };

/* Floats of scratch that a thread needs. */
size_t tr_attention_scratch(const tr_kv_shape *shape, size_t score_stride);

void tr_attention_run(const tr_attention *a);

#endif
