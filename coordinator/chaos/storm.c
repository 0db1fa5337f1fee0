/* storm.c - plan the blows of a run, deal them, judge the run.
 *
 * A worker that is lost before it has joined ends a run by design.  So blows wait for the first
 * token, but in one run of four, which may then end so.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/chaos/storm.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "base/rng.h"
#include "coordinator/chaos/child.h"
#include "coordinator/chaos/victims.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BLOWS = 4, MAX_ARGUMENTS = 24, EXIT_CLUSTER = 5 };

/* How long a run may take, and its processes to vanish after it. */
static const tr_time run_limit = 180 * TR_SECOND;
static const tr_time leave_limit = 5 * TR_SECOND;
static const tr_time look_period = 5 * TR_MS;

typedef struct {
    tr_time at;           /* since the first token, or since the start */
    int signal;           /* SIGKILL, SIGTERM, SIGSTOP */
    tr_time continued_at; /* of a stop; TR_FOREVER: at the end, by a kill */
    uint64_t whom;        /* modulo those that are there */
    pid_t pid;            /* that it has hit; 0 for none yet */
    bool is_over;
} blow;

typedef struct {
    const tr_storm_options *o;
    tr_storm_report report;
    char *want; /* [want_size] the text without workers */
    size_t want_size;
    tr_time calm, last_shown;
    char mark[64];
    /* the run */
    tr_child child;
    blow blow[MAX_BLOWS];
    size_t n_blows;
    bool is_early;      /* its blows do not wait for the first token */
    bool was_hit_early; /* and one has hit before that */
    tr_time begun, first_token;
} storm;

/* ---- processes ----------------------------------------------------------------------------- */

static tr_status start(storm *s, uint32_t n_workers)
{
    static char empty[] = "";
    char workers[16], tokens[24];
    char *const fixed[] = { empty,
                            "run",
                            "--ids",
                            "1 2 3 4 5 6 7 8",
                            "--ignore-eos",
                            "--temp",
                            "0",
                            "-m",
                            (char *)(uintptr_t)s->o->model,
                            "--tokens",
                            tokens,
                            "--quiet" };
    char *argv[MAX_ARGUMENTS] = { NULL };
    size_t n = sizeof fixed / sizeof fixed[0];

    snprintf(workers, sizeof workers, "%u", n_workers);
    snprintf(tokens, sizeof tokens, "%" PRIu64, s->o->n_tokens);
    snprintf(s->mark, sizeof s->mark, "TROUPE_CHAOS=%d.%" PRIu64, (int)getpid(), s->report.n_runs);
    memcpy(argv, fixed, sizeof fixed);
    if (n_workers > 0) {
        argv[n++] = "-w";
        argv[n++] = workers;
    }
    if (n_workers > 0 && s->o->transport) {
        argv[n++] = "--transport";
        argv[n++] = (char *)(uintptr_t)s->o->transport;
    }
    s->begun = tr_now();
    s->first_token = 0;
    return tr_child_start(&s->child, argv, s->mark);
}

static void kill_all(const storm *s)
{
    pid_t pid[TR_VICTIMS_MAX];
    size_t n = tr_victims_find(s->mark, NULL, pid, TR_VICTIMS_MAX);

    for (size_t i = 0; i < n; i++)
        kill(pid[i], SIGKILL);
}

/* Those that were stopped can't end by themselves. */
static void end_stopped(storm *s)
{
    for (size_t i = 0; i < s->n_blows; i++)
        if (s->blow[i].signal == SIGSTOP && s->blow[i].pid != 0 && !s->blow[i].is_over)
            kill(s->blow[i].pid, SIGKILL);
}

static size_t count_left_behind(const storm *s)
{
    tr_time until = tr_now() + leave_limit;
    pid_t pid[TR_VICTIMS_MAX];
    size_t n;

    while ((n = tr_victims_find(s->mark, NULL, pid, TR_VICTIMS_MAX)) > 0 && tr_now() < until)
        tr_sleep(20 * TR_MS);
    return n;
}

/* ---- blows --------------------------------------------------------------------------------- */

static void plan_blows(storm *s)
{
    uint64_t seed = s->o->seed;
    uint64_t run = s->report.n_runs;
    tr_time span = s->calm > TR_SECOND ? s->calm : TR_SECOND;

    s->n_blows = 1 + tr_rng_u64(seed, run, 0) % MAX_BLOWS;
    s->is_early = tr_rng_u64(seed, run, 1) % 4 == 0;
    s->was_hit_early = false;
    for (size_t i = 0; i < s->n_blows; i++) {
        blow *b = &s->blow[i];
        uint64_t kind = tr_rng_u64(seed, run, 8 * i + 8) % 8;
        *b = (blow){ .signal = kind < 4   ? SIGSTOP
                               : kind < 7 ? SIGKILL
                                          : SIGTERM,
                     .continued_at = TR_FOREVER };
        b->at = (tr_time)(tr_rng_unit(tr_rng_u64(seed, run, 8 * i + 9)) * (double)span);
        if (kind < 3)
            b->continued_at = b->at + (tr_time)(tr_rng_unit(tr_rng_u64(seed, run, 8 * i + 10)) *
                                                2.0 * (double)TR_SECOND);
        b->whom = tr_rng_u64(seed, run, 8 * i + 11);
    }
}

