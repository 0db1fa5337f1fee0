/* family_rules.c - the tensors that most families have, by the names that they share.
 *
 * Shapes are those of the directory: outputs first, inputs last.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/family.h"

enum { ONCE = TR_RULE_ONCE, DENSE = TR_RULE_DENSE, SPARSE = TR_RULE_SPARSE };

const tr_tensor_rule tr_rules_model[] = {
    { "model.embed_tokens.weight", "token_embd.weight", .shape = { TR_SIZE_VOCAB, TR_SIZE_DIM },
      .flags = ONCE },
    { "model.norm.weight", "output_norm.weight", .shape = { TR_SIZE_DIM }, .flags = ONCE },
    { "lm_head.weight", "output.weight", .shape = { TR_SIZE_VOCAB, TR_SIZE_DIM },
      .flags = ONCE | TR_RULE_UNTIED },
    { 0 },
};

#define ATTENTION(order_of_rows)                                                                   \
    { "input_layernorm.weight", "attn_norm.weight", .shape = { TR_SIZE_DIM } },                    \
        { "self_attn.q_proj.weight", "attn_q.weight", .shape = { TR_SIZE_Q, TR_SIZE_DIM },         \
          .rows = order_of_rows },                                                                 \
        { "self_attn.k_proj.weight", "attn_k.weight", .shape = { TR_SIZE_KV, TR_SIZE_DIM },        \
          .rows = order_of_rows },                                                                 \
        { "self_attn.v_proj.weight", "attn_v.weight", .shape = { TR_SIZE_KV, TR_SIZE_DIM } },      \
        { "self_attn.o_proj.weight", "attn_output.weight",                                         \
          .shape = { TR_SIZE_DIM, TR_SIZE_ATTENDED } },                                            \
    {                                                                                              \
        "post_attention_layernorm.weight", "ffn_norm.weight", .shape = { TR_SIZE_DIM }             \
    }

const tr_tensor_rule tr_rules_attention[] = { ATTENTION(TR_ROWS_AS_THEY_ARE), { 0 } };

const tr_tensor_rule tr_rules_interleaved[] = { ATTENTION(TR_ROWS_INTERLEAVED), { 0 } };

const tr_tensor_rule tr_rules_qkv_bias[] = {
    { "self_attn.q_proj.bias", "attn_q.bias", .shape = { TR_SIZE_Q } },
    { "self_attn.k_proj.bias", "attn_k.bias", .shape = { TR_SIZE_KV } },
    { "self_attn.v_proj.bias", "attn_v.bias", .shape = { TR_SIZE_KV } },
    { 0 },
};

const tr_tensor_rule tr_rules_head_norms[] = {
    { "self_attn.q_norm.weight", "attn_q_norm.weight", .shape = { TR_SIZE_HEAD } },
    { "self_attn.k_norm.weight", "attn_k_norm.weight", .shape = { TR_SIZE_HEAD } },
    { 0 },
};

const tr_tensor_rule tr_rules_dense[] = {
    { "mlp.gate_proj.weight", "ffn_gate.weight", .shape = { TR_SIZE_FFN, TR_SIZE_DIM },
      .flags = DENSE },
    { "mlp.up_proj.weight", "ffn_up.weight", .shape = { TR_SIZE_FFN, TR_SIZE_DIM },
      .flags = DENSE },
    { "mlp.down_proj.weight", "ffn_down.weight", .shape = { TR_SIZE_DIM, TR_SIZE_FFN },
      .flags = DENSE },
    { 0 },
};

const tr_tensor_rule tr_rules_experts[] = {
    { "mlp.gate.weight", "ffn_gate_inp.weight", .shape = { TR_SIZE_EXPERTS, TR_SIZE_DIM },
      .flags = SPARSE },
    { "mlp.experts.%e.gate_proj.weight", "ffn_gate_exps.weight",
      .shape = { TR_SIZE_EXPERT_FFN, TR_SIZE_DIM }, .flags = SPARSE },
    { "mlp.experts.%e.up_proj.weight", "ffn_up_exps.weight",
      .shape = { TR_SIZE_EXPERT_FFN, TR_SIZE_DIM }, .flags = SPARSE },
    { "mlp.experts.%e.down_proj.weight", "ffn_down_exps.weight",
      .shape = { TR_SIZE_DIM, TR_SIZE_EXPERT_FFN }, .flags = SPARSE },
    { 0 },
};
