/* kv.c - a pool of pages [layer][keys, values][head][position][head_dim] with a free list; without
 * the values where keys serve as such; and another pool for layers with a window.  The keys of all
 * heads lie side by side, so that who reads those of several heads reads a long stretch.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/kv.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* The pages of some of the layers. */
typedef struct {
    size_t page_size, n_pages;
    uint8_t *pages; /* [n_pages][page_size] */
    tr_kv_pages *use;
} pool;

struct tr_kv {
    tr_kv_shape shape;
    size_t row_size;  /* bytes of one position of one head */
    size_t span_size; /* bytes of keys (or values) of one layer and head in a page */
    pool all;         /* of layers that see all positions */
    pool window;      /* of those with a window; none if use is NULL */
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

static size_t layer_size(const tr_kv_shape *s)
{
    return s->n_heads * spans(s) * span_size(s);
}

static size_t n_windowed(const tr_kv_shape *s)
{
    return s->window > 0 ? (s->n_layers + 1) / 2 : 0;
}

size_t tr_kv_page_size(const tr_kv_shape *s)
{
    return (s->n_layers - n_windowed(s)) * layer_size(s);
}

size_t tr_kv_window_page_size(const tr_kv_shape *s)
{
    return n_windowed(s) * layer_size(s);
}

size_t tr_kv_window_pages(const tr_kv_shape *s, size_t max_rows)
{
    return s->window > 0 ? (s->window + max_rows) / TR_KV_PAGE + 2 : 0;
}

static tr_status pool_init(pool *p, size_t page_size, size_t n_pages)
{
    size_t size = 0;
    void *block = NULL;

    *p = (pool){ .page_size = page_size, .n_pages = n_pages };
    if (n_pages > UINT32_MAX || !tr_mul_size(page_size, n_pages, &size))
        return tr_fail(TR_E_MEMORY, "key/value cache: %zu pages of %zu bytes are too many", n_pages,
                       page_size);
    tr_status st = tr_memory_new(size, "key/value cache (a smaller --ctx needs less)", &block);
    p->pages = block;
    return st == TR_OK ? tr_kv_pages_new(n_pages, &p->use) : st;
}

static void pool_fini(pool *p)
{
    void *block = p->pages;

    tr_memory_free(&block, p->n_pages * p->page_size);
    tr_kv_pages_free(&p->use);
}

tr_status tr_kv_new(const tr_kv_shape *shape, size_t n_pages, size_t n_window_pages, tr_kv **out)
{
    tr_kv *kv = calloc(1, sizeof *kv);
    tr_status st = TR_OK;

    if (!kv)
        return tr_fail(TR_E_MEMORY, "key/value cache: no memory");
    kv->shape = *shape;
    kv->row_size = row_size(shape);
    kv->span_size = span_size(shape);
    if (kv->row_size == 0)
        st = tr_fail(TR_E_USAGE, "key/value cache: heads of %zu values don't suit %s; use f16",
                     shape->head_dim, tr_type_get(shape->type)->name);
    if (st == TR_OK)
        st = pool_init(&kv->all, tr_kv_page_size(shape), n_pages);
    if (st == TR_OK && shape->window > 0)
        st = pool_init(&kv->window, tr_kv_window_page_size(shape), n_window_pages);
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
    pool_fini(&(*kv)->all);
    pool_fini(&(*kv)->window);
    free(*kv);
    *kv = NULL;
}

static bool has_window(const tr_kv *kv)
{
    return kv->window.use != NULL;
}

/* The first page that a row at `position` sees through a window. */
static size_t first_seen(const tr_kv *kv, size_t position)
{
    size_t window = kv->shape.window;

    return position + 1 > window ? (position + 1 - window) / TR_KV_PAGE : 0;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

tr_status tr_kv_table_reserve(tr_kv_table *t, size_t n_positions)
{
    size_t need = tr_kv_pages_for(n_positions);

    if (need <= t->capacity)
        return TR_OK;
    size_t capacity = larger(need, 2 * t->capacity);
    uint32_t *page = realloc(t->page, capacity * sizeof *page);
    if (page)
        t->page = page;
    uint32_t *window_page = realloc(t->window_page, capacity * sizeof *window_page);
    if (window_page)
        t->window_page = window_page;
    if (!page || !window_page)
        return tr_fail(TR_E_MEMORY, "key/value cache: no memory for a table of %zu", capacity);
    t->capacity = capacity;
    return TR_OK;
}

static bool has_room(const tr_kv *kv, const tr_kv_table *t, size_t need)
{
    size_t begin = larger(t->n, t->window_begin);
    size_t in_window = need > begin ? need - begin : 0;

    return need - t->n <= tr_kv_pages_available(kv->all.use) &&
           (!has_window(kv) || in_window <= tr_kv_pages_available(kv->window.use));
}

static void take(pool *p, uint32_t *page)
{
    bool is_taken = tr_kv_pages_take(p->use, page);

    TR_CHECK(is_taken);
}

tr_status tr_kv_reserve(tr_kv *kv, tr_kv_table *t, size_t n_positions)
{
    size_t need = tr_kv_pages_for(n_positions);

    if (need <= t->n)
        return TR_OK;
    if (!has_room(kv, t, need))
        return TR_E_BUSY;
    tr_status st = tr_kv_table_reserve(t, n_positions);
    if (st != TR_OK)
        return st;
    for (; t->n < need; t->n++) {
        take(&kv->all, &t->page[t->n]);
        if (has_window(kv) && t->n >= t->window_begin)
            take(&kv->window, &t->window_page[t->n]);
    }
    return TR_OK;
}

/* Pages of layers with a window, before `end`: the first one is forgotten first. */
static void drop_window(tr_kv *kv, tr_kv_table *t, size_t end)
{
    for (size_t i = t->window_begin; has_window(kv) && i < end && i < t->n; i++)
        tr_kv_pages_drop(kv->window.use, t->window_page[i]);
    t->window_begin = larger(t->window_begin, end);
}

/* The last page first: of those that are kept it is forgotten first. */
static void drop_pages(tr_kv *kv, tr_kv_table *t)
{
    drop_window(kv, t, t->n);
    while (t->n > 0)
        tr_kv_pages_drop(kv->all.use, t->page[--t->n]);
    t->n_named = t->window_begin = 0;
}

void tr_kv_release(tr_kv *kv, tr_kv_table *t)
{
    drop_pages(kv, t);
    free(t->page);
    free(t->window_page);
    *t = (tr_kv_table){ 0 };
}

void tr_kv_empty(tr_kv *kv, tr_kv_table *t)
{
    drop_pages(kv, t);
}

void tr_kv_pass(tr_kv *kv, tr_kv_table *t, size_t position)
{
    if (has_window(kv))
        drop_window(kv, t, first_seen(kv, position));
}

static uint32_t last_named(const tr_kv_table *t)
{
    return t->n_named == 0 ? TR_KV_NO_PAGE : t->page[t->n_named - 1];
}

/* Page i of layers with a window, by the name of the other layers' page. */
static bool find_window_page(tr_kv *kv, tr_kv_table *t, size_t i)
{
    uint32_t mark[TR_KV_PAGE];

    tr_kv_pages_mark(kv->all.use, t->page[i], mark);
    return tr_kv_pages_find(kv->window.use, TR_KV_NO_PAGE, mark, &t->window_page[i]);
}

/* The table has had n_before pages; of those found behind them keep as many as have all that the
 * next position's windows see.  What is missing rules out every end that needs it, so each page is
 * looked for once. */
static void find_windows(tr_kv *kv, tr_kv_table *t, size_t n_before)
{
    size_t end = t->n, i = t->n;

    while (i > n_before && i > first_seen(kv, end * TR_KV_PAGE)) {
        if (find_window_page(kv, t, --i))
            continue;
        for (size_t k = i + 1; k < end; k++)
            tr_kv_pages_drop(kv->window.use, t->window_page[k]);
        end = i;
    }
    while (t->n > end)
        tr_kv_pages_drop(kv->all.use, t->page[--t->n]);
    t->n_named = t->n;
    if (end == n_before)
        return;
    size_t seen = first_seen(kv, end * TR_KV_PAGE);
    drop_window(kv, t, seen < n_before ? seen : n_before);
    t->window_begin = larger(t->window_begin, seen);
}

size_t tr_kv_find(tr_kv *kv, tr_kv_table *t, const uint32_t *tokens, size_t n_tokens)
{
    size_t n_before = t->n;

    TR_CHECK(t->n == t->n_named);
    while ((t->n + 1) * TR_KV_PAGE < n_tokens && t->n < t->capacity) {
        uint32_t page;
        if (!tr_kv_pages_find(kv->all.use, last_named(t), tokens + t->n * TR_KV_PAGE, &page))
            break;
        t->page[t->n++] = page;
        t->n_named = t->n;
    }
    if (has_window(kv) && t->n > n_before)
        find_windows(kv, t, n_before);
    return t->n * TR_KV_PAGE;
}

static void name_window_page(tr_kv *kv, tr_kv_table *t, size_t i)
{
    uint32_t mark[TR_KV_PAGE];

    tr_kv_pages_mark(kv->all.use, t->page[i], mark);
    t->window_page[i] = tr_kv_pages_name(kv->window.use, t->window_page[i], TR_KV_NO_PAGE, mark);
}

void tr_kv_name(tr_kv *kv, tr_kv_table *t, const uint32_t *tokens, size_t n_tokens)
{
    while ((t->n_named + 1) * TR_KV_PAGE <= n_tokens) {
        size_t i = t->n_named;
        TR_CHECK(i < t->n);
        t->page[i] =
            tr_kv_pages_name(kv->all.use, t->page[i], last_named(t), tokens + i * TR_KV_PAGE);
        if (has_window(kv) && i >= t->window_begin)
            name_window_page(kv, t, i);
        t->n_named++;
    }
}

tr_kv_pages_counts tr_kv_count(const tr_kv *kv)
{
    return tr_kv_pages_count(kv->all.use);
}

tr_kv_pages_counts tr_kv_count_windows(const tr_kv *kv)
{
    return has_window(kv) ? tr_kv_pages_count(kv->window.use) : (tr_kv_pages_counts){ 0 };
}

size_t tr_kv_available(const tr_kv *kv)
{
    return tr_kv_pages_available(kv->all.use);
}

static uint8_t *page_at(const pool *p, uint32_t page)
{
    return p->pages + page * p->page_size;
}

void tr_kv_clear(tr_kv *kv, const tr_kv_table *t, size_t first_page)
{
    for (size_t i = first_page; i < t->n; i++)
        memset(page_at(&kv->all, t->page[i]), 0, kv->all.page_size);
    for (size_t i = larger(first_page, t->window_begin); has_window(kv) && i < t->n; i++)
        memset(page_at(&kv->window, t->window_page[i]), 0, kv->window.page_size);
}

/* With a window every second layer is in its pool, the first one being layer 0. */
static uint8_t *span_at(const tr_kv *kv, const tr_kv_table *t, size_t layer, size_t head,
                        size_t page)
{
    bool is_windowed = tr_kv_window(&kv->shape, layer) > 0;
    size_t in_pool = has_window(kv) ? layer / 2 : layer;
    size_t span = in_pool * spans(&kv->shape) * kv->shape.n_heads + head;

    TR_CHECK(page < t->n);
    TR_CHECK(!is_windowed || page >= t->window_begin);
    uint8_t *at =
        is_windowed ? page_at(&kv->window, t->window_page[page]) : page_at(&kv->all, t->page[page]);
    return at + span * kv->span_size;
}

/* The values that belong to a span of keys. */
static uint8_t *values_behind(const tr_kv *kv, uint8_t *keys)
{
    return keys + kv->shape.n_heads * kv->span_size;
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
            put_row(kv, values_behind(kv, span), slot, v + h * kv->shape.head_dim);
    }
}

tr_kv_span tr_kv_get(const tr_kv *kv, const tr_kv_table *t, size_t layer, size_t head, size_t page)
{
    uint8_t *span = span_at(kv, t, layer, head, page);

    return (tr_kv_span){ span, kv->shape.values_are_keys ? span : values_behind(kv, span) };
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
