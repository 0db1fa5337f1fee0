/* serving.c - a queue behind a lock, and the loop that only its own thread sees.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/serving.h"

#include "base/check.h"
#include "coordinator/engine/serving_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef tr_serving_entry entry;

enum { REASON = 256 };

/* An idle loop looks after the workers this often. */
static const tr_time idle_period = 20 * TR_MS;

const double tr_serving_bounds[TR_SERVING_BUCKETS - 1] = { 0.0005, 0.001, 0.002, 0.005, 0.01,
                                                           0.02,   0.03,  0.05,  0.075, 0.1,
                                                           0.15,   0.2,   0.3,   0.5,   1.0,
                                                           2.0,    5.0,   10.0,  30.0 };

static tr_status reserve(tr_serving *s)
{
    size_t cells = s->n_layers * s->n_experts;

    s->entries = calloc(s->capacity, sizeof(entry *));
    s->items = calloc(s->capacity, sizeof *s->items);
    s->n_rows = calloc(s->capacity, sizeof *s->n_rows);
    s->rows = calloc(s->max_rows, sizeof *s->rows);
    s->row_traced = calloc(s->max_rows, 1);
    s->logits = malloc(s->o.max_running * s->n_vocab * sizeof(float));
    s->sampled = malloc(s->n_threads * s->n_vocab * sizeof(float));
    s->drawing = calloc(s->o.max_running, sizeof(entry *));
    s->scratch = calloc(s->n_threads, sizeof *s->scratch);
    s->picks = calloc(cells, sizeof *s->picks);
    s->traced_picks = calloc(cells, sizeof *s->traced_picks);
    if (!s->entries || !s->items || !s->n_rows || !s->rows || !s->row_traced || !s->logits ||
        !s->sampled || !s->drawing || !s->scratch || !s->picks || !s->traced_picks)
        return tr_fail(TR_E_MEMORY, "serving: no memory for %zu requests", s->capacity);
    for (size_t i = 0; i < s->n_threads; i++) {
        tr_status st = tr_sample_scratch_init(&s->scratch[i], s->n_vocab);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

tr_status tr_serving_new(const tr_serving_options *o, tr_serving **out)
{
    const tr_model_config *c = &tr_engine_model(o->engine)->config;
    tr_serving *s = calloc(1, sizeof *s);
    pthread_condattr_t attributes;

    TR_CHECK(o->max_running > 0 && tr_engine_max_rows(o->engine) >= o->max_running);
    if (!s)
        return tr_fail(TR_E_MEMORY, "serving: no memory");
    s->o = *o;
    s->n_vocab = c->n_vocab;
    s->n_layers = c->n_layers;
    s->n_experts = c->n_experts;
    s->max_rows = tr_engine_max_rows(o->engine);
    s->capacity = o->max_running + o->max_waiting;
    s->n_pages = tr_engine_kv_count(o->engine).n;
    s->n_threads = tr_pool_threads(tr_engine_compute(o->engine)->pool);
    s->newcomers_end = &s->newcomers;
    s->next_ticket = 1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->news, &attributes);
    pthread_condattr_destroy(&attributes);
    tr_status st = reserve(s);
    if (st != TR_OK) {
        tr_serving_free(&s);
        return st;
    }
    *out = s;
    return TR_OK;
}

static void entry_free(entry *e)
{
    if (e->sequence)
        tr_sequence_free(&e->sequence);
    free(e->bias);
    free(e->tokens);
    free(e);
}

void tr_serving_free(tr_serving **serving)
{
    tr_serving *s = *serving;

    if (!s)
        return;
    TR_CHECK(s->n == 0);
    TR_CHECK(!s->newcomers);
    for (size_t i = 0; s->scratch && i < s->n_threads; i++)
        tr_sample_scratch_fini(&s->scratch[i]);
    free(s->traced_picks);
    free(s->picks);
    free(s->scratch);
    free(s->drawing);
    free(s->sampled);
    free(s->logits);
    free(s->row_traced);
    free(s->rows);
    free(s->n_rows);
    free(s->items);
    free(s->entries);
    pthread_cond_destroy(&s->news);
    pthread_mutex_destroy(&s->lock);
    free(s);
    *serving = NULL;
}

/* ---- from other threads ------------------------------------------------------------------ */

static tr_status check(const tr_serving *s, const tr_serving_request *r)
{
    size_t context = tr_engine_context(s->o.engine);

    TR_CHECK(r->n_alternatives <= TR_MAX_ALTERNATIVES);
    TR_CHECK(r->max_tokens > 0);
    if (r->n_prompt == 0)
        return tr_fail(TR_E_REQUEST, "the prompt is empty: give at least one token");
    if (r->n_prompt >= context || r->max_tokens > context - r->n_prompt)
        return tr_fail(TR_E_REQUEST,
                       "%zu tokens of prompt and %zu of answer are more than the context of %zu",
                       r->n_prompt, r->max_tokens, context);
    if (tr_kv_pages_for(r->n_prompt + r->max_tokens) > s->n_pages)
        return tr_fail(TR_E_REQUEST,
                       "%zu tokens are more than the whole cache of %zu: lower max_tokens",
                       r->n_prompt + r->max_tokens, s->n_pages * TR_KV_PAGE);
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] >= s->n_vocab)
            return tr_fail(TR_E_REQUEST,
                           "token %zu of the prompt is %u, but the model has %zu tokens", i,
                           r->prompt[i], s->n_vocab);
    return TR_OK;
}

