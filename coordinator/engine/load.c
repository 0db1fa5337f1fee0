/* load.c - one thread sends, the caller's runs the engine and takes the times.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/load.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "base/rng.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const tr_time long_period = 2 * TR_SECOND;
static const tr_time look_period = TR_MS;

/* What is drawn for a request, each from a stream of its own. */
enum { DRAW_GAP, DRAW_PROMPT, DRAW_ANSWER, DRAW_SHARED, DRAW_TOKENS };

/* Requests are numbered from 0, long ones from here: each has its own tokens. */
#define FIRST_LONG (UINT64_C(1) << 62)

typedef struct {
    double *values;
    size_t n, room;
} samples;

typedef struct load load;

typedef struct {
    load *l;
    tr_time sent, last;
    size_t n_prompt;
    bool is_long;
} request;

struct load {
    tr_engine *engine;
    const tr_load_options *o;
    tr_load_result r;
    tr_serving *serving;
    size_t n_vocab, context;
    uint32_t *prompt; /* [context] being sent */
    samples first, between;

    pthread_mutex_t lock; /* of what both threads count */
    size_t n_under_way, n_long;
    bool is_over; /* no more is sent: what follows is not measured */
    bool is_out_of_memory;
};

static void samples_add(load *l, samples *s, tr_time t)
{
    if (s->n == s->room) {
        size_t room = 2 * s->room + 1024;
        double *larger = realloc(s->values, room * sizeof *larger);
        if (!larger) {
            l->is_out_of_memory = true;
            return;
        }
        s->values = larger;
        s->room = room;
    }
    s->values[s->n++] = (double)t / (double)TR_SECOND;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static tr_load_times times_of(samples *s)
{
    if (s->n == 0)
        return (tr_load_times){ 0 };
    qsort(s->values, s->n, sizeof *s->values, ascending);
    return (tr_load_times){ s->values[s->n / 2], s->values[s->n * 95 / 100],
                            s->values[s->n * 99 / 100], s->n };
}

/* ---- answers, on the engine's thread --------------------------------------------------------- */

/* Long prompts don't count among the others. */
static size_t *under_way(load *l, bool is_long)
{
    return is_long ? &l->n_long : &l->n_under_way;
}

static bool on_token(void *ctx, const tr_generated *token)
{
    request *q = ctx;
    load *l = q->l;
    tr_time now = tr_now();

    (void)token;
    pthread_mutex_lock(&l->lock);
    if (!l->is_over) {
        if (!q->is_long)
            samples_add(l, q->last == 0 ? &l->first : &l->between,
                        now - (q->last == 0 ? q->sent : q->last));
        l->r.answer_tokens++;
        if (q->last == 0)
            l->r.prompt_tokens += q->n_prompt;
    }
    pthread_mutex_unlock(&l->lock);
    q->last = now;
    return true;
}

static void on_end(void *ctx, tr_finish finish, tr_status st, const char *why)
{
    request *q = ctx;
    load *l = q->l;

    (void)finish;
    (void)why;
    pthread_mutex_lock(&l->lock);
    *under_way(l, q->is_long) -= 1;
    *(st == TR_OK ? &l->r.finished : &l->r.failed) += 1;
    pthread_mutex_unlock(&l->lock);
    free(q);
}

/* ---- requests, on a thread of their own ---------------------------------------------------------
 */

static double exponential(const load *l, uint64_t number, uint64_t what, double mean)
{
    double u = tr_rng_unit(tr_rng_u64(l->o->seed, number, what));

    return -log(1.0 - u) * mean;
}

static size_t length_of(const load *l, uint64_t number, uint64_t what, double mean, size_t most)
{
    double n = 1.0 + exponential(l, number, what, mean > 1.0 ? mean - 1.0 : 0.0);

    return n < (double)most ? (size_t)n : most;
}

static void fill_prompt(load *l, uint64_t number, size_t n)
{
    double u = tr_rng_unit(tr_rng_u64(l->o->seed, number, DRAW_SHARED));
    size_t shared = u < l->o->shared && number < FIRST_LONG ? l->o->shared_tokens : 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t stream = i < shared ? UINT64_MAX : number;
        l->prompt[i] = (uint32_t)(tr_rng_u64(l->o->seed, stream, DRAW_TOKENS + i) % l->n_vocab);
    }
}

/* False: nothing more is taken. */
static bool send(load *l, uint64_t number, size_t n_prompt, size_t n_answer)
{
    request *q = calloc(1, sizeof *q);
    bool is_long = number >= FIRST_LONG;
    uint64_t ticket;

    if (!q) {
        pthread_mutex_lock(&l->lock);
        l->is_out_of_memory = true;
        pthread_mutex_unlock(&l->lock);
        return false;
    }
    *q = (request){ .l = l, .sent = tr_now(), .n_prompt = n_prompt, .is_long = is_long };
    fill_prompt(l, number, n_prompt);
    tr_serving_request r = { .prompt = l->prompt,
                             .n_prompt = n_prompt,
                             .max_tokens = n_answer,
                             .sampling = tr_sampling_default(),
                             .number = number,
                             .on_token = on_token,
                             .on_end = on_end,
                             .ctx = q };
    pthread_mutex_lock(&l->lock);
    l->r.sent++;
    *under_way(l, is_long) += 1;
    pthread_mutex_unlock(&l->lock);
    tr_status st = tr_serving_submit(l->serving, &r, 1, &ticket);
    if (st == TR_OK)
        return true;
    pthread_mutex_lock(&l->lock);
    l->r.refused++;
    *under_way(l, is_long) -= 1;
    pthread_mutex_unlock(&l->lock);
    free(q);
    return st != TR_E_INTERRUPTED;
}

