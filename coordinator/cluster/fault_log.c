/* fault_log.c - see fault_log.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/fault_log.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of each entry of the plan so many events are kept, and the rest as one. */
enum { MAX_SHOWN = 4, REST = MAX_SHOWN, MAX_TAKERS = 4 };

enum { SHORT_MS = 250 }; /* nobody calls such a delay late */

/* An answer can come before the word that it is wrong on purpose: they take different ways. */
static const tr_time word_delay = 200 * TR_MS;

typedef struct {
    uint32_t n_sent_again;
    uint32_t taker[MAX_TAKERS], n_takers; /* the first peers that got them */
    tr_time stalled;
    bool is_open; /* a share of the layer in flight is among them */
} cost;

typedef struct {
    uint64_t order; /* among all events, from 1; 0: it has not happened */
    uint32_t worker, number, nth;
    tr_time injected, noticed; /* noticed 0: nobody did */
    char what[160];            /* it was noticed by */
    cost cost;
} event;

/* What a process was told: its rules' places in the plan. */
typedef struct {
    uint32_t n;
    uint8_t place[TR_MAX_FAULTS];
} told;

/* What was noticed before any fault was known. */
typedef struct {
    tr_time time;
    char what[160];
    cost cost;
} notice;

struct tr_fault_log {
    const tr_fault_plan *plan;
    uint32_t n_workers;
    told *told;       /* [n_workers + 1] */
    notice *notice;   /* [n_workers + 1] */
    event **latest;   /* [n_workers + 1] that a notice would be of; NULL: none happened */
    uint32_t *n_done; /* [n_workers + 1][TR_MAX_FAULTS] how often it happened there */
    tr_time begun;
    uint64_t n_events, n_of[TR_MAX_FAULTS];
    event event[TR_MAX_FAULTS][MAX_SHOWN + 1];
};

static_assert(TR_MAX_FAULTS <= UINT8_MAX, "places are counted in a byte");

tr_status tr_fault_log_new(const tr_fault_plan *plan, uint32_t n_workers, tr_fault_log **out)
{
    for (uint32_t i = 0; i < plan->n; i++)
        if (plan->fault[i].worker > n_workers)
            return tr_fail(TR_E_CONFIG,
                           "the fault plan's entry %u is for worker %u, but there are %u", i + 1,
                           plan->fault[i].worker, n_workers);
    tr_fault_log *log = calloc(1, sizeof *log);
    if (log) {
        log->plan = plan;
        log->n_workers = n_workers;
        log->begun = tr_now();
        log->told = calloc((size_t)n_workers + 1, sizeof *log->told);
        log->notice = calloc((size_t)n_workers + 1, sizeof *log->notice);
        log->latest = calloc((size_t)n_workers + 1, sizeof *log->latest);
        log->n_done = calloc(((size_t)n_workers + 1) * TR_MAX_FAULTS, sizeof *log->n_done);
    }
    if (!log || !log->told || !log->notice || !log->latest || !log->n_done) {
        tr_fault_log_free(&log);
        return tr_fail(TR_E_MEMORY, "fault plan: no memory");
    }
    *out = log;
    return TR_OK;
}

void tr_fault_log_free(tr_fault_log **log)
{
    if (!*log)
        return;
    free((*log)->told);
    free((*log)->notice);
    free((*log)->latest);
    free((*log)->n_done);
    free(*log);
    *log = NULL;
}

static uint32_t *n_done(tr_fault_log *log, uint32_t worker, uint32_t place)
{
    return &log->n_done[(size_t)worker * TR_MAX_FAULTS + place];
}

uint32_t tr_fault_log_rules(tr_fault_log *log, uint32_t worker, tr_fault_rule rules[TR_MAX_FAULTS])
{
    if (!log)
        return 0;
    told *t = &log->told[worker];
    t->n = 0;
    for (uint32_t i = 0; i < log->plan->n; i++) {
        const tr_fault_rule *r = &log->plan->fault[i].rule;
        uint32_t who = log->plan->fault[i].worker;
        if ((who != 0 && who != worker) || *n_done(log, worker, i) >= r->times)
            continue;
        rules[t->n] = *r;
        rules[t->n].times -= *n_done(log, worker, i);
        t->place[t->n++] = (uint8_t)i;
    }
    return t->n;
}

/* A second copy is only dropped, and a moment is waited for. */
static bool can_be_noticed(const tr_fault_rule *r)
{
    bool is_wait = r->kind == TR_FAULT_DELAY || r->kind == TR_FAULT_SLOW_DISK;

    return r->kind != TR_FAULT_DUPLICATE && !(is_wait && r->ms < SHORT_MS);
}

void tr_fault_log_injected(tr_fault_log *log, uint32_t worker, uint32_t number, uint32_t nth)
{
    if (!log || number >= log->told[worker].n)
        return;
    uint32_t place = log->told[worker].place[number];
    uint64_t before = log->n_of[place]++;
    event *e = &log->event[place][before < REST ? before : REST];
    cost so_far = e->cost; /* the rest's costs add up */
    ++*n_done(log, worker, place);
    *e = (event){ ++log->n_events, worker, place, nth, tr_now(), 0, "", so_far };
    if (!can_be_noticed(&log->plan->fault[place].rule))
        return;
    log->latest[worker] = e;
    notice *n = &log->notice[worker];
    if (n->time != 0 && e->injected - n->time < word_delay) {
        e->noticed = e->injected;
        memcpy(e->what, n->what, sizeof e->what);
        if (before < REST)
            e->cost = n->cost;
    }
    *n = (notice){ 0 };
}

