/* talk.h - `troupe run --chat`: a conversation in the terminal.
 *
 * Each message and each answer stays part of the conversation; what of it the cache still holds is
 * not computed again.  /clear begins a new one, /bye or the end of the input ends.
 *
 * USE     st = tr_talk(&options);
 * FAILS   what generating and reading fail with; a message that does not fit is said and left out
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_TALK_H
#define TR_COORDINATOR_COMMANDS_TALK_H

#include "coordinator/commands/run_options.h"
#include "coordinator/engine/generate.h"
#include "coordinator/text/chat.h"

typedef struct {
    tr_engine *engine;
    const tr_tokenizer *tokenizer;
    const tr_chat *chat;
    const tr_run_options *options;
    tr_sampling sampling;
    size_t context;
} tr_talk_options;

tr_status tr_talk(const tr_talk_options *o);

#endif
