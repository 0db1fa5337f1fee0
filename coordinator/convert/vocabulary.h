/* vocabulary.h - tokenizer.json and what stands beside it, as the vocabulary of a GGUF file.
 *
 * Two kinds are known: byte-level BPE, and SentencePiece turned into BPE with byte fallback.  The
 * second kind has merges in place of scores; a piece's score is how early it is merged first, from
 * which the same merges follow again (coordinator/text/spm.h).
 *
 * Ids that have no token, up to the rows of the embedding, become [PADn] of the type "unused". What
 * begins and ends texts is looked up in tokenizer_config.json, then generation_config.json and
 * config.json; the chat template in tokenizer_config.json and chat_template.jinja.
 *
 * USE     tr_vocabulary_files files = { .tokenizer = &t, ... };
 *         st = tr_vocabulary_put(&files, n_vocab, NULL, w);
 * FAILS   TR_E_FORMAT       malformed: ids twice, out of range, merges that are no pairs
 *         TR_E_UNSUPPORTED  another kind of tokenizer, or an unknown way to cut words
 *         TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_VOCABULARY_H
#define TR_COORDINATOR_CONVERT_VOCABULARY_H

#include "compute/gguf_write.h"
#include "coordinator/convert/json_file.h"

typedef struct {
    const tr_json_file *tokenizer;  /* tokenizer.json */
    const tr_json_file *settings;   /* tokenizer_config.json; may be empty */
    const tr_json_file *generation; /* generation_config.json; may be empty */
    const tr_json_file *config;     /* config.json */
    tr_bytes chat_template;         /* chat_template.jinja; may be empty */
} tr_vocabulary_files;

/* pre is the name of the way in which words are cut, or NULL to recognise it. */
tr_status tr_vocabulary_put(const tr_vocabulary_files *files, size_t n_vocab, const char *pre,
                            tr_gguf_writer *w);

#endif