void tr_fault_log_noticed(tr_fault_log *log, uint32_t worker, const char *what)
{
    if (!log)
        return;
    event *e = log->latest[worker];
    notice *n = &log->notice[worker];
    if (e && e->noticed == 0) {
        e->noticed = tr_now();
        snprintf(e->what, sizeof e->what, "%s", what);
        *n = (notice){ 0 };
        return;
    }
    tr_time now = tr_now();
    bool is_another = n->time != 0 && now - n->time < word_delay; /* no word of either has come */
    *n = (notice){ .time = now, .cost = is_another ? n->cost : (cost){ 0 } };
    snprintf(n->what, sizeof n->what, "%s", what);
}

/* Of what was noticed of a worker last; NULL: nothing was. */
static cost *cost_of(tr_fault_log *log, uint32_t worker)
{
    event *e = log->latest[worker];
    notice *n = &log->notice[worker];

    if (n->time != 0)
        return &n->cost;
    return e && e->noticed != 0 ? &e->cost : NULL;
}

void tr_fault_log_sent_again(tr_fault_log *log, uint32_t from, uint32_t to)
{
    cost *c = log ? cost_of(log, from) : NULL;
    uint32_t i = 0;

    if (!c)
        return;
    c->n_sent_again++;
    c->is_open = true;
    while (i < c->n_takers && c->taker[i] != to)
        i++;
    if (i == c->n_takers && i < MAX_TAKERS)
        c->taker[c->n_takers++] = to;
}

static void close_cost(cost *c, tr_time stalled)
{
    if (c->is_open)
        c->stalled += stalled;
    c->is_open = false;
}

void tr_fault_log_stalled(tr_fault_log *log, tr_time stalled)
{
    if (!log)
        return;
    for (uint32_t i = 0; i < log->plan->n; i++)
        for (uint32_t k = 0; k <= REST; k++)
            close_cost(&log->event[i][k].cost, stalled);
    for (uint32_t w = 1; w <= log->n_workers; w++)
        close_cost(&log->notice[w].cost, stalled);
}

static void takers_print(const cost *c, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < c->n_takers && used < size; i++)
        used += (size_t)snprintf(out + used, size - used,
                                 c->taker[i] ? "%sworker %u" : "%sthe coordinator",
                                 i == 0 ? " to " : ", ", c->taker[i]);
}

static void event_print(const tr_fault_log *log, const event *e)
{
    static const char *const unit[TR_FAULT_N_MOMENTS] = { "", "pass ", "read " };
    const tr_fault_rule *r = &log->plan->fault[e->number].rule;
    char when[48] = "", noticed[256] = "not noticed", takers[96];

    if (r->moment != TR_FAULT_AT_TIME)
        snprintf(when, sizeof when, " at %s%u", unit[r->moment], e->nth);
    if (e->noticed != 0)
        snprintf(noticed, sizeof noticed, "noticed after %.1f ms: %s",
                 (double)(e->noticed - e->injected) / (double)TR_MS, e->what);
    takers_print(&e->cost, takers, sizeof takers);
    tr_log(TR_LOG_INFO,
           "fault: %.3f s: %s of %sworker %u%s; %s; %u shares again%s; stalled %.1f ms",
           (double)(e->injected - log->begun) / (double)TR_SECOND, tr_fault_kind_name(r->kind),
           r->message == TR_FAULT_OF_SHARE ? "a share for " : "", e->worker, when, noticed,
           e->cost.n_sent_again, takers, (double)e->cost.stalled / (double)TR_MS);
}

/* The earliest that is later than `after`; NULL: none is. */
static const event *next_event(const tr_fault_log *log, uint64_t after)
{
    const event *next = NULL;

    for (uint32_t i = 0; i < log->plan->n; i++)
        for (uint32_t k = 0; k < MAX_SHOWN; k++) {
            const event *e = &log->event[i][k];
            if (e->order > after && (!next || e->order < next->order))
                next = e;
        }
    return next;
}

static void rest_print(const tr_fault_log *log, uint32_t place)
{
    const cost *c = &log->event[place][REST].cost;
    char takers[96];

    if (log->n_of[place] <= MAX_SHOWN)
        return;
    takers_print(c, takers, sizeof takers);
    tr_log(TR_LOG_INFO, "fault: %s, entry %u: %llu times more; %u shares again%s; stalled %.1f ms",
           tr_fault_kind_name(log->plan->fault[place].rule.kind), place + 1,
           (unsigned long long)(log->n_of[place] - MAX_SHOWN), c->n_sent_again, takers,
           (double)c->stalled / (double)TR_MS);
}

void tr_fault_log_print(const tr_fault_log *log)
{
    if (!log)
        return;
    tr_log(TR_LOG_INFO, "faults: %llu happened, of a plan with %u",
           (unsigned long long)log->n_events, log->plan->n);
    for (const event *e = next_event(log, 0); e; e = next_event(log, e->order))
        event_print(log, e);
    for (uint32_t i = 0; i < log->plan->n; i++)
        rest_print(log, i);
}
