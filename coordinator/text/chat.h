/* chat.h - from the messages of a conversation to the token ids of a prompt.
 *
 * Each chat model wants its own template (chat_family.h).  The template's marks become their
 * special tokens, and what people write never does: a user who types <|im_end|> gets it as text.
 * Where a family's marks are plain text themselves (llama2, mistral-v0 and -v1, deepseek2, tulu,
 * plain) nothing can tell a typed one from a true one.
 * For all other text the ids are those of the whole rendered conversation, encoded at once: it is
 * cut at special tokens only, so words that a template and a message share are one.
 *
 * USE     st = tr_chat_open(g, t, NULL, &c);
 *         tr_chat_message m[] = { { tr_bytes_of("user"), tr_bytes_of("Hello") } };
 *         st = tr_chat_encode(c, m, 1, true, &ids, &n);        free(ids)
 *         tr_chat_stops stops = tr_chat_stops_of(c);           besides tr_tokenizer_is_eog
 *         tr_chat_close(&c);
 * STATE   Immutable after open.  t must outlive it; g may be closed.
 * THREAD  Any number of readers.
 * FAILS   open    TR_E_USAGE        choice is no name of a family; the line lists them
 *                 TR_E_UNSUPPORTED  the file's template belongs to no family that is known, or
 *                                   the vocabulary lacks a mark of the family
 *                 TR_E_FORMAT       the template is no string
 *         encode  TR_E_REQUEST      an unknown role, an order of roles that the family does not
 *                                   have, text that is not UTF-8; the line says which message
 *         both    TR_E_MEMORY
 *
 * Roles are system, developer, user, assistant and tool; developer is another word for system.
 * Families without a place for a system message put it in front of the user's first message, or
 * of the last one where the published template does so.  BOS stands first if the file asks for it
 * (add_bos_token, or a template that names bos_token) or the family always has it.
 *
 * Where models think before they answer: thoughts in earlier answers are left out as published
 * templates do.  gpt-oss begins its answers in the channel `final`: it gets no room for
 * `analysis`, and its answer is the text alone.  Its system message is fixed and has no date.
 * A default system message that a template spells out is used when a conversation has none.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_CHAT_H
#define TR_COORDINATOR_TEXT_CHAT_H

#include "base/bytes.h"
#include "base/status.h"
#include "compute/gguf.h"
#include "coordinator/text/tokenizer.h"

enum { TR_CHAT_MAX_TEMPLATE = 1 << 20 }; /* bytes of tokenizer.chat_template */

typedef struct tr_chat tr_chat;

typedef struct {
    tr_bytes role, content;
} tr_chat_message;

/* What ends an answer besides the vocabulary's own tokens; views into the chat. */
typedef struct {
    const tr_bytes *strings;
    size_t n_strings;
    const uint32_t *ids;
    size_t n_ids;
} tr_chat_stops;

/* choice is the name of a family (tr_chat_name_at), or NULL to recognise it.  A file without a
 * template belongs to the one family that has all its tokens and one of them as the end of a text;
 * to `plain` if there is no such family, or several. */
tr_status tr_chat_open(const tr_gguf *g, const tr_tokenizer *t, const char *choice, tr_chat **out);
void tr_chat_close(tr_chat **c);

const char *tr_chat_name(const tr_chat *c);

/* The i-th name that choice may have, or NULL after the last. */
const char *tr_chat_name_at(size_t i);

/* With add_generation_prompt the prompt ends where the assistant's answer begins.  *ids is a new
 * array, NULL for no ids. */
tr_status tr_chat_encode(const tr_chat *c, const tr_chat_message *messages, size_t n,
                         bool add_generation_prompt, uint32_t **ids, size_t *n_ids);

tr_chat_stops tr_chat_stops_of(const tr_chat *c);

#endif
