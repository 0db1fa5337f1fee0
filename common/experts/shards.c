/* shards.c - load experts one by one; look them up by (layer, expert).
 * SPDX-License-Identifier: Apache-2.0 */
#include "experts/shards.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>

/* Experts lie in slabs: blocks large enough for huge pages, which halve what streaming weights
 * costs in address translation. */
enum {
    SLAB = 64 << 20,
    MOST_AHEAD = 8, /* pages at once: what the last expert of a slab may leave unused */
};

typedef struct slab {
    struct slab *older;
    void *memory;
    size_t size, used, taken; /* taken: bytes whose pages are there */
} slab;

struct tr_shards {
    const tr_compute *compute;
    const tr_gguf *gguf;
    const tr_expert_map *map;
    tr_expert **held; /* [n_layers][n_experts], NULL: not held */
    slab *newest;
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

tr_status tr_shards_new_like(const tr_shards *s, tr_shards **out)
{
    return tr_shards_new(s->compute, s->gguf, s->map, out);
}

static void slab_free(slab *b)
{
    tr_memory_free(&b->memory, b->size);
    free(b);
}

void tr_shards_free(tr_shards **shards)
{
    tr_shards *s = *shards;

    if (!s)
        return;
    size_t n = (size_t)s->map->n_layers * s->map->n_experts;
    for (size_t i = 0; i < n; i++)
        free(s->held[i]);
    while (s->newest) {
        slab *older = s->newest->older;
        slab_free(s->newest);
        s->newest = older;
    }
    free(s->held);
    free(s);
    *shards = NULL;
}

/* A page for each thread at a time, so that all clear pages and fill them soon after.  Which
 * experts follow isn't known here, so many threads take no more ahead than few do. */
static void take_pages(tr_shards *s)
{
    tr_pool *pool = s->compute->pool;
    slab *b = s->newest;

    if (!pool || b->used <= b->taken)
        return;
    size_t threads = tr_pool_threads(pool);
    size_t step = (threads < MOST_AHEAD ? threads : MOST_AHEAD) * TR_HUGE_PAGE;
    size_t to = (b->used + step - 1) / step * step;
    to = to < b->size ? to : b->size;
    tr_pages_take(pool, (uint8_t *)b->memory + b->taken, to - b->taken);
    b->taken = to;
}

/* Room for size bytes at the end of the newest slab, which is a new one if need be. */
static tr_status reserve(tr_shards *s, size_t size, void **out)
{
    if (!s->newest || s->newest->size - s->newest->used < size) {
        slab *b = calloc(1, sizeof *b);
        if (!b)
            return tr_fail(TR_E_MEMORY, "shards: no memory");
        b->size = size > SLAB ? size : SLAB;
        tr_status st = tr_memory_new(b->size, "experts", &b->memory);
        if (st != TR_OK) {
            free(b);
            return st;
        }
        b->older = s->newest;
        s->newest = b;
    }
    *out = (uint8_t *)s->newest->memory + s->newest->used;
    s->newest->used += size;
    take_pages(s);
    return TR_OK;
}

/* Rows reach a matrix in the form act; only the 8-bit one suits what is laid out for it. */
static tr_compute compute_for(const tr_compute *compute, tr_act act)
{
    tr_compute c = *compute;

    c.exact = c.exact || act == TR_ACT_F32;
    return c;
}

static size_t matrix_size(const tr_compute *c, const tr_gguf_tensor *t)
{
    return tr_align_up(tr_weights_size_for(c, t, 1), TR_ALIGN);
}

static size_t bias_size(const tr_gguf_tensor *t)
{
    return t ? tr_align_up(t->dim[0] * sizeof(float), TR_ALIGN) : 0;
}

uint64_t tr_shards_expert_bytes(const tr_compute *compute, const tr_expert_map *map, uint32_t layer)
{
    const tr_expert_tensors *t = &map->layer[layer];
    tr_compute in = compute_for(compute, tr_expert_map_act(map, layer, compute->exact));
    tr_compute hidden = compute_for(compute, tr_act_for(t->down->type, compute->exact));

    uint64_t gate = t->gate ? matrix_size(&in, t->gate) : 0;

    return gate + matrix_size(&in, t->up) + matrix_size(&hidden, t->down) +
           bias_size(t->gate_bias) + bias_size(t->up_bias) + bias_size(t->down_bias);
}

static tr_status load_matrix(tr_shards *s, const tr_gguf_tensor *t, uint32_t expert, tr_act act,
                             tr_matrix *out)
{
    tr_compute c = compute_for(s->compute, act);
    void *memory = NULL;
    size_t size = matrix_size(&c, t);

    tr_status st = reserve(s, size, &memory);
    if (st == TR_OK)
        st = tr_matrix_load_into(&c, s->gguf, t, expert, 1, memory, out);
    if (st == TR_OK)
        s->bytes += size;
    return st;
}

/* The expert's vector of t, if there is a t. */
static tr_status load_bias(tr_shards *s, const tr_gguf_tensor *t, uint32_t expert,
                           const float **out)
{
    void *memory = NULL;

    if (!t)
        return TR_OK;
    size_t size = t->dim[0] * sizeof(float);
    tr_status st = reserve(s, tr_align_up(size, TR_ALIGN), &memory);
    if (st == TR_OK)
        st = tr_gguf_read(s->gguf, t->offset + expert * size, size, memory);
    if (st != TR_OK)
        return st;
    s->bytes += size;
    *out = memory;
    return TR_OK;
}

tr_status tr_shards_load(tr_shards *s, uint32_t layer, uint32_t expert)
{
    size_t at = index_of(s, layer, expert);

    if (s->held[at])
        return TR_OK;
    const tr_expert_tensors *t = &s->map->layer[layer];
    TR_CHECK(expert < t->n_experts);
    tr_act act = tr_expert_map_act(s->map, layer, s->compute->exact);
    tr_act hidden = tr_act_for(t->down->type, s->compute->exact);
    tr_expert *e = calloc(1, sizeof *e);
    if (!e)
        return tr_fail(TR_E_MEMORY, "shards: no memory for layer %u expert %u", layer, expert);
    tr_status st = t->gate ? load_matrix(s, t->gate, expert, act, &e->gate) : TR_OK;
    if (st == TR_OK)
        st = load_matrix(s, t->up, expert, act, &e->up);
    if (st == TR_OK)
        st = load_matrix(s, t->down, expert, hidden, &e->down);
    if (st == TR_OK)
        st = load_bias(s, t->gate_bias, expert, &e->gate_bias);
    if (st == TR_OK)
        st = load_bias(s, t->up_bias, expert, &e->up_bias);
    if (st == TR_OK)
        st = load_bias(s, t->down_bias, expert, &e->down_bias);
    if (st != TR_OK) {
        free(e);
        return st;
    }
    s->held[at] = e;
    s->count++;
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
