/* arch_qwen3moe.c - Qwen3 Mixture-of-Experts (Yang et al., "Qwen3 technical report", 2025).
 *
 * Each head of queries and keys is normed before the rotation; the head's size is independent of
 * the model's width.  Softmax over all experts, top-k, weights renormalised; no shared expert.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    (void)g;
    c->rope = TR_ROPE_NEOX;
    c->qk_norm = TR_QK_NORM_HEAD;
    c->renormalise = true;
    return TR_OK;
}

const tr_arch tr_arch_qwen3moe = {
    .name = "qwen3moe",
    .configure = configure,
};
