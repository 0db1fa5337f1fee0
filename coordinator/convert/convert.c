/* convert.c - read, find what there must be, make the header, check it, stream the data.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/convert.h"

#include "base/check.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/progress.h"
#include "coordinator/convert/output.h"
#include "coordinator/convert/recipes.h"
#include "coordinator/convert/rows.h"
#include "coordinator/convert/vocabulary.h"
#include "coordinator/model/model.h"
#include "coordinator/model/retype.h"
#include "coordinator/text/chat.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>

enum { ERROR, SIZE }; /* of the result, as the output's figures */

typedef struct {
    const tr_convert *c;
    tr_json_file config, tokenizer, settings, generation;
    char *chat_template;
    size_t chat_template_size;
    tr_checkpoint *tensors;
    tr_hf_model model;
    tr_recipes recipes;
    uint8_t *header;
    size_t header_size;
    tr_gguf *g; /* the header, read back */
    tr_output *out;
    tr_progress bar;
    tr_convert_result *result;
} work;

/* ---- what is there -------------------------------------------------------------------------- */

static tr_status read_template(work *w)
{
    char *path = NULL;

    if (asprintf(&path, "%s/chat_template.jinja", w->c->dir) < 0)
        return tr_fail(TR_E_MEMORY, "%s: no memory", w->c->dir);
    tr_status st =
        tr_text_file_read(path, TR_JSON_OPTIONAL, &w->chat_template, &w->chat_template_size);
    free(path);
    return st;
}

static tr_status open_all(work *w)
{
    const char *dir = w->c->dir;

    tr_status st = tr_json_file_open(dir, "config.json", TR_JSON_REQUIRED, &w->config);
    if (st == TR_OK) {
        w->model = (tr_hf_model){ .dir = dir, .config = &w->config };
        st = tr_family_find(&w->model);
    }
    if (st == TR_OK)
        st = tr_json_file_open(dir, "tokenizer.json", TR_JSON_REQUIRED, &w->tokenizer);
    if (st == TR_OK)
        st = tr_json_file_open(dir, "tokenizer_config.json", TR_JSON_OPTIONAL, &w->settings);
    if (st == TR_OK)
        st = tr_json_file_open(dir, "generation_config.json", TR_JSON_OPTIONAL, &w->generation);
    if (st == TR_OK)
        st = read_template(w);
    return st == TR_OK ? tr_checkpoint_open(dir, &w->tensors) : st;
}

/* ---- the header ----------------------------------------------------------------------------- */

/* The last part of the directory's path. */
static tr_bytes name_of(const char *dir)
{
    size_t end = strlen(dir);

    while (end > 1 && dir[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && dir[begin - 1] != '/')
        begin--;
    return (tr_bytes){ (const uint8_t *)dir + begin, end - begin };
}

/* The type that most values have. */
static tr_type main_type(const tr_recipes *p)
{
    double values[TR_TYPE_COUNT] = { 0 };
    tr_type best = TR_TYPE_F32;

    for (size_t i = 0; i < p->n; i++)
        values[p->recipe[i].to] += (double)p->recipe[i].n_rows * (double)p->recipe[i].row_len;
    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++)
        if (values[t] > values[best])
            best = (tr_type)t;
    return best;
}

/* Names of directories are any bytes, text in files is UTF-8. */
static tr_bytes printable(tr_bytes name)
{
    size_t bad;

    return tr_utf8_valid(name, &bad) ? name : tr_bytes_of("converted");
}

static tr_status fill_header(work *w)
{
    tr_vocabulary_files files = {
        .tokenizer = &w->tokenizer,
        .settings = &w->settings,
        .generation = &w->generation,
        .config = &w->config,
        .chat_template = { (const uint8_t *)w->chat_template, w->chat_template_size },
    };
    tr_gguf_writer *g = w->model.w;

    tr_gguf_put_string(g, "general.architecture", tr_bytes_of(w->model.family->arch));
    tr_gguf_put_string(g, "general.name", printable(name_of(w->c->dir)));
    tr_status st = tr_family_read(&w->model);
    if (st == TR_OK)
        st = tr_recipes_make(&w->model, w->tensors, &w->c->types, &w->recipes);
    if (st != TR_OK)
        return st;
    tr_gguf_put_u32(g, "general.file_type", tr_type_rules_file_type(main_type(&w->recipes)));
    tr_gguf_put_u32(g, "general.quantization_version", 2);
    st = tr_vocabulary_put(&files, (size_t)w->model.size[TR_SIZE_VOCAB], w->c->pre, g);
    for (size_t i = 0; i < w->recipes.n && st == TR_OK; i++) {
        const tr_recipe *r = &w->recipes.recipe[i];
        tr_gguf_put_tensor(g, r->name, r->to, r->dim, r->n_dims);
    }
    return st == TR_OK ? tr_gguf_writer_header(g, &w->header, &w->header_size) : st;
}

static tr_status make_header(work *w)
{
    tr_status st = tr_gguf_writer_new(NULL, false, &w->model.w);

    if (st != TR_OK)
        return st;
    st = fill_header(w);
    w->result->bytes = w->header_size + tr_gguf_writer_data_size(w->model.w);
    tr_gguf_writer_abandon(&w->model.w);
    return st;
}

/* A template that the file can hold but nobody here can read is worth a line, no more. */
static void try_template(const work *w, const tr_tokenizer *t)
{
    char reason[512];
    tr_chat *chat = NULL;

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_chat_open(w->g, t, NULL, &chat);
    tr_fail_capture_end();
    if (st != TR_OK)
        tr_log(TR_LOG_WARN, "chat: %s", reason);
    tr_chat_close(&chat);
}

