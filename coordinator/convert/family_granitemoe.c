/* family_granitemoe.c - Granite 3 with experts: scales of its own, gate and up in one tensor.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/families.h"

static tr_status configure(tr_hf_model *m)
{
    tr_status st = tr_family_heads(m);

    return st == TR_OK ? tr_family_rope(m) : st;
}

static const tr_config_key keys[] = {
    { "num_local_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "intermediate_size", NULL, TR_KEY_COUNT, TR_SIZE_EXPERT_FFN, false },
    { "embedding_multiplier", "embedding_scale", TR_KEY_REAL, TR_SIZE_NONE, false },
    { "residual_multiplier", "residual_scale", TR_KEY_REAL, TR_SIZE_NONE, false },
    { "attention_multiplier", "attention.scale", TR_KEY_REAL, TR_SIZE_NONE, false },
    { "logits_scaling", "logit_scale", TR_KEY_REAL, TR_SIZE_NONE, false },
    { 0 },
};

static const tr_config_demand demands[] = {
    { "attention_bias", "false", NULL, "false" },
    { 0 },
};

static const tr_tensor_rule experts[] = {
    { "block_sparse_moe.router.layer.weight", "ffn_gate_inp.weight",
      .shape = { TR_SIZE_EXPERTS, TR_SIZE_DIM } },
    { "block_sparse_moe.input_linear.weight", "ffn_gate_exps.weight",
      .shape = { TR_SIZE_EXPERTS, TR_SIZE_TWO_EXPERT_FFN, TR_SIZE_DIM },
      .rows = TR_ROWS_FIRST_HALF },
    { "block_sparse_moe.input_linear.weight", "ffn_up_exps.weight",
      .shape = { TR_SIZE_EXPERTS, TR_SIZE_TWO_EXPERT_FFN, TR_SIZE_DIM },
      .rows = TR_ROWS_SECOND_HALF },
    { "block_sparse_moe.output_linear.weight", "ffn_down_exps.weight",
      .shape = { TR_SIZE_EXPERTS, TR_SIZE_DIM, TR_SIZE_EXPERT_FFN } },
    { 0 },
};

const tr_family tr_family_granitemoe = {
    .model_type = "granitemoe",
    .arch = "granitemoe",
    .keys = keys,
    .demands = demands,
    .rules = { tr_rules_model, tr_rules_interleaved, experts },
    .configure = configure,
};
