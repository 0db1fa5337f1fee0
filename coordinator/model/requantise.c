/* requantise.c - choose types, copy metadata, stream tensors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/requantise.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "compute/blocks.h"
#include "compute/gguf.h"
#include "compute/gguf_write.h"
#include "coordinator/model/retype.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    const tr_requantise *r;
    tr_gguf *g;
    tr_gguf_writer *w;
    tr_type *type; /* [n_tensors] to be written */
    tr_progress bar;
    uint64_t done;
    tr_requantise_result *result;
} work;

/* ---- which type ---------------------------------------------------------------------------- */

static tr_status choose_type(work *w, size_t i)
{
    const tr_gguf_tensor *t = tr_gguf_tensor_at(w->g, i);
    tr_type wanted;

    w->type[i] = tr_type_rules_choose(&w->r->types, t->name, t->type, t->dim[0],
                                      t->n_dims >= 2 && t->dim[1] > 1, &wanted);
    if (w->type[i] == t->type)
        return TR_OK;
    if (w->type[i] != wanted)
        tr_log(TR_LOG_INFO, "%s: rows of %llu values don't fill blocks of %s, so it becomes %s",
               t->name, (unsigned long long)t->dim[0], tr_type_get(wanted)->name,
               tr_type_get(w->type[i])->name);
    if (!tr_type_get(t->type)->computable)
        return tr_fail(TR_E_UNSUPPORTED, "model %s: tensor %s is of type %s, which can't be read",
                       tr_gguf_path(w->g), t->name, tr_type_get(t->type)->name);
    if (tr_block_has(t->type) && tr_block_has(w->type[i]) && !w->r->force)
        return tr_fail(TR_E_UNSUPPORTED,
                       "model %s: tensor %s is %s already, and quantising it again adds to its "
                       "error: start from a file of floats, or give --force",
                       tr_gguf_path(w->g), t->name, tr_type_get(t->type)->name);
    return TR_OK;
}

static const char *name_at(const void *ctx, size_t i)
{
    return tr_gguf_tensor_at(ctx, i)->name;
}

/* ---- metadata ------------------------------------------------------------------------------- */

static bool key_is(const tr_gguf_entry *e, const char *key)
{
    return e->key.size == strlen(key) && memcmp(e->key.data, key, e->key.size) == 0;
}

/* How the bytes lie in files, which is the writer's own affair: it aligns as files without that key
 * are, and writes one. */
static bool is_of_files(const tr_gguf_entry *e)
{
    return key_is(e, "general.alignment") ||
           (e->key.size > 6 && memcmp(e->key.data, "split.", 6) == 0);
}

static void put_metadata(work *w)
{
    for (size_t i = 0; i < tr_gguf_n_entries(w->g); i++) {
        const tr_gguf_entry *e = tr_gguf_entry_at(w->g, i);
        if (!key_is(e, "general.file_type") && !key_is(e, "general.quantization_version") &&
            !is_of_files(e))
            tr_gguf_put_entry(w->w, e);
    }
    tr_gguf_put_u32(w->w, "general.file_type", tr_type_rules_file_type(w->r->types.experts));
    tr_gguf_put_u32(w->w, "general.quantization_version", 2);
}

/* ---- tensors -------------------------------------------------------------------------------- */

static tr_status write_stripes(work *w, const tr_gguf_tensor *t, tr_retype *s)
{
    uint64_t n_rows = t->dim[1] * t->dim[2] * t->dim[3];
    tr_status st = TR_OK;

    for (uint64_t row = 0; row < n_rows && st == TR_OK; row += s->n_rows) {
        size_t n = n_rows - row < s->n_rows ? (size_t)(n_rows - row) : s->n_rows;
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        st = tr_gguf_read(w->g, t->offset + row * s->row_in, n * s->row_in, s->in);
        if (st != TR_OK)
            return st;
        st = tr_gguf_writer_data(w->w, tr_retype_rows(s, w->r->pool, n));
        w->done += n * s->row_out;
        tr_progress_show(&w->bar, w->done);
    }
    w->result->before[s->from] += n_rows * s->row_in;
    w->result->after[s->to] += n_rows * s->row_out;
    w->result->error += s->error;
    w->result->size += s->size;
    return st;
}

static tr_status write_tensor(work *w, size_t i)
{
    const tr_gguf_tensor *t = tr_gguf_tensor_at(w->g, i);
    tr_retype s;

    tr_status st = tr_retype_init(&s, t->type, w->type[i], t->dim[0]);
    if (st == TR_OK)
        st = write_stripes(w, t, &s);
    tr_retype_fini(&s);
    return st;
}

static tr_status write_all(work *w)
{
    size_t n = tr_gguf_n_tensors(w->g);
    tr_status st = TR_OK;

    w->type = calloc(n ? n : 1, sizeof *w->type);
    if (!w->type)
        return tr_fail(TR_E_MEMORY, "quantize: no memory for %zu tensors", n);
    for (size_t i = 0; i < n && st == TR_OK; i++)
        st = choose_type(w, i);
    if (st == TR_OK)
        tr_type_rules_warn(&w->r->types, name_at, w->g, n);
    if (st == TR_OK)
        st = tr_gguf_writer_new(w->r->out, w->r->overwrite, &w->w);
    if (st != TR_OK)
        return st;
    put_metadata(w);
    for (size_t i = 0; i < n; i++) {
        const tr_gguf_tensor *t = tr_gguf_tensor_at(w->g, i);
        tr_gguf_put_tensor(w->w, t->name, w->type[i], t->dim, t->n_dims);
    }
    st = tr_gguf_writer_begin_data(w->w);
    tr_progress_begin(&w->bar, "writing", tr_gguf_writer_data_size(w->w), w->r->progress);
    for (size_t i = 0; i < n && st == TR_OK; i++)
        st = write_tensor(w, i);
    tr_progress_end(&w->bar);
    return st == TR_OK ? tr_gguf_writer_finish(&w->w) : st;
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

tr_status tr_requantise_run(const tr_requantise *r, tr_requantise_result *out)
{
    tr_requantise_result result = { .error = 0.0 };
    work w = { .r = r, .result = &result };

    if (is_same_file(r->in, r->out))
        return tr_fail(TR_E_USAGE, "%s: is the input too; give another output", r->out);
    tr_status st = tr_gguf_open(r->in, &w.g);
    if (st == TR_OK)
        st = write_all(&w);
    if (st == TR_OK)
        *out = result;
    tr_gguf_writer_abandon(&w.w);
    tr_gguf_close(&w.g);
    free(w.type);
    return st;
}
