/* sampler.c - a heap gives the largest candidates one by one, and few are ever asked for.
 *
 * Sorting a vocabulary of 150,000 for every token would cost more than the step it
 * follows.  Candidates are made a heap in linear time; top-k, top-p, min-p and the draw then
 * take from its top only as many as they need.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/sampler.h"
#include "coordinator/text/softmax.h"
#include "base/check.h"
#include "base/rng.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

tr_sampling tr_sampling_default(void)
{
    return (tr_sampling){
        .temperature = 0.8f,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .top_k = 40,
        .repeat_window = 64,
        .seed = 0,
    };
}

/* Written so that a NaN is out of range too. */
static tr_status range_check(const char *name, float value, bool in_range, const char *range)
{
    if (in_range)
        return TR_OK;
    return tr_fail(TR_E_USAGE, "%s %g is out of range: give %s", name, (double)value, range);
}

tr_status tr_sampling_check(const tr_sampling *s)
{
    tr_status st = range_check("temperature", s->temperature,
                               s->temperature >= 0 && s->temperature <= 100, "0 to 100");

    if (st == TR_OK)
        st = range_check("top-p", s->top_p, s->top_p > 0 && s->top_p <= 1, "above 0 and up to 1");
    if (st == TR_OK)
        st = range_check("min-p", s->min_p, s->min_p >= 0 && s->min_p <= 1, "0 to 1");
    if (st == TR_OK)
        st = range_check("repeat penalty", s->repeat_penalty,
                         s->repeat_penalty >= 0.01f && s->repeat_penalty <= 100, "0.01 to 100");
    return st;
}

tr_status tr_sample_scratch_init(tr_sample_scratch *scratch, size_t n_vocab)
{
    TR_CHECK(n_vocab >= 1);
    TR_CHECK(n_vocab <= UINT32_MAX);
    tr_candidate *candidates = calloc(n_vocab, sizeof *candidates);
    bool *seen = calloc(n_vocab, sizeof *seen);

    if (!candidates || !seen) {
        free(candidates);
        free(seen);
        return tr_fail(TR_E_MEMORY, "sampler: no memory for %zu candidates", n_vocab);
    }
    *scratch = (tr_sample_scratch){ candidates, seen, n_vocab };
    return TR_OK;
}

void tr_sample_scratch_fini(tr_sample_scratch *scratch)
{
    free(scratch->candidates);
    free(scratch->seen);
    *scratch = (tr_sample_scratch){ 0 };
}

static void penalise(const tr_sampling *s, float *logits, size_t n_vocab, const uint32_t *recent,
                     size_t n_recent, bool *seen)
{
    size_t n = n_recent < s->repeat_window ? n_recent : s->repeat_window;

    recent += n_recent - n;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = recent[i];
        TR_CHECK(id < n_vocab);
        if (!seen[id])
            logits[id] =
                logits[id] > 0 ? logits[id] / s->repeat_penalty : logits[id] * s->repeat_penalty;
        seen[id] = true;
    }
    for (size_t i = 0; i < n; i++)
        seen[recent[i]] = false;
}

static uint32_t largest(const float *logits, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best] || (isnan(logits[best]) && !isnan(logits[i])))
            best = i;
    return (uint32_t)best;
}

/* A heap whose root ranks first.  Taking the root moves it behind the shrinking heap, so that
 * the candidates already taken stand in order at the end of the array. */
typedef struct {
    tr_candidate *c; /* n: c[0..n - taken) is the heap */
    size_t n, taken;
} ranking;

static bool ranks_before(tr_candidate a, tr_candidate b)
{
    return a.logit > b.logit || (a.logit >= b.logit && a.id < b.id);
}

static void sift_down(tr_candidate *c, size_t n, size_t i)
{
    tr_candidate moving = c[i];

    for (size_t child = 2 * i + 1; child < n; i = child, child = 2 * i + 1) {
        if (child + 1 < n && ranks_before(c[child + 1], c[child]))
            child++;
        if (!ranks_before(c[child], moving))
            break;
        c[i] = c[child];
    }
    c[i] = moving;
}

static void ranking_init(ranking *r, tr_candidate *c, const float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++)
        c[i] = (tr_candidate){ isnan(logits[i]) ? -INFINITY : logits[i], (uint32_t)i };
    for (size_t i = n / 2; i-- > 0;)
        sift_down(c, n, i);
    *r = (ranking){ c, n, 0 };
}

/* The candidate of this rank, 0 the first. */
static tr_candidate ranking_get(ranking *r, size_t rank)
{
    while (r->taken <= rank) {
        size_t last = r->n - ++r->taken;
        tr_candidate root = r->c[0];
        r->c[0] = r->c[last];
        r->c[last] = root;
        sift_down(r->c, last, 0);
    }
    return r->c[r->n - 1 - rank];
}

