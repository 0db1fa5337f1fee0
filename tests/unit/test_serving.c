/* test_serving.c - the promise for many users: each answer is what the request gets alone, whatever
 * else is in the batch, shared, cancelled, or sent back for want of room.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cluster.h"
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/engine/serving.h"

#include <pthread.h>

enum { N_REQUESTS = 14, MAX_ANSWER = 24, MAX_PROMPT = 120, RUNNING = 6, N_VOCAB = 4096 };

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

/* One request and what came of it. */
typedef struct {
    uint32_t prompt[MAX_PROMPT], answer[MAX_ANSWER], alone[MAX_ANSWER];
    size_t n_prompt, max_tokens, n_answer, n_alone;
    tr_sampling sampling;
    int ends;
    tr_status st;
    tr_finish finish;
    uint64_t ticket;
} request;

static bool take_token(void *ctx, const tr_generated *t)
{
    request *r = ctx;

    assert_true(r->n_answer < r->max_tokens);
    assert_true(t->id < N_VOCAB);
    r->answer[r->n_answer++] = t->id;
    return true;
}

static void take_end(void *ctx, tr_finish finish, tr_status st, const char *why)
{
    request *r = ctx;

    (void)why;
    r->ends++;
    r->st = st;
    r->finish = finish;
}

static bool take_alone(void *ctx, const tr_generated *t)
{
    request *r = ctx;

    r->alone[r->n_alone++] = t->id;
    return true;
}

/* Half of the prompts begin with the same 70 tokens. */
static void fill(request *r, uint64_t seed, size_t i)
{
    *r = (request){ .n_prompt = 1 + tr_rng_u64(seed, i, 0) % MAX_PROMPT,
                    .max_tokens = 1 + tr_rng_u64(seed, i, 1) % MAX_ANSWER,
                    .sampling = tr_sampling_default() };
    for (size_t k = 0; k < r->n_prompt; k++)
        r->prompt[k] = (uint32_t)(tr_rng_u64(seed, i % 2 && k < 70 ? 1000 : i, 2 + k) % N_VOCAB);
    r->sampling.seed = i;
    r->sampling.temperature = i % 3 == 0 ? 0.0f : 1.0f;
}

static tr_engine *open_engine(const test_cluster *c, size_t kv_positions)
{
    tr_engine_options o = tr_engine_defaults();
    tr_engine *e = NULL;

    o.gguf = gguf;
    o.threads = 2;
    o.max_rows = 48;
    o.max_logits = RUNNING;
    o.n_sequences = RUNNING;
    o.context = MAX_PROMPT + MAX_ANSWER + 1;
    o.kv_positions = kv_positions;
    o.transport = c->transport;
    o.n_workers = c->n_workers;
    assert_int_equal(tr_engine_open(&o, &e), TR_OK);
    return e;
}

static void answers_alone(request *list)
{
    test_cluster c;

    test_cluster_start(&c, 0, 1);
    tr_engine *e = open_engine(&c, 0);
    for (size_t i = 0; i < N_REQUESTS; i++) {
        tr_generate_request q = { .prompt = list[i].prompt,
                                  .n_prompt = list[i].n_prompt,
                                  .max_tokens = list[i].max_tokens,
                                  .sampling = list[i].sampling,
                                  .on_token = take_alone,
                                  .ctx = &list[i] };
        tr_generate_result result;
        assert_int_equal(tr_generate(e, &q, &result), TR_OK);
        assert_int_equal(list[i].n_alone, list[i].max_tokens);
    }
    tr_engine_close(&e);
    test_cluster_stop(&c);
}

static void submit(tr_serving *s, request *r)
{
    tr_serving_request q = { .prompt = r->prompt,
                             .n_prompt = r->n_prompt,
                             .max_tokens = r->max_tokens,
                             .sampling = r->sampling,
                             .on_token = take_token,
                             .on_end = take_end,
                             .ctx = r };

    assert_int_equal(tr_serving_submit(s, &q, 1, &r->ticket), TR_OK);
}

typedef struct {
    tr_serving *s;
    request *list;
    bool cancels; /* every fifth */
} client;

/* Requests come while others run. */
static void *client_main(void *ctx)
{
    client *c = ctx;

    for (size_t i = 0; i < N_REQUESTS; i++) {
        submit(c->s, &c->list[i]);
        if (i % 4 == 3)
            tr_sleep(3 * TR_MS);
        if (c->cancels && i % 5 == 4)
            tr_serving_cancel(c->s, c->list[i].ticket);
    }
    tr_serving_drain(c->s);
    return NULL;
}

typedef struct {
    const char *why;
    uint32_t n_workers;
    size_t kv_positions;
    bool cancels;
} variant;

