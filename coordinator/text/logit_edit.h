/* logit_edit.h - what a request changes in the logits before a token is drawn from them.
 *
 *   bias        added to the logits of some tokens
 *   presence    subtracted from each token that the answer holds already
 *   frequency   subtracted from it once for each time
 *
 * (The penalties of the OpenAI interface: over the tokens of the answer, not of the prompt.)
 *
 * USE     tr_logit_edit_apply(&edit, logits, n_vocab, answer, n_answer, scratch.seen);
 *
 * Pure.  Each logit is changed in the order above, so equal input gives equal bits.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_LOGIT_EDIT_H
#define TR_COORDINATOR_TEXT_LOGIT_EDIT_H

#include "base/bytes.h"

typedef struct {
    uint32_t id;
    float value; /* -infinity forbids the token */
} tr_logit_bias;

typedef struct {
    tr_logit_bias *bias; /* [n_bias], owned by whoever made the edit */
    size_t n_bias;
    float presence, frequency; /* 0: off */
} tr_logit_edit;

/* answer [n_answer]: ids below n_vocab; ids of biases that the vocabulary does not have are passed
 * over.  seen [n_vocab]: scratch, all false before and after (tr_sample_scratch has one). */
void tr_logit_edit_apply(const tr_logit_edit *e, float *logits, size_t n_vocab,
                         const uint32_t *answer, size_t n_answer, bool *seen);

#endif
