/* sampler.h - from logits to one token, the same on every machine.
 *
 * The steps, in this order (that of llama.cpp's default chain):
 *   repeat penalty   logits of tokens among the last repeat_window ones: positive ones are
 *                    divided by repeat_penalty, others multiplied; once per token
 *   top_k            the k largest logits
 *   top_p            the fewest of the largest whose probabilities reach top_p (of those left)
 *   min_p            those with at least min_p times the largest probability
 *   temperature      logits are divided by it; 0 takes the largest logit right after the penalty
 *   draw             with a number that depends on (seed, sequence, position) alone
 * Probabilities of top_p and min_p are those at temperature 1.  At least one token is left by
 * every step.  Equal logits rank by id, the lower first.
 *
 * Sums are double and in a fixed order, and the exponential is our own (softmax.h), so
 * equal logits give equal tokens whatever the platform's math library is.  A NaN is taken for
 * minus infinity; if there is no finite maximum the first largest logit is taken.
 *
 * USE     tr_sampling how = tr_sampling_default();
 *         st = tr_sampling_check(&how);
 *         st = tr_sample_scratch_init(&scratch, n_vocab);
 *         id = tr_sample(&how, logits, n_vocab, recent, n_recent, sequence, position, &scratch);
 * MEMORY  A step allocates nothing; the scratch has 9 bytes per token of the vocabulary.
 * FAILS   TR_E_USAGE  a parameter is out of range; the line says which, and the range
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_SAMPLER_H
#define TR_COORDINATOR_TEXT_SAMPLER_H

#include "base/bytes.h"
#include "base/status.h"

typedef struct {
    float temperature;      /* 0..100; 0 is greedy */
    float top_p;            /* above 0, up to 1; 1 is off */
    float min_p;            /* 0..1; 0 is off */
    float repeat_penalty;   /* 0.01..100; 1 is off */
    uint32_t top_k;         /* 0 is off */
    uint32_t repeat_window; /* tokens that the penalty looks back; 0 is off */
    uint64_t seed;
} tr_sampling;

typedef struct {
    float logit;
    uint32_t id;
} tr_candidate;

typedef struct {
    tr_candidate *candidates; /* n_vocab */
    bool *seen;               /* n_vocab, all false between calls */
    size_t n_vocab;
} tr_sample_scratch;

/* Temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalty, window 64, seed 0. */
tr_sampling tr_sampling_default(void);

tr_status tr_sampling_check(const tr_sampling *s);

tr_status tr_sample_scratch_init(tr_sample_scratch *scratch, size_t n_vocab);
void tr_sample_scratch_fini(tr_sample_scratch *scratch);

/* s has passed tr_sampling_check; n_vocab is at least 1 and that of scratch.  recent holds the
 * tokens so far, the newest last, each below n_vocab; only the last repeat_window count.
 * What logits hold afterwards is unspecified. */
uint32_t tr_sample(const tr_sampling *s, float *logits /* [n_vocab] */, size_t n_vocab,
                   const uint32_t *recent, size_t n_recent, uint64_t sequence, uint64_t position,
                   tr_sample_scratch *scratch);

/* The natural logarithm of the softmax of logits at id. */
double tr_log_prob(const float *logits, size_t n_vocab, uint32_t id);

/* The natural logarithm of the sum of exp(logit): log-probabilities are logits less this.  The
 * largest logit is finite; a NaN counts as minus infinity. */
double tr_log_total(const float *logits, size_t n_vocab);

typedef struct {
    uint32_t id;
    double log_prob;
} tr_alternative;

/* The n (at most n_vocab) most probable tokens, the first the most probable; returns how many. */
size_t tr_alternatives(const float *logits, size_t n_vocab, tr_alternative *out, size_t n);

#endif
