/* spm.h - SentencePiece: join neighbours in the order of the joined pieces' scores.
 *
 * Text begins as its characters.  Among all neighbours that together are a piece, those whose
 * piece has the highest score are joined first, the leftmost pair first among equals, until no two
 * neighbours are a piece.  A character that is no piece becomes its bytes' tokens.
 * Files write a space as U+2581, and here both are a space.
 *
 * That is byte pair encoding (bpe.h) whose merges are all the ways to cut a piece into two, ranked
 * by score, so these merges are made once, and long text takes n log n steps.
 *
 * USE     size = tr_spm_decode(text, out);
 *         if (tr_spm_byte(tr_bytes_of("<0x0A>"), &byte)) ...
 *         st = tr_spm_new(g, &vocab, &s);
 *         st = tr_spm_encode(s, &work, text, true, ids, &n);
 *         tr_bpe_work_fini(&work);  tr_spm_free(&s);
 * THREAD  A tr_spm is immutable; each thread has its own work.
 * MEMORY  The pieces are borrowed as long as the tr_spm lives, the rest of vocab by new only.
 * FAILS   new     TR_E_FORMAT   no score for each piece, a score that is no number, or pieces that
 *                               are too long together or have too many ways to cut them
 *         encode  TR_E_REQUEST  a character that is no piece, with a byte that has no token
 *         both    TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_SPM_H
#define TR_COORDINATOR_TEXT_SPM_H

#include "base/bytes.h"
#include "base/status.h"
#include "compute/gguf.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/vocab.h"

/* To cut a piece everywhere takes the square of its size.  A vocabulary of 256,000 pieces needs a
 * fiftieth of the first, and a fourth of the second. */
enum { TR_SPM_MAX_SQUARES = 1 << 30, TR_SPM_MAX_MERGES = 1 << 23 };

typedef struct tr_spm tr_spm;

typedef struct {
    size_t n;
    const tr_bytes *pieces;   /* n, valid UTF-8 unless they are no words */
    const bool *is_word;      /* n: may text become this piece? */
    const uint32_t *byte_ids; /* 256, TR_VOCAB_NO_TOKEN where there is none */
} tr_spm_vocab;

/* The bytes of a piece's text in a file, written to out (room for text.size); returns their
 * number. */
size_t tr_spm_decode(tr_bytes text, uint8_t *out);

/* The byte that a text like <0x0A> stands for; false for other text. */
bool tr_spm_byte(tr_bytes text, uint8_t *byte);

/* The scores are in g (tokenizer.ggml.scores). */
tr_status tr_spm_new(const tr_gguf *g, const tr_spm_vocab *vocab, tr_spm **out);
void tr_spm_free(tr_spm **s);

/* text is valid UTF-8.  With add_space it is encoded as if it began with one more space.  ids has
 * room for one id per byte, and that space. */
tr_status tr_spm_encode(const tr_spm *s, tr_bpe_work *w, tr_bytes text, bool add_space,
                        uint32_t *ids, size_t *n);

#endif
