/* memory_need.c - add up what the parts say that they take.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/engine/memory_need.h"

#include "coordinator/cluster/placement.h"
#include "coordinator/engine/need.h"
#include "experts/apply.h"

uint64_t tr_memory_need_sum(const tr_memory_need *n)
{
    return n->weights + n->cache + n->buffers + n->messages;
}

static void add_experts(const tr_compute *c, const tr_expert_map *map, const tr_placement *p,
                        tr_memory_need *need)
{
    for (uint32_t l = 0; l < map->n_layers; l++) {
        if (!tr_expert_map_has(map, l))
            continue;
        uint64_t bytes = tr_shards_expert_bytes(c, map, l);
        for (uint32_t x = 0; x < map->layer[l].n_experts; x++)
            need[tr_placement_holder(p, l, x)].weights += bytes;
    }
}

/* A layer's rows go to each worker that some of them picked, and come back as one row per pick.
 * The coordinator meets all of that, a worker its share of the picks. */
static void add_messages(const tr_memory_need_options *o, const tr_expert_map *map,
                         tr_memory_need *need)
{
    uint64_t rows = o->max_rows, picks = rows * map->top_k;
    uint64_t out = rows * tr_act_row_size(tr_expert_map_act(map, 0, o->exact), map->dim);
    uint64_t back = picks * map->dim * sizeof(float);
    uint64_t asked = map->top_k < o->n_workers ? map->top_k : o->n_workers;

    if (o->n_workers == 0)
        return;
    need[0].messages = out * asked + back;
    for (uint32_t w = 1; w <= o->n_workers; w++)
        need[w].messages = out + back / o->n_workers;
}

static void add_coordinator(const tr_memory_need_options *o, const tr_gguf *g,
                            const tr_model_config *c, const tr_expert_map *map,
                            tr_memory_need *need)
{
    tr_engine_options e = { .gguf = g,
                            .exact = o->exact,
                            .kv_type = o->kv_type,
                            .threads = o->threads,
                            .context = o->context,
                            .n_sequences = 1,
                            .max_logits = 1,
                            .max_rows = o->max_rows,
                            .n_workers = o->n_workers };
    tr_need n = tr_need_of(&e, c, map);

    need->cache = n.cache;
    need->buffers = n.buffers;
}

tr_status tr_memory_need_read(const tr_gguf *g, const tr_memory_need_options *o,
                              tr_memory_need *need)
{
    tr_compute compute = { .kernels = o->kernels, .exact = o->exact };
    tr_expert_map map = { 0 };
    tr_placement placement = { 0 };
    tr_model_config config;
    uint64_t dense = 0;

    tr_status st = tr_model_measure(g, &compute, &dense);
    if (st == TR_OK)
        st = tr_model_config_read(g, &config);
    if (st == TR_OK)
        st = tr_expert_map_read(g, &map);
    if (st == TR_OK)
        st = tr_placement_new(map.n_layers, map.n_experts, o->n_workers, TR_PLACE_EVEN, NULL,
                              &placement);
    if (st == TR_OK) {
        for (uint32_t w = 0; w <= o->n_workers; w++)
            need[w] = (tr_memory_need){ .buffers = w > 0 ? tr_apply_bytes(&map) : 0 };
        need[0].weights = dense;
        add_experts(&compute, &map, &placement, need);
        add_messages(o, &map, need);
        add_coordinator(o, g, &config, &map, &need[0]);
    }
    tr_placement_fini(&placement);
    tr_expert_map_fini(&map);
    return st;
}