static tr_status entry_new(const tr_serving_request *r, entry **out)
{
    entry *e = calloc(1, sizeof *e);

    if (!e)
        return tr_fail(TR_E_MEMORY, "serving: no memory for a request");
    e->r = *r;
    e->tokens = malloc((r->n_prompt + r->max_tokens) * sizeof *e->tokens);
    e->bias = malloc((r->edit.n_bias ? r->edit.n_bias : 1) * sizeof *e->bias);
    if (!e->tokens || !e->bias) {
        entry_free(e);
        return tr_fail(TR_E_MEMORY, "serving: no memory for %zu tokens",
                       r->n_prompt + r->max_tokens);
    }
    memcpy(e->tokens, r->prompt, r->n_prompt * sizeof *e->tokens);
    if (r->edit.n_bias)
        memcpy(e->bias, r->edit.bias, r->edit.n_bias * sizeof *e->bias);
    e->r.edit.bias = e->bias;
    e->r.prompt = NULL;
    e->n_tokens = r->n_prompt;
    e->arrived = e->last = tr_now();
    atomic_init(&e->is_cancelled, false);
    *out = e;
    return TR_OK;
}

static void free_list(entry *e)
{
    while (e) {
        entry *next = e->next;
        entry_free(e);
        e = next;
    }
}

static tr_status make_list(const tr_serving *s, const tr_serving_request *r, size_t n, entry **list,
                           entry ***end)
{
    *list = NULL;
    *end = list;
    for (size_t i = 0; i < n; i++) {
        tr_status st = check(s, &r[i]);
        if (st == TR_OK)
            st = entry_new(&r[i], *end);
        if (st != TR_OK) {
            free_list(*list);
            return st;
        }
        *end = &(**end)->next;
    }
    return TR_OK;
}

tr_status tr_serving_submit(tr_serving *s, const tr_serving_request *r, size_t n, uint64_t *tickets)
{
    entry *list, **end;

    TR_CHECK(n > 0);
    if (n > s->capacity)
        return tr_fail(TR_E_REQUEST,
                       "%zu answers are more than the %zu that can be written or wait here", n,
                       s->capacity);
    tr_status st = make_list(s, r, n, &list, &end);
    if (st != TR_OK)
        return st;
    pthread_mutex_lock(&s->lock);
    bool is_full = s->n_live + n > s->capacity;
    bool is_closed = s->is_draining || s->is_over;
    if (is_full || is_closed) {
        pthread_mutex_unlock(&s->lock);
        free_list(list);
        return is_closed ? tr_fail(TR_E_INTERRUPTED, "the server is stopping") : TR_E_BUSY;
    }
    size_t i = 0;
    for (entry *e = list; e; e = e->next)
        tickets[i++] = e->ticket = s->next_ticket++;
    *s->newcomers_end = list;
    s->newcomers_end = end;
    s->n_newcomers += n;
    s->n_live += n;
    pthread_cond_signal(&s->news);
    pthread_mutex_unlock(&s->lock);
    return TR_OK;
}

void tr_serving_cancel(tr_serving *s, uint64_t ticket)
{
    pthread_mutex_lock(&s->lock);
    for (entry *e = s->newcomers; e; e = e->next)
        if (e->ticket == ticket)
            atomic_store(&e->is_cancelled, true);
    for (size_t i = 0; i < s->n; i++)
        if (s->entries[i]->ticket == ticket)
            atomic_store(&s->entries[i]->is_cancelled, true);
    pthread_mutex_unlock(&s->lock);
}

void tr_serving_drain(tr_serving *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_draining = true;
    pthread_cond_signal(&s->news);
    pthread_mutex_unlock(&s->lock);
}

void tr_serving_stop(tr_serving *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_draining = s->is_stopped = true;
    pthread_cond_signal(&s->news);
    pthread_mutex_unlock(&s->lock);
}

