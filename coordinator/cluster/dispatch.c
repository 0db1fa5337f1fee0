/* dispatch.c - one round trip a layer: shares out, own share, answers in, combine.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/dispatch.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "coordinator/cluster/borrow.h"
#include "coordinator/cluster/combine.h"
#include "coordinator/cluster/retry.h"
#include "proto/frame.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Between two looks at the members while waiting. */
static const tr_time look_period = TR_MS;

static_assert(sizeof(tr_frame_pick) == sizeof(tr_share_pick), "one pick, two names");
static_assert(offsetof(tr_frame_pick, expert) == offsetof(tr_share_pick, expert),
              "one pick, two names");

size_t tr_dispatch_bytes(const tr_expert_map *map, size_t max_rows, bool is_local)
{
    size_t picks = max_rows * map->top_k;
    size_t size = tr_arena_size(picks * sizeof(float *));

    size += tr_arena_size(picks * sizeof(tr_awaited));
    if (is_local)
        size += tr_arena_size(picks * map->dim * sizeof(float)) +
                tr_arena_size(max_rows * tr_act_row_size(TR_ACT_F32, map->dim)) +
                tr_arena_size(picks * sizeof(tr_share_pick)) + tr_apply_bytes(map);
    return size;
}

static tr_status reserve(tr_dispatch *d)
{
    size_t picks = d->o.max_rows * d->o.map->top_k;
    size_t local = d->o.local ? picks : 0;
    size_t rows_size = local * d->o.map->dim * sizeof(float);
    size_t in_size = d->o.local ? d->o.max_rows * tr_act_row_size(TR_ACT_F32, d->o.map->dim) : 0;
    size_t peers_size = d->n_peers * sizeof(uint64_t);

    tr_status st = tr_arena_init(
        &d->arena,
        tr_arena_size(rows_size) + tr_arena_size(in_size) +
            tr_arena_size(local * sizeof(tr_share_pick)) + tr_arena_size(picks * sizeof(float *)) +
            tr_arena_size(picks * sizeof(tr_awaited)) + 2 * tr_arena_size(peers_size),
        "dispatch");
    if (st != TR_OK)
        return st;
    d->local_rows = tr_arena_get(&d->arena, rows_size);
    d->local_in = tr_arena_get(&d->arena, in_size);
    d->local_picks = tr_arena_get(&d->arena, local * sizeof(tr_share_pick));
    d->pick_answers = tr_arena_get(&d->arena, picks * sizeof(float *));
    d->answers = tr_arena_get(&d->arena, picks * sizeof(tr_awaited));
    d->peer_rows = tr_arena_get(&d->arena, peers_size);
    d->peer_busy = tr_arena_get(&d->arena, peers_size);
    return TR_OK;
}

tr_status tr_dispatch_new(const tr_dispatch_options *o, tr_dispatch **out)
{
    tr_dispatch *d = calloc(1, sizeof *d);

    if (!d)
        return tr_fail(TR_E_MEMORY, "dispatch: no memory");
    d->o = *o;
    d->n_peers = (size_t)o->placement->n_workers + 1;
    tr_status st = tr_plan_init(&d->plan, o->max_rows, o->map->top_k, o->map->n_experts,
                                o->placement->n_workers);
    if (st == TR_OK)
        st = reserve(d);
    if (st == TR_OK && o->local)
        st = tr_apply_new(o->compute, o->local, &d->apply);
    if (st != TR_OK) {
        tr_dispatch_free(&d);
        return st;
    }
    *out = d;
    return TR_OK;
}

static void forget_answers(tr_dispatch *d)
{
    for (size_t i = 0; d->answers && i < d->plan.n_shares; i++) {
        tr_msg_free(&d->answers[i].message);
        d->answers[i] = (tr_awaited){ 0 };
    }
}

void tr_dispatch_free(tr_dispatch **d)
{
    if (!*d)
        return;
    forget_answers(*d);
    tr_apply_free(&(*d)->apply);
    tr_plan_fini(&(*d)->plan);
    tr_arena_fini(&(*d)->arena);
    free(*d);
    *d = NULL;
}

/* The picks and activation rows of a share, in its own numbering. */
static void fill(const tr_dispatch *d, const tr_share *s, uint32_t *pick_words, uint8_t *rows)
{
    const tr_plan *p = &d->plan;

    for (size_t i = 0; i < s->n_picks; i++) {
        uint32_t pick = p->order[s->first_pick + i];
        pick_words[2 * i] = p->share_row[pick];
        pick_words[2 * i + 1] = d->picks[pick].expert;
    }
    for (size_t i = 0; i < s->n_rows; i++)
        memcpy(rows + i * d->row_size, d->rows + p->row[s->first_row + i] * d->row_size,
               d->row_size);
}

