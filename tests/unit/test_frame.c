/* test_frame.c - a frame arrives as it was written, or is refused.
 *
 * Method: frames of every kind are written with the public calls and opened again; then each
 * field is made to lie (with the checksum made right again, so that the check of that very
 * field must find it), each prefix is offered, and each bit is flipped.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"
#include "base/rng.h"
#include "compute/kernels.h"
#include "proto/frame.h"
#include "tests/support/tr_test.h"

#include <stddef.h>

#include <xxhash.h>

enum { JOB = 77, DIM = 64, ROW_F32 = 256, ROW_Q8 = 128, ROOM = 8192 };

static const tr_frame_limits limits = {
    .job = JOB, .n_layers = 4, .n_experts = 16, .max_rows = 8, .max_picks = 32, .dim = DIM
};

typedef struct {
    uint8_t *at; /* ROOM bytes, aligned */
    size_t size; /* of the frame in it */
} frame;

static int make_frame(void **state)
{
    void *at = NULL;

    if (tr_memory_new(ROOM, "test frame", &at) != TR_OK)
        return -1;
    frame *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    f->at = at;
    *state = f;
    return 0;
}

static int free_frame(void **state)
{
    frame *f = *state;
    void *at = f->at;

    tr_memory_free(&at, ROOM);
    free(f);
    return 0;
}

/* A header whose every field is set, also those that the kind does not use. */
static tr_frame_header full_header(tr_frame_kind kind)
{
    return (tr_frame_header){ .kind = (uint16_t)kind,
                              .job = JOB,
                              .step = 5,
                              .share = 900,
                              .epoch = 3,
                              .layer = 2,
                              .n_rows = 2,
                              .n_picks = 3,
                              .dim = DIM,
                              .row_size = ROW_F32,
                              .act = 0,
                              .sender = 1,
                              .busy_ns = 1234 };
}

static void write_share(frame *f)
{
    tr_frame_header h = full_header(TR_FRAME_SHARE);
    static const tr_frame_pick picks[] = { { 0, 1 }, { 1, 1 }, { 0, 15 } };

    memset(f->at, 0xee, ROOM);
    f->size = tr_frame_share_size(h.n_picks, h.n_rows, h.row_size);
    tr_frame_begin(f->at, &h, 0);
    memcpy(tr_frame_picks(f->at), picks, sizeof picks);
    for (size_t i = 0; i < (size_t)h.n_rows * h.row_size; i++)
        tr_frame_rows(f->at)[i] = (uint8_t)i;
    tr_frame_seal(f->at);
}

static void write_answer(frame *f)
{
    tr_frame_header h = full_header(TR_FRAME_ANSWER);

    memset(f->at, 0xee, ROOM);
    f->size = tr_frame_answer_size(h.n_picks, h.dim);
    tr_frame_begin(f->at, &h, 0);
    float *rows = (float *)(void *)tr_frame_rows(f->at);
    for (size_t i = 0; i < (size_t)h.n_picks * h.dim; i++)
        rows[i] = (float)i;
    tr_frame_seal(f->at);
}

static void write_text(frame *f, tr_frame_kind kind, const char *text)
{
    tr_frame_header h = full_header(kind);

    memset(f->at, 0xee, ROOM);
    f->size = tr_frame_text_size(strlen(text));
    tr_frame_begin(f->at, &h, strlen(text));
    if (kind != TR_FRAME_STOP)
        memcpy(tr_frame_text(f->at), text, strlen(text));
    tr_frame_seal(f->at);
}

static void write_kind(frame *f, tr_frame_kind kind)
{
    if (kind == TR_FRAME_SHARE)
        write_share(f);
    else if (kind == TR_FRAME_ANSWER)
        write_answer(f);
    else
        write_text(f, kind, kind == TR_FRAME_STOP ? "" : "no such shard");
}

/* As tr_frame_seal, but by the plain definition and for headers that begin would not write. */
static void seal_again(frame *f)
{
    uint64_t sum = 0;

    memcpy(f->at + offsetof(tr_frame_header, checksum), &sum, sizeof sum);
    sum = XXH3_64bits(f->at, f->size);
    memcpy(f->at + offsetof(tr_frame_header, checksum), &sum, sizeof sum);
}