double tr_serving_quantile(const tr_serving_histogram *h, double share)
{
    double rank = share * (double)h->n;
    uint64_t before = 0;

    for (size_t i = 0; i < TR_SERVING_BUCKETS; i++) {
        double low = i == 0 ? 0.0 : tr_serving_bounds[i - 1];
        double high = i + 1 < TR_SERVING_BUCKETS ? tr_serving_bounds[i] : low;
        if (h->bucket[i] > 0 && (double)(before + h->bucket[i]) >= rank)
            return low + (high - low) * (rank - (double)before) / (double)h->bucket[i];
        before += h->bucket[i];
    }
    return 0.0;
}

void tr_serving_get_stats(tr_serving *s, tr_serving_stats *out, uint64_t *picks,
                          uint64_t *traced_picks)
{
    size_t size = s->n_layers * s->n_experts * sizeof *s->picks;

    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    out->waiting += s->n_newcomers;
    out->max_rows = s->max_rows;
    out->is_draining = s->is_draining;
    if (picks)
        memcpy(picks, s->picks, size);
    if (traced_picks)
        memcpy(traced_picks, s->traced_picks, size);
    pthread_mutex_unlock(&s->lock);
}

/* ---- the loop ------------------------------------------------------------------------------ */

static void histogram_add(tr_serving_histogram *h, tr_time t)
{
    double seconds = (double)t / (double)TR_SECOND;
    size_t i = 0;

    while (i + 1 < TR_SERVING_BUCKETS && seconds > tr_serving_bounds[i])
        i++;
    h->bucket[i]++;
    h->n++;
    h->sum += seconds;
}

/* The request in place i has ended: its pages go back at once. */
static void finish(tr_serving *s, size_t i, tr_finish f, tr_status st, const char *why)
{
    entry *e = s->entries[i];

    pthread_mutex_lock(&s->lock);
    s->n--;
    s->n_live--;
    memmove(&s->entries[i], &s->entries[i + 1], (s->n - i) * sizeof(entry *));
    *(st == TR_OK              ? &s->stats.finished
      : st == TR_E_INTERRUPTED ? &s->stats.cancelled
                               : &s->stats.failed) += 1;
    pthread_mutex_unlock(&s->lock);
    e->r.on_end(e->r.ctx, f, st, why);
    entry_free(e);
}

static void end_all(tr_serving *s, tr_status st, const char *why)
{
    while (s->n > 0)
        finish(s, s->n - 1, TR_FINISH_LENGTH, st, why);
}

static void end_cancelled(tr_serving *s)
{
    for (size_t i = s->n; i-- > 0;)
        if (atomic_load(&s->entries[i]->is_cancelled))
            finish(s, i, TR_FINISH_STOP, TR_E_INTERRUPTED, "cancelled");
}

/* Under the lock. */
static void show_load(tr_serving *s)
{
    s->stats.running = tr_serving_count_running(s);
    s->stats.waiting = s->n - s->stats.running;
    s->stats.kv = tr_engine_kv_count(s->o.engine);
}

/* Newcomers take their places; then those who were cancelled leave, newcomers among them. */
static void take_news(tr_serving *s, bool *is_over)
{
    pthread_mutex_lock(&s->lock);
    show_load(s);
    if (s->n == 0 && !s->newcomers && !s->is_draining) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)idle_period;
        until.tv_sec += until.tv_nsec / TR_SECOND;
        until.tv_nsec %= TR_SECOND;
        pthread_cond_timedwait(&s->news, &s->lock, &until);
    }
    for (entry *e = s->newcomers; e; e = e->next)
        s->entries[s->n++] = e;
    s->newcomers = NULL;
    s->newcomers_end = &s->newcomers;
    s->n_newcomers = 0;
    *is_over = s->is_stopped || (s->is_draining && s->n == 0);
    s->is_over = s->is_over || *is_over;
    pthread_mutex_unlock(&s->lock);
    end_cancelled(s);
    pthread_mutex_lock(&s->lock);
    show_load(s);
    pthread_mutex_unlock(&s->lock);
}

/* The rows of this step, and who gets logits. */
static size_t gather(tr_serving *s)
{
    size_t n = 0;

    s->n_drawing = 0;
    for (size_t i = 0; i < s->n; i++) {
        entry *e = s->entries[i];
        e->row = SIZE_MAX;
        for (size_t k = 0; k < s->n_rows[i]; k++) {
            size_t at = s->items[i].computed + k;
            bool is_last = at + 1 == e->n_tokens;
            s->row_traced[n] = e->ticket == s->stats.traced;
            s->rows[n++] = (tr_row){ e->sequence, e->tokens[at], is_last };
            if (is_last) {
                e->row = s->n_drawing;
                s->drawing[s->n_drawing++] = e;
            }
        }
    }
    return n;
}

static size_t place_of(const tr_serving *s, const entry *e)
{
    size_t i = 0;

    while (s->entries[i] != e)
        i++;
    return i;
}

