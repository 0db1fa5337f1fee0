/* retry.c - see retry.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/retry.h"

#include "base/log.h"
#include "coordinator/cluster/echo.h"

#include <stdio.h>
#include <string.h>

/* An answer is late after so many times what such a layer took lately, but not before the floor: a
 * busy machine may hold a process up for long. */
enum { LATE_FACTOR = 10 };
static const tr_time late_floor = TR_SECOND;
static const tr_time first_patience = 5 * TR_SECOND; /* nothing is known yet */

/* Who waits looks every millisecond: after so long without a look it did not wait. */
static const tr_time absence = 250 * TR_MS;

/* Between two questions to those who were late. */
static const tr_time probe_period = TR_SECOND;

/* Answers of one worker that were damaged or wrong, before it is given up. */
enum { MAX_REFUSED = 3 };

/* ---- who is late --------------------------------------------------------------------------- */

static size_t row_class(size_t n_rows)
{
    size_t c = 0;

    while (n_rows >>= 1)
        c++;
    return c < TR_ROW_CLASSES ? c : TR_ROW_CLASSES - 1;
}

/* What is normal for so many rows, many times over. */
tr_time tr_retry_patience(const tr_dispatch *d)
{
    tr_time slowest = d->slowest[row_class(d->n_rows)];
    tr_time t = slowest * LATE_FACTOR;

    if (slowest == 0)
        t = first_patience;
    t = t > late_floor ? t : late_floor;
    return t < d->o.share_timeout / 4 ? t : d->o.share_timeout / 4;
}

/* The slowest of late, forgotten slowly. */
void tr_retry_learn(tr_dispatch *d)
{
    tr_time *slowest = &d->slowest[row_class(d->n_rows)];
    tr_time took = tr_now() - d->begun;

    *slowest -= *slowest / 64;
    if (took > *slowest)
        *slowest = took;
}

bool tr_retry_is_anyone_late(const tr_dispatch *d)
{
    for (tr_peer peer = 1; d->o.recovery && peer < d->n_peers; peer++)
        if (tr_members_get(d->o.members, peer)->is_late)
            return true;
    return false;
}

/* A worker that was late gets no shares, so something else must show that it answers. */
tr_status tr_retry_probe(tr_dispatch *d, tr_time now)
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

static void put_off(tr_time *t, tr_time by)
{
    if (*t != 0)
        *t = tr_deadline_after(*t, by);
}

void tr_retry_excuse(tr_dispatch *d, tr_time now)
{
    tr_time away = now - d->looked;

    d->looked = now;
    if (away < absence)
        return;
    put_off(&d->deadline, away);
    put_off(&d->troubled, away);
    for (size_t i = 0; i < d->plan.n_shares; i++) {
        put_off(&d->answers[i].late, away);
        put_off(&d->answers[i].sent, away);
    }
}

uint32_t tr_retry_count_foreign(const tr_dispatch *d, const tr_share *s)
{
    uint32_t n = 0;

    for (size_t i = 0; i < s->n_picks; i++) {
        uint32_t e = tr_dispatch_expert(d, s, i);
        bool is_new = i == 0 || e != tr_dispatch_expert(d, s, i - 1);
        n += is_new && tr_placement_home(d->o.placement, d->layer, e) != s->peer;
    }
    return n;
}

/* A holder that said that it has to load an expert first: a disk may take its time, but not any,
 * and it can't load more than the share names. */
static void wait_for_disk(tr_dispatch *d, tr_awaited *a, tr_time since)
{
    if (since == 0 || since == a->fetched || a->n_to_load == 0 || a->late == TR_FOREVER)
        return;
    tr_time late = tr_deadline_after(since, d->o.share_timeout / 4);
    tr_time deadline = tr_deadline_after(since, d->o.share_timeout);
    a->fetched = since;
    a->n_to_load--;
    a->late = a->late > late ? a->late : late;
    d->deadline = d->deadline > deadline ? d->deadline : deadline;
}

/* Suspect the holders that are late.  Should nobody have room for their work, it is theirs again
 * once they are back: the share or its answer may be lost. */