static tr_status open_frame(const frame *f, const tr_frame_limits *l, tr_frame_view *view)
{
    return tr_frame_open((tr_bytes){ f->at, f->size }, l, view);
}

/* f must be refused with this status and a line that contains word. */
static void expect_refused(const frame *f, const tr_frame_limits *l, tr_status want,
                           const char *word)
{
    char line[512];
    tr_frame_view view, before;

    memset(&view, 0x5a, sizeof view);
    before = view;
    tr_fail_capture_begin(line, sizeof line);
    tr_status st = open_frame(f, l, &view);
    tr_fail_capture_end();
    if (st != want || !strstr(line, word))
        print_message("  got %s: %s\n", tr_status_name(st), line);
    assert_int_equal(st, want);
    assert_non_null(strstr(line, word));
    assert_memory_equal(&view, &before, sizeof view);
}

static void the_magic_reads_trpf_in_memory(void **state)
{
    frame *f = *state;

    write_text(f, TR_FRAME_STOP, "");
    assert_memory_equal(f->at, "TRPF", 4);
    assert_int_equal(f->size, 128);
}

static void the_checksum_is_xxh3_of_the_frame_with_the_field_zero(void **state)
{
    frame *f = *state, copy;
    void *other = f;

    assert_int_equal(make_frame(&other), 0);
    copy = *(frame *)other;
    for (int kind = TR_FRAME_SHARE; kind <= TR_FRAME_ECHO; kind++) {
        write_kind(f, (tr_frame_kind)kind);
        copy.size = f->size;
        memcpy(copy.at, f->at, f->size);
        seal_again(&copy);
        assert_memory_equal(copy.at, f->at, f->size);
    }
    free_frame(&other);
}

static void a_share_arrives_as_written(void **state)
{
    frame *f = *state;
    tr_frame_view v;

    write_share(f);
    assert_int_equal(open_frame(f, &limits, &v), TR_OK);
    assert_int_equal(v.header.size, 128 + 64 + 2 * ROW_F32);
    assert_int_equal(v.header.share, 900);
    assert_int_equal(v.header.step, 5);
    assert_int_equal(v.header.epoch, 3);
    assert_int_equal(v.header.layer, 2);
    assert_int_equal(v.header.sender, 1);
    assert_int_equal(v.header.busy_ns, 0);
    assert_int_equal(v.picks[2].row, 0);
    assert_int_equal(v.picks[2].expert, 15);
    assert_int_equal((uintptr_t)v.picks % 64, 0);
    assert_int_equal((uintptr_t)v.rows % 64, 0);
    for (size_t i = 0; i < 2 * ROW_F32; i++)
        assert_int_equal(v.rows[i], (uint8_t)i);
    assert_null(v.text.data);
}

static void an_answer_arrives_as_written(void **state)
{
    frame *f = *state;
    tr_frame_view v;

    write_answer(f);
    assert_int_equal(open_frame(f, &limits, &v), TR_OK);
    assert_int_equal(v.header.share, 900);
    assert_int_equal(v.header.busy_ns, 1234);
    assert_int_equal(v.header.n_picks, 3);
    assert_int_equal((uintptr_t)v.rows % 64, 0);
    for (size_t i = 0; i < 3 * DIM; i++)
        assert_true(((const float *)(const void *)v.rows)[i] == (float)i);
    assert_null(v.picks);
}

static void texts_arrive_as_written(void **state)
{
    frame *f = *state;
    tr_frame_view v;

    write_text(f, TR_FRAME_ERROR, "no such shard");
    assert_int_equal(open_frame(f, &limits, &v), TR_OK);
    assert_true(tr_bytes_equal(v.text, tr_bytes_of("no such shard")));
    assert_int_equal(v.header.share, 900);

    write_text(f, TR_FRAME_ERROR, "");
    assert_int_equal(open_frame(f, &limits, &v), TR_OK);
    assert_int_equal(v.text.size, 0);

    write_text(f, TR_FRAME_STOP, "");
    assert_int_equal(open_frame(f, &limits, &v), TR_OK);
    assert_int_equal(v.text.size, 0);
    assert_null(v.rows);
}

