/* retry.h - what goes wrong while a layer is in flight: who is to blame, and who computes it
 * instead.
 *
 * Three things can be wrong with a holder.  It is gone: its members say so, or sending fails.  It
 * is late: after ten times what as many rows took lately it is suspected, and asked for an echo
 * every second until it answers.  Its answer is bad: a frame that can't be read makes it suspect;
 * one with a number that is not finite is not used, and this process computes the share itself.
 * Three bad answers within ten minutes make it lost.
 *
 * Whatever the reason, its shares are then cut by the placement that recovery has changed, and go
 * out again.
 *
 * USE     late = now + tr_retry_patience(d);               when a share goes out
 *         st = tr_retry_lose(d, peer, why);                a worker that can't be used
 *         st = tr_retry_refuse(d, from, reason);           a frame that can't be read
 *         st = tr_retry_error(d, from, s, &view);          a worker says that it can't
 *         st = tr_retry_judge(d, i, rows, &m, &stands);    an answer, before it is used
 *         tr_retry_excuse(d, now);                         before anybody is called late
 *         st = tr_retry_look(d, now);                      between two messages: send again
 *         st = tr_retry_give_up(d);                        past the deadline: why
 *         tr_retry_learn(d);                               a layer without trouble
 *
 * STATE   That of dispatch_state.h.  Without recovery a lost holder is the end, and nobody is
 *         suspected.
 * THREAD  The step thread.
 * FAILS   As dispatch.h says.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_RETRY_H
#define TR_COORDINATOR_CLUSTER_RETRY_H

#include "coordinator/cluster/dispatch_state.h"
#include "proto/frame.h"

/* How long such a layer may take: what is normal for so many rows, many times over. */
tr_time tr_retry_patience(const tr_dispatch *d);

/* Experts of a share whose home its holder is not: it may have to load them first. */
uint32_t tr_retry_count_foreign(const tr_dispatch *d, const tr_share *s);

/* The layer has taken its time, and nothing went wrong: the slowest of late is kept. */
void tr_retry_learn(tr_dispatch *d);

/* TR_E_PEER_LOST if there is no recovery. */
tr_status tr_retry_lose(tr_dispatch *d, tr_peer peer, const char *why);

tr_status tr_retry_refuse(tr_dispatch *d, tr_peer from, const char *reason);

/* s is the share that the error answers, NULL if nobody waits for it. */
tr_status tr_retry_error(tr_dispatch *d, tr_peer from, const tr_share *s, const tr_frame_view *v);

/* Whether the rows that came for share i, [n_picks][dim], may be used; this process's own always
 * may, and say whether those that it refused were wrong.  If not, *m, the message that they lie in,
 * is taken, and the share is this process's. */
tr_status tr_retry_judge(tr_dispatch *d, size_t i, const float *rows, tr_msg **m, bool *stands);

/* Ask those who were late for an echo, once a second. */
tr_status tr_retry_probe(tr_dispatch *d, tr_time now);
bool tr_retry_is_anyone_late(const tr_dispatch *d);

/* Time in which this process did not look, because it was stopped or busy, is nobody's fault: what
 * is due is due so much later. */
void tr_retry_excuse(tr_dispatch *d, tr_time now);

/* Suspect who is late, and send what unusable holders owe to those that have their experts now. */
tr_status tr_retry_look(tr_dispatch *d, tr_time now);

/* The deadline has passed: fails, with the reason. */
tr_status tr_retry_give_up(tr_dispatch *d);

#endif
