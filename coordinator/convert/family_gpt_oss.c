/* family_gpt_oss.c - gpt-oss: experts in MXFP4, with biases, gate and up in every other row; sinks;
 * a window on even layers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/families.h"

enum { MXFP4 = TR_RULE_MXFP4 };

/* Layers alternate, and the first has the window: others would be computed wrongly. */
static tr_status check_layers(const tr_hf_model *m)
{
    const json_t *kinds = tr_json_member(m->config->root, "layer_types");

    if (!kinds)
        return TR_OK;
    for (size_t i = 0; i < m->size[TR_SIZE_LAYERS]; i++)
        if (!tr_json_is_text(json_array_get(kinds, i),
                             i % 2 == 0 ? "sliding_attention" : "full_attention"))
            return tr_fail(TR_E_UNSUPPORTED,
                           "%s: \"layer_types\": layer %zu is not what is supported: layers see a "
                           "window and everything in turns",
                           m->config->path, i);
    return TR_OK;
}

static tr_status configure(tr_hf_model *m)
{
    tr_status st = check_layers(m);

    if (st == TR_OK)
        st = tr_family_heads(m);
    return st == TR_OK ? tr_family_rope(m) : st;
}

static const tr_config_key keys[] = {
    { "num_local_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "intermediate_size", "expert_feed_forward_length", TR_KEY_COUNT, TR_SIZE_EXPERT_FFN, false },
    { "sliding_window", "attention.sliding_window", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { 0 },
};

static const tr_config_demand demands[] = {
    { "attention_bias", "true", NULL, "true" },
    { "swiglu_limit", "7.0", NULL, "7.0" },
    { 0 },
};

static const tr_tensor_rule layer[] = {
    { "input_layernorm.weight", "attn_norm.weight", .shape = { TR_SIZE_DIM } },
    { "self_attn.q_proj.weight", "attn_q.weight", .shape = { TR_SIZE_Q, TR_SIZE_DIM } },
    { "self_attn.k_proj.weight", "attn_k.weight", .shape = { TR_SIZE_KV, TR_SIZE_DIM } },
    { "self_attn.v_proj.weight", "attn_v.weight", .shape = { TR_SIZE_KV, TR_SIZE_DIM } },
    { "self_attn.o_proj.weight", "attn_output.weight", .shape = { TR_SIZE_DIM, TR_SIZE_ATTENDED } },
    { "self_attn.o_proj.bias", "attn_output.bias", .shape = { TR_SIZE_DIM } },
    { "self_attn.sinks", "attn_sinks.weight", .shape = { TR_SIZE_HEADS } },
    { "post_attention_layernorm.weight", "post_attention_norm.weight", .shape = { TR_SIZE_DIM } },
    { 0 },
};

#define GATE_AND_UP                                                                                \
    {                                                                                              \
        TR_SIZE_EXPERTS, TR_SIZE_TWO_EXPERT_FFN, TR_SIZE_DIM                                       \
    }
#define DOWN                                                                                       \
    {                                                                                              \
        TR_SIZE_EXPERTS, TR_SIZE_DIM, TR_SIZE_EXPERT_FFN                                           \
    }
#define BIASES                                                                                     \
    {                                                                                              \
        TR_SIZE_EXPERTS, TR_SIZE_TWO_EXPERT_FFN                                                    \
    }

static const tr_tensor_rule experts[] = {
    { "mlp.router.weight", "ffn_gate_inp.weight", .shape = { TR_SIZE_EXPERTS, TR_SIZE_DIM } },
    { "mlp.router.bias", "ffn_gate_inp.bias", .shape = { TR_SIZE_EXPERTS } },
    { "mlp.experts.gate_up_proj", "ffn_gate_exps.weight", .shape = GATE_AND_UP, .flags = MXFP4,
      .rows = TR_ROWS_EVEN },
    { "mlp.experts.gate_up_proj", "ffn_up_exps.weight", .shape = GATE_AND_UP, .flags = MXFP4,
      .rows = TR_ROWS_ODD },
    { "mlp.experts.down_proj", "ffn_down_exps.weight", .shape = DOWN, .flags = MXFP4 },
    { "mlp.experts.gate_up_proj_bias", "ffn_gate_exps.bias", .shape = BIASES,
      .rows = TR_ROWS_EVEN },
    { "mlp.experts.gate_up_proj_bias", "ffn_up_exps.bias", .shape = BIASES, .rows = TR_ROWS_ODD },
    { "mlp.experts.down_proj_bias", "ffn_down_exps.bias",
      .shape = { TR_SIZE_EXPERTS, TR_SIZE_DIM } },
    { 0 },
};

const tr_family tr_family_gpt_oss = {
    .model_type = "gpt_oss",
    .arch = "gpt-oss",
    .keys = keys,
    .demands = demands,
    .rules = { tr_rules_model, layer, tr_rules_qkv_bias, experts },
    .configure = configure,
};
