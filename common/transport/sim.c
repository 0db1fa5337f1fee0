/* sim.c - processes, the baton, and the queue of events.
 *
 * There is no scheduler thread: whoever gives the baton away looks for the next event that makes a
 * process run, and hands it over, to itself perhaps.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/sim.h"

#include "base/check.h"
#include "base/rng.h"
#include "transport/sim_world.h"

#include <stdlib.h>

/* Time begins late enough that nobody takes it for "never". */
static const tr_time begin_of_time = 1000 * TR_SECOND;

/* What a call into the world takes; and to a dead process, whose loops are to end. */
static const tr_time moment = 50;
static const tr_time ghost_moment = 20 * TR_MS;

/* ---- the queue --------------------------------------------------------------------------- */

static bool is_before(const tr_world_event *a, const tr_world_event *b)
{
    return a->time != b->time ? a->time < b->time : a->number < b->number;
}

static void discard(const tr_world_event *e)
{
    if (e->kind == TR_WORLD_DATA)
        tr_msg_pool_put(e->u.slab);
    else if (e->kind == TR_WORLD_NOTE)
        free(e->u.note);
}

static bool make_room(tr_sim *s)
{
    if (s->n_queue < s->queue_room)
        return true;
    size_t room = 2 * s->queue_room + 64;
    tr_world_event *larger = realloc(s->queue, room * sizeof *larger);
    if (!larger)
        return false;
    s->queue = larger;
    s->queue_room = room;
    return true;
}

void tr_world_push(tr_sim *s, const tr_world_event *event)
{
    tr_world_event e = *event;
    size_t i = s->n_queue;

    if (!make_room(s)) {
        discard(&e);
        tr_world_end(s, tr_fail(TR_E_MEMORY, "simulation: no memory for events"));
        return;
    }
    e.number = ++s->n_events;
    for (; i > 0 && is_before(&e, &s->queue[(i - 1) / 2]); i = (i - 1) / 2)
        s->queue[i] = s->queue[(i - 1) / 2];
    s->queue[i] = e;
    s->n_queue++;
}

static tr_world_event pop(tr_sim *s)
{
    tr_world_event first = s->queue[0];
    tr_world_event last = s->queue[--s->n_queue];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n_queue)
            break;
        if (child + 1 < s->n_queue && is_before(&s->queue[child + 1], &s->queue[child]))
            child++;
        if (is_before(&last, &s->queue[child]))
            break;
        s->queue[i] = s->queue[child];
        i = child;
    }
    s->queue[i] = last;
    return first;
}

/* ---- who runs next ------------------------------------------------------------------------- */

static void wake_at(tr_world_process *p, tr_time time)
{
    tr_sim *s = p->sim;

    p->wake = s->n_events + 1;
    tr_world_push(s, &(tr_world_event){ .time = time, .kind = TR_WORLD_WAKE, .to = p->base.self });
}

void tr_world_wake(tr_world_process *p, tr_world_wait_for what)
{
    if (p->waits != what || p->is_dead || p->has_ended)
        return;
    p->waits = TR_WORLD_FOR_TIME; /* one awakening is enough */
    wake_at(p, p->sim->now);
}

void tr_world_end(tr_sim *s, tr_status why)
{
    if (s->failed == TR_OK)
        s->failed = why;
    for (tr_peer i = 0; i <= s->o.n_workers; i++) {
        tr_world_process *p = &s->process[i];
        if (!p->is_started || p->has_ended || p->is_dead)
            continue;
        p->is_dead = true;
        p->was_ended = true;
        p->ghost = s->now;
    }
}

/* A dead process that waits: it runs to its end.  NULL: none. */
static tr_world_process *find_ghost(tr_sim *s)
{
    for (tr_peer i = 0; i <= s->o.n_workers; i++) {
        tr_world_process *p = &s->process[i];
        if (p->is_started && p->is_dead && !p->has_ended)
            return p;
    }
    return NULL;
}

static bool is_anybody_left(const tr_sim *s)
{
    for (tr_peer i = 0; i <= s->o.n_workers; i++)
        if (s->process[i].is_started && !s->process[i].has_ended)
            return true;
    return false;
}

/* False: whoever is left was made to hang for ever. */
static bool is_anybody_awake(const tr_sim *s)
{
    for (tr_peer i = 0; i <= s->o.n_workers; i++) {
        const tr_world_process *p = &s->process[i];
        if (p->is_started && !p->has_ended && p->hung_until != TR_FOREVER)
            return true;
    }
    return false;
}