/* ---- shares out -------------------------------------------------------------------------- */

/* TR_E_BUSY: somebody else must do it. */
static tr_status send_patiently(tr_dispatch *d, tr_peer to, tr_msg **m, const tr_awaited *a)
{
    tr_time begin = tr_now();

    for (;;) {
        tr_status st = tr_transport_send(d->o.transport, to, m);
        if (st != TR_E_BUSY)
            return st;
        tr_time now = tr_now();
        tr_retry_excuse(d, now);
        if (d->o.recovery && now > a->late) {
            tr_members_suspect(d->o.members, to, "takes no shares for %.1f s",
                               (double)(now - begin) / (double)TR_SECOND);
            return TR_E_BUSY;
        }
        if (now > d->deadline)
            return tr_fail(TR_E_DEADLINE, "worker %u takes no more shares", to);
        if (d->o.members) {
            st = tr_members_pump(d->o.members);
            if (st != TR_OK)
                return st;
            if (!tr_members_answers(d->o.members, to))
                return TR_E_BUSY;
        }
        tr_sleep(50 * TR_US);
    }
}

static tr_status send_share(tr_dispatch *d, const tr_share *s, tr_awaited *a)
{
    size_t size = tr_frame_share_size(s->n_picks, s->n_rows, d->row_size);
    tr_msg *m = NULL;

    tr_status st = tr_transport_reserve(d->o.transport, s->peer, size, &m);
    if (st != TR_OK)
        return st;
    tr_frame_header h = {
        .kind = TR_FRAME_SHARE,
        .job = d->o.job,
        .step = d->step,
        .share = a->share,
        .epoch = a->epoch,
        .layer = d->layer,
        .n_rows = (uint32_t)s->n_rows,
        .n_picks = (uint32_t)s->n_picks,
        .dim = d->o.map->dim,
        .row_size = (uint32_t)d->row_size,
        .act = (uint32_t)d->act,
        .sender = 0,
    };
    tr_frame_begin(m->data, &h, 0);
    fill(d, s, (uint32_t *)(void *)tr_frame_picks(m->data), tr_frame_rows(m->data));
    tr_frame_seal(m->data);
    st = send_patiently(d, s->peer, &m, a);
    tr_msg_free(&m);
    return st;
}

tr_status tr_dispatch_send(tr_dispatch *d, size_t i, tr_time patience)
{
    const tr_share *s = &d->plan.share[i];
    tr_awaited *a = &d->answers[i];

    *a = (tr_awaited){ .share = d->next_share++,
                       .epoch = d->o.placement->epoch,
                       .is_sent = true,
                       .sent = a->sent ? a->sent : tr_now() };
    if (d->o.recovery && !tr_recovery_is_calm(d->o.recovery))
        for (size_t k = 0; k < s->n_picks; k++)
            tr_recovery_asked(d->o.recovery, d->layer, tr_dispatch_expert(d, s, k));
    if (s->peer == 0)
        return TR_OK;
    a->n_to_load = tr_retry_count_foreign(d, s);
    a->late = tr_deadline_after(tr_now(), patience);
    tr_status st = send_share(d, s, a);
    if (st == TR_E_PEER_LOST)
        return tr_retry_lose(d, s->peer, "takes no more messages");
    if (st != TR_E_BUSY)
        return st;
    a->is_sent = false;
    return TR_OK;
}

tr_status tr_dispatch_begin(tr_dispatch *d, uint32_t layer, const tr_pick *picks,
                            const uint8_t *rows, size_t n_rows)
{
    tr_status st = TR_OK;

    TR_CHECK(!d->is_begun);
    if (d->o.members)
        st = tr_members_pump(d->o.members);
    if (st == TR_OK && d->o.recovery) /* that memory is short is dealt with when answers miss */
        st = tr_recovery_look(d->o.recovery);
    if (st != TR_OK && st != TR_E_BUSY)
        return st;
    if (d->o.recovery)
        tr_recovery_release(d->o.recovery);
    d->is_begun = true;
    d->layer = layer;
    d->act = tr_expert_map_act(d->o.map, layer, d->o.compute->exact);
    d->row_size = tr_act_row_size(d->act, d->o.map->dim);
    d->picks = picks;
    d->rows = rows;
    d->n_rows = n_rows;
    d->longest = 0;
    d->begun = d->looked = tr_now();
    d->deadline = tr_deadline_after(d->begun, d->o.share_timeout);
    d->troubled = 0;
    d->resent = 0;
    d->step++;
    d->stats.layers++;
    tr_plan_build(&d->plan, picks, n_rows, d->o.map->layer[layer].top_k, d->o.placement, layer);
    tr_time usual = tr_retry_patience(d);
    st = d->o.recovery ? tr_retry_probe(d, d->begun) : TR_OK;
    for (size_t i = 0; i < d->plan.n_shares && st == TR_OK; i++) {
        d->peer_rows[d->plan.share[i].peer] += d->plan.share[i].n_picks;
        st = tr_dispatch_send(d, i, usual);
    }
    return st;
}

