/* family_qwen.c - Qwen3, Qwen3-MoE, Qwen2-MoE.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/families.h"

static tr_status configure(tr_hf_model *m)
{
    tr_status st = tr_family_heads(m);

    return st == TR_OK ? tr_family_rope(m) : st;
}

/* ---- Qwen3 ---------------------------------------------------------------------------------- */

static const tr_config_demand qwen3_demands[] = {
    { "attention_bias", "false", NULL, "false" },
    { "use_sliding_window", "false", NULL, "false" },
    { 0 },
};

const tr_family tr_family_qwen3 = {
    .model_type = "qwen3",
    .arch = "qwen3",
    .demands = qwen3_demands,
    .rules = { tr_rules_model, tr_rules_attention, tr_rules_head_norms, tr_rules_dense },
    .configure = configure,
};

/* ---- Qwen3-MoE ------------------------------------------------------------------------------ */

static const tr_config_key qwen3_moe_keys[] = {
    { "num_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "moe_intermediate_size", "expert_feed_forward_length", TR_KEY_COUNT, TR_SIZE_EXPERT_FFN,
      false },
    { 0 },
};

static const tr_config_demand qwen3_moe_demands[] = {
    { "attention_bias", "false", NULL, "false" }, { "use_sliding_window", "false", NULL, "false" },
    { "norm_topk_prob", "true", NULL, "false" },  { "decoder_sparse_step", "1", NULL, "1" },
    { "mlp_only_layers", "[]", NULL, "[]" },      { 0 },
};

const tr_family tr_family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .arch = "qwen3moe",
    .keys = qwen3_moe_keys,
    .demands = qwen3_moe_demands,
    .rules = { tr_rules_model, tr_rules_attention, tr_rules_head_norms, tr_rules_experts },
    .configure = configure,
};

/* ---- Qwen2-MoE: biases, and a shared expert with a gate of its own ----------------------------
 */

static const tr_config_key qwen2_moe_keys[] = {
    { "num_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "moe_intermediate_size", "expert_feed_forward_length", TR_KEY_COUNT, TR_SIZE_EXPERT_FFN,
      false },
    { "shared_expert_intermediate_size", "expert_shared_feed_forward_length", TR_KEY_COUNT,
      TR_SIZE_SHARED_FFN, false },
    { 0 },
};

static const tr_config_demand qwen2_moe_demands[] = {
    { "qkv_bias", "true", NULL, "true" },         { "use_sliding_window", "false", NULL, "false" },
    { "norm_topk_prob", "false", NULL, "false" }, { "decoder_sparse_step", "1", NULL, "1" },
    { "mlp_only_layers", "[]", NULL, "[]" },      { 0 },
};

static const tr_tensor_rule shared_expert[] = {
    { "mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight",
      .shape = { TR_SIZE_ONE, TR_SIZE_DIM } },
    { "mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight",
      .shape = { TR_SIZE_SHARED_FFN, TR_SIZE_DIM } },
    { "mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight",
      .shape = { TR_SIZE_SHARED_FFN, TR_SIZE_DIM } },
    { "mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight",
      .shape = { TR_SIZE_DIM, TR_SIZE_SHARED_FFN } },
    { 0 },
};

const tr_family tr_family_qwen2_moe = {
    .model_type = "qwen2_moe",
    .arch = "qwen2moe",
    .keys = qwen2_moe_keys,
    .demands = qwen2_moe_demands,
    .rules = { tr_rules_model, tr_rules_attention, tr_rules_qkv_bias, tr_rules_experts,
               shared_expert },
    .configure = configure,
};
