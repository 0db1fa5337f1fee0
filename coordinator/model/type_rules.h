/* type_rules.h - which type each tensor of a file that is written gets.
 *
 * A rule whose pattern (fnmatch) is the tensor's name decides, the last such rule first; else
 * experts (ffn_*_exps.weight) get `experts`, other matrices `dense`.  Vectors, routers, learned
 * positions and tensors of unknown purpose stay as they are.  A row that is no whole number of the
 * type's blocks falls to a type of about the same size whose blocks it fills.
 *
 * Pure, but for the lines of tr_type_rules_warn.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_TYPE_RULES_H
#define TR_COORDINATOR_MODEL_TYPE_RULES_H

#include "compute/types.h"

typedef struct {
    const char *pattern;
    tr_type type;
} tr_type_rule;

typedef struct {
    tr_type experts, dense;
    bool keeps; /* without a rule a matrix stays as it is, too */
    const tr_type_rule *rules;
    size_t n_rules;
} tr_type_rules;

/* Of a tensor that is of type `is`, has rows of n values and is a matrix or more of them.
 * *wanted (may be NULL) is what the rules say, before the rows' length is looked at. */
tr_type tr_type_rules_choose(const tr_type_rules *r, const char *name, tr_type is, uint64_t n,
                             bool is_matrix, tr_type *wanted);

/* A line for each rule that fits none of the n names, as a mistyped one does.  name_at(ctx, i) is
 * one of them. */
void tr_type_rules_warn(const tr_type_rules *r, const char *(*name_at)(const void *ctx, size_t i),
                        const void *ctx, size_t n);

/* The number that general.file_type has for files of mostly this type; 0 where there is none. */
uint32_t tr_type_rules_file_type(tr_type type);

#endif
