/* test_wire.c - control messages come out as they went in, and no lie passes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "proto/wire.h"

static uint8_t buffer[TR_MAX_CONTROL];

static tr_status quietly_unpack(tr_bytes bytes, tr_control *out)
{
    char reason[512];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_wire_unpack(bytes, out);
    tr_fail_capture_end();
    assert_true(st == TR_OK || reason[0] != '\0');
    return st;
}

/* Through bytes and back; *size are the bytes in the buffer. */
static tr_control through(const tr_control *m, size_t *size)
{
    tr_control out = { .kind = TR_CONTROL_NONE };

    assert_int_equal(tr_wire_pack(m, buffer, sizeof buffer, size), TR_OK);
    assert_int_equal(tr_wire_unpack((tr_bytes){ buffer, *size }, &out), TR_OK);
    assert_int_equal(out.kind, m->kind);
    return out;
}

static tr_control a_hello(void)
{
    tr_control m = { .kind = TR_CONTROL_HELLO };

    m.hello = (tr_hello){ .protocol = 1,
                          .program = "1.2.3",
                          .worker = 7,
                          .pid = 4711,
                          .host = "node-7",
                          .model = 0xfedcba9876543210u,
                          .memory = 1ull << 40,
                          .cores = 64,
                          .threads = 32,
                          .n_kernels = 2,
                          .kernels = { "c", "avx2" } };
    return m;
}

static void a_hello_survives(void **state)
{
    size_t size;
    tr_control m = a_hello();
    tr_control out = through(&m, &size);

    (void)state;
    assert_memory_equal(&out.hello, &m.hello, sizeof m.hello);
}

static void small_messages_survive(void **state)
{
    size_t size;

    (void)state;
    tr_control m = { .kind = TR_CONTROL_REFUSE, .reason = "because of \xc3\xa9" };
    assert_string_equal(through(&m, &size).reason, m.reason);
    m.kind = TR_CONTROL_FAILURE;
    assert_string_equal(through(&m, &size).reason, m.reason);
    m = (tr_control){ .kind = TR_CONTROL_PROGRESS };
    m.progress.done = 5;
    m.progress.total = UINT64_MAX;
    assert_true(through(&m, &size).progress.total == UINT64_MAX);
    m = (tr_control){ .kind = TR_CONTROL_READY };
    m.ready.experts = 12;
    m.ready.bytes = 1ull << 50;
    assert_true(through(&m, &size).ready.bytes == 1ull << 50);
    m = (tr_control){ .kind = TR_CONTROL_HEARTBEAT, .heartbeat = { 1, 2, 3, 4, 5, 6, 7, 8 } };
    tr_control out = through(&m, &size);
    assert_memory_equal(&out.heartbeat, &m.heartbeat, sizeof m.heartbeat);
    m = (tr_control){ .kind = TR_CONTROL_SHUTDOWN, .job_failed = true };
    assert_true(through(&m, &size).job_failed);
    through(&(tr_control){ .kind = TR_CONTROL_ALIVE }, &size);
    through(&(tr_control){ .kind = TR_CONTROL_BYE }, &size);
}

/* Layer l of the assignment holds every third expert from l on, and a run at the end. */
static tr_assignment an_assignment(void)
{
    tr_assignment a;

    assert_int_equal(tr_assignment_init(&a, 3), TR_OK);
    a.epoch = 9;
    a.exact = true;
    a.max_rows = 256;
    snprintf(a.kernels, sizeof a.kernels, "avx2");
    for (uint32_t l = 0; l < 3; l += 2) { /* layer 1 holds none */
        a.layer[l].expert = malloc(20 * sizeof(uint32_t));
        assert_non_null(a.layer[l].expert);
        for (uint32_t e = l; e < 30; e += 3)
            a.layer[l].expert[a.layer[l].n++] = e;
        for (uint32_t e = 100; e < 105; e++)
            a.layer[l].expert[a.layer[l].n++] = e;
    }
    return a;
}

static void an_assignment_survives_in_runs(void **state)
{
    tr_assignment a = an_assignment();
    tr_control m = { .kind = TR_CONTROL_ASSIGN, .assign = a };
    size_t size;

    (void)state;
    tr_control out = through(&m, &size);
    assert_int_equal(out.assign.epoch, 9);
    assert_true(out.assign.exact);
    assert_int_equal(out.assign.max_rows, 256);
    assert_string_equal(out.assign.kernels, "avx2");
    assert_int_equal(out.assign.n_layers, 3);
    for (uint32_t l = 0; l < 3; l++) {
        assert_int_equal(out.assign.layer[l].n, a.layer[l].n);
        for (uint32_t i = 0; i < a.layer[l].n; i++)
            assert_int_equal(out.assign.layer[l].expert[i], a.layer[l].expert[i]);
    }
    tr_control_fini(&out);
    tr_assignment_fini(&a);
}