static tr_serving_stats serve(const variant *v, request *list)
{
    tr_serving_options o = { .max_running = RUNNING, .max_waiting = N_REQUESTS };
    test_cluster cluster;
    tr_serving_stats stats;
    pthread_t thread;

    print_message("  %s\n", v->why);
    test_cluster_start(&cluster, v->n_workers, 1);
    o.engine = open_engine(&cluster, v->kv_positions);
    client c = { .list = list, .cancels = v->cancels };
    assert_int_equal(tr_serving_new(&o, &c.s), TR_OK);
    assert_int_equal(pthread_create(&thread, NULL, client_main, &c), 0);
    assert_int_equal(tr_serving_run(c.s), TR_OK);
    pthread_join(thread, NULL);
    tr_serving_get_stats(c.s, &stats, NULL, NULL);
    assert_int_equal(tr_engine_kv_count(o.engine).used, 0); /* every page is back */
    tr_serving_free(&c.s);
    tr_engine_close(&o.engine);
    test_cluster_stop(&cluster);
    return stats;
}

static void answers_are_those_of_a_request_alone(void **state)
{
    static const variant variants[] = {
        { "room for all", 0, 0, false },
        { "experts in two workers", 2, 0, false },
        { "a cache for two and a half sequences", 0, 400, false },
        { "some are cancelled", 0, 400, true },
    };
    uint64_t seed = tr_test_seed();
    request *list = calloc(N_REQUESTS, sizeof *list);

    (void)state;
    assert_non_null(list);
    for (size_t i = 0; i < N_REQUESTS; i++)
        fill(&list[i], seed, i);
    answers_alone(list);
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        for (size_t i = 0; i < N_REQUESTS; i++)
            list[i].n_answer = (size_t)(list[i].ends = 0);
        tr_serving_stats stats = serve(&variants[v], list);
        size_t tokens = 0;
        for (size_t i = 0; i < N_REQUESTS; i++) {
            assert_int_equal(list[i].ends, 1);
            bool may_stop = variants[v].cancels && i % 5 == 4;
            if (!may_stop)
                assert_int_equal(list[i].st, TR_OK);
            if (list[i].st == TR_OK)
                assert_int_equal(list[i].n_answer, list[i].n_alone);
            assert_memory_equal(list[i].answer, list[i].alone,
                                list[i].n_answer * sizeof *list[i].answer);
            tokens += list[i].n_answer;
        }
        assert_int_equal(stats.finished + stats.cancelled, N_REQUESTS);
        assert_int_equal(stats.generated_tokens, tokens);
        assert_int_equal(stats.first_token.n + stats.between_tokens.n, tokens);
        if (!variants[v].cancels) /* what is begun alike may be cancelled before it is shared */
            assert_true(stats.prefix_hits > 0);
    }
    free(list);
}

/* Twelve pages, and sequences that begin with two each and end with three: some must leave and come
 * again. */
static void who_is_sent_back_for_want_of_room_loses_nothing(void **state)
{
    static request list[N_REQUESTS];
    tr_serving_options o = { .max_running = RUNNING, .max_waiting = N_REQUESTS };
    test_cluster cluster;
    tr_serving_stats stats;
    tr_serving *s = NULL;

    (void)state;
    for (size_t i = 0; i < N_REQUESTS; i++) {
        fill(&list[i], 3, 2 * i); /* no common beginnings */
        list[i].n_prompt = 60;
        list[i].max_tokens = MAX_ANSWER;
        for (size_t k = 0; k < list[i].n_prompt; k++)
            list[i].prompt[k] = (uint32_t)((i * 131 + k * 7) % N_VOCAB);
    }
    answers_alone(list);
    test_cluster_start(&cluster, 0, 1);
    o.engine = open_engine(&cluster, 6 * TR_KV_PAGE);
    assert_int_equal(tr_serving_new(&o, &s), TR_OK);
    for (size_t i = 0; i < N_REQUESTS; i++)
        submit(s, &list[i]);
    tr_serving_drain(s);
    assert_int_equal(tr_serving_run(s), TR_OK);
    tr_serving_get_stats(s, &stats, NULL, NULL);
    assert_true(stats.preempted > 0);
    assert_int_equal(stats.finished, N_REQUESTS);
    for (size_t i = 0; i < N_REQUESTS; i++)
        assert_memory_equal(list[i].answer, list[i].alone, sizeof list[i].alone);
    tr_serving_free(&s);
    tr_engine_close(&o.engine);
    test_cluster_stop(&cluster);
}

static void a_full_queue_and_what_can_never_fit_are_refused(void **state)
{
    test_cluster cluster;
    tr_serving *s = NULL;
    request list[3];

    (void)state;
    test_cluster_start(&cluster, 0, 1);
    tr_engine *e = open_engine(&cluster, 0);
    tr_serving_options o = { .engine = e, .max_running = 1, .max_waiting = 1 };
    assert_int_equal(tr_serving_new(&o, &s), TR_OK);
    for (size_t i = 0; i < 3; i++)
        fill(&list[i], 7, i);
    submit(s, &list[0]);
    submit(s, &list[1]);
    tr_serving_request q = { .prompt = list[2].prompt,
                             .n_prompt = list[2].n_prompt,
                             .max_tokens = 1,
                             .sampling = list[2].sampling,
                             .on_token = take_token,
                             .on_end = take_end,
                             .ctx = &list[2] };
    assert_int_equal(tr_serving_submit(s, &q, 1, &list[2].ticket), TR_E_BUSY);
    q.max_tokens = 1000;
    assert_int_equal(tr_serving_submit(s, &q, 1, &list[2].ticket), TR_E_REQUEST);
    q.max_tokens = 1;
    q.n_prompt = 0;
    assert_int_equal(tr_serving_submit(s, &q, 1, &list[2].ticket), TR_E_REQUEST);
    q.n_prompt = 1;
    uint32_t no_token = N_VOCAB;
    q.prompt = &no_token;
    assert_int_equal(tr_serving_submit(s, &q, 1, &list[2].ticket), TR_E_REQUEST);
    tr_serving_drain(s);
    q.prompt = list[2].prompt;
    assert_int_equal(tr_serving_submit(s, &q, 1, &list[2].ticket), TR_E_INTERRUPTED);
    assert_int_equal(tr_serving_run(s), TR_OK);
    assert_true(list[0].ends == 1 && list[1].ends == 1 && list[2].ends == 0);
    tr_serving_free(&s);
    tr_engine_close(&e);
    test_cluster_stop(&cluster);
}

