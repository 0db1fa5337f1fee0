/* divergence.h - how far one distribution over tokens is from another, and what many numbers say.
 *
 * USE     double d = tr_divergence(&base, logits, tr_log_total(logits, n_vocab));
 *         tr_tally t = { 0 };
 *         tr_tally_add(&t, d);                    as often as you like
 *         ... t.mean, tr_tally_error(&t) ...
 *
 * Sums are double, in the order given, with our own exponential and logarithm (softmax.h): the same
 * numbers everywhere.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_DIVERGENCE_H
#define TR_COORDINATOR_TEXT_DIVERGENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is known of a distribution: ln p of its most probable tokens, the first the most probable.
 */
typedef struct {
    const uint32_t *ids;     /* [n] */
    const double *log_probs; /* [n] */
    size_t n;
    bool is_whole; /* those are all tokens */
} tr_known;

/* Kullback and Leibler's divergence of q from the known p, in nats:
 *
 *   sum over the known tokens of p ln(p / q)  +  P ln(P / Q)
 *
 * where q is exp(logit - log_total) and P and Q are what is left of p and q, all tokens that are
 * not known taken as one; without that part if is_whole.  Taking tokens together never makes a
 * divergence larger (the log sum inequality): with a rest it is a lower bound.  A rest below 2^-50
 * counts as nothing in p, as 2^-50 in q.  Never below 0, and 0 if p and q are the same bits. */
double tr_divergence(const tr_known *p, const float *logits, double log_total);

/* The probability of the known tokens together, at most 1. */
double tr_known_mass(const tr_known *p);

/* Mean, and standard error of it: sqrt(variance / n), the variance with n - 1; 0 below 2. */
typedef struct {
    size_t n;
    double mean, squares; /* squares: sum of (x - mean)^2 so far (Welford) */
} tr_tally;

void tr_tally_add(tr_tally *t, double x);
double tr_tally_error(const tr_tally *t);

/* The smallest x of sorted [n] (n above 0) that at least a share q (0..1] of them don't exceed. */
double tr_quantile(const double *sorted, size_t n, double q);

/* Sorts in place, ascending. */
void tr_sort_ascending(double *x, size_t n);

#endif
