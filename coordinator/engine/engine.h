/* engine.h - a model ready to compute: dense layers here, experts here or in workers.
 *
 * USE     tr_engine_options o = tr_engine_defaults();
 *         o.gguf = g;  o.transport = t;  o.n_workers = 3;
 *         st = tr_engine_open(&o, &e);          joins workers, loads, waits until all are ready
 *         tr_sequence *s;
 *         st = tr_sequence_new(e, &s);
 *         st = tr_engine_step(e, rows, n_rows, logits);
 *         tr_sequence_free(&s);
 *         tr_engine_close(&e);                  workers are told to stop
 *
 * The engine composes; the work is done by model/ (the layers), cluster/ (the experts) and
 * common/experts (those hosted here).
 *
 * THREAD  One thread.
 * FAILS   whatever its parts fail with, said once.  A failed step ends the engine: close it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_ENGINE_H
#define TR_COORDINATOR_ENGINE_ENGINE_H

#include "coordinator/cluster/dispatch.h"
#include "coordinator/model/forward.h"

typedef struct tr_engine tr_engine;

typedef struct {
    const tr_gguf *gguf; /* must outlive the engine */
    size_t threads;      /* of this process; 0: one per core */
    const char *isa;     /* kernel table; NULL: the best that all processes have */
    bool exact;          /* float32 activations and caches: slow, the judge of the rest */
    bool ignores_groups; /* of experts: any can be chosen, as some engines do (router.h) */
    tr_type kv_type;     /* of keys and values: F32, F16 or Q8_0; exact mode has F32 */
    size_t max_rows;     /* of one step */
    size_t max_logits;   /* rows of one step that want logits */
    size_t context;      /* positions of a sequence */
    size_t n_sequences;  /* alive at once */
    size_t kv_positions; /* of all sequences together; 0: context for each */

    tr_transport *transport; /* to workers; NULL if n_workers is 0; must outlive the engine */
    tr_transport *inviter;   /* carries their invitations; NULL: transport does */
    const char *invite_dir;  /* where invitations for workers from elsewhere go */
    uint32_t n_outside;      /* of the n_workers: the last ones */
    uint32_t n_workers;      /* 0: all experts are hosted here */
    const char *listen;      /* control plane's address; NULL: loopback */
    tr_placement_rule placement;
    const uint32_t *expert_counts; /* for TR_PLACE_COUNTS: one of each worker */
    size_t n_expert_counts;
    tr_time join_timeout, suspect_timeout, silence_timeout, share_timeout, load_timeout;
    uint64_t memory; /* bytes that this process may take; 0: what the machine can give */
    uint64_t worker_memory, coordinator_memory; /* bytes for experts, those of lost workers among
                                                 * them; 0: what the host has, but a tenth */

    const char *replacement; /* command of a lost worker's replacement, as in replacement.h; NULL:
                              * none.  Only where the transport is a job's */
    bool replaces_here;      /* the command starts it on this machine */
    const tr_fault_plan *faults; /* what workers are to do wrong; NULL: nothing */

    bool progress; /* draw a bar on stderr while loading */
    void (*on_picks)(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows, size_t top_k);
    void *ctx;
} tr_engine_options;

tr_engine_options tr_engine_defaults(void);

tr_status tr_engine_open(const tr_engine_options *o, tr_engine **out);
void tr_engine_close(tr_engine **e);

/* A live request's place in the engine: its tokens' keys and values. */
typedef struct tr_sequence tr_sequence;

/* TR_E_BUSY if n_sequences are alive. */
tr_status tr_sequence_new(tr_engine *e, tr_sequence **out);
void tr_sequence_free(tr_sequence **s);
size_t tr_sequence_length(const tr_sequence *s); /* tokens that went through */

/* Pages for n positions in all; TR_E_BUSY, without a line, if there is no room for now.  A step
 * that finds its pages reserved can't fail for want of room. */
