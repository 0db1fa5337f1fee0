/* matrix.c - copy weights out of the file; split linear maps over the pool.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/matrix.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/memory.h"
#include "compute/panels.h"

#include <stdalign.h>
#include <stdatomic.h>
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

/* What one thread reads at once: small enough to be still in its cache when it is laid out. */
enum { READ_AT_ONCE = 256 << 10 };

/* A matrix on its way from the file to its place, in units of rows or of panels: one of them takes
 * `in` bytes there and `out` here. */
typedef struct {
    const tr_gguf *g;
    uint64_t offset;
    const tr_matrix *m;
    size_t n, in, out, in_last;
    uint8_t *to;
    uint8_t *buffer; /* [threads][piece * in], of panels; NULL: rows, which lie here as there */
    size_t piece;    /* units */
    atomic_size_t failed; /* no unit before it */
} load_job;

static size_t load_bytes(const load_job *j, size_t begin, size_t end)
{
    return (end - begin) * j->in - (end == j->n ? j->in - j->in_last : 0);
}

/* Where units from begin on go, or first to the thread's buffer. */
static uint8_t *load_place(const load_job *j, size_t thread, size_t begin)
{
    return j->buffer ? j->buffer + thread * j->piece * j->in : j->to + begin * j->out;
}

static void lay_out(const load_job *j, const uint8_t *rows, size_t begin, size_t end)
{
    for (size_t p = begin; p < end; p++) {
        size_t left = j->m->n_out - p * TR_PANEL;
        tr_panel_pack(j->m->type, j->m->n_in, rows + (p - begin) * j->in, j->m->row_size,
                      left < TR_PANEL ? left : TR_PANEL, j->to + p * j->out);
    }
}

static void load_range(void *ctx, size_t thread, size_t begin, size_t end)
{
    load_job *j = ctx;

    for (size_t at = begin; at < end; at += j->piece) {
        size_t to = end - at > j->piece ? at + j->piece : end;
        uint8_t *place = load_place(j, thread, at);
        if (!tr_gguf_try_read(j->g, j->offset + at * j->in, load_bytes(j, at, to), place)) {
            size_t before = atomic_load(&j->failed);
            while (at < before && !atomic_compare_exchange_weak(&j->failed, &before, at))
                ;
            return;
        }
        if (j->buffer)
            lay_out(j, place, at, to);
    }
}

/* From where a thread failed: by this one alone, which says why. */
static tr_status load_rest(load_job *j)
{
    tr_status st = TR_OK;

    for (size_t at = atomic_load(&j->failed); at < j->n && st == TR_OK; at += j->piece) {
        size_t to = j->n - at > j->piece ? at + j->piece : j->n;
        uint8_t *place = load_place(j, 0, at);
        st = tr_gguf_read(j->g, j->offset + at * j->in, load_bytes(j, at, to), place);
        if (st == TR_OK && j->buffer)
            lay_out(j, place, at, to);
    }
    return st;
}

/* All threads read and lay out pieces; none waits for another until the end. */
static tr_status load_by(tr_pool *pool, load_job *j)
{
    tr_status st = tr_fault_before_read(load_bytes(j, 0, j->n));

    if (st != TR_OK)
        return st;
    j->piece = READ_AT_ONCE / j->in ? READ_AT_ONCE / j->in : 1;
    atomic_init(&j->failed, j->n);
    tr_pool_for(pool, j->n, 1, load_range, j);
    return load_rest(j);
}

static tr_status load_rows(tr_pool *pool, load_job *j)
{
    j->n = j->m->n_out;
    j->in = j->in_last = j->out = j->m->row_size;
    return load_by(pool, j);
}

static tr_status load_panels(tr_pool *pool, load_job *j)
{
    size_t rest = j->m->n_out % TR_PANEL;

    j->n = (j->m->n_out + TR_PANEL - 1) / TR_PANEL;
    j->in = TR_PANEL * j->m->row_size;
    j->in_last = (rest ? rest : TR_PANEL) * j->m->row_size;
    j->out = tr_panel_size(j->m->type, j->m->n_in);
    size_t piece = j->in > READ_AT_ONCE ? j->in : READ_AT_ONCE;
    j->buffer = malloc(tr_pool_threads(pool) * piece);
    if (!j->buffer)
        return tr_fail(TR_E_MEMORY, "loading: no memory to read %zu bytes at once", piece);
    tr_status st = load_by(pool, j);
    free(j->buffer);
    return st;
}

/* Without a pool: rows as in the file, by this thread. */
static tr_status load_into(tr_pool *pool, bool as_panels, const tr_gguf *g, const tr_gguf_tensor *t,
                           size_t first, size_t count, void *memory, tr_matrix *out)
{
    tr_matrix m = shape_of(t, first, count);
    load_job j = {
        .g = g, .offset = t->offset + first * m.row_size * t->dim[1], .m = &m, .to = memory
    };

    m.data = memory;
    m.layout = pool && as_panels ? TR_LAYOUT_PANELS : TR_LAYOUT_ROWS;
    tr_status st = !pool       ? tr_gguf_read(g, j.offset, m.row_size * m.n_out, memory)
                   : as_panels ? load_panels(pool, &j)
                               : load_rows(pool, &j);
    if (st == TR_OK)
        *out = m;
    return st;
}

typedef struct {
    uintptr_t begin, end;
} pages;

static void take_range(void *ctx, size_t thread, size_t begin, size_t end)
{
    const pages *p = ctx;
    uintptr_t first = p->begin / TR_HUGE_PAGE;

    (void)thread;
    for (uintptr_t i = first + begin; i < first + end; i++) {
        uintptr_t from = i * TR_HUGE_PAGE > p->begin ? i * TR_HUGE_PAGE : p->begin;
        uintptr_t to = (i + 1) * TR_HUGE_PAGE < p->end ? (i + 1) * TR_HUGE_PAGE : p->end;
        tr_memory_take((void *)from, to - from);
    }
}

void tr_pages_take(tr_pool *pool, void *memory, size_t size)
{
    pages p = { (uintptr_t)memory, (uintptr_t)memory + size };

    tr_pool_for(pool, (p.end - 1) / TR_HUGE_PAGE - p.begin / TR_HUGE_PAGE + 1, 1, take_range, &p);
}

static tr_status load_new(tr_pool *pool, bool as_panels, const tr_gguf *g, const tr_gguf_tensor *t,
                          size_t first, size_t count, size_t size, tr_weights *out)
{
    tr_weights w = { .size = size };

    tr_status st = tr_memory_new(size, t->name, &w.data);
    if (st != TR_OK)
        return st;
    if (pool && size >= TR_HUGE_PAGE)
        tr_pages_take(pool, w.data, size);
    st = load_into(pool, as_panels, g, t, first, count, w.data, &w.matrix);
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
    return load_new(NULL, false, g, t, first, count, m.row_size * m.n_out, out);
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
    return load_new(c->pool, wants_panels(c, t->type), g, t, first, count,
                    tr_weights_size_for(c, t, count), out);
}

tr_status tr_matrix_load_into(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                              size_t first, size_t count, void *memory, tr_matrix *out)
{
    tr_status st = tr_weights_check(g, t);

    if (st != TR_OK)
        return st;
    return load_into(c->pool, wants_panels(c, t->type), g, t, first, count, memory, out);
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
