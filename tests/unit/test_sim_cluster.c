/* test_sim_cluster.c - the real coordinator and the real workers in a simulated world give the
 * bytes of one process, whatever the delays, and never wait for the machine's clock.
 *
 * Method: a random model of the smallest shape; the reference is an engine without workers.  Worlds
 * of consecutive seeds, in two threads at once; one world is run twice.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/log.h"
#include "base/version.h"
#include "coordinator/engine/engine.h"
#include "coordinator/model/random_model.h"
#include "transport/sim.h"
#include "worker/worker.h"

#include <pthread.h>
#include <unistd.h>

static const char path[] = "sim_cluster.gguf";

enum { N_WORKERS = 3, N_TOKENS = 12, N_SEEDS = 20, MAX_MESSAGE = 1 << 20 };

static tr_gguf *gguf;
static uint32_t n_vocab;
static float *want; /* [N_TOKENS][n_vocab] */

/* What one world came to.  Threads other than the main one must not use cmocka. */
typedef struct {
    uint64_t seed;
    tr_sim_rules rules;
    float *logits; /* [N_TOKENS][n_vocab] */
    tr_status st, left;
    tr_sim_process_view worker[N_WORKERS];
    uint64_t hash;
    tr_time elapsed;
    tr_recovery_stats recovery;
    char line[512];       /* that the coordinator failed with */
    tr_sim_fault *faults; /* [n_faults] that happened, if they are wanted */
    size_t n_faults;
    bool wants_faults, has_schedule; /* or given */
} world;

static tr_engine_options engine_options(void)
{
    tr_engine_options o = tr_engine_defaults();

    o.gguf = gguf;
    o.threads = 1;
    o.max_rows = N_TOKENS;
    o.context = 64;
    return o;
}

/* A prompt of four rows at once, then one by one. */
static tr_status generate(const tr_engine_options *o, float *logits, tr_recovery_stats *recovery)
{
    tr_engine *e = NULL;
    tr_sequence *s = NULL;

    tr_status st = tr_engine_open(o, &e);
    if (st == TR_OK)
        st = tr_sequence_new(e, &s);
    for (size_t at = 0; at < N_TOKENS && st == TR_OK;) {
        tr_row rows[4];
        size_t n = at == 0 ? 4 : 1;
        for (size_t i = 0; i < n; i++)
            rows[i] = (tr_row){ s, (uint32_t)((at + i) * 97 % n_vocab), i + 1 == n };
        at += n;
        st = tr_engine_step(e, rows, n, logits + (at - 1) * n_vocab);
    }
    if (st == TR_OK)
        *recovery = tr_engine_get_stats(e).recovery;
    tr_sequence_free(&s);
    tr_engine_close(&e);
    return st;
}

static tr_status worker_main(tr_transport *t, void *ctx)
{
    bool had_losses = false;

    (void)ctx;
    return tr_worker_run(t, &(tr_worker_options){ .version = TR_VERSION, .threads = 1 },
                         &had_losses);
}

static void copy_record(world *w, const tr_sim *sim)
{
    const tr_sim_event *event = tr_sim_record(sim, &w->n_faults);

    w->faults = calloc(w->n_faults + 1, sizeof *w->faults);
    for (size_t i = 0; w->faults && i < w->n_faults; i++)
        w->faults[i] = event[i].fault;
}

static void run_world(world *w)
{
    tr_sim_options so = { .seed = w->seed,
                          .n_workers = N_WORKERS,
                          .max_size = MAX_MESSAGE,
                          .rules = w->rules,
                          .schedule = w->faults,
                          .n_schedule = w->n_faults,
                          .has_schedule = w->has_schedule,
                          .time_limit = 3600 * TR_SECOND };
    tr_engine_options o = engine_options();
    tr_sim *sim = NULL;

    w->st = tr_sim_new(&so, &sim);
    for (tr_peer p = 1; p <= N_WORKERS && w->st == TR_OK; p++)
        w->st = tr_sim_start(sim, p, worker_main, NULL);
    if (w->st != TR_OK)
        return;
    o.transport = tr_sim_enter(sim);
    o.n_workers = N_WORKERS;
    tr_fail_capture_begin(w->line, sizeof w->line);
    w->st = generate(&o, w->logits, &w->recovery);
    tr_fail_capture_end();
    w->left = tr_sim_leave(sim);
    for (tr_peer p = 1; p <= N_WORKERS; p++)
        w->worker[p - 1] = tr_sim_process(sim, p);
    w->hash = tr_sim_hash(sim);
    w->elapsed = tr_sim_elapsed(sim);
    if (w->wants_faults)
        copy_record(w, sim);
    tr_sim_free(&sim);
}