/* ---- shares that this process computes ----------------------------------------------------- */

/* What it was given by recovery is loaded when it is needed; of a share that it computes again as
 * much as there is memory for. */
static tr_status load_adopted(tr_dispatch *d, const tr_share *s, bool is_again)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < s->n_picks && st == TR_OK; i++) {
        uint32_t e = tr_dispatch_expert(d, s, i);
        if (!is_again || tr_recovery_take_here(d->o.recovery, d->layer, e))
            st = tr_shards_load(d->o.local, d->layer, e);
    }
    return st;
}

static tr_status run_local(tr_dispatch *d, size_t i)
{
    const tr_share *s = &d->plan.share[i];
    float *rows = d->local_rows + s->first_pick * d->o.map->dim;

    TR_CHECK(d->apply != NULL);
    tr_time begin = tr_now();
    tr_status st = load_adopted(d, s, d->answers[i].refused != NULL);
    if (st != TR_OK)
        return st;
    fill(d, s, (uint32_t *)(void *)d->local_picks, d->local_in);
    tr_apply_share_in in = {
        .layer = d->layer,
        .act = d->act,
        .n_rows = s->n_rows,
        .n_picks = s->n_picks,
        .picks = d->local_picks,
        .rows = d->local_in,
        .row_size = d->row_size,
    };
    st = tr_borrow_apply(d->apply, d->o.local, &in, rows);
    d->answers[i].rows = rows;
    d->peer_busy[0] += (uint64_t)(tr_now() - begin);
    bool stands;
    return st == TR_OK ? tr_retry_judge(d, i, rows, NULL, &stands) : st;
}

static tr_status run_all_local(tr_dispatch *d)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < d->plan.n_shares && st == TR_OK; i++)
        if (d->plan.share[i].peer == 0 && !d->answers[i].rows)
            st = run_local(d, i);
    return st;
}

/* ---- answers in ---------------------------------------------------------------------------- */

/* Which share of this layer a frame answers; NULL for one that nobody waits for. */
static const tr_share *find_share(const tr_dispatch *d, tr_peer from, const tr_frame_header *h)
{
    for (size_t i = 0; d->is_begun && i < d->plan.n_shares; i++) {
        const tr_share *s = &d->plan.share[i];
        const tr_awaited *a = &d->answers[i];
        if (a->share == h->share && s->peer == from && !a->rows && h->epoch == a->epoch &&
            h->layer == d->layer)
            return s;
    }
    return NULL;
}

static tr_status accept_answer(tr_dispatch *d, tr_peer from, const tr_frame_view *v, tr_msg **m)
{
    const tr_share *s = find_share(d, from, &v->header);
    bool stands;

    if (d->o.recovery)
        tr_members_trust(d->o.members, from);
    if (!s) {
        d->stats.frames_dropped++;
        return TR_OK;
    }
    if (v->header.n_picks != s->n_picks)
        return tr_retry_lose(d, from, "answered another number of picks than it was sent");
    size_t i = (size_t)(s - d->plan.share);
    const float *rows = (const float *)(const void *)v->rows;
    tr_status st = tr_retry_judge(d, i, rows, m, &stands);
    if (st != TR_OK || !stands)
        return st;
    d->answers[i].rows = rows;
    d->answers[i].message = *m;
    *m = NULL;
    d->peer_busy[from] += v->header.busy_ns;
    if (v->header.busy_ns > d->longest)
        d->longest = v->header.busy_ns;
    return TR_OK;
}

