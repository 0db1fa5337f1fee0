/* attention.c - one task per (row, head), page by page over the cache.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/attention.h"

#include <string.h>

static size_t in_page(size_t n, size_t page)
{
    size_t left = n - page * TR_KV_PAGE;

    return left < TR_KV_PAGE ? left : TR_KV_PAGE;
}

static void score_page(const tr_attention *a, const float *q, const void *keys, size_t n,
                       float *scores)
{
    const tr_kernels *k = a->compute->kernels;
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);

    for (size_t i = 0; i < n; i++) {
        size_t at = i * s->head_dim;
        float dot = s->f32 ? k->dot_f32(q, (const float *)keys + at, s->head_dim)
                           : k->dot_f16(q, (const uint16_t *)keys + at, s->head_dim);
        scores[i] = a->scale * dot;
    }
}

static void add_page(const tr_attention *a, const float *weights, const void *values, size_t n,
                     float *out)
{
    const tr_kernels *k = a->compute->kernels;
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);

    for (size_t i = 0; i < n; i++) {
        size_t at = i * s->head_dim;
        if (s->f32)
            k->axpy_f32(weights[i], (const float *)values + at, s->head_dim, out);
        else
            k->axpy_f16(weights[i], (const uint16_t *)values + at, s->head_dim, out);
    }
}

static void row_head(const tr_attention *a, size_t row, size_t head, float *scores)
{
    const tr_kv_shape *s = tr_kv_get_shape(a->kv);
    size_t kv_head = head / (a->n_heads / s->n_heads);
    size_t n = (size_t)a->position[row] + 1;
    size_t n_pages = tr_kv_pages_for(n);
    size_t at = (row * a->n_heads + head) * s->head_dim;
    const tr_kv_table *table = a->table[row];

    for (size_t p = 0; p < n_pages; p++)
        score_page(a, a->q + at, tr_kv_get(a->kv, table, a->layer, kv_head, p).keys, in_page(n, p),
                   scores + p * TR_KV_PAGE);
    a->compute->kernels->softmax(scores, n);
    memset(a->out + at, 0, s->head_dim * sizeof(float));
    for (size_t p = 0; p < n_pages; p++)
        add_page(a, scores + p * TR_KV_PAGE, tr_kv_get(a->kv, table, a->layer, kv_head, p).values,
                 in_page(n, p), a->out + at);
}

static void rows_heads(void *ctx, size_t thread, size_t begin, size_t end)
{
    const tr_attention *a = ctx;

    for (size_t i = begin; i < end; i++)
        row_head(a, i / a->n_heads, i % a->n_heads, a->scores + thread * a->score_stride);
}

void tr_attention_run(const tr_attention *a)
{
    tr_attention job = *a;

    tr_pool_for(a->compute->pool, a->n_rows * a->n_heads, 1, rows_heads, &job);
}
