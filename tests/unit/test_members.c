/* test_members.c - whoever joins wrongly, late or not at all is named, and so is whoever is lost.
 *
 * Method: the coordinator's members against real joins and a hand-made one, as threads over the
 * inproc transport, and ZeroMQ for rows where that is the subject.  Timeouts are short only where
 * one must pass.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/version.h"
#include "coordinator/cluster/members.h"
#include "proto/frame.h"
#include "transport/inproc.h"
#include "transport/link.h"
#include "transport/zmq.h"
#include "worker/join.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define MODEL TR_SOURCE_DIR "/models/demo.gguf"

enum { MAX_WORKERS = 2, N_EXPERTS = 5, N_BYTES = 1000, N_SHARES = 7 };

/* What a worker of a test does. */
typedef enum {
    OBEY,
    VANISH,      /* once it is ready */
    FALL_SILENT, /* once it is ready */
    PAUSE,       /* once it is ready */
    FETCH,       /* and pause, once it is ready: it says that it loads something */
    GIVE_UP,     /* once it is assigned its experts */
    LOAD_ON,     /* and on, until it is told to stop */
    NEVER_COME,
    DIE_AT_ONCE,
    TALK_NONSENSE, /* beside what it should say */
    LIE,           /* about its number */
    NO_DATA,       /* says hello, but does not connect for its rows */
} conduct;

typedef struct {
    tr_inproc *net;
    atomic_bool *is_done; /* the coordinator's part is over */
    tr_peer self;
    const char *version, *model;
    conduct conduct;
    tr_status st;
    bool job_failed, had_losses;
    char reason[TR_MAX_TEXT];
    pthread_t thread;
} fake_worker;

typedef struct {
    tr_inproc *net;
    tr_transport *transport;
    tr_transport *data; /* NULL: the same */
    tr_members *members;
    tr_members_options options;
    uint32_t n;
    fake_worker worker[MAX_WORKERS];
    atomic_bool is_done;
    char reason[512];
} job;

/* ---- workers --------------------------------------------------------------------------- */

static tr_status load(fake_worker *w, tr_join *j, bool *is_over)
{
    tr_status st = TR_OK;

    if (w->conduct == GIVE_UP) {
        tr_join_fail(j, "the disk\nis gone");
        return TR_E_IO;
    }
    while (w->conduct == LOAD_ON && st == TR_OK && !*is_over) {
        st = tr_join_progress(j, 10, N_BYTES, is_over);
        tr_sleep(TR_MS);
    }
    return st == TR_OK && !*is_over ? tr_join_ready(j, N_EXPERTS, N_BYTES) : st;
}

static void wait_for_the_coordinator(const fake_worker *w)
{
    while (!atomic_load(w->is_done))
        tr_sleep(TR_MS);
}

/* What comes over a data plane of its own goes back. */
static void echo(tr_transport *data)
{
    tr_peer from;
    tr_msg *m = NULL;

    if (tr_zmq_is(data) && tr_transport_recv(data, 0, &from, &m) == TR_OK)
        tr_transport_send(data, 0, &m);
    tr_msg_free(&m);
}

static tr_status serve(fake_worker *w, tr_join *j, bool is_over)
{
    const tr_worker_stats stats = { .shares = N_SHARES };
    tr_status st = TR_OK;

    if (w->conduct == FALL_SILENT)
        wait_for_the_coordinator(w);
    if (w->conduct == FETCH)
        st = tr_join_fetch(j, 0, 0, &is_over);
    if (w->conduct == PAUSE || w->conduct == FETCH)
        tr_sleep(600 * TR_MS);
    while (st == TR_OK && !is_over && w->conduct != VANISH && w->conduct != FALL_SILENT) {
        st = tr_join_pump(j, &stats, &is_over);
        echo(tr_join_transport(j));
        tr_sleep(2 * TR_MS);
    }
    w->job_failed = tr_join_job_failed(j);
    w->had_losses = tr_join_had_losses(j);
    return st;
}

