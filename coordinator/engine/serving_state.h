/* serving_state.h - what a server of requests keeps; private to serving*.c.
 *
 * serving.c       the queue, and the loop: a step after the other
 * serving_plan.c  who is let in, who is sent back, which rows make the next step
 * serving_draw.c  each one's next token
 *
 * What the lock guards: the list of newcomers, the flags, the figures that others read, and changes
 * of the places of waiting and running requests.  Only the loop changes these, so it reads them
 * without the lock.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_SERVING_STATE_H
#define TR_COORDINATOR_ENGINE_SERVING_STATE_H

#include "coordinator/engine/scheduler.h"
#include "coordinator/engine/serving.h"

#include <pthread.h>
#include <stdatomic.h>

/* A request from submit to on_end. */
typedef struct tr_serving_entry {
    struct tr_serving_entry *next; /* of the newcomers */
    tr_serving_request r;
    uint64_t ticket;
    uint32_t *tokens; /* [n_prompt + max_tokens] the prompt, then the answer */
    size_t n_tokens;
    tr_logit_bias *bias;
    tr_sequence *sequence; /* NULL while it waits */
    uint64_t leader;       /* the ticket of one that reads the same tokens before; 0: nobody does */
    size_t shared;         /* tokens of the cache's pages that the leader leaves */
    bool was_sent_back;
    tr_time arrived, last;
    size_t row; /* of its logits in this step; SIZE_MAX: none */
    tr_generated drawn;
    bool is_broken; /* logits that are no numbers */
    bool is_stuck;  /* no token may come */
    atomic_bool is_cancelled;
    tr_alternative alternatives[TR_MAX_ALTERNATIVES];
} tr_serving_entry;

struct tr_serving {
    tr_serving_options o;
    size_t n_vocab, n_layers, n_experts, max_rows, capacity, n_pages;

    pthread_mutex_t lock;
    pthread_cond_t news;
    tr_serving_entry *newcomers, **newcomers_end;
    size_t n_newcomers;
    size_t n_live; /* submitted and not ended, at most capacity */
    uint64_t next_ticket;
    bool is_draining, is_stopped, is_over;
    tr_serving_stats stats;
    uint64_t *picks, *traced_picks; /* [n_layers][n_experts] */

    tr_serving_entry **entries; /* [n], in order of arrival; room for capacity */
    size_t n;

    /* the loop's own */
    tr_schedule_item *items;    /* [capacity] */
    size_t *n_rows;             /* [capacity] */
    tr_row *rows;               /* [max_rows] */
    uint8_t *row_traced;        /* [max_rows] the row belongs to the traced request */
    float *logits;              /* [max_running][n_vocab] */
    float *sampled;             /* [threads][n_vocab] */
    tr_serving_entry **drawing; /* [max_running] those whose rows have logits */
    size_t n_drawing;
    tr_sample_scratch *scratch; /* [threads] */
    size_t n_threads;
    tr_step_time step_time;
    uint64_t refused;    /* ticket of the last that found no pages */
    size_t refused_room; /* the pages that there were */
};

size_t tr_serving_count_running(const tr_serving *s);

/* Let in who fits, and give each who runs its rows of the next step (s->n_rows) and pages for them;
 * at least one has some.  Fails as the engine's sequences do. */
tr_status tr_serving_plan(tr_serving *s);

/* Draw a token for each of s->drawing from its logits, on all threads. */
void tr_serving_draw(tr_serving *s);

#endif
