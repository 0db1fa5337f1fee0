/* bpe.c - symbols in a linked list, candidate pairs in a heap.
 *
 * Joining a pair makes older candidates with one of its halves stale.  They stay in
 * the heap and are recognised when they come up: the symbols that they named are no longer
 * there, since a symbol only ever changes to a longer one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/bpe.h"
#include "base/check.h"
#include "base/rng.h"

#include <stdlib.h>

enum { NONE = UINT32_MAX >> 1 }; /* no neighbour */

struct tr_bpe_symbol {
    uint32_t id;
    uint32_t prev, next;
    bool is_gone; /* became part of its left neighbour */
};

struct tr_bpe_candidate {
    const tr_merge *merge;
    uint32_t at; /* the left symbol */
};

tr_status tr_merges_init(tr_merges *m, size_t n)
{
    size_t n_slots = 16;

    TR_CHECK(n < UINT32_MAX);
    while (n_slots < 2 * n)
        n_slots *= 2;
    tr_merge *slots = malloc(n_slots * sizeof *slots);
    if (!slots)
        return tr_fail(TR_E_MEMORY, "tokenizer: no memory for a table of %zu merges", n);
    for (size_t i = 0; i < n_slots; i++)
        slots[i].joined = UINT32_MAX;
    *m = (tr_merges){ slots, n_slots - 1 };
    return TR_OK;
}

void tr_merges_fini(tr_merges *m)
{
    free(m->slots);
    *m = (tr_merges){ 0 };
}

static tr_merge *slot_of(const tr_merges *m, uint32_t left, uint32_t right)
{
    size_t i = (size_t)tr_rng_mix((uint64_t)left << 32 | right) & m->mask;

    while (m->slots[i].joined != UINT32_MAX &&
           (m->slots[i].left != left || m->slots[i].right != right))
        i = (i + 1) & m->mask;
    return &m->slots[i];
}

void tr_merges_put(tr_merges *m, tr_merge merge)
{
    tr_merge *slot = slot_of(m, merge.left, merge.right);

    TR_CHECK(merge.joined != UINT32_MAX);
    if (slot->joined == UINT32_MAX)
        *slot = merge;
}

const tr_merge *tr_merges_find(const tr_merges *m, uint32_t left, uint32_t right)
{
    const tr_merge *slot = slot_of(m, left, right);

    return slot->joined != UINT32_MAX ? slot : NULL;
}

static bool goes_before(tr_bpe_candidate a, tr_bpe_candidate b)
{
    return a.merge->rank < b.merge->rank || (a.merge->rank == b.merge->rank && a.at < b.at);
}

static void heap_push(tr_bpe_candidate *heap, size_t *n, tr_bpe_candidate c)
{
    size_t i = (*n)++;

    for (; i > 0 && goes_before(c, heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
}

static tr_bpe_candidate heap_pop(tr_bpe_candidate *heap, size_t *n)
{
    tr_bpe_candidate top = heap[0], moving = heap[--*n];
    size_t i = 0;

    for (size_t child = 1; child < *n; i = child, child = 2 * i + 1) {
        if (child + 1 < *n && goes_before(heap[child + 1], heap[child]))
            child++;
        if (!goes_before(heap[child], moving))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
    return top;
}

/* Each symbol starts one pair, and each join replaces a pair by at most two new ones. */
static tr_status reserve(tr_bpe_work *w, size_t n)
{
    if (n <= w->n_symbols)
        return TR_OK;
    size_t room = 2 * n < 64 ? 64 : 2 * n;
    tr_bpe_symbol *symbols = realloc(w->symbols, room * sizeof *symbols);
    if (!symbols)
        return tr_fail(TR_E_MEMORY, "tokenizer: no memory for a word of %zu bytes", n);
    w->symbols = symbols;
    tr_bpe_candidate *heap = realloc(w->heap, 3 * room * sizeof *heap);
    if (!heap)
        return tr_fail(TR_E_MEMORY, "tokenizer: no memory for a word of %zu bytes", n);
    w->heap = heap;
    w->n_symbols = room;
    w->n_heap = 3 * room;
    return TR_OK;
}

/* Put the pair that begins at symbol `at` on the heap if a merge joins it. */
static void consider(const tr_merges *m, tr_bpe_work *w, size_t *n_heap, uint32_t at)
{
    if (at == NONE || w->symbols[at].next == NONE)
        return;
    const tr_merge *merge =
        tr_merges_find(m, w->symbols[at].id, w->symbols[w->symbols[at].next].id);
    if (!merge)
        return;
    TR_CHECK(*n_heap < w->n_heap);
    heap_push(w->heap, n_heap, (tr_bpe_candidate){ merge, at });
}

/* True if the two symbols of the candidate are still there, side by side. */
static bool is_current(const tr_bpe_symbol *s, tr_bpe_candidate c)
{
    return !s[c.at].is_gone && s[c.at].next != NONE && s[c.at].id == c.merge->left &&
           s[s[c.at].next].id == c.merge->right;
}

tr_status tr_bpe_merge(const tr_merges *m, tr_bpe_work *w, uint32_t *ids, size_t *n)
{
    size_t n_heap = 0, n_out = 0;

    TR_CHECK(*n < NONE / 2);
    if (*n < 2)
        return TR_OK;
    tr_status st = reserve(w, *n);
    if (st != TR_OK)
        return st;

    tr_bpe_symbol *s = w->symbols;
    for (uint32_t i = 0; i < *n; i++)
        s[i] = (tr_bpe_symbol){ ids[i], i > 0 ? i - 1 : NONE, i + 1 < *n ? i + 1 : NONE, false };
    for (uint32_t i = 0; i < *n; i++)
        consider(m, w, &n_heap, i);
    while (n_heap > 0) {
        tr_bpe_candidate c = heap_pop(w->heap, &n_heap);
        if (!is_current(s, c))
            continue;
        uint32_t gone = s[c.at].next;
        s[c.at].id = c.merge->joined;
        s[c.at].next = s[gone].next;
        s[gone].is_gone = true;
        if (s[gone].next != NONE)
            s[s[gone].next].prev = c.at;
        consider(m, w, &n_heap, s[c.at].prev);
        consider(m, w, &n_heap, c.at);
    }
    for (uint32_t i = 0; i != NONE; i = s[i].next)
        ids[n_out++] = s[i].id;
    *n = n_out;
    return TR_OK;
}

void tr_bpe_work_fini(tr_bpe_work *w)
{
    free(w->symbols);
    free(w->heap);
    *w = (tr_bpe_work){ 0 };
}