static void an_invitation_opens_without_knowledge_of_the_job(void **state)
{
    frame *f = *state;
    tr_frame_view v;

    write_text(f, TR_FRAME_INVITE, "tcp://somewhere");
    assert_int_equal(open_frame(f, NULL, &v), TR_OK);
    assert_true(tr_bytes_equal(v.text, tr_bytes_of("tcp://somewhere")));
    assert_int_equal(v.header.job, JOB);
}

/* One field of one kind lies; the rest, checksum included, is right. */
typedef struct {
    tr_frame_kind kind;
    const char *why;
    size_t offset, width;
    uint64_t value;
    const char *word;
} lie;

#define FIELD(name)  offsetof(tr_frame_header, name), sizeof((tr_frame_header){ 0 }.name)
#define BYTE(offset) (offset), 1
#define PICK_ROW(i)  (TR_FRAME_HEADER + (i) * sizeof(tr_frame_pick)), 4
#define PICK_EXP(i)  (TR_FRAME_HEADER + (i) * sizeof(tr_frame_pick) + 4), 4

static const lie lies[] = {
    { TR_FRAME_SHARE, "another protocol", FIELD(magic), 0x46505255, "magic" },
    { TR_FRAME_SHARE, "no kind", FIELD(kind), 0, "kind" },
    { TR_FRAME_SHARE, "kind after the last", FIELD(kind), 7, "kind" },
    { TR_FRAME_SHARE, "kind far away", FIELD(kind), 65535, "kind" },
    { TR_FRAME_SHARE, "another job", FIELD(job), JOB + 1, "job" },
    { TR_FRAME_STOP, "another job", FIELD(job), 0, "job" },
    { TR_FRAME_SHARE, "size one less", FIELD(size), 128 + 64 + 511, "size field" },
    { TR_FRAME_SHARE, "size one more", FIELD(size), 128 + 64 + 513, "size field" },
    { TR_FRAME_SHARE, "size wraps", FIELD(size), UINT64_MAX, "size field" },
    { TR_FRAME_SHARE, "layer past the last", FIELD(layer), 4, "layer" },
    { TR_FRAME_ANSWER, "layer past the last", FIELD(layer), UINT32_MAX, "layer" },
    { TR_FRAME_ERROR, "layer past the last", FIELD(layer), 4, "layer" },
    { TR_FRAME_SHARE, "no rows", FIELD(n_rows), 0, "n_rows" },
    { TR_FRAME_SHARE, "fewer rows than bytes", FIELD(n_rows), 1, "counts" },
    { TR_FRAME_SHARE, "more rows than bytes", FIELD(n_rows), 3, "counts" },
    { TR_FRAME_SHARE, "rows above the limit", FIELD(n_rows), 9, "n_rows" },
    { TR_FRAME_SHARE, "rows that wrap", FIELD(n_rows), UINT32_MAX, "n_rows" },
    { TR_FRAME_SHARE, "no picks", FIELD(n_picks), 0, "n_picks" },
    { TR_FRAME_SHARE, "fewer picks: a gap that is not zero", FIELD(n_picks), 2, "between" },
    { TR_FRAME_SHARE, "one pick more: the gap read as a pick", FIELD(n_picks), 4, "order" },
    { TR_FRAME_SHARE, "picks up to the rows and beyond", FIELD(n_picks), 9, "counts" },
    { TR_FRAME_SHARE, "picks above the limit", FIELD(n_picks), 33, "n_picks" },
    { TR_FRAME_SHARE, "picks that wrap", FIELD(n_picks), UINT32_MAX, "n_picks" },
    { TR_FRAME_ANSWER, "no picks", FIELD(n_picks), 0, "n_picks" },
    { TR_FRAME_ANSWER, "fewer picks than bytes", FIELD(n_picks), 2, "counts" },
    { TR_FRAME_ANSWER, "more picks than bytes", FIELD(n_picks), 4, "counts" },
    { TR_FRAME_SHARE, "another dim", FIELD(dim), 32, "dim" },
    { TR_FRAME_SHARE, "no dim", FIELD(dim), 0, "dim" },
    { TR_FRAME_ANSWER, "another dim", FIELD(dim), 128, "dim" },
    { TR_FRAME_SHARE, "row_size of the other form", FIELD(row_size), ROW_Q8, "row_size" },
    { TR_FRAME_SHARE, "row_size zero", FIELD(row_size), 0, "row_size" },
    { TR_FRAME_SHARE, "row_size huge", FIELD(row_size), UINT32_MAX, "row_size" },
    { TR_FRAME_SHARE, "the other form with this row_size", FIELD(act), 1, "row_size" },
    { TR_FRAME_SHARE, "no such form", FIELD(act), 2, "act" },
    { TR_FRAME_SHARE, "no such form", FIELD(act), UINT32_MAX, "act" },
    { TR_FRAME_SHARE, "sender past the last", FIELD(sender), TR_MAX_WORKERS + 1, "sender" },
    { TR_FRAME_STOP, "sender past the last", FIELD(sender), UINT32_MAX, "sender" },
    { TR_FRAME_SHARE, "a share that was busy", FIELD(busy_ns), 1, "unused" },
    { TR_FRAME_SHARE, "reserved not zero", BYTE(88), 1, "unused" },
    { TR_FRAME_SHARE, "reserved not zero", BYTE(127), 128, "unused" },
    { TR_FRAME_ANSWER, "an answer with rows", FIELD(n_rows), 1, "unused" },
    { TR_FRAME_ANSWER, "an answer with a form", FIELD(act), 1, "unused" },
    { TR_FRAME_ANSWER, "an answer with row_size", FIELD(row_size), 256, "unused" },
    { TR_FRAME_ERROR, "an error with picks", FIELD(n_picks), 1, "unused" },
    { TR_FRAME_ERROR, "an error with dim", FIELD(dim), DIM, "unused" },
    { TR_FRAME_STOP, "a stop of a share", FIELD(share), 1, "unused" },
    { TR_FRAME_STOP, "a stop of a layer", FIELD(layer), 1, "unused" },
    { TR_FRAME_ERROR, "a stop with a text", FIELD(kind), TR_FRAME_STOP, "unused" },
    { TR_FRAME_INVITE, "a stop with a text", FIELD(kind), TR_FRAME_STOP, "text" },
    { TR_FRAME_SHARE, "row past the last", PICK_ROW(0), 2, "row" },
    { TR_FRAME_SHARE, "row that wraps", PICK_ROW(2), UINT32_MAX, "row" },
    { TR_FRAME_SHARE, "expert past the last", PICK_EXP(2), 16, "expert" },
    { TR_FRAME_SHARE, "expert that wraps", PICK_EXP(0), UINT32_MAX, "expert" },
    { TR_FRAME_SHARE, "a pick twice", PICK_ROW(1), 0, "order" },
    { TR_FRAME_SHARE, "rows descending within an expert", PICK_ROW(0), 1, "order" },
    { TR_FRAME_SHARE, "experts descending", PICK_EXP(0), 2, "order" },
    { TR_FRAME_SHARE, "the first byte between the arrays", BYTE(128 + 24), 1, "between" },
    { TR_FRAME_SHARE, "the last byte between the arrays", BYTE(128 + 63), 1, "between" },
};

