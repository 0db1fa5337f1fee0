/* rope.h - rotary position embedding.
 *
 * Pair i of a head's n values is turned by position * base^(-2i/n) (Su et al., "RoFormer", 2021).
 * Models that were stretched to longer contexts divide these frequencies: all by one number (Chen
 * et al., "Position interpolation", 2023), by factors from the file, or as YaRN does (Peng et al.,
 * "YaRN", 2023), which leaves the fast ones, divides the slow ones, and makes queries and keys a
 * little longer.
 *
 * USE     tr_rope_frequencies(config, factors, inverse);                     once a model
 *         tr_rope_angles(position, n, inverse, magnitude, cosine, sine);     once a row
 *         tr_rope_apply(kind, cosine, sine, n, head);                        each head
 *
 * Angles are computed in double precision and rounded once, so that long contexts stay exact.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_ROPE_H
#define TR_COORDINATOR_MODEL_ROPE_H

#include "coordinator/model/arch.h"

/* inverse[i] = base^(-2i/n) less what stretching takes, i in 0..n_rot/2-1; factors [n_rot/2] divide
 * them, NULL: all 1. */
void tr_rope_frequencies(const tr_model_config *c, const float *factors, double *inverse);

/* cosine and sine are [n/2], times magnitude. */
void tr_rope_angles(size_t position, size_t n, const double *inverse, double magnitude,
                    float *cosine, float *sine);

/* x is [n], turned in place. */
void tr_rope_apply(tr_rope_kind kind, const float *cosine, const float *sine, size_t n, float *x);

#endif
