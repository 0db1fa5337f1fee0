/* test_compare.c - a comparison finds the token in which two outputs part, and nothing where they
 * do not.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/commands/compare.h"

enum { N = 8 };

typedef struct {
    tr_gguf *gguf;
    tr_engine *e;
    uint32_t ids[N];
    size_t n, stop; /* on_token ends the answer after so many; 0: never */
    uint32_t end;   /* is_end is true for it; UINT32_MAX: for none */
} fixture;

static const uint32_t prompt[] = { 5, 17, 40 };

static bool is_end(void *ctx, uint32_t id)
{
    return id == ((fixture *)ctx)->end;
}

static bool take(void *ctx, const tr_generated *t)
{
    fixture *f = ctx;

    f->ids[f->n++] = t->id;
    return f->n != f->stop;
}

static tr_generate_request request_of(fixture *f)
{
    return (tr_generate_request){
        .prompt = prompt,
        .n_prompt = 3,
        .max_tokens = N,
        .sampling = { .temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 3 },
        .is_end = is_end,
        .on_token = take,
        .ctx = f
    };
}

static tr_output generate(fixture *f)
{
    tr_generate_request r = request_of(f);
    tr_generate_result g;

    f->n = 0;
    assert_int_equal(tr_generate(f->e, &r, &g), TR_OK);
    assert_int_equal(g.n_generated, f->n);
    return (tr_output){ f->ids, f->n, g.finish };
}

static size_t compare(fixture *f, const tr_output *o)
{
    tr_generate_request r = request_of(f);
    size_t place = 1000;

    assert_int_equal(tr_compare(f->e, &r, o, &place), TR_OK);
    return place;
}

static int open_engine(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    tr_engine_options o = tr_engine_defaults();

    assert_non_null(f);
    assert_int_equal(tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &f->gguf), TR_OK);
    f->end = UINT32_MAX;
    o.gguf = f->gguf;
    o.threads = 1;
    o.context = 16;
    assert_int_equal(tr_engine_open(&o, &f->e), TR_OK);
    *state = f;
    return 0;
}

static int close_engine(void **state)
{
    fixture *f = *state;

    tr_engine_close(&f->e);
    tr_gguf_close(&f->gguf);
    free(f);
    return 0;
}

static void equal_outputs_are_equal_however_they_ended(void **state)
{
    fixture *f = *state;

    tr_output o = generate(f);
    assert_true(o.n == N && o.finish == TR_FINISH_LENGTH);
    assert_int_equal(compare(f, &o), TR_SAME);
    f->stop = 3;
    o = generate(f);
    assert_true(o.n == 3 && o.finish == TR_FINISH_STOP);
    assert_int_equal(compare(f, &o), TR_SAME);
    f->stop = 0;
    f->end = f->ids[2];
    o = generate(f);
    assert_true(o.n <= 2 && o.finish == TR_FINISH_END);
    assert_int_equal(compare(f, &o), TR_SAME);
}

static void the_first_difference_is_found(void **state)
{
    fixture *f = *state;
    tr_output o = generate(f);

    for (size_t i = 0; i < N; i++) {
        f->ids[i] ^= 1;
        assert_int_equal(compare(f, &o), i);
        f->ids[i] ^= 1;
    }
    o.n = 5; /* the engine goes on where this one is said to have ended by itself */
    o.finish = TR_FINISH_END;
    assert_int_equal(compare(f, &o), 5);
    o = generate(f);
    f->end = f->ids[4]; /* and ends where this one went on */
    size_t first = 0;
    while (f->ids[first] != f->end)
        first++;
    assert_int_equal(compare(f, &o), first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(equal_outputs_are_equal_however_they_ended, open_engine,
                                        close_engine),
        cmocka_unit_test_setup_teardown(the_first_difference_is_found, open_engine, close_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
