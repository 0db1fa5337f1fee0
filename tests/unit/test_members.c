/* test_members.c - whoever joins wrongly, late or not at all is named, and so is whoever is lost.
 *
 * Method: the coordinator's members against real joins and hand-made ones, as threads over the
 * inproc transport, with short timeouts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/version.h"
#include "coordinator/cluster/members.h"
#include "transport/inproc.h"
#include "worker/join.h"

#include <pthread.h>

#define MODEL TR_SOURCE_DIR "/models/demo.gguf"

/* What a worker of a test does after it joined. */
typedef enum { OBEY, VANISH, FALL_SILENT, NEVER_COME } conduct;

typedef struct {
    tr_inproc *net;
    const char *version, *model;
    conduct conduct;
    tr_status st;
    char reason[512];
    pthread_t thread;
} fake_worker;

/* Joins, and behaves until the coordinator ends the job. */
static tr_status behave(fake_worker *w, tr_transport *t)
{
    tr_join *j = NULL;
    tr_assignment a = { 0 };
    const tr_worker_stats stats = { 0 };
    bool is_over = false;

    tr_status st = tr_join_open(t, w->version, w->model, 1, &j);
    if (st == TR_OK && j)
        st = tr_join_await_assignment(j, &a, &is_over);
    if (st == TR_OK && j && !is_over)
        st = tr_join_ready(j, 5, 1000);
    if (w->conduct == FALL_SILENT)
        tr_sleep(TR_SECOND);
    while (st == TR_OK && j && !is_over && w->conduct == OBEY) {
        st = tr_join_pump(j, &stats, &is_over);
        tr_sleep(2 * TR_MS);
    }
    tr_assignment_fini(&a);
    tr_join_close(&j);
    return st;
}

static void *worker_thread(void *ctx)
{
    fake_worker *w = ctx;
    tr_transport *t = NULL;

    tr_fail_capture_begin(w->reason, sizeof w->reason);
    w->st = tr_inproc_open(w->net, 1, &t);
    if (w->st == TR_OK && w->conduct != NEVER_COME)
        w->st = behave(w, t);
    else
        tr_sleep(400 * TR_MS);
    tr_transport_close(&t);
    tr_fail_capture_end();
    return NULL;
}

/* What the coordinator saw. */
typedef struct {
    tr_status opened, ready, pumped;
    char reason[512];
} outcome;

static tr_status assign_nothing(tr_members *m)
{
    tr_assignment a;

    assert_int_equal(tr_assignment_init(&a, 6), TR_OK);
    a.epoch = 1;
    a.max_rows = 4;
    snprintf(a.kernels, sizeof a.kernels, "c");
    tr_status st = tr_members_assign(m, 1, &a);
    tr_assignment_fini(&a);
    return st;
}

static void run_job(tr_transport *t, outcome *o)
{
    tr_gguf *g = NULL;
    tr_members *m = NULL;

    assert_int_equal(tr_gguf_open(MODEL, &g), TR_OK);
    tr_members_options options = {
        .version = TR_VERSION,
        .model_path = MODEL,
        .model = tr_gguf_identity(g),
        .join_timeout = 300 * TR_MS,
        .silence_timeout = 300 * TR_MS,
        .heartbeat = 20 * TR_MS,
    };
    o->opened = tr_members_open(&options, t, &m);
    if (o->opened == TR_OK)
        o->ready = assign_nothing(m);
    if (o->opened == TR_OK && o->ready == TR_OK)
        o->ready = tr_members_await_ready(m, tr_now() + 5 * TR_SECOND, NULL, NULL);
    tr_time until = tr_now() + 600 * TR_MS;
    while (o->opened == TR_OK && o->ready == TR_OK && o->pumped == TR_OK && tr_now() < until) {
        o->pumped = tr_members_pump(m);
        tr_sleep(TR_MS);
    }
    if (o->pumped != TR_OK) /* sticky */
        assert_int_equal(tr_members_pump(m), o->pumped);
    tr_members_close(&m);
    tr_gguf_close(&g);
}

static outcome play(fake_worker *w)
{
    outcome o = { 0 };
    tr_transport *t = NULL;

    assert_int_equal(tr_inproc_new(1, 1 << 20, &w->net), TR_OK);
    assert_int_equal(tr_inproc_open(w->net, 0, &t), TR_OK);
    assert_int_equal(pthread_create(&w->thread, NULL, worker_thread, w), 0);
    tr_fail_capture_begin(o.reason, sizeof o.reason);
    run_job(t, &o);
    tr_fail_capture_end();
    pthread_join(w->thread, NULL);
    tr_transport_close(&t);
    tr_inproc_free(&w->net);
    return o;
}

