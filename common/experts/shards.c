/* shards.c - load experts one by one; look them up by (layer, expert).
 * SPDX-License-Identifier: Apache-2.0 */
#include "experts/shards.h"

#include "base/check.h"

#include <stdlib.h>

struct tr_shards {
    const tr_compute *compute;
    const tr_gguf *gguf;
    const tr_expert_map *map;
    tr_expert **held; /* [n_layers][n_experts], NULL: not held */
    size_t count;
    uint64_t bytes;
};

static size_t index_of(const tr_shards *s, uint32_t layer, uint32_t expert)
{
    TR_CHECK(layer < s->map->n_layers);
    TR_CHECK(expert < s->map->n_experts);
    return (size_t)layer * s->map->n_experts + expert;
}

tr_status tr_shards_new(const tr_compute *compute, const tr_gguf *g, const tr_expert_map *map,
                        tr_shards **out)
{
    tr_shards *s = calloc(1, sizeof *s);

    if (!s)
        return tr_fail(TR_E_MEMORY, "shards: no memory");
    s->compute = compute;
    s->gguf = g;
    s->map = map;
    s->held = calloc((size_t)map->n_layers * map->n_experts, sizeof(tr_expert *));
    if (!s->held) {
        free(s);
        return tr_fail(TR_E_MEMORY, "shards: no memory for the table");
    }
    *out = s;
    return TR_OK;
}

static void expert_free(tr_expert *e)
{
    tr_weights_free(&e->gate);
    tr_weights_free(&e->up);
    tr_weights_free(&e->down);
    free(e);
}

void tr_shards_free(tr_shards **s)
{
    if (!*s)
        return;
    size_t n = (size_t)(*s)->map->n_layers * (*s)->map->n_experts;
    for (size_t i = 0; i < n; i++)
        if ((*s)->held[i])
            expert_free((*s)->held[i]);
    free((*s)->held);
    free(*s);
    *s = NULL;
}

tr_status tr_shards_load(tr_shards *s, uint32_t layer, uint32_t expert)
{
    size_t at = index_of(s, layer, expert);

    if (s->held[at])
        return TR_OK;
    TR_CHECK(tr_expert_map_has(s->map, layer));
    const tr_expert_tensors *t = &s->map->layer[layer];
    tr_expert *e = calloc(1, sizeof *e);
    if (!e)
        return tr_fail(TR_E_MEMORY, "shards: no memory for layer %u expert %u", layer, expert);
    tr_status st = tr_weights_load_for(s->compute, s->gguf, t->gate, expert, 1, &e->gate);
    if (st == TR_OK)
        st = tr_weights_load_for(s->compute, s->gguf, t->up, expert, 1, &e->up);
    if (st == TR_OK)
        st = tr_weights_load_for(s->compute, s->gguf, t->down, expert, 1, &e->down);
    if (st != TR_OK) {
        expert_free(e);
        return st;
    }
    s->held[at] = e;
    s->count++;
    s->bytes += e->gate.size + e->up.size + e->down.size;
    return TR_OK;
}

const tr_expert *tr_shards_get(const tr_shards *s, uint32_t layer, uint32_t expert)
{
    return s->held[index_of(s, layer, expert)];
}

const tr_expert_map *tr_shards_map(const tr_shards *s)
{
    return s->map;
}

size_t tr_shards_count(const tr_shards *s)
{
    return s->count;
}

uint64_t tr_shards_bytes(const tr_shards *s)
{
    return s->bytes;
}