static void strike(storm *s, blow *b)
{
    pid_t pid[TR_VICTIMS_MAX];
    size_t n = tr_victims_find(s->mark, "troupe-worker", pid, TR_VICTIMS_MAX);

    if (n == 0)
        return;
    b->pid = pid[b->whom % n];
    kill(b->pid, b->signal);
    b->is_over = b->signal != SIGSTOP;
    s->was_hit_early = s->was_hit_early || s->first_token == 0;
    s->report.n_killed += b->signal == SIGKILL;
    s->report.n_told += b->signal == SIGTERM;
    s->report.n_stopped += b->signal == SIGSTOP;
}

static void deal(storm *s, blow *b, tr_time now)
{
    if (b->is_over || now < b->at)
        return;
    if (b->pid == 0) {
        strike(s, b);
    } else if (now >= b->continued_at) {
        kill(b->pid, SIGCONT);
        b->is_over = true;
        s->report.n_continued++;
    }
}

static void deal_all(storm *s)
{
    tr_time since = s->is_early ? s->begun : s->first_token;

    if (s->child.size > 0 && s->first_token == 0)
        s->first_token = tr_now();
    if (since == 0)
        return;
    for (size_t i = 0; i < s->n_blows; i++)
        deal(s, &s->blow[i], tr_now() - since);
}

/* ---- runs ---------------------------------------------------------------------------------- */

/* False: it did not end in time, or the user wants no more. */
static bool await_end(storm *s)
{
    while (!tr_child_look(&s->child, look_period)) {
        deal_all(s);
        if (tr_interrupted() || tr_now() - s->begun > run_limit)
            return false;
    }
    return true;
}

static bool is_equal(const storm *s)
{
    return s->child.exit_code == 0 && s->child.size == s->want_size &&
           memcmp(s->child.text, s->want, s->want_size) == 0;
}

static void say_wrong(storm *s, const char *what)
{
    s->report.n_bad++;
    tr_log(TR_LOG_ERROR, "run %" PRIu64 ": %s: status %d, %zu of %zu bytes of text%s%s",
           s->report.n_runs, what, s->child.exit_code, s->child.size, s->want_size,
           s->child.last_line[0] ? ": " : "", s->child.last_line);
}

static void judge(storm *s, bool has_ended)
{
    size_t n_left = has_ended ? count_left_behind(s) : 0;

    if (!has_ended)
        say_wrong(s, "does not end");
    else if (s->child.exit_code == EXIT_CLUSTER && s->child.size == 0 && s->was_hit_early)
        s->report.n_not_joined++;
    else if (!is_equal(s))
        say_wrong(s, s->child.exit_code == 0 ? "other text" : "failed");
    else if (n_left > 0)
        say_wrong(s, "processes are left behind");
    else
        s->report.n_equal++;
}

static tr_status run_once(storm *s)
{
    plan_blows(s);
    tr_status st = start(s, s->o->n_workers);
    if (st != TR_OK)
        return st;
    bool has_ended = await_end(s);
    double seconds = (double)(tr_now() - s->begun) / (double)TR_SECOND;
    end_stopped(s);
    if (has_ended || !tr_interrupted()) {
        judge(s, has_ended);
        s->report.n_runs++;
        if (seconds > s->report.longest_seconds)
            s->report.longest_seconds = seconds;
    }
    kill_all(s);
    tr_child_fini(&s->child);
    return TR_OK;
}

/* A run that nobody disturbs, alone or with workers. */
static tr_status run_calm(storm *s, uint32_t n_workers)
{
    s->n_blows = 0;
    tr_status st = start(s, n_workers);
    if (st != TR_OK)
        return st;
    bool has_ended = await_end(s);
    s->calm = tr_now() - s->begun;
    if (tr_interrupted())
        st = TR_E_INTERRUPTED;
    else if (!has_ended || s->child.exit_code != 0)
        st = tr_fail(TR_E_CONFIG, "chaos: a run without faults ends with status %d: %s",
                     s->child.exit_code, s->child.last_line);
    else if (s->want && !is_equal(s))
        st = tr_fail(TR_E_CONFIG, "chaos: with workers the text differs, without any fault");
    if (st == TR_OK && !s->want) {
        s->want = s->child.text;
        s->want_size = s->child.size;
        s->child.text = NULL;
    }
    kill_all(s);
    tr_child_fini(&s->child);
    return st;
}

static void show(storm *s, tr_time left)
{
    if (s->o->shows_progress)
        fprintf(stderr, "\r%" PRIu64 " runs, %" PRIu64 " went wrong, %.0f s left\033[K",
                s->report.n_runs, s->report.n_bad, (double)left / (double)TR_SECOND);
}

tr_status tr_storm_run(const tr_storm_options *o, tr_storm_report *out)
{
    storm s = { .o = o };

    tr_status st = run_calm(&s, 0);
    if (st == TR_OK)
        st = run_calm(&s, o->n_workers);
    tr_time begin = tr_now();
    tr_time end = tr_deadline_after(begin, o->duration);
    s.report.calm_seconds = (double)s.calm / (double)TR_SECOND;
    while (st == TR_OK && !tr_interrupted() && tr_now() < end) {
        show(&s, end - tr_now());
        st = run_once(&s);
    }
    if (o->shows_progress)
        fputs("\r\033[K", stderr);
    free(s.want);
    if (st != TR_OK)
        return st;
    s.report.seconds = (double)(tr_now() - begin) / (double)TR_SECOND;
    *out = s.report;
    return TR_OK;
}