tr_status tr_sequence_reserve(tr_sequence *s, size_t n);

/* Go on with what the cache knows of tokens [n], with which the sequence begins, short of the last;
 * returns its length: so many need not go through any more.  Nothing is found in the middle of a
 * page, nor after pages that are only reserved.  The results of a step are the same to the bit. */
size_t tr_sequence_find(tr_sequence *s, const uint32_t *tokens, size_t n);

/* The sequence's tokens so far are tokens [tr_sequence_length]: others may share them. */
void tr_sequence_name(tr_sequence *s, const uint32_t *tokens);

/* Give the pages back; the sequence is empty again. */
void tr_sequence_empty(tr_sequence *s);

/* As if n tokens had gone through that left keys and values of zero: for measurements at a context
 * that would take long to fill. */
tr_status tr_sequence_skip(tr_sequence *s, size_t n);

/* One row of a step: the next token of a sequence. */
typedef struct {
    tr_sequence *sequence;
    uint32_t token;
    bool wants_logits;
} tr_row;

/* Send n_rows (1..max_rows) rows through the model.  Several rows of one sequence are its next
 * tokens in order.  logits is [rows that want them][n_vocab].
 * TR_E_REQUEST if a sequence would exceed the context; nothing has then happened. */
tr_status tr_engine_step(tr_engine *e, const tr_row *rows, size_t n_rows, float *logits);

/* What became of the fault plan, on standard error; nothing if there is none. */
void tr_engine_print_faults(const tr_engine *e);

/* Look after the workers while no step runs: heartbeats come, one that fell silent is noticed.  To
 * be called several times a second. */
tr_status tr_engine_pump(tr_engine *e);

/* A worker as its messages describe it; the strings live as long as the engine. */
typedef struct {
    const char *state; /* "joining", "loading", "ready", "suspect", "draining", "lost", "left" */
    const char *host;
    uint32_t pid, n_experts;
    uint64_t expert_bytes;
    tr_worker_stats stats; /* of its last heartbeat */
    char why[256];         /* it is suspect or lost; else empty */
} tr_worker_view;

tr_worker_view tr_engine_worker(const tr_engine *e, uint32_t worker);

/* Of one layer; 1 for a dense one, whose network counts as an expert. */
uint32_t tr_engine_n_experts(const tr_engine *e, uint32_t layer);

/* The peer that holds an expert; 0: this process. */
uint32_t tr_engine_holder(const tr_engine *e, uint32_t layer, uint32_t expert);

/* The peer that holds it while nobody is lost. */
uint32_t tr_engine_home(const tr_engine *e, uint32_t layer, uint32_t expert);

/* Time n_bytes to worker 1..n_workers and back, between steps; fails as tr_echo does. */
tr_status tr_engine_echo(tr_engine *e, uint32_t worker, size_t n_bytes, tr_time *elapsed);

const tr_model *tr_engine_model(const tr_engine *e);
const tr_kernels *tr_engine_kernels(const tr_engine *e);
const tr_compute *tr_engine_compute(const tr_engine *e);
size_t tr_engine_max_rows(const tr_engine *e);
uint32_t tr_engine_n_workers(const tr_engine *e);

/* Bytes of the cache that a row reads which is a sequence's n-th. */
double tr_engine_cache_bytes(const tr_engine *e, double n);

/* Pages of the cache in use and kept; tr_kv_pages.h. */
tr_kv_pages_counts tr_engine_kv_count(const tr_engine *e);
size_t tr_engine_kv_available(const tr_engine *e);
size_t tr_engine_context(const tr_engine *e);

typedef struct {
    tr_forward_times times;
    tr_dispatch_stats dispatch;
    tr_recovery_stats recovery;
    tr_transport_stats transport;
    uint64_t dense_bytes, kv_bytes, local_expert_bytes;
    double load_seconds;
} tr_engine_stats;

tr_engine_stats tr_engine_get_stats(const tr_engine *e);

#endif