static tr_status behave(fake_worker *w, tr_transport *t)
{
    tr_join *j = NULL;
    tr_assignment a = { 0 };
    bool is_over = false;

    tr_status st = tr_join_open(t, w->version, w->model, 1, &j);
    if (st != TR_OK || !j)
        return st;
    st = tr_join_await_assignment(j, &a, &is_over);
    if (st == TR_OK && !is_over)
        st = load(w, j, &is_over);
    if (st == TR_OK)
        st = serve(w, j, is_over);
    tr_assignment_fini(&a);
    tr_join_close(&j);
    return st;
}

static void say(tr_link *l, const tr_control *c)
{
    uint8_t text[4096];
    size_t size;

    if (tr_wire_pack(c, text, sizeof text, &size) != TR_OK ||
        tr_link_send(l, 0, (tr_bytes){ text, size }) != TR_OK)
        abort(); /* cmocka's asserts are for the main thread */
}

static void say_hello(tr_link *l, uint32_t worker)
{
    tr_control c = { .kind = TR_CONTROL_HELLO };
    tr_gguf *g = NULL;

    if (tr_gguf_open(MODEL, &g) != TR_OK)
        abort();
    c.hello = (tr_hello){ .protocol = TR_PROTOCOL,
                          .program = TR_VERSION,
                          .worker = worker,
                          .pid = 4711,
                          .host = "elsewhere",
                          .model = tr_gguf_identity(g),
                          .n_kernels = 1,
                          .kernels = { "c" } };
    tr_gguf_close(&g);
    say(l, &c);
}

/* Until a message of this kind has come, or the coordinator is gone. */
static bool hear(tr_link *l, tr_control_kind kind, char *reason)
{
    tr_link_event e;
    bool is_there = false;

    while (!is_there && tr_link_poll(l, 10 * TR_SECOND, &e) == TR_OK) {
        tr_control c;
        if (e.kind == TR_LINK_GONE || tr_wire_unpack(e.bytes, &c) != TR_OK)
            return false;
        is_there = c.kind == kind;
        if (kind == TR_CONTROL_REFUSE && is_there)
            memcpy(reason, c.reason, TR_MAX_TEXT);
        tr_control_fini(&c);
    }
    return is_there;
}

static tr_link *link_of_invitation(tr_transport *t)
{
    tr_peer from;
    tr_msg *m = NULL;
    tr_frame_view v;
    tr_invite i;
    tr_curve_keys keys;
    tr_link *l = NULL;

    if (tr_transport_recv(t, tr_now() + 10 * TR_SECOND, &from, &m) != TR_OK ||
        tr_frame_open((tr_bytes){ m->data, m->size }, NULL, &v) != TR_OK ||
        tr_wire_unpack_invite(v.text, &i) != TR_OK)
        abort();
    tr_msg_free(&m);
    memcpy(keys.public_key, i.worker_public, TR_CURVE_KEY);
    memcpy(keys.secret_key, i.worker_secret, TR_CURVE_KEY);
    if (tr_link_connect(i.endpoint, i.server_public, &keys, &l) != TR_OK)
        abort();
    return l;
}

/* No join would do this. */
static void misbehave(fake_worker *w, tr_transport *t)
{
    tr_link *l = link_of_invitation(t);
    const tr_control early = { .kind = TR_CONTROL_READY };
    tr_control ready = { .kind = TR_CONTROL_READY };

    if (w->conduct == LIE) {
        say_hello(l, w->self + 1);
        w->st = hear(l, TR_CONTROL_REFUSE, w->reason) ? TR_OK : TR_E_PEER_LOST;
    } else if (w->conduct == NO_DATA) {
        say_hello(l, w->self);
        w->st = hear(l, TR_CONTROL_SHUTDOWN, NULL) ? TR_OK : TR_E_PEER_LOST;
    } else {
        tr_link_send(l, 0, tr_bytes_of("no message at all"));
        say(l, &early);
        say_hello(l, w->self);
        say_hello(l, w->self);
        say(l, &(tr_control){ .kind = TR_CONTROL_SHUTDOWN });
        if (!hear(l, TR_CONTROL_ASSIGN, NULL))
            abort();
        ready.ready.experts = N_EXPERTS;
        ready.ready.bytes = N_BYTES;
        say(l, &ready);
        w->st = hear(l, TR_CONTROL_SHUTDOWN, NULL) ? TR_OK : TR_E_PEER_LOST;
        say(l, &(tr_control){ .kind = TR_CONTROL_BYE });
    }
    tr_link_close(&l);
}