/* How many of the first-ranking k candidates top-p and min-p leave. */
static size_t keep_probable(const tr_sampling *s, ranking *r, size_t k, const float *logits,
                            double max)
{
    double total = 0, sum = 0;

    if (s->top_p >= 1 && s->min_p <= 0)
        return k;
    if (s->top_p < 1) {
        for (size_t i = 0; i < k; i++)
            total += k == r->n ? (isnan(logits[i]) ? 0 : tr_exp((double)logits[i] - max))
                               : tr_exp((double)ranking_get(r, i).logit - max);
    }
    for (size_t i = 0; i < k; i++) {
        double p = tr_exp((double)ranking_get(r, i).logit - max);
        if (i > 0 && p < (double)s->min_p)
            return i;
        sum += p;
        if (s->top_p < 1 && sum >= (double)s->top_p * total)
            return i + 1;
    }
    return k;
}

/* One of the first-ranking k, with probability proportional to exp(logit / temperature). */
static uint32_t draw(const tr_sampling *s, ranking *r, size_t k, const float *logits, double max,
                     double unit)
{
    double temperature = (double)s->temperature, total = 0, sum = 0;

    for (size_t i = 0; i < k; i++) {
        double logit = k == r->n ? (double)logits[i] : (double)ranking_get(r, i).logit;
        if (!isnan(logit))
            total += tr_exp((logit - max) / temperature);
    }
    /* Sums in another order can differ in the last bits, so the walk may end before it gets
     * to total * unit: then the last candidate with any probability is the one. */
    uint32_t id = ranking_get(r, 0).id;
    for (size_t i = 0; i < k; i++) {
        tr_candidate c = ranking_get(r, i);
        double p = tr_exp(((double)c.logit - max) / temperature);
        if (p <= 0)
            break;
        id = c.id;
        sum += p;
        if (sum > total * unit)
            break;
    }
    return id;
}

uint32_t tr_sample(const tr_sampling *s, float *logits, size_t n_vocab, const uint32_t *recent,
                   size_t n_recent, uint64_t sequence, uint64_t position,
                   tr_sample_scratch *scratch)
{
    TR_CHECK(n_vocab >= 1);
    TR_CHECK(n_vocab == scratch->n_vocab);
    penalise(s, logits, n_vocab, recent, n_recent, scratch->seen);
    uint32_t best = largest(logits, n_vocab);
    if (s->temperature <= 0 || s->top_k == 1 || !isfinite(logits[best]))
        return best;

    ranking r;
    double max = (double)logits[best];
    size_t k = s->top_k > 0 && s->top_k < n_vocab ? s->top_k : n_vocab;
    ranking_init(&r, scratch->candidates, logits, n_vocab);
    k = keep_probable(s, &r, k, logits, max);
    return draw(s, &r, k, logits, max, tr_rng_unit(tr_rng_u64(s->seed, sequence, position)));
}

/* ln of the sum of exp(logit), the largest logit taken out. */
static double log_sum(const float *logits, size_t n, double max)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        if (!isnan(logits[i]))
            sum += tr_exp((double)logits[i] - max);
    return max + tr_ln(sum);
}

double tr_log_total(const float *logits, size_t n_vocab)
{
    return log_sum(logits, n_vocab, (double)logits[largest(logits, n_vocab)]);
}

double tr_log_prob(const float *logits, size_t n_vocab, uint32_t id)
{
    TR_CHECK(id < n_vocab);
    double max = (double)logits[largest(logits, n_vocab)];
    if (!isfinite(max) || isnan(logits[id]))
        return -INFINITY;
    return (double)logits[id] - log_sum(logits, n_vocab, max);
}

size_t tr_alternatives(const float *logits, size_t n_vocab, tr_alternative *out, size_t n)
{
    double max = (double)logits[largest(logits, n_vocab)];
    double log_total = isfinite(max) ? log_sum(logits, n_vocab, max) : 0;
    size_t found = 0;

    for (size_t id = 0; id < n_vocab && n > 0; id++) {
        double log_prob =
            isnan(logits[id]) || !isfinite(max) ? -INFINITY : (double)logits[id] - log_total;
        if (found == n && log_prob <= out[n - 1].log_prob)
            continue;
        size_t at = found < n ? found++ : n - 1;
        for (; at > 0 && out[at - 1].log_prob < log_prob; at--)
            out[at] = out[at - 1];
        out[at] = (tr_alternative){ (uint32_t)id, log_prob };
    }
    return found;
}
