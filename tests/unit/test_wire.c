/* test_wire.c - control messages come out as they went in, and no lie passes.
 *
 * Method: structs through bytes and back; what our own writer would never say is made by hand, as
 * bytes.
 *
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
                          .memory_limit = 1ull << 39,
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
    m = (tr_control){ .kind = TR_CONTROL_SHUTDOWN, .shutdown = { .failed = true } };
    assert_true(through(&m, &size).shutdown.failed);
    assert_false(through(&m, &size).shutdown.had_losses);
    through(&(tr_control){ .kind = TR_CONTROL_ALIVE }, &size);
    through(&(tr_control){ .kind = TR_CONTROL_BYE }, &size);
    through(&(tr_control){ .kind = TR_CONTROL_LEAVE }, &size);
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
    snprintf(i.data.endpoint, sizeof i.data.endpoint, "tcp://127.0.0.1:4001");
    memset(i.data.server_public, 4, TR_KEY_SIZE);
    memset(i.data.worker_public, 5, TR_KEY_SIZE);
    memset(i.data.worker_secret, 6, TR_KEY_SIZE);
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

/* The last three fields are the keys of the data plane, 2 bytes and 32 each. */
static void an_invite_has_all_keys_of_the_data_plane_or_none(void **state)
{
    enum { FIELD = 2 + TR_KEY_SIZE };
    tr_invite i = { .protocol = 2,
                    .program = "1.2.3",
                    .worker = 3,
                    .endpoint = "tcp://127.0.0.1:4000",
                    .model = "m.gguf",
                    .heartbeat_ms = 100,
                    .silence_ms = 1000,
                    .data.endpoint = "tcp://127.0.0.1:4001" };
    tr_invite out;
    char reason[256];
    size_t size;

    (void)state;
    assert_int_equal(tr_wire_pack_invite(&i, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(tr_wire_unpack_invite((tr_bytes){ buffer, size }, &out), TR_OK);
    for (size_t n = 1; n <= 3; n++) {
        tr_fail_capture_begin(reason, sizeof reason);
        tr_status st = tr_wire_unpack_invite((tr_bytes){ buffer, size - n * FIELD }, &out);
        tr_fail_capture_end();
        assert_int_equal(st, TR_E_PROTOCOL);
        assert_non_null(strstr(reason, "a key of the data plane"));
    }
    size_t fields = 3 * FIELD;
    size_t endpoint = 2 + strlen(i.data.endpoint);
    memmove(buffer + size - fields - endpoint, buffer + size - fields, fields); /* keys alone */
    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_wire_unpack_invite((tr_bytes){ buffer, size - endpoint }, &out);
    tr_fail_capture_end();
    assert_int_equal(st, TR_E_PROTOCOL);
    assert_non_null(strstr(reason, "data_endpoint"));
}

/* In memory of just that size, so that a sanitizer sees a read past the end. */
static tr_status unpack_exactly(size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    tr_control out;

    assert_non_null(exact);
    memcpy(exact, buffer, size);
    tr_status st = quietly_unpack((tr_bytes){ exact, size }, &out);
    if (st == TR_OK)
        tr_control_fini(&out);
    free(exact);
    return st;
}

static void every_cut_is_refused(void **state)
{
    tr_control hello = a_hello();
    tr_assignment a = an_assignment();
    tr_control assign = { .kind = TR_CONTROL_ASSIGN, .assign = a };
    const tr_control failure = { .kind = TR_CONTROL_FAILURE, .reason = "why" };
    const tr_control beat = { .kind = TR_CONTROL_HEARTBEAT, .heartbeat = { .resident = 1 } };
    const tr_control *list[] = { &hello, &assign, &failure, &beat };
    size_t size;

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        assert_int_equal(tr_wire_pack(list[i], buffer, sizeof buffer, &size), TR_OK);
        for (size_t n = 0; n < size; n++)
            assert_int_equal(unpack_exactly(n), TR_E_PROTOCOL);
        assert_int_equal(unpack_exactly(size), TR_OK);
    }
    tr_assignment_fini(&a);
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
}

static void only_printable_utf8_comes_in(void **state)
{
    static const struct {
        const char *why, *host;
        bool passes;
    } list[] = {
        { "two, three and four bytes", "\xc2\xa0 \xe2\x82\xac \xf0\x9f\x8e\xad", true },
        { "the last code point", "\xf4\x8f\xbf\xbf", true },
        { "an escape", "a\033[2J", false },
        { "a line's end", "a\nb", false },
        { "delete", "a\x7f", false },
        { "a C1 control", "a\xc2\x9b", false },
        { "no beginning", "\x80", false },
        { "cut short", "\xe2\x82", false },
        { "no continuation", "\xe2\x82z", false },
        { "two bytes for an ASCII letter", "\xc1\x81", false },
        { "three bytes for two", "\xe0\x82\x80", false },
        { "a surrogate", "\xed\xa0\x80", false },
        { "past the last code point", "\xf4\x90\x80\x80", false },
        { "five bytes", "\xf8\x88\x80\x80\x80", false },
    };
    tr_control out;
    size_t size;

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        tr_control m = a_hello();
        print_message("  %s\n", list[i].why);
        snprintf(m.hello.host, sizeof m.hello.host, "%s", list[i].host);
        assert_int_equal(tr_wire_pack(&m, buffer, sizeof buffer, &size), TR_OK);
        assert_int_equal(quietly_unpack((tr_bytes){ buffer, size }, &out),
                         list[i].passes ? TR_OK : TR_E_PROTOCOL);
    }
}

