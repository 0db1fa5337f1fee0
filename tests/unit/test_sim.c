/* test_sim.c - a simulated world is a function of its seed, and each fault does what it says.
 *
 * Method: workers that echo what they get, over the data plane and over a control link; faults by
 * schedule, one kind a test; then worlds with faults of all kinds, run again from seed and from
 * their own record.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/fault.h"
#include "base/memory.h"
#include "transport/link.h"
#include "transport/sim.h"

enum { N_WORKERS = 3, SIZE = 100 };

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* Never longer than this, unless a test says so. */
static const tr_time a_while = 100 * TR_SECOND;

/* ---- processes ------------------------------------------------------------------------------ */

static void greet(tr_link *l)
{
    tr_link_send(l, 0, tr_bytes_of("hello"));
}

/* Echoes until it hears "stop" on its link or the link is gone. */
static tr_status echo_main(tr_transport *t, void *ctx)
{
    tr_link *l = NULL;
    bool is_over = false;

    (void)ctx;
    tr_status st = t->links->connect(t, &l);
    if (st != TR_OK)
        return st;
    greet(l);
    while (!is_over && st == TR_OK) {
        tr_link_event e;
        tr_peer from;
        tr_msg *m = NULL;
        st = tr_transport_recv(t, tr_now() + 5 * TR_MS, &from, &m);
        if (st == TR_OK)
            st = tr_transport_send(t, 0, &m);
        tr_msg_free(&m);
        if (st == TR_E_DEADLINE)
            st = TR_OK;
        while (st == TR_OK && (st = tr_link_poll(l, 0, &e)) == TR_OK)
            is_over =
                is_over || e.kind == TR_LINK_GONE || tr_bytes_equal(e.bytes, tr_bytes_of("stop"));
        if (st == TR_E_DEADLINE)
            st = TR_OK;
    }
    tr_link_close(&l);
    return st;
}

typedef struct {
    tr_sim *sim;
    tr_transport *t;
    tr_link *link;
    uint32_t n_greetings, n_gone;
} fixture;

static tr_sim_options options(uint64_t seed)
{
    return (tr_sim_options){ .seed = seed,
                             .n_workers = N_WORKERS,
                             .max_size = 4096,
                             .rules = tr_sim_calm(),
                             .has_schedule = true,
                             .time_limit = a_while };
}

static void look(fixture *f, tr_time patience)
{
    tr_time until = tr_now() + patience;
    tr_link_event e;

    while (tr_link_poll(f->link, until - tr_now(), &e) == TR_OK) {
        f->n_greetings += e.kind == TR_LINK_MESSAGE;
        f->n_gone += e.kind == TR_LINK_GONE;
    }
}

static void set_up(fixture *f, const tr_sim_options *o)
{
    *f = (fixture){ 0 };
    assert_int_equal(tr_sim_new(o, &f->sim), TR_OK);
    for (tr_peer p = 1; p <= N_WORKERS; p++)
        assert_int_equal(tr_sim_start(f->sim, p, echo_main, NULL), TR_OK);
    f->t = tr_sim_enter(f->sim);
    assert_int_equal(f->t->links->serve(f->t, &f->link), TR_OK);
}

static tr_status leave(fixture *f)
{
    for (tr_peer p = 1; p <= N_WORKERS; p++)
        tr_link_send(f->link, p, tr_bytes_of("stop"));
    tr_link_close(&f->link);
    tr_transport_close(&f->t);
    return tr_sim_leave(f->sim);
}

static void say(fixture *f, tr_peer to, uint8_t number)
{
    tr_msg *m = NULL;

    if (tr_transport_reserve(f->t, to, SIZE, &m) != TR_OK)
        fail();
    memset(m->data, number, SIZE);
    tr_transport_send(f->t, to, &m);
    tr_msg_free(&m);
}

