/* test_join.c - a worker believes its coordinator only what makes sense, and knows when it is gone.
 *
 * Method: a real join in a thread, over the inproc transport, against a coordinator that is made by
 * hand in the test's own thread: it invites as it likes and says what it likes.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "compute/gguf.h"
#include "proto/frame.h"
#include "proto/wire.h"
#include "transport/inproc.h"
#include "transport/link.h"
#include "worker/join.h"

#include <pthread.h>

#define MODEL TR_SOURCE_DIR "/models/demo.gguf"

typedef struct {
    tr_inproc *net;
    tr_transport *transport; /* the coordinator's end */
    tr_curve_keys server, client;
    tr_link *link;
    pthread_t thread;
    /* the worker's outcome, valid once it is joined */
    tr_status st;
    bool was_called_off, is_over, job_failed;
    tr_assignment assignment;
    size_t n_more; /* later assignments */
    uint32_t more_epoch;
    char reason[512];
} fixture;

/* ---- the worker ------------------------------------------------------------------------- */

static tr_status serve(fixture *f, tr_join *j)
{
    const tr_worker_stats stats = { .picks = 3 };

    tr_status st = tr_join_await_assignment(j, &f->assignment, &f->is_over);
    while (st == TR_OK && !f->is_over) {
        st = tr_join_pump(j, &stats, &f->is_over);
        tr_sleep(TR_MS);
    }
    for (tr_assignment a; tr_join_next_assignment(j, &a); f->n_more++) {
        f->more_epoch = a.epoch;
        tr_assignment_fini(&a);
    }
    f->job_failed = tr_join_job_failed(j);
    return st;
}

static void *worker_thread(void *ctx)
{
    fixture *f = ctx;
    tr_transport *t = NULL;
    tr_join *j = NULL;

    tr_fail_capture_begin(f->reason, sizeof f->reason);
    f->st = tr_inproc_open(f->net, 1, &t);
    if (f->st == TR_OK)
        f->st = tr_join_open(t, "1.0", NULL, 2, &j);
    f->was_called_off = f->st == TR_OK && !j;
    if (j)
        f->st = serve(f, j);
    tr_join_close(&j);
    tr_transport_close(&t);
    tr_fail_capture_end();
    return NULL;
}

/* ---- the coordinator --------------------------------------------------------------------- */

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    assert_int_equal(tr_curve_keys_new(&f->server), TR_OK);
    assert_int_equal(tr_curve_keys_new(&f->client), TR_OK);
    assert_int_equal(tr_inproc_new(1, 1 << 20, &f->net), TR_OK);
    assert_int_equal(tr_inproc_open(f->net, 0, &f->transport), TR_OK);
    assert_int_equal(tr_link_serve(NULL, &f->server,
                                   (const uint8_t(*)[TR_CURVE_KEY])f->client.public_key, 1,
                                   &f->link),
                     TR_OK);
    assert_int_equal(pthread_create(&f->thread, NULL, worker_thread, f), 0);
    *state = f;
    return 0;
}

/* After await_worker. */
static int tear_down(void **state)
{
    fixture *f = *state;

    tr_link_close(&f->link);
    tr_transport_close(&f->transport);
    tr_inproc_free(&f->net);
    tr_assignment_fini(&f->assignment);
    free(f);
    return 0;
}

static tr_status await_worker(fixture *f)
{
    pthread_join(f->thread, NULL);
    return f->st;
}

static void send_frame(fixture *f, tr_frame_kind kind, const void *text, size_t size)
{
    tr_frame_header h = { .kind = (uint16_t)kind, .job = 77 };
    tr_msg *m = NULL;

    assert_int_equal(tr_transport_reserve(f->transport, 1, tr_frame_text_size(size), &m), TR_OK);
    tr_frame_begin(m->data, &h, size);
    if (size > 0)
        memcpy(tr_frame_text(m->data), text, size);
    tr_frame_seal(m->data);
    assert_int_equal(tr_transport_send(f->transport, 1, &m), TR_OK);
}

static tr_invite an_invitation(const fixture *f)
{
    tr_invite i = { .protocol = TR_PROTOCOL,
                    .program = "1.0",
                    .job = 77,
                    .worker = 1,
                    .model = MODEL,
                    .heartbeat_ms = 10,
                    .silence_ms = 10000 };

    snprintf(i.endpoint, sizeof i.endpoint, "%s", tr_link_endpoint(f->link));
    memcpy(i.server_public, f->server.public_key, TR_KEY_SIZE);
    memcpy(i.worker_public, f->client.public_key, TR_KEY_SIZE);
    memcpy(i.worker_secret, f->client.secret_key, TR_KEY_SIZE);
    return i;
}

