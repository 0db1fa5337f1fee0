/* matrix.c - copy weights out of the file; split linear maps over the pool.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/matrix.h"

#include "base/check.h"
#include "base/memory.h"
#include "compute/panels.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

tr_status tr_weights_check(const tr_gguf *g, const tr_gguf_tensor *t)
{
    const tr_type_info *info = tr_type_get(t->type);

    if (info->computable)
        return TR_OK;
    return tr_fail(TR_E_UNSUPPORTED,
                   "model %s: tensor %s is of type %s, for which there are no kernels",
                   tr_gguf_path(g), t->name, info->name);
}

static bool wants_panels(const tr_compute *c, tr_type type)
{
    return !c->exact && c->kernels->panels[type] != NULL;
}

/* Matrices first..first+count-1 of t as one, not yet in memory. */
static tr_matrix shape_of(const tr_gguf_tensor *t, size_t first, size_t count)
{
    tr_matrix m = { .type = t->type, .n_out = t->dim[1] * count, .n_in = t->dim[0] };

    TR_CHECK(count <= t->dim[2]);
    TR_CHECK(first <= t->dim[2] - count);
    TR_CHECK(tr_type_row_size(m.type, m.n_in, &m.row_size));
    return m;
}

/* Panels begin..end-1 of a stripe of rows, from a buffer to their place. */
typedef struct {
    const tr_matrix *m;
    const uint8_t *rows;
    size_t n_rows, panel_size;
    uint8_t *panels;
} pack_job;

static void pack_range(void *ctx, size_t thread, size_t begin, size_t end)
{
    const pack_job *j = ctx;

    (void)thread;
    for (size_t p = begin; p < end; p++) {
        size_t left = j->n_rows - p * TR_PANEL;
        tr_panel_pack(j->m->type, j->m->n_in, j->rows + p * TR_PANEL * j->m->row_size,
                      j->m->row_size, left < TR_PANEL ? left : TR_PANEL,
                      j->panels + p * j->panel_size);
    }
}

/* Read stripes of whole panels into a buffer; all threads lay them out, and so touch first what
 * they will use. */
static tr_status load_panels(tr_pool *pool, const tr_gguf *g, const tr_gguf_tensor *t,
                             uint64_t offset, const tr_matrix *m, uint8_t *panels)
{
    enum { STRIPE = 1 << 20 };
    size_t panel_size = tr_panel_size(m->type, m->n_in);
    size_t per_stripe = STRIPE / (TR_PANEL * m->row_size);
    size_t stripe = (per_stripe ? per_stripe : 1) * TR_PANEL; /* rows */

    stripe = stripe < m->n_out ? stripe : m->n_out;
    void *buffer = malloc(stripe * m->row_size);
    if (!buffer)
        return tr_fail(TR_E_MEMORY, "tensor %s: no memory for a stripe of %zu rows", t->name,
                       stripe);
    tr_status st = TR_OK;
    for (size_t row = 0; row < m->n_out && st == TR_OK; row += stripe) {
        size_t n = m->n_out - row < stripe ? m->n_out - row : stripe;
        st = tr_gguf_read(g, offset + row * m->row_size, n * m->row_size, buffer);
        if (st != TR_OK)
            break;
        pack_job j = { m, buffer, n, panel_size, panels + row / TR_PANEL * panel_size };
        tr_pool_for(pool, (n + TR_PANEL - 1) / TR_PANEL, 1, pack_range, &j);
    }
    free(buffer);
    return st;
}

/* pool NULL: rows as in the file; else panels. */
static tr_status load_into(tr_pool *pool, const tr_gguf *g, const tr_gguf_tensor *t, size_t first,
                           size_t count, void *memory, tr_matrix *out)
{
    tr_matrix m = shape_of(t, first, count);
    uint64_t offset = t->offset + first * m.row_size * t->dim[1];

    m.data = memory;
    tr_status st = pool ? load_panels(pool, g, t, offset, &m, memory)
                        : tr_gguf_read(g, offset, m.row_size * m.n_out, memory);
    if (st != TR_OK)
        return st;
    if (pool)
        m.layout = TR_LAYOUT_PANELS;
    *out = m;
    return TR_OK;
}

static tr_status load_new(tr_pool *pool, const tr_gguf *g, const tr_gguf_tensor *t, size_t first,
                          size_t count, size_t size, tr_weights *out)
{
    tr_weights w = { .size = size };

    tr_status st = tr_memory_new(size, t->name, &w.data);
    if (st != TR_OK)
        return st;
    st = load_into(pool, g, t, first, count, w.data, &w.matrix);
    if (st != TR_OK)
        tr_weights_free(&w);
    else
        *out = w;
    return st;
}

tr_status tr_weights_load(const tr_gguf *g, const tr_gguf_tensor *t, size_t first, size_t count,
                          tr_weights *out)
{
    tr_status st = tr_weights_check(g, t);

    if (st != TR_OK)
        return st;
    tr_matrix m = shape_of(t, first, count);
    return load_new(NULL, g, t, first, count, m.row_size * m.n_out, out);
}