/* What comes within patience from a peer: how many, and how many of them are number throughout. */
static size_t hear(fixture *f, tr_peer want, uint8_t number, tr_time patience, size_t *n_whole)
{
    tr_time until = tr_now() + patience;
    tr_peer from = 0;
    tr_msg *m = NULL;
    size_t n = 0;

    *n_whole = 0;
    while (tr_transport_recv(f->t, until, &from, &m) == TR_OK) {
        bool is_whole = m->size == SIZE;
        for (size_t i = 0; i < m->size; i++)
            is_whole = is_whole && m->data[i] == number;
        n += from == want;
        *n_whole += from == want && is_whole;
        tr_msg_free(&m);
    }
    return n;
}

/* One echo of worker 2 under a schedule: how many answers came within 10 ms, how many after; how
 * many of them are what was sent. */
typedef struct {
    size_t n_soon, n_late, n_whole;
    uint32_t n_gone;
    bool is_dead, was_ended;
    size_t n_recorded;
    tr_sim_event first;
} outcome;

static outcome echo_under(const tr_sim_fault *fault)
{
    tr_sim_options o = options(1);
    outcome r = { 0 };
    fixture f;
    size_t whole = 0;

    o.schedule = fault;
    o.n_schedule = fault ? 1 : 0;
    set_up(&f, &o);
    look(&f, 10 * TR_MS);
    say(&f, 2, 7);
    r.n_soon = hear(&f, 2, 7, 10 * TR_MS, &r.n_whole);
    r.n_late = hear(&f, 2, 7, 2 * TR_SECOND, &whole);
    r.n_whole += whole;
    look(&f, 10 * TR_MS);
    r.n_gone = f.n_gone;
    assert_int_equal(leave(&f), TR_OK);
    r.is_dead = tr_sim_process(f.sim, 2).is_dead;
    r.was_ended = tr_sim_process(f.sim, 2).was_ended;
    const tr_sim_event *record = tr_sim_record(f.sim, &r.n_recorded);
    if (r.n_recorded > 0)
        r.first = record[0];
    tr_sim_free(&f.sim);
    return r;
}

/* ---- faults --------------------------------------------------------------------------------- */

static void without_faults_all_is_answered_soon(void **state)
{
    outcome r = echo_under(NULL);

    (void)state;
    assert_int_equal(r.n_soon, 1);
    assert_int_equal(r.n_whole, 1);
    assert_int_equal(r.n_late, 0);
    assert_int_equal(r.n_gone, 0);
    assert_int_equal(r.n_recorded, 0);
    assert_false(r.is_dead || r.was_ended);
}

static bool is_same(const tr_sim_fault *a, const tr_sim_fault *b)
{
    return a->what == b->what && a->from == b->from && a->to == b->to && a->nth == b->nth &&
           a->is_control == b->is_control && a->at == b->at && a->duration == b->duration &&
           a->byte == b->byte;
}

