/* arch_gpt2.c - GPT-2 (Radford et al., "Language models are unsupervised multitask learners",
 * 2019).
 *
 * No rotation: each position has a learned vector, which is added to the token's, so there are no
 * more positions than those.  Layer norms with biases; queries, keys and values from one matrix;
 * a dense network without a gate.  Biases everywhere.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

static tr_status configure(const tr_gguf *g, tr_model_config *c)
{
    (void)g;
    c->norm = TR_NORM_LAYER;
    c->has_positions = true;
    c->n_rot = 0;
    c->has_joint_qkv = true;
    c->has_qkv_bias = c->has_out_bias = true;
    c->has_plain_ffn = true;
    return TR_OK;
}

const tr_arch tr_arch_gpt2 = {
    .name = "gpt2",
    .configure = configure,
};
