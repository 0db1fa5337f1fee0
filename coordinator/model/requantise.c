/* requantise.c - choose types, copy metadata, stream tensors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/requantise.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "compute/blocks.h"
#include "compute/gguf.h"
#include "compute/gguf_write.h"
#include "compute/kernels.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { STRIPE = 1 << 20 }; /* floats, or one row if that is longer */

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

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name);
    size_t m = strlen(tail);

    return n >= m && strcmp(name + n - m, tail) == 0;
}

static bool is_matrix(const tr_gguf_tensor *t)
{
    return t->n_dims >= 2 && t->dim[1] > 1 && ends_with(t->name, ".weight");
}

static tr_type type_wanted(const tr_requantise *r, const tr_gguf_tensor *t)
{
    for (size_t i = r->n_rules; i-- > 0;)
        if (fnmatch(r->rules[i].pattern, t->name, 0) == 0)
            return r->rules[i].type;
    if (!is_matrix(t) || strstr(t->name, "ffn_gate_inp") || strstr(t->name, "position_embd"))
        return t->type;
    return ends_with(t->name, "_exps.weight") ? r->experts : r->dense;
}

/* The type, or the nearest one whose blocks rows of n values fill. */
static tr_type type_that_fits(tr_type type, uint64_t n)
{
    const tr_type_info *info = tr_type_get(type);

    if (n % info->block == 0)
        return type;
    if (n % 32 != 0)
        return TR_TYPE_F16;
    switch (type) { /* of about the same size */
    case TR_TYPE_Q2_K:
    case TR_TYPE_Q3_K:
    case TR_TYPE_IQ4_XS:
        return TR_TYPE_IQ4_NL;
    case TR_TYPE_Q4_K:
        return TR_TYPE_Q4_1;
    case TR_TYPE_Q5_K:
        return TR_TYPE_Q5_1;
    default:
        return TR_TYPE_Q8_0;
    }
}

static tr_status choose_type(work *w, size_t i)
{
    const tr_gguf_tensor *t = tr_gguf_tensor_at(w->g, i);
    tr_type wanted = type_wanted(w->r, t);

    w->type[i] = type_that_fits(wanted, t->dim[0]);
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

/* ---- metadata ------------------------------------------------------------------------------- */

/* Numbers that files give their most frequent type, where they have one. */
static uint32_t file_type_of(tr_type type)
{
    static const struct {
        tr_type type;
        uint32_t number;
    } known[] = {
        { TR_TYPE_F32, 0 },     { TR_TYPE_F16, 1 },     { TR_TYPE_Q4_0, 2 },  { TR_TYPE_Q4_1, 3 },
        { TR_TYPE_Q8_0, 7 },    { TR_TYPE_Q5_0, 8 },    { TR_TYPE_Q5_1, 9 },  { TR_TYPE_Q2_K, 10 },
        { TR_TYPE_Q3_K, 12 },   { TR_TYPE_Q4_K, 14 },   { TR_TYPE_Q5_K, 16 }, { TR_TYPE_Q6_K, 18 },
        { TR_TYPE_IQ4_NL, 25 }, { TR_TYPE_IQ4_XS, 30 }, { TR_TYPE_BF16, 32 }, { TR_TYPE_MXFP4, 38 },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].type == type)
            return known[i].number;
    return 0;
}

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
    tr_gguf_put_u32(w->w, "general.file_type", file_type_of(w->r->experts));
    tr_gguf_put_u32(w->w, "general.quantization_version", 2);
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* Rows of a stripe, from one type to another. */
typedef struct {
    tr_type from, to;
    size_t n_in, row_in, row_out; /* values, bytes, bytes */
    const uint8_t *in;
    float *floats; /* [rows][n_in] */
    uint8_t *out;
    double *error, *size; /* [rows] */
} stripe;

static void convert_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    const stripe *s = ctx;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *x = s->floats + r * s->n_in;
        float back[256];
        tr_dequantise_row(s->from, s->in + r * s->row_in, s->n_in, x);
        tr_quantise_row(s->to, x, s->n_in, s->out + r * s->row_out);
        s->error[r] = s->size[r] = 0.0;
        for (size_t i = 0; i < s->n_in; i += 256) {
            size_t n = s->n_in - i < 256 ? s->n_in - i : 256;
            const tr_type_info *t = tr_type_get(s->to);
            tr_dequantise_row(s->to, s->out + r * s->row_out + i / t->block * t->size, n, back);
            for (size_t k = 0; k < n; k++) {
                double d = (double)back[k] - (double)x[i + k];
                s->error[r] += d * d;
                s->size[r] += (double)x[i + k] * (double)x[i + k];
            }
        }
    }
}

static tr_status convert_stripes(work *w, const tr_gguf_tensor *t, stripe *s, uint64_t n_rows,
                                 size_t per_stripe, uint8_t *in)
{
    tr_status st = TR_OK;

    for (uint64_t row = 0; row < n_rows && st == TR_OK; row += per_stripe) {
        size_t n = n_rows - row < per_stripe ? (size_t)(n_rows - row) : per_stripe;
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        st = tr_gguf_read(w->g, t->offset + row * s->row_in, n * s->row_in, in);
        if (st != TR_OK)
            return st;
        if (s->from != s->to) {
            tr_pool_for(w->r->pool, n, 1, convert_rows, s);
            for (size_t r = 0; r < n; r++) {
                w->result->error += s->error[r];
                w->result->size += s->size[r];
            }
        }
        st =
            tr_gguf_writer_data(w->w, (tr_bytes){ s->from == s->to ? in : s->out, n * s->row_out });
        w->done += n * s->row_out;
        tr_progress_show(&w->bar, w->done);
    }
    return st;
}

static tr_status write_tensor(work *w, size_t i)
{
    const tr_gguf_tensor *t = tr_gguf_tensor_at(w->g, i);
    stripe s = { .from = t->type, .to = w->type[i], .n_in = t->dim[0] };
    uint64_t n_rows = t->dim[1] * t->dim[2] * t->dim[3];

    if (!tr_type_row_size(s.from, s.n_in, &s.row_in) || !tr_type_row_size(s.to, s.n_in, &s.row_out))
        return tr_fail(TR_E_FORMAT, "model %s: tensor %s: rows are no whole blocks",
                       tr_gguf_path(w->g), t->name);
    size_t n = s.n_in < STRIPE ? STRIPE / s.n_in : 1;
    uint8_t *in = malloc(n * s.row_in);
    s.in = in;
    s.floats = malloc(n * s.n_in * sizeof *s.floats);
    s.out = malloc(n * s.row_out);
    s.error = malloc(n * sizeof *s.error);
    s.size = malloc(n * sizeof *s.size);
    tr_status st = in && s.floats && s.out && s.error && s.size
                       ? convert_stripes(w, t, &s, n_rows, n, in)
                       : tr_fail(TR_E_MEMORY, "quantize: no memory for rows of %zu", s.n_in);
    w->result->before[s.from] += n_rows * s.row_in;
    w->result->after[s.to] += n_rows * s.row_out;
    free(in);
    free(s.floats);
    free(s.out);
    free(s.error);
    free(s.size);
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
        st = tr_gguf_writer_new(w->r->out, &w->w);
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