static bool send_one(load *l, uint64_t number)
{
    size_t n_prompt =
        length_of(l, number, DRAW_PROMPT, l->o->prompt_mean, l->context / 2) + l->o->shared_tokens;
    size_t n_answer = length_of(l, number, DRAW_ANSWER, l->o->answer_mean, l->context / 4);

    if (n_prompt + n_answer >= l->context)
        n_prompt = l->context - n_answer - 1;
    return send(l, number, n_prompt, n_answer);
}

/* What the engine's thread changes meanwhile. */
typedef struct {
    bool has_room, has_long, is_out_of_memory;
} view;

static view look(load *l)
{
    view v;

    pthread_mutex_lock(&l->lock);
    v.has_room = l->n_under_way < l->o->concurrent;
    v.has_long = l->n_long > 0;
    v.is_out_of_memory = l->is_out_of_memory;
    pthread_mutex_unlock(&l->lock);
    return v;
}

/* Until the time is over, a signal comes or the engine has stopped. */
static void send_all(load *l, tr_time begin)
{
    tr_time until = begin + (tr_time)(l->o->seconds * (double)TR_SECOND);
    tr_time next = begin, next_long = begin + TR_SECOND;
    uint64_t number = 0, number_long = FIRST_LONG;
    bool goes_on = true;

    while (goes_on && tr_now() < until && !tr_interrupted()) {
        view v = look(l);
        if (v.is_out_of_memory)
            return;
        if (l->o->long_prompt && tr_now() >= next_long && !v.has_long) {
            goes_on = send(l, number_long++, l->o->long_prompt, 1);
            next_long = tr_now() + long_period;
        } else if (l->o->rate > 0.0 && tr_now() >= next) {
            goes_on = send_one(l, number);
            next +=
                (tr_time)(exponential(l, number++, DRAW_GAP, 1.0 / l->o->rate) * (double)TR_SECOND);
        } else if (l->o->rate == 0.0 && v.has_room) {
            goes_on = send_one(l, number++);
        } else {
            tr_sleep(look_period);
        }
    }
}

static void *sender_main(void *ctx)
{
    load *l = ctx;
    tr_time begin = tr_now();

    send_all(l, begin);
    pthread_mutex_lock(&l->lock);
    l->is_over = true;
    l->r.seconds = (double)(tr_now() - begin) / (double)TR_SECOND;
    pthread_mutex_unlock(&l->lock);
    tr_serving_drain(l->serving);
    return NULL;
}

static void stop_if_interrupted(void *ctx)
{
    load *l = ctx;

    if (tr_interrupted())
        tr_serving_stop(l->serving);
}

static tr_status run(load *l)
{
    tr_serving_options so = { .engine = l->engine,
                              .max_running = l->o->concurrent + (l->o->long_prompt > 0),
                              .max_waiting = 1 << 16,
                              .tick = stop_if_interrupted,
                              .ctx = l };
    pthread_t sender;

    tr_status st = tr_serving_new(&so, &l->serving);
    if (st != TR_OK)
        return st;
    if (pthread_create(&sender, NULL, sender_main, l) != 0) {
        tr_serving_free(&l->serving);
        return tr_fail(TR_E_SYSTEM, "load: no thread to be had");
    }
    st = tr_serving_run(l->serving);
    pthread_join(sender, NULL);
    tr_serving_get_stats(l->serving, &l->r.serving, NULL, NULL);
    tr_serving_free(&l->serving);
    if (st == TR_OK && l->is_out_of_memory)
        st = tr_fail(TR_E_MEMORY, "load: no memory");
    return st;
}

tr_status tr_load_run(tr_engine *e, const tr_load_options *o, tr_load_result *out)
{
    load l = { .engine = e,
               .o = o,
               .n_vocab = tr_engine_model(e)->config.n_vocab,
               .context = tr_engine_context(e) };

    TR_CHECK(o->concurrent > 0);
    TR_CHECK(o->shared_tokens < l.context / 4 && o->long_prompt + 1 < l.context);
    l.prompt = malloc(l.context * sizeof *l.prompt);
    if (!l.prompt)
        return tr_fail(TR_E_MEMORY, "load: no memory");
    pthread_mutex_init(&l.lock, NULL);
    tr_status st = run(&l);
    l.r.first_token = times_of(&l.first);
    l.r.between = times_of(&l.between);
    *out = l.r;
    pthread_mutex_destroy(&l.lock);
    free(l.first.values);
    free(l.between.values);
    free(l.prompt);
    return st;
}
