/* family_olmoe.c - OLMoE: norms over all heads of queries, and of keys, at once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/families.h"

static tr_status configure(tr_hf_model *m)
{
    tr_status st = tr_family_heads(m);

    return st == TR_OK ? tr_family_rope(m) : st;
}

static const tr_config_key keys[] = {
    { "num_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "intermediate_size", NULL, TR_KEY_COUNT, TR_SIZE_EXPERT_FFN, false },
    { 0 },
};

static const tr_config_demand demands[] = {
    { "attention_bias", "false", NULL, "false" },
    { "clip_qkv", "null", NULL, "null" },
    { "norm_topk_prob", "false", NULL, "false" },
    { 0 },
};

static const tr_tensor_rule whole_norms[] = {
    { "self_attn.q_norm.weight", "attn_q_norm.weight", .shape = { TR_SIZE_Q } },
    { "self_attn.k_norm.weight", "attn_k_norm.weight", .shape = { TR_SIZE_KV } },
    { 0 },
};

const tr_family tr_family_olmoe = {
    .model_type = "olmoe",
    .arch = "olmoe",
    .keys = keys,
    .demands = demands,
    .rules = { tr_rules_model, tr_rules_attention, whole_norms, tr_rules_experts },
    .configure = configure,
};
