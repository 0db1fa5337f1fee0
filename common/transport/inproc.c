/* inproc.c - messages between threads: a pointer changes hands under a lock.
 *
 * One lock guards all queues; what is behind it takes nanoseconds and there are few threads.
 * Each end has one queue for all its peers, in order of arrival, and a count per peer that
 * bounds what is on its way.  Memory comes from one pool of the net, since the receiver
 * frees what the sender reserved.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/inproc.h"
#include "base/check.h"
#include "transport/msg_pool.h"

#include <pthread.h>
#include <stdlib.h>

enum { ON_THE_WAY_MAX = 64 }; /* messages from one peer to another */

/* What one end knows of a peer. */
typedef struct {
    uint32_t n_queued; /* from that peer, in this end's inbox */
    bool is_dropped;   /* by this end */
    bool is_told;      /* that it has closed */
} link_state;

typedef struct {
    tr_transport base;
    tr_inproc *net;
    pthread_cond_t wake;
    tr_slab_list inbox;
    link_state *peer; /* [n_workers + 1] */
    bool is_open, is_closed;
} end;

struct tr_inproc {
    pthread_mutex_t lock; /* guards everything below, but base.stats */
    tr_msg_pool pool;
    size_t max_size;
    tr_peer n_workers;
    size_t n_open;
    end *ends; /* [n_workers + 1] */
};

static void inproc_msg_free(tr_msg *m)
{
    tr_slab *slab = tr_slab_of(m);
    tr_inproc *net = slab->pool->owner;

    pthread_mutex_lock(&net->lock);
    tr_msg_pool_put(slab);
    pthread_mutex_unlock(&net->lock);
}

static const struct tr_msg_ops msg_ops = { inproc_msg_free };

static tr_status inproc_reserve(tr_transport *t, tr_peer to, size_t size, tr_msg **out)
{
    tr_inproc *net = ((end *)t)->net;
    tr_slab *slab = NULL;

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(size >= 1);
    TR_CHECK(size <= net->max_size);
    pthread_mutex_lock(&net->lock);
    tr_status st = tr_msg_pool_take(&net->pool, size, &slab);
    pthread_mutex_unlock(&net->lock);
    if (st == TR_OK)
        *out = &slab->msg;
    return st;
}

/* A lost peer gives no line here: its closing or the reason to drop it has been said.  The lock
 * is held. */
static tr_status deliver(end *from, tr_peer to, tr_slab *slab)
{
    end *receiver = &from->net->ends[to];
    link_state *link = &receiver->peer[from->base.self];

    if (from->peer[to].is_dropped || receiver->is_closed)
        return TR_E_PEER_LOST;
    if (link->is_dropped) {
        tr_msg_pool_put(slab);
        return TR_OK;
    }
    if (link->n_queued >= ON_THE_WAY_MAX)
        return TR_E_BUSY;
    slab->peer = from->base.self;
    link->n_queued++;
    tr_slab_append(&receiver->inbox, slab);
    pthread_cond_signal(&receiver->wake);
    return TR_OK;
}

static tr_status inproc_send(tr_transport *t, tr_peer to, tr_msg **m)
{
    end *e = (end *)t;
    size_t size = (*m)->size;

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(to != t->self);
    pthread_mutex_lock(&e->net->lock);
    tr_status st = deliver(e, to, tr_slab_of(*m));
    pthread_mutex_unlock(&e->net->lock);
    if (st != TR_OK)
        return st;
    *m = NULL;
    t->stats.messages_sent++;
    t->stats.bytes_sent += size;
    return TR_OK;
}

/* A peer of this end's (for a worker: the coordinator) whose closing it has not heard of yet.
 * The lock is held. */
static bool find_closed(end *e, tr_peer *from)
{
    tr_peer last = e->base.self == 0 ? e->base.n_peers : 0;

    for (tr_peer p = 0; p <= last; p++) {
        link_state *link = &e->peer[p];
        if (!e->net->ends[p].is_closed || link->is_told || link->is_dropped)
            continue;
        link->is_told = true;
        *from = p;
        return true;
    }
    return false;
}

/* Sleep until a message, a closing or the deadline.  The lock is held. */
static void wait_for_wake(end *e, tr_time deadline, tr_time now)
{
    if (deadline == TR_FOREVER) {
        pthread_cond_wait(&e->wake, &e->net->lock);
        return;
    }
    /* The condition waits by the machine's clock, tr_now may be another: pass the difference. */
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    tr_time until = (tr_time)ts.tv_sec * TR_SECOND + (tr_time)ts.tv_nsec;
    until = tr_deadline_after(until, deadline - now);
    ts = (struct timespec){ .tv_sec = (time_t)(until / TR_SECOND),
                            .tv_nsec = (long)(until % TR_SECOND) };
    pthread_cond_timedwait(&e->wake, &e->net->lock, &ts);
}