static void every_lie_of_one_field_is_refused_by_name(void **state)
{
    frame *f = *state;
    tr_frame_view v;

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        const lie *l = &lies[i];
        write_kind(f, l->kind);
        assert_int_equal(open_frame(f, &limits, &v), TR_OK);
        memcpy(f->at + l->offset, &l->value, l->width);
        seal_again(f);
        print_message("  %s\n", l->why);
        expect_refused(f, &limits, TR_E_PROTOCOL, l->word);
    }
}

static void another_version_is_refused_as_such(void **state)
{
    frame *f = *state;
    static const uint16_t versions[] = { 0, 2, 0x0100, 65535 };

    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        write_share(f);
        memcpy(f->at + offsetof(tr_frame_header, version), &versions[i], sizeof versions[i]);
        expect_refused(f, &limits, TR_E_REFUSED, "version");
    }
}

static void texts_are_limited(void **state)
{
    frame *f = *state;
    tr_frame_view v;
    char text[TR_MAX_TEXT + 1];

    memset(text, 'x', TR_MAX_TEXT);
    text[TR_MAX_TEXT] = 0;
    write_text(f, TR_FRAME_ERROR, text);
    assert_int_equal(open_frame(f, &limits, &v), TR_OK);
    assert_int_equal(v.text.size, TR_MAX_TEXT);

    f->size++;
    uint64_t size = f->size;
    memcpy(f->at + offsetof(tr_frame_header, size), &size, sizeof size);
    seal_again(f);
    expect_refused(f, &limits, TR_E_PROTOCOL, "text");
}

