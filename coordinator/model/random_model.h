/* random_model.h - write a model of a known shape with random weights.
 *
 * For tests of memory and speed: the file has everything that a real one has, and nothing it
 * says means anything.  The same options give the same bytes.
 *
 * FAILS   TR_E_IO, TR_E_MEMORY; nothing is then left at path
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_RANDOM_MODEL_H
#define TR_COORDINATOR_MODEL_RANDOM_MODEL_H

#include "base/status.h"
#include "compute/types.h"
#include "coordinator/model/shapes.h"

typedef struct {
    tr_model_shape shape;
    const char *path;
    tr_type experts, dense; /* computable ones */
    uint64_t seed;
    bool overwrite; /* replace what is at path */
    bool progress;  /* draw a bar on stderr */
} tr_random_model;

tr_status tr_random_model_write(const tr_random_model *o);

#endif
