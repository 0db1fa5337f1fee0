/* members.c - check, watch, tell to stop.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/members.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "coordinator/cluster/members_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* How often a pump really looks, and how long a loading worker may be silent: one expert comes from
 * a slow disk in one piece. */
static const tr_time look_period = 10 * TR_MS;
static const tr_time loading_silence = 120 * TR_SECOND;
/* One that loads more than its first experts speaks after each. */
static const tr_time adopting_patience = 5 * TR_SECOND;

/* After so long without another a worker's refused answers are forgotten. */
static const tr_time refused_memory = 600 * TR_SECOND;

/* How long a worker that is suspected has to say bye at a job's end, and others. */
static const tr_time suspects_farewell = 300 * TR_MS;
static const tr_time farewell = TR_SECOND;

uint64_t tr_members_job(const tr_members *m)
{
    return m->job;
}

const tr_member *tr_members_get(const tr_members *m, uint32_t peer)
{
    return &m->member[peer - 1];
}

static tr_status send(tr_members *m, uint32_t peer, const tr_control *c)
{
    size_t size;

    tr_status st = tr_wire_pack(c, m->buffer, TR_MAX_CONTROL, &size);
    if (st != TR_OK)
        return st;
    return tr_link_send(m->link, peer, (tr_bytes){ m->buffer, size });
}

/* ---- a worker's state ------------------------------------------------------------------ */

bool tr_members_is_usable(const tr_members *m, uint32_t peer)
{
    const tr_member *w = &m->member[peer - 1];

    return w->state == TR_MEMBER_READY || (w->state == TR_MEMBER_LOADING && !w->is_replacement);
}

bool tr_members_answers(const tr_members *m, uint32_t peer)
{
    return tr_members_is_usable(m, peer) || m->member[peer - 1].state == TR_MEMBER_DRAINING;
}

uint64_t tr_members_changes(const tr_members *m)
{
    return m->changes;
}

void tr_members_enter(tr_members *m, uint32_t peer, tr_member_state state)
{
    tr_member *w = &m->member[peer - 1];

    w->state = state;
    w->changed = tr_now();
    m->changes++;
}

static void drop(tr_members *m, uint32_t peer)
{
    tr_transport_drop(m->transport, peer);
    if (m->o.inviter && peer <= m->o.inviter->n_peers)
        tr_transport_drop(m->o.inviter, peer);
}

/* "worker 2 (pid 17 on node1)", as far as it is known. */
static void name_of(const tr_members *m, uint32_t peer, char *out, size_t size)
{
    const tr_hello *h = &m->member[peer - 1].hello;

    if (h->pid)
        snprintf(out, size, "worker %u (pid %u on %s)", peer, h->pid, h->host);
    else
        snprintf(out, size, "worker %u", peer);
}

/* Before it has its experts a worker's loss ends the job, with a line that names it; the first loss
 * decides the sticky status. */
static void lose(tr_members *m, uint32_t peer, tr_status st, const char *format, va_list args)
    __attribute__((format(printf, 4, 0)));

static void lose(tr_members *m, uint32_t peer, tr_status st, const char *format, va_list args)
{
    tr_member *w = &m->member[peer - 1];
    bool is_needed = w->state == TR_MEMBER_JOINING && !w->is_replacement;
    const tr_control over = { .kind = TR_CONTROL_SHUTDOWN, .shutdown = { true, true } };
    char name[2 * TR_MAX_NAME];

    if (w->state == TR_MEMBER_LOST || w->state == TR_MEMBER_LEFT)
        return;
    m->has_lost = true;
    vsnprintf(w->why, sizeof w->why, format, args);
    tr_fault_log_noticed(m->o.faults, peer, w->why);
    w->is_adopting = false;
    if (w->is_accepted) /* if it lives, it need not wonder where the coordinator is */
        send(m, peer, &over);
    tr_members_enter(m, peer, TR_MEMBER_LOST);
    drop(m, peer);
    if (tr_interrupted()) { /* the signal that ends us ended it first */
        m->lost = m->lost == TR_OK ? TR_E_INTERRUPTED : m->lost;
        return;
    }
    if (m->is_closing)
        return;
    name_of(m, peer, name, sizeof name);
    if (!is_needed) {
        tr_log(TR_LOG_WARN, "%s %s", name, w->why);
        return;
    }
    tr_fail(st, "%s %s", name, w->why);
    if (m->lost == TR_OK)
        m->lost = st;
}

