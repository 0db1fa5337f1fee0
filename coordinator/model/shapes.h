/* shapes.h - the shapes of models that people know: sizes without weights.
 *
 * For making models of a shape (synth) and for planning.  The numbers are those of the models'
 * published configurations.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_SHAPES_H
#define TR_COORDINATOR_MODEL_SHAPES_H

#include "coordinator/model/arch.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name; /* "olmoe-1b-7b" */
    const char *arch; /* general.architecture */
    const char *what; /* one line for lists */
    uint32_t n_layers, dim, n_heads, n_kv_heads, head_dim;
    uint32_t n_experts, top_k, ffn; /* 0 and 0 in a dense model */
    uint32_t n_vocab, context;
    float rope_base, norm_eps;
    tr_qk_norm qk_norm;
    bool has_qkv_bias;
    uint32_t shared_ffn; /* width of the shared expert; 0: none */
} tr_model_shape;

/* The i-th shape; NULL past the last. */
const tr_model_shape *tr_model_shape_at(size_t i);

/* NULL if unknown. */
const tr_model_shape *tr_model_shape_find(const char *name);

#endif