/* Whatever would refuse the finished file refuses it now. */
static tr_status check_header(work *w)
{
    tr_tokenizer *t = NULL;

    tr_status st =
        tr_gguf_parse(w->c->out, (tr_bytes){ w->header, w->header_size }, w->result->bytes, &w->g);
    if (st == TR_OK)
        st = tr_model_check(w->g);
    if (st == TR_OK)
        st = tr_tokenizer_new(w->g, &t);
    if (st == TR_OK)
        try_template(w, t);
    tr_tokenizer_free(&t);
    return st;
}

/* ---- data ----------------------------------------------------------------------------------- */

static tr_status write_zeros(work *w, uint64_t until)
{
    static const uint8_t zeros[64];
    uint64_t n = until - tr_output_size(w->out);

    TR_CHECK(n < sizeof zeros);
    return n > 0 ? tr_output_write(w->out, (tr_bytes){ zeros, (size_t)n }) : TR_OK;
}

/* Writes what of bytes, which belong at `at`, is not there yet. */
static tr_status write_rest(work *w, uint64_t at, tr_bytes bytes)
{
    uint64_t have = tr_output_size(w->out);

    TR_CHECK(have >= at);
    if (have - at >= bytes.size)
        return TR_OK;
    size_t skip = (size_t)(have - at);
    tr_status st = tr_output_write(w->out, (tr_bytes){ bytes.data + skip, bytes.size - skip });
    tr_progress_show(&w->bar, tr_output_size(w->out));
    return st;
}

/* A stripe of which nothing is there comes from the directory, one that is there is passed over. */
static tr_status write_stripes(work *w, const tr_recipe *r, uint64_t at, tr_retype *s,
                               tr_row_reader *reader)
{
    double *figures = tr_output_figures(w->out);
    double error = figures[ERROR], size = figures[SIZE];
    tr_status st = TR_OK;

    for (uint64_t row = 0; row < r->n_rows && st == TR_OK; row += s->n_rows) {
        size_t n = r->n_rows - row < s->n_rows ? (size_t)(r->n_rows - row) : s->n_rows;
        uint64_t begin = at + row * s->row_out;
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        if (begin + n * s->row_out <= tr_output_size(w->out))
            continue;
        st = tr_row_reader_read(reader, row, n, s->in);
        if (st != TR_OK)
            return st;
        tr_bytes rows = tr_retype_rows(s, w->c->pool, n);
        figures[ERROR] = error + s->error;
        figures[SIZE] = size + s->size;
        st = write_rest(w, begin, rows);
    }
    return st;
}

static tr_status write_tensor(work *w, size_t i)
{
    const tr_recipe *r = &w->recipes.recipe[i];
    const tr_gguf_tensor *t = tr_gguf_find(w->g, r->name);
    tr_row_reader reader = { .recipe = NULL };
    tr_retype s;

    TR_CHECK(t != NULL);
    if (t->offset + t->size <= tr_output_size(w->out))
        return TR_OK;
    tr_status st = tr_output_size(w->out) < t->offset ? write_zeros(w, t->offset) : TR_OK;
    if (st != TR_OK)
        return st;
    st = tr_retype_init(&s, r->from, r->to, r->row_len);
    if (st == TR_OK)
        st = tr_row_reader_init(&reader, r, s.n_rows);
    if (st == TR_OK)
        st = write_stripes(w, r, t->offset, &s, &reader);
    tr_row_reader_fini(&reader);
    tr_retype_fini(&s);
    return st;
}

static tr_status write_all(work *w)
{
    tr_output_content content = { tr_gguf_identity(w->g) ^ tr_checkpoint_identity(w->tensors),
                                  w->result->bytes };

    tr_status st = tr_output_open(w->c->out, &content, w->c->overwrite, w->c->progress, &w->out);
    if (st != TR_OK)
        return st;
    w->result->kept = tr_output_size(w->out);
    if (w->result->kept > 0)
        tr_log(TR_LOG_INFO, "%s.part: %llu of %llu bytes are there and sound: going on", w->c->out,
               (unsigned long long)w->result->kept, (unsigned long long)w->result->bytes);
    tr_progress_begin(&w->bar, "converting", w->result->bytes, w->c->progress);
    st = write_rest(w, 0, (tr_bytes){ w->header, w->header_size });
    for (size_t i = 0; i < w->recipes.n && st == TR_OK; i++)
        st = write_tensor(w, i);
    tr_progress_end(&w->bar);
    if (st == TR_OK)
        st = write_zeros(w, w->result->bytes);
    w->result->error = tr_output_figures(w->out)[ERROR];
    w->result->size = tr_output_figures(w->out)[SIZE];
    return st == TR_OK ? tr_output_finish(&w->out) : st;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static void close_all(work *w)
{
    tr_output_close(&w->out);
    tr_gguf_close(&w->g);
    free(w->header);
    tr_recipes_fini(&w->recipes);
    free(w->model.rope_factors);
    tr_checkpoint_close(&w->tensors);
    free(w->chat_template);
    tr_json_file_close(&w->generation);
    tr_json_file_close(&w->settings);
    tr_json_file_close(&w->tokenizer);
    tr_json_file_close(&w->config);
}

tr_status tr_convert_run(const tr_convert *c, tr_convert_result *out)
{
    tr_convert_result result = { .bytes = 0 };
    work w = { .c = c, .result = &result };

    tr_status st = open_all(&w);
    if (st == TR_OK)
        st = make_header(&w);
    if (st == TR_OK)
        st = check_header(&w);
    if (st == TR_OK)
        st = write_all(&w);
    result.n_tensors = w.recipes.n;
    close_all(&w);
    if (st == TR_OK)
        *out = result;
    return st;
}
