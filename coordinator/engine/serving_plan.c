/* serving_plan.c - from waiting and running requests to the rows of the next step.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/serving_state.h"

#include "base/check.h"

#include <string.h>

typedef tr_serving_entry entry;

size_t tr_serving_count_running(const tr_serving *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++)
        n += s->entries[i]->sequence != NULL;
    return n;
}

static entry *running_with(const tr_serving *s, uint64_t ticket)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->entries[i]->ticket == ticket && s->entries[i]->sequence)
            return s->entries[i];
    return NULL;
}

/* Tokens of the full pages with which both begin, short of e's last token. */
static size_t common_beginning(const entry *e, const entry *other)
{
    size_t most = e->n_tokens - 1 < other->n_tokens ? e->n_tokens - 1 : other->n_tokens;
    size_t n = 0;

    while (n + TR_KV_PAGE <= most &&
           memcmp(e->tokens + n, other->tokens + n, TR_KV_PAGE * sizeof *e->tokens) == 0)
        n += TR_KV_PAGE;
    return n;
}

static size_t length_of(const entry *e)
{
    return e->sequence ? tr_sequence_length(e->sequence) : 0;
}

/* Where another will have read the same tokens before it is e's turn, e waits for them: many
 * answers to one prompt read it once. */
static void follow(const tr_serving *s, size_t i)
{
    entry *e = s->entries[i];

    e->leader = 0;
    e->shared = length_of(e);
    for (size_t k = 0; k < s->n; k++) {
        const entry *other = s->entries[k];
        if (!other->sequence || !tr_schedule_goes_before(&s->items[k], &s->items[i]))
            continue;
        size_t common = common_beginning(e, other);
        if (common > e->shared && length_of(other) < common) {
            e->leader = other->ticket;
            e->shared = common;
        }
    }
}

/* What others have read since e was let in need not be read again. */
static void find_more(tr_serving *s, entry *e)
{
    size_t before = tr_sequence_length(e->sequence);
    size_t found = tr_sequence_find(e->sequence, e->tokens, e->n_tokens) - before;

    if (found == 0 || e->was_sent_back)
        return;
    pthread_mutex_lock(&s->lock);
    s->stats.prefix_hits += found;
    pthread_mutex_unlock(&s->lock);
}

static void describe(tr_serving *s)
{
    for (size_t i = 0; i < s->n; i++) {
        entry *e = s->entries[i];
        if (e->leader)
            find_more(s, e);
        s->items[i] = (tr_schedule_item){
            .known = e->n_tokens,
            .computed = length_of(e),
            .due = e->arrived - e->r.priority * tr_schedule_point,
            .ticket = e->ticket,
            .is_running = e->sequence != NULL,
        };
    }
    for (size_t i = 0; i < s->n; i++) {
        entry *e = s->entries[i];
        if (!e->leader)
            continue;
        const entry *leader = running_with(s, e->leader);
        if (!leader || length_of(leader) >= e->shared)
            follow(s, i);
        s->items[i].is_held = e->leader != 0;
    }
}

/* Pages that those who run have yet to take for the tokens they know. */
static size_t pages_promised(const tr_serving *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++) {
        const entry *e = s->entries[i];
        if (!e->sequence)
            continue;
        size_t has = e->leader ? e->shared : length_of(e);
        n += tr_kv_pages_for(e->n_tokens) - tr_kv_pages_for(has);
    }
    return n;
}

static void show_let_in(tr_serving *s, const entry *e)
{
    pthread_mutex_lock(&s->lock);
    s->stats.prefix_tokens += e->n_tokens;
    s->stats.prefix_hits += tr_sequence_length(e->sequence);
    s->stats.traced = e->ticket;
    memcpy(s->stats.traced_name, e->r.name, sizeof s->stats.traced_name);
    s->stats.traced_tokens = 0;
    memset(s->traced_picks, 0, s->n_layers * s->n_experts * sizeof *s->traced_picks);
    pthread_mutex_unlock(&s->lock);
}

static void drop_sequence(tr_serving *s, size_t i)
{
    tr_sequence_free(&s->entries[i]->sequence);
    s->entries[i]->leader = 0;
    s->items[i].is_running = s->items[i].is_held = false;
    s->items[i].computed = 0;
}

/* Give the request in place i a sequence if the pages for what it knows are there, and one more
 * while others run: who is let in should not have to leave at once. */
static tr_status try_to_let_in(tr_serving *s, size_t i, bool others_run, bool *is_in)
{
    entry *e = s->entries[i];
    size_t room = tr_engine_kv_available(s->o.engine);
    size_t promised = pages_promised(s);

    *is_in = false;
    room = room > promised ? room - promised : 0;
    if (others_run && s->refused == e->ticket && room <= s->refused_room)
        return TR_OK;
    tr_status st = tr_sequence_new(s->o.engine, &e->sequence);
    if (st != TR_OK)
        return st;
    tr_sequence_find(e->sequence, e->tokens, e->n_tokens);
    s->items[i].is_running = true;
    s->items[i].computed = length_of(e);
    follow(s, i);
    s->items[i].is_held = e->leader != 0;
    if (pages_promised(s) + others_run > tr_engine_kv_available(s->o.engine)) {
        drop_sequence(s, i);
        s->refused = e->ticket;
        s->refused_room = room;
        return TR_OK;
    }
    *is_in = true;
    if (!e->was_sent_back)
        show_let_in(s, e);
    return TR_OK;
}

/* Whoever waits and fits, in order. */
static tr_status let_in(tr_serving *s)
{
    for (size_t running = tr_serving_count_running(s); running < s->o.max_running; running++) {
        size_t i = tr_schedule_next(s->items, s->n);
        bool is_in;
        if (i == TR_SCHEDULE_NONE)
            return TR_OK;
        tr_status st = try_to_let_in(s, i, running > 0, &is_in);
        TR_CHECK(st != TR_E_BUSY);
        if (st != TR_OK || !is_in)
            return st;
    }
    return TR_OK;
}

static void send_back(tr_serving *s, size_t i)
{
    drop_sequence(s, i);
    s->entries[i]->was_sent_back = true;
    s->n_rows[i] = 0;
    pthread_mutex_lock(&s->lock);
    s->stats.preempted++;
    pthread_mutex_unlock(&s->lock);
}

/* Pages for the rows of every sequence of this step.  Where they run out the last in order give
 * theirs back; the first can always go on, since none is larger than the whole cache. */
static tr_status reserve_pages(tr_serving *s)
{
    for (size_t i = 0; i < s->n; i++) {
        while (s->n_rows[i] > 0) {
            tr_status st =
                tr_sequence_reserve(s->entries[i]->sequence, s->items[i].computed + s->n_rows[i]);
            if (st == TR_OK)
                break;
            if (st != TR_E_BUSY)
                return st;
            send_back(s, tr_schedule_victim(s->items, s->n));
        }
    }
    return TR_OK;
}

tr_status tr_serving_plan(tr_serving *s)
{
    tr_schedule_limits limits = { .max_rows = s->max_rows, .max_logits = s->o.max_running };

    describe(s);
    tr_status st = let_in(s);
    if (st != TR_OK)
        return st;
    limits.chunk = tr_schedule_chunk(s->items, s->n, &s->step_time, s->max_rows);
    tr_schedule_rows(s->items, s->n, &limits, s->n_rows);
    return reserve_pages(s);
}
