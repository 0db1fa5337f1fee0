/* requantise.h - a model file written again with its matrices in other types.
 *
 * What becomes of a tensor: a rule whose pattern (fnmatch) is its name decides, the last such rule
 * first; else experts (ffn_*_exps.weight) get `experts`, other matrices `dense`.  Vectors, the
 * router, learned positions and tensors of unknown purpose stay as they are.  A row that is no
 * whole number of the type's blocks falls to a type whose blocks it fills, with a line that says
 * so.
 *
 * Tensors stream through a few megabytes, rows over all threads.  Metadata is copied but for the
 * keys that name the file's type.
 *
 * FAILS   TR_E_USAGE        in and out are the same file
 *         TR_E_UNSUPPORTED  a quantised tensor would be quantised again: errors add up (force)
 *         and what reading and writing fail with; nothing is left at `out` then
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_REQUANTISE_H
#define TR_COORDINATOR_MODEL_REQUANTISE_H

#include "base/status.h"
#include "compute/pool.h"
#include "compute/types.h"

typedef struct {
    const char *pattern;
    tr_type type;
} tr_requantise_rule;

typedef struct {
    const char *in, *out;
    tr_type experts, dense;
    const tr_requantise_rule *rules;
    size_t n_rules;
    tr_pool *pool;
    bool force;    /* quantise what is quantised */
    bool progress; /* draw a bar on stderr */
} tr_requantise;

typedef struct {
    uint64_t before[TR_TYPE_COUNT], after[TR_TYPE_COUNT]; /* bytes of tensors */
    double error, size; /* sums of squares over what changed: of differences, of values */
} tr_requantise_result;

tr_status tr_requantise_run(const tr_requantise *r, tr_requantise_result *out);

#endif
