/* echo.c - one frame out, the same back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/echo.h"

#include "proto/frame.h"

#include <string.h>

tr_status tr_echo_send(tr_transport *t, uint64_t job, tr_peer worker, size_t n_bytes)
{
    tr_frame_header h = { .kind = TR_FRAME_ECHO, .job = job };
    tr_msg *m = NULL;

    tr_status st = tr_transport_reserve(t, worker, tr_frame_text_size(n_bytes), &m);
    if (st != TR_OK)
        return st;
    tr_frame_begin(m->data, &h, n_bytes);
    memset(tr_frame_text(m->data), 0xa5, n_bytes);
    tr_frame_seal(m->data);
    st = tr_transport_send(t, worker, &m);
    tr_msg_free(&m);
    return st;
}

static tr_status check(const tr_msg *m, uint64_t job, tr_peer from, tr_peer worker, size_t n)
{
    tr_frame_limits limits = { .job = job };
    tr_frame_view v;

    tr_status st = tr_frame_open((tr_bytes){ m->data, m->size }, &limits, &v);
    if (st == TR_OK && (from != worker || v.header.kind != TR_FRAME_ECHO || v.text.size != n))
        st = TR_E_PROTOCOL;
    return st == TR_OK ? st
                       : tr_fail(TR_E_PEER_LOST, "worker %u sent no echo but another frame", from);
}

tr_status tr_echo(tr_transport *t, uint64_t job, tr_peer worker, size_t n_bytes, tr_time timeout,
                  tr_time *elapsed)
{
    tr_time begin = tr_now();
    tr_time until = tr_deadline_after(begin, timeout);
    tr_peer from = 0;
    tr_msg *m = NULL;

    tr_status st;
    do
        st = tr_echo_send(t, job, worker, n_bytes);
    while (st == TR_E_BUSY && tr_now() < until);
    if (st == TR_OK)
        st = tr_transport_recv(t, until, &from, &m);
    *elapsed = tr_now() - begin;
    if (st == TR_OK)
        st = check(m, job, from, worker, n_bytes);
    else if (st == TR_E_PEER_LOST)
        st = tr_fail(st, "worker %u is lost: its connection ended", from);
    else
        st =
            tr_fail(st == TR_E_BUSY ? TR_E_DEADLINE : st, "worker %u sent no echo in time", worker);
    tr_msg_free(&m);
    return st;
}
