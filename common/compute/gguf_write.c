/* gguf_write.c - collect the header in memory, stream the data behind it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/gguf_write.h"

#include "base/check.h"
#include "base/new_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ALIGNMENT = 32, MAGIC = 0x46554747, VERSION = 3 };

typedef struct {
    uint8_t *data;
    size_t size, capacity;
} buffer;

struct tr_gguf_writer {
    const char *name; /* for error lines */
    tr_new_file place;
    FILE *file; /* NULL for a header alone, and after it is closed */
    buffer entries, tensors;
    uint64_t n_entries, n_tensors;
    uint64_t data_size; /* of the tensors declared, each padded */
    uint64_t *end;      /* [n_tensors] unpadded end of each, from the start of the data */
    uint64_t written;   /* data bytes, padding included */
    size_t current;     /* tensor being written */
    tr_status st;       /* sticky */
};

static tr_status io_failed(tr_gguf_writer *w, const char *what)
{
    w->st = tr_fail(TR_E_IO, "%s: %s: %s", w->place.part, what, strerror(errno));
    return w->st;
}

tr_status tr_gguf_writer_new(const char *path, bool overwrite, tr_gguf_writer **out)
{
    tr_gguf_writer *w = calloc(1, sizeof *w);

    if (!w)
        return tr_fail(TR_E_MEMORY, "%s: no memory", path ? path : "header");
    w->name = path ? path : "header";
    tr_status st = path ? tr_new_file_open(path, overwrite, &w->place) : TR_OK;
    if (st == TR_OK && path)
        st = tr_new_file_stream(&w->place, &w->file);
    if (st != TR_OK) {
        tr_gguf_writer_abandon(&w);
        return st;
    }
    *out = w;
    return TR_OK;
}

/* ---- the header ----------------------------------------------------------------------- */

