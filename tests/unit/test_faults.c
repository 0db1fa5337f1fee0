/* test_faults.c - fault plans are read as they were meant, told to the right workers, and happen
 * when they should.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/cluster/fault_log.h"
#include "proto/wire.h"
#include "worker/faults.h"

#include <unistd.h>

static tr_status parse(const char *text, tr_fault_plan **out, char reason[256])
{
    tr_fail_capture_begin(reason, 256);
    tr_status st = tr_fault_plan_parse("p.yaml", tr_bytes_of(text), out);
    tr_fail_capture_end();
    return st;
}

static tr_fault_plan *plan_of(const char *text)
{
    tr_fault_plan *p = NULL;
    char reason[256];

    if (parse(text, &p, reason) != TR_OK)
        fail_msg("%s", reason);
    return p;
}

static void a_plan_is_read_with_its_defaults(void **state)
{
    tr_fault_plan *p = plan_of("faults:\n"
                               "  - fault: kill\n    worker: 2\n"
                               "  - fault: delay\n    worker: all\n    layer: 3\n    ms: 40\n"
                               "    probability: 0.25\n    seed: 9\n    times: 5\n"
                               "  - fault: stop\n    worker: 1\n    read: 12\n    after_ms: 7\n"
                               "  - fault: no-memory\n    worker: 1\n"
                               "  - {fault: corrupt, worker: 1, message: share}\n"
                               "  - {fault: cut, worker: 1, ms: 3000, after_ms: 500}\n");

    (void)state;
    assert_int_equal(p->n, 6);
    const tr_fault_rule *r = &p->fault[0].rule;
    assert_int_equal(p->fault[0].worker, 2);
    assert_true(r->kind == TR_FAULT_KILL && r->moment == TR_FAULT_AT_TIME && r->times == 1 &&
                r->layer == TR_FAULT_ANY_LAYER && r->per_million == TR_FAULT_ALWAYS &&
                r->message == TR_FAULT_OF_ANSWER);
    r = &p->fault[1].rule;
    assert_int_equal(p->fault[1].worker, 0);
    assert_true(r->kind == TR_FAULT_DELAY && r->moment == TR_FAULT_AT_SHARE && r->layer == 3 &&
                r->ms == 40 && r->per_million == 250000 && r->seed == 9 && r->times == 5);
    r = &p->fault[2].rule;
    assert_true(r->kind == TR_FAULT_STOP && r->moment == TR_FAULT_AT_READ && r->nth == 12 &&
                r->after_ms == 7);
    assert_int_equal(p->fault[3].rule.moment, TR_FAULT_AT_READ);
    r = &p->fault[4].rule;
    assert_true(r->moment == TR_FAULT_AT_SHARE && r->message == TR_FAULT_OF_SHARE);
    r = &p->fault[5].rule;
    assert_true(r->kind == TR_FAULT_CUT && r->moment == TR_FAULT_AT_TIME && r->ms == 3000);
    tr_fault_plan_free(&p);
    p = plan_of("faults:\n  - {fault: drop, worker: 1, probability: 0.000001}\n");
    assert_int_equal(p->fault[0].rule.per_million, 1);
    tr_fault_plan_free(&p);
}

static void what_is_wrong_with_a_plan_is_said(void **state)
{
    static const struct {
        const char *fault, *says;
    } bad[] = {
        { "fault: murder\n    worker: 1", "faults[1].fault \"murder\": give kill, stop" },
        { "fault: kill", "worker" },
        { "fault: kill\n    worker: 0", "faults[1].worker \"0\": give a whole number in 1..4096" },
        { "fault: delay\n    worker: 1", "faults[1].ms \"\": give how long" },
        { "fault: drop\n    worker: 1\n    at: read", "faults[1].at \"read\": give share" },
        { "fault: kill\n    worker: 1\n    at: time\n    pass: 2", "faults[1].at \"time\"" },
        { "fault: kill\n    worker: 1\n    at: share\n    read: 2", "faults[1].at \"share\"" },
        { "fault: kill\n    worker: 1\n    probability: 2", "faults[1].probability \"2\"" },
        { "fault: kill\n    worker: 1\n    probability: nan", "probability \"nan\"" },
        { "fault: kill\n    worker: 1\n    times: 0", "faults[1].times \"0\"" },
        { "fault: drop\n    worker: 1\n    probability: 0.0000005", "probability \"0.0000005\"" },
        { "fault: kill\n    worker: 3\n    pass: 5\n    ms: 77", "faults[1].ms \"77\": give none" },
        { "fault: drop\n    worker: 3\n    seed: 3", "faults[1].seed \"3\": give a probability" },
        { "fault: cut\n    worker: 1", "faults[1].ms \"\": give how long" },
        { "fault: drop\n    worker: 1\n    message: hello",
          "faults[1].message \"hello\": give answer or share" },
        { "fault: not-a-number\n    worker: 1\n    message: share",
          "faults[1].message \"share\": give none" },
        { "fault: kill\n    worker: 1\n    when: now", "p.yaml:4: unexpected key: when" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256], reason[256];
        tr_fault_plan *p = NULL;
        snprintf(text, sizeof text, "faults:\n  - %s\n", bad[i].fault);
        assert_int_equal(parse(text, &p, reason), TR_E_CONFIG);
        assert_null(p);
        if (!strstr(reason, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", reason, bad[i].says);
    }
}

static void every_process_is_told_what_is_left_for_it(void **state)
{
    tr_fault_plan *p = plan_of("faults:\n"
                               "  - {fault: drop, worker: 2, times: 2}\n"
                               "  - {fault: drop, worker: all}\n");
    tr_fault_rule rules[TR_MAX_FAULTS];
    tr_fault_log *log = NULL;
    char reason[256];

    (void)state;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_fault_log_new(p, 1, &log), TR_E_CONFIG); /* no worker 2 */
    tr_fail_capture_end();
    assert_int_equal(tr_fault_log_new(p, 2, &log), TR_OK);
    assert_int_equal(tr_fault_log_rules(log, 1, rules), 1);
    tr_fault_log_injected(log, 1, 0, 5);
    tr_fault_log_injected(log, 1, 1, 5); /* there is none */
    assert_int_equal(tr_fault_log_rules(log, 1, rules), 0);
    assert_int_equal(tr_fault_log_rules(log, 2, rules), 2);
    tr_fault_log_injected(log, 2, 0, 5);
    assert_int_equal(tr_fault_log_rules(log, 2, rules), 2);
    assert_int_equal(rules[0].times, 1);
    tr_fault_log_injected(log, 2, 0, 6);
    assert_int_equal(tr_fault_log_rules(log, 2, rules),
                     1); /* the second of the plan is the first */
    tr_fault_log_injected(log, 2, 0, 7);
    assert_int_equal(tr_fault_log_rules(log, 2, rules), 0);
    assert_int_equal(tr_fault_log_rules(NULL, 2, rules), 0);
    tr_fault_log_free(&log);
    tr_fault_plan_free(&p);
}

