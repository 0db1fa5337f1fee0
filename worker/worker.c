/* worker.c - join, load, then one share after the other.
 * SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "compute/cpu.h"
#include "experts/apply.h"
#include "proto/frame.h"
#include "worker/faults.h"
#include "worker/hosting.h"
#include "worker/join.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

/* How long an idle worker waits for a share before it looks after its heartbeat. */
static const tr_time idle_period = 20 * TR_MS;

/* How long a share for experts that were not assigned waits for the assignment. */
static const tr_time assignment_patience = TR_SECOND;

/* How long a worker whose data connection ended waits for the word that it should end. */
static const tr_time word_patience = 200 * TR_MS;

/* How long a worker that was told to end by a signal waits for the coordinator to let it go. */
static const tr_time interrupt_patience = 30 * TR_SECOND;

static_assert(sizeof(tr_frame_pick) == sizeof(tr_share_pick), "one pick, two names");
static_assert(offsetof(tr_frame_pick, expert) == offsetof(tr_share_pick, expert),
              "one pick, two names");

typedef struct {
    tr_transport *transport;
    tr_join *join;
    tr_assignment assignment;
    tr_compute compute;
    tr_expert_map map;
    tr_hosting *hosting;
    tr_apply *apply;
    tr_frame_limits limits;
    tr_faults faults;
    uint64_t steps_per_pass; /* layers with experts */
    tr_worker_stats stats;
    tr_status pumped; /* what looking after the control plane gave; sticky */
    bool is_over;
    bool is_adopting;    /* loads in the background what it got after the first assignment */
    tr_time interrupted; /* when a signal was seen; 0: none */
} worker;

static const tr_share_pick *picks_of(const tr_frame_view *v)
{
    return (const tr_share_pick *)(const void *)v->picks;
}

static uint64_t loaded_bytes(const worker *w)
{
    return tr_shards_bytes(tr_hosting_shards(w->hosting));
}

/* ---- loading ------------------------------------------------------------------------ */

static tr_status load_experts(worker *w)
{
    uint64_t total = tr_hosting_bytes(w->hosting);
    tr_status st = TR_OK;

    while (st == TR_OK && !w->is_over && tr_hosting_is_behind(w->hosting)) {
        st = tr_hosting_load_next(w->hosting);
        tr_faults_await_link(&w->faults);
        if (st == TR_OK)
            st = tr_join_progress(w->join, loaded_bytes(w), total, &w->is_over);
        if (st == TR_OK && tr_interrupted())
            st = TR_E_INTERRUPTED;
    }
    return st;
}

static tr_status say_ready(worker *w)
{
    const tr_shards *s = tr_hosting_shards(w->hosting);

    tr_faults_await_link(&w->faults);
    return tr_join_ready(w->join, (uint32_t)tr_shards_count(s), tr_shards_bytes(s));
}

static void tell_injected(void *ctx, uint32_t number, uint32_t nth)
{
    tr_join_injected(((worker *)ctx)->join, number, nth);
}

static void take_faults(worker *w)
{
    uint32_t n;
    const tr_fault_rule *rules = tr_join_faults(w->join, &n);

    tr_faults_init(&w->faults, rules, n, w->transport->self, tell_injected, w);
}

static tr_status prepare(worker *w, const tr_worker_options *o)
{
    const tr_gguf *g = tr_join_model(w->join);

    tr_status st = tr_expert_map_read(g, &w->map);
    if (st != TR_OK)
        return st;
    for (uint32_t l = 0; l < w->map.n_layers; l++)
        w->steps_per_pass += tr_expert_map_has(&w->map, l);
    if (w->steps_per_pass == 0)
        w->steps_per_pass = 1;
    take_faults(w);
    w->compute.exact = w->assignment.exact;
    w->compute.kernels = tr_kernels_select(tr_cpu_features(), w->assignment.kernels);
    if (!w->compute.kernels)
        return tr_fail(TR_E_UNSUPPORTED, "kernel table %s does not exist on this machine",
                       w->assignment.kernels);
    st = tr_pool_new(o->threads, &w->compute.pool);
    if (st == TR_OK)
        st = tr_hosting_new(&w->compute, g, &w->map, &w->hosting);
    if (st == TR_OK)
        st = tr_hosting_add(w->hosting, &w->assignment);
    if (st == TR_OK)
        st = load_experts(w);
    if (st == TR_OK)
        st = tr_apply_new(&w->compute, tr_hosting_shards(w->hosting), &w->apply);
    if (st != TR_OK || w->is_over)
        return st;
    w->limits = (tr_frame_limits){
        .job = w->assignment.job,
        .n_layers = w->map.n_layers,
        .n_experts = w->map.n_experts,
        .max_rows = w->assignment.max_rows,
        .max_picks = w->assignment.max_rows * w->map.top_k,
        .dim = w->map.dim,
    };
    return say_ready(w);
}

