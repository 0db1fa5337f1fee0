/* hosting.c - a mark for each expert: not assigned, to be loaded when asked for, to be loaded.
 * SPDX-License-Identifier: Apache-2.0 */
#include "worker/hosting.h"

#include <stdlib.h>

enum { NOT_MINE, WHEN_ASKED, SOON, LOADED };

struct tr_hosting {
    const tr_expert_map *map;
    tr_shards *shards;
    uint8_t *mark; /* [n_layers][n_experts] */
    size_t n_soon;
    size_t next; /* no mark before it is SOON */
    uint64_t bytes;
};

static size_t index_of(const tr_hosting *h, uint32_t layer, uint32_t expert)
{
    return (size_t)layer * h->map->n_experts + expert;
}

tr_status tr_hosting_new(const tr_compute *compute, const tr_gguf *g, const tr_expert_map *map,
                         tr_hosting **out)
{
    tr_hosting *h = calloc(1, sizeof *h);

    if (!h)
        return tr_fail(TR_E_MEMORY, "hosting: no memory");
    h->map = map;
    h->mark = calloc((size_t)map->n_layers * map->n_experts, 1);
    tr_status st = h->mark ? tr_shards_new(compute, g, map, &h->shards)
                           : tr_fail(TR_E_MEMORY, "hosting: no memory for the table");
    if (st != TR_OK) {
        tr_hosting_free(&h);
        return st;
    }
    *out = h;
    return TR_OK;
}

void tr_hosting_free(tr_hosting **h)
{
    if (!*h)
        return;
    tr_shards_free(&(*h)->shards);
    free((*h)->mark);
    free(*h);
    *h = NULL;
}

/* An assignment comes from outside: every layer and expert of it must be in this model. */
static tr_status check(const tr_hosting *h, const tr_assignment *a)
{
    if (a->n_layers != h->map->n_layers)
        return tr_fail(TR_E_PROTOCOL, "assignment for %u layers, the model has %u", a->n_layers,
                       h->map->n_layers);
    for (uint32_t l = 0; l < a->n_layers; l++) {
        uint32_t n = h->map->layer[l].n_experts;
        for (uint32_t i = 0; i < a->layer[l].n; i++)
            if (a->layer[l].expert[i] >= n)
                return tr_fail(TR_E_PROTOCOL, "assignment of expert %u in layer %u of %u experts",
                               a->layer[l].expert[i], l, n);
    }
    return TR_OK;
}

tr_status tr_hosting_add(tr_hosting *h, const tr_assignment *a)
{
    tr_status st = check(h, a);

    if (st != TR_OK)
        return st;
    for (uint32_t l = 0; l < a->n_layers; l++) {
        for (uint32_t i = 0; i < a->layer[l].n; i++) {
            uint8_t *mark = &h->mark[index_of(h, l, a->layer[l].expert[i])];
            if (*mark == NOT_MINE && a->lazy)
                *mark = WHEN_ASKED;
            if (*mark >= SOON || a->lazy)
                continue;
            *mark = SOON;
            h->n_soon++;
            h->bytes += tr_expert_map_bytes(h->map, l);
        }
    }
    h->next = 0;
    return TR_OK;
}

bool tr_hosting_is_behind(const tr_hosting *h)
{
    return h->n_soon > 0;
}

static tr_status load(tr_hosting *h, uint32_t layer, uint32_t expert)
{
    uint8_t *mark = &h->mark[index_of(h, layer, expert)];
    bool was_soon = *mark == SOON;

    tr_status st = tr_shards_load(h->shards, layer, expert);
    h->n_soon -= was_soon;
    if (st == TR_OK && !was_soon)
        h->bytes += tr_expert_map_bytes(h->map, layer);
    if (st != TR_OK && was_soon)
        h->bytes -= tr_expert_map_bytes(h->map, layer);
    *mark = st == TR_OK ? LOADED : WHEN_ASKED;
    return st;
}

tr_status tr_hosting_load_next(tr_hosting *h)
{
    while (h->mark[h->next] != SOON)
        h->next++;
    return load(h, (uint32_t)(h->next / h->map->n_experts),
                (uint32_t)(h->next % h->map->n_experts));
}

bool tr_hosting_has_all(const tr_hosting *h, uint32_t layer, const tr_share_pick *picks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (h->mark[index_of(h, layer, picks[i].expert)] == NOT_MINE)
            return false;
    return true;
}

tr_status tr_hosting_load_for(tr_hosting *h, uint32_t layer, const tr_share_pick *picks, size_t n,
                              void (*before)(void *ctx), void *ctx)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < n && st == TR_OK; i++) {
        uint8_t mark = h->mark[index_of(h, layer, picks[i].expert)];
        if (mark != WHEN_ASKED && mark != SOON)
            continue;
        before(ctx);
        st = load(h, layer, picks[i].expert);
    }
    return st;
}

uint64_t tr_hosting_bytes(const tr_hosting *h)
{
    return h->bytes;
}

tr_shards *tr_hosting_shards(tr_hosting *h)
{
    return h->shards;
}