/* Takes *m if it is an answer that was awaited. */
static tr_status accept(tr_dispatch *d, tr_peer from, tr_msg **m)
{
    tr_frame_limits limits = {
        .job = d->o.job,
        .n_layers = d->o.map->n_layers,
        .n_experts = d->o.map->n_experts,
        .max_rows = (uint32_t)d->o.max_rows,
        .max_picks = (uint32_t)(d->o.max_rows * d->o.map->top_k),
        .dim = d->o.map->dim,
    };
    tr_frame_view v;
    char reason[256];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_frame_open((tr_bytes){ (*m)->data, (*m)->size }, &limits, &v);
    tr_fail_capture_end();
    if (st != TR_OK)
        return tr_retry_refuse(d, from, reason);
    if (v.header.kind == TR_FRAME_ERROR)
        return tr_retry_error(d, from, find_share(d, from, &v.header), &v);
    if (v.header.kind == TR_FRAME_ANSWER)
        return accept_answer(d, from, &v, m);
    if (v.header.kind == TR_FRAME_ECHO && d->o.recovery)
        tr_members_trust(d->o.members, from);
    if (v.header.kind != TR_FRAME_ECHO)
        d->stats.frames_dropped++;
    return TR_OK;
}

static size_t count_waiting(const tr_dispatch *d)
{
    size_t n = 0;

    for (size_t i = 0; i < d->plan.n_shares; i++)
        n += d->answers[i].rows == NULL;
    return n;
}

/* Between two messages: who is there, who is late, who must do what others can't. */
static tr_status look_around(tr_dispatch *d)
{
    tr_status st = tr_interrupted() ? TR_E_INTERRUPTED
                   : d->o.members   ? tr_members_pump(d->o.members)
                                    : TR_OK;
    tr_time now = tr_now();

    tr_retry_excuse(d, now);
    if (st == TR_OK && now >= d->deadline)
        return tr_retry_give_up(d);
    if (st == TR_OK)
        st = tr_retry_look(d, now);
    return st == TR_OK ? run_all_local(d) : st;
}

/* One message, or news of an end; TR_E_DEADLINE if none came until then. */
static tr_status take_message(tr_dispatch *d, tr_time until)
{
    tr_peer from = 0;
    tr_msg *m = NULL;

    tr_status st = tr_transport_recv(d->o.transport, until, &from, &m);
    if (st == TR_E_PEER_LOST)
        return tr_retry_lose(d, from, "is lost: its connection ended");
    if (st != TR_OK)
        return st;
    st = accept(d, from, &m);
    tr_msg_free(&m);
    return st;
}

static tr_status await_answers(tr_dispatch *d)
{
    tr_status st = TR_OK;

    while (st == TR_OK && count_waiting(d) > 0) {
        tr_time now = tr_now();
        tr_time until = now + look_period < d->deadline ? now + look_period : d->deadline;

        st = take_message(d, until);
        if (st == TR_E_DEADLINE)
            st = look_around(d);
    }
    return st;
}

tr_status tr_dispatch_pump(tr_dispatch *d)
{
    if (!tr_retry_is_anyone_late(d))
        return TR_OK;
    tr_status st = tr_retry_probe(d, tr_now());
    while (st == TR_OK)
        st = take_message(d, 0);
    return st == TR_E_DEADLINE ? TR_OK : st;
}

static tr_status gather_answers(tr_dispatch *d)
{
    tr_status st = run_all_local(d);
    tr_time begin = tr_now();

    if (st == TR_OK)
        st = await_answers(d);
    if (st == TR_OK) /* if others do all the work, nobody has read what those who are late say */
        st = tr_dispatch_pump(d);
    d->stats.wait += tr_now() - begin;
    if (st != TR_OK)
        return st;
    if (d->troubled) {
        tr_recovery_count(d->o.recovery, d->resent, tr_now() - d->troubled);
        tr_fault_log_stalled(d->o.faults, tr_now() - d->troubled);
    } else {
        tr_retry_learn(d);
    }
    return TR_OK;
}

tr_status tr_dispatch_finish(tr_dispatch *d, float *x)
{
    tr_status st = gather_answers(d);

    if (st != TR_OK)
        return st;
    tr_time begin = tr_now();
    size_t dim = d->o.map->dim;
    for (size_t i = 0; i < d->plan.n_shares; i++) {
        const tr_share *s = &d->plan.share[i];
        for (size_t p = 0; p < s->n_picks; p++)
            d->pick_answers[d->plan.order[s->first_pick + p]] = d->answers[i].rows + p * dim;
    }
    tr_combine(d->o.compute, d->picks, d->pick_answers, d->n_rows, d->plan.top_k, dim, x);
    forget_answers(d);
    d->is_begun = false;
    d->stats.longest += (tr_time)d->longest;
    d->stats.combine += tr_now() - begin;
    return TR_OK;
}

tr_dispatch_stats tr_dispatch_get_stats(const tr_dispatch *d)
{
    tr_dispatch_stats s = d->stats;

    s.peer_rows = d->peer_rows;
    s.peer_busy = d->peer_busy;
    return s;
}
