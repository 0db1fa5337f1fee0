/* hosting.h - the experts that a worker was assigned: those it holds, and those it still has to
 * load.
 *
 * USE     st = tr_hosting_new(&compute, g, &map, &h);
 *         st = tr_hosting_add(h, &assignment);           any number of times
 *         while (tr_hosting_is_behind(h)) st = tr_hosting_load_next(h);      one expert at a time
 *         st = tr_hosting_load_for(h, layer, picks, n, before, ctx);   what a share waits for
 *         ... tr_hosting_shards(h) ...
 *         tr_hosting_free(&h);
 *
 * An expert of a lazy assignment is loaded only for a share: its holder may come back.
 *
 * THREAD  The worker's one thread.
 * FAILS   TR_E_PROTOCOL  an assignment names what the model does not have
 *         what tr_shards_load fails with
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_WORKER_HOSTING_H
#define TR_WORKER_HOSTING_H

#include "experts/group.h"
#include "experts/shards.h"
#include "proto/wire.h"

typedef struct tr_hosting tr_hosting;

/* compute, g and map must outlive it. */
tr_status tr_hosting_new(const tr_compute *compute, const tr_gguf *g, const tr_expert_map *map,
                         tr_hosting **out);
void tr_hosting_free(tr_hosting **h);

tr_status tr_hosting_add(tr_hosting *h, const tr_assignment *a);

/* Something is left to be loaded without being asked for. */
bool tr_hosting_is_behind(const tr_hosting *h);

/* The next of it.  One that can't be loaded is tried again only for a share. */
tr_status tr_hosting_load_next(tr_hosting *h);

/* Whether every expert that a share names was assigned, and so can be had. */
bool tr_hosting_has_all(const tr_hosting *h, uint32_t layer, const tr_share_pick *picks, size_t n);

/* All of them, if they were assigned.  before is called ahead of each that is not there yet: a disk
 * may take its time. */
tr_status tr_hosting_load_for(tr_hosting *h, uint32_t layer, const tr_share_pick *picks, size_t n,
                              void (*before)(void *ctx), void *ctx);

/* Bytes in the file of all that is loaded or to be loaded without being asked for. */
uint64_t tr_hosting_bytes(const tr_hosting *h);

tr_shards *tr_hosting_shards(tr_hosting *h);

#endif