static void *worker_thread(void *ctx)
{
    fake_worker *w = ctx;
    tr_transport *t = NULL;
    char line[TR_MAX_TEXT];

    if (tr_inproc_open(w->net, w->self, &t) != TR_OK)
        abort();
    tr_fail_capture_begin(line, sizeof line);
    if (w->conduct == NEVER_COME)
        wait_for_the_coordinator(w);
    else if (w->conduct == LIE || w->conduct == TALK_NONSENSE || w->conduct == NO_DATA)
        misbehave(w, t);
    else if (w->conduct != DIE_AT_ONCE)
        w->st = behave(w, t);
    tr_fail_capture_end();
    if (w->reason[0] == '\0')
        memcpy(w->reason, line, sizeof w->reason);
    tr_transport_close(&t);
    return NULL;
}

/* ---- the coordinator -------------------------------------------------------------------- */

static uint64_t identity(void)
{
    tr_gguf *g = NULL;

    assert_int_equal(tr_gguf_open(MODEL, &g), TR_OK);
    uint64_t id = tr_gguf_identity(g);
    tr_gguf_close(&g);
    return id;
}

static void prepare(job *j, uint32_t n)
{
    memset(j, 0, sizeof *j);
    j->n = n;
    j->options = (tr_members_options){
        .version = TR_VERSION,
        .model_path = MODEL,
        .model = identity(),
        .join_timeout = 20 * TR_SECOND,
        .silence_timeout = 20 * TR_SECOND,
        .heartbeat = 10 * TR_MS,
    };
    assert_int_equal(tr_inproc_new(n, 1 << 20, &j->net), TR_OK);
    assert_int_equal(tr_inproc_open(j->net, 0, &j->transport), TR_OK);
    for (uint32_t i = 0; i < n; i++)
        j->worker[i] = (fake_worker){
            .net = j->net, .is_done = &j->is_done, .self = i + 1, .version = TR_VERSION
        };
}

/* Rows by ZeroMQ; inproc only carries the invitations. */
static void take_zmq(job *j)
{
    assert_int_equal(tr_zmq_serve(NULL, j->n, 1 << 20, &j->data), TR_OK);
    j->options.inviter = j->transport;
}

static tr_status open_members(job *j)
{
    for (uint32_t i = 0; i < j->n; i++)
        assert_int_equal(pthread_create(&j->worker[i].thread, NULL, worker_thread, &j->worker[i]),
                         0);
    tr_fail_capture_begin(j->reason, sizeof j->reason);
    return tr_members_open(&j->options, j->data ? j->data : j->transport, &j->members);
}

static void finish(job *j)
{
    tr_members_close(&j->members);
    tr_fail_capture_end();
    atomic_store(&j->is_done, true);
    for (uint32_t i = 0; i < j->n; i++)
        pthread_join(j->worker[i].thread, NULL);
    tr_transport_close(&j->data);
    tr_transport_close(&j->transport);
    tr_inproc_free(&j->net);
}

static tr_status assign_nothing(job *j)
{
    tr_assignment a;
    tr_status st = TR_OK;

    assert_int_equal(tr_assignment_init(&a, 6), TR_OK);
    a.epoch = 1;
    a.max_rows = 4;
    snprintf(a.kernels, sizeof a.kernels, "c");
    for (uint32_t i = 1; i <= j->n && st == TR_OK; i++)
        st = tr_members_assign(j->members, i, &a);
    tr_assignment_fini(&a);
    return st;
}

