/* latent_weights.c - each head's rows of a tensor to their place, turned where rows would be slow.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/latent_weights.h"

#include "base/memory.h"
#include "compute/panels.h"

#include <stdalign.h>
#include <stdlib.h>

enum { MAX_KEY = 1024 }; /* values of a key that are turned */

/* Where a head's matrix is: n_out rows of a tensor, from row `first` + h * `step` on. */
typedef struct {
    uint64_t first, step, n_out, n_heads;
} slices;

/* Those rows as if they were a tensor. */
static tr_gguf_tensor head_of(const tr_gguf_tensor *t, const slices *r, uint64_t head)
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
                            const slices *r, bool is_row_by_row, tr_head_weights *out)
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

/* A head's rows on their way to being turned. */
typedef struct {
    const tr_kernels *kernels;
    const tr_gguf_tensor *t; /* of this head */
    const uint8_t *rows;     /* as in the file */
    float *floats;           /* [n_out][n_in] of it */
    tr_matrix *m;            /* [n_in][n_out] */
    uint8_t *data;
} turning;

static void rows_to_floats(void *ctx, size_t thread, size_t begin, size_t end)
{
    const turning *j = ctx;
    size_t n_in = j->t->dim[0];
    size_t row_size = j->t->size / j->t->dim[1];

    (void)thread;
    for (size_t i = begin; i < end; i++)
        tr_dequantise_row(j->t->type, j->rows + i * row_size, n_in, j->floats + i * n_in);
}

/* Columns begin*16.. become rows of Q8_0, sixteen at a time. */
static void columns_to_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    const turning *j = ctx;
    const tr_matrix *m = j->m;
    size_t stride = j->t->dim[0];
    bool has_panels = m->layout == TR_LAYOUT_PANELS;
    float column[MAX_KEY];
    alignas(64) uint8_t rows[TR_PANEL * MAX_KEY * 2];

    (void)thread;
    for (size_t p = begin; p < end; p++) {
        size_t left = m->n_out - p * TR_PANEL;
        size_t n = left < TR_PANEL ? left : TR_PANEL;
        uint8_t *to = has_panels ? rows : j->data + p * TR_PANEL * m->row_size;
        for (size_t c = 0; c < n; c++) {
            for (size_t i = 0; i < m->n_in; i++)
                column[i] = j->floats[i * stride + p * TR_PANEL + c];
            tr_quantise_row(TR_TYPE_Q8_0, column, m->n_in, to + c * m->row_size);
        }
        if (has_panels)
            tr_panel_pack(m->type, m->n_in, rows, m->row_size, n,
                          j->data + p * tr_panel_size(m->type, m->n_in));
    }
}

static tr_status turn_heads(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                            const slices *r, tr_head_weights *w)
{
    tr_gguf_tensor part = head_of(t, r, 0);
    size_t n_floats = part.dim[0] * part.dim[1];
    uint8_t *bytes = malloc(part.size);
    float *floats = malloc(n_floats * sizeof *floats);
    tr_status st = bytes && floats ? TR_OK
                                   : tr_fail(TR_E_MEMORY,
                                             "tensor %s: no memory for a head's %zu "
                                             "weights",
                                             t->name, n_floats);

    for (uint64_t h = 0; h < r->n_heads && st == TR_OK; h++) {
        part = head_of(t, r, h);
        st = tr_gguf_read(g, part.offset, part.size, bytes);
        turning j = { c->kernels, &part,     bytes,
                      floats,     &w->first, (uint8_t *)w->data + h * w->head_size };
        if (st != TR_OK)
            break;
        tr_pool_for(c->pool, part.dim[1], 1, rows_to_floats, &j);
        tr_pool_for(c->pool, (part.dim[0] + TR_PANEL - 1) / TR_PANEL, 1, columns_to_rows, &j);
    }
    free(floats);
    free(bytes);
    return st;
}

