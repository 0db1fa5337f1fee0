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

static tr_status read_yarn(const tr_gguf *g, tr_model_config *c)
{
    tr_bytes kind = tr_bytes_of("none");

    tr_status st = tr_gguf_opt_string(g, "gpt-oss.rope.scaling.type", &kind);
    if (st != TR_OK || tr_bytes_equal(kind, tr_bytes_of("none")))
        return st;
    if (!tr_bytes_equal(kind, tr_bytes_of("yarn")))
        return tr_fail(TR_E_UNSUPPORTED, "model %s: rotary scaling '%.*s' is not supported",
                       tr_gguf_path(g), (int)(kind.size < 64 ? kind.size : 64),
                       (const char *)kind.data);
    st = tr_arch_real(g, c, "rope.scaling.factor", &c->yarn_factor);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "rope.scaling.original_context_length", MAX_CONTEXT,
                            &c->yarn_context);
    if (st == TR_OK && (c->yarn_factor < 1.0f || c->yarn_context == 0))
        st = tr_fail(TR_E_FORMAT,
                     "model %s: YaRN needs gpt-oss.rope.scaling.factor of at least 1 (it is %g) "
                     "and gpt-oss.rope.scaling.original_context_length (it is %u)",
                     tr_gguf_path(g), (double)c->yarn_factor, c->yarn_context);
    c->rope_magnitude = (float)(1.0 + 0.1 * log((double)c->yarn_factor));
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
    tr_status st = tr_arch_number(g, c, "attention.sliding_window", MAX_CONTEXT, &c->window);
    return st == TR_OK ? read_yarn(g, c) : st;
}

const tr_arch tr_arch_gpt_oss = {
    .name = "gpt-oss",
    .configure = configure,
    .keys = { "attention.sliding_window", "rope.scaling.type", "rope.scaling.factor" },
};
