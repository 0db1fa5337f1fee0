/* sim.h - a whole cluster in one process, in virtual time, from one seed.
 *
 * A world has a coordinator, peer 0, and workers, each in a thread of its own, of which exactly one
 * runs at a time: it holds the baton.  Whoever waits (recv, a link's poll, tr_sleep) gives the
 * baton to whom the next event wakes, and time jumps there.  So what happens is a function of the
 * options alone, nothing waits for the machine's clock, and a failing seed fails again.
 *
 * USE     tr_sim_options o = { .seed = 7, .n_workers = 3, .max_size = 1 << 20,
 *                              .rules = tr_sim_calm(), .time_limit = 600 * TR_SECOND };
 *         st = tr_sim_new(&o, &sim);
 *         st = tr_sim_start(sim, 1, worker_main, ctx);       2, 3; more of them at any time
 *         tr_transport *t = tr_sim_enter(sim);               this thread is peer 0 now
 *         ... the coordinator's code, with t ...
 *         st = tr_sim_leave(sim);                            the others run on until they end
 *         ... tr_sim_process(sim, 2), tr_sim_record(sim, &n) ...
 *         tr_sim_free(&sim);
 *
 * TIME    Inside, tr_now is the world's time.  Computing takes none but a little a call of tr_now,
 * so that whoever waits in a loop gets on, and rules.work a message. FAULTS  are drawn from the
 * seed at the rules' rates, or are those of a schedule and no others. Each one that happened is in
 * the record, in the form in which a schedule takes it: the record of a run, with seed and rules,
 * is the run; without some entries it is a smaller one. What a message suffers is a function of
 * (seed, direction, its number there). A dead process runs to its end unheard: every wait returns
 * TR_E_INTERRUPTED, nothing it sends leaves, and its time flies.  So it gives its memory back.
 * LINKS   t->links makes control links of the world (link.h).
 * LOGS    What a simulated worker fails with is kept (tr_sim_process), not printed.
 * THREAD  Between enter and leave peer 0's thread, or whoever holds the baton.  Worlds share
 *         nothing: several threads may have one each.
 * FAILS   TR_E_MEMORY, TR_E_SYSTEM (no thread to be had)
 *         TR_E_DEADLINE  leave: somebody did not end within time_limit, or all waited for nothing
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_SIM_H
#define TR_TRANSPORT_SIM_H

#include "transport/transport.h"

/* A share of a thousand. */
typedef uint32_t tr_sim_rate;

/* Times are drawn evenly from min..max. */
typedef struct {
    tr_time delay_min, delay_max; /* of every message */
    tr_time work_min, work_max;   /* that a worker takes for a message before its code sees it */
    bool tells_losses;            /* recv reports ends as inproc does; MPI does not */

    /* of data messages; but late: of both planes */
    tr_sim_rate late, lost, twice, corrupt;
    tr_sim_rate not_a_number; /* of those to the coordinator */
    tr_time late_max;
    uint64_t spared; /* data messages of each direction, from the first: MPI loses no invitation */

    /* of the blocks of memory (base/memory.h) that workers take */
    tr_sim_rate no_block;

    /* of workers, some time from onset to horizon */
    tr_sim_rate killed, vanished, hung, slow_disk, short_of_memory, wrong;
    /* of ways between the coordinator and a worker, in the same time */
    tr_sim_rate cut, unlinked, stuck;
    tr_time onset, horizon;
    tr_time hang_max, cut_max; /* one in four lasts for ever; wrong: hang_max */
    tr_time read_max;          /* that a slow disk takes for a read */
    uint64_t short_block;      /* who is short of memory gets no block above this */
} tr_sim_rules;

/* Delays of 20 to 200 microseconds, work of 50 to 500, short blocks of a mebibyte, no faults. */
tr_sim_rules tr_sim_calm(void);