/* As prepare; what goes wrong is said on both sides. */
static tr_status prepare_or_tell(worker *w, const tr_worker_options *o)
{
    char reason[512];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = prepare(w, o);
    tr_fail_capture_end();
    if (st == TR_OK || st == TR_E_INTERRUPTED)
        return st;
    if (tr_status_scope(st) != TR_SCOPE_PEER || st == TR_E_PROTOCOL)
        tr_join_fail(w->join, reason);
    return tr_fail(st, "%s", reason);
}

/* ---- serving ------------------------------------------------------------------------ */

/* Heartbeats go on while a long share is computed. */
static void tick(void *ctx)
{
    worker *w = ctx;

    if (w->faults.n > 0)
        tr_faults_at_time(&w->faults);
    if (w->pumped == TR_OK && !tr_faults_are_muted(&w->faults))
        w->pumped = tr_join_pump(w->join, &w->stats, &w->is_over);
}

/* What a lost worker held and this one is to hold from now on. */
static tr_status take_assignments(worker *w)
{
    tr_assignment a;
    tr_status st = TR_OK;

    while (st == TR_OK && tr_join_next_assignment(w->join, &a)) {
        st = tr_hosting_add(w->hosting, &a);
        w->is_adopting = w->is_adopting || !a.lazy;
        tr_assignment_fini(&a);
    }
    return st;
}

/* An expert at a time, while no share waits. */
static tr_status adopt_next(worker *w)
{
    char reason[512];

    if (!tr_hosting_is_behind(w->hosting)) {
        w->is_adopting = false;
        return say_ready(w);
    }
    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_hosting_load_next(w->hosting);
    tr_fail_capture_end();
    if (st != TR_OK) /* a share that needs it will say so */
        tr_log(TR_LOG_WARN, "an expert of a lost worker is not loaded: %s", reason);
    return TR_OK;
}

/* The news of what this worker is to hold takes another way than the share that needs it. */
static void await_assignment_of(worker *w, const tr_frame_view *v)
{
    tr_time until = tr_now() + assignment_patience;

    while (!tr_hosting_has_all(w->hosting, v->header.layer, picks_of(v), v->header.n_picks) &&
           w->pumped == TR_OK && !w->is_over && tr_now() < until) {
        tick(w);
        if (w->pumped == TR_OK)
            w->pumped = take_assignments(w);
        tr_sleep(50 * TR_US);
    }
}

static tr_status send_patiently(worker *w, tr_msg **m)
{
    tr_faults_await_link(&w->faults);
    for (;;) {
        tr_status st = tr_transport_send(w->transport, 0, m);
        if (st != TR_E_BUSY)
            return st;
        tick(w);
        if (w->pumped != TR_OK)
            return w->pumped;
        if (w->is_over)
            return TR_OK;
        tr_sleep(50 * TR_US);
    }
}

/* A copy of an answer, under the same number. */
static tr_status send_copy(worker *w, const tr_msg *m)
{
    tr_msg *copy = NULL;

    tr_status st = tr_transport_reserve(w->transport, 0, m->size, &copy);
    if (st != TR_OK)
        return st;
    memcpy(copy->data, m->data, m->size);
    st = send_patiently(w, &copy);
    tr_msg_free(&copy);
    return st;
}

/* What the fault plan makes of an answer. */
static tr_status send_answer(worker *w, tr_msg **m, const tr_message_fate *fate)
{
    uint8_t *rows = tr_frame_rows((*m)->data);

    if (fate->delay > 0)
        tr_sleep(fate->delay);
    if (fate->is_not_a_number) {
        const float nan = NAN;
        memcpy(rows, &nan, sizeof nan);
        tr_frame_seal((*m)->data);
    }
    if (fate->is_corrupted)
        rows[0] ^= 1;
    if (fate->is_dropped)
        return TR_OK;
    tr_status st = fate->is_sent_twice ? send_copy(w, *m) : TR_OK;
    return st == TR_OK ? send_patiently(w, m) : st;
}

/* Say why a share can't be computed; the worker goes on. */
static tr_status send_error(worker *w, const tr_frame_header *share, const char *reason)
{
    size_t n = strlen(reason);
    tr_msg *m = NULL;

    tr_status st = tr_transport_reserve(w->transport, 0, tr_frame_text_size(n), &m);
    if (st != TR_OK)
        return st;
    tr_frame_header h = {
        .kind = TR_FRAME_ERROR,
        .job = w->limits.job,
        .step = share->step,
        .share = share->share,
        .epoch = share->epoch,
        .layer = share->layer,
        .sender = w->transport->self,
    };
    tr_frame_begin(m->data, &h, n);
    memcpy(tr_frame_text(m->data), reason, n);
    tr_frame_seal(m->data);
    st = send_patiently(w, &m);
    tr_msg_free(&m);
    return st;
}

