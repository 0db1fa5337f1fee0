/* join.h - the worker's side of the control plane.
 *
 * USE     st = tr_join_open(transport, version, model, threads, &j);   NULL *j: called off, go home
 *         st = tr_join_await_assignment(j, &assignment, &is_over);
 *         if (tr_join_next_assignment(j, &more)) ...                   what a lost worker held
 *         st = tr_join_progress(j, done, total, &is_over);             while loading
 *         st = tr_join_ready(j, n_experts, bytes);
 *         st = tr_join_pump(j, &stats, &is_over);                      often
 *         tr_join_fail(j, reason);                                     before giving up
 *         tr_join_close(&j);
 *
 * THREAD  The worker's one thread.
 * FAILS   TR_E_DEADLINE   nobody invited this worker
 *         TR_E_REFUSED    the coordinator said why; or it is of another version
 *         TR_E_PEER_LOST  the coordinator is gone
 *         TR_E_IO, TR_E_FORMAT  the model can't be opened here; the coordinator has been told
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_WORKER_JOIN_H
#define TR_WORKER_JOIN_H

#include "compute/gguf.h"
#include "proto/wire.h"
#include "transport/transport.h"

typedef struct tr_join tr_join;

/* model NULL: the path that the coordinator names. */
tr_status tr_join_open(tr_transport *t, const char *version, const char *model, size_t threads,
                       tr_join **out);

/* The same with the invitation in a file, which only this user may read; the job's data plane must
 * be ZeroMQ's.  TR_E_IO, TR_E_CONFIG with one line if there is something wrong with the file. */
tr_status tr_join_open_file(const char *path, const char *version, const char *model,
                            size_t threads, tr_join **out);

/* Where shares come from: a connection of its own that the invitation names, else the transport
 * that the invitation came by.  Belongs to the join, or to its caller as before. */
tr_transport *tr_join_transport(tr_join *j);

/* This worker was told to end: the coordinator is asked to let it go. */
void tr_join_leave(tr_join *j);

/* Says bye if the worker leaves in order. */
void tr_join_close(tr_join **j);

/* After the coordinator ended the job: did another peer's loss end it? */
bool tr_join_job_failed(const tr_join *j);

/* And was any lost, so that MPI's own farewell could hang? */
bool tr_join_had_losses(const tr_join *j);

/* Opened, header only; belongs to the join. */
const tr_gguf *tr_join_model(const tr_join *j);

/* *is_over: the coordinator ended the job first; out is then untouched. */
tr_status tr_join_await_assignment(tr_join *j, tr_assignment *out, bool *is_over);

/* The oldest of those that came after the first and was not taken yet. */
bool tr_join_next_assignment(tr_join *j, tr_assignment *out);

/* What the coordinator's fault plan wants of this worker; *n is mostly 0. */
const tr_fault_rule *tr_join_faults(const tr_join *j, uint32_t *n);

/* One of them happens now, at the nth pass or read. */
void tr_join_injected(tr_join *j, uint32_t number, uint32_t nth);

/* Also keeps the connection alive, and looks at what the coordinator said as tr_join_pump does;
 * cheap when called often. */
tr_status tr_join_progress(tr_join *j, uint64_t done, uint64_t total, bool *is_over);

/* Ahead of loading an expert that a share waits for: silence is no sign of a fault until the next
 * tr_join_pump. */
tr_status tr_join_fetch(tr_join *j, uint64_t done, uint64_t total, bool *is_over);
tr_status tr_join_ready(tr_join *j, uint32_t n_experts, uint64_t bytes);

/* Send the heartbeat if it is due, look at what the coordinator said; sets *is_over when it ends
 * the job. */
tr_status tr_join_pump(tr_join *j, const tr_worker_stats *stats, bool *is_over);

/* Tell the coordinator that this worker can't go on. */
void tr_join_fail(tr_join *j, const char *reason);

#endif