static void each_fault_does_what_it_says_and_is_recorded(void **state)
{
    enum { NEITHER, DEAD, ENDED };
    /* Greetings are over by 10 ms, the message goes out then. */
    static const struct {
        const char *why;
        tr_sim_fault fault;
        size_t n_soon, n_late, n_whole;
        uint32_t n_gone;
        int end;
    } table[] = {
        { "lost on the way there", { TR_SIM_LOST, .to = 2 }, 0, 0, 0, 0, NEITHER },
        { "lost on the way back", { TR_SIM_LOST, .from = 2 }, 0, 0, 0, 0, NEITHER },
        { "another one lost", { TR_SIM_LOST, .to = 2, .nth = 1 }, 1, 0, 1, 0, NEITHER },
        { "twice there", { TR_SIM_TWICE, .to = 2 }, 2, 0, 2, 0, NEITHER },
        { "corrupt there", { TR_SIM_CORRUPT, .to = 2, .byte = 250 }, 1, 0, 0, 0, NEITHER },
        { "late back", { TR_SIM_LATE, .from = 2, .duration = TR_SECOND }, 0, 1, 1, 0, NEITHER },
        { "killed", { TR_SIM_KILL, .from = 2, .at = 5 * TR_MS }, 0, 0, 0, 1, DEAD },
        { "killed when it answers",
          { TR_SIM_KILL, .from = 2, .at = TR_SIM_AT_MESSAGE },
          0,
          0,
          0,
          1,
          DEAD },
        { "killed with its second answer",
          { TR_SIM_KILL, .from = 2, .at = TR_SIM_AT_MESSAGE, .nth = 1 },
          1,
          0,
          1,
          0,
          NEITHER },
        { "vanished", { TR_SIM_VANISH, .from = 2, .at = 5 * TR_MS }, 0, 0, 0, 0, DEAD },
        { "hung for a second",
          { TR_SIM_HANG, .from = 2, .at = 5 * TR_MS, .duration = TR_SECOND },
          0,
          1,
          1,
          0,
          NEITHER },
        { "hung when it answers",
          { TR_SIM_HANG, .from = 2, .at = TR_SIM_AT_MESSAGE, .duration = TR_SECOND },
          0,
          1,
          1,
          0,
          NEITHER },
        { "hung for ever",
          { TR_SIM_HANG, .from = 2, .at = 5 * TR_MS, .duration = TR_FOREVER },
          0,
          0,
          0,
          0,
          ENDED },
        { "another one hangs",
          { TR_SIM_HANG, .from = 1, .at = 5 * TR_MS, .duration = TR_SECOND },
          1,
          0,
          1,
          0,
          NEITHER },
        { "cut for a second",
          { TR_SIM_CUT, .to = 2, .at = 5 * TR_MS, .duration = TR_SECOND },
          0,
          1,
          1,
          0,
          NEITHER },
        { "control connection ended",
          { TR_SIM_UNLINK, .to = 2, .at = 5 * TR_MS },
          0,
          0,
          0,
          1,
          NEITHER },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(table); i++) {
        const tr_sim_fault *fault = &table[i].fault;
        bool happens = fault->nth == 0;
        print_message("  %s\n", table[i].why);
        outcome r = echo_under(fault);
        assert_int_equal(r.n_soon, table[i].n_soon);
        assert_int_equal(r.n_late, table[i].n_late);
        assert_int_equal(r.n_whole, table[i].n_whole);
        assert_int_equal(r.n_gone, table[i].n_gone);
        assert_int_equal(r.is_dead, table[i].end == DEAD);
        assert_int_equal(r.was_ended, table[i].end == ENDED);
        assert_int_equal(r.n_recorded, happens);
        if (happens)
            assert_true(is_same(&r.first.fault, fault));
    }
}

/* Reads the disk once, then takes memory. */
typedef struct {
    tr_time read;
    tr_status small, large;
} hardware;

static tr_status hardware_main(tr_transport *t, void *ctx)
{
    hardware *h = ctx;
    void *block = NULL;

    (void)t;
    tr_sleep(TR_MS);
    tr_time begin = tr_now();
    tr_status st = tr_fault_before_read(1);
    h->read = tr_now() - begin;
    h->small = tr_memory_new(1000, "small", &block);
    tr_memory_free(&block, 1000);
    h->large = tr_memory_new(2 << 20, "large", &block);
    tr_memory_free(&block, 2 << 20);
    return st;
}

static void disks_get_slow_and_memory_short(void **state)
{
    static const tr_sim_fault schedule[] = {
        { TR_SIM_SLOW_DISK, .from = 1, .duration = 3 * TR_SECOND },
        { TR_SIM_SHORT_OF_MEMORY, .from = 2, .byte = 1 << 20 },
        { TR_SIM_NO_BLOCK, .from = 3 },
    };
    tr_sim_options o = options(1);
    hardware h[N_WORKERS] = { { 0 } };
    size_t n;
    tr_sim *sim = NULL;

    (void)state;
    o.schedule = schedule;
    o.n_schedule = LENGTH(schedule);
    assert_int_equal(tr_sim_new(&o, &sim), TR_OK);
    for (tr_peer p = 1; p <= N_WORKERS; p++)
        assert_int_equal(tr_sim_start(sim, p, hardware_main, &h[p - 1]), TR_OK);
    tr_sim_enter(sim);
    assert_int_equal(tr_sim_leave(sim), TR_OK);
    assert_true(h[0].read >= 3 * TR_SECOND);
    assert_int_equal(h[0].large, TR_OK);
    assert_true(h[1].read < TR_MS);
    assert_int_equal(h[1].small, TR_OK);
    assert_int_equal(h[1].large, TR_E_MEMORY);
    assert_int_equal(h[2].small, TR_E_MEMORY);
    assert_int_equal(h[2].large, TR_OK);
    assert_int_equal((tr_sim_record(sim, &n), n), 3);
    assert_non_null(strstr(tr_sim_process(sim, 2).last_words, "large"));
    assert_string_equal(tr_sim_process(sim, 1).last_words, "");
    tr_sim_free(&sim);
}