static tr_status inproc_recv(tr_transport *t, tr_time deadline, tr_peer *from, tr_msg **out)
{
    end *e = (end *)t;
    tr_status st = TR_E_DEADLINE;
    tr_slab *slab = NULL;
    tr_peer lost = 0;

    pthread_mutex_lock(&e->net->lock);
    for (;;) {
        slab = tr_slab_pop(&e->inbox);
        if (slab) {
            e->peer[slab->peer].n_queued--;
            st = TR_OK;
            break;
        }
        if (find_closed(e, &lost)) {
            st = TR_E_PEER_LOST;
            break;
        }
        tr_time now = tr_now();
        if (now >= deadline)
            break;
        wait_for_wake(e, deadline, now);
    }
    pthread_mutex_unlock(&e->net->lock);

    if (st == TR_E_PEER_LOST) {
        *from = lost;
        return tr_fail(st, "inproc: peer %u closed its end", lost);
    }
    if (st != TR_OK)
        return st;
    t->stats.messages_received++;
    t->stats.bytes_received += slab->msg.size;
    *from = slab->peer;
    *out = &slab->msg;
    return TR_OK;
}

/* Back to the pool with all of list.  The lock is held. */
static void discard(tr_slab_list *list)
{
    tr_slab *slab;

    while ((slab = tr_slab_pop(list)))
        tr_msg_pool_put(slab);
}

static void inproc_drop(tr_transport *t, tr_peer peer)
{
    end *e = (end *)t;
    tr_slab_list gone = { NULL, NULL };

    TR_CHECK(peer <= t->n_peers);
    TR_CHECK(peer != t->self);
    pthread_mutex_lock(&e->net->lock);
    e->peer[peer].is_dropped = true;
    e->peer[peer].n_queued = 0;
    tr_slab_split(&e->inbox, peer, &gone);
    discard(&gone);
    pthread_mutex_unlock(&e->net->lock);
}

static void inproc_close(tr_transport *t)
{
    end *e = (end *)t;
    tr_inproc *net = e->net;

    pthread_mutex_lock(&net->lock);
    e->is_open = false;
    e->is_closed = true;
    discard(&e->inbox);
    net->n_open--;
    for (tr_peer p = 0; p <= net->n_workers; p++)
        pthread_cond_signal(&net->ends[p].wake);
    pthread_mutex_unlock(&net->lock);
}

static const tr_transport_ops inproc_ops = { "inproc",    inproc_reserve, inproc_send,
                                             inproc_recv, inproc_drop,    inproc_close };

static void end_init(tr_inproc *net, tr_peer self, link_state *links)
{
    end *e = &net->ends[self];
    pthread_condattr_t attr;

    *e = (end){ .base = { .ops = &inproc_ops, .self = self, .n_peers = net->n_workers },
                .net = net,
                .peer = links };
    TR_CHECK(pthread_condattr_init(&attr) == 0);
    TR_CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    TR_CHECK(pthread_cond_init(&e->wake, &attr) == 0);
    pthread_condattr_destroy(&attr);
}

tr_status tr_inproc_new(tr_peer n_workers, size_t max_size, tr_inproc **out)
{
    size_t n_ends = (size_t)n_workers + 1;
    tr_inproc *net = calloc(1, sizeof *net);
    end *ends = calloc(n_ends, sizeof *ends);
    link_state *links = calloc(n_ends * n_ends, sizeof *links);

    if (!net || !ends || !links) {
        free(net);
        free(ends);
        free(links);
        return tr_fail(TR_E_MEMORY, "inproc: no memory for %zu ends", n_ends);
    }
    net->n_workers = n_workers;
    net->max_size = max_size;
    net->ends = ends;
    tr_msg_pool_init(&net->pool, &msg_ops, net);
    TR_CHECK(pthread_mutex_init(&net->lock, NULL) == 0);
    for (tr_peer p = 0; p <= n_workers; p++)
        end_init(net, p, links + p * n_ends);
    *out = net;
    return TR_OK;
}

void tr_inproc_free(tr_inproc **net)
{
    tr_inproc *n = *net;

    if (!n)
        return;
    TR_CHECK(n->n_open == 0);
    for (tr_peer p = 0; p <= n->n_workers; p++) {
        tr_slab_list *inbox = &n->ends[p].inbox; /* of an end that was never opened */
        discard(inbox);
        pthread_cond_destroy(&n->ends[p].wake);
    }
    tr_msg_pool_fini(&n->pool);
    pthread_mutex_destroy(&n->lock);
    free(n->ends[0].peer);
    free(n->ends);
    free(n);
    *net = NULL;
}

tr_status tr_inproc_open(tr_inproc *net, tr_peer self, tr_transport **out)
{
    TR_CHECK(self <= net->n_workers);
    end *e = &net->ends[self];

    pthread_mutex_lock(&net->lock);
    TR_CHECK(!e->is_open);
    TR_CHECK(!e->is_closed);
    e->is_open = true;
    net->n_open++;
    pthread_mutex_unlock(&net->lock);
    *out = &e->base;
    return TR_OK;
}
