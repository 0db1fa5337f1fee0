/* router.h - which experts a row goes to, and with what weight.
 *
 * Softmax over all experts, or a sigmoid of each; the k largest are chosen (the lower index wins a
 * tie), by the value plus a bias of the expert where the architecture has one.  Where experts stand
 * in groups, so that a row visits few machines, only those of the best groups can be chosen: a
 * softmax's group is as good as its best expert (DeepSeek-AI, "DeepSeek-V2", 2024), a sigmoid's as
 * its two best together ("DeepSeek-V3 technical report", 2024).
 *
 * The values without bias are the weights, divided by their sum if the architecture says so, times
 * its scales.  A row's picks come in ascending expert order: the order in which answers are added.
 * Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_ROUTER_H
#define TR_COORDINATOR_MODEL_ROUTER_H

#include "compute/kernels.h"
#include "coordinator/cluster/plan.h"
#include "coordinator/model/arch.h"

/* bias is [n_experts] or NULL.  logits is [n_experts] and is overwritten; picks gets config->top_k
 * entries for row. */
void tr_router_pick(const tr_kernels *k, const tr_model_config *config, const float *bias,
                    float *logits, uint32_t row, tr_pick *picks);

#endif