typedef enum {
    /* a message on its way */
    TR_SIM_LATE, /* by duration; those behind it wait */
    TR_SIM_LOST,
    TR_SIM_TWICE,
    TR_SIM_CORRUPT,      /* a bit of byte number `byte`, modulo its size, is flipped */
    TR_SIM_NOT_A_NUMBER, /* number `byte` of an answer is none, under a right checksum */
    /* a block of memory that process `from` asks for, its nth */
    TR_SIM_NO_BLOCK,
    /* a process */
    TR_SIM_KILL,            /* its connections end */
    TR_SIM_VANISH,          /* with its host: nobody is told */
    TR_SIM_HANG,            /* for duration */
    TR_SIM_SLOW_DISK,       /* every read takes duration from then on */
    TR_SIM_SHORT_OF_MEMORY, /* blocks of more than `byte` bytes are not to be had from then on */
    TR_SIM_WRONG,           /* for duration: number `byte` of every answer that it sends is none */
    /* the way between two */
    TR_SIM_CUT,    /* for duration: what is sent arrives after it */
    TR_SIM_UNLINK, /* the control connection ends, and what is on its way is lost */
    TR_SIM_STICK,  /* for duration: either end's transport takes no data for the other */
} tr_sim_what;

typedef struct {
    tr_sim_what what;
    tr_peer from, to; /* a message's direction; the process (from); the way's ends */
    bool is_control;  /* the message's plane */
    uint64_t nth;     /* the message's number in its direction and plane, or the block's; from 0 */
    tr_time at;       /* process or way: since the world began; or TR_SIM_AT_MESSAGE */
    tr_time duration; /* TR_FOREVER: it never ends */
    uint64_t byte;
} tr_sim_fault;

/* When process `from` is about to send its nth data message, counted over all its peers. */
#define TR_SIM_AT_MESSAGE ((tr_time)-1)

/* A fault that happened. */
typedef struct {
    tr_time time; /* since the world began */
    tr_sim_fault fault;
} tr_sim_event;

typedef struct {
    uint64_t seed;
    tr_peer n_workers;
    size_t max_size; /* of a data message */
    tr_sim_rules rules;
    /* Number `which`, modulo how many there are, of a data message becomes none, under a right
     * checksum; a message without numbers stays as it is.  NULL: all do. */
    void (*spoil)(uint8_t *message, size_t size, uint64_t which);
    const tr_sim_fault
        *schedule; /* [n_schedule], borrowed; instead of drawn faults if has_schedule */
    size_t n_schedule;
    bool has_schedule;
    tr_time time_limit; /* since the world began: who is not done by then is ended */
} tr_sim_options;

typedef struct tr_sim tr_sim;

tr_status tr_sim_new(const tr_sim_options *o, tr_sim **out);

/* Must have been left, if it was entered. */
void tr_sim_free(tr_sim **s);

/* What a worker does; t is closed when it returns. */
typedef tr_status (*tr_sim_main)(tr_transport *t, void *ctx);

/* Worker 1..n_workers, once each; before enter, or by a process of the world. */
tr_status tr_sim_start(tr_sim *s, tr_peer worker, tr_sim_main run, void *ctx);

tr_transport *tr_sim_enter(tr_sim *s);
tr_status tr_sim_leave(tr_sim *s);

typedef struct {
    bool was_started;
    bool is_dead;           /* by a fault */
    bool was_ended;         /* it hung or waited at the end of the world */
    tr_status st;           /* that its main returned; dead or ended: meaningless */
    const char *last_words; /* the last line that it failed with; "" for none */
} tr_sim_process_view;

/* Valid until free, once the world was left. */
tr_sim_process_view tr_sim_process(const tr_sim *s, tr_peer peer);

/* In order of time; valid until the world goes on. */
const tr_sim_event *tr_sim_record(const tr_sim *s, size_t *n);

/* A number for all that happened: faults, and what arrived where and when.  Equal runs, equal
 * numbers. */
uint64_t tr_sim_hash(const tr_sim *s);

/* Time since the world began. */
tr_time tr_sim_elapsed(const tr_sim *s);

/* "0.012345 s: worker 2 is killed", without the time if it is negative; always ends with a zero. */
void tr_sim_describe(tr_time time, const tr_sim_fault *f, char *out, size_t size);

#endif