/* The process that a wake event makes run; NULL if it is stale or comes to one that hangs. */
static tr_world_process *woken(tr_sim *s, const tr_world_event *e)
{
    tr_world_process *p = &s->process[e->to];

    if (p->wake != e->number || p->has_ended)
        return NULL;
    if (p->hung_until > s->now) {
        p->wake = 0;
        p->waits = TR_WORLD_FOR_TIME;
        if (p->hung_until != TR_FOREVER)
            wake_at(p, p->hung_until);
        return NULL;
    }
    return p;
}

static tr_world_process *handle(tr_sim *s, const tr_world_event *e)
{
    if (e->kind == TR_WORLD_WAKE)
        return woken(s, e);
    if (e->kind == TR_WORLD_FAULT) {
        tr_world_fault_happens(s, &e->u.fault);
        return NULL;
    }
    s->hash = tr_rng_u64(s->hash, (uint64_t)e->time,
                         (uint64_t)e->kind << 48 | (uint64_t)e->from << 24 | e->to);
    if (e->kind == TR_WORLD_DATA)
        tr_world_data_arrive(s, e->from, e->to, e->u.slab);
    else if (e->kind == TR_WORLD_CLOSED)
        tr_world_closed_arrives(s, e->from, e->to);
    else
        tr_world_note_arrives(s, e->from, e->to, e->u.note);
    return NULL;
}

/* NULL: all have ended. */
static tr_world_process *next_to_run(tr_sim *s)
{
    for (;;) {
        tr_world_process *p = find_ghost(s);
        if (p || !is_anybody_left(s))
            return p;
        if (s->n_queue == 0 || s->queue[0].time - begin_of_time > s->o.time_limit) {
            tr_world_end(s, is_anybody_awake(s) ? TR_E_DEADLINE : TR_OK);
            continue;
        }
        tr_world_event e = pop(s);
        if (e.time > s->now)
            s->now = e.time;
        p = handle(s, &e);
        if (p)
            return p;
    }
}

/* ---- the baton ----------------------------------------------------------------------------- */

/* to NULL: nobody gets it. */
static void hand_over(tr_sim *s, tr_world_process *to)
{
    if (!to)
        return;
    pthread_mutex_lock(&s->lock);
    to->has_baton = true;
    pthread_cond_signal(&to->turn);
    pthread_mutex_unlock(&s->lock);
}

static void await_baton(tr_world_process *p)
{
    tr_sim *s = p->sim;

    pthread_mutex_lock(&s->lock);
    while (!p->has_baton)
        pthread_cond_wait(&p->turn, &s->lock);
    p->has_baton = false;
    pthread_mutex_unlock(&s->lock);
}

void tr_world_wait(tr_world_process *p, tr_time until, tr_world_wait_for what)
{
    if (p->is_dead)
        return;
    p->waits = what;
    p->wake = 0;
    if (until != TR_FOREVER)
        wake_at(p, until);
    tr_world_process *next = next_to_run(p->sim);
    if (next != p) {
        hand_over(p->sim, next);
        await_baton(p);
    }
    p->waits = TR_WORLD_RUNS;
}

void tr_world_let_others(tr_world_process *p)
{
    tr_sim *s = p->sim;

    if (!p->is_dead && s->n_queue > 0 && s->queue[0].time <= s->now)
        tr_world_wait(p, s->now, TR_WORLD_FOR_TIME);
}

void tr_world_spend(tr_world_process *p)
{
    if (p->is_dead)
        p->ghost += ghost_moment;
    else
        p->sim->now += moment;
}

/* ---- time ---------------------------------------------------------------------------------- */

static tr_time world_now(void *ctx)
{
    tr_world_process *p = ctx;

    tr_world_spend(p);
    return p->is_dead ? p->ghost : p->sim->now;
}

static void world_sleep(void *ctx, tr_time d)
{
    tr_world_process *p = ctx;

    tr_world_spend(p);
    if (p->is_dead)
        p->ghost = tr_deadline_after(p->ghost, d);
    else
        tr_world_wait(p, tr_deadline_after(p->sim->now, d > 0 ? d : 0), TR_WORLD_FOR_TIME);
}

/* ---- processes ----------------------------------------------------------------------------- */

static void use_world(tr_world_process *p)
{
    tr_clock_use_here(&p->clock);
    tr_fault_use_here(&p->faults);
}

static void leave_world(void)
{
    tr_clock_use_here(NULL);
    tr_fault_use_here(NULL);
}

static void *thread_main(void *ctx)
{
    tr_world_process *p = ctx;
    tr_transport *t = &p->base;

    await_baton(p);
    p->waits = TR_WORLD_RUNS;
    use_world(p);
    tr_fail_capture_begin(p->last_words, sizeof p->last_words);
    p->st = p->run(t, p->ctx);
    tr_fail_capture_end();
    tr_transport_close(&t);
    leave_world();
    p->has_ended = true;
    hand_over(p->sim, next_to_run(p->sim));
    return NULL;
}

