/* test_same_bytes.c - the promise: logits are the same bytes whatever the number of workers,
 * their threads, the placement of the experts, and the cut of the prompt into batches.
 *
 * Method: the shipped model, whole cluster in one process.  The reference is one process with
 * one thread that is fed the prompt in one batch.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cluster.h"
#include "tests/support/tr_test.h"

#include "coordinator/engine/engine.h"

enum { N_PROMPT = 40, N_VOCAB = 4096, MAX_ROWS = 64 };

typedef struct {
    const char *why;
    uint32_t n_workers;
    size_t threads, worker_threads, chunk;
    tr_placement_rule placement;
    bool exact;
} variant;

static tr_gguf *gguf;

static int open_model(void **state)
{
    (void)state;
    return tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &gguf) == TR_OK ? 0 : -1;
}

static int close_model(void **state)
{
    (void)state;
    tr_gguf_close(&gguf);
    return 0;
}

/* logits [N_PROMPT][N_VOCAB] of a fixed prompt under a variant. */
static void logits_of(const variant *v, float *logits)
{
    tr_engine_options o = test_cluster_engine();
    test_cluster c;
    tr_engine *e = NULL;
    tr_sequence *s = NULL;

    test_cluster_start(&c, v->n_workers, v->worker_threads);
    o.gguf = gguf;
    o.threads = v->threads;
    o.exact = v->exact;
    o.max_rows = MAX_ROWS;
    o.max_logits = MAX_ROWS;
    o.transport = c.transport;
    o.n_workers = v->n_workers;
    o.placement = v->placement;
    assert_int_equal(tr_engine_open(&o, &e), TR_OK);
    assert_int_equal(tr_sequence_new(e, &s), TR_OK);
    for (size_t at = 0; at < N_PROMPT; at += v->chunk) {
        tr_row rows[MAX_ROWS];
        size_t n = N_PROMPT - at < v->chunk ? N_PROMPT - at : v->chunk;
        for (size_t i = 0; i < n; i++)
            rows[i] = (tr_row){ s, (uint32_t)((at + i) * 97 % N_VOCAB), true };
        assert_int_equal(tr_engine_step(e, rows, n, logits + at * N_VOCAB), TR_OK);
    }
    for (uint32_t w = 1; w <= v->n_workers; w++) {
        tr_time elapsed = 0;
        assert_int_equal(tr_engine_echo(e, w, 100 * w, &elapsed), TR_OK);
        assert_true(elapsed > 0);
    }
    tr_sequence_free(&s);
    tr_engine_close(&e);
    test_cluster_stop(&c);
}

static void check_variants(const variant *list, size_t n)
{
    size_t size = (size_t)N_PROMPT * N_VOCAB * sizeof(float);
    float *want = malloc(size);
    float *got = malloc(size);

    assert_non_null(want);
    assert_non_null(got);
    logits_of(&list[0], want);
    for (size_t i = 1; i < n; i++) {
        print_message("  %s\n", list[i].why);
        memset(got, 0xff, size);
        logits_of(&list[i], got);
        assert_memory_equal(got, want, size);
    }
    free(got);
    free(want);
}

static void neither_workers_nor_threads_nor_batches_change_a_bit(void **state)
{
    static const variant list[] = {
        { "alone", 0, 1, 1, MAX_ROWS, TR_PLACE_EVEN, false },
        { "two threads", 0, 2, 1, MAX_ROWS, TR_PLACE_EVEN, false },
        { "token by token", 0, 1, 1, 1, TR_PLACE_EVEN, false },
        { "chunks of 7", 0, 2, 1, 7, TR_PLACE_EVEN, false },
        { "one worker", 1, 1, 1, MAX_ROWS, TR_PLACE_EVEN, false },
        { "two workers, rotated", 2, 1, 2, 7, TR_PLACE_ROTATE, false },
        { "three workers", 3, 2, 1, MAX_ROWS, TR_PLACE_EVEN, false },
        { "five workers, rotated, chunks of 13", 5, 1, 1, 13, TR_PLACE_ROTATE, false },
    };
    (void)state;
    check_variants(list, sizeof list / sizeof list[0]);
}

static void the_exact_mode_keeps_the_promise_too(void **state)
{
    static const variant list[] = {
        { "alone", 0, 1, 1, MAX_ROWS, TR_PLACE_EVEN, true },
        { "three workers, chunks of 7", 3, 2, 1, 7, TR_PLACE_ROTATE, true },
    };
    (void)state;
    check_variants(list, sizeof list / sizeof list[0]);
}

/* Two sequences share steps; each must see what it would see alone. */
static void a_sequence_does_not_depend_on_its_neighbours(void **state)
{
    enum { STEPS = 12 };
    tr_engine_options o = test_cluster_engine();
    tr_engine *e = NULL;
    tr_sequence *a = NULL;
    tr_sequence *b = NULL;
    float *alone = malloc((size_t)N_VOCAB * sizeof(float));
    float *both = malloc((size_t)2 * N_VOCAB * sizeof(float));

    (void)state;
    o.gguf = gguf;
    o.threads = 2;
    o.max_logits = 2;
    o.n_sequences = 2;
    assert_int_equal(tr_engine_open(&o, &e), TR_OK);
    assert_int_equal(tr_sequence_new(e, &a), TR_OK);
    for (uint32_t i = 0; i < STEPS; i++)
        assert_int_equal(tr_engine_step(e, &(tr_row){ a, i * 31 + 5, true }, 1, alone), TR_OK);
    tr_sequence_free(&a);

    assert_int_equal(tr_sequence_new(e, &a), TR_OK);
    assert_int_equal(tr_sequence_new(e, &b), TR_OK);
    assert_int_equal(tr_sequence_new(e, &(tr_sequence *){ NULL }), TR_E_BUSY);
    for (uint32_t i = 0; i < STEPS; i++) {
        tr_row rows[] = { { b, 4000 - i, true }, { a, i * 31 + 5, true } };
        assert_int_equal(tr_engine_step(e, rows, 2, both), TR_OK);
    }
    assert_memory_equal(both + N_VOCAB, alone, (size_t)N_VOCAB * sizeof(float));
    tr_sequence_free(&a);
    tr_sequence_free(&b);
    tr_engine_close(&e);
    free(both);
    free(alone);
}

static void a_full_context_is_refused_and_changes_nothing(void **state)
{
    tr_engine_options o = test_cluster_engine();
    float *logits = malloc((size_t)N_VOCAB * sizeof(float));
    char line[256];
    tr_engine *e = NULL;
    tr_sequence *s = NULL;

    (void)state;
    o.gguf = gguf;
    o.context = 3;
    assert_int_equal(tr_engine_open(&o, &e), TR_OK);
    assert_int_equal(tr_sequence_new(e, &s), TR_OK);
    tr_row rows[] = { { s, 1, false }, { s, 2, false }, { s, 3, false }, { s, 4, true } };
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_engine_step(e, rows, 4, logits), TR_E_REQUEST);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "context of 3"));
    assert_int_equal(tr_sequence_length(s), 0);
    rows[2].wants_logits = true;
    assert_int_equal(tr_engine_step(e, rows, 3, logits), TR_OK);
    assert_int_equal(tr_sequence_length(s), 3);
    tr_sequence_free(&s);
    tr_engine_close(&e);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neither_workers_nor_threads_nor_batches_change_a_bit),
        cmocka_unit_test(the_exact_mode_keeps_the_promise_too),
        cmocka_unit_test(a_sequence_does_not_depend_on_its_neighbours),
        cmocka_unit_test(a_full_context_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