/* A reason must arrive: it may quote a hostile name or have been cut within a character. */
static void a_reason_is_made_printable_before_it_goes(void **state)
{
    tr_control m = { .kind = TR_CONTROL_FAILURE, .reason = "a\n\xe2\x82\xac\xff\xe2\x82" };
    tr_control out;
    size_t size;

    (void)state;
    assert_string_equal(through(&m, &size).reason, "a?\xe2\x82\xac???");
    memset(m.reason, 'x', sizeof m.reason - 1);
    assert_string_equal(through(&m, &size).reason, m.reason);

    /* Somebody else's is refused. */
    snprintf(m.reason, sizeof m.reason, "one line");
    assert_int_equal(tr_wire_pack(&m, buffer, sizeof buffer, &size), TR_OK);
    *(char *)memchr(buffer, ' ', size) = '\n';
    assert_int_equal(quietly_unpack((tr_bytes){ buffer, size }, &out), TR_E_PROTOCOL);
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

/* The body of an assign message, in an envelope. */
static tr_status unpack_assign_of(const char *body, size_t size)
{
    assert_true(size < 128);
    buffer[0] = 0x1a; /* field 3, bytes */
    buffer[1] = (uint8_t)size;
    memcpy(buffer + 2, body, size);
    return unpack_exactly(size + 2);
}

#define HEAD                                                                                       \
    "\x12\x01"                                                                                     \
    "c"                                                                                            \
    "\x20\x01"                                                                                     \
    "\x28\x02" /* kernels "c", 1 row, 2 layers */

static void assignments_that_nobody_of_us_would_write_are_refused(void **state)
{
#define BODY(text) text, sizeof text - 1
    static const struct {
        const char *why, *body;
        size_t size;
        bool passes;
    } list[] = {
        { "one range a layer", BODY(HEAD "\x32\x02\x18\x01\x32\x04\x08\x01\x18\x01"), true },
        { "layers descend", BODY(HEAD "\x32\x04\x08\x01\x18\x01\x32\x02\x18\x01"), false },
        { "a layer past the last", BODY(HEAD "\x32\x04\x08\x02\x18\x01"), false },
        { "a range of none", BODY(HEAD "\x32\x02\x10\x01"), false },
        { "more than a layer has", BODY(HEAD "\x32\x03\x18\x81\x20"), false },
        { "past the last expert", BODY(HEAD "\x32\x05\x10\xff\x1f\x18\x02"), false },
        { "a sum that wraps", BODY(HEAD "\x32\x08\x10\xff\xff\xff\xff\x0f\x18\x02"), false },
        { "ranges overlap", BODY(HEAD "\x32\x02\x18\x02\x32\x04\x10\x01\x18\x02"), false },
        { "no layers",
          BODY("\x12\x01"
               "c"
               "\x20\x01"),
          false },
        { "too many layers",
          BODY("\x12\x01"
               "c"
               "\x20\x01\x28\x81\x08"),
          false },
        { "a kernel table of a control character", BODY("\x12\x01\x07\x20\x01\x28\x02"), false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        print_message("  %s\n", list[i].why);
        assert_int_equal(unpack_assign_of(list[i].body, list[i].size),
                         list[i].passes ? TR_OK : TR_E_PROTOCOL);
    }
}

static void no_kind_and_unknown_kinds_are_refused(void **state)
{
    (void)state;
    assert_int_equal(unpack_exactly(0), TR_E_PROTOCOL);
    memcpy(buffer, "\x9a\x06\x00", 3); /* field 99 */
    assert_int_equal(unpack_exactly(3), TR_E_PROTOCOL);
}

/* Two bytes of message make some fifty of memory: the arena must be the end of it. */
static void a_message_that_would_grow_is_refused(void **state)
{
    size_t n = TR_MAX_CONTROL - 4;
    char reason[256];
    tr_control out;

    (void)state;
    memcpy(buffer, (uint8_t[]){ 0x1a, 0xfc, 0xff, 0x3f }, 4);
    for (size_t i = 0; i < n; i += 2)
        memcpy(buffer + 4 + i, (uint8_t[]){ 0x32, 0x00 }, 2);
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_wire_unpack((tr_bytes){ buffer, 4 + n }, &out), TR_E_PROTOCOL);
    tr_fail_capture_end();
    assert_string_equal(reason, "control message can't be decoded");
}

/* The file system's names are bytes; only what would break a line is refused. */
static void a_model_path_need_not_be_utf8(void **state)
{
    tr_invite i = { .protocol = 1,
                    .program = "1",
                    .worker = 1,
                    .endpoint = "tcp://x:1",
                    .model = "/m\xe9langes.gguf",
                    .heartbeat_ms = 1,
                    .silence_ms = 1 };
    char reason[256];
    tr_invite out;
    size_t size;

    (void)state;
    assert_int_equal(tr_wire_pack_invite(&i, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(tr_wire_unpack_invite((tr_bytes){ buffer, size }, &out), TR_OK);
    assert_string_equal(out.model, i.model);
    i.model[1] = '\n';
    assert_int_equal(tr_wire_pack_invite(&i, buffer, sizeof buffer, &size), TR_OK);
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_wire_unpack_invite((tr_bytes){ buffer, size }, &out), TR_E_PROTOCOL);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "model"));
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
        cmocka_unit_test(an_invite_has_all_keys_of_the_data_plane_or_none),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(values_out_of_their_limits_are_refused),
        cmocka_unit_test(only_printable_utf8_comes_in),
        cmocka_unit_test(a_reason_is_made_printable_before_it_goes),
        cmocka_unit_test(assignments_that_make_no_sense_are_refused),
        cmocka_unit_test(assignments_that_nobody_of_us_would_write_are_refused),
        cmocka_unit_test(no_kind_and_unknown_kinds_are_refused),
        cmocka_unit_test(a_message_that_would_grow_is_refused),
        cmocka_unit_test(a_model_path_need_not_be_utf8),
        cmocka_unit_test(what_does_not_fit_is_not_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