static void check_good(const world *w)
{
    assert_int_equal(w->st, TR_OK);
    assert_int_equal(w->left, TR_OK);
    for (size_t i = 0; i < N_WORKERS; i++) {
        assert_int_equal(w->worker[i].st, TR_OK);
        assert_false(w->worker[i].is_dead || w->worker[i].was_ended);
    }
    assert_memory_equal(w->logits, want, (size_t)N_TOKENS * n_vocab * sizeof(float));
}

static world world_of(uint64_t seed, tr_time delay_max)
{
    world w = { .seed = seed, .rules = tr_sim_calm() };

    w.rules.delay_max = delay_max;
    w.logits = calloc((size_t)N_TOKENS * n_vocab, sizeof(float));
    assert_non_null(w.logits);
    return w;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static double machine_seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void random_delays_change_no_bit(void **state)
{
    uint64_t seed = tr_test_seed();
    double begin = machine_seconds();
    tr_time simulated = 0;

    (void)state;
    for (uint64_t i = 0; i < N_SEEDS; i++) {
        world w = world_of(seed + i, 20 * TR_MS);
        run_world(&w);
        check_good(&w);
        simulated += w.elapsed;
        free(w.logits);
    }
    double seconds = machine_seconds() - begin;
    print_message("  %.1f seeds/s, %.1f simulated seconds in %.2f s\n", N_SEEDS / seconds,
                  (double)simulated / (double)TR_SECOND, seconds);
}

static void the_same_seed_is_the_same_run(void **state)
{
    uint64_t seed = tr_test_seed();
    world a = world_of(seed, 5 * TR_MS);
    world b = world_of(seed, 5 * TR_MS);
    world c = world_of(seed + 1, 5 * TR_MS);

    (void)state;
    run_world(&a);
    run_world(&b);
    run_world(&c);
    check_good(&a);
    check_good(&b);
    check_good(&c);
    assert_true(a.hash == b.hash);
    assert_true(a.elapsed == b.elapsed);
    assert_true(a.hash != c.hash);
    free(a.logits);
    free(b.logits);
    free(c.logits);
}

static void *world_thread(void *ctx)
{
    run_world(ctx);
    return NULL;
}

static void worlds_run_beside_each_other(void **state)
{
    enum { N = 4 };
    uint64_t seed = tr_test_seed();
    world w[N];
    pthread_t thread[N];

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        w[i] = world_of(seed + i / 2, TR_MS);
        assert_int_equal(pthread_create(&thread[i], NULL, world_thread, &w[i]), 0);
    }
    for (size_t i = 0; i < N; i++)
        pthread_join(thread[i], NULL);
    for (size_t i = 0; i < N; i++)
        check_good(&w[i]);
    assert_true(w[0].hash == w[1].hash);
    assert_true(w[2].hash == w[3].hash);
    for (size_t i = 0; i < N; i++)
        free(w[i].logits);
}

/* Deaths, cuts, hangs, lost and damaged frames, at any time from the first invitation on. */
static tr_sim_rules rough(void)
{
    tr_sim_rules r = tr_sim_calm();

    r.late = r.lost = r.twice = r.corrupt = 2;
    r.late_max = TR_SECOND;
    r.no_block = 5;
    r.killed = r.vanished = r.hung = r.slow_disk = r.short_of_memory = r.cut = r.unlinked = 40;
    r.horizon = 40 * TR_MS;
    r.hang_max = r.cut_max = 5 * TR_SECOND;
    r.read_max = 20 * TR_MS;
    return r;
}

/* Whether a run outlives its faults is recovery's business; that it ends, and says why, is not. */
static void whatever_happens_ends_in_the_same_bytes_or_in_a_line(void **state)
{
    enum { N = 100 };
    uint64_t seed = tr_test_seed();
    size_t n_whole = 0;
    size_t n_hit = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        world w = world_of(seed + i, TR_MS);
        w.rules = rough();
        w.wants_faults = true;
        run_world(&w);
        n_hit += w.n_faults > 0;
        n_whole += w.st == TR_OK;
        if (w.st == TR_OK) {
            assert_memory_equal(w.logits, want, (size_t)N_TOKENS * n_vocab * sizeof(float));
        } else {
            if (w.line[0] == '\0' || tr_status_scope(w.st) != TR_SCOPE_PEER)
                print_message("  seed %llu: %d %s\n", (unsigned long long)(seed + i), (int)w.st,
                              w.line);
            assert_true(w.line[0] != '\0');
            assert_int_equal(tr_status_scope(w.st), TR_SCOPE_PEER);
        }
        assert_int_equal(w.left, TR_OK); /* nobody is left behind */
        free(w.faults);
        free(w.logits);
    }
    print_message("  %zu of %d runs had faults, %zu gave all tokens\n", n_hit, N, n_whole);
    assert_in_range(n_hit, N / 4, N - 1);
}

