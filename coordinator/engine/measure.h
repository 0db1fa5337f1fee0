/* measure.h - time the engine on the loads that matter, and say how close it is to the limit.
 *
 * USE     st = tr_measure_prefill(m, 512, &result);     one prompt of 512 tokens
 *         st = tr_measure_decode(m, 16, 0, &result);    16 sequences, a token each a step
 *
 * THE LIMIT  A step must read every weight that it uses once, and multiply every row with every
 *         weight that the row uses.  The limit is the time for the bytes at the memory's speed or
 *         for the operations at the speed of 8-bit products, whichever is longer; both speeds
 *         were measured with the same threads (compute/limits.h).  An expert counts once a step
 *         however many rows use it; keys and values are left out, so at long contexts the true
 *         limit is lower than what is shown.
 *
 * FAILS   what a step fails with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_MEASURE_H
#define TR_COORDINATOR_ENGINE_MEASURE_H

#include "compute/limits.h"
#include "coordinator/engine/engine.h"

enum { TR_MEASURE_MAX_REPEATS = 64 };

/* What a step touched, counted by the router's picks. */
typedef struct {
    uint64_t experts; /* distinct ones, of all layers */
    uint64_t picks;
} tr_measure_load;

typedef struct {
    tr_engine *engine;
    tr_limits limits;
    size_t repeats;       /* 1..TR_MEASURE_MAX_REPEATS */
    size_t steps;         /* of one decode measurement */
    tr_measure_load load; /* filled by tr_measure_picks */
    uint8_t *seen;        /* [n_experts] */
} tr_measure;

typedef struct {
    size_t rows, context;            /* of a step; positions before it */
    double median, fastest, slowest; /* tokens a second */
    double limit;                    /* tokens a second */
    bool is_memory;                  /* which limit binds */
    double bytes, ops;               /* a second, reached in the median */
    tr_forward_times times;          /* of all repeats together */
} tr_measure_result;

/* seen must have room for the model's experts.  For tr_engine_options.on_picks, ctx the measure. */
void tr_measure_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows);

tr_status tr_measure_prefill(tr_measure *m, size_t n_tokens, tr_measure_result *out);

/* context: positions before the first token, whose keys and values are whatever the cache holds. */
tr_status tr_measure_decode(tr_measure *m, size_t n_sequences, size_t context,
                            tr_measure_result *out);

#endif
