/* router.h - which experts a row goes to, and with what weight.
 *
 * Softmax over all experts, the k largest are chosen (the lower index wins a tie), their
 * probabilities are the weights, divided by their sum if the architecture says so.  A row's picks
 * come in ascending expert order: the order in which answers are added.  Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_ROUTER_H
#define TR_COORDINATOR_MODEL_ROUTER_H

#include "compute/kernels.h"
#include "coordinator/cluster/plan.h"
#include "coordinator/model/arch.h"

/* logits is [n_experts] and is overwritten; picks gets config->top_k entries for row. */
void tr_router_pick(const tr_kernels *k, const tr_model_config *config, float *logits, uint32_t row,
                    tr_pick *picks);

#endif
