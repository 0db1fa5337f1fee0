/* test_serving.c - the promise for many users: each answer is what the request gets alone, whatever
 * else is in the batch, shared, cancelled, or sent back for want of room.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cluster.h"
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/engine/serving.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __SANITIZE_THREAD__ /* thirty times as slow */
enum { N_REQUESTS = 8 };
#else
enum { N_REQUESTS = 14 };
#endif
enum { MAX_ANSWER = 48, MAX_PROMPT = 120, RUNNING = 6, N_VOCAB = 4096 };

static tr_gguf *gguf;
static size_t known_tokens = N_VOCAB; /* of gguf */

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

/* Half of the prompts begin with the same 70 tokens, and two at least have that many. */
static void fill(request *r, uint64_t seed, size_t i)
{
    *r = (request){ .n_prompt = 1 + tr_rng_u64(seed, i, 0) % MAX_PROMPT,
                    .max_tokens = 1 + tr_rng_u64(seed, i, 1) % MAX_ANSWER,
                    .sampling = tr_sampling_default() };
    if (i == 1 || i == 3)
        r->n_prompt = MAX_PROMPT;
    for (size_t k = 0; k < r->n_prompt; k++)
        r->prompt[k] =
            (uint32_t)(tr_rng_u64(seed, i % 2 && k < 70 ? 1000 : i, 2 + k) % known_tokens);
    r->sampling.seed = i;
    r->sampling.temperature = i % 3 == 0 ? 0.0f : 1.0f;
}

