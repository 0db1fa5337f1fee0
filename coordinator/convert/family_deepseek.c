/* family_deepseek.c - DeepSeek-V2, V2-Lite, V3, R1: latent attention, dense layers first, shared
 * experts, groups of experts; the layers behind the last predict further tokens.
 *
 * The directory's code interleaves the rotated part of heads itself, so that rows stay as they are.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/families.h"

#include "proto/limits.h"

enum { SPARSE = TR_RULE_SPARSE, Q_LOW = TR_RULE_Q_LOW, NO_Q_LOW = TR_RULE_NO_Q_LOW };

/* ---- what tables can't say ------------------------------------------------------------------ */

static tr_status read_heads(tr_hf_model *m)
{
    static const char *const names[] = { "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
                                         "kv_lora_rank" };
    const json_t *root = m->config->root;
    uint64_t n = m->size[TR_SIZE_HEADS];
    uint32_t v[4] = { 0 };
    tr_status st = TR_OK;

    for (size_t i = 0; i < 4 && st == TR_OK; i++) {
        st = tr_json_count(m->config, root, names[i], &v[i]);
        if (st == TR_OK && (v[i] == 0 || v[i] > TR_MAX_DIM))
            st = tr_fail(TR_E_FORMAT, "%s: \"%s\" is %u, not 1 to %d", m->config->path, names[i],
                         v[i], TR_MAX_DIM);
    }
    uint64_t head = (uint64_t)v[0] + v[1];
    m->size[TR_SIZE_HEAD] = head;
    m->size[TR_SIZE_ROTATED] = v[1];
    m->size[TR_SIZE_Q] = n * head;
    m->size[TR_SIZE_ATTENDED] = n * v[2];
    m->size[TR_SIZE_LATENT] = v[3];
    m->size[TR_SIZE_LATENT_ROTATED] = (uint64_t)v[3] + v[1];
    m->size[TR_SIZE_LATENT_UP] = n * ((uint64_t)v[0] + v[2]);
    tr_family_put_count(m, "attention.head_count_kv", n);
    tr_family_put_count(m, "attention.key_length", head);
    tr_family_put_count(m, "attention.value_length", v[2]);
    tr_family_put_count(m, "attention.kv_lora_rank", v[3]);
    return st;
}

/* The length that YaRN gives cosine and sine is the ratio of two numbers, and supported where they
 * are equal; what it gives scores is made of the second. */
static tr_status read_magnitude(tr_hf_model *m)
{
    const char *kind;
    const json_t *o = tr_family_rope_scaling(m, &kind);
    float one = 1.0f, all = 0.0f;
    tr_status st = TR_OK;

    if (!o || strcmp(kind, "yarn") != 0)
        return TR_OK;
    if (tr_json_member(o, "mscale"))
        st = tr_json_real(m->config, o, "mscale", &one);
    if (st == TR_OK)
        st = tr_json_real(m->config, o, "mscale_all_dim", &all);
    if (st == TR_OK && one != all)
        st = tr_fail(TR_E_UNSUPPORTED,
                     "%s: \"mscale\" is %g, but \"mscale_all_dim\" %g: only equal ones are "
                     "supported",
                     m->config->path, (double)one, (double)all);
    double multiplier = 0.1 * json_number_value(tr_json_member(o, "mscale_all_dim"));
    tr_family_put_real(m, "rope.scaling.yarn_log_multiplier", (float)multiplier);
    return st;
}

static tr_status configure(tr_hf_model *m)
{
    uint32_t shared = 0;

    tr_status st = read_heads(m);
    if (st == TR_OK)
        st = tr_family_rope(m);
    if (st == TR_OK)
        st = read_magnitude(m);
    if (st == TR_OK)
        st = tr_json_count(m->config, m->config->root, "n_shared_experts", &shared);
    m->size[TR_SIZE_SHARED_FFN] = shared * m->size[TR_SIZE_EXPERT_FFN];
    return st;
}

/* Greedy is the choice among all experts, whatever the numbers of groups are. */
static tr_status check_greedy(const tr_hf_model *m)
{
    const json_t *root = m->config->root;
    uint32_t n = 1;
    tr_status st = TR_OK;

    if (tr_json_is_text(tr_json_member(root, "topk_method"), "group_limited_greedy"))
        return TR_OK;
    if (tr_json_member(root, "n_group"))
        st = tr_json_count(m->config, root, "n_group", &n);
    if (st == TR_OK && n > 1)
        st = tr_fail(TR_E_UNSUPPORTED,
                     "%s: \"n_group\" is %u, but \"topk_method\" makes no use of groups",
                     m->config->path, n);
    return st;
}

static tr_status configure_v2(tr_hf_model *m)
{
    tr_status st = check_greedy(m);

    if (st != TR_OK)
        return st;
    tr_family_put_count(m, "expert_gating_func", 1); /* softmax */
    return configure(m);
}