/* ---- time ----------------------------------------------------------------------------------- */

static tr_status busy_main(tr_transport *t, void *ctx)
{
    tr_time until = tr_now() + TR_MS;

    (void)t;
    (void)ctx;
    while (tr_now() < until)
        continue;
    return TR_OK;
}

static tr_status waiting_main(tr_transport *t, void *ctx)
{
    tr_peer from;
    tr_msg *m = NULL;

    (void)ctx;
    return tr_transport_recv(t, TR_FOREVER, &from, &m);
}

static tr_status restless_main(tr_transport *t, void *ctx)
{
    tr_peer from;
    tr_msg *m = NULL;
    tr_status st = TR_E_DEADLINE;

    (void)ctx;
    while (st == TR_E_DEADLINE)
        st = tr_transport_recv(t, tr_now() + TR_SECOND, &from, &m);
    return st;
}

/* A world of one process beside an idle coordinator. */
static tr_sim_process_view run_alone(tr_sim_main run, tr_status want, tr_time *elapsed)
{
    tr_sim_options o = options(1);
    tr_sim *sim = NULL;

    assert_int_equal(tr_sim_new(&o, &sim), TR_OK);
    assert_int_equal(tr_sim_start(sim, 1, run, NULL), TR_OK);
    tr_sim_enter(sim);
    tr_sleep(TR_SECOND);
    assert_int_equal(tr_sim_leave(sim), want);
    tr_sim_process_view v = tr_sim_process(sim, 1);
    v.last_words = NULL;
    *elapsed = tr_sim_elapsed(sim);
    tr_sim_free(&sim);
    return v;
}

static void who_waits_for_nothing_is_ended_and_named(void **state)
{
    tr_time elapsed;

    (void)state;
    assert_false(run_alone(busy_main, TR_OK, &elapsed).was_ended);
    assert_true(elapsed < 2 * TR_SECOND);
    tr_sim_process_view v = run_alone(waiting_main, TR_E_DEADLINE, &elapsed);
    assert_true(v.was_ended);
    assert_false(v.is_dead);
    assert_true(elapsed < 2 * TR_SECOND); /* found at once: nothing can happen any more */
    assert_true(run_alone(restless_main, TR_E_DEADLINE, &elapsed).was_ended);
    assert_true(elapsed > a_while - 2 * TR_SECOND);
}

static void time_is_the_worlds_inside_and_the_machines_outside(void **state)
{
    tr_sim_options o = options(1);
    tr_sim *sim = NULL;
    tr_time outside = tr_now();

    (void)state;
    o.time_limit = 7200 * TR_SECOND;
    assert_int_equal(tr_sim_new(&o, &sim), TR_OK);
    tr_sim_enter(sim);
    tr_time begin = tr_now();
    tr_sleep(3600 * TR_SECOND);
    assert_true(tr_now() - begin >= 3600 * TR_SECOND);
    assert_int_equal(tr_sim_leave(sim), TR_OK);
    assert_true(tr_sim_elapsed(sim) >= 3600 * TR_SECOND);
    tr_sim_free(&sim);
    assert_true(tr_now() - outside < 3600 * TR_SECOND);
}