/* Without limits of a job the limits of the protocol hold. */
static void nothing_passes_the_protocols_own_limits(void **state)
{
    frame *f = *state;
    static const lie wide[] = {
        { TR_FRAME_SHARE, "layer", FIELD(layer), TR_MAX_LAYERS, "layer" },
        { TR_FRAME_SHARE, "rows", FIELD(n_rows), TR_MAX_ROWS + 1, "n_rows" },
        { TR_FRAME_SHARE, "picks", FIELD(n_picks), TR_MAX_PICKS + 1, "n_picks" },
        { TR_FRAME_SHARE, "dim", FIELD(dim), TR_MAX_DIM + 1, "dim" },
        { TR_FRAME_SHARE, "expert", PICK_EXP(2), TR_MAX_EXPERTS, "expert" },
        { TR_FRAME_SHARE, "largest picks in a small frame", FIELD(n_picks), TR_MAX_PICKS,
          "counts" },
        { TR_FRAME_ANSWER, "largest dim in a small frame", FIELD(dim), TR_MAX_DIM, "counts" },
    };

    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        write_kind(f, wide[i].kind);
        memcpy(f->at + wide[i].offset, &wide[i].value, wide[i].width);
        seal_again(f);
        print_message("  %s\n", wide[i].why);
        expect_refused(f, NULL, TR_E_PROTOCOL, wide[i].word);
    }
}

/* Both as cut (the size field tells the truth no more) and with the size made to fit. */
static void every_truncation_is_refused(void **state)
{
    frame *f = *state;

    for (int kind = TR_FRAME_SHARE; kind <= TR_FRAME_ECHO; kind++) {
        write_kind(f, (tr_frame_kind)kind);
        size_t whole = f->size;
        for (f->size = 0; f->size < whole; f->size++)
            expect_refused(f, &limits, TR_E_PROTOCOL, "frame");
        if (kind != TR_FRAME_SHARE && kind != TR_FRAME_ANSWER)
            continue;
        for (f->size = TR_FRAME_HEADER; f->size < whole; f->size++) {
            uint64_t size = f->size;
            memcpy(f->at + offsetof(tr_frame_header, size), &size, sizeof size);
            seal_again(f);
            expect_refused(f, &limits, TR_E_PROTOCOL, "counts");
        }
    }
}

