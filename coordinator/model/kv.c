/* kv.c - a pool of pages [layer][head][keys, values][position][head_dim] with a free list; without
 * the values where keys serve as such.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/kv.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

struct tr_kv {
    tr_kv_shape shape;
    size_t row_size;  /* bytes of one position of one head */
    size_t span_size; /* bytes of keys (or values) of one layer and head in a page */
    size_t page_size, n_pages;
    uint8_t *pages; /* [n_pages][page_size] */
    tr_kv_pages *use;
};

static size_t row_size(const tr_kv_shape *s)
{
    size_t size = 0;

    return tr_type_row_size(s->type, s->head_dim, &size) ? size : 0;
}

static size_t span_size(const tr_kv_shape *s)
{
    return TR_KV_PAGE * row_size(s);
}

/* Of one layer and head. */
static size_t spans(const tr_kv_shape *s)
{
    return s->values_are_keys ? 1 : 2;
}

size_t tr_kv_page_size(const tr_kv_shape *s)
{
    return s->n_layers * s->n_heads * spans(s) * span_size(s);
}

tr_status tr_kv_new(const tr_kv_shape *shape, size_t n_pages, tr_kv **out)
{
    tr_kv *kv = calloc(1, sizeof *kv);
    size_t size = 0;
    void *block = NULL;
    tr_status st = TR_OK;

    if (!kv)
        return tr_fail(TR_E_MEMORY, "key/value cache: no memory");
    kv->shape = *shape;
    kv->row_size = row_size(shape);
    kv->span_size = span_size(shape);
    kv->page_size = tr_kv_page_size(shape);
    kv->n_pages = n_pages;
    if (kv->row_size == 0)
        st = tr_fail(TR_E_USAGE, "key/value cache: heads of %zu values don't suit %s; use f16",
                     shape->head_dim, tr_type_get(shape->type)->name);
    else if (n_pages > UINT32_MAX || !tr_mul_size(kv->page_size, n_pages, &size))
        st = tr_fail(TR_E_MEMORY, "key/value cache: %zu pages of %zu bytes are too many", n_pages,
                     kv->page_size);
    if (st == TR_OK)
        st = tr_memory_new(size, "key/value cache (a smaller --ctx needs less)", &block);
    kv->pages = block;
    if (st == TR_OK)
        st = tr_kv_pages_new(n_pages, &kv->use);
    if (st != TR_OK) {
        tr_kv_free(&kv);
        return st;
    }
    *out = kv;
    return TR_OK;
}

void tr_kv_free(tr_kv **kv)
{
    if (!*kv)
        return;
    void *block = (*kv)->pages;
    tr_memory_free(&block, (*kv)->n_pages * (*kv)->page_size);
    tr_kv_pages_free(&(*kv)->use);
    free(*kv);
    *kv = NULL;
}

tr_status tr_kv_table_reserve(tr_kv_table *t, size_t n_positions)
{
    size_t need = tr_kv_pages_for(n_positions);

    if (need <= t->capacity)
        return TR_OK;
    size_t capacity = need > 2 * t->capacity ? need : 2 * t->capacity;
    uint32_t *page = realloc(t->page, capacity * sizeof *page);
    if (!page)
        return tr_fail(TR_E_MEMORY, "key/value cache: no memory for a table of %zu", capacity);
    t->page = page;
    t->capacity = capacity;
    return TR_OK;
}

tr_status tr_kv_reserve(tr_kv *kv, tr_kv_table *t, size_t n_positions)
{
    size_t need = tr_kv_pages_for(n_positions);

    if (need <= t->n)
        return TR_OK;
    if (need - t->n > tr_kv_pages_available(kv->use))
        return TR_E_BUSY;
    tr_status st = tr_kv_table_reserve(t, n_positions);
    if (st != TR_OK)
        return st;
    while (t->n < need) {
        bool is_taken = tr_kv_pages_take(kv->use, &t->page[t->n]);
        TR_CHECK(is_taken);
        t->n++;
    }
    return TR_OK;
}

/* The last page first: of those that are kept it is forgotten first. */
static void drop_pages(tr_kv *kv, tr_kv_table *t)
{
    while (t->n > 0)
        tr_kv_pages_drop(kv->use, t->page[--t->n]);
    t->n_named = 0;
}

void tr_kv_release(tr_kv *kv, tr_kv_table *t)
{
    drop_pages(kv, t);
    free(t->page);
    *t = (tr_kv_table){ 0 };
}

