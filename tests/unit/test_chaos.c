/* test_chaos.c - chaos tells right from wrong: trials that must pass do, and those that must not
 * don't; schedules are read as they were written, and shrink to what is needed.
 *
 * Method: a random model of the smallest shape.  Workers that are wrong on purpose have the weights
 * of another one, never join, or never end.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/log.h"
#include "base/version.h"
#include "coordinator/chaos/campaign.h"
#include "coordinator/chaos/shrink.h"
#include "coordinator/model/random_model.h"
#include "worker/worker.h"

#include <unistd.h>

static const char path[] = "chaos.gguf";
static const char other_path[] = "chaos_other.gguf"; /* the same shape, other weights */

static tr_gguf *gguf;

/* ---- workers ------------------------------------------------------------------------------- */

static tr_status run_worker(tr_transport *t, const char *model)
{
    tr_worker_options o = { .version = TR_VERSION, .model_path = model, .threads = 1 };
    bool had_losses = false;

    return tr_worker_run(t, &o, &had_losses);
}

static tr_status good_worker(tr_transport *t, void *ctx)
{
    (void)ctx;
    return run_worker(t, NULL);
}

/* Right while the trials are prepared, which takes two workers; then worker 2 computes with other
 * weights. */
static bool is_wrong_now;

static tr_status wrong_worker(tr_transport *t, void *ctx)
{
    (void)ctx;
    return run_worker(t, is_wrong_now && t->self == 2 ? other_path : NULL);
}

static tr_status absent_worker(tr_transport *t, void *ctx)
{
    return is_wrong_now && t->self == 2 ? TR_OK : good_worker(t, ctx);
}

static tr_status endless_worker(tr_transport *t, void *ctx)
{
    tr_status st = good_worker(t, ctx);
    tr_time until = tr_now() + 48 * 3600 * TR_SECOND;

    while (is_wrong_now && t->self == 2 && tr_now() < until)
        tr_sleep(60 * TR_SECOND);
    return st;
}

/* ---- trials -------------------------------------------------------------------------------- */

static tr_trials *trials_with(tr_sim_main worker)
{
    tr_trials_options o = { .gguf = gguf, .n_tokens = 6, .worker = worker };
    tr_trials *t = NULL;

    is_wrong_now = false;
    assert_int_equal(tr_trials_new(&o, &t), TR_OK);
    is_wrong_now = true;
    return t;
}

/* Without faults, room for everything everywhere. */
static tr_trial calm_trial(const tr_trials *t)
{
    return (tr_trial){ .seed = 1,
                       .n_workers = 2,
                       .rules = tr_sim_calm(),
                       .worker_memory = tr_trials_expert_bytes(t),
                       .coordinator_memory = tr_trials_expert_bytes(t) };
}

static tr_verdict verdict_of(const tr_trials *t, const tr_trial *trial)
{
    tr_trial_result r;

    assert_int_equal(tr_trial_run(t, trial, &r), TR_OK);
    if (tr_verdict_is_bad(r.verdict) && !is_wrong_now)
        print_message("  %s: %s\n", tr_verdict_name(r.verdict), r.line);
    tr_verdict v = r.verdict;
    tr_trial_result_fini(&r);
    return v;
}

/* A world that suffers these faults and ends well. */
static tr_trial_result survive(const tr_trials *t, tr_trial trial, const tr_sim_fault *faults,
                               size_t n)
{
    tr_trial_result r;

    trial.schedule = faults;
    trial.n_schedule = n;
    trial.has_schedule = true;
    assert_int_equal(tr_trial_run(t, &trial, &r), TR_OK);
    assert_int_equal(r.verdict, TR_VERDICT_EQUAL);
    assert_int_equal(r.n_record, n);
    return r;
}

static void what_is_wrong_is_found(void **state)
{
    static const struct {
        tr_sim_main worker;
        tr_verdict verdict;
    } table[] = {
        { good_worker, TR_VERDICT_EQUAL },
        { wrong_worker, TR_VERDICT_DIFFERS },
        { absent_worker, TR_VERDICT_NOT_JOINED },
        { endless_worker, TR_VERDICT_LEFT_BEHIND },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        tr_trials *t = trials_with(table[i].worker);
        tr_trial trial = calm_trial(t);
        tr_verdict v = verdict_of(t, &trial);
        print_message("  %s\n", tr_verdict_name(v));
        assert_int_equal(v, table[i].verdict);
        tr_trials_free(&t);
    }
}