static void every_flipped_bit_is_refused(void **state)
{
    frame *f = *state;
    char line[512];
    tr_frame_view v;

    for (int kind = TR_FRAME_SHARE; kind <= TR_FRAME_ECHO; kind++) {
        write_kind(f, (tr_frame_kind)kind);
        for (size_t bit = 0; bit < f->size * 8; bit++) {
            f->at[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            tr_fail_capture_begin(line, sizeof line);
            tr_status st = open_frame(f, &limits, &v);
            tr_fail_capture_end();
            f->at[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            if (st != TR_E_PROTOCOL && st != TR_E_REFUSED)
                print_message("  kind %d bit %zu: %s\n", kind, bit, tr_status_name(st));
            assert_true(st == TR_E_PROTOCOL || st == TR_E_REFUSED);
        }
        assert_int_equal(open_frame(f, &limits, &v), TR_OK);
    }
}

/* proto may not call compute, so it knows the sizes of rows by itself: both must agree. */
static void rows_have_the_size_that_kernels_give_them(void **state)
{
    enum { DIM_MAX = 1280 };
    frame *f = *state;
    tr_frame_view v;

    for (uint32_t act = 0; act < TR_ACT_COUNT; act++) {
        for (uint32_t dim = 32; dim <= DIM_MAX; dim += 32) {
            tr_frame_limits wide = limits;
            tr_frame_header h = full_header(TR_FRAME_SHARE);
            wide.dim = h.dim = dim;
            h.act = act;
            h.n_rows = h.n_picks = 1;
            h.row_size = (uint32_t)tr_act_row_size((tr_act)act, dim);
            f->size = tr_frame_share_size(1, 1, h.row_size);
            assert_true(f->size <= ROOM);
            tr_frame_begin(f->at, &h, 0);
            tr_frame_picks(f->at)[0] = (tr_frame_pick){ 0, 3 };
            memset(tr_frame_rows(f->at), 0, h.row_size);
            tr_frame_seal(f->at);
            assert_int_equal(open_frame(f, &wide, &v), TR_OK);
        }
    }
}

/* Sorted random picks over random shapes come through, whatever the form of the rows. */
static void random_shares_arrive_as_written(void **state)
{
    frame *f = *state;
    uint64_t seed = tr_test_seed();

    for (uint64_t round = 0; round < 500; round++) {
        tr_frame_header h = full_header(TR_FRAME_SHARE);
        tr_frame_pick picks[32];
        uint64_t draw = 0;

        h.act = (uint32_t)(tr_rng_u64(seed, round, draw++) % 2);
        h.row_size = h.act ? ROW_Q8 : ROW_F32;
        h.n_rows = 1 + (uint32_t)(tr_rng_u64(seed, round, draw++) % limits.max_rows);
        h.n_picks = 0;
        for (uint32_t e = 0; e < limits.n_experts; e++)
            for (uint32_t r = 0; r < h.n_rows && h.n_picks < limits.max_picks; r++)
                if (tr_rng_u64(seed, round, draw++) % 3 == 0)
                    picks[h.n_picks++] = (tr_frame_pick){ r, e };
        if (h.n_picks == 0)
            continue;

        f->size = tr_frame_share_size(h.n_picks, h.n_rows, h.row_size);
        assert_true(f->size <= ROOM);
        memset(f->at, (int)(round & 0xff), ROOM);
        tr_frame_begin(f->at, &h, 0);
        memcpy(tr_frame_picks(f->at), picks, h.n_picks * sizeof picks[0]);
        for (size_t i = 0; i < (size_t)h.n_rows * h.row_size; i++)
            tr_frame_rows(f->at)[i] = (uint8_t)(i * 7 + round);
        tr_frame_seal(f->at);

        tr_frame_view v;
        assert_int_equal(open_frame(f, &limits, &v), TR_OK);
        assert_memory_equal(v.picks, picks, h.n_picks * sizeof picks[0]);
        for (size_t i = 0; i < (size_t)h.n_rows * h.row_size; i++)
            assert_int_equal(v.rows[i], (uint8_t)(i * 7 + round));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_magic_reads_trpf_in_memory),
        cmocka_unit_test(the_checksum_is_xxh3_of_the_frame_with_the_field_zero),
        cmocka_unit_test(a_share_arrives_as_written),
        cmocka_unit_test(an_answer_arrives_as_written),
        cmocka_unit_test(texts_arrive_as_written),
        cmocka_unit_test(an_invitation_opens_without_knowledge_of_the_job),
        cmocka_unit_test(every_lie_of_one_field_is_refused_by_name),
        cmocka_unit_test(another_version_is_refused_as_such),
        cmocka_unit_test(texts_are_limited),
        cmocka_unit_test(nothing_passes_the_protocols_own_limits),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(rows_have_the_size_that_kernels_give_them),
        cmocka_unit_test(random_shares_arrive_as_written),
    };
    return cmocka_run_group_tests_name("frame", tests, make_frame, free_frame);
}
