/* guide.h - hold an answer to a grammar: which tokens may come next.
 *
 * USE     st = tr_guide_vocab_new(tokenizer, &v);          once a model, shared
 *         st = tr_guide_new(v, grammar, &g);               one an answer
 *         tr_guide_constrain(g, logits, n_vocab);          those that may not come: -infinity
 *         tr_guide_accept(g, id);                          the one that was drawn
 *         if (tr_guide_is_over(g)) ...                     nothing more can come
 *         tr_guide_free(&g);  tr_guide_vocab_free(&v);
 *
 * A token may come if all its bytes can follow one after the other; tokens that end an answer may
 * exactly when the text may end; other special ones never.  Tokens are looked at in the order of
 * their bytes, so those that begin alike share the work, and one that can't come takes all that
 * begin like it along.
 *
 * THREAD  A vocabulary: any number of readers.  A guide: one at a time.
 * MEMORY  The vocabulary 8 bytes a token; a guide some hundred kilobytes, at most some MB.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_GUIDE_H
#define TR_COORDINATOR_TEXT_GUIDE_H

#include "coordinator/text/grammar.h"
#include "coordinator/text/tokenizer.h"

typedef struct tr_guide_vocab tr_guide_vocab;
typedef struct tr_guide tr_guide;

/* The tokenizer must outlive it. */
tr_status tr_guide_vocab_new(const tr_tokenizer *t, tr_guide_vocab **out);
void tr_guide_vocab_free(tr_guide_vocab **v);

/* v and grammar must outlive it. */
tr_status tr_guide_new(const tr_guide_vocab *v, const tr_grammar *grammar, tr_guide **out);
void tr_guide_free(tr_guide **g);

/* Returns how many tokens may come. */
size_t tr_guide_constrain(tr_guide *g, float *logits, size_t n_vocab);

/* False if the token could not come: the guide is then where no token can. */
bool tr_guide_accept(tr_guide *g, uint32_t id);

/* The text is whole, and only an end can follow. */
bool tr_guide_is_over(const tr_guide *g);

#endif
