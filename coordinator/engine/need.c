/* need.c - sums of sizes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/need.h"

#include "base/memory.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/model/forward.h"

#include <string.h>

tr_kv_shape tr_need_kv_shape(const tr_model_config *c, tr_type type)
{
    return (tr_kv_shape){ .n_layers = c->n_layers,
                          .n_heads = c->cache_heads,
                          .head_dim = c->cache_dim,
                          .type = type,
                          .values_are_keys = c->latent > 0,
                          .window = c->window };
}

/* What all sequences can need at once, and an eighth of the other layers' pages for beginnings that
 * may be shared. */
static size_t window_pages_for(const tr_engine_options *o, const tr_kv_shape *shape, size_t pages)
{
    size_t most = tr_kv_window_pages(shape, o->max_rows) * o->n_sequences + pages / 8;

    if (shape->window == 0)
        return 0;
    return most < pages ? most : pages;
}

uint64_t tr_need_experts(const tr_expert_map *map)
{
    uint64_t sum = 0;

    for (uint32_t l = 0; l < map->n_layers; l++)
        if (tr_expert_map_has(map, l))
            sum += tr_expert_map_bytes(map, l) * map->layer[l].n_experts;
    return sum;
}

tr_need tr_need_of(const tr_engine_options *o, const tr_model_config *c, const tr_expert_map *map)
{
    tr_kv_shape shape = tr_need_kv_shape(c, o->exact ? TR_TYPE_F32 : o->kv_type);
    size_t threads = o->threads ? o->threads : tr_pool_default_threads();
    tr_need n = { .pages = tr_kv_pages_for(o->context) * o->n_sequences };

    if (o->kv_positions > 0) /* a page more for each sequence, since the last is partly used */
        n.pages = tr_kv_pages_for(o->kv_positions) + o->n_sequences;
    n.window_pages = window_pages_for(o, &shape, n.pages);
    n.cache = (uint64_t)n.pages * tr_kv_page_size(&shape) +
              (uint64_t)n.window_pages * tr_kv_window_page_size(&shape);
    n.buffers = tr_forward_bytes(c, &shape, threads, o->max_rows, o->context) +
                tr_dispatch_bytes(map, o->max_rows, o->n_workers == 0) +
                (uint64_t)o->max_logits * c->n_vocab * sizeof(float);
    n.dense = tr_model_dense_bytes(o->gguf, map);
    n.experts = o->n_workers == 0 ? tr_need_experts(map) : 0;
    return n;
}

static const char *what_to_do(const tr_need *n, const tr_engine_options *o, uint64_t there)
{
    if (n->dense > there)
        return "the coordinator must be where there is more memory";
    if (n->dense + n->experts > there)
        return "give experts to workers on other machines";
    return o->exact || o->kv_type == TR_TYPE_Q8_0 ? "lower --ctx"
                                                  : "lower --ctx, or take --kv q8_0";
}

static uint64_t sum_of(const tr_need *n)
{
    return n->cache + n->buffers + n->dense + n->experts;
}

/* 0: the system does not tell. */
static uint64_t memory_there(const tr_engine_options *o)
{
    return o->memory ? o->memory : tr_memory_available();
}

bool tr_need_fits(const tr_need *n, const tr_engine_options *o)
{
    uint64_t there = memory_there(o);

    return there == 0 || sum_of(n) <= there;
}

tr_status tr_need_check(const tr_need *n, const tr_engine_options *o)
{
    uint64_t sum = sum_of(n);
    uint64_t there = memory_there(o);

    if (there == 0 || sum <= there)
        return TR_OK;
    return tr_fail(TR_E_MEMORY,
                   "%llu bytes of memory are needed here (weights %llu, keys and values %llu, "
                   "buffers %llu), but %llu are available: %s",
                   (unsigned long long)sum, (unsigned long long)(n->dense + n->experts),
                   (unsigned long long)n->cache, (unsigned long long)n->buffers,
                   (unsigned long long)there, what_to_do(n, o, there));
}

/* Of the first n workers, those that are on this host. */
static uint64_t experts_here(const tr_expert_map *map, const tr_placement *p,
                             const tr_need_host *host, uint32_t n)
{
    uint64_t sum = 0;

    for (uint32_t l = 0; l < map->n_layers; l++)
        for (uint32_t x = 0; x < map->layer[l].n_experts; x++) {
            uint32_t home = tr_placement_home(p, l, x);
            if (home > 0 && home <= n && strcmp(host->worker[home], host->name) == 0)
                sum += tr_expert_map_bytes(map, l);
        }
    return sum;
}

static tr_status check_beside(const tr_need *n, const tr_engine_options *o, uint64_t workers,
                              uint64_t there)
{
    tr_need all = *n;

    all.experts += workers;
    if (there == 0 || workers == 0 || sum_of(&all) <= there)
        return TR_OK;
    return tr_fail(TR_E_MEMORY,
                   "%llu bytes of memory are needed on this host (the coordinator %llu, experts of "
                   "workers here %llu), but %llu are available: %s, or say with --memory-mib what "
                   "the coordinator may take",
                   (unsigned long long)sum_of(&all), (unsigned long long)sum_of(n),
                   (unsigned long long)workers, (unsigned long long)there,
                   what_to_do(&all, o, there));
}

tr_status tr_need_check_host(const tr_need *n, const tr_engine_options *o, const tr_expert_map *map,
                             const tr_placement *p, const tr_need_host *host)
{
    if (o->memory > 0)
        return TR_OK;
    tr_status st =
        check_beside(n, o, experts_here(map, p, host, o->n_workers - o->n_outside), host->groups);
    return st == TR_OK ? check_beside(n, o, experts_here(map, p, host, o->n_workers), host->machine)
                       : st;
}
