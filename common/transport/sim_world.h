/* sim_world.h - what the parts of the simulation share: the world behind sim.h.
 *
 *   sim.c         processes, the baton, time, the queue of events
 *   sim_data.c    the data plane's transport
 *   sim_link.c    the control plane's links
 *   sim_faults.c  what goes wrong, and the record of it
 *
 * All of it is touched by the holder of the baton only; the lock is for handing the baton on.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_SIM_WORLD_H
#define TR_TRANSPORT_SIM_WORLD_H

#include "transport/link.h"
#include "transport/msg_pool.h"
#include "transport/sim.h"

#include "base/fault.h"

#include <pthread.h>

/* A message of the control plane, or the end of a connection. */
typedef struct tr_world_note {
    struct tr_world_note *next;
    tr_peer from;
    uint64_t connection; /* that it travels on */
    bool is_end;
    size_t size;
    uint8_t bytes[];
} tr_world_note;

typedef enum {
    TR_WORLD_WAKE,   /* a process runs: to */
    TR_WORLD_DATA,   /* slab arrives */
    TR_WORLD_CLOSED, /* from closed its transport, to notices */
    TR_WORLD_NOTE,   /* note arrives */
    TR_WORLD_FAULT,  /* fault happens */
} tr_world_kind;

typedef struct {
    tr_time time;
    uint64_t number; /* in order of creation: decides between events of one time */
    tr_world_kind kind;
    tr_peer from, to;
    union {
        tr_slab *slab;
        tr_world_note *note;
        tr_sim_fault fault;
    } u;
} tr_world_event;

/* What a process waits for, beside a moment. */
typedef enum {
    TR_WORLD_RUNS, /* it waits for nothing: it has the baton */
    TR_WORLD_FOR_TIME,
    TR_WORLD_FOR_DATA,
    TR_WORLD_FOR_NOTES,
} tr_world_wait_for;

/* One direction between two processes. */
typedef struct {
    uint32_t n_on_the_way; /* data messages sent and not received */
    uint64_t n_data, n_notes;
    tr_time last_data, last_note; /* arrivals so far: what follows comes no earlier */
    tr_time cut_until, stuck_until;
    bool is_closed;  /* the receiver knows that the sender closed */
    bool is_told;    /* and its caller too */
    bool is_dropped; /* by the receiver */
} tr_world_way;

/* The control connection of a worker. */
typedef struct {
    uint64_t number; /* of the connection: what travels on an older one is lost */
    bool is_up;
    bool is_heard; /* the server knows where to answer */
} tr_world_connection;

typedef struct tr_world_link tr_world_link;

typedef struct {
    tr_transport base; /* first: what its code sees */
    tr_sim *sim;
    tr_clock_source clock;
    tr_fault_source faults;
    tr_world_link *link; /* NULL: none is open */
    tr_slab_list inbox;

    bool is_started, is_closed, has_ended, is_dead, was_ended;
    tr_world_wait_for waits;
    uint64_t wake; /* the number of the event that ends the wait; 0: none */
    tr_time hung_until;
    tr_time ghost; /* the time of a dead one */
    uint64_t n_sent, n_blocks;
    uint64_t n_tried; /* data messages whose faults before them have happened */
    tr_time read_time;
    tr_time wrong_until;
    uint64_t wrong_number; /* of each answer until then */
    uint64_t memory_limit; /* of one block */

    pthread_t thread; /* but peer 0's */
    pthread_cond_t turn;
    bool has_baton;
    tr_sim_main run;
    void *ctx;
    tr_status st;
    char last_words[512];
} tr_world_process;

struct tr_sim {
    tr_sim_options o;
    tr_time now;
    tr_world_process *process;       /* [n_workers + 1] */
    tr_world_way *ways;              /* [from][to] */
    tr_world_connection *connection; /* [n_workers + 1]; 0 has none */
    tr_msg_pool pool;

    tr_world_event *queue; /* a heap */
    size_t n_queue, queue_room;
    uint64_t n_events;

    tr_sim_event *record;
    size_t n_record, record_room;
    uint64_t hash;
    tr_status failed; /* the world's own failure; sticky */

    pthread_mutex_t lock; /* guards has_baton */
};

static inline tr_world_way *tr_world_way_of(tr_sim *s, tr_peer from, tr_peer to)
{
    return &s->ways[(size_t)from * (s->o.n_workers + 1) + to];
}

/* ---- sim.c ---- */

/* Takes what u holds; if there is no memory it is freed and the world ends. */
void tr_world_push(tr_sim *s, const tr_world_event *e);

/* Give the baton away until `until`, or what is waited for comes.  Returns at once to the dead. */
void tr_world_wait(tr_world_process *p, tr_time until, tr_world_wait_for what);

/* Let happen what is due by now, other processes' turns included. */
void tr_world_let_others(tr_world_process *p);

/* What it waits for has come. */
void tr_world_wake(tr_world_process *p, tr_world_wait_for what);

/* Everybody alive is to end. */
void tr_world_end(tr_sim *s, tr_status why);

/* A call into the world takes a moment. */
void tr_world_spend(tr_world_process *p);

/* ---- sim_data.c ---- */

extern const tr_transport_ops tr_world_data_ops;
extern const struct tr_msg_ops tr_world_msg_ops;

void tr_world_data_arrive(tr_sim *s, tr_peer from, tr_peer to, tr_slab *slab);
void tr_world_closed_arrives(tr_sim *s, tr_peer from, tr_peer to);

/* Its peers are told, and what it has not received is gone. */
void tr_world_data_close(tr_world_process *p);

/* ---- sim_link.c ---- */

extern const tr_link_maker tr_world_links;

void tr_world_note_arrives(tr_sim *s, tr_peer from, tr_peer to, tr_world_note *note);

/* The process died: whom it had a connection with is told. */
void tr_world_link_died(tr_world_process *p);

/* A connection breaks. */
void tr_world_link_break(tr_sim *s, tr_peer worker);

/* ---- sim_faults.c ---- */

/* What happens to a message. */
typedef struct {
    tr_time delay; /* all of it, but for cuts and those before it */
    bool is_lost, is_twice, is_corrupt, is_not_a_number;
    uint64_t byte, number;
} tr_world_fate;

tr_world_fate tr_world_fate_of(tr_sim *s, tr_peer from, tr_peer to, bool is_control, uint64_t nth);

/* min..max, a function of the seed and what is named. */
tr_time tr_world_draw_work(const tr_sim *s, tr_peer who, uint64_t nth);

/* At the world's beginning: those that have a time become events. */
void tr_world_plan_faults(tr_sim *s);

/* The process is about to send: those that wait for this message. */
void tr_world_faults_before_message(tr_world_process *p);

void tr_world_fault_happens(tr_sim *s, const tr_sim_fault *f);

void tr_world_faults_of_process(tr_world_process *p);

#endif