/* What a frame can't know by itself: the form of rows that this layer's kernels take. */
static tr_status check_share(const worker *w, const tr_frame_header *h)
{
    if (!tr_expert_map_has(&w->map, h->layer))
        return tr_fail(TR_E_PROTOCOL, "share: layer %u has no experts", h->layer);
    tr_act act = tr_expert_map_act(&w->map, h->layer, w->compute.exact);
    if (h->act != (uint32_t)act || h->row_size != tr_act_row_size(act, w->map.dim))
        return tr_fail(TR_E_PROTOCOL,
                       "share: rows of form %u and %u bytes, but layer %u takes form %d of %zu",
                       h->act, h->row_size, h->layer, (int)act, tr_act_row_size(act, w->map.dim));
    return TR_OK;
}

static tr_status compute(worker *w, const tr_frame_view *v, tr_msg *answer)
{
    const tr_frame_header *h = &v->header;
    tr_apply_share_in in = {
        .layer = h->layer,
        .act = (tr_act)h->act,
        .n_rows = h->n_rows,
        .n_picks = h->n_picks,
        .picks = picks_of(v),
        .rows = v->rows,
        .row_size = h->row_size,
    };
    tr_frame_header a = {
        .kind = TR_FRAME_ANSWER,
        .job = h->job,
        .step = h->step,
        .share = h->share,
        .epoch = h->epoch,
        .layer = h->layer,
        .n_picks = h->n_picks,
        .dim = w->map.dim,
        .sender = w->transport->self,
    };
    tr_time begin = tr_now();

    tr_frame_begin(answer->data, &a, 0);
    tr_status st =
        tr_apply_share(w->apply, &in, (float *)(void *)tr_frame_rows(answer->data), tick, w);
    a.busy_ns = (uint64_t)(tr_now() - begin);
    tr_frame_set_busy(answer->data, a.busy_ns);
    tr_frame_seal(answer->data);
    w->stats.shares++;
    w->stats.rows += h->n_rows;
    w->stats.picks += h->n_picks;
    w->stats.busy_ns += a.busy_ns;
    return st;
}

/* A disk may be slow: the coordinator is told not to wonder. */
static void say_fetching(void *ctx)
{
    worker *w = ctx;

    tr_faults_await_link(&w->faults);
    if (w->pumped == TR_OK)
        w->pumped =
            tr_join_fetch(w->join, loaded_bytes(w), tr_hosting_bytes(w->hosting), &w->is_over);
}

static tr_status answer_share(worker *w, const tr_frame_view *v, const tr_message_fate *fate)
{
    char reason[512];
    tr_msg *m = NULL;

    tr_status st = tr_transport_reserve(w->transport, 0,
                                        tr_frame_answer_size(v->header.n_picks, w->map.dim), &m);
    if (st != TR_OK)
        return st;
    await_assignment_of(w, v);
    tr_fail_capture_begin(reason, sizeof reason);
    st = check_share(w, &v->header);
    if (st == TR_OK)
        st = tr_hosting_load_for(w->hosting, v->header.layer, picks_of(v), v->header.n_picks,
                                 say_fetching, w);
    if (st == TR_OK)
        st = compute(w, v, m);
    tr_fail_capture_end();
    if (st == TR_OK)
        st = send_answer(w, &m, fate);
    else
        st = send_error(w, &v->header, reason);
    tr_msg_free(&m);
    return st;
}

/* The same bytes back. */
static tr_status send_echo(worker *w, const tr_frame_view *v)
{
    tr_msg *m = NULL;

    tr_status st = tr_transport_reserve(w->transport, 0, tr_frame_text_size(v->text.size), &m);
    if (st != TR_OK)
        return st;
    tr_frame_header h = {
        .kind = TR_FRAME_ECHO,
        .job = w->limits.job,
        .step = v->header.step,
        .epoch = v->header.epoch,
        .sender = w->transport->self,
    };
    tr_frame_begin(m->data, &h, v->text.size);
    memcpy(tr_frame_text(m->data), v->text.data, v->text.size);
    tr_frame_seal(m->data);
    st = send_patiently(w, &m);
    tr_msg_free(&m);
    return st;
}

