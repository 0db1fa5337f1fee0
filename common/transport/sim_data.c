/* sim_data.c - the transport contract inside a simulation.
 *
 * A message in the queue of events is on its way; once it arrives it lies in the receiver's inbox.
 * Both count against the sender, as long as the receiver's code does not take them: one that is
 * dead or hangs takes nothing, and says nothing.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "transport/sim_world.h"

enum { ON_THE_WAY_MAX = 64 }; /* messages from one peer to another */

static void msg_free(tr_msg *m)
{
    tr_msg_pool_put(tr_slab_of(m));
}

const struct tr_msg_ops tr_world_msg_ops = { msg_free };

static tr_status data_reserve(tr_transport *t, tr_peer to, size_t size, tr_msg **out)
{
    tr_sim *s = ((tr_world_process *)t)->sim;
    tr_slab *slab = NULL;

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(size >= 1);
    TR_CHECK(size <= s->o.max_size);
    tr_status st = tr_msg_pool_take(&s->pool, size, &slab);
    if (st == TR_OK)
        *out = &slab->msg;
    return st;
}

/* ---- sending ------------------------------------------------------------------------------- */

/* It arrives after all that was sent before it. */
static void put_on_the_way(tr_world_process *p, tr_peer to, tr_slab *slab, tr_time delay)
{
    tr_sim *s = p->sim;
    tr_world_way *way = tr_world_way_of(s, p->base.self, to);
    tr_time leaves = way->cut_until > s->now ? way->cut_until : s->now;

    if (leaves == TR_FOREVER) {
        tr_msg_pool_put(slab); /* and counts for ever: it is not known to be lost */
        return;
    }
    if (leaves + delay > way->last_data)
        way->last_data = leaves + delay;
    tr_world_push(s, &(tr_world_event){ .time = way->last_data,
                                        .kind = TR_WORLD_DATA,
                                        .from = p->base.self,
                                        .to = to,
                                        .u.slab = slab });
}

/* A second one of the same bytes, which does not count. */
static void put_copy_on_the_way(tr_world_process *p, tr_peer to, const tr_msg *m, tr_time delay)
{
    tr_slab *copy = NULL;

    if (tr_msg_pool_take(&p->sim->pool, m->size, &copy) != TR_OK)
        return;
    memcpy(copy->msg.data, m->data, m->size);
    copy->has_come = true;
    put_on_the_way(p, to, copy, delay);
}

/* Its numbers, before its bytes: the checksum is right. */
static void spoil(tr_world_process *p, tr_msg *m, const tr_world_fate *fate)
{
    const tr_sim_options *o = &p->sim->o;

    if (!o->spoil)
        return;
    if (p->wrong_until > p->sim->now)
        o->spoil(m->data, m->size, p->wrong_number);
    if (fate->is_not_a_number)
        o->spoil(m->data, m->size, fate->number);
}

static void send_slab(tr_world_process *p, tr_peer to, tr_slab *slab)
{
    tr_sim *s = p->sim;
    tr_world_way *way = tr_world_way_of(s, p->base.self, to);
    tr_world_fate fate = tr_world_fate_of(s, p->base.self, to, false, way->n_data++);

    if (fate.is_lost) {
        tr_msg_pool_put(slab);
        return;
    }
    way->n_on_the_way++;
    spoil(p, &slab->msg, &fate);
    if (fate.is_corrupt)
        slab->msg.data[fate.byte % slab->msg.size] ^= (uint8_t)(1u << fate.byte % 8);
    if (fate.is_twice)
        put_copy_on_the_way(p, to, &slab->msg, fate.delay);
    put_on_the_way(p, to, slab, fate.delay);
}

static tr_status data_send(tr_transport *t, tr_peer to, tr_msg **m)
{
    tr_world_process *p = (tr_world_process *)t;
    tr_slab *slab = tr_slab_of(*m);

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(to != t->self);
    tr_world_spend(p);
    if (!p->is_dead)
        tr_world_faults_before_message(p);
    const tr_world_way *back = tr_world_way_of(p->sim, to, t->self);
    if (p->is_dead || back->is_dropped || back->is_closed)
        return TR_E_PEER_LOST;
    const tr_world_way *way = tr_world_way_of(p->sim, t->self, to);
    if (way->n_on_the_way >= ON_THE_WAY_MAX || way->stuck_until > p->sim->now)
        return TR_E_BUSY;
    t->stats.messages_sent++;
    t->stats.bytes_sent += slab->msg.size;
    p->n_sent++;
    *m = NULL;
    slab->has_come = false;
    send_slab(p, to, slab);
    return TR_OK;
}

/* ---- receiving ----------------------------------------------------------------------------- */

