/* campaign.h - the trials of many seeds, in several threads, and what they came to.
 *
 * USE     tr_campaign_options o = { .first = 1, .last = 2000, .threads = 2 };
 *         st = tr_campaign_run(trials, &o, &report);    seeds that go wrong are said at once
 *
 * SIGINT ends it early: the report is of the seeds that were done.
 *
 * FAILS   what a trial can't be run for; seeds that go wrong are no failure of this
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CHAOS_CAMPAIGN_H
#define TR_COORDINATOR_CHAOS_CAMPAIGN_H

#include "coordinator/chaos/trial.h"

typedef struct {
    uint64_t first, last; /* seeds, both of them too */
    tr_peer n_workers;    /* 0: drawn */
    size_t threads;       /* worlds at once; at least 1 */
    bool shows_progress;  /* a line on stderr */
} tr_campaign_options;

enum { TR_CAMPAIGN_NAMED = 16 };

typedef struct {
    uint64_t verdicts[TR_VERDICT_N]; /* seeds */
    uint64_t n_hit;                  /* seeds in which anything happened */
    uint64_t faults[TR_TRIAL_N_FAULTS];
    tr_recovery_stats recovery; /* sums; but the longest stall */
    tr_time simulated;
    double seconds;                  /* of this machine */
    uint64_t bad[TR_CAMPAIGN_NAMED]; /* the first of those that went wrong, ascending */
    size_t n_bad;                    /* of them all */
} tr_campaign_report;

tr_status tr_campaign_run(const tr_trials *t, const tr_campaign_options *o,
                          tr_campaign_report *out);

#endif
