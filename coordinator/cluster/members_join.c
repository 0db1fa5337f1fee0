/* members_join.c - keys and invitations out, hellos and data connections in.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/members_state.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "coordinator/cluster/invite_file.h"
#include "proto/frame.h"
#include "transport/route.h"
#include "transport/zmq.h"

#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A worker's last words take another way than the news of its end. */
static const tr_time last_words_period = 500 * TR_MS;

/* ---- invitations --------------------------------------------------------------------------- */

static tr_transport *inviter_of(const tr_members *m)
{
    return m->o.inviter ? m->o.inviter : m->transport;
}

/* The part of the data plane with connections of its own; NULL if there is none. */
static tr_transport *connected_part(const tr_members *m)
{
    tr_transport *t = tr_route_is(m->transport) ? tr_route_second(m->transport) : m->transport;

    return t && tr_zmq_is(t) ? t : NULL;
}

/* Such a part needs a ticket for each worker. */
static tr_status add_ticket(tr_members *m, uint32_t peer, tr_invite *i)
{
    tr_transport *t = connected_part(m);
    tr_zmq_ticket ticket;

    if (!t)
        return TR_OK;
    tr_status st = tr_zmq_invite(t, peer, &ticket);
    if (st != TR_OK)
        return st;
    snprintf(i->data.endpoint, sizeof i->data.endpoint, "%s", ticket.endpoint);
    memcpy(i->data.server_public, ticket.server_public, TR_KEY_SIZE);
    memcpy(i->data.worker_public, ticket.keys.public_key, TR_KEY_SIZE);
    memcpy(i->data.worker_secret, ticket.keys.secret_key, TR_KEY_SIZE);
    tr_zmq_ticket_forget(&ticket);
    return TR_OK;
}

bool tr_members_is_outside(const tr_members *m, uint32_t peer)
{
    return peer > m->n - m->o.n_outside;
}

/* To whom a transport reaches; the others find theirs in a file. */
static tr_status send_invite(tr_members *m, uint32_t peer, tr_bytes text)
{
    tr_transport *way = tr_members_is_outside(m, peer) ? m->transport : inviter_of(m);
    tr_frame_header h = { .kind = TR_FRAME_INVITE, .job = m->job };
    tr_msg *msg = NULL;

    tr_status st = tr_transport_reserve(way, peer, tr_frame_text_size(text.size), &msg);
    if (st != TR_OK)
        return st;
    tr_frame_begin(msg->data, &h, text.size);
    memcpy(tr_frame_text(msg->data), text.data, text.size);
    tr_frame_seal(msg->data);
    if (tr_members_is_outside(m, peer)) {
        st = tr_invite_file_write(m->o.invite_dir, peer, (tr_bytes){ msg->data, msg->size });
        explicit_bzero(msg->data, msg->size);
    } else {
        st = tr_transport_send(way, peer, &msg);
        if (st == TR_E_PEER_LOST || st == TR_E_BUSY)
            tr_fail(st, "worker %u can't be invited: it is gone", peer);
    }
    tr_msg_free(&msg);
    return st;
}

static void remove_invite_files(const tr_members *m)
{
    for (uint32_t peer = 1; peer <= m->n; peer++)
        if (tr_members_is_outside(m, peer))
            tr_invite_file_remove(m->o.invite_dir, peer);
}

/* What a worker must know, as a message. */
static tr_status pack_invite(tr_members *m, uint32_t peer, const tr_curve_keys *worker,
                             uint8_t *text, size_t room, size_t *size)
{
    tr_invite i = {
        .protocol = TR_PROTOCOL,
        .job = m->job,
        .worker = peer,
        .heartbeat_ms = (uint32_t)(m->o.heartbeat / TR_MS),
        .silence_ms = (uint32_t)(m->o.silence_timeout / TR_MS),
    };

    if (strlen(m->o.model_path) >= sizeof i.model)
        return tr_fail(TR_E_REQUEST,
                       "the model's path is %zu bytes long, but workers can be told only %d: "
                       "put it elsewhere",
                       strlen(m->o.model_path), TR_MAX_TEXT - 1);
    snprintf(i.program, sizeof i.program, "%s", m->o.version);
    snprintf(i.endpoint, sizeof i.endpoint, "%s", tr_link_endpoint(m->link));
    snprintf(i.model, sizeof i.model, "%s", m->o.model_path);
    memcpy(i.server_public, m->server_public, TR_KEY_SIZE);
    memcpy(i.worker_public, worker->public_key, TR_KEY_SIZE);
    memcpy(i.worker_secret, worker->secret_key, TR_KEY_SIZE);
    tr_status st = add_ticket(m, peer, &i);
    if (st == TR_OK)
        st = tr_wire_pack_invite(&i, text, room, size);
    explicit_bzero(&i, sizeof i);
    return st;
}