static tr_status await_ready(job *j)
{
    return tr_members_await_ready(j->members, tr_now() + 20 * TR_SECOND, NULL, NULL);
}

/* Pump until worker 1 is in a state. */
static void pump_until(job *j, tr_member_state state)
{
    tr_time until = tr_now() + 20 * TR_SECOND;

    while (tr_members_get(j->members, 1)->state != state) {
        assert_int_equal(tr_members_pump(j->members), TR_OK);
        assert_true(tr_now() < until);
        tr_sleep(TR_MS);
    }
}

/* Worker 1 of this conduct up to the loss of it, which is no failure of the others. */
static const tr_member *lose_worker_1(job *j)
{
    assert_int_equal(open_members(j), TR_OK);
    const tr_member *w = tr_members_get(j->members, 1);
    uint64_t changes = tr_members_changes(j->members);
    assert_int_equal(assign_nothing(j), TR_OK);
    assert_int_equal(await_ready(j), TR_OK);
    pump_until(j, TR_MEMBER_LOST);
    assert_true(tr_members_changes(j->members) > changes);
    assert_false(tr_members_is_usable(j->members, 1));
    assert_string_equal(j->reason, ""); /* no error line */
    return w;
}

/* ---- tests ----------------------------------------------------------------------------- */

static void watch_bytes(void *ctx, uint64_t bytes)
{
    uint64_t *last = ctx;

    assert_true(bytes >= *last);
    *last = bytes;
}

static void a_worker_that_obeys_joins_serves_and_leaves(void **state)
{
    uint64_t loaded = 0;
    job j;

    (void)state;
    prepare(&j, 1);
    assert_int_equal(open_members(&j), TR_OK);
    const tr_member *w = tr_members_get(j.members, 1);
    assert_int_equal(w->state, TR_MEMBER_JOINING);
    assert_int_equal(w->hello.pid, getpid());
    assert_true(w->hello.n_kernels >= 1);
    assert_string_equal(w->hello.kernels[0], "c");
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(
        tr_members_await_ready(j.members, tr_now() + 20 * TR_SECOND, watch_bytes, &loaded), TR_OK);
    assert_int_equal(w->state, TR_MEMBER_READY);
    assert_int_equal(w->n_experts, N_EXPERTS);
    assert_int_equal(loaded, N_BYTES);
    while (w->stats.shares == 0)
        assert_int_equal(tr_members_pump(j.members), TR_OK);
    assert_int_equal(w->stats.shares, N_SHARES);
    assert_true(w->stats.resident > 0);
    finish(&j);
    assert_int_equal(j.worker[0].st, TR_OK);
    assert_false(j.worker[0].job_failed);
    assert_string_equal(j.reason, "");
}

static void an_invitation_can_name_another_way_for_the_rows(void **state)
{
    tr_peer from = 0;
    tr_msg *m = NULL;
    job j;

    (void)state;
    prepare(&j, 2);
    take_zmq(&j);
    assert_int_equal(open_members(&j), TR_OK);
    for (uint32_t peer = 1; peer <= 2; peer++)
        assert_true(tr_zmq_has_come(j.data, peer));
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    for (uint32_t peer = 1; peer <= 2; peer++) {
        assert_int_equal(tr_transport_reserve(j.data, peer, 100, &m), TR_OK);
        memset(m->data, (int)peer, 100);
        assert_int_equal(tr_transport_send(j.data, peer, &m), TR_OK);
        assert_int_equal(tr_transport_recv(j.data, tr_now() + 20 * TR_SECOND, &from, &m), TR_OK);
        assert_int_equal(from, peer);
        assert_int_equal(m->size, 100);
        assert_int_equal(m->data[99], peer);
        tr_msg_free(&m);
    }
    finish(&j);
    assert_int_equal(j.worker[0].st, TR_OK);
    assert_int_equal(j.worker[1].st, TR_OK);
    assert_string_equal(j.reason, "");
}

