/* need.h - how much memory the coordinator will take, known before anything is loaded.
 *
 * USE     tr_need n = tr_need_of(&options, &config, &map);
 *         st = tr_need_check(&n, &options);
 *         ... workers join, and say where they are ...
 *         st = tr_need_check_host(&n, tr_need_of_workers(&map, &placement, is_here), there);
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

/* Whether it fits into o->memory, or what this machine can give now. */
tr_status tr_need_check(const tr_need *n, const tr_engine_options *o);

/* Bytes of the experts that some workers will load: is_here[w] for those. */
uint64_t tr_need_of_workers(const tr_expert_map *map, const tr_placement *p, const bool *is_here);

/* Whether it fits beside the experts of workers on the same host into what that could give before
 * anybody loaded; there is 0 where the system does not tell. */
tr_status tr_need_check_host(const tr_need *n, uint64_t workers, uint64_t there);

#endif