static void a_worker_may_be_started_while_the_world_goes_on(void **state)
{
    tr_sim_options o = options(1);
    fixture f = { 0 };
    size_t whole;

    (void)state;
    assert_int_equal(tr_sim_new(&o, &f.sim), TR_OK);
    f.t = tr_sim_enter(f.sim);
    assert_int_equal(f.t->links->serve(f.t, &f.link), TR_OK);
    say(&f, 3, 9); /* waits for it */
    tr_sleep(TR_SECOND);
    assert_int_equal(tr_sim_start(f.sim, 3, echo_main, NULL), TR_OK);
    assert_int_equal(hear(&f, 3, 9, TR_SECOND, &whole), 1);
    look(&f, 10 * TR_MS);
    assert_int_equal(f.n_greetings, 1);
    assert_int_equal(leave(&f), TR_OK);
    assert_false(tr_sim_process(f.sim, 1).was_started);
    assert_true(tr_sim_process(f.sim, 3).was_started);
    tr_sim_free(&f.sim);
}

/* ---- links ---------------------------------------------------------------------------------- */

/* Breaks off, and says more words when it is told. */
static tr_status faithful_main(tr_transport *t, void *ctx)
{
    tr_link *l = NULL;
    tr_link_event e;

    (void)ctx;
    tr_status st = t->links->connect(t, &l);
    if (st == TR_OK) {
        greet(l);
        st = tr_link_poll(l, TR_FOREVER, &e);
        if (st == TR_OK && e.kind == TR_LINK_GONE)
            greet(l);
        st = tr_link_poll(l, 10 * TR_SECOND, &e);
    }
    tr_link_close(&l);
    return st;
}

static void a_client_connects_again_when_it_next_speaks(void **state)
{
    static const tr_sim_fault end = { TR_SIM_UNLINK, .to = 1, .at = 500 * TR_MS };
    tr_sim_options o = options(1);
    fixture f = { 0 };

    (void)state;
    o.schedule = &end;
    o.n_schedule = 1;
    assert_int_equal(tr_sim_new(&o, &f.sim), TR_OK);
    assert_int_equal(tr_sim_start(f.sim, 1, faithful_main, NULL), TR_OK);
    f.t = tr_sim_enter(f.sim);
    assert_int_equal(f.t->links->serve(f.t, &f.link), TR_OK);
    assert_int_equal(tr_link_send(f.link, 1, tr_bytes_of("x")), TR_E_PEER_LOST); /* not heard yet */
    look(&f, 500 * TR_MS);
    assert_int_equal(f.n_greetings, 1);
    assert_int_equal(tr_link_send(f.link, 1, tr_bytes_of("x")), TR_E_PEER_LOST);
    look(&f, 500 * TR_MS);
    assert_int_equal(f.n_greetings, 2);
    assert_int_equal(f.n_gone, 1);
    assert_int_equal(tr_link_send(f.link, 1, tr_bytes_of("x")), TR_OK);
    look(&f, TR_SECOND);
    assert_int_equal(f.n_gone, 2); /* it closed its end */
    assert_int_equal(tr_link_send(f.link, 2, tr_bytes_of("x")), TR_E_PEER_LOST);
    assert_int_equal(leave(&f), TR_OK);
    assert_int_equal(tr_sim_process(f.sim, 1).st, TR_OK);
    tr_sim_free(&f.sim);
}

/* ---- seeds ---------------------------------------------------------------------------------- */

static tr_sim_rules wild(void)
{
    tr_sim_rules r = tr_sim_calm();

    r.late = r.lost = r.twice = r.corrupt = 50;
    r.late_max = 50 * TR_MS;
    r.spared = 2;
    r.no_block = 20;
    r.killed = r.vanished = r.hung = r.slow_disk = r.cut = r.unlinked = 200;
    r.horizon = r.hang_max = r.cut_max = TR_SECOND;
    r.read_max = 10 * TR_MS;
    return r;
}