static void a_seed_is_the_same_trial_and_its_record_repeats_it(void **state)
{
    enum { N = 30 };
    uint64_t seed = tr_test_seed();
    tr_trials *t = trials_with(good_worker);

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        tr_trial trial = tr_trial_draw(t, seed + i, 0);
        tr_trial_result a, b;
        assert_in_range(trial.n_workers, 2, 6);
        assert_int_equal(tr_trial_run(t, &trial, &a), TR_OK);
        assert_false(tr_verdict_is_bad(a.verdict));
        tr_sim_fault *fault = calloc(a.n_record + 1, sizeof *fault);
        assert_non_null(fault);
        for (size_t k = 0; k < a.n_record; k++)
            fault[k] = a.record[k].fault;
        trial.schedule = fault;
        trial.n_schedule = a.n_record;
        trial.has_schedule = true;
        assert_int_equal(tr_trial_run(t, &trial, &b), TR_OK);
        assert_int_equal(a.verdict, b.verdict);
        assert_string_equal(a.line, b.line);
        /* A drawn fault that finds its process ended is no event, but its time passes; so worlds
         * may end at different times, after all has happened. */
        assert_memory_equal(&a.recovery, &b.recovery, sizeof a.recovery);
        assert_int_equal(a.n_record, b.n_record);
        for (size_t k = 0; k < a.n_record; k++)
            assert_true(a.record[k].time == b.record[k].time);
        free(fault);
        tr_trial_result_fini(&a);
        tr_trial_result_fini(&b);
    }
    tr_trials_free(&t);
}

/* Nobody else has room for what it owes: it is asked again when it is back. */
static void a_share_that_is_lost_is_sent_again_to_the_same_worker(void **state)
{
    static const tr_sim_fault faults[] = {
        { TR_SIM_LOST, .from = 0, .to = 2, .nth = 3 },
        { TR_SIM_LOST, .from = 2, .to = 0, .nth = 3 },
        { TR_SIM_CORRUPT, .from = 0, .to = 2, .nth = 3, .byte = 100 },
        { TR_SIM_CORRUPT, .from = 2, .to = 0, .nth = 3, .byte = 100 },
    };
    tr_trials *t = trials_with(good_worker);
    tr_trial trial = calm_trial(t);

    (void)state;
    trial.worker_memory = tr_trials_expert_bytes(t) / 2;
    trial.coordinator_memory = 1;
    trial.has_schedule = true;
    trial.n_schedule = 1;
    tr_trial_result r = survive(t, trial, faults, 1);
    assert_true(r.recovery.longest_stall >= TR_SECOND);
    tr_trial_result_fini(&r);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        trial.schedule = &faults[i];
        assert_int_equal(verdict_of(t, &trial), TR_VERDICT_EQUAL);
    }
    tr_trials_free(&t);
}

/* While the way is cut its control connection ends and is made again: what was on its way is lost,
 * and the worker with it, but nobody waits for what can't come. */
static void an_end_is_noticed_behind_a_cut(void **state)
{
    static const tr_sim_fault faults[] = {
        { TR_SIM_CUT, .to = 2, .at = 1931242, .duration = 715 * TR_MS },
        { TR_SIM_UNLINK, .to = 2, .at = 17336177 },
    };
    tr_trials *t = trials_with(good_worker);
    tr_trial_result r = survive(t, tr_trial_draw(t, 19461, 3), faults, 2);

    (void)state;
    assert_true(r.elapsed < 200 * TR_SECOND);
    tr_trial_result_fini(&r);
    tr_trials_free(&t);
}

/* Its control connection lives, so only the shares that it does not take say that it is away. */
static void a_worker_that_takes_no_shares_holds_nobody_up(void **state)
{
    static const tr_sim_fault faults[] = {
        { TR_SIM_STICK, .to = 2, .at = TR_SIM_AT_MESSAGE, .nth = 8, .duration = TR_FOREVER },
        { TR_SIM_STICK, .to = 1, .at = TR_SIM_AT_MESSAGE, .nth = 13, .duration = 20 * TR_SECOND },
    };
    tr_trials *t = trials_with(good_worker);
    tr_trial_result r = survive(t, calm_trial(t), faults, 2);

    (void)state;
    assert_int_equal(r.recovery.suspected, 2);
    /* Nobody is called late sooner, and who waited waited for that too. */
    assert_true(r.recovery.longest_stall >= TR_SECOND);
    tr_trial_result_fini(&r);
    tr_trials_free(&t);
}

