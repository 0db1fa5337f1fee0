/* test_measure.c - what a layer's way to its workers takes beyond the work is no less than nothing,
 * whoever works longest; and what was not in a step is counted, too.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/engine/measure.h"

/* Sent in 5 us, answered 100 us later, added in 2: the worker computed for 90. */
static void without_a_shared_expert_it_is_all_but_the_worker(void **state)
{
    tr_forward_times layer = { .dispatch = 5 * TR_US, .wait = 100 * TR_US, .combine = 2 * TR_US };

    (void)state;
    assert_int_equal(tr_measure_beyond(&layer, 90 * TR_US), 17 * TR_US);
}

/* The wait is short because the shared expert was computed meanwhile. */
static void a_shared_expert_goes_on_beside_the_worker(void **state)
{
    tr_forward_times layer = {
        .dispatch = 5 * TR_US, .shared = 80 * TR_US, .wait = 20 * TR_US, .combine = 2 * TR_US
    };

    (void)state;
    assert_int_equal(tr_measure_beyond(&layer, 90 * TR_US), 17 * TR_US);
    assert_int_equal(tr_measure_beyond(&layer, 30 * TR_US), 27 * TR_US);
}

static void clocks_that_disagree_make_no_time_below_nothing(void **state)
{
    tr_forward_times layer = { .dispatch = 1 * TR_US, .wait = 10 * TR_US, .dense = 50 * TR_US };

    (void)state;
    assert_int_equal(tr_measure_beyond(&layer, 12 * TR_US), 0);
}

typedef struct {
    tr_gguf *gguf;
    tr_engine *engine;
    tr_measure m;
} fixture;

static void open_fixture(fixture *f, size_t repeats)
{
    tr_engine_options o = tr_engine_defaults();

    *f = (fixture){ .m = { .limits = { 1e9, 1e9, 1e9, 0 }, .repeats = repeats, .steps = 3 } };
    assert_int_equal(tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &f->gguf), TR_OK);
    o.gguf = f->gguf;
    o.threads = 2;
    o.max_logits = 4;
    o.n_sequences = 4;
    o.on_picks = tr_measure_picks;
    o.ctx = &f->m;
    assert_int_equal(tr_engine_open(&o, &f->engine), TR_OK);
    f->m.engine = f->engine;
    f->m.seen = calloc(tr_engine_model(f->engine)->config.n_experts, 1);
    assert_non_null(f->m.seen);
}

static void close_fixture(fixture *f)
{
    tr_engine_close(&f->engine);
    tr_gguf_close(&f->gguf);
    free(f->m.seen);
}

static void parts_and_the_rest_are_the_whole_time(void **state)
{
    tr_measure_result r;
    fixture f;

    (void)state;
    open_fixture(&f, 2);
    assert_int_equal(tr_measure_decode(&f.m, 4, 16, &r), TR_OK);
    const tr_forward_times *s = &r.times.step;
    tr_time parts = s->dense + s->attention + s->router + s->dispatch + s->shared + s->experts +
                    s->wait + s->combine + s->output;
    assert_true(r.times.sampling > 0);
    assert_int_equal(parts + r.times.sampling + r.times.other, r.times.wall);
    close_fixture(&f);
}

/* Of two the mean, as seconds: the token rate is the harmonic mean. */
static void the_median_of_two_lies_between_them(void **state)
{
    tr_measure_result r;
    fixture f;

    (void)state;
    open_fixture(&f, 2);
    assert_int_equal(tr_measure_prefill(&f.m, 8, &r), TR_OK);
    double both = 2.0 / (1.0 / r.slowest + 1.0 / r.fastest);
    assert_true(r.median > both * (1.0 - 1e-9) && r.median < both * (1.0 + 1e-9));
    close_fixture(&f);
}

static void the_file_can_be_read_again(void **state)
{
    double seconds = 0.0;
    fixture f;

    (void)state;
    open_fixture(&f, 1);
    assert_int_equal(tr_measure_read(&f.m, f.gguf, &seconds), TR_OK);
    assert_true(seconds > 0.0);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_shared_expert_it_is_all_but_the_worker),
        cmocka_unit_test(a_shared_expert_goes_on_beside_the_worker),
        cmocka_unit_test(clocks_that_disagree_make_no_time_below_nothing),
        cmocka_unit_test(parts_and_the_rest_are_the_whole_time),
        cmocka_unit_test(the_median_of_two_lies_between_them),
        cmocka_unit_test(the_file_can_be_read_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
