/* family_llama.c - Llama, Mistral and Mixtral: one architecture in GGUF files, with rows of queries
 * and keys interleaved.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/families.h"

static tr_status configure(tr_hf_model *m)
{
    tr_status st = tr_family_heads(m);

    return st == TR_OK ? tr_family_rope(m) : st;
}

static const tr_config_demand llama_demands[] = {
    { "attention_bias", "false", NULL, "false" },
    { "mlp_bias", "false", NULL, "false" },
    { 0 },
};

const tr_family tr_family_llama = {
    .model_type = "llama",
    .arch = "llama",
    .demands = llama_demands,
    .rules = { tr_rules_model, tr_rules_interleaved, tr_rules_dense },
    .configure = configure,
};

/* Mistral 7B of 2023 sees a window of 4096 positions, later ones everything. */
static const tr_config_demand mistral_demands[] = {
    { "sliding_window", "null", NULL, "null" },
    { 0 },
};

const tr_family tr_family_mistral = {
    .model_type = "mistral",
    .arch = "llama",
    .demands = mistral_demands,
    .rules = { tr_rules_model, tr_rules_interleaved, tr_rules_dense },
    .configure = configure,
};

static const tr_config_key mixtral_keys[] = {
    { "num_local_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "intermediate_size", NULL, TR_KEY_COUNT, TR_SIZE_EXPERT_FFN, false },
    { 0 },
};

/* w1 is the gate, w2 down, w3 up. */
static const tr_tensor_rule mixtral_experts[] = {
    { "block_sparse_moe.gate.weight", "ffn_gate_inp.weight",
      .shape = { TR_SIZE_EXPERTS, TR_SIZE_DIM } },
    { "block_sparse_moe.experts.%e.w1.weight", "ffn_gate_exps.weight",
      .shape = { TR_SIZE_EXPERT_FFN, TR_SIZE_DIM } },
    { "block_sparse_moe.experts.%e.w3.weight", "ffn_up_exps.weight",
      .shape = { TR_SIZE_EXPERT_FFN, TR_SIZE_DIM } },
    { "block_sparse_moe.experts.%e.w2.weight", "ffn_down_exps.weight",
      .shape = { TR_SIZE_DIM, TR_SIZE_EXPERT_FFN } },
    { 0 },
};

const tr_family tr_family_mixtral = {
    .model_type = "mixtral",
    .arch = "llama",
    .keys = mixtral_keys,
    .demands = mistral_demands,
    .rules = { tr_rules_model, tr_rules_interleaved, mixtral_experts },
    .configure = configure,
};