/* An answer with a number that is none comes twice; a worker gives the same wrong bytes each time,
 * or two do.  Nobody has room but the coordinator, or not even that. */
static void numbers_that_are_none_become_no_tokens(void **state)
{
    static const tr_sim_fault once[] = {
        { TR_SIM_NOT_A_NUMBER, .from = 1, .nth = 5, .byte = 77 },
        { TR_SIM_TWICE, .from = 1, .nth = 5 },
    };
    static const tr_sim_fault always[] = {
        { TR_SIM_WRONG, .from = 1, .at = TR_SIM_AT_MESSAGE, .nth = 4, .duration = TR_FOREVER },
        { TR_SIM_WRONG, .from = 2, .at = TR_SIM_AT_MESSAGE, .nth = 5, .duration = TR_FOREVER },
    };
    tr_trials *t = trials_with(good_worker);
    tr_trial trial = calm_trial(t);

    (void)state;
    for (int is_short = 0; is_short < 2; is_short++) {
        trial.n_workers = 3;
        trial.coordinator_memory = is_short ? 1 : tr_trials_expert_bytes(t);
        tr_trial_result r = survive(t, trial, once, 2);
        assert_int_equal(r.recovery.lost, 0);
        assert_int_equal(r.recovery.shares_resent, 1);
        tr_trial_result_fini(&r);
        for (size_t n = 1; n <= 2; n++) {
            r = survive(t, trial, always, n);
            assert_int_equal(r.recovery.lost, n);
            tr_trial_result_fini(&r);
        }
    }
    tr_trials_free(&t);
}

static void a_dead_worker_is_the_documented_end_only_without_room(void **state)
{
    tr_sim_fault kill = { TR_SIM_KILL, .from = 2, .at = TR_SIM_AT_MESSAGE, .nth = 3 };
    tr_trials *t = trials_with(good_worker);
    tr_trial trial = calm_trial(t);

    (void)state;
    trial.has_schedule = true;
    trial.schedule = &kill;
    trial.n_schedule = 1;
    assert_int_equal(verdict_of(t, &trial), TR_VERDICT_EQUAL);
    trial.worker_memory = tr_trials_expert_bytes(t) / 2;
    assert_int_equal(verdict_of(t, &trial), TR_VERDICT_EQUAL); /* the coordinator has room */
    trial.coordinator_memory = 1;
    assert_int_equal(verdict_of(t, &trial), TR_VERDICT_NO_ROOM);
    tr_trials_free(&t);
}

static void a_campaign_counts_and_names_what_went_wrong(void **state)
{
    tr_campaign_options o = { .first = 100, .last = 139, .n_workers = 2, .threads = 2 };
    tr_campaign_report r;
    tr_trials *t = trials_with(wrong_worker);

    (void)state;
    tr_log_set_level(TR_LOG_ERROR + 1); /* it says every one of them */
    assert_int_equal(tr_campaign_run(t, &o, &r), TR_OK);
    tr_log_set_level(TR_LOG_ERROR);
    uint64_t n = 0;
    for (size_t i = 0; i < TR_VERDICT_N; i++)
        n += r.verdicts[i];
    assert_int_equal(n, 40);
    assert_int_equal(r.n_bad, r.verdicts[TR_VERDICT_DIFFERS]);
    assert_in_range(r.n_bad, TR_CAMPAIGN_NAMED + 1, 40);
    for (size_t i = 0; i < TR_CAMPAIGN_NAMED; i++) {
        assert_in_range(r.bad[i], 100, 139);
        assert_true(i == 0 || r.bad[i - 1] < r.bad[i]);
    }
    tr_trials_free(&t);
}

/* ---- schedules ----------------------------------------------------------------------------- */