/* The matrix of one head's K_h' and the bytes that it takes; false if they can't be counted. */
static bool lay_out_turned(const tr_compute *c, const tr_gguf_tensor *t, uint64_t n_key,
                           tr_head_weights *w)
{
    bool has_panels = c->kernels->panels[TR_TYPE_Q8_0] != NULL;
    tr_matrix m = { .type = TR_TYPE_Q8_0,
                    .n_out = t->dim[0],
                    .n_in = n_key,
                    .layout = has_panels ? TR_LAYOUT_PANELS : TR_LAYOUT_ROWS };

    if (!tr_type_row_size(m.type, m.n_in, &m.row_size))
        return false;
    size_t one = has_panels ? tr_panels_size(m.type, m.n_in, m.n_out) : m.row_size * m.n_out;
    w->first = m;
    w->head_size = tr_align_up(one, TR_ALIGN);
    return true;
}

/* K_h' of rows K_h, in blocks of Q8_0. */
static tr_status load_turned(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                             const slices *r, tr_head_weights *out)
{
    tr_head_weights w = { .head_size = 0 };

    if (!lay_out_turned(c, t, r->n_out, &w) || !tr_mul_size(w.head_size, r->n_heads, &w.size))
        return tr_fail(TR_E_FORMAT, "tensor %s: too large", t->name);
    tr_status st = tr_memory_new(w.size, t->name, &w.data);
    if (st == TR_OK)
        st = turn_heads(c, g, t, r, &w);
    if (st != TR_OK)
        tr_memory_free(&w.data, w.size);
    else
        *out = w;
    return st;
}

/* Whether rows take longer to become floats than turned ones take to be multiplied with. */
static bool wants_turning(const tr_compute *c, tr_type type, uint64_t n_key)
{
    return !c->exact && tr_block_has(type) && type != TR_TYPE_Q8_0 && n_key % TR_BLOCK == 0 &&
           n_key <= MAX_KEY;
}

/* Of a head's n_out rows of t. */
static uint64_t head_bytes(const tr_compute *c, const tr_gguf_tensor *t, uint64_t n_out)
{
    slices r = { 0, n_out, n_out, 1 };
    tr_gguf_tensor part = head_of(t, &r, 0);

    return tr_align_up(tr_weights_size_for(c, &part, 1), TR_ALIGN);
}

/* Of a head's K_h', as load_turned has it. */
static uint64_t turned_bytes(const tr_compute *c, const tr_gguf_tensor *t, uint64_t n_key)
{
    tr_head_weights w = { .head_size = 0 };

    return lay_out_turned(c, t, n_key, &w) ? w.head_size : 0;
}

uint64_t tr_latent_size(const tr_compute *c, const tr_model_config *config,
                        const tr_gguf_tensor *keys, const tr_gguf_tensor *values)
{
    uint64_t n_key = config->head_dim - config->n_rot;
    tr_compute by_rows = { c->kernels, c->pool, true };
    uint64_t one;

    if (values)
        one = head_bytes(c, keys, keys->dim[1]) + head_bytes(c, values, values->dim[1]);
    else
        one = head_bytes(c, keys, config->value_dim) + (wants_turning(c, keys->type, n_key)
                                                            ? turned_bytes(c, keys, n_key)
                                                            : head_bytes(&by_rows, keys, n_key));
    return one * config->n_heads;
}

tr_status tr_latent_load(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *keys,
                         const tr_gguf_tensor *values, tr_latent_weights *out)
{
    slices k = { 0, keys->dim[1], keys->dim[1], keys->dim[2] };
    slices v = { 0, values->dim[1], values->dim[1], values->dim[2] };
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
    slices k = { 0, step, n_key, config->n_heads };
    slices v = { n_key, step, config->value_dim, config->n_heads };
    tr_latent_weights w = { .has_turned_keys = wants_turning(c, t->type, n_key) };

    tr_status st = w.has_turned_keys ? load_turned(c, g, t, &k, &w.keys)
                                     : load_heads(c, g, t, &k, true, &w.keys);
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
