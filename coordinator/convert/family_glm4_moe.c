/* family_glm4_moe.c - GLM-4.5: the first values of a head are rotated, the first layers are dense,
 * the layers behind the last predict further tokens.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/families.h"

enum { SPARSE = TR_RULE_SPARSE };

/* The part of a head that is rotated: newer directories have it among the rotation's numbers. */
static tr_status read_rotated(tr_hf_model *m)
{
    const char *kind;
    const json_t *o = tr_family_rope_scaling(m, &kind);
    float part = 0.5f;
    tr_status st = TR_OK;

    if (!tr_json_member(o, "partial_rotary_factor"))
        o = m->config->root;
    if (tr_json_member(o, "partial_rotary_factor"))
        st = tr_json_real(m->config, o, "partial_rotary_factor", &part);
    if (st == TR_OK && !(part > 0.0f && part <= 1.0f))
        st = tr_fail(TR_E_FORMAT, "%s: \"partial_rotary_factor\" is %g, but must be within 0..1",
                     m->config->path, (double)part);
    m->size[TR_SIZE_ROTATED] = (uint64_t)((double)part * (double)m->size[TR_SIZE_HEAD]);
    return st;
}

static tr_status configure(tr_hf_model *m)
{
    tr_status st = tr_family_heads(m);

    if (st == TR_OK)
        st = read_rotated(m);
    if (st == TR_OK)
        st = tr_family_rope(m);
    if (st != TR_OK)
        return st;
    uint32_t shared = 0;
    st = tr_json_count(m->config, m->config->root, "n_shared_experts", &shared);
    m->size[TR_SIZE_SHARED_FFN] = shared * m->size[TR_SIZE_EXPERT_FFN];
    tr_family_put_count(m, "expert_gating_func", 2); /* sigmoid */
    return st;
}

static const tr_config_key keys[] = {
    { "n_routed_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "n_shared_experts", "expert_shared_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "moe_intermediate_size", "expert_feed_forward_length", TR_KEY_COUNT, TR_SIZE_EXPERT_FFN,
      false },
    { "first_k_dense_replace", "leading_dense_block_count", TR_KEY_COUNT, TR_SIZE_DENSE_LAYERS,
      false },
    { "routed_scaling_factor", "expert_weights_scale", TR_KEY_REAL, TR_SIZE_NONE, false },
    { "norm_topk_prob", "expert_weights_norm", TR_KEY_FLAG, TR_SIZE_NONE, false },
    { 0 },
};

static const tr_config_demand demands[] = {
    { "attention_bias", "true", NULL, "false" },
    { "n_group", "1", NULL, "1" },
    { "topk_group", "1", NULL, "1" },
    { 0 },
};

static const tr_tensor_rule attention[] = {
    { "input_layernorm.weight", "attn_norm.weight", .shape = { TR_SIZE_DIM } },
    { "self_attn.q_proj.weight", "attn_q.weight", .shape = { TR_SIZE_Q, TR_SIZE_DIM } },
    { "self_attn.k_proj.weight", "attn_k.weight", .shape = { TR_SIZE_KV, TR_SIZE_DIM } },
    { "self_attn.v_proj.weight", "attn_v.weight", .shape = { TR_SIZE_KV, TR_SIZE_DIM } },
    { "self_attn.o_proj.weight", "attn_output.weight", .shape = { TR_SIZE_DIM, TR_SIZE_ATTENDED } },
    { "self_attn.q_norm.weight", "attn_q_norm.weight", .shape = { TR_SIZE_HEAD },
      .flags = TR_RULE_OPTIONAL },
    { "self_attn.k_norm.weight", "attn_k_norm.weight", .shape = { TR_SIZE_HEAD },
      .flags = TR_RULE_OPTIONAL },
    { "post_attention_layernorm.weight", "post_attention_norm.weight", .shape = { TR_SIZE_DIM } },
    { 0 },
};

static const tr_tensor_rule shared_experts[] = {
    { "mlp.gate.e_score_correction_bias", "exp_probs_b.bias", .shape = { TR_SIZE_EXPERTS },
      .flags = SPARSE },
    { "mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight",
      .shape = { TR_SIZE_SHARED_FFN, TR_SIZE_DIM }, .flags = SPARSE },
    { "mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight",
      .shape = { TR_SIZE_SHARED_FFN, TR_SIZE_DIM }, .flags = SPARSE },
    { "mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight",
      .shape = { TR_SIZE_DIM, TR_SIZE_SHARED_FFN }, .flags = SPARSE },
    { 0 },
};

const tr_family tr_family_glm4_moe = {
    .model_type = "glm4_moe",
    .arch = "glm4moe",
    .keys = keys,
    .demands = demands,
    .rules = { tr_rules_model, attention, tr_rules_qkv_bias, tr_rules_dense, tr_rules_experts,
               shared_experts },
    .has_layers_behind = true,
    .configure = configure,
};
