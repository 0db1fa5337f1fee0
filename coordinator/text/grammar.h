/* grammar.h - which bytes may follow: a context-free grammar over bytes, walked a byte at a time.
 *
 * A grammar is rules; a rule is alternatives; an alternative is a sequence of byte sets and
 * references to rules.  It is built once and then constant.  A walk holds one position in a text
 * that the grammar describes: all the ways in which the text so far can be read, at once.
 *
 * USE     tr_grammar *g = tr_grammar_new();
 *         uint32_t digits = tr_grammar_rule(g);
 *         tr_grammar_begin(g, digits);  tr_grammar_range(g, '0', '9');  tr_grammar_end(g);
 *         tr_grammar_begin(g, digits);  tr_grammar_range(g, '0', '9');  tr_grammar_ref(g, digits);
 *         tr_grammar_end(g);
 *         st = tr_grammar_close(g, digits);             the rule that a text is
 *         st = tr_walk_new(g, &w);
 *         s = tr_walk_next(w, tr_walk_start(w), '7');   TR_WALK_DEAD: no text goes on so
 *         if (tr_walk_is_end(w, s)) ...                 the text may end here
 *         tr_walk_free(&w);  tr_grammar_free(&g);
 *
 * Readings are found as they are needed and kept, so that a byte seen before in the same situation
 * costs one look into a table.  What is kept is bounded: tr_walk_trim forgets all but one state.
 *
 * FAILS   close  TR_E_MEMORY       also if an earlier call had none
 *                TR_E_REQUEST      larger than TR_GRAMMAR_MAX_ELEMENTS; a rule that begins with
 *                                  itself; a text can begin in too many ways
 *         next   dead also where a text could go on in too many ways to be followed
 * THREAD  A closed grammar: any number of readers.  A walk: one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_GRAMMAR_H
#define TR_COORDINATOR_TEXT_GRAMMAR_H

#include "base/bytes.h"
#include "base/status.h"

enum { TR_GRAMMAR_MAX_ELEMENTS = 1 << 18 };

typedef struct tr_grammar tr_grammar;

/* NULL for want of memory: other calls on NULL do nothing, and close says so. */
tr_grammar *tr_grammar_new(void);
void tr_grammar_free(tr_grammar **g);

/* A new rule without alternatives, which can be referred to at once. */
uint32_t tr_grammar_rule(tr_grammar *g);

/* One alternative of a rule: what is added between begin and end.  Not nested. */
void tr_grammar_begin(tr_grammar *g, uint32_t rule);
void tr_grammar_range(tr_grammar *g, uint8_t low, uint8_t high);
void tr_grammar_set(tr_grammar *g, const uint32_t set[8]); /* bit b % 32 of word b / 32 */
void tr_grammar_text(tr_grammar *g, tr_bytes text);
void tr_grammar_ref(tr_grammar *g, uint32_t rule);
void tr_grammar_end(tr_grammar *g);

tr_status tr_grammar_close(tr_grammar *g, uint32_t root);

typedef struct tr_walk tr_walk;

#define TR_WALK_DEAD (-1)

tr_status tr_walk_new(const tr_grammar *g, tr_walk **out);
void tr_walk_free(tr_walk **w);

int32_t tr_walk_start(const tr_walk *w);
int32_t tr_walk_next(tr_walk *w, int32_t state, uint8_t byte);
bool tr_walk_is_end(const tr_walk *w, int32_t state);

/* True if no byte may follow. */
bool tr_walk_is_over(tr_walk *w, int32_t state);

/* Forget what is kept if it has grown large; returns the number that state has from now on. */
int32_t tr_walk_trim(tr_walk *w, int32_t state);

#endif
