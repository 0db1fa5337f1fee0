/* rope.h - rotary position embedding.
 *
 * Pair i of a head's n values is turned by position * base^(-2i/n) (Su et al., "RoFormer", 2021).
 *
 * USE     tr_rope_frequencies(base, n, factors, inverse);                  once a model
 *         tr_rope_angles(position, n, inverse, cosine, sine);     once a row
 *         tr_rope_apply(kind, cosine, sine, n, head);             each head
 *
 * Angles are computed in double precision and rounded once, so that long contexts stay exact.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_ROPE_H
#define TR_COORDINATOR_MODEL_ROPE_H

#include "coordinator/model/arch.h"

/* inverse[i] = base^(-2i/n) / factors[i], i in 0..n/2-1; factors may be NULL: all 1. */
void tr_rope_frequencies(double base, size_t n, const float *factors, double *inverse);

/* cosine and sine are [n/2]. */
void tr_rope_angles(size_t position, size_t n, const double *inverse, float *cosine, float *sine);

/* x is [n], turned in place. */
void tr_rope_apply(tr_rope_kind kind, const float *cosine, const float *sine, size_t n, float *x);

#endif
