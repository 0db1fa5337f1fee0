/* divergence.c - see divergence.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/divergence.h"

#include "base/check.h"
#include "coordinator/text/softmax.h"

#include <math.h>
#include <stdlib.h>

/* What one less a sum of probabilities can't tell from nothing. */
static const double smallest_rest = 0x1p-50;

double tr_divergence(const tr_known *p, const float *logits, double log_total)
{
    double sum = 0, p_rest = 1, q_rest = 1;

    for (size_t i = 0; i < p->n; i++) {
        double log_q = (double)logits[p->ids[i]] - log_total;
        double probability = tr_exp(p->log_probs[i]);
        sum += probability * (p->log_probs[i] - log_q);
        p_rest -= probability;
        q_rest -= tr_exp(log_q);
    }
    if (!p->is_whole && p_rest > smallest_rest) {
        double least = q_rest > smallest_rest ? q_rest : smallest_rest;
        sum += p_rest * (tr_ln(p_rest) - tr_ln(least));
    }
    return sum > 0 ? sum : 0;
}

double tr_known_mass(const tr_known *p)
{
    double sum = 0;

    for (size_t i = 0; i < p->n; i++)
        sum += tr_exp(p->log_probs[i]);
    return sum < 1 ? sum : 1;
}

void tr_tally_add(tr_tally *t, double x)
{
    double from = x - t->mean;

    t->n++;
    t->mean += from / (double)t->n;
    t->squares += from * (x - t->mean);
}

double tr_tally_error(const tr_tally *t)
{
    if (t->n < 2)
        return 0;
    return sqrt(t->squares / (double)(t->n - 1) / (double)t->n);
}

double tr_quantile(const double *sorted, size_t n, double q)
{
    TR_CHECK(n > 0);
    size_t rank = (size_t)ceil(q * (double)n);
    return sorted[rank > 0 ? (rank <= n ? rank - 1 : n - 1) : 0];
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

void tr_sort_ascending(double *x, size_t n)
{
    qsort(x, n, sizeof *x, ascending);
}
