/* arch_deepseek2.c - DeepSeek-V2, V3 and R1, and what is built like them (DeepSeek-AI,
 * "DeepSeek-V2", 2024, and "DeepSeek-V3 technical report", 2024).
 *
 * Multi-head latent attention (latent.h); only the last values of a head are rotated.  The first
 * layers are dense.  V2 chooses experts by softmax, V3 by sigmoid plus a bias that balances the
 * load, and both from a few groups of experts only (router.h); shared experts see every token.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

#include "proto/limits.h"

#include <math.h>
#include <stdio.h>

enum { MAX_LATENT = 4096 };

/* Newer files describe the heads as attention to latents sees them (latent.h), and the true ones by
 * keys ending in _mla. */
static tr_status read_true_heads(const tr_gguf *g, tr_model_config *c)
{
    uint32_t key = c->head_dim;
    uint32_t value = c->value_dim;

    c->head_dim = c->value_dim = 0;
    tr_status st = tr_arch_number(g, c, "attention.key_length_mla", MAX_LATENT, &c->head_dim);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "attention.value_length_mla", MAX_LATENT, &c->value_dim);
    if (st == TR_OK && (c->head_dim % 2 != 0 || c->value_dim == 0 || key != c->latent + c->n_rot ||
                        value != c->latent))
        st = tr_fail(TR_E_FORMAT,
                     "model %s: heads of %u and %u values over a latent of %u, %u rotated, are not "
                     "%u and %u (attention.key_length, value_length and their _mla)",
                     tr_gguf_path(g), c->head_dim, c->value_dim, c->latent, c->n_rot, key, value);
    return st;
}

static tr_status read_heads(const tr_gguf *g, tr_model_config *c)
{
    tr_status st = tr_arch_number(g, c, "attention.value_length", MAX_LATENT, &c->value_dim);

    if (st == TR_OK)
        st = tr_arch_number(g, c, "attention.q_lora_rank", TR_MAX_DIM, &c->query_rank);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "attention.kv_lora_rank", MAX_LATENT, &c->latent);
    if (st == TR_OK)
        st = tr_arch_rotated(g, c);
    if (st == TR_OK && tr_gguf_entry_find(g, "deepseek2.attention.key_length_mla"))
        st = read_true_heads(g, c);
    if (st == TR_OK && (c->latent == 0 || c->value_dim == 0 || c->n_rot >= c->head_dim))
        st =
            tr_fail(TR_E_FORMAT,
                    "model %s: latent attention needs a latent (it has %u values), heads that give "
                    "values (%u) and of which a part is rotated (%u of %u)",
                    tr_gguf_path(g), c->latent, c->value_dim, c->n_rot, c->head_dim);
    c->cache_heads = 1;
    c->cache_dim = c->latent + c->n_rot;
    return st;
}

/* What YaRN adds to the length of queries and keys is in the scores' scale; how much, only the file
 * can say. */
static tr_status read_scale(const tr_gguf *g, tr_model_config *c)
{
    float multiplier = 0.0f;

    tr_status st = tr_arch_yarn(g, c);
    if (st == TR_OK && tr_gguf_entry_find(g, "deepseek2.rope.scaling.yarn_log_multiplier"))
        st = tr_arch_real(g, c, "rope.scaling.yarn_log_multiplier", &multiplier);
    else if (st == TR_OK && c->yarn_factor > 1.0f)
        st = tr_fail(TR_E_FORMAT,
                     "model %s: deepseek2.rope.scaling.yarn_log_multiplier is missing; YaRN needs "
                     "it",
                     tr_gguf_path(g));
    double m = 1.0 + (double)multiplier * log((double)c->yarn_factor);
    c->attention_scale = (float)(m * m / sqrt((double)c->head_dim));
    return st;
}

/* 1 is softmax, 2 sigmoid.  Files that don't say are older, and of either kind: the bias is V3's.
 */
static tr_status read_gate(const tr_gguf *g, tr_model_config *c)
{
    uint32_t gate = 0;
    bool has_bias = tr_arch_has_choice_bias(g, c);

    tr_status st = tr_arch_number(g, c, "expert_gating_func", 2, &gate);
    if (st == TR_OK && gate == 1 && has_bias)
        st = tr_fail(TR_E_UNSUPPORTED,
                     "model %s: deepseek2.expert_gating_func is 1 (softmax), but there is a bias "
                     "for choosing (exp_probs_b): this variant is not supported",
                     tr_gguf_path(g));
    c->gate = gate == 2 || has_bias ? TR_GATE_SIGMOID : TR_GATE_SOFTMAX;
    c->has_choice_bias = c->gate == TR_GATE_SIGMOID;
    return st;
}

static tr_status read_experts(const tr_gguf *g, tr_model_config *c)
{
    tr_status st = tr_arch_layers(g, c);
    if (st == TR_OK)
        st = tr_arch_shared(g, c);
    if (st == TR_OK)
        st = read_gate(g, c);
    if (st == TR_OK)
        st = tr_arch_groups(g, c);
    if (st == TR_OK)
        st = tr_arch_flag(g, c, "expert_weights_norm", &c->renormalise);
    if (st == TR_OK)
        st = tr_arch_real(g, c, "expert_weights_scale", &c->routed_scale);
    return st;
}

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NORM;
    tr_status st = read_heads(g, c);
    if (st == TR_OK)
        st = read_scale(g, c);
    return st == TR_OK ? read_experts(g, c) : st;
}

const tr_arch tr_arch_deepseek2 = {
    .name = "deepseek2",
    .configure = configure,
    .keys = { "attention.value_length", "rope.dimension_count", "rope.scaling.type",
              "rope.scaling.factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
              "leading_dense_block_count", "nextn_predict_layers", "expert_shared_count",
              "expert_gating_func", "expert_weights_scale", "expert_group_count" },
};
