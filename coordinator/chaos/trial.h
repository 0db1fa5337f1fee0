/* trial.h - one run of a cluster under faults, simulated, held against the run without.
 *
 * A trial is drawn from a seed: how many workers, how much memory, how fast messages are, which
 * faults and how often.  Then the real engine and real workers generate tokens in a simulated world
 * (transport/sim.h), two sequences in batches of different sizes, and every step's logits are
 * compared with those of an engine that has no workers, to the last bit.
 *
 * USE     tr_trials_options o = { .gguf = g, .n_tokens = 12, .worker = worker_main };
 *         st = tr_trials_new(&o, &t);                 computes what is right
 *         tr_trial trial = tr_trial_draw(t, seed, 0);
 *         st = tr_trial_run(t, &trial, &result);      any number of threads at once
 *         if (tr_verdict_is_bad(result.verdict)) ...
 *         tr_trial_result_fini(&result);
 *         tr_trials_free(&t);
 *
 * THREAD  Runs share nothing but the model file and what is right.
 * FAILS   TR_E_MEMORY, TR_E_SYSTEM (no threads), TR_E_INTERRUPTED: the run says nothing.  Whatever
 *         happens to the simulated cluster is a verdict.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CHAOS_TRIAL_H
#define TR_COORDINATOR_CHAOS_TRIAL_H

#include "compute/gguf.h"
#include "coordinator/cluster/recovery.h"
#include "transport/sim.h"

enum { TR_TRIAL_MAX_WORKERS = 16, TR_TRIAL_MAX_TOKENS = 4096, TR_TRIAL_N_FAULTS = 15 };

typedef struct {
    const tr_gguf *gguf; /* must outlive the trials */
    size_t n_tokens;     /* to be generated, of both sequences together; at least 1 */
    tr_sim_main worker;  /* what a simulated worker runs */
} tr_trials_options;

typedef struct tr_trials tr_trials;

tr_status tr_trials_new(const tr_trials_options *o, tr_trials **out);
void tr_trials_free(tr_trials **t);

/* Bytes of all experts of the model. */
uint64_t tr_trials_expert_bytes(const tr_trials *t);

typedef struct {
    uint64_t seed;
    tr_peer n_workers;
    tr_sim_rules rules;
    uint64_t worker_memory, coordinator_memory; /* for experts */
    const tr_sim_fault *schedule; /* [n_schedule], borrowed; these, no drawn ones... */
    size_t n_schedule;
    bool has_schedule; /* ... if so */
} tr_trial;

/* n_workers 0: drawn too, 2 to 6. */
tr_trial tr_trial_draw(const tr_trials *t, uint64_t seed, tr_peer n_workers);

typedef enum {
    TR_VERDICT_EQUAL,
    TR_VERDICT_NO_ROOM,    /* the documented end where memory was short */
    TR_VERDICT_NOT_JOINED, /* the documented end when a worker is lost before it has its experts */

    /* what must never be */
    TR_VERDICT_DIFFERS,       /* other logits */
    TR_VERDICT_FAILED,        /* ended, though there was memory */
    TR_VERDICT_FALSE_NO_ROOM, /* said that memory was short, and it was not */
    TR_VERDICT_LEFT_BEHIND,   /* a worker did not end by itself */
    TR_VERDICT_N
} tr_verdict;

bool tr_verdict_is_bad(tr_verdict v);

/* "other logits". */
const char *tr_verdict_name(tr_verdict v);

typedef struct {
    tr_verdict verdict;
    char line[512]; /* what went wrong; empty if nothing did */
    tr_recovery_stats recovery;
    tr_time elapsed;      /* in the world */
    tr_sim_event *record; /* [n_record] what happened to it */
    size_t n_record;
} tr_trial_result;

tr_status tr_trial_run(const tr_trials *t, const tr_trial *trial, tr_trial_result *out);
void tr_trial_result_fini(tr_trial_result *r);

#endif
