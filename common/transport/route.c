/* route.c - see route.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/route.h"

#include "base/check.h"

#include <stdlib.h>

/* How long a wait stays with one of two transports. */
static const tr_time turn = 50 * TR_US;

typedef struct {
    tr_transport base;
    tr_transport *first, *second;
    tr_route_open open;
    void *ctx;
    bool *is_moved; /* [n_peers + 1] */
} route;

static tr_transport *way_to(const route *r, tr_peer peer)
{
    return r->is_moved[peer] ? r->second : r->first;
}

static void count(route *r)
{
    r->base.stats = r->first->stats;
    if (!r->second)
        return;
    r->base.stats.messages_sent += r->second->stats.messages_sent;
    r->base.stats.bytes_sent += r->second->stats.bytes_sent;
    r->base.stats.messages_received += r->second->stats.messages_received;
    r->base.stats.bytes_received += r->second->stats.bytes_received;
}

static tr_status route_reserve(tr_transport *t, tr_peer to, size_t size, tr_msg **out)
{
    return tr_transport_reserve(way_to((route *)t, to), to, size, out);
}

static tr_status route_send(tr_transport *t, tr_peer to, tr_msg **m)
{
    route *r = (route *)t;

    tr_status st = tr_transport_send(way_to(r, to), to, m);
    count(r);
    return st;
}

static tr_status recv_by_turns(route *r, tr_time deadline, tr_peer *from, tr_msg **out)
{
    for (;;) {
        tr_status st = tr_transport_recv(r->second, 0, from, out);
        if (st != TR_E_DEADLINE)
            return st;
        tr_time until = tr_deadline_after(tr_now(), turn);
        st = tr_transport_recv(r->first, until < deadline ? until : deadline, from, out);
        if (st != TR_E_DEADLINE || tr_now() >= deadline)
            return st;
    }
}

static tr_status route_recv(tr_transport *t, tr_time deadline, tr_peer *from, tr_msg **out)
{
    route *r = (route *)t;

    tr_status st = r->second ? recv_by_turns(r, deadline, from, out)
                             : tr_transport_recv(r->first, deadline, from, out);
    count(r);
    return st;
}

static void route_drop(tr_transport *t, tr_peer peer)
{
    tr_transport_drop(way_to((route *)t, peer), peer);
}

static void route_close(tr_transport *t)
{
    route *r = (route *)t;

    tr_transport_close(&r->second);
    free(r->is_moved);
    free(r);
}

static const tr_transport_ops route_ops = { "route",    route_reserve, route_send,
                                            route_recv, route_drop,    route_close };

tr_status tr_route_new(tr_transport *first, tr_route_open open, void *ctx, tr_transport **out)
{
    route *r = calloc(1, sizeof *r);

    if (!r)
        return tr_fail(TR_E_MEMORY, "route: no memory");
    r->base = (tr_transport){ .ops = &route_ops, .self = first->self, .n_peers = first->n_peers };
    r->first = first;
    r->open = open;
    r->ctx = ctx;
    r->is_moved = calloc((size_t)first->n_peers + 1, sizeof *r->is_moved);
    if (!r->is_moved) {
        free(r);
        return tr_fail(TR_E_MEMORY, "route: no memory");
    }
    *out = &r->base;
    return TR_OK;
}

bool tr_route_is(const tr_transport *t)
{
    return t->ops == &route_ops;
}

tr_status tr_route_move(tr_transport *t, tr_peer peer)
{
    route *r = (route *)t;
    tr_status st = TR_OK;

    TR_CHECK(tr_route_is(t));
    TR_CHECK(peer >= 1 && peer <= t->n_peers);
    if (!r->second)
        st = r->open(r->ctx, t->n_peers, &r->second);
    if (st == TR_OK)
        r->is_moved[peer] = true;
    return st;
}

tr_transport *tr_route_second(tr_transport *t)
{
    return ((route *)t)->second;
}