void tr_world_data_arrive(tr_sim *s, tr_peer from, tr_peer to, tr_slab *slab)
{
    tr_world_process *p = &s->process[to];

    if (p->is_dead || p->is_closed) {
        tr_msg_pool_put(slab);
        return;
    }
    tr_world_way *way = tr_world_way_of(s, from, to);
    if (way->is_dropped) {
        if (!slab->has_come)
            way->n_on_the_way--;
        tr_msg_pool_put(slab);
        return;
    }
    slab->peer = from;
    tr_slab_append(&p->inbox, slab);
    tr_world_wake(p, TR_WORLD_FOR_DATA);
}

void tr_world_closed_arrives(tr_sim *s, tr_peer from, tr_peer to)
{
    tr_world_way_of(s, from, to)->is_closed = true;
    tr_world_wake(&s->process[to], TR_WORLD_FOR_DATA);
}

/* A peer whose end has been noticed, but not been told. */
static bool find_closed(tr_world_process *p, tr_peer *from)
{
    for (tr_peer peer = 0; peer <= p->base.n_peers; peer++) {
        tr_world_way *way = tr_world_way_of(p->sim, peer, p->base.self);
        if (!way->is_closed || way->is_told || way->is_dropped)
            continue;
        way->is_told = true;
        *from = peer;
        return true;
    }
    return false;
}

static tr_status take(tr_world_process *p, tr_slab *slab, tr_peer *from, tr_msg **out)
{
    tr_transport *t = &p->base;
    tr_world_way *way = tr_world_way_of(p->sim, slab->peer, t->self);

    if (!slab->has_come)
        way->n_on_the_way--;
    t->stats.messages_received++;
    t->stats.bytes_received += slab->msg.size;
    if (t->self != 0)
        tr_world_wait(p,
                      p->sim->now + tr_world_draw_work(p->sim, t->self, t->stats.messages_received),
                      TR_WORLD_FOR_TIME);
    if (p->is_dead) {
        tr_msg_pool_put(slab);
        return TR_E_INTERRUPTED;
    }
    *from = slab->peer;
    *out = &slab->msg;
    return TR_OK;
}

static tr_status data_recv(tr_transport *t, tr_time deadline, tr_peer *from, tr_msg **out)
{
    tr_world_process *p = (tr_world_process *)t;

    tr_world_spend(p);
    tr_world_let_others(p);
    for (;;) {
        if (p->is_dead)
            return TR_E_INTERRUPTED;
        tr_slab *slab = tr_slab_pop(&p->inbox);
        if (slab)
            return take(p, slab, from, out);
        tr_peer lost = 0;
        if (find_closed(p, &lost)) {
            *from = lost;
            return tr_fail(TR_E_PEER_LOST, "simulation: peer %u closed its end", lost);
        }
        if (p->sim->now >= deadline)
            return TR_E_DEADLINE;
        tr_world_wait(p, deadline, TR_WORLD_FOR_DATA);
    }
}

/* ---- ending -------------------------------------------------------------------------------- */

static void data_drop(tr_transport *t, tr_peer peer)
{
    tr_world_process *p = (tr_world_process *)t;
    tr_slab_list gone = { NULL, NULL };
    tr_slab *slab;

    TR_CHECK(peer <= t->n_peers);
    TR_CHECK(peer != t->self);
    tr_world_way *way = tr_world_way_of(p->sim, peer, t->self);
    way->is_dropped = true;
    tr_slab_split(&p->inbox, peer, &gone);
    while ((slab = tr_slab_pop(&gone))) {
        if (!slab->has_come)
            way->n_on_the_way--;
        tr_msg_pool_put(slab);
    }
}

void tr_world_data_close(tr_world_process *p)
{
    tr_sim *s = p->sim;
    tr_slab *slab;

    p->is_closed = true;
    while ((slab = tr_slab_pop(&p->inbox)))
        tr_msg_pool_put(slab);
    for (tr_peer peer = 0; peer <= s->o.n_workers; peer++) {
        bool are_peers = (p->base.self == 0) != (peer == 0);
        tr_world_way *way = tr_world_way_of(s, p->base.self, peer);
        if (!are_peers || !s->o.rules.tells_losses || way->cut_until == TR_FOREVER)
            continue;
        tr_time time = s->now + s->o.rules.delay_min;
        tr_world_push(s, &(tr_world_event){ .time = time > way->last_data ? time : way->last_data,
                                            .kind = TR_WORLD_CLOSED,
                                            .from = p->base.self,
                                            .to = peer });
    }
}

static void data_close(tr_transport *t)
{
    tr_world_process *p = (tr_world_process *)t;

    if (p->is_dead)
        p->is_closed = true; /* what it had not received is freed with the world */
    else
        tr_world_data_close(p);
}

const tr_transport_ops tr_world_data_ops = { "sim",     data_reserve, data_send,
                                             data_recv, data_drop,    data_close };
