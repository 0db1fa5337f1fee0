/* dispatch.c - one round trip a layer: shares out, own share, answers in, combine.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/dispatch.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "coordinator/cluster/combine.h"
#include "coordinator/cluster/echo.h"
#include "proto/frame.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Between two looks at the members while waiting. */
static const tr_time look_period = TR_MS;

/* An answer is late after so many times what such a layer took lately, but not before the floor: a
 * busy machine may hold a process up for long. */
enum { LATE_FACTOR = 10, ROW_CLASSES = 16 };
static const tr_time late_floor = TR_SECOND;
static const tr_time first_patience = 5 * TR_SECOND; /* nothing is known yet */

/* Between two questions to those who were late. */
static const tr_time probe_period = TR_SECOND;

/* Answers of one worker that were damaged or wrong, before it is given up. */
enum { MAX_REFUSED = 3 };

static_assert(sizeof(tr_frame_pick) == sizeof(tr_share_pick), "one pick, two names");
static_assert(offsetof(tr_frame_pick, expert) == offsetof(tr_share_pick, expert),
              "one pick, two names");

/* An answer that is awaited or has come. */
typedef struct {
    uint64_t share;    /* id on the wire */
    uint32_t epoch;    /* under which it was sent */
    const float *rows; /* [n_picks][dim]; NULL while awaited */
    tr_msg *message;   /* that rows or refused lie in; NULL for the local share */
    bool is_sent;
    bool is_moved;        /* refused: the coordinator computes it */
    const float *refused; /* numbers that are not finite: the model's, or its holder's fault? */
    tr_peer refused_by;
    tr_time late; /* when its holder is suspected */
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
    answer *answers; /* [max_picks], by place in plan.share */
    bool is_begun;
    uint64_t longest; /* nanoseconds that one answer took to compute */
    tr_time begun, deadline, probed;
    tr_time troubled; /* when the first share came to grief; 0: none did */
    uint64_t resent;

    tr_time slowest[ROW_CLASSES]; /* round trips of late, by the logarithm of n_rows */

    tr_arena arena;
    float *local_rows;          /* [max_picks][dim] answers of the local share */
    uint8_t *local_in;          /* [max_rows] activation rows of the local share */
    tr_share_pick *local_picks; /* [max_picks] */
    const float **pick_answers; /* [max_picks] */

    uint64_t *peer_rows, *peer_busy; /* [n_peers] */
    tr_dispatch_stats stats;
};

size_t tr_dispatch_bytes(const tr_expert_map *map, size_t max_rows, bool is_local)
{
    size_t picks = max_rows * map->top_k;
    size_t size = tr_arena_size(picks * sizeof(float *)) + tr_arena_size(picks * sizeof(answer));

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
            tr_arena_size(picks * sizeof(answer)) + 2 * tr_arena_size(peers_size),
        "dispatch");
    if (st != TR_OK)
        return st;
    d->local_rows = tr_arena_get(&d->arena, rows_size);
    d->local_in = tr_arena_get(&d->arena, in_size);
    d->local_picks = tr_arena_get(&d->arena, local * sizeof(tr_share_pick));
    d->pick_answers = tr_arena_get(&d->arena, picks * sizeof(float *));
    d->answers = tr_arena_get(&d->arena, picks * sizeof(answer));
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
        d->answers[i].rows = d->answers[i].refused = NULL;
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