/* What a report says, one string. */
static char *report_of(const tr_fault_log *log)
{
    static char text[8192];
    FILE *f = tmpfile();

    assert_non_null(f);
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    assert_true(kept >= 0 && dup2(fileno(f), STDERR_FILENO) >= 0);
    tr_fault_log_print(log);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no \"%s\" in\n%s", part, text);
}

static void a_report_forgets_no_fault_and_books_each_to_its_worker(void **state)
{
    tr_fault_plan *p = plan_of("faults:\n"
                               "  - {fault: delay, worker: 1, ms: 1, times: 1000}\n"
                               "  - {fault: kill, worker: 2, pass: 70}\n"
                               "  - {fault: not-a-number, worker: 1}\n"
                               "  - {fault: duplicate, worker: 1}\n");
    tr_fault_rule rules[TR_MAX_FAULTS];
    tr_fault_log *log = NULL;

    (void)state;
    assert_int_equal(tr_fault_log_new(p, 3, &log), TR_OK);
    assert_int_equal(tr_fault_log_rules(log, 1, rules), 3);
    assert_int_equal(tr_fault_log_rules(log, 2, rules), 1);
    for (uint32_t i = 0; i < 300; i++)
        tr_fault_log_injected(log, 1, 0, i);
    tr_fault_log_injected(log, 2, 0, 70);
    tr_fault_log_injected(log, 1, 0, 300); /* of another, between the death and its notice */
    tr_fault_log_noticed(log, 2, "died");
    tr_fault_log_sent_again(log, 2, 3);
    tr_fault_log_stalled(log, 184 * TR_MS);
    tr_fault_log_noticed(log, 1, "not finite"); /* before the word about it */
    tr_fault_log_sent_again(log, 1, 0);
    tr_fault_log_injected(log, 1, 1, 71);
    tr_fault_log_injected(log, 1, 2, 71);
    tr_fault_log_stalled(log, 30 * TR_MS);
    const char *text = report_of(log);
    has(text, "faults: 304 happened, of a plan with 4");
    has(text, "kill of worker 2 at pass 70; noticed after");
    has(text, "died; 1 shares again to worker 3; stalled 184.0 ms");
    has(text, "delay, entry 1: 297 times more");
    has(text,
        "not-a-number of worker 1 at pass 71; noticed after 0.0 ms: not finite; 1 shares again "
        "to the coordinator; stalled 30.0 ms");
    has(text, "duplicate of worker 1 at pass 71; not noticed; 0 shares again; stalled 0.0 ms");
    tr_fault_log_free(&log);
    tr_fault_plan_free(&p);
}