static tr_status invite(tr_members *m, uint32_t peer, const tr_curve_keys *worker)
{
    uint8_t text[4096];
    size_t size = 0;

    tr_status st = pack_invite(m, peer, worker, text, sizeof text, &size);
    if (st == TR_OK)
        st = send_invite(m, peer, (tr_bytes){ text, size });
    explicit_bzero(text, sizeof text);
    return st;
}

static tr_status invite_all(tr_members *m)
{
    tr_curve_keys server;
    tr_curve_keys *worker = calloc(m->n, sizeof *worker);
    uint8_t(*publics)[TR_CURVE_KEY] = calloc(m->n, sizeof *publics);
    tr_status st = worker && publics ? tr_curve_keys_new(&server)
                                     : tr_fail(TR_E_MEMORY, "members: no memory for keys");

    if (st == TR_OK)
        memcpy(m->server_public, server.public_key, TR_CURVE_KEY);
    for (uint32_t i = 0; i < m->n && st == TR_OK; i++) {
        st = tr_curve_keys_new(&worker[i]);
        memcpy(publics[i], worker[i].public_key, TR_CURVE_KEY);
    }
    if (st == TR_OK)
        st = tr_link_serve_beside(m->transport, m->o.listen, &server,
                                  (const uint8_t(*)[TR_CURVE_KEY])publics, &m->link);
    for (uint32_t i = 0; i < m->n && st == TR_OK; i++)
        st = invite(m, i + 1, &worker[i]);
    if (st == TR_OK && m->o.n_outside > 0)
        tr_log(TR_LOG_INFO,
               "workers from elsewhere that are waited for: %u, each by troupe-worker --join with "
               "one of %s/worker-N.invite",
               m->o.n_outside, m->o.invite_dir);
    for (uint32_t i = 0; worker && i < m->n; i++)
        tr_curve_keys_forget(&worker[i]);
    tr_curve_keys_forget(&server);
    free(publics);
    free(worker);
    return st;
}

tr_status tr_members_invite_again(tr_members *m, uint32_t peer, uint8_t out[TR_MEMBERS_INVITATION],
                                  size_t *size)
{
    tr_member *w = &m->member[peer - 1];
    alignas(TR_FRAME_ALIGN) uint8_t frame[TR_MEMBERS_INVITATION];
    uint8_t text[TR_MEMBERS_INVITATION - 256];
    tr_frame_header h = { .kind = TR_FRAME_INVITE, .job = m->job };
    tr_curve_keys keys;
    size_t n = 0;

    TR_CHECK(w->state == TR_MEMBER_LOST);
    tr_status st = tr_curve_keys_new(&keys);
    if (st == TR_OK && tr_route_is(m->transport))
        st = tr_route_move(m->transport, peer);
    if (st == TR_OK)
        st = pack_invite(m, peer, &keys, text, sizeof text, &n);
    if (st == TR_OK)
        tr_link_admit(m->link, peer, keys.public_key);
    tr_curve_keys_forget(&keys);
    if (st != TR_OK) {
        explicit_bzero(text, sizeof text);
        return st;
    }
    tr_frame_begin(frame, &h, n);
    memcpy(tr_frame_text(frame), text, n);
    tr_frame_seal(frame);
    *size = tr_frame_text_size(n);
    memcpy(out, frame, *size);
    explicit_bzero(text, sizeof text);
    explicit_bzero(frame, sizeof frame);
    tr_member fresh = { .is_replacement = true };
    snprintf(fresh.why, sizeof fresh.why, "%.200s; its replacement is on its way",
             w->is_replacement ? "was lost" : w->why);
    *w = fresh;
    tr_members_enter(m, peer, TR_MEMBER_JOINING);
    return TR_OK;
}