static void schedules_are_read_as_they_were_written(void **state)
{
    static tr_sim_fault all[] = {
        { TR_SIM_LATE, .from = 2, .to = 0, .is_control = true, .nth = 7, .duration = 12345 },
        { TR_SIM_LOST, .from = 0, .to = 3, .nth = UINT64_MAX },
        { TR_SIM_TWICE, .from = 1, .to = 0, .nth = 0 },
        { TR_SIM_CORRUPT, .from = 0, .to = 1, .nth = 5, .byte = UINT64_MAX },
        { TR_SIM_NOT_A_NUMBER, .from = 1, .to = 0, .nth = 5, .byte = 6 },
        { TR_SIM_NO_BLOCK, .from = 3, .nth = 4 },
        { TR_SIM_KILL, .from = 1, .at = 0 },
        { TR_SIM_VANISH, .from = 2, .at = TR_SIM_AT_MESSAGE, .nth = 9 },
        { TR_SIM_HANG, .from = 2, .at = 3 * TR_SECOND, .duration = TR_FOREVER },
        { TR_SIM_HANG, .from = 2, .at = 3 * TR_SECOND, .duration = TR_MS },
        { TR_SIM_SLOW_DISK, .from = 3, .at = 17, .duration = 18 },
        { TR_SIM_SHORT_OF_MEMORY, .from = 3, .at = 19, .byte = 20 },
        { TR_SIM_WRONG, .from = 3, .at = 19, .duration = TR_MS, .byte = UINT64_MAX },
        { TR_SIM_WRONG, .from = 3, .at = TR_SIM_AT_MESSAGE, .nth = 8, .duration = TR_FOREVER },
        { TR_SIM_CUT, .from = 0, .to = 2, .at = 21, .duration = 22 },
        { TR_SIM_UNLINK, .from = 0, .to = 2, .at = 23 },
        { TR_SIM_STICK, .from = 0, .to = 2, .at = 24, .duration = TR_FOREVER },
    };
    enum { N = sizeof all / sizeof all[0] };
    tr_schedule out = { .seed = UINT64_MAX, .n_workers = 3, .fault = all, .n = N };
    tr_schedule in;
    char *text = NULL;
    size_t size;

    (void)state;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    tr_schedule_print(f, &out);
    fclose(f);
    assert_int_equal(tr_schedule_parse("test", text, &in), TR_OK);
    assert_true(in.seed == out.seed && in.n_workers == out.n_workers && in.n == N);
    for (size_t i = 0; i < N; i++) {
        const tr_sim_fault *a = &all[i];
        const tr_sim_fault *b = &in.fault[i];
        assert_true(a->what == b->what && a->from == b->from && a->to == b->to &&
                    a->is_control == b->is_control && a->nth == b->nth && a->at == b->at &&
                    a->duration == b->duration && a->byte == b->byte);
    }
    tr_schedule_fini(&in);
    free(text);
}

static void a_line_that_is_wrong_is_named(void **state)
{
    static const struct {
        const char *text;
        const char *said;
    } table[] = {
        { "", "must begin with" },
        { "seed 1\n", "must begin with" },
        { "workers 2\nseed 1\n", "line 1" },
        { "seed 1\nworkers 1\n", "line 2" },
        { "seed 1\nworkers 17\n", "line 2" },
        { "seed -1\nworkers 2\n", "line 1" },
        { "seed 18446744073709551616\nworkers 2\n", "line 1" },
        { "seed 1\nworkers 2 3\n", "line 2" },
        { "seed 1\nworkers 2\n\n# a\nmurdered process 1 at 1\n", "line 5" },
        { "seed 1\nworkers 2\nkilled process 0 at 1\n", "line 3" },
        { "seed 1\nworkers 2\nkilled process 3 at 1\n", "line 3" },
        { "seed 1\nworkers 2\nkilled process 1\n", "line 3" },
        { "seed 1\nworkers 2\nkilled process 1 at\n", "line 3" },
        { "seed 1\nworkers 2\nkilled process 1 at 1 before-message 2\n", "line 3" },
        { "seed 1\nworkers 2\nkilled process 1 at 9223372036854775807\n", "line 3" },
        { "seed 1\nworkers 2\nlost control 1 from 0 to 1\n", "line 3" },
        { "seed 1\nworkers 2\nlost data 1 from 1 to 2\n", "line 3" },
        { "seed 1\nworkers 2\nlost data 1 from 0 to 0\n", "line 3" },
        { "seed 1\nworkers 2\ncut from 1 to 0 at 1 for 1\n", "line 3" },
        { "seed 1\nworkers 2\ncut from 0 to 1 at 1 for never\n", "line 3" },
    };
    char long_line[512], line[512];
    tr_schedule s;

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = tr_schedule_parse("s.txt", table[i].text, &s);
        tr_fail_capture_end();
        print_message("  %s\n", line);
        assert_int_equal(st, TR_E_CONFIG);
        assert_non_null(strstr(line, table[i].said));
    }
    memset(long_line, 'x', sizeof long_line - 1);
    long_line[sizeof long_line - 1] = '\0';
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_schedule_parse("s.txt", long_line, &s), TR_E_CONFIG);
    assert_int_equal(tr_schedule_read("no/such/file", &s), TR_E_IO);
    tr_fail_capture_end();
}

