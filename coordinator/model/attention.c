/* attention.c - blocks of queries against pages of the cache.
 *
 * A task is up to BLOCK queries that look through the same key/value head at the same sequence:
 * neighbouring rows of a prompt, and query heads that share the key/value head.  Few queries read a
 * page of halves as it is; else it is turned into floats once.  What is computed for one
 * query, and in which order, does not depend on the others.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/attention.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK = TR_ATTENTION_BLOCK,
    LEAST_HEADS = 4,
    SHARES = 2, /* tasks of a thread, at least, where key/value heads are taken together */
    FEW = 4,    /* queries for which a page is not worth turning into floats */
};

/* Rows first..first+n_rows-1, all of one sequence, and n_heads query heads of each for each of n_kv
 * key/value heads. */
typedef struct {
    const tr_attention *a;
    size_t first, n_rows;
    size_t head, n_heads;
    size_t kv_head, n_kv;
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

/* Queries of one key/value head. */
static size_t n_each(const block *b)
{
    return b->n_rows * b->n_heads;
}

static size_t row_of(const block *b, size_t i)
{
    return b->first + i % n_each(b) / b->n_heads;
}

static size_t head_of(const block *b, size_t i)
{
    return b->head + i / n_each(b) * b->n_heads + i % b->n_heads;
}

static size_t query_at(const block *b, size_t i)
{
    return (row_of(b, i) * b->a->n_heads + head_of(b, i)) * head_dim(b);
}

/* Positions up to the last that query i sees. */
static size_t seen_by(const block *b, size_t i)
{
    return (size_t)b->a->position[row_of(b, i)] + 1;
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

/* Of the block's key/value head number kv. */
static tr_kv_span span_of(const block *b, size_t kv, size_t page)
{
    return tr_kv_get(b->a->kv, b->a->table[b->first], b->a->layer, b->kv_head + kv, page);
}

/* Bytes of n positions. */
static size_t row_bytes(const block *b, tr_type type, size_t n)
{
    size_t size = 0;

    (void)tr_type_row_size(type, head_dim(b), &size);
    return n * size;
}

/* Rows of a page as kernels take them. */
typedef struct {
    tr_type type;
    const void *rows;
} page_rows;

/* As they are for few queries if kernels read them so, else as floats. */
static page_rows rows_for(const block *b, const void *rows, size_t n_positions)
{
    const tr_kv *kv = b->a->kv;
    tr_type type = tr_kv_get_shape(kv)->type;

    if (n_each(b) <= FEW && b->a->compute->kernels->dots[type])
        return (page_rows){ type, rows };
    return (page_rows){ TR_TYPE_F32, tr_kv_floats(kv, rows, n_positions, b->page) };
}

/* What query i sees of a page of raw scores. */
static void take_scores(const block *b, size_t i, size_t page, const float *raw)
{
    size_t n = in_page(b, i, page);
    size_t begin = page * TR_KV_PAGE;
    size_t first = first_seen(b, i);
    float *scores = b->scores + i * b->a->score_stride + begin;

    for (size_t k = 0; k < n; k++)
        scores[k] = raw[k] * b->a->scale;
    for (size_t k = 0; k < n && begin + k < first; k++)
        scores[k] = -INFINITY;
}

/* What is read after this: the next head's, or the first one's of the next page. */
static bool next_span(const block *b, size_t kv, size_t page, tr_kv_span *next)
{
    bool is_last = kv + 1 == b->n_kv;

    if (is_last && (page + 1) * TR_KV_PAGE >= b->n)
        return false;
    *next = is_last ? span_of(b, 0, page + 1) : span_of(b, kv + 1, page);
    return true;
}

static void score_page(const block *b, size_t kv, size_t page, size_t n_positions)
{
    const tr_attention *a = b->a;
    size_t first = kv * n_each(b);
    const float *q[BLOCK];
    float raw[BLOCK][TR_KV_PAGE];
    float *out[BLOCK];
    tr_kv_span next;

    if (next_span(b, kv, page, &next))
        tr_kv_prefetch(a->kv, next.keys);
    page_rows keys = rows_for(b, span_of(b, kv, page).keys, n_positions);
    for (size_t i = 0; i < n_each(b); i++) {
        q[i] = a->q + query_at(b, first + i);
        out[i] = raw[i];
    }
    a->compute->kernels->dots[keys.type](q, n_each(b), keys.rows, n_positions, head_dim(b), out);
    for (size_t i = 0; i < n_each(b); i++)
        take_scores(b, first + i, page, raw[i]);
}

/* Positions that all see are added for all queries at once, the rest for each alone. */
static void mix_page(const block *b, size_t kv, size_t page, size_t n_positions)
{
    const tr_attention *a = b->a;
    size_t common = n_positions;
    size_t n_seen[BLOCK];
    const float *w[BLOCK];
    float *out[BLOCK];
    tr_kv_span next;

    if (next_span(b, kv, page, &next))
        tr_kv_prefetch(a->kv, next.values);
    page_rows values = rows_for(b, span_of(b, kv, page).values, n_positions);
    tr_mix_fn mix = a->compute->kernels->mix[values.type];
    for (size_t i = 0; i < n_each(b); i++) {
        size_t query = kv * n_each(b) + i;
        n_seen[i] = in_page(b, query, page);
        common = n_seen[i] < common ? n_seen[i] : common;
        w[i] = b->scores + query * a->score_stride + page * TR_KV_PAGE;
        out[i] = a->out + query_at(b, query);
    }
    mix(w, n_each(b), values.rows, common, head_dim(b), out);
    const uint8_t *rest = (const uint8_t *)values.rows + row_bytes(b, values.type, common);
    for (size_t i = 0; i < n_each(b); i++) {
        const float *rest_w = w[i] + common;
        if (n_seen[i] > common)
            mix(&rest_w, 1, rest, n_seen[i] - common, head_dim(b), &out[i]);
    }
}

/* Scores become weights, from the first page on that the query sees. */
static void weigh(const block *b, size_t i)
{
    const tr_attention *a = b->a;
    size_t begin = first_page(b, i) * TR_KV_PAGE;
    float *scores = b->scores + i * a->score_stride + begin;
    size_t n = seen_by(b, i) - begin;

    if (a->sinks)
        scores[n++] = a->sinks[head_of(b, i)];
    a->compute->kernels->softmax(scores, n);
}

typedef void (*pass_fn)(const block *b, size_t kv, size_t page, size_t n_positions);

/* One pass over the pages that the block sees, those of neighbouring heads after each other. */
static void pages_pass(const block *b, size_t first, pass_fn pass)
{
    for (size_t page = first; page * TR_KV_PAGE < b->n; page++) {
        size_t left = b->n - page * TR_KV_PAGE;
        for (size_t kv = 0; kv < b->n_kv; kv++)
            pass(b, kv, page, left < TR_KV_PAGE ? left : TR_KV_PAGE);
    }
}

static void block_run(block *b)
{
    const tr_attention *a = b->a;
    size_t n_queries = b->n_kv * n_each(b);
    size_t begin = first_page(b, 0);

    b->n = 0;
    for (size_t i = 0; i < n_queries; i++) {
        b->n = seen_by(b, i) > b->n ? seen_by(b, i) : b->n;
        begin = first_page(b, i) < begin ? first_page(b, i) : begin;
    }
    pages_pass(b, begin, score_page);
    for (size_t i = 0; i < n_queries; i++) {
        weigh(b, i);
        memset(a->out + query_at(b, i), 0, head_dim(b) * sizeof(float));
    }
    pages_pass(b, begin, mix_page);
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

/* Each block of rows has n_parts tasks: of n_kv key/value heads with all their query heads, or of
 * one with up to n_heads of them.  Tasks of the same heads follow each other: those of one prompt
 * read the same pages. */
typedef struct {
    const tr_attention *a;
    size_t n_blocks, n_parts;
    size_t n_heads, n_kv;
} job;

static size_t parts_of(size_t n, size_t size)
{
    return (n + size - 1) / size;
}

/* As many query heads as fit a block, and then key/value heads; fewer where threads would have
 * nothing to do: one answer of a model with few key/value heads. */
static job cut(const tr_attention *a, size_t n_blocks, size_t most_rows)
{
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);
    size_t n_group = a->n_heads / s->n_heads;
    size_t n_threads = tr_pool_threads(a->compute->pool);
    size_t n_kv = BLOCK / (most_rows * n_group);
    job j = { .a = a,
              .n_blocks = n_blocks,
              .n_heads = n_group < BLOCK ? n_group : BLOCK,
              .n_kv = n_kv < s->n_heads ? n_kv : s->n_heads };

    while (j.n_kv > 1 && n_blocks * parts_of(s->n_heads, j.n_kv) < SHARES * n_threads)
        j.n_kv = (j.n_kv + 1) / 2;
    if (j.n_kv > 1) {
        j.n_parts = parts_of(s->n_heads, j.n_kv);
        return j;
    }
    j.n_kv = 1;
    j.n_parts = s->n_heads * parts_of(n_group, j.n_heads);
    while (n_blocks * j.n_parts < n_threads && j.n_heads > LEAST_HEADS) {
        j.n_heads = (j.n_heads + 1) / 2;
        j.n_parts = s->n_heads * parts_of(n_group, j.n_heads);
    }
    return j;
}

/* Part number `part` of the rows from `first` on. */
static block block_of(const job *j, size_t first, size_t part)
{
    const tr_attention *a = j->a;
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);
    size_t n_group = a->n_heads / s->n_heads;
    size_t n_pieces = parts_of(n_group, j->n_heads);
    size_t kv_head = part / n_pieces * j->n_kv;
    size_t head = part % n_pieces * j->n_heads;

    return (block){
        .a = a,
        .first = first,
        .n_rows = rows_together(a, first, n_group),
        .head = kv_head * n_group + head,
        .n_heads = n_group - head < j->n_heads ? n_group - head : j->n_heads,
        .kv_head = kv_head,
        .n_kv = s->n_heads - kv_head < j->n_kv ? s->n_heads - kv_head : j->n_kv,
    };
}

static void tasks_run(void *ctx, size_t thread, size_t begin, size_t end)
{
    const job *j = ctx;
    const tr_attention *a = j->a;
    size_t stride = tr_attention_scratch(tr_kv_get_shape(a->kv), a->score_stride);

    for (size_t i = begin; i < end; i++) {
        block b = block_of(j, a->block_begin[i % j->n_blocks], i / j->n_blocks);
        b.scores = a->scratch + thread * stride;
        b.page = b.scores + BLOCK * a->score_stride;
        block_run(&b);
    }
}

void tr_attention_run(const tr_attention *a)
{
    size_t n_group = a->n_heads / tr_kv_get_shape(a->kv)->n_heads;
    size_t n_blocks = 0, most_rows = 1;

    for (size_t row = 0, n = 0; row < a->n_rows; row += n) {
        n = rows_together(a, row, n_group);
        most_rows = n > most_rows ? n : most_rows;
        a->block_begin[n_blocks++] = (uint32_t)row;
    }
    job j = cut(a, n_blocks, most_rows);
    tr_pool_for(a->compute->pool, n_blocks * j.n_parts, 1, tasks_run, &j);
}
