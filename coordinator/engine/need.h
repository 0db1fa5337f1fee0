/* need.h - how much memory the coordinator will take, known before anything is loaded.
 *
 * USE     tr_need n = tr_need_of(&options, &config, &map);
 *         st = tr_need_check(&n, &options);
 *         ... workers join, and say where they are ...
 *         st = tr_need_check_host(&n, &options, &map, &placement, &host);
 *
 * Weights are counted as the file has them (panels add a few percent), without the program itself,
 * its vocabulary and messages (some ten MiB more); the cache with all its pages, though these
 * become resident when they are used: what is promised to requests must be there.
 *
 * FAILS   TR_E_MEMORY  with one line: what is needed for what, and what there is
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_NEED_H
#define TR_COORDINATOR_ENGINE_NEED_H

#include "coordinator/cluster/placement.h"
#include "coordinator/engine/engine.h"

typedef struct {
    size_t pages, window_pages; /* of the cache; kv.h */
    uint64_t cache;             /* bytes of them */
    uint64_t buffers;           /* of a step: rows, attention's and experts' scratch, logits */
    uint64_t dense, experts;    /* weights; experts only where they are hosted here */
} tr_need;

/* The cache of a model; kernels are left out. */
tr_kv_shape tr_need_kv_shape(const tr_model_config *c, tr_type type);

/* Bytes of all experts. */
uint64_t tr_need_experts(const tr_expert_map *map);

tr_need tr_need_of(const tr_engine_options *o, const tr_model_config *c, const tr_expert_map *map);

/* Whether it fits into o->memory, or what this machine can give now; true where the system does not
 * tell.  check says so with a line if not. */
bool tr_need_fits(const tr_need *n, const tr_engine_options *o);
tr_status tr_need_check(const tr_need *n, const tr_engine_options *o);

/* This host before anybody loaded. */
typedef struct {
    const char *name;
    const char *const *worker; /* [1 + o->n_workers] the hosts of workers, from 1 */
    uint64_t machine;          /* bytes that are to be had here; 0 where the system does not tell */
    uint64_t groups;           /* of them, those for groups of this process */
} tr_need_host;

/* Whether it fits beside the experts of workers on the same host: of all of them into the machine,
 * and of those that are not from outside into our groups, in which a launcher starts them.  With
 * o->memory somebody else has counted. */
tr_status tr_need_check_host(const tr_need *n, const tr_engine_options *o, const tr_expert_map *map,
                             const tr_placement *p, const tr_need_host *host);

#endif
