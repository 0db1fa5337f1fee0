/* test_pool.c - every row exactly once, whatever the numbers; many calls in a row; misuse
 * aborts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "compute/pool.h"
#include "tests/support/tr_test.h"

#include <stdatomic.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ROWS = 3000, MAX_THREADS = 5 };

typedef struct {
    tr_pool *pool;
    size_t n, grain;
    atomic_uint seen[MAX_ROWS];
    atomic_uint n_wrong;
    unsigned plain[MAX_ROWS]; /* written without atomics: a race shows under TSan */
} job;

static void row_count(void *ctx, size_t thread, size_t begin, size_t end)
{
    job *j = ctx;

    if (thread >= tr_pool_threads(j->pool) || begin % j->grain != 0 || begin >= end || end > j->n)
        atomic_fetch_add(&j->n_wrong, 1);
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add(&j->seen[i], 1);
        j->plain[i]++;
    }
}

static void rows_check(job *j, size_t n, size_t grain)
{
    j->n = n;
    j->grain = grain;
    for (size_t i = 0; i < MAX_ROWS; i++) {
        atomic_store(&j->seen[i], 0);
        j->plain[i] = 0;
    }
    tr_pool_for(j->pool, n, grain, row_count, j);
    assert_int_equal(atomic_load(&j->n_wrong), 0);
    for (size_t i = 0; i < MAX_ROWS; i++) {
        assert_int_equal(atomic_load(&j->seen[i]), i < n);
        assert_int_equal(j->plain[i], i < n);
    }
}

static void every_row_is_in_one_range(void **state)
{
    uint64_t seed = tr_test_seed();
    uint64_t at = 0;
    static job j;

    (void)state;
    for (size_t threads = 1; threads <= MAX_THREADS; threads++) {
        assert_int_equal(tr_pool_new(threads, &j.pool), TR_OK);
        assert_int_equal(tr_pool_threads(j.pool), threads);
        rows_check(&j, 0, 1);
        rows_check(&j, 1, 1);
        rows_check(&j, 1, 100);
        rows_check(&j, threads, 1);
        rows_check(&j, MAX_ROWS, 1);
        rows_check(&j, MAX_ROWS, MAX_ROWS);
        for (int i = 0; i < 60; i++) {
            size_t n = (size_t)(tr_rng_u64(seed, 1, at++) % (MAX_ROWS + 1));
            size_t grain = 1 + (size_t)(tr_rng_u64(seed, 1, at++) % 70);
            rows_check(&j, n, grain);
        }
        tr_pool_free(&j.pool);
        assert_null(j.pool);
    }
}

static void add_one(void *ctx, size_t thread, size_t begin, size_t end)
{
    unsigned *count = ctx;

    (void)thread;
    for (size_t i = begin; i < end; i++)
        count[i]++;
}

/* Each call reads what the one before has written, by whichever thread. */
static void many_short_calls_follow_each_other(void **state)
{
    enum { CALLS = 20000, N = 24 };
    unsigned count[N] = { 0 };
    tr_pool *p;

    (void)state;
    assert_int_equal(tr_pool_new(4, &p), TR_OK);
    for (int i = 0; i < CALLS; i++) {
        tr_pool_for(p, N, 1, add_one, count);
        if (i % 4000 == 0)
            usleep(2000); /* long enough for all to fall asleep */
    }
    for (size_t i = 0; i < N; i++)
        assert_int_equal(count[i], CALLS);
    tr_pool_free(&p);
}

typedef struct {
    atomic_uint threads; /* a bit each */
    atomic_uint n_done;
} slow_job;

static void sleep_a_little(void *ctx, size_t thread, size_t begin, size_t end)
{
    slow_job *j = ctx;

    atomic_fetch_or(&j->threads, 1u << thread);
    usleep(20000);
    atomic_fetch_add(&j->n_done, (unsigned)(end - begin));
}

static void sleeping_threads_wake_and_the_call_waits_for_them(void **state)
{
    slow_job j = { 0 };
    tr_pool *p;

    (void)state;
    assert_int_equal(tr_pool_new(3, &p), TR_OK);
    usleep(50000); /* long past the spinning */
    for (unsigned i = 1; i <= 3; i++) {
        tr_pool_for(p, 11, 1, sleep_a_little, &j);
        assert_int_equal(atomic_load(&j.n_done), 11 * i);
    }
    tr_pool_free(&p);
    assert_int_equal(atomic_load(&j.threads), 7);
}

static double process_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void an_idle_pool_uses_no_core(void **state)
{
    unsigned count[64] = { 0 };
    tr_pool *p;

    (void)state;
    assert_int_equal(tr_pool_new(4, &p), TR_OK);
    tr_pool_for(p, 64, 1, add_one, count);
    double before = process_seconds();
    usleep(300000);
    assert_true(process_seconds() - before < 0.1);
    tr_pool_free(&p);
}

static void free_does_nothing_twice_or_on_null(void **state)
{
    tr_pool *p = NULL;

    (void)state;
    tr_pool_free(&p);
    for (int i = 0; i < 50; i++) { /* closing while threads are still starting */
        assert_int_equal(tr_pool_new(3, &p), TR_OK);
        tr_pool_free(&p);
        tr_pool_free(&p);
    }
}

/* ---- misuse -------------------------------------------------------------------------- */

static void nested_call(void *ctx, size_t thread, size_t begin, size_t end)
{
    unsigned count[4] = { 0 };

    (void)thread;
    (void)begin;
    (void)end;
    tr_pool_for(ctx, 4, 1, add_one, count);
}

static void misuse_nested(void)
{
    tr_pool *p;

    if (tr_pool_new(1, &p) == TR_OK)
        tr_pool_for(p, 1, 1, nested_call, p);
}

static void misuse_grain(void)
{
    unsigned count[4];
    tr_pool *p;

    if (tr_pool_new(1, &p) == TR_OK)
        tr_pool_for(p, 4, 0, add_one, count);
}

static void misuse_threads(void)
{
    tr_pool *p;

    if (tr_pool_new(TR_POOL_MAX_THREADS + 1, &p) == TR_OK)
        _exit(0);
}

static void misuse_aborts(void **state)
{
    void (*const cases[])(void) = { misuse_nested, misuse_grain, misuse_threads };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int status;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            signal(SIGABRT, SIG_DFL);
            if (!freopen("/dev/null", "w", stderr))
                _exit(1);
            cases[i]();
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse_aborts), /* first: it forks */
        cmocka_unit_test(every_row_is_in_one_range),
        cmocka_unit_test(many_short_calls_follow_each_other),
        cmocka_unit_test(sleeping_threads_wake_and_the_call_waits_for_them),
        cmocka_unit_test(an_idle_pool_uses_no_core),
        cmocka_unit_test(free_does_nothing_twice_or_on_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