static void invite(fixture *f, const tr_invite *i)
{
    uint8_t text[4096];
    size_t size;

    assert_int_equal(tr_wire_pack_invite(i, text, sizeof text, &size), TR_OK);
    send_frame(f, TR_FRAME_INVITE, text, size);
}

static void say(fixture *f, const tr_control *c)
{
    uint8_t text[4096];
    size_t size;

    assert_int_equal(tr_wire_pack(c, text, sizeof text, &size), TR_OK);
    assert_int_equal(tr_link_send(f->link, 1, (tr_bytes){ text, size }), TR_OK);
}

/* The next message, which has to be of this kind; heartbeats come in between. */
static tr_control hear(fixture *f, tr_control_kind kind)
{
    tr_control c;
    tr_link_event e;

    do {
        assert_int_equal(tr_link_poll(f->link, 20 * TR_SECOND, &e), TR_OK);
        assert_int_equal(e.kind, TR_LINK_MESSAGE);
        assert_int_equal(tr_wire_unpack(e.bytes, &c), TR_OK);
    } while (c.kind == TR_CONTROL_HEARTBEAT && kind != TR_CONTROL_HEARTBEAT);
    assert_int_equal(c.kind, kind);
    return c;
}

static tr_control join(fixture *f)
{
    tr_invite i = an_invitation(f);

    invite(f, &i);
    return hear(f, TR_CONTROL_HELLO);
}

static void assign(fixture *f, uint32_t epoch)
{
    tr_control c = { .kind = TR_CONTROL_ASSIGN };

    assert_int_equal(tr_assignment_init(&c.assign, 2), TR_OK);
    c.assign.epoch = epoch;
    c.assign.max_rows = 4;
    snprintf(c.assign.kernels, sizeof c.assign.kernels, "c");
    c.assign.layer[1].expert = malloc(sizeof(uint32_t));
    assert_non_null(c.assign.layer[1].expert);
    c.assign.layer[1].expert[c.assign.layer[1].n++] = 9;
    say(f, &c);
    tr_control_fini(&c);
}

/* ---- tests ------------------------------------------------------------------------------- */

static void a_hello_says_what_the_worker_is(void **state)
{
    fixture *f = *state;
    tr_gguf *g = NULL;
    tr_control c = join(f);

    assert_int_equal(tr_gguf_open(MODEL, &g), TR_OK);
    assert_int_equal(c.hello.protocol, TR_PROTOCOL);
    assert_string_equal(c.hello.program, "1.0");
    assert_int_equal(c.hello.worker, 1);
    assert_true(c.hello.model == tr_gguf_identity(g));
    assert_true(c.hello.memory > 0 && c.hello.memory_limit > 0);
    assert_true(c.hello.memory_limit <= c.hello.memory);
    assert_true(c.hello.cores >= 1);
    assert_int_equal(c.hello.threads, 2);
    tr_gguf_close(&g);
    say(f, &(tr_control){ .kind = TR_CONTROL_SHUTDOWN });
    hear(f, TR_CONTROL_BYE);
    assert_int_equal(await_worker(f), TR_OK);
    assert_true(f->is_over);
    assert_false(f->job_failed);
}

static void later_assignments_wait_until_they_are_taken(void **state)
{
    fixture *f = *state;

    join(f);
    assign(f, 5);
    assign(f, 6);
    say(f, &(tr_control){ .kind = TR_CONTROL_ALIVE });
    say(f, &(tr_control){ .kind = TR_CONTROL_BYE }); /* not a coordinator's word: ignored */
    assert_int_equal(hear(f, TR_CONTROL_HEARTBEAT).heartbeat.picks, 3);
    say(f, &(tr_control){ .kind = TR_CONTROL_SHUTDOWN, .shutdown = { .failed = true } });
    assert_int_equal(await_worker(f), TR_OK);
    assert_true(f->job_failed);
    assert_int_equal(f->assignment.epoch, 5);
    assert_int_equal(f->assignment.job, 77);
    assert_int_equal(f->assignment.n_layers, 2);
    assert_int_equal(f->assignment.layer[0].n, 0);
    assert_int_equal(f->assignment.layer[1].n, 1);
    assert_int_equal(f->assignment.layer[1].expert[0], 9);
    assert_int_equal(f->n_more, 1);
    assert_int_equal(f->more_epoch, 6);
}

