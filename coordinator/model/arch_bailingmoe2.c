/* arch_bailingmoe2.c - Ling 2.0 and Ring 2.0 (Ling Team, "Every activation boosted: scaling general
 * reasoner to 1 trillion open language foundation", 2025).
 *
 * Queries, keys and values come from one matrix; each head of queries and keys is normed, and its
 * first half rotated.  The first layers are dense.  The others choose as DeepSeek-V3 does, by
 * sigmoid plus a bias, among the best groups of experts; beside the picked ones every token goes
 * through shared ones.  The last blocks of a file may predict further tokens and are not run.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

#include "proto/limits.h"

/* Shared experts may be wider than others. */
static tr_status read_shared(const tr_gguf *g, tr_model_config *c)
{
    uint32_t n = 0;
    uint32_t width = 0;

    tr_status st = tr_arch_shared(g, c);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "expert_shared_count", TR_MAX_EXPERTS, &n);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "expert_shared_feed_forward_length", TR_MAX_DIM, &width);
    if (st != TR_OK || width == 0)
        return st;
    if ((uint64_t)n * width > TR_MAX_DIM)
        return tr_fail(TR_E_FORMAT, "model %s: %u shared experts of width %u: together at most %d",
                       tr_gguf_path(g), n, width, TR_MAX_DIM);
    c->shared_ffn = n * width;
    return TR_OK;
}

/* 2 is sigmoid, and so are files that don't say. */
static tr_status read_gate(const tr_gguf *g, tr_model_config *c)
{
    uint32_t gate = 0;

    tr_status st = tr_arch_number(g, c, "expert_gating_func", 2, &gate);
    if (st == TR_OK && gate == 1)
        st = tr_fail(TR_E_UNSUPPORTED,
                     "model %s: bailingmoe2.expert_gating_func is 1 (softmax), which is not "
                     "supported",
                     tr_gguf_path(g));
    if (st == TR_OK)
        st = tr_arch_groups(g, c);
    if (st == TR_OK)
        st = tr_arch_flag(g, c, "expert_weights_norm", &c->renormalise);
    if (st == TR_OK)
        st = tr_arch_real(g, c, "expert_weights_scale", &c->routed_scale);
    c->gate = TR_GATE_SIGMOID;
    c->has_choice_bias = tr_arch_has_choice_bias(g, c);
    return st;
}

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NEOX;
    c->has_joint_qkv = true;
    c->qk_norm = TR_QK_NORM_HEAD;
    tr_status st = tr_arch_layers(g, c);
    if (st == TR_OK)
        st = tr_arch_rotated(g, c);
    if (st == TR_OK)
        st = read_shared(g, c);
    return st == TR_OK ? read_gate(g, c) : st;
}

const tr_arch tr_arch_bailingmoe2 = {
    .name = "bailingmoe2",
    .configure = configure,
    .keys = { "nextn_predict_layers", "leading_dense_block_count", "rope.dimension_count",
              "expert_shared_count", "expert_gating_func", "expert_weights_scale",
              "expert_group_count" },
};
