/* latent_weights.c - each head's rows of a tensor to their place.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/latent_weights.h"

#include "base/memory.h"

/* Where a head's matrix is: n_out rows of a tensor, from row `first` + h * `step` on. */
typedef struct {
    uint64_t first, step, n_out, n_heads;
} rows;

/* Those rows as if they were a tensor. */
static tr_gguf_tensor head_of(const tr_gguf_tensor *t, const rows *r, uint64_t head)
{
    tr_gguf_tensor part = *t;
    uint64_t row_size = t->size / (t->dim[1] * t->dim[2]);

    part.dim[1] = r->n_out;
    part.dim[2] = 1;
    part.offset += (r->first + head * r->step) * row_size;
    part.size = r->n_out * row_size;
    return part;
}

/* is_row_by_row: rows are wanted as they are in the file. */
static tr_status load_heads(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                            const rows *r, bool is_row_by_row, tr_head_weights *out)
{
    tr_compute by_rows = { c->kernels, c->pool, true };
    const tr_compute *as = is_row_by_row ? &by_rows : c;
    tr_gguf_tensor part = head_of(t, r, 0);
    tr_head_weights w = { .head_size = tr_align_up(tr_weights_size_for(as, &part, 1), TR_ALIGN) };

    if (!tr_mul_size(w.head_size, r->n_heads, &w.size))
        return tr_fail(TR_E_FORMAT, "tensor %s: %llu heads are too many", t->name,
                       (unsigned long long)r->n_heads);
    tr_status st = tr_memory_new(w.size, t->name, &w.data);
    for (uint64_t h = 0; h < r->n_heads && st == TR_OK; h++) {
        tr_matrix m;
        part = head_of(t, r, h);
        st = tr_matrix_load_into(as, g, &part, 0, 1, (uint8_t *)w.data + h * w.head_size, &m);
        if (h == 0)
            w.first = m;
    }
    if (st != TR_OK)
        tr_memory_free(&w.data, w.size);
    else
        *out = w;
    return st;
}

tr_status tr_latent_load(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *keys,
                         const tr_gguf_tensor *values, tr_latent_weights *out)
{
    rows k = { 0, keys->dim[1], keys->dim[1], keys->dim[2] };
    rows v = { 0, values->dim[1], values->dim[1], values->dim[2] };
    tr_latent_weights w = { .has_turned_keys = true };

    tr_status st = load_heads(c, g, keys, &k, false, &w.keys);
    if (st == TR_OK)
        st = load_heads(c, g, values, &v, false, &w.values);
    if (st != TR_OK)
        tr_latent_weights_free(&w);
    else
        *out = w;
    return st;
}

tr_status tr_latent_load_joint(const tr_compute *c, const tr_gguf *g, const tr_model_config *config,
                               const tr_gguf_tensor *t, tr_latent_weights *out)
{
    uint64_t n_key = config->head_dim - config->n_rot;
    uint64_t step = n_key + config->value_dim;
    rows k = { 0, step, n_key, config->n_heads };
    rows v = { n_key, step, config->value_dim, config->n_heads };
    tr_latent_weights w = { .has_turned_keys = false };

    tr_status st = load_heads(c, g, t, &k, true, &w.keys);
    if (st == TR_OK)
        st = load_heads(c, g, t, &v, false, &w.values);
    if (st != TR_OK)
        tr_latent_weights_free(&w);
    else
        *out = w;
    return st;
}

void tr_latent_weights_free(tr_latent_weights *w)
{
    tr_memory_free(&w->keys.data, w->keys.size);
    tr_memory_free(&w->values.data, w->values.size);
    *w = (tr_latent_weights){ 0 };
}