static void a_job_can_be_called_off_before_the_invitation(void **state)
{
    fixture *f = *state;

    send_frame(f, TR_FRAME_STOP, NULL, 0);
    assert_int_equal(await_worker(f), TR_OK);
    assert_true(f->was_called_off);
    assert_string_equal(f->reason, "");
}

static void another_frame_is_no_invitation(void **state)
{
    fixture *f = *state;

    send_frame(f, TR_FRAME_ERROR, "x", 1);
    assert_int_equal(await_worker(f), TR_E_PROTOCOL);
    assert_non_null(strstr(f->reason, "no invite"));
}

static void an_invitation_of_nonsense_is_refused(void **state)
{
    fixture *f = *state;

    send_frame(f, TR_FRAME_INVITE, "nonsense", 8);
    assert_int_equal(await_worker(f), TR_E_PROTOCOL);
    assert_non_null(strstr(f->reason, "invite"));
}

static void an_invitation_for_another_is_refused(void **state)
{
    fixture *f = *state;
    tr_invite i = an_invitation(f);

    i.worker = 2;
    invite(f, &i);
    assert_int_equal(await_worker(f), TR_E_PROTOCOL);
    assert_non_null(strstr(f->reason, "invited as worker 2, but this is 1"));
}

static void another_version_or_protocol_is_refused_and_told(void **state)
{
    fixture *f = *state;
    tr_invite i = an_invitation(f);

    i.protocol = TR_PROTOCOL + 1;
    invite(f, &i);
    tr_control c = hear(f, TR_CONTROL_FAILURE);
    assert_non_null(strstr(c.reason, "protocol 2"));
    assert_non_null(strstr(c.reason, "protocol 3"));
    assert_int_equal(await_worker(f), TR_E_REFUSED);
    assert_non_null(strstr(f->reason, c.reason));
}

static void a_refusal_is_said_with_its_reason(void **state)
{
    fixture *f = *state;

    join(f);
    say(f, &(tr_control){ .kind = TR_CONTROL_REFUSE, .reason = "we are enough" });
    assert_int_equal(await_worker(f), TR_E_REFUSED);
    assert_non_null(strstr(f->reason, "we are enough"));
}

static void a_coordinator_that_dies_is_missed(void **state)
{
    fixture *f = *state;

    join(f);
    tr_link_close(&f->link);
    assert_int_equal(await_worker(f), TR_E_PEER_LOST);
    assert_string_equal(f->reason, "the coordinator is gone");
}

static void a_coordinator_that_dies_before_it_invites_is_missed(void **state)
{
    fixture *f = *state;

    tr_transport_close(&f->transport);
    assert_int_equal(await_worker(f), TR_E_PEER_LOST);
    assert_string_equal(f->reason, "the coordinator is gone");
}

static void a_coordinator_that_falls_silent_is_missed(void **state)
{
    fixture *f = *state;
    tr_invite i = an_invitation(f);

    i.silence_ms = 20;
    invite(f, &i);
    hear(f, TR_CONTROL_HELLO);
    assign(f, 1);
    assert_int_equal(await_worker(f), TR_E_PEER_LOST);
    assert_non_null(strstr(f->reason, "the coordinator is silent"));
}

static void nonsense_ends_a_worker(void **state)
{
    fixture *f = *state;

    join(f);
    assert_int_equal(tr_link_send(f->link, 1, tr_bytes_of("nonsense")), TR_OK);
    assert_int_equal(await_worker(f), TR_E_PROTOCOL);
    assert_non_null(strstr(f->reason, "control message"));
}

int main(void)
{
#define JOIN_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        JOIN_TEST(a_hello_says_what_the_worker_is),
        JOIN_TEST(later_assignments_wait_until_they_are_taken),
        JOIN_TEST(a_job_can_be_called_off_before_the_invitation),
        JOIN_TEST(another_frame_is_no_invitation),
        JOIN_TEST(an_invitation_of_nonsense_is_refused),
        JOIN_TEST(an_invitation_for_another_is_refused),
        JOIN_TEST(another_version_or_protocol_is_refused_and_told),
        JOIN_TEST(a_refusal_is_said_with_its_reason),
        JOIN_TEST(a_coordinator_that_dies_is_missed),
        JOIN_TEST(a_coordinator_that_dies_before_it_invites_is_missed),
        JOIN_TEST(a_coordinator_that_falls_silent_is_missed),
        JOIN_TEST(nonsense_ends_a_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