/* A frame that can't be read is counted and dropped: the coordinator's deadline says the rest. */
static bool open_frame(worker *w, const tr_msg *m, tr_frame_view *v)
{
    char reason[512];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_frame_open((tr_bytes){ m->data, m->size }, &w->limits, v);
    tr_fail_capture_end();
    if (st == TR_OK)
        return true;
    w->stats.frames_dropped++;
    tr_log(TR_LOG_WARN, "frame dropped: %s", reason);
    return false;
}

/* What the fault plan makes of a share, and of its answer. */
static tr_status take_share(worker *w, tr_msg *m, tr_frame_view *v)
{
    tr_share_fate fate = { 0 };

    if (w->faults.n > 0)
        fate = tr_faults_at_share(&w->faults, (uint32_t)((v->header.step - 1) / w->steps_per_pass),
                                  v->header.layer);
    if (fate.share.delay > 0)
        tr_sleep(fate.share.delay);
    if (fate.share.is_corrupted)
        tr_frame_rows(m->data)[0] ^= 1;
    if (fate.share.is_dropped || (fate.share.is_corrupted && !open_frame(w, m, v)))
        return TR_OK;
    tr_status st = fate.share.is_sent_twice ? answer_share(w, v, &fate.answer) : TR_OK;
    return st == TR_OK ? answer_share(w, v, &fate.answer) : st;
}

static tr_status handle(worker *w, tr_msg *m)
{
    tr_frame_view v;

    if (!open_frame(w, m, &v))
        return TR_OK;
    if (v.header.kind == TR_FRAME_STOP)
        w->is_over = true;
    else if (v.header.kind == TR_FRAME_SHARE)
        return take_share(w, m, &v);
    else if (v.header.kind == TR_FRAME_ECHO)
        return send_echo(w, &v);
    else
        w->stats.frames_dropped++;
    return TR_OK;
}

/* A signal to all processes of a job: the coordinator ends it at once.  To this one alone: others
 * take its experts first. */
static bool has_waited_after_signal(worker *w)
{
    if (!tr_interrupted())
        return false;
    if (w->interrupted == 0) {
        w->interrupted = tr_now();
        tr_join_leave(w->join);
    }
    return tr_now() - w->interrupted > interrupt_patience;
}

/* The end of its data connection may be the coordinator's will, and the word about it on its way.
 */
static bool is_told_to_end(worker *w)
{
    tr_time until = tr_now() + word_patience;

    while (!w->is_over && w->pumped == TR_OK && tr_now() < until) {
        tick(w);
        tr_sleep(TR_MS);
    }
    return w->is_over;
}

static tr_status serve(worker *w)
{
    while (!w->is_over) {
        tr_peer from;
        tr_msg *m = NULL;

        tr_faults_await_link(&w->faults);
        if (has_waited_after_signal(w))
            return TR_E_INTERRUPTED;
        tr_time patience = w->is_adopting ? 0 : idle_period;
        tr_status st = tr_transport_recv(w->transport, tr_now() + patience, &from, &m);
        if (st == TR_OK) {
            st = handle(w, m);
            tr_msg_free(&m);
        } else if (st == TR_E_DEADLINE) {
            st = w->is_adopting ? adopt_next(w) : TR_OK;
        } else if (st == TR_E_PEER_LOST) {
            if (!is_told_to_end(w))
                return tr_fail(st, "the coordinator is gone");
            st = TR_OK;
        }
        tick(w);
        if (st == TR_OK)
            st = w->pumped;
        if (st == TR_OK)
            st = take_assignments(w);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

static void close_all(worker *w)
{
    tr_faults_fini(&w->faults);
    tr_apply_free(&w->apply);
    tr_hosting_free(&w->hosting);
    tr_pool_free(&w->compute.pool);
    tr_expert_map_fini(&w->map);
    tr_assignment_fini(&w->assignment);
    tr_join_close(&w->join);
}

tr_status tr_worker_run(tr_transport *transport, const tr_worker_options *o, bool *had_losses)
{
    worker w = { .transport = transport };

    tr_status st =
        o->invite ? tr_join_open_file(o->invite, o->version, o->model_path, o->threads, &w.join)
                  : tr_join_open(transport, o->version, o->model_path, o->threads, &w.join);
    w.is_over = w.join == NULL;
    if (w.join)
        w.transport = tr_join_transport(w.join);
    if (st == TR_OK && !w.is_over)
        st = tr_join_await_assignment(w.join, &w.assignment, &w.is_over);
    if (st == TR_OK && !w.is_over)
        st = prepare_or_tell(&w, o);
    if (st == TR_OK && !w.is_over)
        st = serve(&w);
    *had_losses = w.join && tr_join_had_losses(w.join);
    if (st == TR_OK && w.join && tr_join_job_failed(w.join))
        st = TR_E_PEER_LOST; /* the coordinator has said which */
    close_all(&w);
    return st;
}