/* Nothing runs yet, so all of them are newcomers: free places count, not only those to wait in. */
static void answers_to_one_prompt_are_taken_together_or_not_at_all(void **state)
{
    test_cluster cluster;
    tr_serving *s = NULL;
    tr_serving_request q[6];
    uint64_t tickets[6];
    request list[6];

    (void)state;
    test_cluster_start(&cluster, 0, 1);
    tr_engine *e = open_engine(&cluster, 0);
    tr_serving_options o = { .engine = e, .max_running = 4, .max_waiting = 1 };
    assert_int_equal(tr_serving_new(&o, &s), TR_OK);
    for (size_t i = 0; i < 6; i++) {
        fill(&list[i], 9, i);
        q[i] = (tr_serving_request){ .prompt = list[i].prompt,
                                     .n_prompt = list[i].n_prompt,
                                     .max_tokens = 1,
                                     .sampling = list[i].sampling,
                                     .on_token = take_token,
                                     .on_end = take_end,
                                     .ctx = &list[i] };
    }
    assert_int_equal(tr_serving_submit(s, q, 6, tickets), TR_E_REQUEST); /* can never be */
    assert_int_equal(tr_serving_submit(s, q, 3, tickets), TR_OK);
    assert_int_equal(tr_serving_submit(s, q + 3, 3, tickets + 3), TR_E_BUSY);
    assert_int_equal(tr_serving_submit(s, q + 3, 2, tickets + 3), TR_OK);
    for (size_t i = 1; i < 5; i++)
        assert_true(tickets[i] > tickets[i - 1]);
    tr_serving_drain(s);
    assert_int_equal(tr_serving_run(s), TR_OK);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(list[i].ends, i < 5);
    tr_serving_free(&s);
    tr_engine_close(&e);
    test_cluster_stop(&cluster);
}

static void no_cancel_is_lost_among_many(void **state)
{
    test_cluster cluster;
    tr_serving_stats stats;
    tr_serving *s = NULL;
    request list[3];

    (void)state;
    test_cluster_start(&cluster, 0, 1);
    tr_engine *e = open_engine(&cluster, 0);
    tr_serving_options o = { .engine = e, .max_running = 1, .max_waiting = 2 };
    assert_int_equal(tr_serving_new(&o, &s), TR_OK);
    for (size_t i = 0; i < 3; i++) {
        fill(&list[i], 11, i);
        submit(s, &list[i]);
    }
    for (int i = 0; i < 100; i++) {
        tr_serving_cancel(s, list[0].ticket);
        tr_serving_cancel(s, UINT64_MAX - 7);
    }
    tr_serving_cancel(s, list[2].ticket);
    tr_serving_drain(s);
    assert_int_equal(tr_serving_run(s), TR_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(list[i].ends, 1);
        assert_int_equal(list[i].st, i == 1 ? TR_OK : TR_E_INTERRUPTED);
    }
    tr_serving_get_stats(s, &stats, NULL, NULL);
    assert_int_equal(stats.cancelled, 2);
    tr_serving_free(&s);
    tr_engine_close(&e);
    test_cluster_stop(&cluster);
}

static void quantiles_lie_in_their_bucket(void **state)
{
    tr_serving_histogram h = { 0 };

    (void)state;
    assert_true(tr_serving_quantile(&h, 0.5) == 0.0);
    h.n = 10;
    h.bucket[3] = 10; /* 2 to 5 ms */
    assert_true(tr_serving_quantile(&h, 0.5) > 0.0034 && tr_serving_quantile(&h, 0.5) < 0.0036);
    h.bucket[3] = 5;
    h.bucket[10] = 5;
    assert_true(tr_serving_quantile(&h, 0.95) > 0.1 && tr_serving_quantile(&h, 0.95) < 0.15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_a_request_alone),
        cmocka_unit_test(who_is_sent_back_for_want_of_room_loses_nothing),
        cmocka_unit_test(a_full_queue_and_what_can_never_fit_are_refused),
        cmocka_unit_test(answers_to_one_prompt_are_taken_together_or_not_at_all),
        cmocka_unit_test(no_cancel_is_lost_among_many),
        cmocka_unit_test(quantiles_lie_in_their_bucket),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
