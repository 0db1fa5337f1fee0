/* evaluate.h - what a model expects at each position of a text.
 *
 * The text's tokens are cut into windows that don't overlap; what is left at the end is not used.
 * Each window begins with an empty cache, and where the model wants a begin token it takes the
 * place of the window's first.  Position i of a window expects token i + 1; positions skip up to
 * window - 2 count, so window - 1 - skip of each window.  Those before only serve as context.
 *
 * USE     st = tr_evaluate(engine, &request, &result);     on_position sees one after the other
 *
 * MEMORY  Logits of the engine's max_logits rows.
 * FAILS   TR_E_REQUEST  the text is shorter than a window, or has a token that the model has not
 *         TR_E_FORMAT   logits that are no numbers
 *         what on_position and the engine fail with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_EVALUATE_H
#define TR_COORDINATOR_ENGINE_EVALUATE_H

#include "coordinator/engine/engine.h"

/* A position that counts; borrowed for the call. */
typedef struct {
    uint32_t token;      /* that follows in the text */
    const float *logits; /* [n_vocab], finite */
    size_t n_vocab;
    double log_total; /* tr_log_total of the logits: ln p of a token is its logit less this */
} tr_eval_position;

typedef struct {
    const uint32_t *ids; /* [n] */
    size_t n;
    size_t window; /* tokens: 2 up to the engine's context */
    size_t skip;   /* up to window - 2 */
    bool has_bos;  /* put bos at each window's begin */
    uint32_t bos;
    size_t max_logits; /* the engine's */
    tr_status (*on_position)(void *ctx, const tr_eval_position *p);
    void *ctx;
} tr_eval_request;

typedef struct {
    size_t n_windows, n_positions, n_fed; /* fed: tokens that went through the model */
    tr_time elapsed;
} tr_eval_result;

/* Windows and positions that a text of n tokens has. */
size_t tr_eval_windows(size_t n, size_t window);
size_t tr_eval_positions(size_t n, size_t window, size_t skip);

/* Token i of a window as it goes through the model. */
static inline uint32_t tr_eval_token(const tr_eval_request *r, size_t window, size_t i)
{
    return i == 0 && r->has_bos ? r->bos : r->ids[window * r->window + i];
}

tr_status tr_evaluate(tr_engine *e, const tr_eval_request *r, tr_eval_result *out);

#endif