static uint32_t expert_of(const tr_dispatch *d, const tr_share *s, size_t pick)
{
    return d->picks[d->plan.order[s->first_pick + pick]].expert;
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

/* The state of a worker that can't be used is its members' affair; without them it is the end. */
static tr_status lose(tr_dispatch *d, tr_peer peer, const char *why)
{
    if (!d->o.recovery)
        return tr_fail(TR_E_PEER_LOST, "worker %u %s", peer, why);
    tr_members_lose(d->o.members, peer, "%s", why);
    return TR_OK;
}

/* TR_E_BUSY: somebody else must do it. */
static tr_status send_patiently(tr_dispatch *d, tr_peer to, tr_msg **m, tr_time late)
{
    tr_time begin = tr_now();

    for (;;) {
        tr_status st = tr_transport_send(d->o.transport, to, m);
        if (st != TR_E_BUSY)
            return st;
        tr_time now = tr_now();
        if (d->o.recovery && now > late) {
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

static size_t row_class(size_t n_rows)
{
    size_t c = 0;

    while (n_rows >>= 1)
        c++;
    return c < ROW_CLASSES ? c : ROW_CLASSES - 1;
}

/* What is normal for so many rows, many times over. */
static tr_time patience(const tr_dispatch *d)
{
    tr_time slowest = d->slowest[row_class(d->n_rows)];
    tr_time t = slowest * LATE_FACTOR;

    if (slowest == 0)
        t = first_patience;
    t = t > late_floor ? t : late_floor;
    return t < d->o.share_timeout / 4 ? t : d->o.share_timeout / 4;
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
    st = send_patiently(d, s->peer, &m, a->late);
    tr_msg_free(&m);
    return st;
}

/* To its holder, unless that is this process.  A holder that turns out to be lost, or can't take it
 * for now, is left to recover(). */
static tr_status send_out(tr_dispatch *d, size_t i, tr_time patience)
{
    const tr_share *s = &d->plan.share[i];
    answer *a = &d->answers[i];

    *a = (answer){ .share = d->next_share++,
                   .epoch = d->o.placement->epoch,
                   .is_sent = true,
                   .message = a->message,
                   .refused = a->refused,
                   .refused_by = a->refused_by };
    if (d->o.recovery && !tr_recovery_is_calm(d->o.recovery))
        for (size_t k = 0; k < s->n_picks; k++)
            tr_recovery_asked(d->o.recovery, d->layer, expert_of(d, s, k));
    if (s->peer == 0)
        return TR_OK;
    a->late = tr_deadline_after(tr_now(), patience);
    tr_status st = send_share(d, s, a);
    if (st == TR_E_PEER_LOST)
        return lose(d, s->peer, "takes no more messages");
    if (st != TR_E_BUSY)
        return st;
    a->is_sent = false;
    return TR_OK;
}

/* A worker that was late gets no shares, so something else must show that it answers. */
static tr_status probe_late(tr_dispatch *d, tr_time now)
{
    tr_status st = TR_OK;

    if (now - d->probed < probe_period)
        return TR_OK;
    d->probed = now;
    for (tr_peer peer = 1; peer < d->n_peers && st == TR_OK; peer++) {
        if (tr_members_get(d->o.members, peer)->is_late)
            st = tr_echo_send(d->o.transport, d->o.job, peer, 0);
        if (st == TR_E_BUSY || st == TR_E_PEER_LOST) /* then it is still late */
            st = TR_OK;
    }
    return st;
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
    d->begun = tr_now();
    d->deadline = tr_deadline_after(d->begun, d->o.share_timeout);
    d->troubled = 0;
    d->resent = 0;
    d->step++;
    d->stats.layers++;
    tr_plan_build(&d->plan, picks, n_rows, d->o.map->layer[layer].top_k, d->o.placement, layer);
    tr_time usual = patience(d);
    st = d->o.recovery ? probe_late(d, d->begun) : TR_OK;
    for (size_t i = 0; i < d->plan.n_shares && st == TR_OK; i++) {
        d->peer_rows[d->plan.share[i].peer] += d->plan.share[i].n_picks;
        st = send_out(d, i, usual);
    }
    return st;
}

/* ---- shares that this process computes ----------------------------------------------------- */

/* What it was given by recovery is loaded when it is needed. */
static tr_status load_adopted(tr_dispatch *d, const tr_share *s)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < s->n_picks && st == TR_OK; i++)
        st = tr_shards_load(d->o.local, d->layer, expert_of(d, s, i));
    return st;
}

/* An answer of this worker can't be used; too many, and none of it can. */
static tr_status strike(tr_dispatch *d, tr_peer peer, const char *why)
{
    if (tr_members_count_refused(d->o.members, peer) < MAX_REFUSED)
        return TR_OK;
    return lose(d, peer, why);
}

/* The same share was computed again: whose were the numbers that were refused?  The same bytes are
 * the model's own. */
static tr_status judge_refused(tr_dispatch *d, answer *a, const float *rows, size_t n)
{
    if (!a->refused)
        return TR_OK;
    bool is_its_fault = memcmp(a->refused, rows, n * sizeof *rows) != 0;
    a->refused = NULL;
    tr_msg_free(&a->message);
    if (!is_its_fault)
        return TR_OK;
    tr_log(TR_LOG_WARN, "worker %u computed layer %u wrongly: its numbers were not finite",
           a->refused_by, d->layer);
    return strike(d, a->refused_by, "answered numbers that are not finite, again and again");
}

static tr_status run_local(tr_dispatch *d, size_t i)
{
    const tr_share *s = &d->plan.share[i];
    float *rows = d->local_rows + s->first_pick * d->o.map->dim;

    TR_CHECK(d->apply != NULL);
    tr_time begin = tr_now();
    tr_status st = load_adopted(d, s);
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
    st = tr_apply_share(d->apply, &in, rows, NULL, NULL);
    d->answers[i].rows = rows;
    d->peer_busy[0] += (uint64_t)(tr_now() - begin);
    return st == TR_OK ? judge_refused(d, &d->answers[i], rows, s->n_picks * d->o.map->dim) : st;
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
static answer *find_answer(tr_dispatch *d, tr_peer from, const tr_frame_header *h,
                           const tr_share **share)
{
    for (size_t i = 0; d->is_begun && i < d->plan.n_shares; i++) {
        const tr_share *s = &d->plan.share[i];
        answer *a = &d->answers[i];
        if (a->share == h->share && s->peer == from && !a->rows && h->epoch == a->epoch &&
            h->layer == d->layer) {
            *share = s;
            return a;
        }
    }
    return NULL;
}

/* One more in an exponent of ones reaches the sign's bit. */
static bool is_finite(const float *x, size_t n)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        sum |= (bits & 0x7f800000u) + 0x00800000u;
    }
    return sum >> 31 == 0;
}

/* What a worker owes is to be sent again: to others, or to itself if nobody else has room and it is
 * back. */
static void owe_again(tr_dispatch *d, tr_peer peer)
{
    for (size_t i = 0; i < d->plan.n_shares; i++)
        if (d->plan.share[i].peer == peer && !d->answers[i].rows)
            d->answers[i].is_sent = false;
}

/* Nothing in it can be believed, not even which share it answers: others compute all that the
 * worker owes, and it must show by an echo that it can be understood. */
static tr_status refuse_frame(tr_dispatch *d, tr_peer from, const char *reason)
{
    char why[320];

    snprintf(why, sizeof why, "sent a frame that can't be read (%s)", reason);
    d->stats.answers_refused++;
    if (!d->o.recovery)
        return lose(d, from, why);
    tr_status st = strike(d, from, why);
    if (st == TR_OK)
        tr_members_suspect(d->o.members, from, "%s", why);
    owe_again(d, from);
    return st;
}

/* Memory for experts of a share, though it is not the coordinator's. */
static bool can_compute_here(tr_dispatch *d, const tr_share *s)
{
    for (size_t i = 0; i < s->n_picks; i++)
        if (!tr_recovery_take_here(d->o.recovery, d->layer, expert_of(d, s, i)))
            return false;
    return true;
}

/* Numbers that are not finite are computed once more, here or, if there is no memory for that, by
 * the same worker: what comes twice stands. */
static tr_status refuse_answer(tr_dispatch *d, answer *a, const tr_share *s, const float *rows,
                               tr_msg **m)
{
    d->stats.answers_refused++;
    d->troubled = d->troubled ? d->troubled : tr_now();
    tr_fault_log_noticed(d->o.faults, s->peer, "its numbers are not finite");
    a->refused = rows;
    a->refused_by = s->peer;
    tr_msg_free(&a->message);
    a->message = *m;
    *m = NULL;
    a->is_moved = can_compute_here(d, s);
    a->is_sent = a->is_moved;
    return TR_OK;
}

/* The holder says why it can't: if it only lacks room for what it was given in addition, it keeps
 * what it has. */
static tr_status on_error(tr_dispatch *d, tr_peer from, const tr_frame_view *v)
{
    const tr_share *s = NULL;
    char why[256];

    snprintf(why, sizeof why, "can't compute its share: %.*s", (int)v->text.size,
             (const char *)v->text.data);
    if (!find_answer(d, from, &v->header, &s) && d->o.recovery) {
        d->stats.frames_dropped++;
        return TR_OK;
    }
    for (size_t i = 0; s && d->o.recovery && i < s->n_picks; i++) {
        uint32_t e = expert_of(d, s, i);
        if (tr_placement_home(d->o.placement, d->layer, e) != from) {
            tr_log(TR_LOG_WARN, "worker %u %s", from, why);
            tr_recovery_is_full(d->o.recovery, from);
            d->answers[s - d->plan.share].is_sent = false;
            return TR_OK;
        }
    }
    return lose(d, from, why);
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
        return refuse_frame(d, from, reason);
    if (v.header.kind == TR_FRAME_ERROR)
        return on_error(d, from, &v);
    const tr_share *s = NULL;
    answer *a = v.header.kind == TR_FRAME_ANSWER ? find_answer(d, from, &v.header, &s) : NULL;
    if (d->o.recovery && (v.header.kind == TR_FRAME_ANSWER || v.header.kind == TR_FRAME_ECHO))
        tr_members_trust(d->o.members, from);
    if (v.header.kind == TR_FRAME_ECHO)
        return TR_OK;
    if (!a) {
        d->stats.frames_dropped++;
        return TR_OK;
    }
    if (v.header.n_picks != s->n_picks)
        return lose(d, from, "answered another number of picks than it was sent");
    const float *rows = (const float *)(const void *)v.rows;
    size_t n = s->n_picks * d->o.map->dim;
    bool is_repeated = a->refused && memcmp(a->refused, rows, n * sizeof *rows) == 0;
    if (d->o.recovery && !is_repeated && !is_finite(rows, n)) {
        st = a->refused ? strike(d, from, "answers numbers that are not finite") : TR_OK;
        return st == TR_OK ? refuse_answer(d, a, s, rows, m) : st;
    }
    st = judge_refused(d, a, rows, n);
    if (st != TR_OK)
        return st;
    a->rows = rows;
    a->message = *m;
    *m = NULL;
    d->peer_busy[from] += v.header.busy_ns;
    if (v.header.busy_ns > d->longest)
        d->longest = v.header.busy_ns;
    return TR_OK;
}

/* ---- when a holder fails ------------------------------------------------------------------- */

/* A holder that said that it has to load an expert first: a disk may take its time, but not any. */
static void wait_for_disk(tr_dispatch *d, answer *a, tr_time since)
{
    if (since == 0 || a->late == TR_FOREVER)
        return;
    tr_time late = tr_deadline_after(since, d->o.share_timeout / 4);
    tr_time deadline = tr_deadline_after(since, d->o.share_timeout);
    a->late = a->late > late ? a->late : late;
    d->deadline = d->deadline > deadline ? d->deadline : deadline;
}

/* Suspect the holders that are late.  Should nobody have room for their work, it is theirs again
 * once they are back: the share or its answer may be lost. */
static void find_late(tr_dispatch *d, tr_time now)
{
    for (size_t i = 0; i < d->plan.n_shares; i++) {
        const tr_share *s = &d->plan.share[i];
        answer *a = &d->answers[i];
        if (s->peer == 0 || a->rows)
            continue;
        wait_for_disk(d, a, tr_members_get(d->o.members, s->peer)->fetching);
        if (now < a->late)
            continue;
        a->late = TR_FOREVER;
        a->is_sent = false;
        tr_members_suspect(d->o.members, s->peer, "is late with layer %u", d->layer);
    }
}

static bool needs_another(const tr_dispatch *d, size_t i)
{
    tr_peer peer = d->plan.share[i].peer;
    const answer *a = &d->answers[i];

    return !a->rows && peer != 0 &&
           (!a->is_sent || a->is_moved || !tr_members_answers(d->o.members, peer));
}

/* A substitute may have to load first. */
static tr_status send_again(tr_dispatch *d, size_t i)
{
    tr_fault_log_sent_again(d->o.faults, d->plan.share[i].peer);
    return send_out(d, i, d->o.share_timeout / 4);
}

/* To those that placement names now.  Another computes something else than what was refused. */
static void split(tr_dispatch *d, size_t i)
{
    size_t before = d->plan.n_shares;
    tr_peer peer = d->plan.share[i].peer;

    tr_plan_split(&d->plan, i, d->picks, d->o.placement, d->layer);
    for (size_t k = before; k < d->plan.n_shares; k++)
        d->answers[k] = (answer){ 0 };
    if (d->plan.share[i].peer == peer && d->plan.n_shares == before)
        return;
    d->answers[i].refused = NULL;
    tr_msg_free(&d->answers[i].message);
}

/* Send what unusable holders owe to those that have their experts now. */
static tr_status recover(tr_dispatch *d)
{
    size_t n = d->plan.n_shares;
    bool is_needed = false;

    for (size_t i = 0; i < n; i++)
        is_needed = is_needed || needs_another(d, i);
    if (!is_needed)
        return TR_OK;
    d->troubled = d->troubled ? d->troubled : tr_now();
    tr_status st = tr_recovery_look(d->o.recovery);
    if (st == TR_E_BUSY) /* until a worker is back, or the deadline */
        return TR_OK;
    for (size_t i = 0; i < n && st == TR_OK; i++) {
        if (!needs_another(d, i))
            continue;
        size_t before = d->plan.n_shares;
        tr_peer peer = d->plan.share[i].peer;
        if (d->answers[i].is_moved)
            d->plan.share[i].peer = 0;
        else
            split(d, i);
        d->resent++;
        if (d->plan.share[i].peer != peer || d->plan.n_shares > before)
            d->deadline = tr_deadline_after(tr_now(), d->o.share_timeout);
        st = send_again(d, i);
        for (size_t k = before; k < d->plan.n_shares && st == TR_OK; k++)
            st = send_again(d, k);
    }
    return st;
}

static size_t count_waiting(const tr_dispatch *d)
{
    size_t n = 0;

    for (size_t i = 0; i < d->plan.n_shares; i++)
        n += d->answers[i].rows == NULL;
    return n;
}

static tr_status deadline_passed(const tr_dispatch *d)
{
    char text[256];

    if (d->o.recovery && tr_recovery_look(d->o.recovery) == TR_E_BUSY) {
        tr_recovery_short(d->o.recovery, text, sizeof text);
        return tr_fail(TR_E_PEER_LOST, "%s: give the cluster more workers or more memory", text);
    }
    for (size_t i = 0; i < d->plan.n_shares; i++)
        if (!d->answers[i].rows)
            return tr_fail(TR_E_DEADLINE,
                           "worker %u did not answer layer %u within %.1f s: raise --timeout-ms "
                           "if it is only slow",
                           d->plan.share[i].peer, d->layer,
                           (double)d->o.share_timeout / (double)TR_SECOND);
    return TR_OK;
}

/* Between two messages: who is there, who is late, who must do what others can't. */
static tr_status look_around(tr_dispatch *d)
{
    tr_status st = tr_interrupted() ? TR_E_INTERRUPTED
                   : d->o.members   ? tr_members_pump(d->o.members)
                                    : TR_OK;
    tr_time now = tr_now();

    if (st == TR_OK && now >= d->deadline)
        return deadline_passed(d);
    if (st == TR_OK && d->o.recovery) {
        find_late(d, now);
        st = probe_late(d, now); /* if memory is short, they are waited for */
    }
    if (st == TR_OK && d->o.recovery)
        st = recover(d);
    return st == TR_OK ? run_all_local(d) : st;
}

/* One message, or news of an end; TR_E_DEADLINE if none came until then. */
static tr_status take_message(tr_dispatch *d, tr_time until)
{
    tr_peer from = 0;
    tr_msg *m = NULL;

    tr_status st = tr_transport_recv(d->o.transport, until, &from, &m);
    if (st == TR_E_PEER_LOST)
        return lose(d, from, "is lost: its connection ended");
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

static bool is_anyone_late(const tr_dispatch *d)
{
    for (tr_peer peer = 1; d->o.recovery && peer < d->n_peers; peer++)
        if (tr_members_get(d->o.members, peer)->is_late)
            return true;
    return false;
}

tr_status tr_dispatch_pump(tr_dispatch *d)
{
    if (!is_anyone_late(d))
        return TR_OK;
    tr_status st = probe_late(d, tr_now());
    while (st == TR_OK)
        st = take_message(d, 0);
    return st == TR_E_DEADLINE ? TR_OK : st;
}

/* The slowest of late, forgotten slowly. */
static void learn(tr_dispatch *d)
{
    tr_time *slowest = &d->slowest[row_class(d->n_rows)];
    tr_time took = tr_now() - d->begun;

    *slowest -= *slowest / 64;
    if (took > *slowest)
        *slowest = took;
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
        learn(d);
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