static void a_run_with_faults_is_repeated_by_its_record(void **state)
{
    enum { N = 15 };
    uint64_t seed = tr_test_seed();
    size_t n_hit = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        world a = world_of(seed + i, TR_MS);
        a.rules = rough();
        a.rules.killed = 500;
        a.wants_faults = true;
        run_world(&a);
        assert_non_null(a.faults);
        world b = world_of(seed + i, TR_MS);
        b.rules = a.rules;
        b.faults = a.faults;
        b.n_faults = a.n_faults;
        b.has_schedule = true;
        run_world(&b);
        assert_int_equal(a.st, b.st);
        assert_string_equal(a.line, b.line);
        assert_true(a.hash == b.hash);
        assert_memory_equal(a.logits, b.logits, (size_t)N_TOKENS * n_vocab * sizeof(float));
        n_hit += a.n_faults > 0;
        free(a.faults);
        free(a.logits);
        free(b.logits);
    }
    assert_true(n_hit > 0);
}

/* The ends of its connections are seen at once, that of its host by silence alone. */
static void workers_end_by_themselves_when_the_coordinator_is_gone(void **state)
{
    static const struct {
        tr_sim_what what;
        uint64_t nth; /* of its messages: an invitation, a share */
        tr_time longest;
    } table[] = {
        { TR_SIM_KILL, 1, 170 * TR_SECOND }, /* those not yet invited wait for 120 s */
        { TR_SIM_KILL, 8, TR_SECOND },
        { TR_SIM_VANISH, 8, 170 * TR_SECOND }, /* 15 times what a worker may be silent */
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        tr_sim_fault fault = { table[i].what, .at = TR_SIM_AT_MESSAGE, .nth = table[i].nth };
        world w = world_of(1, TR_MS);
        w.faults = &fault;
        w.n_faults = 1;
        w.has_schedule = true;
        run_world(&w);
        assert_int_equal(w.left, TR_OK);
        assert_true(w.st != TR_OK);
        for (size_t k = 0; k < N_WORKERS; k++) {
            assert_false(w.worker[k].was_ended);
            assert_int_equal(tr_status_scope(w.worker[k].st), TR_SCOPE_PEER);
        }
        assert_true(w.elapsed < table[i].longest);
        free(w.logits);
    }
}

/* Every process of a job is stopped for longer than an answer may take, while one is awaited, and
 * goes on: nobody is to blame. */
static void a_job_that_was_stopped_goes_on(void **state)
{
    tr_sim_fault faults[N_WORKERS + 1];

    (void)state;
    for (tr_peer p = 0; p <= N_WORKERS; p++)
        faults[p] = (tr_sim_fault){ TR_SIM_HANG, .from = p, .at = 0, .duration = 300 * TR_SECOND };
    for (tr_time at = 8 * TR_MS; at <= 20 * TR_MS; at += 500 * TR_US) {
        world w = world_of(1, TR_MS);
        for (tr_peer p = 0; p <= N_WORKERS; p++)
            faults[p].at = at;
        w.faults = faults;
        w.n_faults = N_WORKERS + 1;
        w.has_schedule = true;
        run_world(&w);
        if (w.st != TR_OK)
            print_message("  stopped at %.1f ms: %s\n", (double)at / (double)TR_MS, w.line);
        check_good(&w);
        assert_true(w.elapsed > 300 * TR_SECOND);
        assert_int_equal(w.recovery.lost + w.recovery.suspected, 0);
        free(w.logits);
    }
}

/* ---- the model ------------------------------------------------------------------------------ */

static int open_model(void **state)
{
    tr_random_model m = { .shape = *tr_model_shape_find("tiny"),
                          .path = path,
                          .experts = TR_TYPE_Q8_0,
                          .dense = TR_TYPE_Q8_0,
                          .seed = 5,
                          .overwrite = true };

    (void)state;
    n_vocab = m.shape.n_vocab;
    if (tr_random_model_write(&m) != TR_OK || tr_gguf_open(path, &gguf) != TR_OK)
        return -1;
    want = calloc((size_t)N_TOKENS * n_vocab, sizeof(float));
    tr_engine_options o = engine_options();
    tr_recovery_stats none;
    return want && generate(&o, want, &none) == TR_OK ? 0 : -1;
}

static int close_model(void **state)
{
    (void)state;
    tr_gguf_close(&gguf);
    unlink(path);
    free(want);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_delays_change_no_bit),
        cmocka_unit_test(the_same_seed_is_the_same_run),
        cmocka_unit_test(worlds_run_beside_each_other),
        cmocka_unit_test(whatever_happens_ends_in_the_same_bytes_or_in_a_line),
        cmocka_unit_test(a_run_with_faults_is_repeated_by_its_record),
        cmocka_unit_test(a_job_that_was_stopped_goes_on),
        cmocka_unit_test(workers_end_by_themselves_when_the_coordinator_is_gone),
    };
    tr_log_set_level(TR_LOG_ERROR); /* of frames dropped there would be many lines */
    return cmocka_run_group_tests(tests, open_model, close_model);
}