static tr_status configure_v3(tr_hf_model *m)
{
    tr_family_put_count(m, "expert_gating_func", 2); /* sigmoid */
    return configure(m);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static const tr_config_key keys[] = {
    { "q_lora_rank", "attention.q_lora_rank", TR_KEY_COUNT, TR_SIZE_Q_LOW, true },
    { "n_routed_experts", "expert_count", TR_KEY_COUNT, TR_SIZE_EXPERTS, false },
    { "num_experts_per_tok", "expert_used_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "n_shared_experts", "expert_shared_count", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "moe_intermediate_size", "expert_feed_forward_length", TR_KEY_COUNT, TR_SIZE_EXPERT_FFN,
      false },
    { "first_k_dense_replace", "leading_dense_block_count", TR_KEY_COUNT, TR_SIZE_DENSE_LAYERS,
      false },
    { "routed_scaling_factor", "expert_weights_scale", TR_KEY_REAL, TR_SIZE_NONE, false },
    { "norm_topk_prob", "expert_weights_norm", TR_KEY_FLAG, TR_SIZE_NONE, true },
    { "n_group", "expert_group_count", TR_KEY_COUNT, TR_SIZE_NONE, true },
    { "topk_group", "expert_group_used_count", TR_KEY_COUNT, TR_SIZE_NONE, true },
    { 0 },
};

static const tr_config_demand v2_demands[] = {
    { "scoring_func", "\"softmax\"", NULL, "\"softmax\"" },
    { "topk_method", "\"group_limited_greedy\"", "\"greedy\"", "\"greedy\"" },
    { "norm_topk_prob", "false", NULL, "false" }, /* where it is true, the scale is left out */
    { "moe_layer_freq", "1", NULL, "1" },
    { "attention_bias", "false", NULL, "false" },
    { 0 },
};

static const tr_config_demand v3_demands[] = {
    { "scoring_func", "\"sigmoid\"", NULL, "\"sigmoid\"" },
    { "topk_method", "\"noaux_tc\"", NULL, "\"noaux_tc\"" },
    { "moe_layer_freq", "1", NULL, "1" },
    { "attention_bias", "false", NULL, "false" },
    { 0 },
};

/* ---- tensors -------------------------------------------------------------------------------- */

static const tr_tensor_rule attention[] = {
    { "input_layernorm.weight", "attn_norm.weight", .shape = { TR_SIZE_DIM } },
    { "self_attn.q_proj.weight", "attn_q.weight", .shape = { TR_SIZE_Q, TR_SIZE_DIM },
      .flags = NO_Q_LOW },
    { "self_attn.q_a_proj.weight", "attn_q_a.weight", .shape = { TR_SIZE_Q_LOW, TR_SIZE_DIM },
      .flags = Q_LOW },
    { "self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight", .shape = { TR_SIZE_Q_LOW },
      .flags = Q_LOW },
    { "self_attn.q_b_proj.weight", "attn_q_b.weight", .shape = { TR_SIZE_Q, TR_SIZE_Q_LOW },
      .flags = Q_LOW },
    { "self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight",
      .shape = { TR_SIZE_LATENT_ROTATED, TR_SIZE_DIM } },
    { "self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight", .shape = { TR_SIZE_LATENT } },
    { "self_attn.kv_b_proj.weight", "attn_kv_b.weight",
      .shape = { TR_SIZE_LATENT_UP, TR_SIZE_LATENT } },
    { "self_attn.o_proj.weight", "attn_output.weight", .shape = { TR_SIZE_DIM, TR_SIZE_ATTENDED } },
    { "post_attention_layernorm.weight", "ffn_norm.weight", .shape = { TR_SIZE_DIM } },
    { 0 },
};

static const tr_tensor_rule shared_experts[] = {
    { "mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight",
      .shape = { TR_SIZE_SHARED_FFN, TR_SIZE_DIM }, .flags = SPARSE },
    { "mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight",
      .shape = { TR_SIZE_SHARED_FFN, TR_SIZE_DIM }, .flags = SPARSE },
    { "mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight",
      .shape = { TR_SIZE_DIM, TR_SIZE_SHARED_FFN }, .flags = SPARSE },
    { 0 },
};

static const tr_tensor_rule choice_bias[] = {
    { "mlp.gate.e_score_correction_bias", "exp_probs_b.bias", .shape = { TR_SIZE_EXPERTS },
      .flags = SPARSE },
    { 0 },
};

const tr_family tr_family_deepseek_v2 = {
    .model_type = "deepseek_v2",
    .arch = "deepseek2",
    .keys = keys,
    .demands = v2_demands,
    .rules = { tr_rules_model, attention, tr_rules_dense, tr_rules_experts, shared_experts },
    .has_layers_behind = true,
    .configure = configure_v2,
};

const tr_family tr_family_deepseek_v3 = {
    .model_type = "deepseek_v3",
    .arch = "deepseek2",
    .keys = keys,
    .demands = v3_demands,
    .rules = { tr_rules_model, attention, tr_rules_dense, tr_rules_experts, shared_experts,
               choice_bias },
    .has_layers_behind = true,
    .configure = configure_v3,
};
