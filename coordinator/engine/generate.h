/* generate.h - one request from prompt to last token.
 *
 * USE     tr_generate_request r = { .prompt = ids, .n_prompt = n, ... };
 *         st = tr_generate(engine, &r, &result);
 *
 * The prompt goes through in chunks of the engine's max_rows, then tokens follow one by one.  How
 * the prompt is cut changes nothing: rows are computed independently of their batch.
 *
 * FAILS   TR_E_REQUEST      an empty prompt, a token that the model does not have, a full context
 *         TR_E_INTERRUPTED  a signal came (base/interrupt.h)
 *         what a step fails with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_GENERATE_H
#define TR_COORDINATOR_ENGINE_GENERATE_H

#include "coordinator/engine/engine.h"
#include "coordinator/text/sampler.h"

enum { TR_MAX_ALTERNATIVES = 100 };

typedef struct {
    uint32_t id;
    double log_prob; /* under the model, before sampling options; only if asked for */
    const tr_alternative *alternatives; /* [n_alternatives], most probable first */
    size_t n_alternatives;
} tr_generated;

typedef struct {
    const uint32_t *prompt; /* [n_prompt], at least 1 */
    size_t n_prompt;
    size_t max_tokens; /* to generate */
    tr_sampling sampling;
    uint64_t number; /* of the request: a random stream of its own */
    bool wants_log_probs;
    size_t n_alternatives; /* at most TR_MAX_ALTERNATIVES */

    /* Ends the answer before id is given out: end-of-text tokens.  May be NULL. */
    bool (*is_end)(void *ctx, uint32_t id);
    /* Each token as it is made; false ends the answer. */
    bool (*on_token)(void *ctx, const tr_generated *token);
    void *ctx;
} tr_generate_request;

typedef enum {
    TR_FINISH_LENGTH, /* max_tokens */
    TR_FINISH_END,    /* the model said that it is done */
    TR_FINISH_STOP,   /* on_token said so */
} tr_finish;

typedef struct {
    tr_finish finish;
    size_t n_prompt, n_generated;
    tr_time prefill, decode; /* to the first token; from there on */
} tr_generate_result;

tr_status tr_generate(tr_engine *e, const tr_generate_request *r, tr_generate_result *out);

const char *tr_finish_name(tr_finish f);

#endif
