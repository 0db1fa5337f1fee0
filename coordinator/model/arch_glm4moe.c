/* arch_glm4moe.c - GLM-4.5 (GLM-4.5 Team, "GLM-4.5: agentic, reasoning, and coding foundation
 * models", 2025).
 *
 * Biases on queries, keys and values; only the first values of a head are rotated.  The first
 * layers are dense.  The others choose by sigmoid plus a bias that balances the load (Wang et al.,
 * "Auxiliary-loss-free load balancing", 2024) and weight by the sigmoid alone; beside the picked
 * experts every token goes through shared ones.  The last blocks of a file predict further tokens
 * and are not run.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

/* 2 is sigmoid, and so are files that don't say. */
static tr_status read_gate(const tr_gguf *g, tr_model_config *c)
{
    uint32_t gate = 0;

    tr_status st = tr_arch_number(g, c, "expert_gating_func", 2, &gate);
    if (st == TR_OK)
        st = tr_arch_flag(g, c, "expert_weights_norm", &c->renormalise);
    if (st == TR_OK)
        st = tr_arch_real(g, c, "expert_weights_scale", &c->routed_scale);
    c->gate = gate == 1 ? TR_GATE_SOFTMAX : TR_GATE_SIGMOID;
    c->has_choice_bias = true;
    return st;
}

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NEOX;
    c->has_qkv_bias = true;
    c->qk_norm = tr_gguf_find(g, "blk.0.attn_q_norm.weight") ? TR_QK_NORM_HEAD : TR_QK_NORM_NONE;
    c->ffn_norm = "post_attention_norm"; /* named so, but it stands before the experts */
    tr_status st = tr_arch_layers(g, c);
    if (st == TR_OK)
        st = tr_arch_rotated(g, c);
    if (st == TR_OK)
        st = tr_arch_shared(g, c);
    return st == TR_OK ? read_gate(g, c) : st;
}

const tr_arch tr_arch_glm4moe = {
    .name = "glm4moe",
    .configure = configure,
    .keys = { "nextn_predict_layers", "leading_dense_block_count", "rope.dimension_count",
              "expert_shared_count", "expert_gating_func", "expert_weights_scale" },
};