static void an_invite_survives(void **state)
{
    tr_invite i = { .protocol = 1,
                    .program = "1.2.3",
                    .job = 77,
                    .worker = 3,
                    .endpoint = "tcp://127.0.0.1:4000",
                    .model = "/models/a b.gguf",
                    .heartbeat_ms = 100,
                    .silence_ms = 1000 };
    tr_invite out;
    size_t size;

    (void)state;
    memset(i.server_public, 1, TR_KEY_SIZE);
    memset(i.worker_public, 2, TR_KEY_SIZE);
    memset(i.worker_secret, 3, TR_KEY_SIZE);
    assert_int_equal(tr_wire_pack_invite(&i, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(tr_wire_unpack_invite((tr_bytes){ buffer, size }, &out), TR_OK);
    assert_memory_equal(&out, &i, sizeof i);
    i.heartbeat_ms = 2000; /* longer than the silence that it is to break */
    assert_int_equal(tr_wire_pack_invite(&i, buffer, sizeof buffer, &size), TR_OK);
    char reason[256];
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_wire_unpack_invite((tr_bytes){ buffer, size }, &out), TR_E_PROTOCOL);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "heartbeat_ms"));
}

static void every_cut_is_refused_or_still_sane(void **state)
{
    tr_control hello = a_hello();
    tr_control out;
    size_t size;

    (void)state;
    assert_int_equal(tr_wire_pack(&hello, buffer, sizeof buffer, &size), TR_OK);
    for (size_t n = 0; n < size; n++)
        assert_int_equal(quietly_unpack((tr_bytes){ buffer, n }, &out), TR_E_PROTOCOL);
}

static void refused(tr_control *m)
{
    tr_control out;
    size_t size;

    assert_int_equal(tr_wire_pack(m, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(quietly_unpack((tr_bytes){ buffer, size }, &out), TR_E_PROTOCOL);
}

static void values_out_of_their_limits_are_refused(void **state)
{
    (void)state;
    tr_control m = a_hello();
    m.hello.worker = 0;
    refused(&m);
    m.hello.worker = TR_MAX_WORKERS + 1;
    refused(&m);
    m = a_hello();
    m.hello.program[0] = '\0';
    refused(&m);
    m = a_hello();
    m.hello.host[0] = '\033'; /* no escape sequences in our log */
    refused(&m);
    m = a_hello();
    m.hello.n_kernels = 0;
    refused(&m);
    m = (tr_control){ .kind = TR_CONTROL_PROGRESS };
    m.progress.done = 2;
    m.progress.total = 1;
    refused(&m);
    refused(&(tr_control){ .kind = TR_CONTROL_FAILURE, .reason = "two\nlines" });
}

static void assignments_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    for (int lie = 0; lie < 5; lie++) {
        tr_assignment a = an_assignment();
        uint32_t real_layers = a.n_layers;
        if (lie == 0)
            a.layer[0].expert[1] = 0; /* the same expert again */
        if (lie == 1)
            a.layer[0].expert[2] = TR_MAX_EXPERTS; /* past the limit */
        if (lie == 2)
            a.max_rows = 0;
        if (lie == 3)
            a.max_rows = TR_MAX_ROWS + 1;
        if (lie == 4)
            a.kernels[0] = '\0';
        tr_control m = { .kind = TR_CONTROL_ASSIGN, .assign = a };
        refused(&m);
        a.n_layers = real_layers;
        tr_assignment_fini(&a);
    }
}

static void what_does_not_fit_is_not_packed(void **state)
{
    tr_control hello = a_hello();
    char reason[256];
    size_t size;

    (void)state;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_wire_pack(&hello, buffer, 10, &size), TR_E_PROTOCOL);
    assert_int_equal(tr_wire_unpack((tr_bytes){ buffer, TR_MAX_CONTROL + 1 }, &hello),
                     TR_E_PROTOCOL);
    tr_fail_capture_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hello_survives),
        cmocka_unit_test(small_messages_survive),
        cmocka_unit_test(an_assignment_survives_in_runs),
        cmocka_unit_test(an_invite_survives),
        cmocka_unit_test(every_cut_is_refused_or_still_sane),
        cmocka_unit_test(values_out_of_their_limits_are_refused),
        cmocka_unit_test(assignments_that_make_no_sense_are_refused),
        cmocka_unit_test(what_does_not_fit_is_not_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
