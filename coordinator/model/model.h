/* model.h - the dense part of a model: blueprint and weights, loaded once, then constant.
 *
 * READ ME FIRST.  Three kinds of state, by lifetime: the model (this file), a sequence's keys
 * and values (kv.h), and the buffers of a step (forward.h).  forward.c is the whole pass of a
 * batch through the layers in the order of the papers; start there.
 *
 * USE     tr_model *m;
 *         st = tr_model_open(g, &compute, progress, ctx, &m);
 *         tr_model_close(&m);
 *
 * The experts' tensors are not read: whoever hosts experts does (experts/shards.h).
 *
 * FAILS   TR_E_FORMAT       a tensor is missing or has another shape than the metadata promises
 *         TR_E_UNSUPPORTED  architecture or tensor type without code
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_MODEL_H
#define TR_COORDINATOR_MODEL_MODEL_H

#include "compute/matrix.h"
#include "coordinator/model/arch.h"
#include "coordinator/model/latent_weights.h"
#include "experts/expert_map.h"

typedef struct {
    float *attn_norm;    /* [dim] */
    tr_weights q;        /* [n_heads * head_dim][dim] */
    tr_weights k;        /* [n_kv_heads * head_dim][dim] */
    tr_weights v;        /* [n_kv_heads * head_dim][dim] */
    float *q_bias;       /* [n_heads * head_dim], if config.has_qkv_bias; else NULL */
    float *k_bias;       /* [n_kv_heads * head_dim] */
    float *v_bias;       /* [n_kv_heads * head_dim] */
    float *q_norm;       /* [head_dim] or [n_heads * head_dim], by config.qk_norm; else NULL */
    float *k_norm;       /* [head_dim] or [n_kv_heads * head_dim] */
    tr_weights attn_out; /* [dim][n_heads * value_dim] */
    float *out_bias;     /* [dim], if config.has_out_bias; else NULL */
    float *sinks;        /* [n_heads], if config.has_sinks; else NULL */
    float *ffn_norm;     /* [dim] */

    /* If config.norm is TR_NORM_LAYER; else NULL. */
    float *attn_norm_bias, *ffn_norm_bias; /* [dim] */

    /* If config.latent, in place of k and v; if config.query_rank, q is [..][query_rank]. */
    tr_weights q_low;     /* [query_rank][dim] */
    float *q_low_norm;    /* [query_rank] */
    tr_weights kv_low;    /* [latent + n_rot][dim] */
    float *latent_norm;   /* [latent] */
    tr_latent_weights up; /* from the latent to keys and values */

    /* What follows is empty in a dense layer. */
    tr_weights router;  /* [n_experts][dim] */
    float *router_bias; /* [n_experts], if config.has_router_bias; else NULL */
    float *choice_bias; /* [n_experts], if config.has_choice_bias; else NULL */

    /* The shared expert, if config.shared_ffn. */
    tr_weights shared_gate, shared_up; /* [shared_ffn][dim] */
    tr_weights shared_down;            /* [dim][shared_ffn] */
    float *shared_weight;              /* [dim], if config.has_shared_gate; else NULL */
} tr_layer;

typedef struct {
    tr_model_config config;
    tr_expert_map experts;
    tr_weights embedding;    /* [n_vocab][dim] */
    tr_weights positions;    /* [context][dim], if config.has_positions */
    float *output_norm;      /* [dim] */
    float *output_norm_bias; /* [dim], if config.norm is TR_NORM_LAYER; else NULL */
    tr_weights output_own;   /* [n_vocab][dim]; empty where the embedding serves as output */
    const tr_matrix *output; /* whichever it is */
    float *rope_factors;     /* [n_rot / 2], if config.has_rope_factors; else NULL */
    tr_layer *layer;         /* [n_layers] */
    uint64_t bytes;          /* of dense weights in memory */
} tr_model;

/* progress (may be NULL) is called after each tensor with the bytes loaded so far; what it fails
 * with ends the loading. g must
 * outlive the model; matrices are laid out for compute. */
tr_status tr_model_open(const tr_gguf *g, const tr_compute *compute,
                        tr_status (*progress)(void *ctx, uint64_t bytes), void *ctx,
                        tr_model **out);
void tr_model_close(tr_model **m);

/* Whether tr_model_open and the experts' holders would take the file, without loading anything:
 * every tensor there, of its shape and of a type that can be computed, and none that nobody would
 * use, since leaving one out silently computes another model. */
tr_status tr_model_check(const tr_gguf *g);

/* The same, and the bytes that the dense weights would take in memory, laid out for compute. */
tr_status tr_model_measure(const tr_gguf *g, const tr_compute *compute, uint64_t *bytes);

/* Bytes of all tensors of the file that are not experts of its map, nor of blocks behind its
 * layers, which nobody loads. */
uint64_t tr_model_dense_bytes(const tr_gguf *g, const tr_expert_map *map);

#endif
