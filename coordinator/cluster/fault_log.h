/* fault_log.h - a fault plan while it is carried out: who is told what, what happened, what it
 * cost.
 *
 * USE     st = tr_fault_log_new(plan, n_workers, &log);
 *         n = tr_fault_log_rules(log, worker, rules);           to be told to a process
 *         tr_fault_log_injected(log, worker, number, nth);      it said so
 *         tr_fault_log_noticed(log, worker, "died");            by whatever the coordinator noticed
 *         tr_fault_log_sent_again(log, from, to);               a share that `from` owed
 *         tr_fault_log_stalled(log, nanoseconds);               the layer waited so long for those
 *         tr_fault_log_print(log);
 *         tr_fault_log_free(&log);
 *
 * What is noticed of a worker is put down to the latest fault that happened to it before; shares
 * that it owed and others get, and the wait for them, to what was noticed of it last.  A worker's
 * replacement is told what is left of the plan.
 *
 * All but new accept NULL, and do nothing: there is no plan.
 *
 * THREAD  The step thread.
 * MEMORY  Bounded: of each entry of the plan the first four events are kept, of the others the
 *         sums.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_FAULT_LOG_H
#define TR_COORDINATOR_CLUSTER_FAULT_LOG_H

#include "base/clock.h"
#include "coordinator/cluster/fault_plan.h"

typedef struct tr_fault_log tr_fault_log;

/* plan must outlive it. TR_E_CONFIG if it names a worker that there is not. */
tr_status tr_fault_log_new(const tr_fault_plan *plan, uint32_t n_workers, tr_fault_log **out);
void tr_fault_log_free(tr_fault_log **log);

/* How many rules a process in a worker's place is told, and which: what has not happened there
 * often enough. */
uint32_t tr_fault_log_rules(tr_fault_log *log, uint32_t worker, tr_fault_rule rules[TR_MAX_FAULTS]);

void tr_fault_log_injected(tr_fault_log *log, uint32_t worker, uint32_t number, uint32_t nth);
void tr_fault_log_noticed(tr_fault_log *log, uint32_t worker, const char *what);
void tr_fault_log_sent_again(tr_fault_log *log, uint32_t from, uint32_t to);
void tr_fault_log_stalled(tr_fault_log *log, tr_time stalled);

/* A line for each event, on standard error. */
void tr_fault_log_print(const tr_fault_log *log);

#endif
