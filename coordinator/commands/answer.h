/* answer.h - what `troupe run` writes: text as it is made, or one JSON object at the end.
 *
 * USE     tr_answer *a;
 *         st = tr_answer_new(&options, tokenizer, &a);
 *         tr_generate_request r = { ..., .on_token = tr_answer_token, .ctx = a };
 *         ...
 *         st = tr_answer_finish(a, &report);        writes what is still to be written
 *         tr_answer_free(&a);
 *
 * The bytes of tokens pass a UTF-8 filter, then the stop strings, then go to standard output.
 *
 * FAILS   TR_E_IO  standard output can't be written; said once, and the answer then ends
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_ANSWER_H
#define TR_COORDINATOR_COMMANDS_ANSWER_H

#include "coordinator/commands/prompt.h"
#include "coordinator/engine/generate.h"

typedef struct tr_answer tr_answer;

/* What the JSON object tells beside the tokens. */
typedef struct {
    const tr_run_options *options;
    const tr_prompt *prompt;
    const tr_generate_result *result;
    const tr_engine_stats *stats;
    const char *kernels;
    uint64_t seed;
    uint32_t n_workers;
} tr_report;

tr_status tr_answer_new(const tr_run_options *o, const tr_tokenizer *t, tr_answer **out);
void tr_answer_free(tr_answer **a);

/* For tr_generate_request; ctx is the answer.  False once a stop string came or output failed. */
bool tr_answer_token(void *ctx, const tr_generated *token);

/* True for tokens that end the answer; ctx is the answer. */
bool tr_answer_is_end(void *ctx, uint32_t id);

tr_status tr_answer_finish(tr_answer *a, const tr_report *report);

#endif