static void find_late(tr_dispatch *d, tr_time now)
{
    for (size_t i = 0; i < d->plan.n_shares; i++) {
        const tr_share *s = &d->plan.share[i];
        tr_awaited *a = &d->answers[i];
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

/* ---- who is to blame ----------------------------------------------------------------------- */

/* The state of a worker that can't be used is its members' affair; without them it is the end. */
tr_status tr_retry_lose(tr_dispatch *d, tr_peer peer, const char *why)
{
    if (!d->o.recovery)
        return tr_fail(TR_E_PEER_LOST, "worker %u %s", peer, why);
    tr_members_lose(d->o.members, peer, "%s", why);
    return TR_OK;
}

/* An answer of this worker can't be used; too many, and none of it can. */
static tr_status strike(tr_dispatch *d, tr_peer peer, const char *why)
{
    if (tr_members_count_refused(d->o.members, peer) < MAX_REFUSED)
        return TR_OK;
    return tr_retry_lose(d, peer, why);
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
tr_status tr_retry_refuse(tr_dispatch *d, tr_peer from, const char *reason)
{
    char why[320];

    snprintf(why, sizeof why, "sent a frame that can't be read (%s)", reason);
    d->stats.answers_refused++;
    if (!d->o.recovery)
        return tr_retry_lose(d, from, why);
    tr_status st = strike(d, from, why);
    if (st == TR_OK)
        tr_members_suspect(d->o.members, from, "%s", why);
    owe_again(d, from);
    return st;
}

/* The holder says why it can't: if it only lacks room for what it was given in addition, it keeps
 * what it has. */
tr_status tr_retry_error(tr_dispatch *d, tr_peer from, const tr_share *s, const tr_frame_view *v)
{
    char why[256];

    snprintf(why, sizeof why, "can't compute its share: %.*s", (int)v->text.size,
             (const char *)v->text.data);
    if (!s && d->o.recovery) {
        d->stats.frames_dropped++;
        return TR_OK;
    }
    for (size_t i = 0; s && d->o.recovery && i < s->n_picks; i++) {
        uint32_t e = tr_dispatch_expert(d, s, i);
        if (tr_placement_home(d->o.placement, d->layer, e) != from) {
            tr_log(TR_LOG_WARN, "worker %u %s", from, why);
            tr_recovery_is_full(d->o.recovery, from);
            d->answers[s - d->plan.share].is_sent = false;
            return TR_OK;
        }
    }
    return tr_retry_lose(d, from, why);
}

/* The share was computed here as well: whose were the numbers that were refused?  The same bytes
 * are the model's own. */
static tr_status judge_refused(tr_dispatch *d, tr_awaited *a, const float *rows, size_t n)
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

/* The layer waits for a share since that went out. */
static void note_trouble(tr_dispatch *d, const tr_awaited *a)
{
    if (d->troubled == 0 || a->sent < d->troubled)
        d->troubled = a->sent;
}

/* Numbers that are not finite are the model's own only if this process, which the text is defined
 * by, computes them too.  Another worker may be wrong in the same way, and the same one will be. */
static void refuse_answer(tr_dispatch *d, size_t i, const float *rows, tr_msg **m)
{
    tr_share *s = &d->plan.share[i];
    tr_awaited *a = &d->answers[i];

    d->stats.answers_refused++;
    note_trouble(d, a);
    d->resent++;
    tr_fault_log_noticed(d->o.faults, s->peer, "its numbers are not finite");
    tr_fault_log_sent_again(d->o.faults, s->peer, 0);
    a->refused = rows;
    a->refused_by = s->peer;
    a->message = *m;
    *m = NULL;
    s->peer = 0; /* what else the worker sends for it answers nothing */
}

tr_status tr_retry_judge(tr_dispatch *d, size_t i, const float *rows, tr_msg **m, bool *stands)
{
    const tr_share *s = &d->plan.share[i];
    size_t n = s->n_picks * d->o.map->dim;

    *stands = s->peer == 0 || !d->o.recovery || is_finite(rows, n);
    if (*stands)
        return judge_refused(d, &d->answers[i], rows, n);
    refuse_answer(d, i, rows, m);
    return TR_OK;
}

/* ---- who computes it instead --------------------------------------------------------------- */

static bool needs_another(const tr_dispatch *d, size_t i)
{
    tr_peer peer = d->plan.share[i].peer;
    const tr_awaited *a = &d->answers[i];

    return !a->rows && peer != 0 && (!a->is_sent || !tr_members_answers(d->o.members, peer));
}

/* A substitute may have to load first. */
static tr_status send_again(tr_dispatch *d, size_t i, tr_peer from)
{
    tr_fault_log_sent_again(d->o.faults, from, d->plan.share[i].peer);
    return tr_dispatch_send(d, i, d->o.share_timeout / 4);
}

/* To those that placement names now. */
static void split(tr_dispatch *d, size_t i)
{
    size_t before = d->plan.n_shares;

    tr_plan_split(&d->plan, i, d->picks, d->o.placement, d->layer);
    for (size_t k = before; k < d->plan.n_shares; k++)
        d->answers[k] = (tr_awaited){ .sent = d->answers[i].sent };
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
    for (size_t i = 0; i < n; i++)
        if (needs_another(d, i))
            note_trouble(d, &d->answers[i]);
    tr_status st = tr_recovery_look(d->o.recovery);
    if (st == TR_E_BUSY) /* until a worker is back, or the deadline */
        return TR_OK;
    for (size_t i = 0; i < n && st == TR_OK; i++) {
        if (!needs_another(d, i))
            continue;
        size_t before = d->plan.n_shares;
        tr_peer peer = d->plan.share[i].peer;
        split(d, i);
        d->resent++;
        if (d->plan.share[i].peer != peer || d->plan.n_shares > before)
            d->deadline = tr_deadline_after(tr_now(), d->o.share_timeout);
        st = send_again(d, i, peer);
        for (size_t k = before; k < d->plan.n_shares && st == TR_OK; k++)
            st = send_again(d, k, peer);
    }
    return st;
}

tr_status tr_retry_look(tr_dispatch *d, tr_time now)
{
    if (!d->o.recovery)
        return TR_OK;
    find_late(d, now);
    tr_status st = tr_retry_probe(d, now); /* if memory is short, they are waited for */
    return st == TR_OK ? recover(d) : st;
}

tr_status tr_retry_give_up(tr_dispatch *d)
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
