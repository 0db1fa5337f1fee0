/* latent.c - queries into the latent space, sums out of it: one task per head, its matrix stays
 * near. SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/latent.h"

#include <string.h>

typedef struct {
    const tr_latent *l;
    const float *in;
    float *out;
    size_t n_rows;
} latent_job;

void tr_latent_split(const tr_model_config *c, const float *kv_b, float *up_keys, float *up_values)
{
    size_t n_key = c->head_dim - c->n_rot;

    for (size_t h = 0; h < c->n_heads; h++) {
        const float *head = kv_b + h * (n_key + c->value_dim) * c->latent;
        float *keys = up_keys + h * c->latent * n_key;
        for (size_t i = 0; i < n_key; i++)
            for (size_t j = 0; j < c->latent; j++)
                keys[j * n_key + i] = head[i * c->latent + j];
        memcpy(up_values + h * c->value_dim * c->latent, head + n_key * c->latent,
               c->value_dim * c->latent * sizeof(float));
    }
}

static void query_heads(void *ctx, size_t thread, size_t begin, size_t end)
{
    const latent_job *j = ctx;
    const tr_model_config *c = j->l->config;
    size_t n_key = c->head_dim - c->n_rot;

    (void)thread;
    for (size_t h = begin; h < end; h++) {
        for (size_t r = 0; r < j->n_rows; r++) {
            const float *q = j->in + (r * c->n_heads + h) * c->head_dim;
            float *query = j->out + (r * c->n_heads + h) * c->cache_dim;
            j->l->compute->kernels->dots(q, j->l->up_keys + h * c->latent * n_key, c->latent, n_key,
                                         query);
            memcpy(query + c->latent, q + n_key, c->n_rot * sizeof(float));
        }
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

    (void)thread;
    for (size_t h = begin; h < end; h++)
        for (size_t r = 0; r < j->n_rows; r++)
            j->l->compute->kernels->dots(j->in + (r * c->n_heads + h) * c->cache_dim,
                                         j->l->up_values + h * c->value_dim * c->latent,
                                         c->value_dim, c->latent,
                                         j->out + (r * c->n_heads + h) * c->value_dim);
}

void tr_latent_values(const tr_latent *l, const float *heads, size_t n_rows, float *values)
{
    latent_job j = { l, heads, values, n_rows };

    tr_pool_for(l->compute->pool, l->config->n_heads, 1, value_heads, &j);
}