/* ---- shrinking ----------------------------------------------------------------------------- */

/* Fails with faults 11 and 47 together. */
static tr_status needs_some(void *ctx, const tr_sim_fault *fault, size_t n, bool *does)
{
    bool seen[100] = { false };

    ++*(size_t *)ctx;
    for (size_t i = 0; i < n; i++)
        seen[fault[i].nth] = true;
    *does = seen[11] && seen[47];
    return TR_OK;
}

static void only_what_is_needed_remains(void **state)
{
    tr_sim_fault fault[100];
    size_t n = 100, n_tries = 0;

    (void)state;
    for (size_t i = 0; i < n; i++)
        fault[i] = (tr_sim_fault){ TR_SIM_LOST, .nth = i };
    assert_int_equal(tr_shrink_faults(fault, &n, needs_some, &n_tries), TR_OK);
    assert_int_equal(n, 2);
    assert_int_equal(fault[0].nth, 11);
    assert_int_equal(fault[1].nth, 47);
    print_message("  %zu tries\n", n_tries);
    assert_in_range(n_tries, 1, 100);
}

static void a_trial_shrinks_to_a_schedule_that_goes_wrong(void **state)
{
    tr_trials *t = trials_with(wrong_worker);
    tr_trial trial = calm_trial(t);
    tr_schedule s;
    size_t n_runs;

    (void)state;
    trial.rules.late = 100; /* none of which matters */
    trial.rules.late_max = TR_MS;
    assert_int_equal(tr_shrink(t, &trial, &s, &n_runs), TR_OK);
    assert_int_equal(s.n, 0);
    assert_in_range(n_runs, 2, 10);
    tr_schedule_fini(&s);
    tr_trials_free(&t);

    char line[256];
    t = trials_with(good_worker);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_shrink(t, &trial, &s, NULL), TR_E_REQUEST);
    tr_fail_capture_end();
    tr_trials_free(&t);
}

/* ---- the model ----------------------------------------------------------------------------- */

static int open_model(void **state)
{
    tr_random_model m = { .shape = *tr_model_shape_find("tiny"),
                          .path = path,
                          .experts = TR_TYPE_Q8_0,
                          .dense = TR_TYPE_Q8_0,
                          .seed = 5,
                          .overwrite = true };

    (void)state;
    if (tr_random_model_write(&m) != TR_OK || tr_gguf_open(path, &gguf) != TR_OK)
        return -1;
    m.path = other_path;
    m.seed = 6;
    return tr_random_model_write(&m) == TR_OK ? 0 : -1;
}

static int close_model(void **state)
{
    (void)state;
    tr_gguf_close(&gguf);
    unlink(path);
    unlink(other_path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_found),
        cmocka_unit_test(a_seed_is_the_same_trial_and_its_record_repeats_it),
        cmocka_unit_test(a_share_that_is_lost_is_sent_again_to_the_same_worker),
        cmocka_unit_test(an_end_is_noticed_behind_a_cut),
        cmocka_unit_test(a_worker_that_takes_no_shares_holds_nobody_up),
        cmocka_unit_test(numbers_that_are_none_become_no_tokens),
        cmocka_unit_test(a_dead_worker_is_the_documented_end_only_without_room),
        cmocka_unit_test(a_campaign_counts_and_names_what_went_wrong),
        cmocka_unit_test(schedules_are_read_as_they_were_written),
        cmocka_unit_test(a_line_that_is_wrong_is_named),
        cmocka_unit_test(only_what_is_needed_remains),
        cmocka_unit_test(a_trial_shrinks_to_a_schedule_that_goes_wrong),
    };
    tr_log_set_level(TR_LOG_ERROR);
    return cmocka_run_group_tests(tests, open_model, close_model);
}