static void a_worker_that_does_not_connect_for_its_rows_is_named(void **state)
{
    job j;

    (void)state;
    prepare(&j, 2);
    take_zmq(&j);
    j.worker[1].conduct = NO_DATA;
    j.options.join_timeout = 500 * TR_MS;
    assert_int_equal(open_members(&j), TR_E_DEADLINE);
    finish(&j);
    assert_non_null(strstr(j.reason, "worker 2 did not connect for its data"));
    assert_null(strstr(j.reason, "worker 1"));
}

static void another_version_is_refused_with_the_reason_on_both_sides(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.worker[0].version = "0.0.9";
    assert_int_not_equal(open_members(&j), TR_OK);
    finish(&j);
    assert_non_null(strstr(j.reason, "worker 1"));
    assert_non_null(strstr(j.reason, "0.0.9"));
    assert_int_equal(j.worker[0].st, TR_E_REFUSED);
    assert_non_null(strstr(j.worker[0].reason, "0.0.9"));
    assert_non_null(strstr(j.worker[0].reason, TR_VERSION));
}

static void another_model_is_refused_with_the_reason_on_both_sides(void **state)
{
    static char copy[1 << 16];
    const char *other = "other-model.gguf";
    FILE *from = fopen(MODEL, "re");
    FILE *to = fopen(other, "we");
    size_t n;
    job j;

    (void)state;
    assert_non_null(from);
    assert_non_null(to);
    while ((n = fread(copy, 1, sizeof copy, from)) > 0)
        assert_int_equal(fwrite(copy, 1, n, to), n);
    assert_int_equal(fputc('x', to), 'x'); /* one byte longer */
    fclose(from);
    fclose(to);
    prepare(&j, 1);
    j.worker[0].model = other;
    assert_int_equal(open_members(&j), TR_E_REFUSED);
    finish(&j);
    remove(other);
    assert_non_null(strstr(j.reason, "its model file"));
    assert_int_equal(j.worker[0].st, TR_E_REFUSED);
    assert_non_null(strstr(j.worker[0].reason, "its model file"));
}

static void a_worker_that_calls_itself_another_is_refused(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.worker[0].conduct = LIE;
    assert_int_equal(open_members(&j), TR_E_REFUSED);
    finish(&j);
    assert_non_null(strstr(j.reason, "worker 1 (pid 4711 on elsewhere)"));
    assert_int_equal(j.worker[0].st, TR_OK);
    assert_string_equal(j.worker[0].reason, "it calls itself worker 2");
}

static void a_model_that_can_not_be_opened_is_said_on_both_sides(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.worker[0].model = "/nonexistent/model.gguf";
    assert_int_equal(open_members(&j), TR_E_PEER_LOST);
    finish(&j);
    assert_non_null(strstr(j.reason, "worker 1 gave up"));
    assert_non_null(strstr(j.reason, "/nonexistent/model.gguf"));
    assert_int_equal(j.worker[0].st, TR_E_IO);
    assert_non_null(strstr(j.worker[0].reason, "/nonexistent/model.gguf"));
}

static void workers_that_do_not_come_are_named(void **state)
{
    job j;

    (void)state;
    prepare(&j, 2);
    j.options.join_timeout = 300 * TR_MS;
    j.worker[0].conduct = j.worker[1].conduct = NEVER_COME;
    assert_int_equal(open_members(&j), TR_E_DEADLINE);
    finish(&j);
    assert_non_null(strstr(j.reason, "worker 1, worker 2 did not join"));
    assert_non_null(strstr(j.reason, "--listen"));
}

static void a_worker_that_dies_before_it_joins_is_named(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.worker[0].conduct = DIE_AT_ONCE;
    assert_int_equal(open_members(&j), TR_E_PEER_LOST);
    finish(&j);
    assert_non_null(strstr(j.reason, "worker 1"));
}

static void a_worker_that_gives_up_says_why(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.worker[0].conduct = GIVE_UP;
    assert_string_equal(lose_worker_1(&j)->why, "gave up: the disk?is gone");
    finish(&j);
}

