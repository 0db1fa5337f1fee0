/* arch_qwen3.c - Qwen3's dense models (Yang et al., "Qwen3 technical report", 2025).
 *
 * As qwen3moe, with one feed-forward network a layer.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    (void)g;
    c->rope = TR_ROPE_NEOX;
    c->qk_norm = TR_QK_NORM_HEAD;
    return TR_OK;
}

const tr_arch tr_arch_qwen3 = {
    .name = "qwen3",
    .configure = configure,
};
