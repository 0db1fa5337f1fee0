/* arch_olmoe.c - OLMoE (Muennighoff et al., "OLMoE: open Mixture-of-Experts language models",
 * 2024).
 *
 * Queries and keys are normed over the whole projection, all heads at once.  Softmax over all
 * experts, top-k, weights as they are.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    (void)g;
    c->rope = TR_ROPE_NEOX;
    c->qk_norm = TR_QK_NORM_WHOLE;
    c->renormalise = false;
    return TR_OK;
}

const tr_arch tr_arch_olmoe = {
    .name = "olmoe",
    .configure = configure,
};
