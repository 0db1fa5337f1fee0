/* arch_qwen2moe.c - Qwen1.5 and Qwen2 Mixture-of-Experts (Yang et al., "Qwen2 technical report",
 * 2024).
 *
 * Biases on queries, keys and values; no norm of heads.  Softmax over all experts, top-k, weights
 * as they are.  Beside the picked experts every token goes through one shared expert, whose answer
 * is weighted by a gate of its own: sigmoid(gate . x).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

#include "proto/limits.h"

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NEOX;
    c->qk_norm = TR_QK_NORM_NONE;
    c->has_qkv_bias = true;
    c->has_shared_gate = true;
    tr_status st = tr_gguf_get_u32(g, "qwen2moe.expert_shared_feed_forward_length", &c->shared_ffn);
    if (st == TR_OK && (c->shared_ffn == 0 || c->shared_ffn > TR_MAX_DIM))
        st =
            tr_fail(TR_E_FORMAT,
                    "model %s: qwen2moe.expert_shared_feed_forward_length is %u, but must be 1..%d",
                    tr_gguf_path(g), c->shared_ffn, TR_MAX_DIM);
    return st;
}

const tr_arch tr_arch_qwen2moe = {
    .name = "qwen2moe",
    .configure = configure,
};