/* Messages to everybody for some seconds.  *record, if not NULL, gets a copy of the record. */
static uint64_t chat(const tr_sim_options *o, tr_sim_fault **record, size_t *n_record)
{
    fixture f;
    size_t whole, n;

    set_up(&f, o);
    for (uint8_t i = 0; i < 60; i++) {
        say(&f, 1 + i % N_WORKERS, i);
        hear(&f, 1, i, 20 * TR_MS, &whole);
        look(&f, 0);
    }
    leave(&f); /* a worker that is cut off for ever never hears that it is over */
    const tr_sim_event *events = tr_sim_record(f.sim, &n);
    if (record) {
        *record = calloc(n + 1, sizeof **record);
        assert_non_null(*record);
        for (size_t i = 0; i < n; i++)
            (*record)[i] = events[i].fault;
        *n_record = n;
    }
    uint64_t hash = tr_sim_hash(f.sim);
    tr_sim_free(&f.sim);
    return hash;
}

static void a_run_is_its_seed_and_its_record(void **state)
{
    enum { N = 100 };
    uint64_t seed = tr_test_seed();
    size_t n_faults = 0;
    uint64_t last = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        tr_sim_options o = options(seed + i);
        tr_sim_fault *record = NULL;
        size_t n = 0;
        o.rules = wild();
        o.has_schedule = false;
        uint64_t hash = chat(&o, &record, &n);
        assert_true(hash == chat(&o, NULL, NULL));
        assert_true(hash != last);
        last = hash;
        n_faults += n;
        for (size_t k = 0; k < n; k++)
            if (record[k].what <= TR_SIM_NOT_A_NUMBER && !record[k].is_control)
                assert_true(record[k].nth >= o.rules.spared);

        o.has_schedule = true;
        o.schedule = record;
        o.n_schedule = n;
        assert_true(hash == chat(&o, NULL, NULL));
        if (n > 0) { /* and less is less: what shrinking does */
            o.n_schedule = n - 1;
            assert_true(hash != chat(&o, NULL, NULL));
        }
        free(record);
    }
    print_message("  %.1f faults a run\n", (double)n_faults / N);
    assert_true(n_faults > N);
}

static void faults_are_told_in_plain_words(void **state)
{
    static const struct {
        tr_time time;
        tr_sim_fault fault;
        const char *text;
    } table[] = {
        { 12345 * TR_US, { TR_SIM_KILL, .from = 2 }, "0.012345000 s: process 2 is killed" },
        { -1,
          { TR_SIM_LATE, .to = 1, .nth = 7, .duration = TR_MS, .is_control = true },
          "control message 7 from 0 to 1 comes late by 0.001000 s" },
        { -1, { TR_SIM_CORRUPT, .from = 3 }, "data message 0 from 3 to 0 is corrupted" },
        { -1,
          { TR_SIM_CUT, .to = 3, .duration = TR_FOREVER },
          "the way between 0 and 3 is cut for ever" },
        { -1,
          { TR_SIM_SLOW_DISK, .from = 1, .duration = TR_SECOND },
          "process 1 takes 1.000000 s for each read" },
        { -1,
          { TR_SIM_NO_BLOCK, .from = 1, .nth = 4 },
          "process 1 does not get its block of memory number 4" },
    };
    char text[256];

    (void)state;
    for (size_t i = 0; i < LENGTH(table); i++) {
        tr_sim_describe(table[i].time, &table[i].fault, text, sizeof text);
        assert_string_equal(text, table[i].text);
    }
    tr_sim_describe(0, &table[0].fault, text, 5);
    assert_string_equal(text, "0.00");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_faults_all_is_answered_soon),
        cmocka_unit_test(each_fault_does_what_it_says_and_is_recorded),
        cmocka_unit_test(disks_get_slow_and_memory_short),
        cmocka_unit_test(who_waits_for_nothing_is_ended_and_named),
        cmocka_unit_test(time_is_the_worlds_inside_and_the_machines_outside),
        cmocka_unit_test(a_worker_may_be_started_while_the_world_goes_on),
        cmocka_unit_test(a_client_connects_again_when_it_next_speaks),
        cmocka_unit_test(a_run_is_its_seed_and_its_record),
        cmocka_unit_test(faults_are_told_in_plain_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
