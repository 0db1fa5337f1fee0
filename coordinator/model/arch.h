/* arch.h - what distinguishes one model architecture from another.
 *
 * An architecture is one small file: it names itself and, given the file's metadata, says which
 * variant of each part of a layer it uses.  The forward pass (forward.c) reads the variants;
 * nothing else knows architectures by name.
 *
 * TO ADD ONE  write arch_NAME.c with a `const tr_arch tr_arch_NAME`, list it in arch.c, add its
 *             reference models to tests/golden.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_ARCH_H
#define TR_COORDINATOR_MODEL_ARCH_H

#include "compute/gguf.h"

/* How the rotary embedding pairs the values of a head (Su et al., "RoFormer", 2021). */
typedef enum {
    TR_ROPE_NEOX, /* value i with value i + n/2 */
    TR_ROPE_NORM, /* value 2i with value 2i + 1 */
} tr_rope_kind;

/* RMS norm of queries and keys before the rotation. */
typedef enum {
    TR_QK_NORM_NONE,
    TR_QK_NORM_HEAD,  /* over each head, one weight vector of head_dim for all */
    TR_QK_NORM_WHOLE, /* over the whole projection */
} tr_qk_norm;

/* The blueprint: sizes and variants.  Filled once, then constant. */
typedef struct {
    const char *arch;
    uint32_t n_layers;
    uint32_t dim;
    uint32_t n_heads, n_kv_heads;
    uint32_t head_dim;
    uint32_t n_vocab;
    uint32_t context; /* positions that the model was trained for */
    uint32_t n_experts, top_k;
    float norm_eps;
    float rope_base;
    tr_rope_kind rope;
    tr_qk_norm qk_norm;
    bool renormalise; /* the picks' weights are divided by their sum */
    bool has_qkv_bias;
    uint32_t shared_ffn; /* width of the shared expert, which every token uses; 0: none */
} tr_model_config;

typedef struct {
    const char *name; /* general.architecture */

    /* Set the variants of c; the sizes have been read.  May read keys of its own. */
    tr_status (*configure)(const tr_gguf *g, tr_model_config *c);
} tr_arch;

extern const tr_arch tr_arch_olmoe;
extern const tr_arch tr_arch_qwen2moe;
extern const tr_arch tr_arch_qwen3moe;

/* Read and check the blueprint of a file.  TR_E_UNSUPPORTED names an unknown architecture and
 * lists the known ones; TR_E_FORMAT a key that is missing or makes no sense. */
tr_status tr_model_config_read(const tr_gguf *g, tr_model_config *out);

#endif