static void put(tr_gguf_writer *w, buffer *b, const void *data, size_t size)
{
    if (w->st != TR_OK)
        return;
    if (b->size + size > b->capacity) {
        size_t capacity = 2 * (b->size + size);
        uint8_t *grown = realloc(b->data, capacity);
        if (!grown) {
            w->st = tr_fail(TR_E_MEMORY, "%s: no memory for the header", w->name);
            return;
        }
        b->data = grown;
        b->capacity = capacity;
    }
    if (size > 0)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_u32(tr_gguf_writer *w, buffer *b, uint32_t v)
{
    put(w, b, &v, sizeof v);
}

static void put_u64(tr_gguf_writer *w, buffer *b, uint64_t v)
{
    put(w, b, &v, sizeof v);
}

static void put_text(tr_gguf_writer *w, buffer *b, tr_bytes text)
{
    put_u64(w, b, text.size);
    put(w, b, text.data, text.size);
}

static void put_key(tr_gguf_writer *w, const char *key, tr_gguf_kind kind)
{
    put_text(w, &w->entries, tr_bytes_of(key));
    put_u32(w, &w->entries, (uint32_t)kind);
    w->n_entries++;
}

void tr_gguf_put_u32(tr_gguf_writer *w, const char *key, uint32_t v)
{
    put_key(w, key, TR_GGUF_U32);
    put_u32(w, &w->entries, v);
}

void tr_gguf_put_f32(tr_gguf_writer *w, const char *key, float v)
{
    put_key(w, key, TR_GGUF_F32);
    put(w, &w->entries, &v, sizeof v);
}

void tr_gguf_put_bool(tr_gguf_writer *w, const char *key, bool v)
{
    uint8_t byte = v ? 1 : 0;

    put_key(w, key, TR_GGUF_BOOL);
    put(w, &w->entries, &byte, 1);
}

void tr_gguf_put_string(tr_gguf_writer *w, const char *key, tr_bytes v)
{
    put_key(w, key, TR_GGUF_STRING);
    put_text(w, &w->entries, v);
}

void tr_gguf_put_entry(tr_gguf_writer *w, const tr_gguf_entry *e)
{
    put_text(w, &w->entries, e->key);
    put_u32(w, &w->entries, (uint32_t)e->kind);
    if (e->kind == TR_GGUF_ARRAY) {
        put_u32(w, &w->entries, (uint32_t)e->item);
        put_u64(w, &w->entries, e->n);
    }
    put(w, &w->entries, e->raw.data, e->raw.size);
    w->n_entries++;
}

void tr_gguf_put_strings(tr_gguf_writer *w, const char *key, const tr_bytes *v, size_t n)
{
    put_key(w, key, TR_GGUF_ARRAY);
    put_u32(w, &w->entries, TR_GGUF_STRING);
    put_u64(w, &w->entries, n);
    for (size_t i = 0; i < n; i++)
        put_text(w, &w->entries, v[i]);
}

void tr_gguf_put_i32s(tr_gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    put_key(w, key, TR_GGUF_ARRAY);
    put_u32(w, &w->entries, TR_GGUF_I32);
    put_u64(w, &w->entries, n);
    put(w, &w->entries, v, n * sizeof *v);
}

void tr_gguf_put_f32s(tr_gguf_writer *w, const char *key, const float *v, size_t n)
{
    put_key(w, key, TR_GGUF_ARRAY);
    put_u32(w, &w->entries, TR_GGUF_F32);
    put_u64(w, &w->entries, n);
    put(w, &w->entries, v, n * sizeof *v);
}

void tr_gguf_put_tensor(tr_gguf_writer *w, const char *name, tr_type type, const uint64_t *dim,
                        uint32_t n_dims)
{
    size_t size;

    TR_CHECK(n_dims >= 1);
    TR_CHECK(n_dims <= TR_GGUF_MAX_DIMS);
    TR_CHECK(tr_type_row_size(type, dim[0], &size));
    put_text(w, &w->tensors, tr_bytes_of(name));
    put_u32(w, &w->tensors, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) {
        put_u64(w, &w->tensors, dim[i]);
        if (i > 0)
            TR_CHECK(tr_mul_size(size, dim[i], &size));
    }
    put_u32(w, &w->tensors, (uint32_t)type);
    put_u64(w, &w->tensors, w->data_size);
    uint64_t *end = realloc(w->end, (w->n_tensors + 1) * sizeof *end);
    if (!end) {
        w->st = tr_fail(TR_E_MEMORY, "%s: no memory for the header", w->name);
        return;
    }
    w->end = end;
    w->end[w->n_tensors++] = w->data_size + size;
    w->data_size = tr_align_up(w->data_size + size, ALIGNMENT);
}

uint64_t tr_gguf_writer_data_size(const tr_gguf_writer *w)
{
    return w->data_size;
}

/* ---- the file ------------------------------------------------------------------------- */

static tr_status write_all(tr_gguf_writer *w, const void *data, size_t size)
{
    if (w->st == TR_OK && size > 0 && fwrite(data, 1, size, w->file) != size)
        return io_failed(w, "write");
    return w->st;
}

static tr_status pad(tr_gguf_writer *w, uint64_t at)
{
    static const uint8_t zeros[ALIGNMENT];

    return write_all(w, zeros, (size_t)(tr_align_up(at, ALIGNMENT) - at));
}

/* What stands in front of entries and tensors. */
enum { START = 2 * sizeof(uint32_t) + 2 * sizeof(uint64_t) };

static void write_start(const tr_gguf_writer *w, uint8_t *to)
{
    const uint32_t start[] = { MAGIC, VERSION };
    const uint64_t counts[] = { w->n_tensors, w->n_entries };

    memcpy(to, start, sizeof start);
    memcpy(to + sizeof start, counts, sizeof counts);
}

tr_status tr_gguf_writer_header(const tr_gguf_writer *w, uint8_t **header, size_t *size)
{
    size_t used = START + w->entries.size + w->tensors.size;
    size_t all = tr_align_up(used, ALIGNMENT);

    if (w->st != TR_OK)
        return w->st;
    uint8_t *to = calloc(1, all);
    if (!to)
        return tr_fail(TR_E_MEMORY, "%s: no memory for the header", w->name);
    write_start(w, to);
    if (w->entries.size > 0)
        memcpy(to + START, w->entries.data, w->entries.size);
    if (w->tensors.size > 0)
        memcpy(to + START + w->entries.size, w->tensors.data, w->tensors.size);
    *header = to;
    *size = all;
    return TR_OK;
}

tr_status tr_gguf_writer_begin_data(tr_gguf_writer *w)
{
    uint8_t start[START];

    write_start(w, start);
    write_all(w, start, sizeof start);
    write_all(w, w->entries.data, w->entries.size);
    write_all(w, w->tensors.data, w->tensors.size);
    return pad(w, sizeof start + w->entries.size + w->tensors.size);
}

tr_status tr_gguf_writer_data(tr_gguf_writer *w, tr_bytes bytes)
{
    TR_CHECK(w->current < w->n_tensors);
    TR_CHECK(bytes.size <= w->end[w->current] - w->written);
    write_all(w, bytes.data, bytes.size);
    w->written += bytes.size;
    if (w->written == w->end[w->current]) {
        pad(w, w->written);
        w->written = tr_align_up(w->written, ALIGNMENT);
        w->current++;
    }
    return w->st;
}

tr_status tr_gguf_writer_finish(tr_gguf_writer **writer)
{
    tr_gguf_writer *w = *writer;

    TR_CHECK(w->st != TR_OK || w->current == w->n_tensors);
    if (w->st == TR_OK) {
        int closed = fclose(w->file);
        w->file = NULL; /* it is gone in either case */
        if (closed != 0)
            io_failed(w, "write");
    }
    if (w->st == TR_OK)
        w->st = tr_new_file_place(&w->place);
    tr_status st = w->st;
    tr_gguf_writer_abandon(writer);
    return st;
}

void tr_gguf_writer_abandon(tr_gguf_writer **writer)
{
    tr_gguf_writer *w = *writer;

    if (!w)
        return;
    if (w->file)
        fclose(w->file);
    tr_new_file_close(&w->place, TR_NEW_FILE_REMOVE);
    free(w->entries.data);
    free(w->tensors.data);
    free(w->end);
    free(w);
    *writer = NULL;
}
