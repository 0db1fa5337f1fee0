/* gguf_meta.c - look things up in a parsed file, and convert values with care.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/cursor.h"
#include "compute/gguf_entry.h"

#include <stdlib.h>

const char *tr_gguf_path(const tr_gguf *g)
{
    return g->path;
}

uint64_t tr_gguf_file_size(const tr_gguf *g)
{
    return g->file_size;
}

uint32_t tr_gguf_version(const tr_gguf *g)
{
    return g->version;
}

uint64_t tr_gguf_identity(const tr_gguf *g)
{
    return g->identity;
}

size_t tr_gguf_n_tensors(const tr_gguf *g)
{
    return g->n_tensors;
}

const tr_gguf_tensor *tr_gguf_tensor_at(const tr_gguf *g, size_t i)
{
    return &g->tensor[i];
}

size_t tr_gguf_n_entries(const tr_gguf *g)
{
    return g->n_entries;
}

const tr_gguf_entry *tr_gguf_entry_at(const tr_gguf *g, size_t i)
{
    return &g->entry[i];
}

const tr_gguf_tensor *tr_gguf_find(const tr_gguf *g, const char *name)
{
    size_t lo = 0;
    size_t hi = g->n_tensors;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const tr_gguf_tensor *t = &g->tensor[g->tensor_by_name[mid]];
        int c = strcmp(t->name, name);
        if (c == 0)
            return t;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int compare(tr_bytes a, tr_bytes b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return c ? c : (a.size > b.size) - (a.size < b.size);
}

const tr_gguf_entry *tr_gguf_entry_find(const tr_gguf *g, const char *key)
{
    tr_bytes wanted = tr_bytes_of(key);
    size_t lo = 0;
    size_t hi = g->n_entries;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const tr_gguf_entry *e = &g->entry[g->entry_by_key[mid]];
        int c = compare(e->key, wanted);
        if (c == 0)
            return e;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const char *tr_gguf_kind_name(tr_gguf_kind kind)
{
    static const char *const name[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64" };

    return (size_t)kind < sizeof name / sizeof name[0] ? name[kind] : "unknown";
}

static tr_status missing(const tr_gguf *g, const char *key)
{
    return tr_fail(TR_E_FORMAT, "model %s: key %s is missing", g->path, key);
}

static tr_status wrong_kind(const tr_gguf *g, const tr_gguf_entry *e, const char *wanted)
{
    return tr_fail(TR_E_FORMAT, "model %s: key %.*s is of kind %s, not %s", g->path,
                   (int)e->key.size, (const char *)e->key.data, tr_gguf_kind_name(e->kind), wanted);
}

/* The value of an integer entry; negative ones are refused. */
static tr_status integer_of(const tr_gguf *g, const tr_gguf_entry *e, uint64_t *out)
{
    tr_cursor c = tr_cursor_over(e->raw);
    int64_t v;

    switch (e->kind) {
    case TR_GGUF_U8:
        *out = tr_cursor_u8(&c);
        return TR_OK;
    case TR_GGUF_U16:
        *out = tr_cursor_u16(&c);
        return TR_OK;
    case TR_GGUF_U32:
        *out = tr_cursor_u32(&c);
        return TR_OK;
    case TR_GGUF_U64:
        *out = tr_cursor_u64(&c);
        return TR_OK;
    case TR_GGUF_I8:
        v = (int8_t)tr_cursor_u8(&c);
        break;
    case TR_GGUF_I16:
        v = (int16_t)tr_cursor_u16(&c);
        break;
    case TR_GGUF_I32:
        v = (int32_t)tr_cursor_u32(&c);
        break;
    case TR_GGUF_I64:
        v = (int64_t)tr_cursor_u64(&c);
        break;
    default:
        return wrong_kind(g, e, "an integer");
    }
    if (v < 0)
        return tr_fail(TR_E_FORMAT, "model %s: key %.*s is %lld, but must not be negative", g->path,
                       (int)e->key.size, (const char *)e->key.data, (long long)v);
    *out = (uint64_t)v;
    return TR_OK;
}

static tr_status u32_of(const tr_gguf *g, const tr_gguf_entry *e, uint32_t *out)
{
    uint64_t v = 0;

    tr_status st = integer_of(g, e, &v);
    if (st != TR_OK)
        return st;
    if (v > UINT32_MAX)
        return tr_fail(TR_E_FORMAT, "model %s: key %.*s is %llu, more than 32 bits hold", g->path,
                       (int)e->key.size, (const char *)e->key.data, (unsigned long long)v);
    *out = (uint32_t)v;
    return TR_OK;
}

static tr_status f32_of(const tr_gguf *g, const tr_gguf_entry *e, float *out)
{
    tr_cursor c = tr_cursor_over(e->raw);

    if (e->kind == TR_GGUF_F32)
        *out = tr_cursor_f32(&c);
    else if (e->kind == TR_GGUF_F64)
        *out = (float)tr_cursor_f64(&c);
    else
        return wrong_kind(g, e, "a number");
    return TR_OK;
}

static tr_status bool_of(const tr_gguf *g, const tr_gguf_entry *e, bool *out)
{
    if (e->kind != TR_GGUF_BOOL)
        return wrong_kind(g, e, "a bool");
    if (e->raw.data[0] > 1)
        return tr_fail(TR_E_FORMAT, "model %s: key %.*s is a bool of value %u", g->path,
                       (int)e->key.size, (const char *)e->key.data, e->raw.data[0]);
    *out = e->raw.data[0] == 1;
    return TR_OK;
}

static tr_status string_of(const tr_gguf *g, const tr_gguf_entry *e, tr_bytes *out)
{
    tr_cursor c = tr_cursor_over(e->raw);

    if (e->kind != TR_GGUF_STRING)
        return wrong_kind(g, e, "a string");
    *out = tr_cursor_take(&c, tr_cursor_u64(&c));
    return TR_OK;
}

/* Required and optional readers differ only in what an absent key means. */
#define READERS(name, type)                                                                        \
    tr_status tr_gguf_get_##name(const tr_gguf *g, const char *key, type *out)                     \
    {                                                                                              \
        const tr_gguf_entry *e = tr_gguf_entry_find(g, key);                                       \
        return e ? name##_of(g, e, out) : missing(g, key);                                         \
    }                                                                                              \
    tr_status tr_gguf_opt_##name(const tr_gguf *g, const char *key, type *out)                     \
    {                                                                                              \
        const tr_gguf_entry *e = tr_gguf_entry_find(g, key);                                       \
        return e ? name##_of(g, e, out) : TR_OK;                                                   \
    }

READERS(u32, uint32_t)
READERS(f32, float)
READERS(bool, bool)
READERS(string, tr_bytes)

tr_status tr_gguf_get_strings(const tr_gguf *g, const char *key, tr_bytes **out, size_t *n)
{
    const tr_gguf_entry *e = tr_gguf_entry_find(g, key);

    if (!e)
        return missing(g, key);
    if (e->kind != TR_GGUF_ARRAY || e->item != TR_GGUF_STRING)
        return wrong_kind(g, e, "an array of strings");
    tr_bytes *list = malloc((e->n ? e->n : 1) * sizeof *list);
    if (!list)
        return tr_fail(TR_E_MEMORY, "model %s: no memory for the %llu strings of %s", g->path,
                       (unsigned long long)e->n, key);
    tr_cursor c = tr_cursor_over(e->raw);
    for (size_t i = 0; i < e->n; i++)
        list[i] = tr_cursor_take(&c, tr_cursor_u64(&c));
    *out = list;
    *n = e->n;
    return TR_OK;
}