static void faults_cross_the_wire(void **state)
{
    static uint8_t buffer[TR_MAX_CONTROL];
    tr_control out = { .kind = TR_CONTROL_FAULTS }, in;
    size_t size;

    (void)state;
    out.faults.n = TR_MAX_FAULTS;
    for (uint32_t i = 0; i < TR_MAX_FAULTS; i++)
        out.faults.rule[i] = (tr_fault_rule){
            TR_FAULT_DROP, TR_FAULT_AT_SHARE, i, 2, i % 2 ? i : TR_FAULT_ANY_LAYER,
            4 + i,         UINT64_MAX,        6, 7, i % 2 ? TR_FAULT_OF_SHARE : TR_FAULT_OF_ANSWER
        };
    assert_int_equal(tr_wire_pack(&out, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(tr_wire_unpack((tr_bytes){ buffer, size }, &in), TR_OK);
    assert_int_equal(in.kind, TR_CONTROL_FAULTS);
    assert_int_equal(in.faults.n, TR_MAX_FAULTS);
    for (uint32_t i = 0; i < TR_MAX_FAULTS; i++) {
        const tr_fault_rule *a = &out.faults.rule[i];
        const tr_fault_rule *b = &in.faults.rule[i];
        assert_true(a->kind == b->kind && a->moment == b->moment && a->after_ms == b->after_ms &&
                    a->nth == b->nth && a->layer == b->layer && a->per_million == b->per_million &&
                    a->seed == b->seed && a->times == b->times && a->ms == b->ms &&
                    a->message == b->message);
    }
    out.faults.rule[3].kind = TR_FAULT_NAN; /* a share can't be answered */
    assert_int_equal(tr_wire_pack(&out, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(tr_wire_unpack((tr_bytes){ buffer, size }, &in), TR_E_PROTOCOL);
    out.faults.rule[3].kind = TR_FAULT_DROP;
    out.faults.rule[3].moment = TR_FAULT_AT_READ; /* a read can't be dropped */
    assert_int_equal(tr_wire_pack(&out, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(tr_wire_unpack((tr_bytes){ buffer, size }, &in), TR_E_PROTOCOL);
    out = (tr_control){ .kind = TR_CONTROL_INJECTED, .injected = { 5, 77 } };
    assert_int_equal(tr_wire_pack(&out, buffer, sizeof buffer, &size), TR_OK);
    assert_int_equal(tr_wire_unpack((tr_bytes){ buffer, size }, &in), TR_OK);
    assert_true(in.injected.number == 5 && in.injected.nth == 77);
}

typedef struct {
    uint32_t n, number, nth;
} heard;

static void hear(void *ctx, uint32_t number, uint32_t nth)
{
    heard *h = ctx;

    h->n++;
    h->number = number;
    h->nth = nth;
}

static void an_answer_meets_what_its_pass_and_layer_have(void **state)
{
    const tr_fault_rule rules[] = {
        { TR_FAULT_DROP, TR_FAULT_AT_SHARE, 0, 3, 1, TR_FAULT_ALWAYS, 0, 2, 0, TR_FAULT_OF_ANSWER },
        { TR_FAULT_DELAY, TR_FAULT_AT_SHARE, 0, 0, TR_FAULT_ANY_LAYER, 250000, 1, UINT32_MAX, 7,
          TR_FAULT_OF_ANSWER },
        { TR_FAULT_CORRUPT, TR_FAULT_AT_SHARE, 0, 0, TR_FAULT_ANY_LAYER, TR_FAULT_ALWAYS, 1, 1, 0,
          TR_FAULT_OF_SHARE },
    };
    heard h = { 0 };
    tr_faults f;
    size_t n_late = 0;

    (void)state;
    tr_faults_init(&f, rules, 1, 1, hear, &h);
    assert_false(tr_faults_at_share(&f, 2, 1).answer.is_dropped);
    assert_false(tr_faults_at_share(&f, 3, 2).answer.is_dropped);
    assert_true(tr_faults_at_share(&f, 3, 1).answer.is_dropped);
    assert_true(h.n == 1 && h.number == 0 && h.nth == 3);
    assert_true(tr_faults_at_share(&f, 9, 1).answer.is_dropped);
    assert_false(tr_faults_at_share(&f, 10, 1).answer.is_dropped);
    tr_faults_fini(&f);
    tr_faults_init(&f, rules + 1, 1, 1, hear, &h);
    for (int i = 0; i < 4000; i++)
        n_late += tr_faults_at_share(&f, 1, 1).answer.delay == 7 * TR_MS;
    assert_in_range(n_late, 850, 1150); /* 1000; 27 is one standard deviation */
    tr_faults_fini(&f);
    tr_faults_init(&f, rules + 2, 1, 1, hear, &h);
    tr_share_fate fate = tr_faults_at_share(&f, 0, 0);
    assert_true(fate.share.is_corrupted && !fate.answer.is_corrupted);
    tr_faults_fini(&f);
}

static void what_is_sent_on_a_cut_link_waits_for_its_end(void **state)
{
    const tr_fault_rule cut = { .kind = TR_FAULT_CUT,
                                .moment = TR_FAULT_AT_SHARE,
                                .layer = TR_FAULT_ANY_LAYER,
                                .per_million = TR_FAULT_ALWAYS,
                                .times = 1,
                                .ms = 30 };
    heard h = { 0 };
    tr_faults f;

    (void)state;
    tr_faults_init(&f, &cut, 1, 1, hear, &h);
    tr_time begin = tr_now();
    tr_faults_at_share(&f, 0, 0);
    assert_true(f.cut_until >= begin + 30 * TR_MS);
    tr_faults_await_link(&f);
    assert_true(tr_now() >= begin + 30 * TR_MS);
    assert_false(tr_faults_are_muted(&f)); /* heartbeats go out again, too */
    assert_int_equal(h.n, 1);
    tr_faults_fini(&f);
}

static void reads_and_blocks_meet_theirs(void **state)
{
    const tr_fault_rule rules[] = {
        { TR_FAULT_READ_ERROR, TR_FAULT_AT_READ, 0, 2, TR_FAULT_ANY_LAYER, TR_FAULT_ALWAYS, 0, 1, 0,
          TR_FAULT_OF_ANSWER },
        { TR_FAULT_NO_MEMORY, TR_FAULT_AT_READ, 0, 4, TR_FAULT_ANY_LAYER, TR_FAULT_ALWAYS, 0, 1, 0,
          TR_FAULT_OF_ANSWER },
        { TR_FAULT_MUTE, TR_FAULT_AT_TIME, 0, 0, TR_FAULT_ANY_LAYER, TR_FAULT_ALWAYS, 0, 1, 60000,
          TR_FAULT_OF_ANSWER },
    };
    enum { BLOCK = 1 << 20 };
    heard h = { 0 };
    tr_faults f;
    char reason[256];

    (void)state;
    tr_faults_init(&f, rules, 3, 1, hear, &h);
    tr_fail_capture_begin(reason, sizeof reason);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tr_fault_before_memory(BLOCK), TR_OK);
        assert_int_equal(tr_fault_before_read(1), i == 2 ? TR_E_IO : TR_OK);
    }
    tr_fail_capture_end();
    assert_int_equal(tr_fault_before_memory(16), TR_OK);
    assert_int_equal(tr_fault_before_memory(BLOCK), TR_E_MEMORY);
    assert_int_equal(tr_fault_before_memory(BLOCK), TR_OK);
    assert_false(tr_faults_are_muted(&f));
    tr_faults_at_time(&f);
    assert_true(tr_faults_are_muted(&f));
    assert_int_equal(h.n, 3);
    tr_faults_fini(&f);
    assert_int_equal(tr_fault_before_read(1), TR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_is_read_with_its_defaults),
        cmocka_unit_test(what_is_wrong_with_a_plan_is_said),
        cmocka_unit_test(every_process_is_told_what_is_left_for_it),
        cmocka_unit_test(a_report_forgets_no_fault_and_books_each_to_its_worker),
        cmocka_unit_test(faults_cross_the_wire),
        cmocka_unit_test(an_answer_meets_what_its_pass_and_layer_have),
        cmocka_unit_test(what_is_sent_on_a_cut_link_waits_for_its_end),
        cmocka_unit_test(reads_and_blocks_meet_theirs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
