/* campaign.c - threads that take the next seed, each with a report of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/chaos/campaign.h"

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static const tr_time show_period = 100 * TR_MS;

typedef struct {
    const tr_trials *trials;
    const tr_campaign_options *o;
    atomic_uint_fast64_t n_taken, n_done, n_bad;
    atomic_bool is_over; /* somebody failed */
} campaign;

typedef struct {
    campaign *c;
    pthread_t thread;
    tr_campaign_report report;
    tr_status st;
} runner;

/* Ascending; the largest leaves where there is no room. */
static void name_bad(tr_campaign_report *r, uint64_t seed)
{
    size_t n = r->n_bad < TR_CAMPAIGN_NAMED ? r->n_bad : TR_CAMPAIGN_NAMED;
    size_t i = n < TR_CAMPAIGN_NAMED ? n : n - 1;

    r->n_bad++;
    if (n == TR_CAMPAIGN_NAMED && seed > r->bad[i])
        return;
    for (; i > 0 && r->bad[i - 1] > seed; i--)
        r->bad[i] = r->bad[i - 1];
    r->bad[i] = seed;
}

static void add_recovery(tr_recovery_stats *sum, const tr_recovery_stats *s)
{
    sum->lost += s->lost;
    sum->suspected += s->suspected;
    sum->returned += s->returned;
    sum->replaced += s->replaced;
    sum->experts_moved += s->experts_moved;
    sum->shares_resent += s->shares_resent;
    sum->stalled += s->stalled;
    if (s->longest_stall > sum->longest_stall)
        sum->longest_stall = s->longest_stall;
}

static void count(tr_campaign_report *r, uint64_t seed, const tr_trial_result *result)
{
    r->verdicts[result->verdict]++;
    r->n_hit += result->n_record > 0;
    for (size_t i = 0; i < result->n_record; i++)
        r->faults[result->record[i].fault.what]++;
    add_recovery(&r->recovery, &result->recovery);
    r->simulated += result->elapsed;
    if (!tr_verdict_is_bad(result->verdict))
        return;
    tr_log(TR_LOG_ERROR, "seed %llu: %s%s%s", (unsigned long long)seed,
           tr_verdict_name(result->verdict), result->line[0] ? ": " : "", result->line);
    name_bad(r, seed);
}

static void add(tr_campaign_report *sum, const tr_campaign_report *r)
{
    for (size_t i = 0; i < TR_VERDICT_N; i++)
        sum->verdicts[i] += r->verdicts[i];
    for (size_t i = 0; i < TR_TRIAL_N_FAULTS; i++)
        sum->faults[i] += r->faults[i];
    sum->n_hit += r->n_hit;
    add_recovery(&sum->recovery, &r->recovery);
    sum->simulated += r->simulated;
    size_t n = r->n_bad < TR_CAMPAIGN_NAMED ? r->n_bad : TR_CAMPAIGN_NAMED;
    for (size_t i = 0; i < n; i++)
        name_bad(sum, r->bad[i]);
    sum->n_bad += r->n_bad - n;
}

static tr_status run_seed(runner *r, uint64_t seed)
{
    tr_trial trial = tr_trial_draw(r->c->trials, seed, r->c->o->n_workers);
    tr_trial_result result;

    tr_status st = tr_trial_run(r->c->trials, &trial, &result);
    if (st != TR_OK)
        return st;
    count(&r->report, seed, &result);
    if (tr_verdict_is_bad(result.verdict))
        atomic_fetch_add(&r->c->n_bad, 1);
    tr_trial_result_fini(&result);
    return TR_OK;
}

static void *runner_main(void *ctx)
{
    runner *r = ctx;
    campaign *c = r->c;
    uint64_t n = c->o->last - c->o->first + 1;

    while (r->st == TR_OK && !c->is_over && !tr_interrupted()) {
        uint64_t i = atomic_fetch_add(&c->n_taken, 1);
        if (i >= n)
            break;
        r->st = run_seed(r, c->o->first + i);
        atomic_fetch_add(&c->n_done, 1);
    }
    if (r->st != TR_OK)
        c->is_over = true;
    return NULL;
}

/* Over itself on a terminal; elsewhere nothing, the report will do. */
static void show_progress(campaign *c)
{
    uint64_t n = c->o->last - c->o->first + 1;
    tr_time begin = tr_now();

    while (c->o->shows_progress && c->n_done < n && !c->is_over && !tr_interrupted()) {
        double seconds = (double)(tr_now() - begin) / (double)TR_SECOND + 1e-9;
        uint64_t done = c->n_done;
        fprintf(stderr, "\r%llu of %llu seeds, %.0f a second, %llu went wrong\033[K",
                (unsigned long long)done, (unsigned long long)n, (double)done / seconds,
                (unsigned long long)c->n_bad);
        tr_sleep(show_period);
    }
    if (c->o->shows_progress)
        fputs("\r\033[K", stderr);
}

static tr_status run_all(campaign *c, runner *runners, tr_campaign_report *out)
{
    size_t n_started = 0;
    tr_status st = TR_OK;

    while (n_started < c->o->threads && st == TR_OK) {
        runner *r = &runners[n_started];
        r->c = c;
        if (pthread_create(&r->thread, NULL, runner_main, r) != 0)
            st = tr_fail(TR_E_SYSTEM, "chaos: no thread to be had");
        else
            n_started++;
    }
    if (st == TR_OK)
        show_progress(c);
    else
        c->is_over = true;
    for (size_t i = 0; i < n_started; i++) {
        pthread_join(runners[i].thread, NULL);
        add(out, &runners[i].report);
        if (st == TR_OK && runners[i].st != TR_E_INTERRUPTED)
            st = runners[i].st;
    }
    return st;
}

tr_status tr_campaign_run(const tr_trials *t, const tr_campaign_options *o, tr_campaign_report *out)
{
    campaign c = { .trials = t, .o = o };
    tr_campaign_report report = { .seconds = 0 };
    runner *runners = calloc(o->threads, sizeof *runners);
    tr_time begin = tr_now();

    if (!runners)
        return tr_fail(TR_E_MEMORY, "chaos: no memory for %zu threads", o->threads);
    tr_status st = run_all(&c, runners, &report);
    free(runners);
    if (st != TR_OK)
        return st;
    report.seconds = (double)(tr_now() - begin) / (double)TR_SECOND;
    *out = report;
    return TR_OK;
}
