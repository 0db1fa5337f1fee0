/* dispatch.c - one round trip a layer: shares out, own share, answers in, combine.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/dispatch.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "coordinator/cluster/combine.h"
#include "proto/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Between two looks at the members while waiting. */
static const tr_time look_period = TR_MS;

static_assert(sizeof(tr_frame_pick) == sizeof(tr_share_pick), "one pick, two names");
static_assert(offsetof(tr_frame_pick, expert) == offsetof(tr_share_pick, expert),
              "one pick, two names");

/* An answer that is awaited or has come. */
typedef struct {
    uint64_t share;    /* id on the wire */
    const float *rows; /* [n_picks][dim]; NULL while awaited */
    tr_msg *message;   /* that rows lie in; NULL for the local share */
} answer;

struct tr_dispatch {
    tr_dispatch_options o;
    tr_plan plan;
    tr_apply *apply; /* NULL without local shards */
    size_t n_peers;
    uint64_t next_share, step;

    /* the layer in flight */
    uint32_t layer;
    tr_act act;
    size_t row_size, n_rows;
    const tr_pick *picks;
    const uint8_t *rows;
    answer *answers; /* [n_peers], by place in plan.share */
    size_t n_waiting;
    uint64_t longest; /* nanoseconds that one answer took to compute */
    tr_time deadline;

    tr_arena arena;
    float *local_rows;          /* [max_picks][dim] answers of the local share */
    uint8_t *local_in;          /* [max_rows] activation rows of the local share */
    tr_share_pick *local_picks; /* [max_picks] */
    const float **pick_answers; /* [max_picks] */

    uint64_t *peer_rows, *peer_busy; /* [n_peers] */
    tr_dispatch_stats stats;
};

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
            tr_arena_size(d->n_peers * sizeof(answer)) + 2 * tr_arena_size(peers_size),
        "dispatch");
    if (st != TR_OK)
        return st;
    d->local_rows = tr_arena_get(&d->arena, rows_size);
    d->local_in = tr_arena_get(&d->arena, in_size);
    d->local_picks = tr_arena_get(&d->arena, local * sizeof(tr_share_pick));
    d->pick_answers = tr_arena_get(&d->arena, picks * sizeof(float *));
    d->answers = tr_arena_get(&d->arena, d->n_peers * sizeof(answer));
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
    for (size_t i = 0; d->answers && i < d->n_peers; i++) {
        tr_msg_free(&d->answers[i].message);
        d->answers[i].rows = NULL;
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

static tr_status send_patiently(tr_dispatch *d, tr_peer to, tr_msg **m)
{
    for (;;) {
        tr_status st = tr_transport_send(d->o.transport, to, m);
        if (st != TR_E_BUSY)
            return st;
        if (tr_now() > d->deadline)
            return tr_fail(TR_E_DEADLINE, "worker %u takes no more shares", to);
        if (d->o.members) {
            st = tr_members_pump(d->o.members);
            if (st != TR_OK)
                return st;
        }
        tr_sleep(50 * TR_US);
    }
}

static tr_status send_share(tr_dispatch *d, const tr_share *s, answer *a)
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
        .epoch = d->o.placement->epoch,
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
    st = send_patiently(d, s->peer, &m);
    tr_msg_free(&m);
    return st;
}

tr_status tr_dispatch_begin(tr_dispatch *d, uint32_t layer, const tr_pick *picks,
                            const uint8_t *rows, size_t n_rows)
{
    TR_CHECK(d->n_waiting == 0);
    d->layer = layer;
    d->act = tr_expert_map_act(d->o.map, layer, d->o.compute->exact);
    d->row_size = tr_act_row_size(d->act, d->o.map->dim);
    d->picks = picks;
    d->rows = rows;
    d->n_rows = n_rows;
    d->longest = 0;
    d->deadline = tr_deadline_after(tr_now(), d->o.share_timeout);
    d->step++;
    d->stats.layers++;
    tr_plan_build(&d->plan, picks, n_rows, d->o.map->layer[layer].top_k, d->o.placement, layer);
    for (size_t i = 0; i < d->plan.n_shares; i++) {
        const tr_share *s = &d->plan.share[i];
        d->answers[i].share = d->next_share++;
        d->peer_rows[s->peer] += s->n_picks;
        if (s->peer == 0)
            continue;
        tr_status st = send_share(d, s, &d->answers[i]);
        if (st != TR_OK)
            return st;
        d->n_waiting++;
    }
    return TR_OK;
}

