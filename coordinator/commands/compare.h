/* compare.h - is an output the one that another engine gives?
 *
 * USE     st = tr_compare(engine, &request, &output, &place);
 *         place == TR_SAME, or where the two part
 *
 * The request is made once more, by an engine that knows nothing of the first, and each token is
 * held against the output's.  It ends at the first difference.
 *
 * THREAD  The engine's.
 * FAILS   What tr_generate fails with.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_COMPARE_H
#define TR_COORDINATOR_COMMANDS_COMPARE_H

#include "coordinator/engine/generate.h"

#define TR_SAME SIZE_MAX

typedef struct {
    const uint32_t *ids; /* [n] that on_token got */
    size_t n;
    tr_finish finish;
} tr_output;

/* r as it was made; its on_token is not called, its is_end is.  *place counts tokens of the output
 * from 0, and is n if the engine goes on where the output ended. */
tr_status tr_compare(tr_engine *e, const tr_generate_request *r, const tr_output *output,
                     size_t *place);

#endif
