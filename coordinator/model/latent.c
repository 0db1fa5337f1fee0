/* latent.c - queries into the latent space, sums out of it: one task per head, its matrix stays
 * near. SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/latent.h"

#include "base/memory.h"

#include <string.h>

/* Rows of activations, and of K_h, that are made ready at once. */
enum { BLOCK = 16 };

typedef struct {
    const tr_latent *l;
    const float *in;
    float *out;
    size_t n_rows;
} latent_job;

size_t tr_latent_scratch(const tr_model_config *c)
{
    size_t n = c->latent > c->head_dim ? c->latent : c->head_dim;

    return tr_align_up(BLOCK * tr_act_row_size(TR_ACT_F32, n), TR_ALIGN);
}

static uint8_t *scratch_of(const tr_latent *l, size_t thread)
{
    return l->scratch + thread * tr_latent_scratch(l->config);
}

/* A head's vectors of all rows: x of n values, x_stride floats apart. */
typedef struct {
    const float *x;
    size_t n, x_stride, n_rows;
    float *y;
    size_t y_stride; /* floats */
} head_rows;

/* y = m x for each row. */
static void multiply(const tr_latent *l, const tr_matrix *m, const head_rows *h, uint8_t *scratch)
{
    const tr_kernels *k = l->compute->kernels;
    tr_act act = tr_act_for(m->type, l->compute->exact);
    tr_matmul_fn product = tr_matmul_for(k, m, act);
    size_t size = tr_act_row_size(act, h->n);

    for (size_t first = 0; first < h->n_rows; first += BLOCK) {
        size_t n = h->n_rows - first < BLOCK ? h->n_rows - first : BLOCK;
        for (size_t i = 0; i < n; i++) {
            const float *x = h->x + (first + i) * h->x_stride;
            if (act == TR_ACT_Q8)
                k->act_q8(x, h->n, scratch + i * size);
            else
                memcpy(scratch + i * size, x, h->n * sizeof *x);
        }
        product(m, 0, m->n_out, scratch, size, n, h->y + first * h->y_stride, h->y_stride);
    }
}

/* Rows of a matrix as floats: in place where it holds floats, else in buffer. */
static const float *floats_of(const tr_kernels *k, const tr_matrix *m, size_t first, size_t n,
                              float *buffer)
{
    const uint8_t *rows = (const uint8_t *)m->data + first * m->row_size;

    if (m->type == TR_TYPE_F32)
        return (const float *)(const void *)rows;
    if (m->type == TR_TYPE_F16)
        k->from_f16((const uint16_t *)(const void *)rows, n * m->n_in, buffer);
    else if (m->type == TR_TYPE_Q8_0)
        k->from_q8_0(rows, n * m->n_in, buffer);
    else
        for (size_t i = 0; i < n; i++)
            tr_dequantise_row(m->type, rows + i * m->row_size, m->n_in, buffer + i * m->n_in);
    return buffer;
}

/* Add m's rows first..first+n-1, as floats, each times a value of x, to y of every row. */
static void add_turned(const tr_kernels *k, const head_rows *h, const float *rows, size_t first,
                       size_t n, size_t n_in)
{
    const float *x[BLOCK];
    float *y[BLOCK];

    for (size_t r = 0; r < h->n_rows; r += BLOCK) {
        size_t n_rows = h->n_rows - r < BLOCK ? h->n_rows - r : BLOCK;
        for (size_t i = 0; i < n_rows; i++) {
            x[i] = h->x + (r + i) * h->x_stride + first;
            y[i] = h->y + (r + i) * h->y_stride;
        }
        k->mix[TR_TYPE_F32](x, n_rows, rows, n, n_in, y);
    }
}

/* y = m' x for each row: the sum of m's rows, each times a value of x, in their order. */
static void multiply_turned(const tr_latent *l, const tr_matrix *m, const head_rows *h,
                            uint8_t *scratch)
{
    const tr_kernels *k = l->compute->kernels;

    for (size_t r = 0; r < h->n_rows; r++)
        memset(h->y + r * h->y_stride, 0, m->n_in * sizeof *h->y);
    for (size_t i = 0; i < m->n_out; i += BLOCK) {
        size_t n = m->n_out - i < BLOCK ? m->n_out - i : BLOCK;
        const float *rows = floats_of(k, m, i, n, (float *)(void *)scratch);
        add_turned(k, h, rows, i, n, m->n_in);
    }
}

static void query_heads(void *ctx, size_t thread, size_t begin, size_t end)
{
    const latent_job *j = ctx;
    const tr_model_config *c = j->l->config;
    size_t n_key = c->head_dim - c->n_rot;
    size_t from = (size_t)c->n_heads * c->head_dim;
    size_t to = (size_t)c->n_heads * c->cache_dim;

    for (size_t h = begin; h < end; h++) {
        tr_matrix keys = tr_head_matrix(&j->l->up->keys, h);
        const float *q = j->in + h * c->head_dim;
        float *query = j->out + h * c->cache_dim;
        head_rows rows = { q, n_key, from, j->n_rows, query, to };
        if (j->l->up->has_turned_keys)
            multiply(j->l, &keys, &rows, scratch_of(j->l, thread));
        else
            multiply_turned(j->l, &keys, &rows, scratch_of(j->l, thread));
        for (size_t r = 0; r < j->n_rows; r++)
            memcpy(query + r * to + c->latent, q + r * from + n_key, c->n_rot * sizeof *q);
    }
}

void tr_latent_queries(const tr_latent *l, const float *q, size_t n_rows, float *queries)
{
    latent_job j = { l, q, queries, n_rows };

    tr_pool_for(l->compute->pool, l->config->n_heads, 1, query_heads, &j);
}

static void value_heads(void *ctx, size_t thread, size_t begin, size_t end)
{
    const latent_job *j = ctx;
    const tr_model_config *c = j->l->config;

    for (size_t h = begin; h < end; h++) {
        tr_matrix values = tr_head_matrix(&j->l->up->values, h);
        head_rows rows = { .x = j->in + h * c->cache_dim,
                           .n = c->latent,
                           .x_stride = (size_t)c->n_heads * c->cache_dim,
                           .n_rows = j->n_rows,
                           .y = j->out + h * c->value_dim,
                           .y_stride = (size_t)c->n_heads * c->value_dim };
        multiply(j->l, &values, &rows, scratch_of(j->l, thread));
    }
}

void tr_latent_values(const tr_latent *l, const float *heads, size_t n_rows, float *values)
{
    latent_job j = { l, heads, values, n_rows };

    tr_pool_for(l->compute->pool, l->config->n_heads, 1, value_heads, &j);
}
