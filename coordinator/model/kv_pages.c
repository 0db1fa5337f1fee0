/* kv_pages.c - reference counts, a hash table of names, a list of kept pages by last use.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/kv_pages.h"

#include "base/check.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

typedef struct {
    uint32_t references;
    bool is_named;
    uint32_t before;            /* named page, or TR_KV_NO_PAGE */
    uint32_t before_generation; /* of that page when this one was named */
    uint32_t generation;        /* counts the contents that this page has had */
    uint32_t next;              /* in its chain of the hash table */
    uint32_t older, newer;      /* in the list of kept pages */
    uint32_t tokens[TR_KV_PAGE];
} page_info;

struct tr_kv_pages {
    page_info *page;
    size_t n;
    uint32_t *chain; /* [n_chains] first page of each */
    size_t n_chains; /* a power of two */
    uint64_t seed;   /* so that nobody can fill one chain on purpose */
    uint32_t *free_list;
    size_t n_free, n_kept;
    uint32_t oldest, newest; /* kept */
};

tr_status tr_kv_pages_new(size_t n, tr_kv_pages **out)
{
    tr_kv_pages *p = calloc(1, sizeof *p);

    if (!p)
        return tr_fail(TR_E_MEMORY, "key/value cache: no memory");
    p->n = n;
    for (p->n_chains = 64; p->n_chains < n; p->n_chains *= 2)
        ;
    p->page = calloc(n ? n : 1, sizeof *p->page);
    p->free_list = malloc((n ? n : 1) * sizeof *p->free_list);
    p->chain = malloc(p->n_chains * sizeof *p->chain);
    if (!p->page || !p->free_list || !p->chain) {
        tr_kv_pages_free(&p);
        return tr_fail(TR_E_MEMORY, "key/value cache: no memory for the names of %zu pages", n);
    }
    memset(p->chain, 0xff, p->n_chains * sizeof *p->chain);
    /* The last of the list is taken first: page 0. */
    for (size_t i = 0; i < n; i++)
        p->free_list[i] = (uint32_t)(n - 1 - i);
    p->n_free = n;
    p->oldest = p->newest = TR_KV_NO_PAGE;
    if (getrandom(&p->seed, sizeof p->seed, GRND_NONBLOCK) != (ssize_t)sizeof p->seed)
        p->seed = (uint64_t)(uintptr_t)p;
    *out = p;
    return TR_OK;
}

void tr_kv_pages_free(tr_kv_pages **p)
{
    if (!*p)
        return;
    free((*p)->page);
    free((*p)->free_list);
    free((*p)->chain);
    free(*p);
    *p = NULL;
}

/* ---- names ---------------------------------------------------------------------------- */

static uint32_t generation_of(const tr_kv_pages *p, uint32_t page)
{
    return page == TR_KV_NO_PAGE ? 0 : p->page[page].generation;
}

static uint32_t *chain_of(const tr_kv_pages *p, uint32_t before, uint32_t generation,
                          const uint32_t *tokens)
{
    uint64_t h = tr_rng_mix(p->seed ^ before ^ (uint64_t)generation << 32);

    for (size_t i = 0; i < TR_KV_PAGE; i += 2)
        h = tr_rng_mix(h ^ tokens[i] ^ (uint64_t)tokens[i + 1] << 32);
    return &p->chain[h & (p->n_chains - 1)];
}

static uint32_t named(const tr_kv_pages *p, uint32_t before, const uint32_t *tokens)
{
    uint32_t generation = generation_of(p, before);
    uint32_t i = *chain_of(p, before, generation, tokens);

    for (; i != TR_KV_NO_PAGE; i = p->page[i].next) {
        const page_info *page = &p->page[i];
        if (page->before == before && page->before_generation == generation &&
            memcmp(page->tokens, tokens, sizeof page->tokens) == 0)
            return i;
    }
    return TR_KV_NO_PAGE;
}

