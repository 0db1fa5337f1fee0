/* prompt.h - the prompt of `troupe run`, from wherever it comes, as tokens.
 *
 * USE     tr_prompt p;
 *         st = tr_prompt_read(&options, tokenizer, &p);
 *         ... p.ids[0..p.n-1] ...
 *         tr_prompt_fini(&p);
 *
 * FAILS   TR_E_IO       a file or standard input can't be read
 *         TR_E_REQUEST  invalid UTF-8 (with the position), too large, empty
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_PROMPT_H
#define TR_COORDINATOR_COMMANDS_PROMPT_H

#include "coordinator/commands/run_options.h"
#include "coordinator/text/tokenizer.h"

enum { TR_PROMPT_MAX_SIZE = 64 << 20 }; /* bytes of text */

typedef struct {
    uint32_t *ids; /* [n], with begin and end token where the model or the user wants them */
    size_t n;
} tr_prompt;

tr_status tr_prompt_read(const tr_run_options *o, const tr_tokenizer *t, tr_prompt *out);
void tr_prompt_fini(tr_prompt *p);

#endif
