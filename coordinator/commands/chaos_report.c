/* chaos_report.c - one trial line by line, many as a table.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/chaos_report.h"

#include "coordinator/chaos/schedule.h"

#include <stdio.h>

static double seconds_of(tr_time t)
{
    return (double)t / (double)TR_SECOND;
}

static unsigned long long ull(uint64_t n)
{
    return n;
}

static void report_recovery(const tr_recovery_stats *s)
{
    printf("%llu workers lost, %llu suspected, %llu back; %llu experts moved, %llu shares sent "
           "again, longest stall %.3f s\n",
           ull(s->lost), ull(s->suspected), ull(s->returned), ull(s->experts_moved),
           ull(s->shares_resent), seconds_of(s->longest_stall));
}

void tr_chaos_report_trial(const tr_trial *trial, const tr_trial_result *result)
{
    printf("seed %llu: %u workers of at most %llu bytes of experts, coordinator of %llu\n",
           ull(trial->seed), trial->n_workers, ull(trial->worker_memory),
           ull(trial->coordinator_memory));
    for (size_t i = 0; i < result->n_record; i++) {
        char line[256];
        tr_sim_describe(result->record[i].time, &result->record[i].fault, line, sizeof line);
        printf("  %s\n", line);
    }
    report_recovery(&result->recovery);
    printf("%s%s%s after %.6f s\n", tr_verdict_name(result->verdict), result->line[0] ? ": " : "",
           result->line, seconds_of(result->elapsed));
}

static void report_faults(const tr_campaign_report *r)
{
    fputs("faults:", stdout);
    for (size_t i = 0; i < TR_TRIAL_N_FAULTS; i++)
        printf("%s %llu %s", i ? "," : "", ull(r->faults[i]), tr_schedule_word((tr_sim_what)i));
    putchar('\n');
}

void tr_chaos_report_campaign(const tr_campaign_report *r)
{
    uint64_t n = 0;

    for (size_t i = 0; i < TR_VERDICT_N; i++)
        n += r->verdicts[i];
    printf(
        "%llu seeds, %llu of them with faults, in %.1f s: %.0f a second, %.0f simulated seconds\n",
        ull(n), ull(r->n_hit), r->seconds, r->seconds > 0 ? (double)n / r->seconds : 0.0,
        seconds_of(r->simulated));
    report_faults(r);
    report_recovery(&r->recovery);
    for (size_t i = 0; i < TR_VERDICT_N; i++)
        if (r->verdicts[i] > 0 || i == TR_VERDICT_EQUAL)
            printf("%8llu %s\n", ull(r->verdicts[i]), tr_verdict_name((tr_verdict)i));
    if (r->n_bad == 0)
        return;
    fputs("went wrong:", stdout);
    for (size_t i = 0; i < r->n_bad && i < TR_CAMPAIGN_NAMED; i++)
        printf(" %llu", ull(r->bad[i]));
    puts(r->n_bad > TR_CAMPAIGN_NAMED ? " and more" : "");
}

void tr_chaos_report_storm(const tr_storm_report *r)
{
    printf("%llu runs in %.0f s; one without faults takes %.1f s, the longest took %.1f s\n",
           ull(r->n_runs), r->seconds, r->calm_seconds, r->longest_seconds);
    printf("%llu workers killed, %llu told to end, %llu stopped, %llu of these continued\n",
           ull(r->n_killed), ull(r->n_told), ull(r->n_stopped), ull(r->n_continued));
    printf("%8llu equal\n", ull(r->n_equal));
    if (r->n_not_joined > 0)
        printf("%8llu %s\n", ull(r->n_not_joined), tr_verdict_name(TR_VERDICT_NOT_JOINED));
    if (r->n_bad > 0)
        printf("%8llu went wrong\n", ull(r->n_bad));
}
