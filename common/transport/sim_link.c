/* sim_link.c - control links inside a simulation, which behave as ZeroMQ's over TCP.
 *
 * Messages arrive in order and are never lost, unless their connection ends first.  A client whose
 * connection broke connects again when it next sends; the server can answer once it has heard it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "transport/sim_world.h"

#include <stdlib.h>

/* What a client takes to connect again. */
static const tr_time reconnect_time = 100 * TR_MS;

struct tr_world_link {
    tr_link base; /* first */
    tr_world_process *process;
    tr_world_note *head, *tail; /* that have come */
    tr_world_note *current;     /* that the last event points into */
};

/* ---- sending ------------------------------------------------------------------------------- */

static tr_world_note *note_new(tr_peer from, uint64_t connection, tr_bytes message)
{
    tr_world_note *n = malloc(sizeof *n + message.size);

    if (!n)
        return NULL;
    *n = (tr_world_note){ .from = from, .connection = connection, .size = message.size };
    if (message.size > 0)
        memcpy(n->bytes, message.data, message.size);
    return n;
}

/* After all that went this way before. */
static void put_on_the_way(tr_sim *s, tr_peer from, tr_peer to, tr_world_note *note, tr_time delay)
{
    tr_world_way *way = tr_world_way_of(s, from, to);
    tr_time leaves = way->cut_until > s->now ? way->cut_until : s->now;

    if (leaves == TR_FOREVER) {
        free(note);
        return;
    }
    if (leaves + delay > way->last_note)
        way->last_note = leaves + delay;
    tr_world_push(s, &(tr_world_event){ .time = way->last_note,
                                        .kind = TR_WORLD_NOTE,
                                        .from = from,
                                        .to = to,
                                        .u.note = note });
}

static void send_end(tr_sim *s, tr_peer from, tr_peer to, uint64_t connection)
{
    tr_world_note *n = note_new(from, connection, (tr_bytes){ NULL, 0 });

    if (!n) {
        tr_world_end(s, tr_fail(TR_E_MEMORY, "simulation: no memory for a message"));
        return;
    }
    n->is_end = true;
    put_on_the_way(s, from, to, n, s->o.rules.delay_min);
}

static tr_status link_send(tr_link *link, uint32_t peer, tr_bytes message)
{
    tr_world_process *p = ((tr_world_link *)link)->process;
    tr_sim *s = p->sim;
    bool is_server = p->base.self == 0;
    tr_time more = 0;

    tr_world_spend(p);
    if (p->is_dead || message.size > TR_LINK_MAX_MESSAGE)
        return TR_E_PEER_LOST;
    if (is_server && (peer < 1 || peer > s->o.n_workers || !s->connection[peer].is_heard))
        return TR_E_PEER_LOST;
    tr_peer to = is_server ? peer : 0;
    tr_world_connection *c = &s->connection[is_server ? peer : p->base.self];
    if (!is_server && !c->is_up) {
        c->is_up = true;
        c->number++;
        more = reconnect_time;
    }
    tr_world_way *way = tr_world_way_of(s, p->base.self, to);
    tr_world_fate fate = tr_world_fate_of(s, p->base.self, to, true, way->n_notes++);
    tr_world_note *n = note_new(p->base.self, c->number, message);
    if (!n)
        return tr_fail(TR_E_MEMORY, "simulation: no memory for a message");
    put_on_the_way(s, p->base.self, to, n, fate.delay + more);
    return TR_OK;
}

/* ---- receiving ----------------------------------------------------------------------------- */

void tr_world_note_arrives(tr_sim *s, tr_peer from, tr_peer to, tr_world_note *note)
{
    tr_world_process *p = &s->process[to];
    tr_world_connection *c = &s->connection[from == 0 ? to : from];

    /* The end of a connection is noticed, also where another has been made meanwhile. */
    bool is_current = note->is_end || note->connection == c->number;
    if (p->is_dead || !p->link || !is_current) {
        free(note);
        return;
    }
    if (to == 0)
        c->is_heard = !note->is_end;
    note->next = NULL;
    if (p->link->tail)
        p->link->tail->next = note;
    else
        p->link->head = note;
    p->link->tail = note;
    tr_world_wake(p, TR_WORLD_FOR_NOTES);
}

static tr_world_note *take(tr_world_link *l)
{
    tr_world_note *n = l->head;

    free(l->current);
    l->current = n;
    if (!n)
        return NULL;
    l->head = n->next;
    if (!l->head)
        l->tail = NULL;
    return n;
}

static tr_status link_poll(tr_link *link, tr_time timeout, tr_link_event *out)
{
    tr_world_link *l = (tr_world_link *)link;
    tr_world_process *p = l->process;

    tr_world_spend(p);
    tr_time deadline = tr_deadline_after(p->sim->now, timeout);
    tr_world_let_others(p);
    for (;;) {
        if (p->is_dead)
            return TR_E_INTERRUPTED;
        tr_world_note *n = take(l);
        if (n) {
            *out = (tr_link_event){ n->is_end ? TR_LINK_GONE : TR_LINK_MESSAGE,
                                    n->from,
                                    { n->bytes, n->size } };
            return TR_OK;
        }
        if (p->sim->now >= deadline)
            return TR_E_DEADLINE;
        tr_world_wait(p, deadline, TR_WORLD_FOR_NOTES);
    }
}

/* ---- ends ---------------------------------------------------------------------------------- */

/* Its other ends notice, after what it has sent. */
static void tell_ends(tr_world_process *p)
{
    tr_sim *s = p->sim;
    tr_peer self = p->base.self;

    for (tr_peer worker = 1; worker <= s->o.n_workers; worker++) {
        tr_world_connection *c = &s->connection[worker];
        if (!c->is_up || (self != 0 && self != worker))
            continue;
        c->is_up = false;
        send_end(s, self, self == 0 ? worker : 0, c->number);
    }
}

void tr_world_link_died(tr_world_process *p)
{
    if (p->link)
        tell_ends(p);
}

void tr_world_link_break(tr_sim *s, tr_peer worker)
{
    tr_world_connection *c = &s->connection[worker];

    if (!c->is_up)
        return;
    c->number++;
    c->is_up = false;
    c->is_heard = false;
    send_end(s, worker, 0, c->number);
    send_end(s, 0, worker, c->number);
}

static void link_close(tr_link *link)
{
    tr_world_link *l = (tr_world_link *)link;

    if (!l->process->is_dead)
        tell_ends(l->process);
    while (take(l))
        continue;
    l->process->link = NULL;
    free(l);
}

static const char *link_endpoint(const tr_link *l)
{
    (void)l;
    return "sim";
}

static const tr_link_ops link_ops = { link_close, link_endpoint, link_send, link_poll, NULL };

static tr_status open_link(tr_transport *t, tr_link **out)
{
    tr_world_process *p = (tr_world_process *)t;
    tr_world_link *l = calloc(1, sizeof *l);

    TR_CHECK(!p->link);
    if (!l)
        return tr_fail(TR_E_MEMORY, "simulation: no memory for a link");
    l->base.ops = &link_ops;
    l->process = p;
    p->link = l;
    *out = &l->base;
    return TR_OK;
}

static tr_status connect_link(tr_transport *t, tr_link **out)
{
    tr_status st = open_link(t, out);

    if (st != TR_OK)
        return st;
    tr_world_connection *c = &((tr_world_process *)t)->sim->connection[t->self];
    c->number++;
    c->is_up = true;
    return TR_OK;
}

const tr_link_maker tr_world_links = { open_link, connect_link };
