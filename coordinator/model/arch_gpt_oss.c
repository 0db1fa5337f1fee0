/* arch_gpt_oss.c - gpt-oss (OpenAI, "gpt-oss-120b & gpt-oss-20b model card", 2025).
 *
 * Biases everywhere.  Each head has a sink; even layers see a window of the last positions, odd
 * ones all.  Context is stretched by YaRN.  The k largest logits are chosen and softmax is over
 * them, which is softmax over all, renormalised.  Experts have an activation of their own.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

#include <math.h>

enum { MAX_CONTEXT = 1 << 24 };

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NEOX;
    c->has_qkv_bias = c->has_out_bias = true;
    c->has_sinks = true;
    c->ffn_norm = "post_attention_norm"; /* named so, but it stands before the experts */
    c->has_router_bias = c->has_expert_bias = true;
    c->renormalise = true;
    tr_status st = tr_arch_number(g, c, "attention.sliding_window", MAX_CONTEXT, &c->window);
    if (st == TR_OK)
        st = tr_arch_yarn(g, c);
    c->rope_magnitude = (float)(1.0 + 0.1 * log((double)c->yarn_factor));
    return st;
}

const tr_arch tr_arch_gpt_oss = {
    .name = "gpt-oss",
    .configure = configure,
    .keys = { "attention.sliding_window", "rope.scaling.type", "rope.scaling.factor" },
};
