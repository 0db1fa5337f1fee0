/* shrink.c - leave out a stretch of faults, look, put it back or not; then shorter stretches.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/chaos/shrink.h"

#include <stdlib.h>
#include <string.h>

/* Is the rest without [begin, begin + length) enough?  Then it is the rest from now on. */
static tr_status leave_out(tr_sim_fault *fault, size_t *n, size_t begin, size_t length,
                           tr_sim_fault *try, tr_shrink_fails fails, void *ctx, bool *does)
{
    memcpy(try, fault, begin * sizeof *try);
    memcpy(try + begin, fault + begin + length, (*n - begin - length) * sizeof *try);
    tr_status st = fails(ctx, try, *n - length, does);
    if (st == TR_OK && *does) {
        *n -= length;
        memcpy(fault, try, *n * sizeof *try);
    }
    return st;
}

tr_status tr_shrink_faults(tr_sim_fault *fault, size_t *n, tr_shrink_fails fails, void *ctx)
{
    tr_sim_fault *try = calloc(*n + 1, sizeof *try);
    tr_status st = TR_OK;
    bool has_shrunk = true;

    if (!try)
        return tr_fail(TR_E_MEMORY, "chaos: no memory to shrink %zu faults", *n);
    for (size_t length = *n; length > 0 && st == TR_OK;) {
        has_shrunk = false;
        for (size_t begin = 0; begin < *n && st == TR_OK;) {
            size_t left = *n - begin;
            bool does = false;
            st = leave_out(fault, n, begin, left < length ? left : length, try, fails, ctx, &does);
            has_shrunk = has_shrunk || does;
            begin += does ? 0 : length;
        }
        /* One that could not be spared may be, when a later one is gone. */
        if (length > 1 || !has_shrunk)
            length /= 2;
    }
    free(try);
    return st;
}

typedef struct {
    const tr_trials *trials;
    tr_trial trial;
    tr_verdict verdict; /* that is to stay */
    size_t n_runs;
} search;

static tr_status run(search *s, tr_trial_result *result)
{
    s->n_runs++;
    return tr_trial_run(s->trials, &s->trial, result);
}

static tr_status still_fails(void *ctx, const tr_sim_fault *fault, size_t n, bool *does)
{
    search *s = ctx;
    tr_trial_result result;

    s->trial.has_schedule = true;
    s->trial.schedule = fault;
    s->trial.n_schedule = n;
    tr_status st = run(s, &result);
    if (st != TR_OK)
        return st;
    *does = result.verdict == s->verdict;
    tr_trial_result_fini(&result);
    return TR_OK;
}

/* What happens in the trial as it is; TR_E_REQUEST if that is all right. */
static tr_status first_run(search *s, tr_schedule *out)
{
    tr_trial_result result;

    tr_status st = run(s, &result);
    if (st != TR_OK)
        return st;
    s->verdict = result.verdict;
    *out = (tr_schedule){ .seed = s->trial.seed, .n_workers = s->trial.n_workers };
    out->fault = calloc(result.n_record + 1, sizeof *out->fault);
    if (!out->fault)
        st = tr_fail(TR_E_MEMORY, "chaos: no memory for a schedule");
    else if (!tr_verdict_is_bad(result.verdict))
        st = tr_fail(TR_E_REQUEST, "seed %llu does not go wrong: %s",
                     (unsigned long long)s->trial.seed, tr_verdict_name(result.verdict));
    for (out->n = 0; st == TR_OK && out->n < result.n_record; out->n++)
        out->fault[out->n] = result.record[out->n].fault;
    tr_trial_result_fini(&result);
    return st;
}

tr_status tr_shrink(const tr_trials *t, const tr_trial *trial, tr_schedule *out, size_t *n_runs)
{
    search s = { .trials = t, .trial = *trial };
    tr_schedule schedule = { .n = 0 };

    tr_status st = first_run(&s, &schedule);
    if (st == TR_OK)
        st = tr_shrink_faults(schedule.fault, &schedule.n, still_fails, &s);
    if (n_runs)
        *n_runs = s.n_runs;
    if (st != TR_OK) {
        tr_schedule_fini(&schedule);
        return st;
    }
    *out = schedule;
    return TR_OK;
}