void tr_members_lose(tr_members *m, uint32_t peer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    lose(m, peer, TR_E_PEER_LOST, format, args);
    va_end(args);
}

static void suspect(tr_members *m, uint32_t peer, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

static void suspect(tr_members *m, uint32_t peer, const char *format, va_list args)
{
    tr_member *w = &m->member[peer - 1];
    char name[2 * TR_MAX_NAME];

    if (w->state != TR_MEMBER_READY)
        return;
    vsnprintf(w->why, sizeof w->why, format, args);
    tr_fault_log_noticed(m->o.faults, peer, w->why);
    tr_members_enter(m, peer, TR_MEMBER_SUSPECT);
    name_of(m, peer, name, sizeof name);
    tr_log(TR_LOG_WARN, "%s %s: others compute for it", name, w->why);
}

void tr_members_suspect(tr_members *m, uint32_t peer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    suspect(m, peer, format, args);
    va_end(args);
    m->member[peer - 1].is_late = m->member[peer - 1].state == TR_MEMBER_SUSPECT;
}

static void suspect_silent(tr_members *m, uint32_t peer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void suspect_silent(tr_members *m, uint32_t peer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    suspect(m, peer, format, args);
    va_end(args);
}

static void take_back(tr_members *m, uint32_t peer)
{
    tr_member *w = &m->member[peer - 1];
    char name[2 * TR_MAX_NAME];

    w->is_late = false;
    w->heard = tr_now(); /* by an answer, say */
    name_of(m, peer, name, sizeof name);
    tr_log(TR_LOG_WARN, "%s is back after %.2f s", name,
           (double)(tr_now() - w->changed) / (double)TR_SECOND);
    tr_members_enter(m, peer, TR_MEMBER_READY);
}

void tr_members_trust(tr_members *m, uint32_t peer)
{
    m->member[peer - 1].fetching = 0;
    if (m->member[peer - 1].state == TR_MEMBER_SUSPECT)
        take_back(m, peer);
}

uint32_t tr_members_count_refused(tr_members *m, uint32_t peer)
{
    tr_member *w = &m->member[peer - 1];
    tr_time now = tr_now();

    if (now - w->refused > refused_memory)
        w->n_refused = 0;
    w->refused = now;
    return ++w->n_refused;
}

/* ---- what workers say ------------------------------------------------------------------ */

static void refuse_line(tr_members *m, uint32_t peer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void refuse_line(tr_members *m, uint32_t peer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    lose(m, peer, TR_E_REFUSED, format, args);
    va_end(args);
}

static void refuse(tr_members *m, uint32_t peer, const char *reason)
{
    tr_control c = { .kind = TR_CONTROL_REFUSE };

    snprintf(c.reason, sizeof c.reason, "%s", reason);
    send(m, peer, &c); /* if it is gone, it need not know */
    refuse_line(m, peer, "is refused: %s", reason);
}

static void on_hello(tr_members *m, uint32_t peer, const tr_hello *h)
{
    tr_member *w = &m->member[peer - 1];
    char reason[512];

    if (w->state != TR_MEMBER_JOINING || w->is_accepted) {
        m->n_dropped++;
        return;
    }
    w->hello = *h;
    reason[0] = '\0';
    if (h->protocol != TR_PROTOCOL || strcmp(h->program, m->o.version) != 0)
        snprintf(reason, sizeof reason,
                 "it is version %s (protocol %u), the coordinator %s (protocol %d): install the "
                 "same everywhere",
                 h->program, h->protocol, m->o.version, TR_PROTOCOL);
    else if (h->worker != peer)
        snprintf(reason, sizeof reason, "it calls itself worker %u", h->worker);
    else if (h->model != m->o.model)
        snprintf(reason, sizeof reason,
                 "its model file (identity %016llx) is not the coordinator's (%016llx): copy %s "
                 "to its host",
                 (unsigned long long)h->model, (unsigned long long)m->o.model, m->o.model_path);
    if (reason[0])
        refuse(m, peer, reason);
    else {
        w->is_accepted = true;
        m->changes++;
    }
}

static void become_ready(tr_members *m, uint32_t peer)
{
    char name[2 * TR_MAX_NAME];

    tr_members_enter(m, peer, TR_MEMBER_READY);
    name_of(m, peer, name, sizeof name);
    if (m->member[peer - 1].is_replacement)
        tr_log(TR_LOG_WARN, "%s has taken the place of the one that was lost", name);
}

static void drain_worker(tr_members *m, uint32_t peer)
{
    tr_member *w = &m->member[peer - 1];
    char name[2 * TR_MAX_NAME];

    if ((w->state != TR_MEMBER_READY && w->state != TR_MEMBER_SUSPECT) || tr_interrupted())
        return; /* the signal that ends us reached it as well */
    name_of(m, peer, name, sizeof name);
    tr_log(TR_LOG_WARN, "%s asks to leave: others take its experts", name);
    snprintf(w->why, sizeof w->why, "leaves");
    w->is_late = false;
    tr_members_enter(m, peer, TR_MEMBER_DRAINING);
}

void tr_members_release(tr_members *m, uint32_t peer)
{
    const tr_control over = { .kind = TR_CONTROL_SHUTDOWN, .shutdown = { false, true } };
    tr_member *w = &m->member[peer - 1];

    if (w->state != TR_MEMBER_DRAINING || w->is_released)
        return;
    w->is_released = true;
    send(m, peer, &over); /* if it is gone, its connection's end says so */
}

static void on_bye(tr_members *m, uint32_t peer)
{
    tr_member *w = &m->member[peer - 1];

    if (w->state == TR_MEMBER_LOST)
        return;
    if (w->state == TR_MEMBER_DRAINING) { /* MPI must not wait for it */
        m->has_lost = true;
        drop(m, peer);
    }
    tr_members_enter(m, peer, TR_MEMBER_LEFT);
}

static void on_message(tr_members *m, uint32_t peer, tr_control *c)
{
    tr_member *w = &m->member[peer - 1];
    bool is_loading = w->state == TR_MEMBER_LOADING || w->is_adopting;

    if (c->kind == TR_CONTROL_HELLO) {
        on_hello(m, peer, &c->hello);
    } else if (c->kind == TR_CONTROL_FAILURE) {
        tr_members_lose(m, peer, "gave up: %s", c->reason);
    } else if (c->kind == TR_CONTROL_LEAVE) {
        drain_worker(m, peer);
    } else if (c->kind == TR_CONTROL_BYE) {
        on_bye(m, peer);
    } else if (c->kind == TR_CONTROL_PROGRESS && is_loading) {
        w->loaded = c->progress.done;
        w->to_load = c->progress.total;
    } else if (c->kind == TR_CONTROL_PROGRESS && w->has_more && w->state < TR_MEMBER_LOST) {
        w->fetching = tr_now();
    } else if (c->kind == TR_CONTROL_READY && is_loading) {
        if (w->state == TR_MEMBER_LOADING)
            become_ready(m, peer);
        w->is_adopting = false;
        w->fetching = 0;
        m->changes++;
        w->n_experts = c->ready.experts;
        w->loaded = w->to_load = c->ready.bytes;
    } else if (c->kind == TR_CONTROL_INJECTED) {
        tr_fault_log_injected(m->o.faults, peer, c->injected.number, c->injected.nth);
    } else if (c->kind == TR_CONTROL_HEARTBEAT) {
        w->stats = c->heartbeat;
        w->fetching = 0;
    } else {
        m->n_dropped++;
    }
}

/* Others do its work by now. */
static void turn_away(tr_members *m, uint32_t peer)
{
    const tr_control over = { .kind = TR_CONTROL_SHUTDOWN, .shutdown = { true, true } };

    m->n_dropped++;
    send(m, peer, &over);
}

static void on_event(tr_members *m, const tr_link_event *e)
{
    char reason[512];
    tr_control c;

    if (e->peer < 1 || e->peer > m->n)
        return;
    tr_member *w = &m->member[e->peer - 1];
    if (e->kind == TR_LINK_GONE) {
        tr_members_lose(m, e->peer, "died: its connection ended");
        return;
    }
    w->heard = tr_now();
    if (w->state == TR_MEMBER_SUSPECT && !w->is_late)
        take_back(m, e->peer);
    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_wire_unpack(e->bytes, &c);
    tr_fail_capture_end();
    if (st != TR_OK) {
        m->n_dropped++;
        tr_log(TR_LOG_WARN, "worker %u: message dropped: %s", e->peer, reason);
        return;
    }
    if (w->state != TR_MEMBER_LOST || c.kind == TR_CONTROL_INJECTED)
        on_message(m, e->peer, &c); /* its last word may be what it died of */
    else
        turn_away(m, e->peer);
    tr_control_fini(&c);
}

/* All that has come, waiting up to timeout for the first of it. */
static tr_status drain(tr_members *m, tr_time timeout)
{
    for (;;) {
        tr_link_event e;
        tr_status st = tr_link_poll(m->link, timeout, &e);
        if (st == TR_E_DEADLINE)
            return TR_OK;
        if (st != TR_OK)
            return st;
        on_event(m, &e);
        timeout = 0;
    }
}

static bool may_be_reading(const tr_member *w)
{
    return w->state == TR_MEMBER_LOADING || w->is_adopting || w->fetching;
}

/* How long a worker may be silent before it is suspect; INT64_MAX: for ever. */
static tr_time patience_with(const tr_members *m, const tr_member *w)
{
    tr_time patience = m->o.suspect_timeout;

    if (patience == 0 || w->state == TR_MEMBER_LOADING)
        return INT64_MAX;
    return may_be_reading(w) && patience < adopting_patience ? adopting_patience : patience;
}

/* After a drain: who has said nothing for too long?  Workers that have not joined yet have the
 * join's own deadline.  Whoever was away itself (a stopped job that goes on) has not listened. */
static void find_silent(tr_members *m, tr_time now)
{
    for (uint32_t peer = 1; peer <= m->n; peer++) {
        const tr_member *w = &m->member[peer - 1];
        tr_time limit = may_be_reading(w) ? loading_silence : m->o.silence_timeout;
        tr_time since = w->heard > m->attentive ? w->heard : m->attentive;
        double seconds = (double)(now - since) / (double)TR_SECOND;
        if (w->state < TR_MEMBER_LOADING || w->state >= TR_MEMBER_LOST)
            continue;
        if (now - since > limit)
            tr_members_lose(m, peer, "is silent for %.1f s: it hangs or is cut off", seconds);
        else if (now - since > patience_with(m, w))
            suspect_silent(m, peer, "is silent for %.2f s", seconds);
    }
}

static void say_alive(tr_members *m, tr_time now)
{
    const tr_control alive = { .kind = TR_CONTROL_ALIVE };

    if (now - m->said_alive < m->o.heartbeat)
        return;
    m->said_alive = now;
    for (uint32_t peer = 1; peer <= m->n; peer++)
        if (m->member[peer - 1].is_accepted && m->member[peer - 1].state < TR_MEMBER_LOST)
            send(m, peer, &alive); /* who is gone shows by its connection's end */
}

tr_status tr_members_look(tr_members *m, tr_time timeout)
{
    tr_status st = drain(m, timeout);
    tr_time now = tr_now();

    tr_time limit = m->o.suspect_timeout > 0 ? m->o.suspect_timeout : m->o.silence_timeout;
    if (now - m->looked > limit / 2)
        m->attentive = now;
    m->looked = now;
    if (st != TR_OK)
        return st;
    find_silent(m, now);
    say_alive(m, now);
    return m->lost;
}

tr_status tr_members_pump(tr_members *m)
{
    if (m->lost != TR_OK || tr_now() - m->looked < look_period)
        return m->lost;
    return tr_members_look(m, 0);
}

/* "worker 2, worker 5" for those that are not in the state; false if there is none. */
bool tr_members_name_missing(const tr_members *m, bool (*is_there)(const tr_member *), char *out,
                             size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < m->n; i++)
        if (!is_there(&m->member[i]) && used < size)
            used +=
                (size_t)snprintf(out + used, size - used, "%sworker %u", used ? ", " : "", i + 1);
    return used > 0;
}

static bool has_loaded(const tr_member *w)
{
    return w->is_replacement || (w->state > TR_MEMBER_LOADING && !w->is_adopting);
}

tr_status tr_members_open(const tr_members_options *o, tr_transport *t, tr_members **out)
{
    tr_members *m = calloc(1, sizeof *m);
    tr_status st = TR_OK;

    if (!m)
        return tr_fail(TR_E_MEMORY, "members: no memory");
    m->o = *o;
    m->transport = t;
    m->n = t->n_peers;
    m->member = calloc(m->n, sizeof *m->member);
    m->buffer = malloc(TR_MAX_CONTROL);
    m->model_path = strdup(o->model_path); /* replacements are told later */
    m->o.model_path = m->model_path;
    if (!m->member || !m->buffer || !m->model_path)
        st = tr_fail(TR_E_MEMORY, "members: no memory for %u workers", m->n);
    if (st == TR_OK && getrandom(&m->job, sizeof m->job, 0) != (ssize_t)sizeof m->job)
        st = tr_fail(TR_E_SYSTEM, "members: no random job number to be had");
    if (st == TR_OK)
        st = tr_members_join(m);
    if (st != TR_OK) {
        tr_members_close(&m);
        return st;
    }
    *out = m;
    return TR_OK;
}

/* ---- loading and leaving --------------------------------------------------------------- */

/* What the plan wants of it, before it loads. */
static void send_faults(tr_members *m, uint32_t peer)
{
    tr_control c = { .kind = TR_CONTROL_FAULTS };

    c.faults.n = tr_fault_log_rules(m->o.faults, peer, c.faults.rule);
    if (c.faults.n > 0)
        send(m, peer, &c); /* if it is gone, the assignment says so */
}

tr_status tr_members_assign(tr_members *m, uint32_t peer, const tr_assignment *a)
{
    tr_control c = { .kind = TR_CONTROL_ASSIGN, .assign = *a };
    tr_member *w = &m->member[peer - 1];

    if (m->lost != TR_OK || w->state >= TR_MEMBER_LOST)
        return m->lost;
    if (w->state == TR_MEMBER_JOINING) {
        w->heard = tr_now();
        tr_members_enter(m, peer, TR_MEMBER_LOADING);
        send_faults(m, peer);
    } else {
        w->has_more = true;
        w->is_adopting = w->is_adopting || !a->lazy;
    }
    tr_status st = send(m, peer, &c);
    if (st == TR_E_PEER_LOST) {
        tr_members_lose(m, peer, "died: it can't be told what to load");
        return m->lost;
    }
    return st;
}

tr_status tr_members_await_ready(tr_members *m, tr_time deadline,
                                 void (*watch)(void *ctx, uint64_t bytes), void *ctx)
{
    char missing[256];

    while (tr_members_name_missing(m, has_loaded, missing, sizeof missing)) {
        tr_status st = tr_interrupted() ? TR_E_INTERRUPTED : tr_members_look(m, TR_MEMBERS_WAIT);
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < m->n; i++)
            bytes += m->member[i].loaded;
        if (watch)
            watch(ctx, bytes);
        if (st != TR_OK)
            return st;
        if (tr_now() > deadline)
            return tr_fail(TR_E_DEADLINE, "%s did not load in time", missing);
    }
    return TR_OK;
}

static bool has_left(const tr_member *w)
{
    return !w->is_accepted || w->state >= TR_MEMBER_LOST;
}

static void tell_to_stop(tr_members *m)
{
    tr_control shutdown = { .kind = TR_CONTROL_SHUTDOWN };

    shutdown.shutdown.failed = m->lost != TR_OK;
    shutdown.shutdown.had_losses = m->has_lost;
    for (uint32_t peer = 1; peer <= m->n; peer++)
        if (m->member[peer - 1].state == TR_MEMBER_SUSPECT)
            shutdown.shutdown.had_losses = true;
    for (uint32_t peer = 1; peer <= m->n; peer++)
        if (!has_left(&m->member[peer - 1]))
            send(m, peer, &shutdown);
}

/* Who hangs can't say bye, and MPI must not wait for it either. */
static void give_up(tr_members *m, bool (*is_hopeless)(const tr_member *))
{
    for (uint32_t peer = 1; peer <= m->n; peer++) {
        if (!is_hopeless(&m->member[peer - 1]))
            continue;
        tr_members_enter(m, peer, TR_MEMBER_LOST);
        drop(m, peer);
    }
}

static bool is_suspect(const tr_member *w)
{
    return w->state == TR_MEMBER_SUSPECT;
}

static bool is_still_there(const tr_member *w)
{
    return !has_left(w);
}

void tr_members_close(tr_members **members)
{
    tr_members *m = *members;
    char missing[256];

    if (!m)
        return;
    if (m->link) {
        char reason[512];
        tr_time begin = tr_now();
        tell_to_stop(m);
        /* Whoever dies now instead of saying bye has left all the same. */
        tr_fail_capture_begin(reason, sizeof reason);
        m->is_closing = true;
        while (tr_members_name_missing(m, has_left, missing, sizeof missing) &&
               tr_now() < begin + farewell) {
            if (tr_now() > begin + suspects_farewell)
                give_up(m, is_suspect);
            drain(m, TR_MEMBERS_WAIT);
        }
        tr_fail_capture_end();
        give_up(m, is_still_there);
    }
    tr_link_close(&m->link);
    free(m->buffer);
    free(m->model_path);
    free(m->member);
    free(m);
    *members = NULL;
}
