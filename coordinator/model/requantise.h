/* requantise.h - a model file written again with its matrices in other types.
 *
 * What becomes of a tensor, type_rules.h says; a row that does not fill the type's blocks falls to
 * another type with a line that says so, and a rule that fits no tensor gets a line, too.
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
#include "coordinator/model/type_rules.h"

typedef struct {
    const char *in, *out;
    tr_type_rules types;
    tr_pool *pool;
    bool force;     /* quantise what is quantised */
    bool overwrite; /* replace what is at `out` */
    bool progress;  /* draw a bar on stderr */
} tr_requantise;

typedef struct {
    uint64_t before[TR_TYPE_COUNT], after[TR_TYPE_COUNT]; /* bytes of tensors */
    double error, size; /* sums of squares over what changed: of differences, of values */
} tr_requantise_result;

tr_status tr_requantise_run(const tr_requantise *r, tr_requantise_result *out);

#endif
