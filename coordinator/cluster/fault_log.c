/* fault_log.c - see fault_log.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/fault_log.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_EVENTS = 256, MAX_TAKERS = 4, MAX_SHOWN = 4 }; /* of one entry of the plan */

/* An answer can come before the word that it is wrong on purpose: they take different ways. */
static const tr_time word_delay = 200 * TR_MS;

typedef struct {
    uint32_t worker, number, nth;
    tr_time injected, noticed; /* noticed 0: nobody did */
    char what[160];            /* it was noticed by */
    uint32_t n_sent_again;
    uint32_t taker[MAX_TAKERS], n_takers; /* the first peers that got them */
    tr_time stalled;
} event;

/* What a process was told: its rules' places in the plan. */
typedef struct {
    uint32_t n;
    uint8_t place[TR_MAX_FAULTS];
} told;

typedef struct {
    tr_time time;
    char what[160];
} notice;

struct tr_fault_log {
    const tr_fault_plan *plan;
    uint32_t n_workers;
    told *told;       /* [n_workers + 1] */
    notice *notice;   /* [n_workers + 1] what was noticed before any fault was known */
    uint32_t *n_done; /* [n_workers + 1][TR_MAX_FAULTS] how often it happened there */
    tr_time begun;
    uint64_t n_events;
    event event[MAX_EVENTS];
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
        log->n_done = calloc(((size_t)n_workers + 1) * TR_MAX_FAULTS, sizeof *log->n_done);
    }
    if (!log || !log->told || !log->notice || !log->n_done) {
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

static event *latest(tr_fault_log *log)
{
    return !log || log->n_events == 0 || log->n_events > MAX_EVENTS
               ? NULL
               : &log->event[log->n_events - 1];
}

void tr_fault_log_injected(tr_fault_log *log, uint32_t worker, uint32_t number, uint32_t nth)
{
    if (!log || number >= log->told[worker].n)
        return;
    uint32_t place = log->told[worker].place[number];
    ++*n_done(log, worker, place);
    log->n_events++;
    event *e = latest(log);
    if (!e)
        return;
    *e = (event){ .worker = worker, .number = place, .nth = nth, .injected = tr_now() };
    notice *before = &log->notice[worker];
    if (before->time != 0 && e->injected - before->time < word_delay) {
        e->noticed = e->injected;
        memcpy(e->what, before->what, sizeof e->what);
    }
    before->time = 0;
}

void tr_fault_log_noticed(tr_fault_log *log, uint32_t worker, const char *what)
{
    if (!log)
        return;
    uint64_t n = log->n_events < MAX_EVENTS ? log->n_events : MAX_EVENTS;
    for (uint64_t i = n; i-- > 0;) {
        event *e = &log->event[i];
        if (e->worker != worker)
            continue;
        if (e->noticed != 0)
            break;
        e->noticed = tr_now();
        snprintf(e->what, sizeof e->what, "%s", what);
        return;
    }
    log->notice[worker].time = tr_now();
    snprintf(log->notice[worker].what, sizeof log->notice[worker].what, "%s", what);
}

void tr_fault_log_sent_again(tr_fault_log *log, uint32_t peer)
{
    event *e = latest(log);
    uint32_t i = 0;

    if (!e)
        return;
    e->n_sent_again++;
    while (i < e->n_takers && e->taker[i] != peer)
        i++;
    if (i == e->n_takers && i < MAX_TAKERS)
        e->taker[e->n_takers++] = peer;
}

void tr_fault_log_stalled(tr_fault_log *log, tr_time stalled)
{
    event *e = latest(log);

    if (e)
        e->stalled += stalled;
}

static void takers_print(const event *e, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < e->n_takers && used < size; i++)
        used += (size_t)snprintf(out + used, size - used,
                                 e->taker[i] ? "%sworker %u" : "%sthe coordinator",
                                 i == 0 ? " to " : ", ", e->taker[i]);
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
    takers_print(e, takers, sizeof takers);
    tr_log(TR_LOG_INFO,
           "fault: %.3f s: %s of %sworker %u%s; %s; %u shares again%s; stalled %.1f ms",
           (double)(e->injected - log->begun) / (double)TR_SECOND, tr_fault_kind_name(r->kind),
           r->message == TR_FAULT_OF_SHARE ? "a share for " : "", e->worker, when, noticed,
           e->n_sent_again, takers, (double)e->stalled / (double)TR_MS);
}

void tr_fault_log_print(const tr_fault_log *log)
{
    if (!log)
        return;
    uint64_t n = log->n_events < MAX_EVENTS ? log->n_events : MAX_EVENTS;
    tr_log(TR_LOG_INFO, "faults: %llu happened, of a plan with %u",
           (unsigned long long)log->n_events, log->plan->n);
    uint32_t shown[TR_MAX_FAULTS] = { 0 };
    for (uint64_t i = 0; i < n; i++)
        if (shown[log->event[i].number]++ < MAX_SHOWN)
            event_print(log, &log->event[i]);
    for (uint32_t i = 0; i < log->plan->n; i++)
        if (shown[i] > MAX_SHOWN)
            tr_log(TR_LOG_INFO, "fault: %s, entry %u: %u times more",
                   tr_fault_kind_name(log->plan->fault[i].rule.kind), i + 1, shown[i] - MAX_SHOWN);
}
