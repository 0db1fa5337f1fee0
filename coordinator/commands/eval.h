/* eval.h - `troupe eval`: how well a model expects a text, and how far that is from another run.
 *
 * The command shares the options and the way to an engine with `troupe run` (run.c); what is its
 * own begins here, once the tokens are there.
 *
 * USE     st = tr_eval_open(&options, &setting, &v);    before anybody waits: what can't work
 *         ...open an engine with context = tr_eval_window, max_logits = tr_eval_max_logits...
 *         st = tr_eval_run(v, engine);                  the result goes to standard output
 *         tr_eval_close(&v);
 *
 * FAILS   what its parts fail with (eval_base.h, evaluate.h); TR_E_IO for standard output
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_EVAL_H
#define TR_COORDINATOR_COMMANDS_EVAL_H

#include "coordinator/commands/prompt.h"
#include "coordinator/engine/engine.h"

typedef struct {
    const tr_run_options *options;
    const tr_tokenizer *tokenizer;
    const tr_model_config *config;
    const tr_prompt *text;
} tr_eval_setting; /* all borrowed */

typedef struct tr_eval tr_eval;

/* The tokens of a window. */
size_t tr_eval_window(const tr_run_options *o, const tr_model_config *c);

/* So many rows' logits are kept at once, of a batch. */
size_t tr_eval_max_logits(const tr_run_options *o, const tr_model_config *c);

tr_status tr_eval_open(const tr_eval_setting *s, tr_eval **out);
tr_status tr_eval_run(tr_eval *v, tr_engine *e);
void tr_eval_close(tr_eval **v);

#endif
