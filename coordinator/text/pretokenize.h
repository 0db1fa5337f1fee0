/* pretokenize.h - cut text into the words that byte pair encoding works on.
 *
 * Each family of tokenizers was trained on words that its own regular expressions cut, so a
 * file names the family (`tokenizer.ggml.pre`) and the cuts must be the same here.
 * A family is a list of expressions.  The first one cuts the text into its matches and what
 * lies between them, the next one cuts each of these pieces in the same way, and so on.  An
 * expression sees one piece at a time and nothing around it.
 *
 * USE     st = tr_pretokenizer_new(tr_bytes_of("qwen2"), &p);
 *         st = tr_pieces_init(&pieces);
 *         st = tr_pretokenize(p, text, &pieces);
 *         for (size_t i = 0; i < pieces.n; i++) ...       piece i ends before pieces.end[i]
 *         tr_pieces_fini(&pieces);  tr_pretokenizer_free(&p);
 * THREAD  A pretokenizer is immutable; each thread has its own pieces.
 * FAILS   TR_E_UNSUPPORTED  no expressions are known for the name
 *         TR_E_REQUEST      matching ran into the library's limits
 *         TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_PRETOKENIZE_H
#define TR_COORDINATOR_TEXT_PRETOKENIZE_H

#include "base/bytes.h"
#include "base/status.h"

typedef struct tr_pretokenizer tr_pretokenizer;
typedef struct tr_match_work tr_match_work;

typedef struct {
    uint32_t *end; /* n, ascending; the last is the text's size */
    size_t n;
    size_t capacity;
    uint32_t *other; /* the pieces of the expression before */
    size_t other_capacity;
    tr_match_work *match;
} tr_pieces;

tr_status tr_pretokenizer_new(tr_bytes name, tr_pretokenizer **out);
void tr_pretokenizer_free(tr_pretokenizer **p);

/* A word that is a token as a whole is not merged from its bytes in this family. */
bool tr_pretokenizer_takes_whole_words(const tr_pretokenizer *p);

/* Prompts begin with the BOS token in this family unless the file says otherwise. */
bool tr_pretokenizer_adds_bos(const tr_pretokenizer *p);

/* The i-th name that is known, or NULL after the last. */
const char *tr_pretokenizer_name_at(size_t i);

tr_status tr_pieces_init(tr_pieces *pieces);
void tr_pieces_fini(tr_pieces *pieces);

/* text is valid UTF-8 of less than 2^31 bytes.  Empty text has no pieces. */
tr_status tr_pretokenize(const tr_pretokenizer *p, tr_bytes text, tr_pieces *pieces);

#endif
