/* latent.h - multi-head latent attention (DeepSeek-AI, "DeepSeek-V2", 2024).
 *
 * The keys and values of all heads are linear functions of one latent vector c of a position, and
 * of one rotated vector r that all heads share:
 *
 *   key_h = [K_h c, r]    value_h = V_h c
 *
 * Only [c, r] is kept of a position, once: it serves as key, and c as value.  A score is
 * q_h . key_h = [K_h' q_h1, q_h2] . [c, r], so K_h' (its transpose) is applied to the query
 * instead; the weighted sum of values is V_h times the weighted sum of c.  Attention itself is then
 * that of one key/value head whose queries are the model's heads.
 *
 * USE     tr_latent_queries(&l, q, n_rows, queries);
 *         ... attention ...
 *         tr_latent_values(&l, heads, n_rows, values);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_LATENT_H
#define TR_COORDINATOR_MODEL_LATENT_H

#include "coordinator/model/latent_weights.h"

typedef struct {
    const tr_compute *compute;
    const tr_model_config *config;
    const tr_latent_weights *up;
    uint8_t *scratch; /* [threads][tr_latent_scratch(config)], 64-byte aligned */
} tr_latent;

/* Bytes of scratch that a thread needs, a multiple of 64. */
size_t tr_latent_scratch(const tr_model_config *c);

/* q [n_rows][n_heads][head_dim], the last n_rot of each head rotated; queries
 * [n_rows][n_heads][latent + n_rot]. */
void tr_latent_queries(const tr_latent *l, const float *q, size_t n_rows, float *queries);

/* heads [n_rows][n_heads][latent + n_rot] as attention gives them; values
 * [n_rows][n_heads][value_dim]. */
void tr_latent_values(const tr_latent *l, const float *heads, size_t n_rows, float *values);

#endif