/* The process is there, and waits for its first turn. */
static void process_begin(tr_world_process *p)
{
    p->is_started = true;
    p->waits = TR_WORLD_FOR_TIME;
    wake_at(p, p->sim->now);
}

tr_status tr_sim_start(tr_sim *s, tr_peer worker, tr_sim_main run, void *ctx)
{
    TR_CHECK(worker >= 1);
    TR_CHECK(worker <= s->o.n_workers);
    tr_world_process *p = &s->process[worker];
    TR_CHECK(!p->is_started);
    p->run = run;
    p->ctx = ctx;
    if (pthread_create(&p->thread, NULL, thread_main, p) != 0)
        return tr_fail(TR_E_SYSTEM, "simulation: worker %u gets no thread", worker);
    process_begin(p);
    return TR_OK;
}

tr_transport *tr_sim_enter(tr_sim *s)
{
    tr_world_process *p = &s->process[0];

    TR_CHECK(!p->is_started);
    p->is_started = true;
    p->thread = pthread_self();
    use_world(p);
    return &p->base;
}

tr_status tr_sim_leave(tr_sim *s)
{
    tr_world_process *p = &s->process[0];

    TR_CHECK(p->is_started);
    TR_CHECK(!p->has_ended);
    if (!p->is_closed && !p->is_dead)
        tr_world_data_close(p);
    leave_world();
    p->has_ended = true;
    hand_over(s, next_to_run(s));
    for (tr_peer i = 1; i <= s->o.n_workers; i++)
        if (s->process[i].is_started)
            pthread_join(s->process[i].thread, NULL);
    return s->failed;
}

/* ---- the world ----------------------------------------------------------------------------- */

static void process_init(tr_sim *s, tr_peer self)
{
    tr_world_process *p = &s->process[self];

    p->base = (tr_transport){
        .ops = &tr_world_data_ops, .self = self, .n_peers = s->o.n_workers, .links = &tr_world_links
    };
    p->sim = s;
    p->clock = (tr_clock_source){ world_now, world_sleep, p };
    p->memory_limit = UINT64_MAX;
    tr_world_faults_of_process(p);
    TR_CHECK(pthread_cond_init(&p->turn, NULL) == 0);
}

tr_status tr_sim_new(const tr_sim_options *o, tr_sim **out)
{
    size_t n = (size_t)o->n_workers + 1;
    tr_sim *s = calloc(1, sizeof *s);

    if (s) {
        s->process = calloc(n, sizeof *s->process);
        s->ways = calloc(n * n, sizeof *s->ways);
        s->connection = calloc(n, sizeof *s->connection);
    }
    if (!s || !s->process || !s->ways || !s->connection) {
        if (s) {
            free(s->process);
            free(s->ways);
            free(s->connection);
        }
        free(s);
        return tr_fail(TR_E_MEMORY, "simulation: no memory for %zu processes", n);
    }
    s->o = *o;
    s->now = begin_of_time;
    s->hash = o->seed;
    TR_CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    tr_msg_pool_init(&s->pool, &tr_world_msg_ops, s);
    for (tr_peer i = 0; i < n; i++)
        process_init(s, i);
    tr_world_plan_faults(s);
    *out = s;
    return TR_OK;
}

void tr_sim_free(tr_sim **sim)
{
    tr_sim *s = *sim;

    if (!s)
        return;
    for (tr_peer i = 0; i <= s->o.n_workers; i++) {
        tr_world_process *p = &s->process[i];
        TR_CHECK(p->has_ended || !p->is_started);
        for (tr_slab *slab; (slab = tr_slab_pop(&p->inbox));)
            tr_msg_pool_put(slab);
        pthread_cond_destroy(&p->turn);
    }
    for (size_t i = 0; i < s->n_queue; i++)
        discard(&s->queue[i]);
    tr_msg_pool_fini(&s->pool);
    pthread_mutex_destroy(&s->lock);
    free(s->record);
    free(s->queue);
    free(s->connection);
    free(s->ways);
    free(s->process);
    free(s);
    *sim = NULL;
}

tr_sim_process_view tr_sim_process(const tr_sim *s, tr_peer peer)
{
    TR_CHECK(peer <= s->o.n_workers);
    const tr_world_process *p = &s->process[peer];

    return (tr_sim_process_view){ p->is_started, p->is_dead && !p->was_ended, p->was_ended, p->st,
                                  p->last_words };
}

uint64_t tr_sim_hash(const tr_sim *s)
{
    return s->hash;
}

tr_time tr_sim_elapsed(const tr_sim *s)
{
    return s->now - begin_of_time;
}