static void forget_name(tr_kv_pages *p, uint32_t page)
{
    page_info *info = &p->page[page];
    uint32_t *link = chain_of(p, info->before, info->before_generation, info->tokens);

    while (*link != page)
        link = &p->page[*link].next;
    *link = info->next;
    info->is_named = false;
    info->generation++; /* pages named after this one can't be found any more */
}

/* ---- kept pages ------------------------------------------------------------------------- */

static void keep(tr_kv_pages *p, uint32_t page)
{
    page_info *info = &p->page[page];

    info->older = p->newest;
    info->newer = TR_KV_NO_PAGE;
    *(p->newest == TR_KV_NO_PAGE ? &p->oldest : &p->page[p->newest].newer) = page;
    p->newest = page;
    p->n_kept++;
}

static void unkeep(tr_kv_pages *p, uint32_t page)
{
    const page_info *info = &p->page[page];

    *(info->older == TR_KV_NO_PAGE ? &p->oldest : &p->page[info->older].newer) = info->newer;
    *(info->newer == TR_KV_NO_PAGE ? &p->newest : &p->page[info->newer].older) = info->older;
    p->n_kept--;
}

/* ---- use ------------------------------------------------------------------------------------ */

bool tr_kv_pages_take(tr_kv_pages *p, uint32_t *page)
{
    if (p->n_free > 0) {
        *page = p->free_list[--p->n_free];
    } else if (p->oldest != TR_KV_NO_PAGE) {
        *page = p->oldest;
        unkeep(p, *page);
        forget_name(p, *page);
    } else {
        return false;
    }
    p->page[*page].references = 1;
    return true;
}

void tr_kv_pages_drop(tr_kv_pages *p, uint32_t page)
{
    TR_CHECK(page < p->n);
    TR_CHECK(p->page[page].references > 0);
    if (--p->page[page].references > 0)
        return;
    if (p->page[page].is_named)
        keep(p, page);
    else
        p->free_list[p->n_free++] = page;
}

bool tr_kv_pages_find(tr_kv_pages *p, uint32_t before, const uint32_t *tokens, uint32_t *page)
{
    uint32_t found = named(p, before, tokens);

    if (found == TR_KV_NO_PAGE)
        return false;
    if (p->page[found].references++ == 0)
        unkeep(p, found);
    *page = found;
    return true;
}

uint32_t tr_kv_pages_name(tr_kv_pages *p, uint32_t page, uint32_t before, const uint32_t *tokens)
{
    page_info *info = &p->page[page];
    uint32_t same = named(p, before, tokens);

    TR_CHECK(info->references > 0);
    if (same != TR_KV_NO_PAGE) {
        if (p->page[same].references++ == 0)
            unkeep(p, same);
        tr_kv_pages_drop(p, page);
        return same;
    }
    TR_CHECK(!info->is_named);
    TR_CHECK(before == TR_KV_NO_PAGE || p->page[before].references > 0);
    info->is_named = true;
    info->before = before;
    info->before_generation = generation_of(p, before);
    memcpy(info->tokens, tokens, sizeof info->tokens);
    uint32_t *chain = chain_of(p, before, info->before_generation, tokens);
    info->next = *chain;
    *chain = page;
    return page;
}

void tr_kv_pages_mark(const tr_kv_pages *p, uint32_t page, uint32_t mark[TR_KV_PAGE])
{
    TR_CHECK(p->page[page].is_named);
    memset(mark, 0, TR_KV_PAGE * sizeof *mark);
    mark[0] = page;
    mark[1] = p->page[page].generation;
}

tr_kv_pages_counts tr_kv_pages_count(const tr_kv_pages *p)
{
    return (tr_kv_pages_counts){ p->n, p->n - p->n_free - p->n_kept, p->n_kept };
}

size_t tr_kv_pages_available(const tr_kv_pages *p)
{
    return p->n_free + p->n_kept;
}
