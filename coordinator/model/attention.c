/* attention.c - blocks of queries against pages of the cache.
 *
 * A task is up to BLOCK queries that look through the same key/value head at the same sequence:
 * neighbouring rows of a prompt, and query heads that share the key/value head.  A page is
 * turned into floats once for all of them.  What is computed for one query, and in which order,
 * does not depend on the others.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/attention.h"

#include <math.h>
#include <string.h>

enum { BLOCK = TR_ATTENTION_BLOCK, LEAST_HEADS = 4 };

/* Rows first..first+n_rows-1, all of one sequence, and n_heads query heads of each. */
typedef struct {
    const tr_attention *a;
    size_t first, n_rows;
    size_t head, n_heads, kv_head;
    size_t n;      /* positions that the last query sees */
    float *scores; /* [BLOCK][score_stride] */
    float *page;   /* [TR_KV_PAGE][head_dim] */
} block;

size_t tr_attention_scratch(const tr_kv_shape *s, size_t score_stride)
{
    return BLOCK * score_stride + TR_KV_PAGE * s->head_dim;
}

static size_t head_dim(const block *b)
{
    return tr_kv_get_shape(b->a->kv)->head_dim;
}

static size_t query_at(const block *b, size_t i)
{
    size_t row = b->first + i / b->n_heads;
    size_t head = b->head + i % b->n_heads;

    return (row * b->a->n_heads + head) * head_dim(b);
}

/* Positions up to the last that query i sees. */
static size_t seen_by(const block *b, size_t i)
{
    return (size_t)b->a->position[b->first + i / b->n_heads] + 1;
}

/* The first position that query i sees. */
static size_t first_seen(const block *b, size_t i)
{
    size_t window = b->a->window;
    size_t n = seen_by(b, i);

    return window > 0 && n > window ? n - window : 0;
}

static size_t first_page(const block *b, size_t i)
{
    return first_seen(b, i) / TR_KV_PAGE;
}

/* Positions of a page up to the last that query i sees; 0 for a page of which it sees none. */
static size_t in_page(const block *b, size_t i, size_t page)
{
    size_t seen = seen_by(b, i);
    size_t begin = page * TR_KV_PAGE;

    if (seen <= begin || page < first_page(b, i))
        return 0;
    return seen - begin < TR_KV_PAGE ? seen - begin : TR_KV_PAGE;
}

static tr_kv_span span_of(const block *b, size_t page)
{
    return tr_kv_get(b->a->kv, b->a->table[b->first], b->a->layer, b->kv_head, page);
}

static void score_page(const block *b, size_t page, size_t n_positions)
{
    const tr_attention *a = b->a;
    if ((page + 1) * TR_KV_PAGE < b->n)
        tr_kv_prefetch(a->kv, span_of(b, page + 1).keys);
    const float *keys = tr_kv_floats(a->kv, span_of(b, page).keys, n_positions, b->page);

    for (size_t i = 0; i < b->n_rows * b->n_heads; i++) {
        size_t n = in_page(b, i, page);
        float *scores = b->scores + i * a->score_stride + page * TR_KV_PAGE;
        a->compute->kernels->dots(a->q + query_at(b, i), keys, n, head_dim(b), scores);
        for (size_t k = 0; k < n; k++)
            scores[k] *= a->scale;
        size_t first = first_seen(b, i);
        for (size_t k = 0; k < n && page * TR_KV_PAGE + k < first; k++)
            scores[k] = -INFINITY;
    }
}

static void mix_page(const block *b, size_t page, size_t n_positions)
{
    const tr_attention *a = b->a;
    if ((page + 1) * TR_KV_PAGE < b->n)
        tr_kv_prefetch(a->kv, span_of(b, page + 1).values);
    const float *values = tr_kv_floats(a->kv, span_of(b, page).values, n_positions, b->page);

    for (size_t i = 0; i < b->n_rows * b->n_heads; i++)
        a->compute->kernels->mix(b->scores + i * a->score_stride + page * TR_KV_PAGE, values,
                                 in_page(b, i, page), head_dim(b), a->out + query_at(b, i));
}