static void a_worker_that_vanishes_is_named_and_the_others_are_told(void **state)
{
    job j;

    (void)state;
    prepare(&j, 2);
    j.worker[0].conduct = VANISH;
    assert_non_null(strstr(lose_worker_1(&j)->why, "died"));
    assert_int_equal(tr_members_get(j.members, 2)->state, TR_MEMBER_READY);
    finish(&j);
    assert_int_equal(j.worker[1].st, TR_OK);
    assert_false(j.worker[1].job_failed);
    assert_true(j.worker[1].had_losses);
}

static void a_worker_that_falls_silent_is_named(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.options.silence_timeout = 300 * TR_MS;
    j.worker[0].conduct = FALL_SILENT;
    assert_non_null(strstr(lose_worker_1(&j)->why, "is silent for"));
    finish(&j);
}

static void a_worker_that_pauses_is_suspected_and_taken_back(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.options.suspect_timeout = 200 * TR_MS;
    j.worker[0].conduct = PAUSE;
    assert_int_equal(open_members(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    assert_true(tr_members_is_usable(j.members, 1));
    pump_until(&j, TR_MEMBER_SUSPECT);
    assert_false(tr_members_is_usable(j.members, 1));
    assert_non_null(strstr(tr_members_get(j.members, 1)->why, "is silent for"));
    pump_until(&j, TR_MEMBER_READY);
    assert_true(tr_members_is_usable(j.members, 1));
    finish(&j);
    assert_int_equal(j.worker[0].st, TR_OK);
    assert_string_equal(j.reason, "");
}

/* Who was given nothing to load can't be excused by that. */
static void a_worker_that_has_nothing_to_load_is_not_waited_for(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.options.suspect_timeout = 200 * TR_MS;
    j.worker[0].conduct = FETCH;
    assert_int_equal(open_members(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    pump_until(&j, TR_MEMBER_SUSPECT);
    pump_until(&j, TR_MEMBER_READY);
    finish(&j);
    assert_int_equal(j.worker[0].st, TR_OK);
}

/* Who adopts may be slow, but a job that is idle must notice that it hangs. */
static void a_worker_that_hangs_while_it_adopts_is_suspected(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.options.suspect_timeout = 200 * TR_MS;
    j.options.silence_timeout = 60 * TR_SECOND;
    j.worker[0].conduct = FALL_SILENT;
    assert_int_equal(open_members(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK); /* more */
    assert_true(tr_members_get(j.members, 1)->is_adopting);
    pump_until(&j, TR_MEMBER_SUSPECT);
    finish(&j);
}

/* That it speaks does not show that it answers. */
static void a_worker_that_is_late_is_taken_back_for_an_answer_only(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    assert_int_equal(open_members(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    tr_members_suspect(j.members, 1, "is late with layer %d", 3);
    uint64_t shares = tr_members_get(j.members, 1)->stats.shares;
    assert_int_equal(shares, 0);
    while (tr_members_get(j.members, 1)->stats.shares == 0) /* a heartbeat */
        assert_int_equal(tr_members_pump(j.members), TR_OK);
    assert_int_equal(tr_members_get(j.members, 1)->state, TR_MEMBER_SUSPECT);
    assert_string_equal(tr_members_get(j.members, 1)->why, "is late with layer 3");
    tr_members_trust(j.members, 1);
    assert_int_equal(tr_members_get(j.members, 1)->state, TR_MEMBER_READY);
    finish(&j);
    assert_int_equal(j.worker[0].st, TR_OK);
}

/* An answer is a sign of life, even before the next heartbeat comes. */
static void who_is_taken_back_for_an_answer_is_not_silent(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.options.suspect_timeout = 200 * TR_MS;
    j.worker[0].conduct = FALL_SILENT;
    assert_int_equal(open_members(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    pump_until(&j, TR_MEMBER_SUSPECT);
    tr_time heard = tr_members_get(j.members, 1)->heard;
    tr_members_trust(j.members, 1);
    assert_int_equal(tr_members_get(j.members, 1)->state, TR_MEMBER_READY);
    assert_true(tr_members_get(j.members, 1)->heard >= heard + 200 * TR_MS);
    finish(&j);
}

/* Nobody can be called silent by who did not listen itself. */
static void an_absent_coordinator_blames_nobody(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.options.silence_timeout = 300 * TR_MS;
    j.worker[0].conduct = FALL_SILENT;
    assert_int_equal(open_members(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    tr_sleep(TR_SECOND);
    assert_int_equal(tr_members_pump(j.members), TR_OK);
    assert_int_equal(tr_members_get(j.members, 1)->state, TR_MEMBER_READY);
    pump_until(&j, TR_MEMBER_LOST); /* now it listens */
    finish(&j);
}

static void a_loading_worker_leaves_when_the_job_is_over(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.worker[0].conduct = LOAD_ON;
    assert_int_equal(open_members(&j), TR_OK);
    assert_int_equal(assign_nothing(&j), TR_OK);
    char reason[256];
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_members_await_ready(j.members, tr_now() + 50 * TR_MS, NULL, NULL),
                     TR_E_DEADLINE);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "worker 1 did not load"));
    finish(&j);
    assert_int_equal(j.worker[0].st, TR_OK);
    assert_string_equal(j.worker[0].reason, "");
}

static void what_does_not_belong_is_dropped(void **state)
{
    job j;

    (void)state;
    prepare(&j, 1);
    j.worker[0].conduct = TALK_NONSENSE;
    assert_int_equal(open_members(&j), TR_OK);
    const tr_member *w = tr_members_get(j.members, 1);
    assert_int_equal(w->state, TR_MEMBER_JOINING);
    assert_int_equal(assign_nothing(&j), TR_OK);
    assert_int_equal(await_ready(&j), TR_OK);
    assert_int_equal(w->n_experts, N_EXPERTS);
    finish(&j);
    assert_int_equal(j.worker[0].st, TR_OK);
    assert_string_equal(j.reason, "");
}

static void a_path_too_long_for_an_invitation_is_named(void **state)
{
    char path[TR_MAX_TEXT + 1];
    job j;

    (void)state;
    prepare(&j, 1);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    j.options.model_path = path;
    j.worker[0].conduct = NEVER_COME;
    assert_int_equal(open_members(&j), TR_E_REQUEST);
    finish(&j);
    assert_non_null(strstr(j.reason, "1024 bytes long"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_obeys_joins_serves_and_leaves),
        cmocka_unit_test(an_invitation_can_name_another_way_for_the_rows),
        cmocka_unit_test(a_worker_that_does_not_connect_for_its_rows_is_named),
        cmocka_unit_test(another_version_is_refused_with_the_reason_on_both_sides),
        cmocka_unit_test(another_model_is_refused_with_the_reason_on_both_sides),
        cmocka_unit_test(a_worker_that_calls_itself_another_is_refused),
        cmocka_unit_test(a_model_that_can_not_be_opened_is_said_on_both_sides),
        cmocka_unit_test(workers_that_do_not_come_are_named),
        cmocka_unit_test(a_worker_that_dies_before_it_joins_is_named),
        cmocka_unit_test(a_worker_that_gives_up_says_why),
        cmocka_unit_test(a_worker_that_vanishes_is_named_and_the_others_are_told),
        cmocka_unit_test(a_worker_that_falls_silent_is_named),
        cmocka_unit_test(a_worker_that_pauses_is_suspected_and_taken_back),
        cmocka_unit_test(a_worker_that_has_nothing_to_load_is_not_waited_for),
        cmocka_unit_test(a_worker_that_hangs_while_it_adopts_is_suspected),
        cmocka_unit_test(a_worker_that_is_late_is_taken_back_for_an_answer_only),
        cmocka_unit_test(who_is_taken_back_for_an_answer_is_not_silent),
        cmocka_unit_test(an_absent_coordinator_blames_nobody),
        cmocka_unit_test(a_loading_worker_leaves_when_the_job_is_over),
        cmocka_unit_test(what_does_not_belong_is_dropped),
        cmocka_unit_test(a_path_too_long_for_an_invitation_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
