/* shrink.h - the smallest set of faults with which a trial still goes wrong.
 *
 * The record of a run, taken as its schedule, is the run.  Faults are left out, first many
 * at once, then single ones, as long as the verdict stays the same; what remains needs every one.
 *
 * USE     st = tr_shrink(trials, &trial, &schedule);     TR_E_REQUEST: it does not go wrong
 *         tr_schedule_fini(&schedule);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CHAOS_SHRINK_H
#define TR_COORDINATOR_CHAOS_SHRINK_H

#include "coordinator/chaos/schedule.h"

/* n_runs (may be NULL): how many it took. */
tr_status tr_shrink(const tr_trials *t, const tr_trial *trial, tr_schedule *out, size_t *n_runs);

/* The search alone: fails(ctx, faults, n, &does) for every set that is tried.  fault [*n] shrinks
 * in place; with all of it does is true. */
typedef tr_status (*tr_shrink_fails)(void *ctx, const tr_sim_fault *fault, size_t n, bool *does);
tr_status tr_shrink_faults(tr_sim_fault *fault, size_t *n, tr_shrink_fails fails, void *ctx);

#endif