/* The share that this process holds itself: plan.share is in ascending peer order, so it is the
 * first if there is one. */
static tr_status run_local(tr_dispatch *d)
{
    const tr_share *s = &d->plan.share[0];

    if (d->plan.n_shares == 0 || s->peer != 0)
        return TR_OK;
    TR_CHECK(d->apply != NULL);
    tr_time begin = tr_now();
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
    tr_status st = tr_apply_share(d->apply, &in, d->local_rows, NULL, NULL);
    d->answers[0].rows = d->local_rows;
    d->peer_busy[0] += (uint64_t)(tr_now() - begin);
    return st;
}

/* Which share of this layer a frame answers; NULL for one that nobody waits for. */
static answer *find_answer(tr_dispatch *d, tr_peer from, const tr_frame_header *h,
                           const tr_share **share)
{
    for (size_t i = 0; i < d->plan.n_shares; i++) {
        const tr_share *s = &d->plan.share[i];
        answer *a = &d->answers[i];
        if (a->share == h->share && s->peer == from && !a->rows &&
            h->epoch == d->o.placement->epoch && h->layer == d->layer) {
            *share = s;
            return a;
        }
    }
    return NULL;
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

    tr_status st = tr_frame_open((tr_bytes){ (*m)->data, (*m)->size }, &limits, &v);
    if (st != TR_OK)
        return tr_fail(TR_E_PEER_LOST, "worker %u sent a frame that can't be read", from);
    if (v.header.kind == TR_FRAME_ERROR)
        return tr_fail(TR_E_PEER_LOST, "worker %u can't compute its share: %.*s", from,
                       (int)v.text.size, (const char *)v.text.data);
    const tr_share *s = NULL;
    answer *a = v.header.kind == TR_FRAME_ANSWER ? find_answer(d, from, &v.header, &s) : NULL;
    if (!a) {
        d->stats.frames_dropped++;
        return TR_OK;
    }
    if (v.header.n_picks != s->n_picks)
        return tr_fail(TR_E_PEER_LOST, "worker %u answered %u picks of %zu", from, v.header.n_picks,
                       s->n_picks);
    a->rows = (const float *)(const void *)v.rows;
    a->message = *m;
    *m = NULL;
    d->peer_busy[from] += v.header.busy_ns;
    if (v.header.busy_ns > d->longest)
        d->longest = v.header.busy_ns;
    d->n_waiting--;
    return TR_OK;
}

static tr_status deadline_passed(const tr_dispatch *d)
{
    for (size_t i = 0; i < d->plan.n_shares; i++)
        if (!d->answers[i].rows)
            return tr_fail(TR_E_DEADLINE,
                           "worker %u did not answer layer %u within %.1f s: raise --timeout-ms "
                           "if it is only slow",
                           d->plan.share[i].peer, d->layer,
                           (double)d->o.share_timeout / (double)TR_SECOND);
    return TR_OK;
}

static tr_status await_answers(tr_dispatch *d)
{
    tr_time begin = tr_now();
    tr_status st = TR_OK;

    while (d->n_waiting > 0 && st == TR_OK) {
        tr_peer from = 0;
        tr_msg *m = NULL;
        tr_time now = tr_now();
        tr_time until = now + look_period < d->deadline ? now + look_period : d->deadline;

        st = tr_transport_recv(d->o.transport, until, &from, &m);
        if (st == TR_OK) {
            st = accept(d, from, &m);
            tr_msg_free(&m);
            continue;
        }
        if (st == TR_E_PEER_LOST)
            return tr_fail(st, "worker %u is lost: its connection ended", from);
        if (st != TR_E_DEADLINE)
            return st;
        st = tr_interrupted() ? TR_E_INTERRUPTED
             : d->o.members   ? tr_members_pump(d->o.members)
                              : TR_OK;
        if (st == TR_OK && tr_now() >= d->deadline)
            return deadline_passed(d);
    }
    d->stats.wait += tr_now() - begin;
    return st;
}

tr_status tr_dispatch_finish(tr_dispatch *d, float *x)
{
    tr_status st = run_local(d);

    if (st == TR_OK)
        st = await_answers(d);
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