/* Scores become weights, from the first page on that the query sees. */
static void weigh(const block *b, size_t i)
{
    const tr_attention *a = b->a;
    size_t begin = first_page(b, i) * TR_KV_PAGE;
    float *scores = b->scores + i * a->score_stride + begin;
    size_t n = seen_by(b, i) - begin;

    if (a->sinks)
        scores[n++] = a->sinks[b->head + i % b->n_heads];
    a->compute->kernels->softmax(scores, n);
}

static void block_run(block *b)
{
    const tr_attention *a = b->a;
    size_t n_queries = b->n_rows * b->n_heads;
    size_t n = 0;
    size_t begin = first_page(b, 0);

    for (size_t i = 0; i < n_queries; i++) {
        n = seen_by(b, i) > n ? seen_by(b, i) : n;
        begin = first_page(b, i) < begin ? first_page(b, i) : begin;
    }
    b->n = n;
    size_t n_pages = tr_kv_pages_for(n);
    size_t in_last = n - (n_pages - 1) * TR_KV_PAGE;
    for (size_t p = begin; p < n_pages; p++)
        score_page(b, p, p + 1 < n_pages ? TR_KV_PAGE : in_last);
    for (size_t i = 0; i < n_queries; i++) {
        weigh(b, i);
        memset(a->out + query_at(b, i), 0, head_dim(b) * sizeof(float));
    }
    for (size_t p = begin; p < n_pages; p++)
        mix_page(b, p, p + 1 < n_pages ? TR_KV_PAGE : in_last);
}

/* Rows from `first` on that belong to one block: one sequence, and no more than fit. */
static size_t rows_together(const tr_attention *a, size_t first, size_t n_group)
{
    size_t most = n_group < BLOCK ? BLOCK / n_group : 1;
    size_t n = 1;

    while (n < most && first + n < a->n_rows && a->table[first + n] == a->table[first])
        n++;
    return n;
}

/* Each block of rows and each key/value head has n_parts tasks of up to n_heads query heads. */
typedef struct {
    const tr_attention *a;
    size_t n_heads, n_parts;
} job;

/* As many query heads as fit a block, fewer where threads would have nothing to do: one answer of a
 * model with one key/value head. */
static job cut(const tr_attention *a, size_t n_blocks)
{
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);
    size_t n_group = a->n_heads / s->n_heads;
    size_t n_threads = tr_pool_threads(a->compute->pool);
    job j = { a, n_group < BLOCK ? n_group : BLOCK, 0 };

    j.n_parts = (n_group + j.n_heads - 1) / j.n_heads;
    while (n_blocks * s->n_heads * j.n_parts < n_threads && j.n_heads > LEAST_HEADS) {
        j.n_heads = (j.n_heads + 1) / 2;
        j.n_parts = (n_group + j.n_heads - 1) / j.n_heads;
    }
    return j;
}

static void tasks_run(void *ctx, size_t thread, size_t begin, size_t end)
{
    const job *j = ctx;
    const tr_attention *a = j->a;
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);
    size_t n_group = a->n_heads / s->n_heads;
    float *scratch = a->scratch + thread * tr_attention_scratch(s, a->score_stride);

    for (size_t i = begin; i < end; i++) {
        size_t row = a->block_begin[i / j->n_parts / s->n_heads];
        size_t kv_head = i / j->n_parts % s->n_heads;
        size_t head = i % j->n_parts * j->n_heads;
        block b = {
            .a = a,
            .first = row,
            .n_rows = rows_together(a, row, n_group),
            .head = kv_head * n_group + head,
            .n_heads = n_group - head < j->n_heads ? n_group - head : j->n_heads,
            .kv_head = kv_head,
            .scores = scratch,
            .page = scratch + BLOCK * a->score_stride,
        };
        block_run(&b);
    }
}

void tr_attention_run(const tr_attention *a)
{
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);
    size_t n_blocks = 0;

    for (size_t row = 0; row < a->n_rows; row += rows_together(a, row, a->n_heads / s->n_heads))
        a->block_begin[n_blocks++] = (uint32_t)row;
    job j = cut(a, n_blocks);
    tr_pool_for(a->compute->pool, n_blocks * s->n_heads * j.n_parts, 1, tasks_run, &j);
}