static void a_worker_that_obeys_joins_serves_and_leaves(void **state)
{
    fake_worker w = { .version = TR_VERSION };
    outcome o = play(&w);

    (void)state;
    assert_int_equal(o.opened, TR_OK);
    assert_int_equal(o.ready, TR_OK);
    assert_int_equal(o.pumped, TR_OK);
    assert_int_equal(w.st, TR_OK);
}

static void another_version_is_refused_with_the_reason_on_both_sides(void **state)
{
    fake_worker w = { .version = "0.0.9" };
    outcome o = play(&w);

    (void)state;
    assert_int_not_equal(o.opened, TR_OK);
    assert_non_null(strstr(o.reason, "worker 1"));
    assert_non_null(strstr(o.reason, "0.0.9"));
    assert_int_equal(w.st, TR_E_REFUSED);
    assert_non_null(strstr(w.reason, "0.0.9"));
    assert_non_null(strstr(w.reason, TR_VERSION));
}

static void another_model_is_refused_with_the_reason_on_both_sides(void **state)
{
    fake_worker w = { .version = TR_VERSION, .model = "other-model.gguf" };
    FILE *from = fopen(MODEL, "re");
    FILE *to = fopen(w.model, "we");
    static char copy[1 << 16];
    size_t n;

    (void)state;
    assert_non_null(from);
    assert_non_null(to);
    while ((n = fread(copy, 1, sizeof copy, from)) > 0)
        assert_int_equal(fwrite(copy, 1, n, to), n);
    assert_int_equal(fputc('x', to), 'x'); /* one byte longer */
    fclose(from);
    fclose(to);
    outcome o = play(&w);
    remove(w.model);
    assert_int_equal(o.opened, TR_E_REFUSED);
    assert_non_null(strstr(o.reason, "its model file"));
    assert_int_equal(w.st, TR_E_REFUSED);
    assert_non_null(strstr(w.reason, "its model file"));
}

static void a_model_that_can_not_be_opened_is_said_on_both_sides(void **state)
{
    fake_worker w = { .version = TR_VERSION, .model = "/nonexistent/model.gguf" };
    outcome o = play(&w);

    (void)state;
    assert_int_equal(o.opened, TR_E_PEER_LOST);
    assert_non_null(strstr(o.reason, "worker 1"));
    assert_non_null(strstr(o.reason, "/nonexistent/model.gguf"));
    assert_int_equal(w.st, TR_E_IO);
    assert_non_null(strstr(w.reason, "/nonexistent/model.gguf"));
}

static void a_worker_that_does_not_come_is_named(void **state)
{
    fake_worker w = { .version = TR_VERSION, .conduct = NEVER_COME };
    outcome o = play(&w);

    (void)state;
    assert_int_equal(o.opened, TR_E_DEADLINE);
    assert_non_null(strstr(o.reason, "worker 1 did not join"));
    assert_non_null(strstr(o.reason, "--listen"));
}

static void a_worker_that_vanishes_is_named(void **state)
{
    fake_worker w = { .version = TR_VERSION, .conduct = VANISH };
    outcome o = play(&w);

    (void)state;
    assert_int_equal(o.opened, TR_OK);
    assert_true(o.ready == TR_E_PEER_LOST || o.pumped == TR_E_PEER_LOST);
    assert_non_null(strstr(o.reason, "worker 1 (pid"));
    assert_non_null(strstr(o.reason, "died"));
}

static void a_worker_that_falls_silent_is_named(void **state)
{
    fake_worker w = { .version = TR_VERSION, .conduct = FALL_SILENT };
    outcome o = play(&w);

    (void)state;
    assert_int_equal(o.ready, TR_OK);
    assert_int_equal(o.pumped, TR_E_PEER_LOST);
    assert_non_null(strstr(o.reason, "is silent for 0.3 s"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_obeys_joins_serves_and_leaves),
        cmocka_unit_test(another_version_is_refused_with_the_reason_on_both_sides),
        cmocka_unit_test(another_model_is_refused_with_the_reason_on_both_sides),
        cmocka_unit_test(a_model_that_can_not_be_opened_is_said_on_both_sides),
        cmocka_unit_test(a_worker_that_does_not_come_is_named),
        cmocka_unit_test(a_worker_that_vanishes_is_named),
        cmocka_unit_test(a_worker_that_falls_silent_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
