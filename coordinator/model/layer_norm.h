/* layer_norm.h - layer normalisation of a row (Ba et al., "Layer normalization", 2016).
 *
 *   y = (x - mean) / sqrt(variance + eps) * weight + bias
 *
 * One function for all kernel tables, in plain C: what it costs is nothing beside a matrix.  Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_LAYER_NORM_H
#define TR_COORDINATOR_MODEL_LAYER_NORM_H

#include <stddef.h>

/* All are [n]; y may be x. */
void tr_layer_norm(const float *x, const float *weight, const float *bias, size_t n, float eps,
                   float *y);

#endif
