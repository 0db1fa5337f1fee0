/* apply.h - compute a share: rows in, one answer row per pick out.
 *
 *   answer[p] = down_e * (silu(gate_e * x) . (up_e * x))     e = picks[p].expert,
 *                                                            x = rows[picks[p].row]
 *
 * (SwiGLU: Shazeer, "GLU variants improve transformer", 2020.)  Experts with biases are gpt-oss's
 * kind, which bends SwiGLU and keeps it within bounds:
 *
 *   g = min(gate_e * x + b, 7)    u = clip(up_e * x + b, -7, 7)
 *   answer[p] = down_e * (g . sigmoid(1.702 g) . (u + 1)) + b
 *
 * and a network without a gate is GPT-2's kind (Hendrycks and Gimpel, "Gaussian error linear
 * units", 2016, in the approximation by tanh):
 *
 *   answer[p] = down_e * gelu(up_e * x + b) + b
 *
 * The router's weight is not
 * applied here: the coordinator multiplies when it adds up.
 *
 * USE     tr_apply *a;
 *         st = tr_apply_new(&compute, shards, &a);
 *         st = tr_apply_share(a, &share, answers, tick, ctx);
 *         tr_apply_free(&a);
 *
 * A share is worked on in chunks of bounded scratch; within a chunk all groups are cut into
 * ranges of hidden units and the pool takes them as they come, so one expert with most of
 * the rows keeps all threads busy.  Neither chunks nor ranges change a result.
 *
 * MEMORY  Scratch is taken at new.
 * FAILS   TR_E_PROTOCOL  an expert of the share is not held here
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_EXPERTS_APPLY_H
#define TR_EXPERTS_APPLY_H

#include "compute/matrix.h"
#include "experts/group.h"
#include "experts/shards.h"

typedef struct tr_apply tr_apply;

typedef struct {
    uint32_t layer;
    tr_act act;
    size_t n_rows, n_picks;
    const tr_share_pick *picks; /* [n_picks], ascending (expert, row) */
    const uint8_t *rows;        /* [n_rows][row_size], 64-byte aligned */
    size_t row_size;
} tr_apply_share_in;

tr_status tr_apply_new(const tr_compute *compute, const tr_shards *shards, tr_apply **out);
void tr_apply_free(tr_apply **a);

/* Bytes of the scratch that new takes. */
size_t tr_apply_bytes(const tr_expert_map *map);

/* Experts of the same map, from now on. */
void tr_apply_use(tr_apply *a, const tr_shards *shards);

/* answers is [n_picks][dim].  tick (may be NULL) is called between chunks, so that a long share
 * does not silence its process. */
tr_status tr_apply_share(tr_apply *a, const tr_apply_share_in *share, float *answers,
                         void (*tick)(void *ctx), void *ctx);

#endif
