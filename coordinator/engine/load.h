/* load.h - requests as many users would send them, and how long they wait.
 *
 * Open loop: requests come at random (Poisson) at a given rate, whether or not earlier ones have
 * been answered, as they do from people.  Closed loop: a given number is always under way.  Prompts
 * and answers have lengths around a mean (exponential), and a share of the prompts begins with the
 * same tokens.
 *
 * USE     st = tr_load_run(engine, &options, &result);
 *
 * The requests go through tr_serving in this process: the figures are those of scheduler and
 * cluster, without HTTP.
 *
 * FAILS   what tr_serving fails with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_LOAD_H
#define TR_COORDINATOR_ENGINE_LOAD_H

#include "coordinator/engine/serving.h"

typedef struct {
    double rate;        /* requests a second; 0: closed loop */
    size_t concurrent;  /* requests under way in a closed loop; most in the batch */
    double seconds;     /* during which requests are sent */
    double prompt_mean; /* tokens */
    double answer_mean; /* tokens; at least 1 each */
    double shared;      /* 0..1: prompts that begin like the others */
    size_t shared_tokens;
    size_t long_prompt; /* tokens of a further prompt every two seconds, if the last has been
                         * answered; 0: none */
    uint64_t seed;
} tr_load_options;

/* Seconds below which half, 95 and 99 of 100 lie. */
typedef struct {
    double p50, p95, p99;
    size_t n;
} tr_load_times;

typedef struct {
    size_t sent, finished, refused, failed;
    double seconds; /* that requests were sent; what follows is not in the figures below */
    uint64_t prompt_tokens, answer_tokens;
    tr_load_times first_token; /* from sending; not the long prompts' */
    tr_load_times between;     /* tokens of an answer, likewise */
    tr_serving_stats serving;
} tr_load_result;

/* The engine's n_sequences, max_logits and max_rows are at least concurrent, and one more with long
 * prompts: these have a place of their own.  A signal ends it: TR_OK, and tr_interrupted says so.
 */
tr_status tr_load_run(tr_engine *e, const tr_load_options *o, tr_load_result *out);

#endif