/* Hand out one drawn token; the request may end with it. */
static void deliver(tr_serving *s, entry *e)
{
    const tr_serving_request *r = &e->r;
    size_t i = place_of(s, e);
    tr_time now = tr_now();
    bool is_first = e->n_tokens == r->n_prompt;

    if (e->is_broken) {
        finish(s, i, TR_FINISH_STOP, TR_E_FORMAT,
               "the model's output is no number: its weights are broken, or overflow");
        return;
    }
    if (e->is_stuck) {
        finish(s, i, TR_FINISH_STOP, TR_E_REQUEST,
               "no token can go on from here: what the answer must be like and logit_bias exclude "
               "all of them");
        return;
    }
    pthread_mutex_lock(&s->lock);
    histogram_add(is_first ? &s->stats.first_token : &s->stats.between_tokens,
                  now - (is_first ? e->arrived : e->last));
    s->stats.generated_tokens++;
    s->stats.prompt_tokens += is_first ? r->n_prompt : 0;
    pthread_mutex_unlock(&s->lock);
    e->last = now;
    if (r->is_end && r->is_end(r->ctx, e->drawn.id)) {
        finish(s, i, TR_FINISH_END, TR_OK, NULL);
        return;
    }
    e->tokens[e->n_tokens++] = e->drawn.id;
    if (!r->on_token(r->ctx, &e->drawn))
        finish(s, i, TR_FINISH_STOP, TR_OK, NULL);
    else if (e->n_tokens == r->n_prompt + r->max_tokens)
        finish(s, i, TR_FINISH_LENGTH, TR_OK, NULL);
}

static tr_status step(tr_serving *s)
{
    tr_time begin = tr_now();
    tr_status st = tr_serving_plan(s);
    if (st != TR_OK)
        return st;
    size_t n = gather(s);
    TR_CHECK(n > 0);

    tr_time before = tr_now();
    st = tr_engine_step(s->o.engine, s->rows, n, s->logits);
    tr_time after = tr_now();
    if (st != TR_OK)
        return st;
    tr_step_time_add(&s->step_time, n, after - before);
    for (size_t i = 0; i < s->n; i++)
        if (s->n_rows[i] > 0)
            tr_sequence_name(s->entries[i]->sequence, s->entries[i]->tokens);
    tr_serving_draw(s);
    tr_time drawn = tr_now();
    for (size_t i = 0; i < s->n_drawing; i++)
        deliver(s, s->drawing[i]);

    pthread_mutex_lock(&s->lock);
    s->stats.steps++;
    s->stats.rows += n;
    s->stats.last_rows = n;
    s->stats.in_steps += after - before;
    s->stats.in_drawing += drawn - after;
    s->stats.in_schedule += before - begin + (tr_now() - drawn);
    pthread_mutex_unlock(&s->lock);
    return TR_OK;
}

/* As step; what goes wrong is said to everybody who waits for it. */
static tr_status step_or_tell(tr_serving *s)
{
    char why[REASON];

    tr_fail_capture_begin(why, sizeof why);
    tr_status st = step(s);
    tr_fail_capture_end();
    if (st == TR_OK)
        return st;
    end_all(s, st, why);
    return st == TR_E_INTERRUPTED ? st : tr_fail(st, "%s", why);
}

tr_status tr_serving_run(tr_serving *s)
{
    tr_status st = TR_OK;
    bool is_over = false;

    while (st == TR_OK) {
        if (s->o.tick)
            s->o.tick(s->o.ctx);
        take_news(s, &is_over);
        if (is_over)
            break;
        if (s->n > 0)
            st = step_or_tell(s);
        else
            st = tr_engine_pump(s->o.engine);
    }
    /* Who submitted between the last look and now is told too. */
    pthread_mutex_lock(&s->lock);
    s->is_over = true;
    pthread_mutex_unlock(&s->lock);
    take_news(s, &is_over);
    end_all(s, st == TR_OK ? TR_E_INTERRUPTED : st, "the server has stopped");
    return st;
}

void tr_serving_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows, size_t top_k)
{
    tr_serving *s = *(tr_serving **)ctx;

    if (!s || n_rows > s->max_rows)
        return;
    uint64_t *all = s->picks + layer * s->n_experts;
    uint64_t *traced = s->traced_picks + layer * s->n_experts;
    pthread_mutex_lock(&s->lock);
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t k = 0; k < top_k; k++) {
            uint32_t expert = picks[r * top_k + k].expert;
            all[expert]++;
            traced[expert] += s->row_traced[r];
        }
        s->stats.traced_tokens += layer == 0 && s->row_traced[r];
    }
    pthread_mutex_unlock(&s->lock);
}
