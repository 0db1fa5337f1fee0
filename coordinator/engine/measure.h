/* measure.h - time the engine on the loads that matter, and say how close it is to the limit.
 *
 * USE     st = tr_measure_prefill(m, 512, &result);     one prompt of 512 tokens
 *         st = tr_measure_decode(m, 16, 0, &result);    16 sequences, a token each a step
 *
 * THE LIMIT  A step must read every weight that it uses and every key and value that its rows look
 *         at once, and multiply every row with every weight that the row uses.  The limit is the
 *         time for the bytes at the memory's speed or for the operations at the speed of products,
 *         whichever is longer; the speeds were measured with the same threads (compute/limits.h).
 *         An expert counts once a step however many rows use it.  Matrices of 8-bit products and
 *         those of float ones count at the speed of their kind.
 *
 * A TOKEN IS DRAWN from each row of logits, by the threads and with the defaults of a run
 *         (sampler.h), and that is timed, too.  What goes through the model next is not that token
 *         but one of a fixed list: so each repeat does the same work.
 *
 * FAILS   what a step fails with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_MEASURE_H
#define TR_COORDINATOR_ENGINE_MEASURE_H

#include "compute/limits.h"
#include "coordinator/engine/engine.h"

enum {
    TR_MEASURE_MAX_REPEATS = 64,
    TR_MEASURE_PROMPT = 4, /* tokens of a sequence before its writing is timed */
    TR_MEASURE_TRIPS = 32, /* steps of one row that are timed one by one, as positions allow */
};

/* What a step touched, counted by the router's picks. */
typedef struct {
    uint64_t bytes; /* of distinct experts in a layer, all layers and steps together */
} tr_measure_load;

/* The layers of one step, watched one by one. */
typedef struct {
    bool is_on;
    tr_forward_times spent; /* until the last layer's end, */
    tr_time longest;        /* and by the workers that took longest */
    tr_time beyond;         /* tr_measure_beyond of each, summed */
} tr_measure_layers;

/* Where the time went. */
typedef struct {
    tr_forward_times step;
    tr_time sampling; /* drawing a token from each row of logits */
    tr_time other;    /* of the wall's time, what none of these took */
    tr_time wall;
} tr_measure_times;

typedef struct {
    tr_engine *engine;
    tr_limits limits;
    size_t repeats;       /* 1..TR_MEASURE_MAX_REPEATS */
    size_t steps;         /* of one decode measurement */
    tr_measure_load load; /* filled by tr_measure_picks */
    uint8_t *seen;        /* [n_experts] */
    tr_measure_layers layers;
} tr_measure;

typedef struct {
    size_t rows, context;            /* of a step; positions before it */
    double median, fastest, slowest; /* tokens a second; the median is of the seconds */
    double limit;                    /* tokens a second */
    const char *bound;               /* which limit binds: "memory", "int8", "float" */
    double bytes, ops;               /* a second, reached in the median */
    tr_measure_times times;          /* of all repeats together */
} tr_measure_result;

/* seen must have room for the model's experts.  For tr_engine_options.on_picks, ctx the measure. */
void tr_measure_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows, size_t top_k);

tr_status tr_measure_prefill(tr_measure *m, size_t n_tokens, tr_measure_result *out);

/* Seconds for reading all tensors of the file once with the engine's threads, as loading did. */
tr_status tr_measure_read(tr_measure *m, const tr_gguf *gguf, double *seconds);

/* The way to a worker and back, for one row of one sequence: what each layer waits for. */
typedef struct {
    size_t share_bytes, answer_bytes; /* of a row whose picks are spread evenly */
    tr_time transport;                /* an echo of these sizes, the median */
    tr_time layer;                    /* dispatch to combine beyond the work itself, the median */
} tr_measure_trip;

/* What a layer's dispatch, shared expert, wait and combine took beyond the work itself: that of the
 * worker with the longest, or the shared expert's if it took longer, as both go on at once.  Never
 * below 0. */
tr_time tr_measure_beyond(const tr_forward_times *layer, tr_time longest);

/* Only with workers. */
tr_status tr_measure_round_trip(tr_measure *m, tr_measure_trip *out);

/* A token after some seconds of nothing, beside one right after another. */
typedef struct {
    tr_time warm, first; /* a step of one row: the median of several, and after the pause */
    double cpu_percent;  /* of a core, that this process used in the pause */
} tr_measure_rest;

tr_status tr_measure_idle(tr_measure *m, tr_time pause, tr_measure_rest *out);

/* context: positions before the first token, whose keys and values are whatever the cache holds. */
tr_status tr_measure_decode(tr_measure *m, size_t n_sequences, size_t context,
                            tr_measure_result *out);

#endif
