/* tokenizer.h - text to token ids and back, with the vocabulary of a GGUF file.
 *
 * The text is cut at special tokens, and what lies between them is encoded as the file's kind of
 * tokenizer does (`tokenizer.ggml.model`):
 *   gpt2   byte-level byte pair encoding: the text is cut into words (pretokenize.h), and the bytes
 *          of each word are merged (bpe.h)
 *   llama  SentencePiece: characters are joined by the scores of pieces (spm.h)
 *
 * USE     st = tr_tokenizer_new(g, &t);
 *         st = tr_tokenizer_encode(t, tr_bytes_of("Hello"), false, &ids, &n);    free(ids)
 *         tr_bytes piece = tr_tokenizer_piece(t, ids[0]);
 *         tr_tokenizer_free(&t);
 * STATE   Immutable after new; g may be closed.
 * THREAD  Any number of readers.
 * MEMORY  Pieces live as long as the tokenizer.
 * FAILS   new     TR_E_FORMAT       the vocabulary is missing or inconsistent
 *                 TR_E_UNSUPPORTED  another kind of tokenizer, or an unknown pre-tokenizer
 *         encode  TR_E_REQUEST      not UTF-8 (with the position of the byte), too long, or a byte
 *                                   for which the vocabulary has no token
 *         both    TR_E_MEMORY
 *
 * The pieces of encode(text) put together are text again.  SentencePiece puts one space in front of
 * the text and of what follows a special token, unless the file says that it doesn't
 * (`tokenizer.ggml.add_space_prefix`), and takes U+2581 for a space: the pieces are those of the
 * text with these spaces.  Who shows a text from its first token on leaves the first space out;
 * what goes on behind a prompt is shown as it is.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_TOKENIZER_H
#define TR_COORDINATOR_TEXT_TOKENIZER_H

#include "base/bytes.h"
#include "base/status.h"
#include "compute/gguf.h"

enum { TR_TOKENIZER_MAX_TEXT = 1 << 28 }; /* bytes that encode takes at once */

typedef struct tr_tokenizer tr_tokenizer;

tr_status tr_tokenizer_new(const tr_gguf *g, tr_tokenizer **out);
void tr_tokenizer_free(tr_tokenizer **t);

/* With parse_special the text of a special token (type control or unknown) becomes that token;
 * without it no text does.  Tokens that a user added (type user-defined) are always found.  The
 * longest one that begins at a place wins.  No BOS is put in front and no EOS behind.  *ids is a
 * new array, also for no ids. */
tr_status tr_tokenizer_encode(const tr_tokenizer *t, tr_bytes text, bool parse_special,
                              uint32_t **ids, size_t *n);

/* The same for text that goes on behind other text: no space is put in front. */
tr_status tr_tokenizer_encode_rest(const tr_tokenizer *t, tr_bytes text, bool parse_special,
                                   uint32_t **ids, size_t *n);

/* The exact bytes of a token, which may be a part of a character; special ones: their text. */
tr_bytes tr_tokenizer_piece(const tr_tokenizer *t, uint32_t id);

size_t tr_tokenizer_n_vocab(const tr_tokenizer *t);

/* Tokens that steer the model and aren't text (control, unknown, unused). */
bool tr_tokenizer_is_special(const tr_tokenizer *t, uint32_t id);

/* The token that encode puts for the whole of text with parse_special: a special or a
 * user-defined one.  False if there is none. */
bool tr_tokenizer_special(const tr_tokenizer *t, tr_bytes text, uint32_t *id);

/* Tokens that end a generation. */
bool tr_tokenizer_is_eog(const tr_tokenizer *t, uint32_t id);

/* The token that begins a text; false if the file names none. */
bool tr_tokenizer_bos(const tr_tokenizer *t, uint32_t *id);

/* The token that ends a text; false if the file names none. */
bool tr_tokenizer_eos(const tr_tokenizer *t, uint32_t *id);

/* True if prompts are to begin with BOS: the file says so, or doesn't say and its family (or
 * SentencePiece) does; and to end with EOS: the file says so. */
bool tr_tokenizer_adds_bos(const tr_tokenizer *t);
bool tr_tokenizer_adds_eos(const tr_tokenizer *t);

#endif
