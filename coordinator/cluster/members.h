/* members.h - the workers as the coordinator knows them.
 *
 * USE     st = tr_members_open(&options, transport, &m);     invites, waits, checks every hello
 *         st = tr_members_assign(m, peer, &assignment);
 *         st = tr_members_await_ready(m, deadline, watch, ctx);
 *         st = tr_members_pump(m);                           inside every other wait
 *         st = tr_members_invite_again(m, peer, ...);        another process in a lost one's place
 *         tr_members_close(&m);                              tells the living to stop
 *
 * STATE   A worker is JOINING until its hello was accepted, LOADING once it was assigned its
 *         experts, READY when it says so; SUSPECT while it is silent or late with a share, READY
 *         again when it is heard; LOST when its connection ended, it was silent for too long or it
 *         failed; DRAINING when it asked to leave: it answers until others have its experts; LEFT
 *         when it said bye.  proto/PROTOCOL.md has the whole picture.
 *         A worker that is lost after it got its experts is a change, not a failure: whoever needs
 *         the experts looks at tr_members_changes.
 * THREAD  The step thread.
 * FAILS   TR_E_PEER_LOST  a worker is lost before it got its experts; the line names it.  Sticky:
 *                         later calls repeat the status without a line
 *         TR_E_REFUSED    a worker of another version or with another model; both sides say so
 *         TR_E_DEADLINE   workers that did not come or are not ready, named
 *
 * Late, repeated or unexpected messages are counted and dropped.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_MEMBERS_H
#define TR_COORDINATOR_CLUSTER_MEMBERS_H

#include "coordinator/cluster/fault_log.h"
#include "proto/wire.h"
#include "transport/transport.h"

typedef enum {
    TR_MEMBER_JOINING,
    TR_MEMBER_LOADING,
    TR_MEMBER_READY,
    TR_MEMBER_SUSPECT,
    TR_MEMBER_DRAINING,
    TR_MEMBER_LOST,
    TR_MEMBER_LEFT,
} tr_member_state;

typedef struct {
    tr_member_state state;
    tr_hello hello; /* valid once accepted */
    bool is_accepted;
    uint64_t loaded, to_load; /* bytes */
    uint32_t n_experts;       /* held */
    tr_worker_stats stats;    /* of its last heartbeat */
    tr_time heard;            /* when it last said anything */
    bool is_late;             /* SUSPECT for a share: only an answer clears it */
    bool has_more;            /* was given more than its first experts, which it may have to load */
    bool is_adopting;         /* loads what a lost worker held */
    tr_time fetching;         /* since then it loads what a share asks for, in silence; 0: no */
    uint32_t n_refused;       /* answers lately that could not be used */
    tr_time refused;          /* when the last of them came */
    bool is_released;         /* DRAINING, and told that it may go */
    bool is_replacement; /* of one that was lost: the job goes on without it until it is ready */
    char why[256];       /* it is SUSPECT or LOST */
    tr_time changed;     /* when it got into its state */
} tr_member;

typedef struct tr_members tr_members;

typedef struct {
    const char *listen;     /* NULL: loopback */
    const char *version;    /* of this program */
    const char *model_path; /* copied */
    uint64_t model;         /* identity */
    tr_time join_timeout;
    tr_time suspect_timeout; /* silence of a ready worker that makes it SUSPECT; 0: never */
    tr_time silence_timeout; /* and that makes it LOST */
    tr_time heartbeat;
    tr_fault_log *faults;   /* NULL: none are planned */
    tr_transport *inviter;  /* carries invitations and nothing else; NULL: the data plane does */
    const char *invite_dir; /* for workers that no transport reaches before they join: those past
                             * the inviter's peers.  Files there are removed when all have joined */
    uint32_t n_outside;     /* how many they are */
} tr_members_options;

tr_status tr_members_open(const tr_members_options *o, tr_transport *t, tr_members **out);
void tr_members_close(tr_members **m);

uint64_t tr_members_job(const tr_members *m);

/* peer 1..n_workers. */
const tr_member *tr_members_get(const tr_members *m, uint32_t peer);

/* True for a worker that no launcher of ours started: its groups may be others than ours. */
bool tr_members_is_outside(const tr_members *m, uint32_t peer);

/* True for a worker that takes shares: it is READY, or LOADING before the job begins. */
bool tr_members_is_usable(const tr_members *m, uint32_t peer);

/* True for a worker that answers the shares it got, and can get more if nobody else can: it is
 * usable, or DRAINING. */
bool tr_members_answers(const tr_members *m, uint32_t peer);

/* A DRAINING worker may go: nobody needs it any more. */
void tr_members_release(tr_members *m, uint32_t peer);

/* Counts whatever makes a worker usable or not. */
uint64_t tr_members_changes(const tr_members *m);

/* The first assignment is what the worker loads before it is READY; a later one adds experts. */
tr_status tr_members_assign(tr_members *m, uint32_t peer, const tr_assignment *a);

/* The place of a lost worker for another process, which is JOINING from now on: new keys, a new
 * ticket for the data plane, and in out, *size bytes, the frame that it must get on a secret way.
 * Its loss ends nothing.  Only where the data plane, or a part of it, can take it (tr_zmq,
 * tr_route). */
enum { TR_MEMBERS_INVITATION = 4096 };
tr_status tr_members_invite_again(tr_members *m, uint32_t peer, uint8_t out[TR_MEMBERS_INVITATION],
                                  size_t *size);

/* For whoever notices first.  A lost worker is never sent anything but the order to end. */
void tr_members_lose(tr_members *m, uint32_t peer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A share's answer is late, though the worker speaks. */
void tr_members_suspect(tr_members *m, uint32_t peer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A share's answer came. */
void tr_members_trust(tr_members *m, uint32_t peer);

/* An answer could not be used: how many of late, which is ten minutes. */
uint32_t tr_members_count_refused(tr_members *m, uint32_t peer);

/* Until all that are not lost are ready; none may be left.
 * watch (may be NULL) gets the bytes that all workers together have loaded. */
tr_status tr_members_await_ready(tr_members *m, tr_time deadline,
                                 void (*watch)(void *ctx, uint64_t bytes), void *ctx);

/* Handle what has come; never waits.  Costs next to nothing when called too often. */
tr_status tr_members_pump(tr_members *m);

#endif
