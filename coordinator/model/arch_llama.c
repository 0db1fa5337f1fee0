/* arch_llama.c - the Llama family (Touvron et al., "Llama 2", 2023), and Mixtral (Jiang et al.,
 * "Mixtral of experts", 2024), whose files have the same architecture name.
 *
 * Neighbouring values are rotated together; Llama 3.1 and later divide the frequencies by factors
 * from the file.  Where there are experts: softmax over all, top-k, weights renormalised, which
 * is the paper's softmax over the k chosen logits.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    c->rope = TR_ROPE_NORM;
    c->has_rope_factors = tr_gguf_find(g, "rope_freqs.weight") != NULL;
    c->renormalise = true;
    return TR_OK;
}

const tr_arch tr_arch_llama = {
    .name = "llama",
    .configure = configure,
};