/* ---- who comes ------------------------------------------------------------------------------ */

static bool has_joined(const tr_member *w)
{
    return w->is_accepted;
}

/* The transport says that a worker is gone: does it still say why? */
static tr_status hear_last_words(tr_members *m, uint32_t peer)
{
    tr_time until = tr_now() + last_words_period;
    tr_status st = TR_OK;

    while (st == TR_OK && tr_now() < until)
        st = tr_members_look(m, TR_MEMBERS_WAIT);
    return st == TR_OK ? tr_fail(TR_E_PEER_LOST, "worker %u is gone before it has joined", peer)
                       : st;
}

/* MPI moves an invitation only while somebody calls it: over TCP it has to connect first. */
static tr_status push_invites(tr_members *m)
{
    tr_peer from = 0;
    tr_msg *msg = NULL;
    tr_status st = tr_transport_recv(inviter_of(m), 0, &from, &msg);

    if (st == TR_E_DEADLINE)
        return TR_OK;
    if (st == TR_E_PEER_LOST)
        return hear_last_words(m, from);
    if (st != TR_OK)
        return st;
    tr_msg_free(&msg);
    return tr_fail(TR_E_PROTOCOL, "worker %u sent rows before it has joined", from);
}

static tr_status await_hellos(tr_members *m)
{
    tr_time deadline = tr_deadline_after(tr_now(), m->o.join_timeout);
    char missing[256];

    while (tr_members_name_missing(m, has_joined, missing, sizeof missing)) {
        tr_status st = tr_interrupted() ? TR_E_INTERRUPTED : tr_members_look(m, TR_MEMBERS_WAIT);
        if (st == TR_OK)
            st = push_invites(m);
        if (st != TR_OK)
            return st;
        if (tr_now() > deadline)
            return tr_fail(TR_E_DEADLINE, "%s did not join within %.0f s%s", missing,
                           (double)m->o.join_timeout / (double)TR_SECOND,
                           tr_link_is_loopback(m->link)
                               ? ": on another host? then give --listen ADDRESS"
                               : ": can its host reach the --listen address?");
    }
    return TR_OK;
}

/* Workers that have said hello, but whose data connection has not come. */
static bool name_unconnected(const tr_members *m, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (uint32_t i = 0; i < m->n; i++)
        if (!tr_zmq_has_come(m->transport, i + 1) && used < size)
            used +=
                (size_t)snprintf(out + used, size - used, "%sworker %u", used ? ", " : "", i + 1);
    return used > 0;
}

static tr_status await_connections(tr_members *m)
{
    tr_time deadline = tr_deadline_after(tr_now(), m->o.join_timeout);
    char missing[256];
    tr_status st = TR_OK;

    while (st == TR_OK && tr_zmq_is(m->transport) && name_unconnected(m, missing, sizeof missing)) {
        tr_msg *msg = NULL;
        tr_peer from = 0;
        st = tr_interrupted() ? TR_E_INTERRUPTED : tr_members_look(m, 0);
        if (st != TR_OK)
            return st;
        st = tr_transport_recv(m->transport, tr_now() + TR_MEMBERS_WAIT, &from, &msg);
        if (st == TR_OK)
            st = tr_fail(TR_E_PROTOCOL, "worker %u sent rows before it has joined", from);
        if (st == TR_E_DEADLINE)
            st = tr_now() < deadline
                     ? TR_OK
                     : tr_fail(st,
                               "%s did not connect for its data within %.0f s: can its host reach "
                               "the --listen address, at the next port too?",
                               missing, (double)m->o.join_timeout / (double)TR_SECOND);
        tr_msg_free(&msg);
    }
    return st;
}

tr_status tr_members_join(tr_members *m)
{
    tr_status st = invite_all(m);

    if (st == TR_OK)
        st = await_hellos(m);
    if (st == TR_OK)
        st = await_connections(m);
    remove_invite_files(m);
    return st;
}
