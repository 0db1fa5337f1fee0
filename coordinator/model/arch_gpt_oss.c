/* arch_gpt_oss.c - gpt-oss (OpenAI, "gpt-oss-120b & gpt-oss-20b model card", 2025).
 *
 * Biases everywhere.  Each head has a sink; even layers see a window of the last positions, odd
 * ones all.  Context is stretched by YaRN.  The k largest logits are chosen and softmax is over
 * them, which is softmax over all, renormalised.  Experts have an activation of their own.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

#include <math.h>

/* The layers that see all must be known from those that don't: a file without the key is another
 * model.  A window that is written as 0 is all. */
static tr_status read_window(const tr_gguf *g, tr_model_config *c)
{
    if (!tr_gguf_entry_find(g, "gpt-oss.attention.sliding_window"))
        return tr_fail(TR_E_FORMAT, "model %s: gpt-oss.attention.sliding_window is missing",
                       tr_gguf_path(g));
    return tr_arch_number(g, c, "attention.sliding_window", TR_MAX_CONTEXT, &c->window);
}

/* The bound in the activation of its experts (experts/apply.h). */
static tr_status check_limit(const tr_gguf *g, const tr_model_config *c)
{
    float limit = 7.0f;

    tr_status st = tr_arch_real(g, c, "swiglu_limit", &limit);
    if (st == TR_OK && limit != 7.0f)
        st = tr_fail(TR_E_UNSUPPORTED,
                     "model %s: gpt-oss.swiglu_limit is %g; other than 7 is not supported",
                     tr_gguf_path(g), (double)limit);
    return st;
}

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NEOX;
    c->has_qkv_bias = c->has_out_bias = true;
    c->has_sinks = true;
    c->ffn_norm = "post_attention_norm"; /* named so, but it stands before the experts */
    c->has_router_bias = c->has_expert_bias = true;
    c->renormalise = true;
    tr_status st = read_window(g, c);
    if (st == TR_OK)
        st = check_limit(g, c);
    if (st == TR_OK)
        st = tr_arch_yarn(g, c);
    c->rope_magnitude = (float)(1.0 + 0.1 * log((double)c->yarn_factor));
    return st;
}

const tr_arch tr_arch_gpt_oss = {
    .name = "gpt-oss",
    .configure = configure,
    .keys = { "attention.sliding_window", "swiglu_limit", "rope.scaling.type",
              "rope.scaling.factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow" },
};