void tr_kv_empty(tr_kv *kv, tr_kv_table *t)
{
    drop_pages(kv, t);
}

static uint32_t last_named(const tr_kv_table *t)
{
    return t->n_named == 0 ? TR_KV_NO_PAGE : t->page[t->n_named - 1];
}

size_t tr_kv_find(tr_kv *kv, tr_kv_table *t, const uint32_t *tokens, size_t n_tokens)
{
    TR_CHECK(t->n == t->n_named);
    while ((t->n + 1) * TR_KV_PAGE < n_tokens && t->n < t->capacity) {
        uint32_t page;
        if (!tr_kv_pages_find(kv->use, last_named(t), tokens + t->n * TR_KV_PAGE, &page))
            break;
        t->page[t->n++] = page;
        t->n_named = t->n;
    }
    return t->n * TR_KV_PAGE;
}

void tr_kv_name(tr_kv *kv, tr_kv_table *t, const uint32_t *tokens, size_t n_tokens)
{
    while ((t->n_named + 1) * TR_KV_PAGE <= n_tokens) {
        size_t i = t->n_named;
        TR_CHECK(i < t->n);
        t->page[i] = tr_kv_pages_name(kv->use, t->page[i], last_named(t), tokens + i * TR_KV_PAGE);
        t->n_named++;
    }
}

tr_kv_pages_counts tr_kv_count(const tr_kv *kv)
{
    return tr_kv_pages_count(kv->use);
}

size_t tr_kv_available(const tr_kv *kv)
{
    return tr_kv_pages_available(kv->use);
}

void tr_kv_clear(tr_kv *kv, const tr_kv_table *t, size_t first_page)
{
    for (size_t i = first_page; i < t->n; i++)
        memset(kv->pages + t->page[i] * kv->page_size, 0, kv->page_size);
}

static uint8_t *span_at(const tr_kv *kv, const tr_kv_table *t, size_t layer, size_t head,
                        size_t page)
{
    TR_CHECK(page < t->n);
    size_t span = (layer * kv->shape.n_heads + head) * spans(&kv->shape);
    return kv->pages + t->page[page] * kv->page_size + span * kv->span_size;
}

static void put_row(const tr_kv *kv, uint8_t *to, size_t slot, const float *x)
{
    size_t n = kv->shape.head_dim;
    uint8_t *at = to + slot * kv->row_size;

    if (kv->shape.type == TR_TYPE_F16)
        kv->shape.kernels->to_f16(x, n, (uint16_t *)(void *)at);
    else
        tr_quantise_row(kv->shape.type, x, n, at);
}

void tr_kv_put(tr_kv *kv, const tr_kv_table *t, size_t layer, size_t position, const float *k,
               const float *v)
{
    size_t slot = position % TR_KV_PAGE;

    for (size_t h = 0; h < kv->shape.n_heads; h++) {
        uint8_t *span = span_at(kv, t, layer, h, position / TR_KV_PAGE);
        put_row(kv, span, slot, k + h * kv->shape.head_dim);
        if (!kv->shape.values_are_keys)
            put_row(kv, span + kv->span_size, slot, v + h * kv->shape.head_dim);
    }
}

tr_kv_span tr_kv_get(const tr_kv *kv, const tr_kv_table *t, size_t layer, size_t head, size_t page)
{
    const uint8_t *span = span_at(kv, t, layer, head, page);

    return (tr_kv_span){ span, kv->shape.values_are_keys ? span : span + kv->span_size };
}

const float *tr_kv_floats(const tr_kv *kv, const void *rows, size_t n_positions, float *buffer)
{
    size_t n = n_positions * kv->shape.head_dim;

    if (kv->shape.type == TR_TYPE_F32)
        return rows;
    if (kv->shape.type == TR_TYPE_F16)
        kv->shape.kernels->from_f16(rows, n, buffer);
    else
        kv->shape.kernels->from_q8_0(rows, n, buffer);
    return buffer;
}

void tr_kv_prefetch(const tr_kv *kv, const void *rows)
{
    for (size_t i = 0; i < kv->span_size; i += 64)
        __builtin_prefetch((const uint8_t *)rows + i, 0, 2);
}

const tr_kv_shape *tr_kv_get_shape(const tr_kv *kv)
{
    return &kv->shape;
}
