/* arch_granitemoe.c - Granite 3 Mixture-of-Experts (Granite Team, "Granite 3.0 language models",
 * 2024).
 *
 * As Mixtral, but embeddings, scores, what each branch adds, and logits have scales of their own
 * (Yang et al., "Tensor programs V", 2022).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

/* False where queries and keys have no positions, as in some of Granite 4. */
static tr_status check_rotation(const tr_gguf *g, const tr_model_config *c)
{
    bool is_rotated = true;

    tr_status st = tr_arch_flag(g, c, "rope.scaling.finetuned", &is_rotated);
    if (st == TR_OK && !is_rotated)
        st = tr_fail(TR_E_UNSUPPORTED,
                     "model %s: granitemoe.rope.scaling.finetuned is false (no rotary embedding), "
                     "which is not supported",
                     tr_gguf_path(g));
    return st;
}

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NORM;
    c->renormalise = true;
    tr_status st = tr_arch_real(g, c, "embedding_scale", &c->embedding_scale);
    if (st == TR_OK)
        st = tr_arch_real(g, c, "attention.scale", &c->attention_scale);
    if (st == TR_OK)
        st = tr_arch_real(g, c, "residual_scale", &c->residual_scale);
    if (st == TR_OK)
        st = tr_arch_real(g, c, "logit_scale", &c->logit_scale);
    return st == TR_OK ? check_rotation(g, c) : st;
}

const tr_arch tr_arch_granitemoe = {
    .name = "granitemoe",
    .configure = configure,
    .keys = { "embedding_scale", "attention.scale", "residual_scale", "logit_scale" },
};
