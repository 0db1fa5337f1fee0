/* kv.h - keys and values of the tokens that sequences have seen.
 *
 * A cache is a pool of pages; a page holds TR_KV_PAGE positions of one sequence for all layers
 * and heads.  A sequence has a table of its pages, so sequences grow without copying, and those
 * that begin alike share their first pages (kv_pages.h).
 *
 * Layers that see only a window of the last positions have a pool of their own, of smaller pages
 * that go back when they are behind the window: what they hold does not grow with the sequence.
 * A page of theirs is named after the other layers' page of the same tokens, is kept like one, and
 * may be forgotten sooner.  So a beginning can be shared only up to where those that its next
 * position sees are still known.
 *
 * USE     tr_kv *kv;
 *         st = tr_kv_new(&shape, n_pages, n_window_pages, &kv);
 *         tr_kv_pass(kv, &t, position);                  pages behind the window go back
 *         tr_kv_table t = { 0 };
 *         st = tr_kv_reserve(kv, &t, position + n);      pages for positions below that
 *         tr_kv_put(kv, &t, layer, position, k, v);      one row of all heads
 *         tr_kv_span s = tr_kv_get(kv, &t, layer, head, page);
 *         tr_kv_release(kv, &t);
 *         tr_kv_free(&kv);
 *
 * THREAD  put from one task per position; get from any number of tasks after the puts.
 * MEMORY  Pages become resident when they are first used.
 * FAILS   TR_E_BUSY   no free page (no line: the caller knows whose request that is)
 *         TR_E_USAGE  the type doesn't suit the heads: Q8_0 needs a multiple of 32
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_KV_H
#define TR_COORDINATOR_MODEL_KV_H

#include "base/status.h"
#include "compute/kernels.h"
#include "coordinator/model/kv_pages.h"

typedef struct {
    const tr_kernels *kernels;
    size_t n_layers, n_heads, head_dim;
    tr_type type;         /* of keys and values: F32, F16 or Q8_0 */
    bool values_are_keys; /* only keys are kept, and are given as values too */
    size_t window;        /* positions that even layers see, from 0 on; 0: all */
} tr_kv_shape;

typedef struct tr_kv tr_kv;

/* Which pages a sequence has; zero-initialised it has none. */
typedef struct {
    uint32_t *page; /* [n] */
    size_t n, capacity;
    size_t n_named;        /* pages that others can find */
    uint32_t *window_page; /* [n] of layers with a window */
    size_t window_begin;   /* those before it are gone */
} tr_kv_table;

/* The positions of one page for one layer and head: TR_KV_PAGE rows of head_dim each, of the
 * cache's type. */
typedef struct {
    const void *keys, *values;
} tr_kv_span;

/* n_window_pages: of layers with a window; tr_kv_window_pages of them for each sequence are always
 * enough, more are kept to be shared.  Not looked at without a window. */
tr_status tr_kv_new(const tr_kv_shape *shape, size_t n_pages, size_t n_window_pages, tr_kv **out);
void tr_kv_free(tr_kv **kv);

tr_status tr_kv_reserve(tr_kv *kv, tr_kv_table *t, size_t n_positions);
void tr_kv_release(tr_kv *kv, tr_kv_table *t);

/* The same, but the table keeps its own room. */
void tr_kv_empty(tr_kv *kv, tr_kv_table *t);

/* Room in the table itself, so that reserve need not ask for memory. */
tr_status tr_kv_table_reserve(tr_kv_table *t, size_t n_positions);

/* Positions below `position` are computed, and no earlier one will be computed again: pages that no
 * window from there on reaches go back. */
void tr_kv_pass(tr_kv *kv, tr_kv_table *t, size_t position);

/* Give a table, all of whose pages are full and named, the pages that hold the next tokens of
 * [n_tokens], as far as all that they need is known, short of the last token; returns how many
 * positions the table has then. */
size_t tr_kv_find(tr_kv *kv, tr_kv_table *t, const uint32_t *tokens, size_t n_tokens);

/* The first n_tokens positions of the table are computed and hold these tokens: others may find
 * those of whole pages. */
void tr_kv_name(tr_kv *kv, tr_kv_table *t, const uint32_t *tokens, size_t n_tokens);

/* Pages of layers that see all positions, and of those with a window. */
tr_kv_pages_counts tr_kv_count(const tr_kv *kv);
tr_kv_pages_counts tr_kv_count_windows(const tr_kv *kv);

/* Pages that reserve can still give out. */
size_t tr_kv_available(const tr_kv *kv);

/* Zero the pages from first_page on. */
void tr_kv_clear(tr_kv *kv, const tr_kv_table *t, size_t first_page);

/* k and v are [n_heads][head_dim]; v is not looked at if values_are_keys. */
void tr_kv_put(tr_kv *kv, const tr_kv_table *t, size_t layer, size_t position, const float *k,
               const float *v);

tr_kv_span tr_kv_get(const tr_kv *kv, const tr_kv_table *t, size_t layer, size_t head, size_t page);

/* The first n_positions rows of a span's keys or values as floats: in place where the cache holds
 * floats, else in buffer, [n_positions][head_dim]. */
const float *tr_kv_floats(const tr_kv *kv, const void *rows, size_t n_positions, float *buffer);

/* Ask the memory for the rows of a span's keys or values, which will be read next. */
void tr_kv_prefetch(const tr_kv *kv, const void *rows);

const tr_kv_shape *tr_kv_get_shape(const tr_kv *kv);

/* Bytes of one page, and of one of layers with a window; 0 where there are no such layers. */
size_t tr_kv_page_size(const tr_kv_shape *shape);
size_t tr_kv_window_page_size(const tr_kv_shape *shape);

/* Pages of layers with a window that a sequence can need in a step of at most max_rows. */
size_t tr_kv_window_pages(const tr_kv_shape *shape, size_t max_rows);

/* Positions that a row of a layer sees, its own included; 0: all. */
static inline size_t tr_kv_window(const tr_kv_shape *s, size_t layer)
{
    return layer % 2 == 0 ? s->window : 0;
}

static inline size_t tr_kv_pages_for(size_t n_positions)
{
    return (n_positions + TR_KV_PAGE - 1) / TR_KV_PAGE;
}

#endif