size_t tr_weights_size_for(const tr_compute *c, const tr_gguf_tensor *t, size_t count)
{
    tr_matrix m = shape_of(t, 0, count);

    return wants_panels(c, t->type) ? tr_panels_size(m.type, m.n_in, m.n_out)
                                    : m.row_size * m.n_out;
}

tr_status tr_weights_load_for(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                              size_t first, size_t count, tr_weights *out)
{
    tr_status st = tr_weights_check(g, t);

    if (st != TR_OK)
        return st;
    return load_new(wants_panels(c, t->type) ? c->pool : NULL, g, t, first, count,
                    tr_weights_size_for(c, t, count), out);
}

tr_status tr_matrix_load_into(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                              size_t first, size_t count, void *memory, tr_matrix *out)
{
    tr_status st = tr_weights_check(g, t);

    if (st != TR_OK)
        return st;
    return load_into(wants_panels(c, t->type) ? c->pool : NULL, g, t, first, count, memory, out);
}

void tr_weights_free(tr_weights *w)
{
    tr_memory_free(&w->data, w->size);
    *w = (tr_weights){ 0 };
}

void tr_matrix_row(const tr_matrix *m, size_t r, float *out)
{
    const uint8_t *data = m->data;

    TR_CHECK(r < m->n_out);
    if (m->layout == TR_LAYOUT_PANELS)
        tr_panel_row(m->type, m->n_in, data + r / TR_PANEL * tr_panel_size(m->type, m->n_in),
                     r % TR_PANEL, out);
    else
        tr_dequantise_row(m->type, data + r * m->row_size, m->n_in, out);
}

tr_status tr_vector_load(const tr_gguf *g, const tr_gguf_tensor *t, float **out)
{
    tr_weights w = { 0 };
    void *vector = NULL;

    tr_status st = tr_weights_load(g, t, 0, t->dim[2], &w);
    if (st != TR_OK)
        return st;
    size_t n = w.matrix.n_in * w.matrix.n_out;
    st = tr_memory_new(n * sizeof(float), t->name, &vector);
    if (st == TR_OK) {
        tr_dequantise_row(t->type, w.matrix.data, n, vector);
        *out = vector;
    }
    tr_weights_free(&w);
    return st;
}

typedef struct {
    const tr_matrix *w;
    tr_matmul_fn fn;
    const void *x;
    size_t x_stride, n_rows;
    float *y;
} linear_job;

static void linear_outputs(void *ctx, size_t thread, size_t begin, size_t end)
{
    const linear_job *j = ctx;

    (void)thread;
    j->fn(j->w, begin, end, j->x, j->x_stride, j->n_rows, j->y, j->w->n_out);
}

void tr_linear(const tr_compute *c, const tr_matrix *w, tr_act act, const void *x, size_t x_stride,
               size_t n_rows, float *y)
{
    linear_job j = { w, tr_matmul_for(c->kernels, w, act), x, x_stride, n_rows, y };

    if (n_rows > 0)
        tr_pool_for(c->pool, w->n_out, 16, linear_outputs, &j);
}

typedef struct {
    const tr_kernels *kernels;
    tr_act act;
    const float *x;
    size_t n, row_size;
    uint8_t *out;
} act_job;

static void act_range(void *ctx, size_t thread, size_t begin, size_t end)
{
    const act_job *j = ctx;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        if (j->act == TR_ACT_Q8)
            j->kernels->act_q8(j->x + r * j->n, j->n, j->out + r * j->row_size);
        else
            memcpy(j->out + r * j->row_size, j->x + r * j->n, j->n * sizeof(float));
    }
}

void tr_act_rows(const tr_compute *c, tr_act act, const float *x, size_t n, size_t n_rows,
                 void *out)
{
    act_job j = { c->kernels, act, x, n, tr_act_row_size(act, n), out };

    tr_pool_for(c->pool, n_rows, 4, act_range, &j);
}

void tr_act_q8_part(const tr_kernels *k, const float *x, size_t begin, size_t end, size_t n,
                    void *row)
{
    enum { PIECE = 64 };
    uint8_t *to = row;
    alignas(64) uint8_t piece[2 * PIECE];

    for (size_t i = begin; i < end; i += PIECE) {
        size_t m = end - i < PIECE ? end - i : PIECE;
        k->act_q8(x + (i - begin), m, piece);
        memcpy(to + i, tr_q8_values(piece), m);
        memcpy(to + n + i / 32 * sizeof(float), tr_q8_scales(piece, m), m / 32 * sizeof(float));
        memcpy(to + n + n / 32 * sizeof(float) + i / 16 * sizeof(int16_t), tr_q8_sums(piece, m),
               m / 16 * sizeof(int16_t));
    }
    if (end == n) {
        size_t used = n + n / 32 * (sizeof(float) + 2 * sizeof(int16_t));
        memset(to + used, 0, tr_act_row_size(TR_ACT_Q8, n) - used);
    }
}
