/* families.h - all of them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_FAMILIES_H
#define TR_COORDINATOR_CONVERT_FAMILIES_H

#include "coordinator/convert/family.h"

extern const tr_family tr_family_deepseek_v2;
extern const tr_family tr_family_deepseek_v3;
extern const tr_family tr_family_glm4_moe;
extern const tr_family tr_family_gpt_oss;
extern const tr_family tr_family_granitemoe;
extern const tr_family tr_family_llama;
extern const tr_family tr_family_mistral;
extern const tr_family tr_family_mixtral;
extern const tr_family tr_family_olmoe;
extern const tr_family tr_family_qwen2_moe;
extern const tr_family tr_family_qwen3;
extern const tr_family tr_family_qwen3_moe;

#endif
