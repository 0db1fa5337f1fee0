/* shm.h - messages between processes of one host: memory that all of them map, and only places in
 * it change hands.
 *
 * The coordinator makes a region and a ticket for it; a worker that can open the region joins.
 * Each process has an arena in the region for what it sends.  A message is written where its
 * receiver will read it, and is free again when the receiver says so in the message's head.
 * Between the coordinator and a worker there is a ring of places for each direction; a process
 * that waits sleeps on a word that senders ring.
 *
 * USE     st = tr_shm_create(n_workers, max_size, &shm);         the coordinator
 *         tr_shm_ticket ticket = tr_shm_get_ticket(shm);          ... to the workers, somehow
 *         st = tr_shm_join(&ticket, self, max_size, &shm);        a worker
 *         tr_shm_open_done(shm);                                  all have joined, or failed to
 *
 *         st = tr_shm_reserve(shm, size, &m);
 *         st = tr_shm_send(shm, to, &m);
 *         st = tr_shm_recv(shm, from, &m);                        polls once
 *         tr_shm_wait(shm, timeout);                              until something may have come
 *
 * TRUST   A peer's places are checked against its arena and max_size, but the peer can still write
 *         into a message while it is read: processes of a job trust each other's memory.
 * THREAD  One thread uses one tr_shm.
 * FAILS   TR_E_UNSUPPORTED  this system or this peer can't share; no line: there are other ways
 *         TR_E_BUSY         reserve: the arena is full; send: too many messages on their way
 *         TR_E_DEADLINE     recv: nothing there
 *         TR_E_PROTOCOL     recv: a place that can't be, *size is what was claimed
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_SHM_H
#define TR_TRANSPORT_SHM_H

#include "transport/transport.h"

typedef struct tr_shm tr_shm;

/* What a worker needs to find the region; plain bytes. */
typedef struct {
    int32_t pid, fd; /* fd of process pid; -1: there is no region */
    uint32_t n_workers;
    uint32_t reserved;
    uint64_t size;
    uint64_t nonce; /* the region begins with it */
} tr_shm_ticket;

tr_status tr_shm_create(tr_peer n_workers, size_t max_size, tr_shm **out);
tr_shm_ticket tr_shm_get_ticket(const tr_shm *shm);
tr_status tr_shm_join(const tr_shm_ticket *ticket, tr_peer self, size_t max_size, tr_shm **out);
void tr_shm_open_done(tr_shm *shm);

/* Messages must have been freed; those that peers still hold are theirs. */
void tr_shm_close(tr_shm **shm);

tr_status tr_shm_reserve(tr_shm *shm, size_t size, tr_msg **out);

/* True if the message was reserved here, so that it can be sent here. */
bool tr_shm_owns(const tr_shm *shm, const tr_msg *m);

/* On TR_OK the message is gone. */
tr_status tr_shm_send(tr_shm *shm, tr_peer to, tr_msg **m);

tr_status tr_shm_recv(tr_shm *shm, tr_peer from, size_t *size, tr_msg **out);

/* The peer is not listened to any more: what it sends wakes nobody. */
void tr_shm_drop(tr_shm *shm, tr_peer peer);

/* Returns when a peer has sent since the last vain recv of all peers, or after the timeout, or
 * earlier for no reason. */
void tr_shm_wait(tr_shm *shm, tr_time timeout);

#endif
