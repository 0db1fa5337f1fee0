/* arch.h - what distinguishes one model architecture from another.
 *
 * An architecture is one small file: it names itself and, given the file's metadata, says which
 * variant of each part of a layer it uses.  The forward pass (forward.c) reads the variants;
 * nothing else knows architectures by name.
 *
 * TO ADD ONE  write arch_NAME.c with a `const tr_arch tr_arch_NAME`, list it in arch.c, add its
 *             reference models to tests/golden.  What it sets beyond the defaults is what
 *             distinguishes it; a variant that nobody has yet becomes a field here.
 *             docs/adding-a-model.md has the steps.
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

/* What stands before attention, before the network, and before the output. */
typedef enum {
    TR_NORM_RMS,   /* Zhang and Sennrich, "Root mean square layer normalization", 2019 */
    TR_NORM_LAYER, /* the mean is taken away first, a bias added last: layer_norm.h */
} tr_norm;

/* RMS norm of queries and keys before the rotation. */
typedef enum {
    TR_QK_NORM_NONE,
    TR_QK_NORM_HEAD,  /* over each head, one weight vector of head_dim for all */
    TR_QK_NORM_WHOLE, /* over the whole projection */
} tr_qk_norm;

/* What the router's logits become before experts are chosen by them. */
typedef enum {
    TR_GATE_SOFTMAX, /* over all experts */
    TR_GATE_SIGMOID, /* each for itself */
} tr_gate;

/* The blueprint: sizes and variants.  Filled once, then constant. */
typedef struct {
    const char *arch;
    uint32_t n_layers; /* those that are run */
    uint32_t n_behind; /* blocks behind them, which predict further tokens and are not run */
    uint32_t n_dense; /* of them, the first ones, which have one feed-forward network, no experts */
    uint32_t dim;
    uint32_t n_heads, n_kv_heads;
    uint32_t head_dim;
    uint32_t n_vocab;
    uint32_t context;          /* positions that the model was trained for */
    uint32_t n_experts, top_k; /* 1 and 1 in a model without experts */
    tr_norm norm;
    float norm_eps;
    bool has_positions; /* a vector for each of `context` positions is added to embeddings */

    /* attention */
    bool has_joint_qkv; /* queries', keys' and values' rows are one matrix, attn_qkv */
    float rope_base;
    tr_rope_kind rope;
    uint32_t n_rot; /* values of a head that are rotated, the first ones: head_dim; 0: none */
    bool has_rope_factors; /* rope_freqs.weight divides the frequencies */
    float rope_linear;     /* positions are divided by this: 1 */
    float yarn_factor;     /* how far YaRN stretches the context: 1 */
    uint32_t yarn_context; /* from this many positions */
    float yarn_fast;       /* pairs that turn so many times in these keep their frequency: 32 */
    float yarn_slow;       /* those that turn at most so many times are slowed by the factor: 1 */
    float rope_magnitude;  /* of cosine and sine: 1 */
    tr_qk_norm qk_norm;
    bool has_qkv_bias, has_out_bias;
    bool has_sinks;        /* a score of each head beside those of positions */
    uint32_t window;       /* positions that even layers see, from 0 on; 0: all */
    float attention_scale; /* of scores: 1 / sqrt(head_dim) */

    /* multi-head latent attention (latent.h) */
    uint32_t latent;     /* values that a position's keys and values are made of; 0: no latent */
    uint32_t query_rank; /* of queries made in two steps; 0: in one */

    uint32_t value_dim;              /* values that a head gives: head_dim */
    uint32_t cache_heads, cache_dim; /* what is kept of a position: n_kv_heads, head_dim */

    /* experts */
    const char *ffn_norm; /* the tensor's name: "ffn_norm" */
    bool has_plain_ffn;   /* dense networks without a gate, with biases (experts/apply.h) */
    bool has_expert_bias; /* and with it another activation (experts/apply.h) */
    bool has_router_bias;
    tr_gate gate;
    bool has_choice_bias; /* added to what the gate gives for choosing, not to the weights */
    uint32_t n_groups;    /* of experts, of which a row uses experts of a few; 0: no groups */
    uint32_t used_groups; /* those few */
    bool renormalise;     /* the picks' weights are divided by their sum */
    float routed_scale;   /* the picks' weights are multiplied by this: 1 */
    uint32_t shared_ffn;  /* width of the shared expert, which every token uses; 0: none */
    bool has_shared_gate; /* its answer is weighted: sigmoid(gate . x) */

    float embedding_scale; /* 1 */
    float residual_scale;  /* of what a branch adds: 1 */
    float logit_scale;     /* logits are divided by this: 1 */
} tr_model_config;

enum { TR_ARCH_KEYS = 16, TR_MAX_GROUPS = 64, TR_MAX_CONTEXT = 1 << 24 };

typedef struct {
    const char *name; /* general.architecture */

    /* Set the variants of c; sizes have been read, variants have the defaults above. */
    tr_status (*configure)(const tr_gguf *g, tr_model_config *c);

    /* Keys that configure looks at, without "NAME.": elsewhere they are refused where they ask for
     * more than the defaults. */
    const char *keys[TR_ARCH_KEYS];
} tr_arch;

extern const tr_arch tr_arch_bailingmoe2;
extern const tr_arch tr_arch_deepseek2;
extern const tr_arch tr_arch_glm4moe;
extern const tr_arch tr_arch_gpt2;
extern const tr_arch tr_arch_gpt_oss;
extern const tr_arch tr_arch_granitemoe;
extern const tr_arch tr_arch_llama;
extern const tr_arch tr_arch_olmoe;
extern const tr_arch tr_arch_qwen2moe;
extern const tr_arch tr_arch_qwen3;
extern const tr_arch tr_arch_qwen3moe;

/* For configure: the key ARCH.name, which may be absent, *out then stays.  TR_E_FORMAT if a number
 * is larger than max, or a real one not finite and above 0. */
tr_status tr_arch_number(const tr_gguf *g, const tr_model_config *c, const char *name, uint32_t max,
                         uint32_t *out);
tr_status tr_arch_real(const tr_gguf *g, const tr_model_config *c, const char *name, float *out);
tr_status tr_arch_flag(const tr_gguf *g, const tr_model_config *c, const char *name, bool *out);

/* For configure: parts that several architectures have, from the keys that they have in common. */
tr_status tr_arch_layers(const tr_gguf *g, tr_model_config *c);  /* n_layers, n_behind, n_dense */
tr_status tr_arch_yarn(const tr_gguf *g, tr_model_config *c);    /* yarn_... */
tr_status tr_arch_shared(const tr_gguf *g, tr_model_config *c);  /* shared_ffn */
tr_status tr_arch_rotated(const tr_gguf *g, tr_model_config *c); /* n_rot */
tr_status tr_arch_groups(const tr_gguf *g, tr_model_config *c);  /* n_groups, used_groups */

/* Whether the first layer with experts has exp_probs_b.bias; after tr_arch_layers. */
bool tr_arch_has_choice_bias(const tr_gguf *g, const tr_model_config *c);

/* Read and check the blueprint of a file.  TR_E_UNSUPPORTED names an unknown architecture and
 * lists the known ones; TR_E_FORMAT a key that is missing or makes no sense. */
tr_status tr_model_config_read(const tr_gguf *g, tr_model_config *out);

#endif
