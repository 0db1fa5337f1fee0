/* serving.h - many requests through one engine: continuous batching.
 *
 * Requests come from any thread and wait in a queue.  One thread runs the engine: at each step it
 * lets in who fits, puts together the rows of all that run (scheduler.h), sends them through the
 * model and draws each one's next token.  A request that finds no pages waits; one that runs may
 * have to give its pages back and is computed again later.  None of this changes a token of it.
 *
 * USE     tr_serving *s;
 *         st = tr_serving_new(&options, &s);
 *         st = tr_serving_submit(s, &request, 1, &ticket);     any thread
 *         tr_serving_cancel(s, ticket);                        any thread
 *         st = tr_serving_run(s);                              this thread, until it is over
 *         tr_serving_drain(s);                                 any thread: take no more, finish
 * these tr_serving_free(&s);
 *
 * CALLS BACK  on_token and on_end come from the running thread, must not block, and must not call
 *         this interface.  Every submitted request gets on_end exactly once.
 * MEMORY  A request's tokens are taken when it is submitted, its sequence and page table when it is
 *         let in; a step takes nothing else.  What on_token takes is its own affair.
 * FAILS   submit  TR_E_BUSY         all places are taken (no line): as many run and wait as may
 *                 TR_E_INTERRUPTED  no more are taken
 *                 TR_E_REQUEST      can never fit, or a token that the model does not have
 *         run     what a step fails with: all requests have then ended with it
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_SERVING_H
#define TR_COORDINATOR_ENGINE_SERVING_H

#include "coordinator/engine/generate.h"
#include "coordinator/text/logit_edit.h"

typedef struct tr_serving tr_serving;

enum { TR_SERVING_NAME = 40 };

typedef struct {
    const uint32_t *prompt; /* [n_prompt], at least 1; copied */
    size_t n_prompt;
    size_t max_tokens; /* at least 1 */
    tr_sampling sampling;
    uint64_t number;    /* of the random stream: answers of one request have their own */
    tr_logit_edit edit; /* copied */
    int32_t priority;   /* each point is worth ten seconds of waiting; scheduler.h */
    bool wants_log_probs;
    size_t n_alternatives;      /* at most TR_MAX_ALTERNATIVES */
    char name[TR_SERVING_NAME]; /* what those who watch know it by; may be empty */

    /* Constrains the next token: sets what may not come to -infinity; false if nothing may, which
     * ends the request with TR_E_REQUEST.  May be NULL.  From threads of the engine's pool, one at
     * a time for one request. */
    bool (*constrain)(void *ctx, float *logits, size_t n_vocab);
    bool (*is_end)(void *ctx, uint32_t id); /* may be NULL */
    bool (*on_token)(void *ctx, const tr_generated *token);
    /* st other than TR_OK: the request could not be finished, and why. */
    void (*on_end)(void *ctx, tr_finish finish, tr_status st, const char *why);
    void *ctx;
} tr_serving_request;

typedef struct {
    tr_engine *engine;  /* its n_sequences, max_logits and max_rows are at least max_running */
    size_t max_running; /* sequences in one step */
    size_t max_waiting; /* requests beyond them */

    /* By the running thread, before each step and some times a second without any; may be NULL. */
    void (*tick)(void *ctx);
    void *ctx;
} tr_serving_options;

tr_status tr_serving_new(const tr_serving_options *o, tr_serving **out);
void tr_serving_free(tr_serving **s);

/* r, tickets [n]: all are taken, or none. */
tr_status tr_serving_submit(tr_serving *s, const tr_serving_request *r, size_t n,
                            uint64_t *tickets);

/* Its on_end comes with TR_E_INTERRUPTED, unless it ended before.  Unknown tickets do nothing. */
void tr_serving_cancel(tr_serving *s, uint64_t ticket);

/* Returns when drained and empty, or stopped, or when a step of the engine fails. */
tr_status tr_serving_run(tr_serving *s);
void tr_serving_drain(tr_serving *s);

/* From any thread: run ends after the step it is in, and what has not finished is told so. */
void tr_serving_stop(tr_serving *s);

/* For tr_engine_options.on_picks; ctx is a tr_serving ** that may still be NULL. */
void tr_serving_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows, size_t top_k);

/* Times in buckets whose upper bounds are tr_serving_bounds, in seconds; the last has none. */
enum { TR_SERVING_BUCKETS = 20 };
extern const double tr_serving_bounds[TR_SERVING_BUCKETS - 1];

typedef struct {
    uint64_t bucket[TR_SERVING_BUCKETS];
    uint64_t n;
    double sum;
} tr_serving_histogram;

/* The value below which a share (0..1) of the entries lies, within a bucket; 0 if there are none.
 */
double tr_serving_quantile(const tr_serving_histogram *h, double share);

/* All since new. */
typedef struct {
    size_t running, waiting, max_rows;
    uint64_t finished, failed, cancelled, preempted;
    uint64_t prompt_tokens, generated_tokens;
    uint64_t prefix_tokens, prefix_hits; /* tokens of prompts let in; of them found in the cache */
    uint64_t steps, rows;
    size_t last_rows;    /* of the last step */
    tr_time in_steps;    /* time in the model */
    tr_time in_drawing;  /* sampling */
    tr_time in_schedule; /* all else while there was something to do */
    tr_serving_histogram first_token, between_tokens;
    tr_kv_pages_counts kv;
    uint64_t traced; /* ticket of the request whose picks are counted apart; 0: none yet */
    char traced_name[TR_SERVING_NAME];
    uint64_t traced_tokens;
    bool is_draining;
} tr_serving_stats;

/* From any thread.  picks and traced_picks (may be NULL) are [n_layers][n_experts]. */
void tr_serving_get_stats(tr_serving *s, tr_serving_stats *out, uint64_t *picks,
                          uint64_t *traced_picks);

#endif