static tr_engine *open_engine(const test_cluster *c, size_t kv_positions)
{
    tr_engine_options o = test_cluster_engine();
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

static void check_answers(void)
{
    static const variant variants[] = {
        { "room for all", 0, 0, false },
        { "experts in two workers", 2, 0, false },
        { "a cache for two and a half sequences", 0, 400, false },
        { "some are cancelled", 0, 400, true },
    };
    uint64_t seed = tr_test_seed();
    request *list = calloc(N_REQUESTS, sizeof *list);

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

static void answers_are_those_of_a_request_alone(void **state)
{
    (void)state;
    check_answers();
}

/* A copy of a model whose window reaches over page limits. */
static void write_windowed(const char *path, uint32_t window)
{
    static const char key[] = "gpt-oss.attention.sliding_window";
    static uint8_t bytes[2 << 20];

    FILE *f = fopen(TR_SOURCE_DIR "/tests/golden/models/gpt-oss.MXFP4.gguf", "rb");
    assert_non_null(f);
    size_t size = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    assert_true(size > 0 && size < sizeof bytes);
    uint8_t *at = memmem(bytes, size, key, sizeof key - 1);
    assert_non_null(at);
    memcpy(at + sizeof key - 1 + sizeof(uint32_t), &window, sizeof window); /* behind its type */
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* Beginnings are shared, and computed again where the pages that a window needs are gone. */
static void nor_do_windows_change_an_answer(void **state)
{
    static const uint32_t windows[] = { 8, 70 };
    tr_gguf *whole = gguf;

    (void)state;
    known_tokens = 512;
    for (size_t i = 0; i < 2; i++) {
        char path[] = "/tmp/troupe-window-XXXXXX";
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        close(fd);
        write_windowed(path, windows[i]);
        assert_int_equal(tr_gguf_open(path, &gguf), TR_OK);
        check_answers();
        tr_gguf_close(&gguf);
        assert_int_equal(unlink(path), 0);
    }
    gguf = whole;
    known_tokens = N_VOCAB;
}

/* Seven pages, and sequences that begin with two each and end with four: three are let in, and some
 * must leave and come again. */
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
    o.engine = open_engine(&cluster, TR_KV_PAGE);
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

/* A request that asks for everything, and what it was told of each token. */
typedef struct {
    request r;
    tr_logit_bias bias[2];
    double log_prob[MAX_ANSWER], other[MAX_ANSWER];
    size_t n_stop; /* its owner has had enough after so many tokens */
} demanding;

/* Only every third token may come, another third each time. */
static bool constrain(void *ctx, float *logits, size_t n_vocab)
{
    const demanding *d = ctx;

    for (size_t i = 0; i < n_vocab; i++)
        if (i % 3 != d->r.n_answer % 3)
            logits[i] = -INFINITY;
    return true;
}

static bool take_all(void *ctx, const tr_generated *t)
{
    demanding *d = ctx;

    assert_int_equal(t->n_alternatives, 3);
    d->log_prob[d->r.n_answer] = t->log_prob;
    d->other[d->r.n_answer] = t->alternatives[2].log_prob;
    take_token(&d->r, t);
    return d->r.n_answer < d->n_stop;
}

static void end_all(void *ctx, tr_finish finish, tr_status st, const char *why)
{
    demanding *d = ctx;

    take_end(&d->r, finish, st, why);
}

static void submit_demanding(tr_serving *s, demanding *d, size_t i)
{
    d->bias[0] = (tr_logit_bias){ (uint32_t)(17 * i), 4.0f };
    d->bias[1] = (tr_logit_bias){ (uint32_t)(5 + i), -INFINITY };
    tr_serving_request q = { .prompt = d->r.prompt,
                             .n_prompt = d->r.n_prompt,
                             .max_tokens = d->r.max_tokens,
                             .sampling = d->r.sampling,
                             .number = i,
                             .edit = { d->bias, 2, 0.6f, i % 2 ? 0.7f : 0.0f },
                             .priority = (int32_t)(i % 3),
                             .wants_log_probs = true,
                             .n_alternatives = 3,
                             .constrain = i % 4 == 1 ? constrain : NULL,
                             .on_token = take_all,
                             .on_end = end_all,
                             .ctx = d };

    assert_int_equal(tr_serving_submit(s, &q, 1, &d->r.ticket), TR_OK);
}

/* So many at once, each begun anew. */
static uint64_t serve_demanding(tr_engine *e, demanding *list, size_t n, size_t first)
{
    tr_serving_options o = { .engine = e, .max_running = RUNNING, .max_waiting = N_REQUESTS };
    tr_serving_stats stats;
    tr_serving *s = NULL;

    assert_int_equal(tr_serving_new(&o, &s), TR_OK);
    for (size_t i = 0; i < n; i++)
        submit_demanding(s, &list[i], first + i);
    tr_serving_drain(s);
    assert_int_equal(tr_serving_run(s), TR_OK);
    tr_serving_get_stats(s, &stats, NULL, NULL);
    tr_serving_free(&s);
    return stats.preempted;
}

static void all_that_can_be_asked_for_is_as_alone(void **state)
{
    static demanding alone[N_REQUESTS], together[N_REQUESTS];
    test_cluster cluster;

    (void)state;
    for (size_t i = 0; i < N_REQUESTS; i++) {
        fill(&alone[i].r, tr_test_seed(), i);
        alone[i].r.n_prompt = 60;
        alone[i].r.max_tokens = MAX_ANSWER;
        alone[i].n_stop = i % 5 == 2 ? 30 : SIZE_MAX;
        together[i] = alone[i];
    }
    test_cluster_start(&cluster, 0, 1);
    tr_engine *e = open_engine(&cluster, TR_KV_PAGE);
    for (size_t i = 0; i < N_REQUESTS; i++)
        assert_int_equal(serve_demanding(e, &alone[i], 1, i), 0);
    assert_true(serve_demanding(e, together, N_REQUESTS, 0) > 0);
    for (size_t i = 0; i < N_REQUESTS; i++) {
        const demanding *a = &alone[i], *t = &together[i];
        assert_true(a->r.ends == 1 && t->r.ends == 1 && t->r.st == TR_OK);
        assert_int_equal(a->r.finish, i % 5 == 2 ? TR_FINISH_STOP : TR_FINISH_LENGTH);
        assert_int_equal(t->r.finish, a->r.finish);
        assert_int_equal(t->r.n_answer, a->r.n_answer);
        assert_memory_equal(t->r.answer, a->r.answer, sizeof a->r.answer);
        assert_memory_equal(t->log_prob, a->log_prob, sizeof a->log_prob);
        assert_memory_equal(t->other, a->other, sizeof a->other);
    }
    tr_engine_close(&e);
    test_cluster_stop(&cluster);
}

typedef struct {
    tr_serving **s;
    const request *r;
    int ticks;
} leaver;

/* After the first step: the prompt is longer than one. */
static void cancel_first(void *ctx)
{
    leaver *l = ctx;

    if (l->ticks++ == 1)
        tr_serving_cancel(*l->s, l->r->ticket);
}

/* Answers to one prompt that come together, and a stranger whose beginning is half of it: the first
 * reads, the others wait for what they share. */
static void those_who_begin_alike_read_it_once(void **state)
{
    static request list[5];
    tr_serving_options o = { .max_running = RUNNING, .max_waiting = N_REQUESTS };
    size_t whole = 3 * TR_KV_PAGE, half = 2 * TR_KV_PAGE;
    test_cluster cluster;
    tr_serving_stats stats;
    tr_serving *s = NULL;

    (void)state;
    test_cluster_start(&cluster, 0, 1);
    o.engine = open_engine(&cluster, 0);
    assert_int_equal(tr_serving_new(&o, &s), TR_OK);
    for (size_t i = 0; i < 5; i++) {
        fill(&list[i], 5, 0);
        list[i].n_prompt = whole + 5;
        for (size_t k = 0; k < list[i].n_prompt; k++)
            list[i].prompt[k] = (uint32_t)(k + (i == 4 && k >= half + 3 ? 1000 : 0));
        submit(s, &list[i]);
    }
    tr_serving_drain(s);
    assert_int_equal(tr_serving_run(s), TR_OK);
    tr_serving_get_stats(s, &stats, NULL, NULL);
    assert_int_equal(stats.finished, 5);
    assert_int_equal(stats.prefix_tokens, 5 * (whole + 5));
    assert_int_equal(stats.prefix_hits, 3 * whole + half);
    tr_serving_free(&s);
    tr_engine_close(&o.engine);
    test_cluster_stop(&cluster);
}

/* The first of those who begin alike is gone before it has read: the next one reads. */
static void who_waits_for_one_that_leaves_goes_on(void **state)
{
    static request list[3];
    tr_serving_options o = { .max_running = RUNNING, .max_waiting = N_REQUESTS };
    test_cluster cluster;
    tr_serving *s = NULL;

    (void)state;
    test_cluster_start(&cluster, 0, 1);
    o.engine = open_engine(&cluster, 0);
    o.tick = cancel_first;
    o.ctx = &(leaver){ &s, &list[0], 0 };
    assert_int_equal(tr_serving_new(&o, &s), TR_OK);
    for (size_t i = 0; i < 3; i++) {
        fill(&list[i], 5, 0);
        list[i].n_prompt = MAX_PROMPT;
        for (size_t k = 0; k < list[i].n_prompt; k++)
            list[i].prompt[k] = (uint32_t)k;
        submit(s, &list[i]);
    }
    tr_serving_drain(s);
    assert_int_equal(tr_serving_run(s), TR_OK);
    assert_int_equal(list[0].st, TR_E_INTERRUPTED);
    for (size_t i = 1; i < 3; i++)
        assert_true(list[i].st == TR_OK && list[i].n_answer == list[i].max_tokens);
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
        cmocka_unit_test(nor_do_windows_change_an_answer),
        cmocka_unit_test(who_is_sent_back_for_want_of_room_loses_nothing),
        cmocka_unit_test(all_that_can_be_asked_for_is_as_alone),
        cmocka_unit_test(those_who_begin_alike_read_it_once),
        cmocka_unit_test(who_waits_for_one_that_leaves_goes_on),
        cmocka_unit_test(a_full_queue_and_what_can_never_fit_are_refused),
        cmocka_unit_test(answers_to_one_prompt_are_taken_together_or_not_at_all),
        cmocka_unit_test(no_cancel_is_lost_among_many),
        cmocka_unit_test(quantiles_lie_in_their_bucket),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
