/* combine.h - add up what came back.
 *
 *   x[r] += sum over the row's picks, in ascending expert order, of weight * answer
 *
 * The order is the picks' own, never that of arrival: so the placement, the number of workers
 * and the network can't change a bit of the result.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_COMBINE_H
#define TR_COORDINATOR_CLUSTER_COMBINE_H

#include "compute/matrix.h"
#include "coordinator/cluster/plan.h"

/* picks [n_rows][top_k]; answers[i] points to the dim floats of pick i; x [n_rows][dim]. */
void tr_combine(const tr_compute *c, const tr_pick *picks, const float *const *answers,
                size_t n_rows, size_t top_k, size_t dim, float *x);

#endif
