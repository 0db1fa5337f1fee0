/* faults.c - see faults.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "worker/faults.h"

#include "base/rng.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The message about a fault is sent by another thread. */
static const tr_time message_patience = 20 * TR_MS;

/* Smaller blocks are not for weights. */
enum { LEAST_BLOCK = 64 << 10 };

/* Whether a rule's conditions hold and chance is on its side; then it has happened once more. */
static bool happens(tr_faults *f, uint32_t i, tr_fault_moment moment, uint32_t nth, uint32_t layer)
{
    tr_fault_rule *r = &f->rule[i];

    if (r->moment != moment || r->times == 0 || nth < r->nth ||
        (r->layer != TR_FAULT_ANY_LAYER && r->layer != layer) ||
        tr_now() - f->begun < (tr_time)r->after_ms * TR_MS)
        return false;
    uint64_t stream = (uint64_t)f->worker << 32 | i;
    if (tr_rng_u64(r->seed, stream, f->n_moments[i]++) % TR_FAULT_ALWAYS >= r->per_million)
        return false;
    r->times--;
    f->tell(f->ctx, i, nth);
    return true;
}

/* What any process can suffer at any time. */
static void suffer(tr_faults *f, const tr_fault_rule *r)
{
    if (r->kind == TR_FAULT_MUTE || r->kind == TR_FAULT_CUT) {
        f->muted_until = tr_deadline_after(tr_now(), (tr_time)r->ms * TR_MS);
        f->cut_until = r->kind == TR_FAULT_CUT ? f->muted_until : f->cut_until;
        return;
    }
    tr_sleep(message_patience);
    if (r->kind == TR_FAULT_EXIT)
        _exit(1);
    if (r->kind == TR_FAULT_STOP && r->ms > 0) /* who is stopped could not go on by itself */
        tr_sleep((tr_time)r->ms * TR_MS);
    else
        kill(getpid(), r->kind == TR_FAULT_KILL ? SIGKILL : SIGSTOP);
}

static bool is_of_process(tr_fault_kind kind)
{
    return kind <= TR_FAULT_MUTE || kind == TR_FAULT_CUT;
}

static tr_status before_read(void *ctx, size_t size)
{
    tr_faults *f = ctx;
    tr_status st = TR_OK;

    (void)size;
    for (uint32_t i = 0; i < f->n && st == TR_OK; i++) {
        const tr_fault_rule *r = &f->rule[i];
        if (r->kind == TR_FAULT_NO_MEMORY ||
            !happens(f, i, TR_FAULT_AT_READ, f->n_reads, TR_FAULT_ANY_LAYER))
            continue;
        if (is_of_process(r->kind))
            suffer(f, r);
        else if (r->kind == TR_FAULT_SLOW_DISK)
            tr_sleep((tr_time)r->ms * TR_MS);
        else
            st = tr_fail(TR_E_IO, "a read error, as the fault plan says");
    }
    f->n_reads++;
    return st;
}

static tr_status before_memory(void *ctx, size_t size)
{
    tr_faults *f = ctx;

    for (uint32_t i = 0; size >= LEAST_BLOCK && i < f->n; i++)
        if (f->rule[i].kind == TR_FAULT_NO_MEMORY &&
            happens(f, i, TR_FAULT_AT_READ, f->n_reads, TR_FAULT_ANY_LAYER))
            return TR_E_MEMORY;
    return TR_OK;
}

void tr_faults_init(tr_faults *f, const tr_fault_rule *rules, uint32_t n, uint32_t worker,
                    void (*tell)(void *ctx, uint32_t number, uint32_t nth), void *ctx)
{
    *f = (tr_faults){ .n = n, .worker = worker, .begun = tr_now(), .tell = tell, .ctx = ctx };
    if (n == 0)
        return;
    memcpy(f->rule, rules, n * sizeof *rules);
    f->source = (tr_fault_source){ before_read, before_memory, f };
    tr_fault_use_here(&f->source);
}

void tr_faults_fini(tr_faults *f)
{
    if (f->n > 0)
        tr_fault_use_here(NULL);
    f->n = 0;
}

void tr_faults_at_time(tr_faults *f)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (happens(f, i, TR_FAULT_AT_TIME, UINT32_MAX, TR_FAULT_ANY_LAYER))
            suffer(f, &f->rule[i]);
}

tr_share_fate tr_faults_at_share(tr_faults *f, uint32_t pass, uint32_t layer)
{
    tr_share_fate fate = { 0 };

    for (uint32_t i = 0; i < f->n; i++) {
        const tr_fault_rule *r = &f->rule[i];
        if (!happens(f, i, TR_FAULT_AT_SHARE, pass, layer))
            continue;
        if (is_of_process(r->kind))
            suffer(f, r);
        tr_message_fate *m = r->message == TR_FAULT_OF_SHARE ? &fate.share : &fate.answer;
        m->is_dropped |= r->kind == TR_FAULT_DROP;
        m->is_sent_twice |= r->kind == TR_FAULT_DUPLICATE;
        m->is_corrupted |= r->kind == TR_FAULT_CORRUPT;
        m->is_not_a_number |= r->kind == TR_FAULT_NAN;
        m->delay += r->kind == TR_FAULT_DELAY ? (tr_time)r->ms * TR_MS : 0;
    }
    return fate;
}

bool tr_faults_are_muted(const tr_faults *f)
{
    return f->muted_until != 0 && tr_now() < f->muted_until;
}

void tr_faults_await_link(const tr_faults *f)
{
    tr_time now = f->cut_until == 0 ? 0 : tr_now();

    if (now < f->cut_until)
        tr_sleep(f->cut_until - now);
}
