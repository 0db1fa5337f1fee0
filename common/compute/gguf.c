/* gguf.c - map a model file, parse and validate its header.
 *
 * The header is walked once with a sticky-error cursor; what can be wrong is checked where it is
 * read, and nothing is allocated on the word of a count alone: a count is first held against
 * the bytes that are left, since each key and tensor takes some.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/gguf.h"

#include "base/cursor.h"
#include "base/fault.h"
#include "compute/gguf_entry.h"

#include <xxhash.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAGIC = 0x46554747,                 /* "GGUF" */
    MIN_KEY = 8 + 1 + 4 + 1,            /* bytes of the shortest key and value */
    MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8, /* bytes of the shortest tensor line */
    DEFAULT_ALIGNMENT = 32,
    MAX_ALIGNMENT = 1 << 20,
};

typedef struct {
    tr_gguf *g;
    tr_cursor c;
    uint64_t alignment;
    uint64_t data; /* offset of the tensor data in the file */
} parser;

static tr_status truncated(const parser *p, const char *in)
{
    return tr_fail(TR_E_FORMAT, "model %s: ends at byte %zu, inside %s: the file is incomplete",
                   p->g->path, p->c.bytes.size, in);
}

/* Printable enough to stand in an error line: control bytes are cleaned by the log. */
static int shown(tr_bytes b)
{
    return b.size < 80 ? (int)b.size : 80;
}

/* UTF-8 by the table of well-formed byte sequences, Unicode standard 3.9. */
static size_t utf8_length(const uint8_t *s, size_t left)
{
    size_t n = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : (s[0] & 0xf0) == 0xe0       ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                             : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static bool is_utf8(tr_bytes b)
{
    for (size_t i = 0; i < b.size;) {
        size_t n = utf8_length(b.data + i, b.size - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

static bool has_zero(tr_bytes b)
{
    return b.size > 0 && memchr(b.data, 0, b.size) != NULL;
}

/* A key or tensor name: not empty, short, valid, no zero byte. */
static tr_status read_name(parser *p, const char *what, size_t max, tr_bytes *out)
{
    size_t at = p->c.pos;
    uint64_t n = tr_cursor_u64(&p->c);

    if (!tr_cursor_ok(&p->c))
        return truncated(p, what);
    if (n == 0 || n > max)
        return tr_fail(TR_E_FORMAT,
                       "model %s: %s at byte %zu has a name of %llu bytes, allowed are 1..%zu",
                       p->g->path, what, at, (unsigned long long)n, max);
    tr_bytes name = tr_cursor_take(&p->c, n);
    if (!tr_cursor_ok(&p->c))
        return truncated(p, what);
    if (!is_utf8(name) || has_zero(name))
        return tr_fail(TR_E_FORMAT, "model %s: the name of %s at byte %zu is not valid UTF-8",
                       p->g->path, what, at);
    *out = name;
    return TR_OK;
}

/* ---- metadata ----------------------------------------------------------------------- */

size_t tr_gguf_kind_size(tr_gguf_kind kind)
{
    switch (kind) {
    case TR_GGUF_U8:
    case TR_GGUF_I8:
    case TR_GGUF_BOOL:
        return 1;
    case TR_GGUF_U16:
    case TR_GGUF_I16:
        return 2;
    case TR_GGUF_U32:
    case TR_GGUF_I32:
    case TR_GGUF_F32:
        return 4;
    case TR_GGUF_U64:
    case TR_GGUF_I64:
    case TR_GGUF_F64:
        return 8;
    case TR_GGUF_STRING:
    case TR_GGUF_ARRAY:
        break;
    }
    return 0;
}

/* Walks n strings; only that they fit is checked, readers look at what they need. */
static void skip_strings(tr_cursor *c, uint64_t n)
{
    for (uint64_t i = 0; i < n && tr_cursor_ok(c); i++)
        tr_cursor_take(c, tr_cursor_u64(c));
}

static tr_status read_array(parser *p, tr_gguf_entry *e)
{
    uint32_t item = tr_cursor_u32(&p->c);

    e->n = tr_cursor_u64(&p->c);
    if (!tr_cursor_ok(&p->c))
        return truncated(p, "an array");
    e->item = (tr_gguf_kind)item;
    size_t size = tr_gguf_kind_size(e->item);
    if (item != TR_GGUF_STRING && (item > TR_GGUF_F64 || size == 0))
        return tr_fail(TR_E_FORMAT,
                       "model %s: key %.*s is an array of kind %u, which is not supported",
                       p->g->path, shown(e->key), (const char *)e->key.data, item);
    uint64_t least = size ? size : sizeof(uint64_t);
    if (e->n > tr_cursor_left(&p->c) / least)
        return tr_fail(
            TR_E_FORMAT, "model %s: key %.*s promises %llu items, more than the file has bytes for",
            p->g->path, shown(e->key), (const char *)e->key.data, (unsigned long long)e->n);
    size_t begin = p->c.pos;
    if (size)
        tr_cursor_take(&p->c, e->n * size);
    else
        skip_strings(&p->c, e->n);
    if (!tr_cursor_ok(&p->c))
        return truncated(p, "an array");
    e->raw = (tr_bytes){ p->c.bytes.data + begin, p->c.pos - begin };
    return TR_OK;
}

static tr_status read_entry(parser *p, tr_gguf_entry *e)
{
    tr_status st = read_name(p, "a key", 65535, &e->key);

    if (st != TR_OK)
        return st;
    uint32_t kind = tr_cursor_u32(&p->c);
    if (!tr_cursor_ok(&p->c))
        return truncated(p, "a key");
    if (kind > TR_GGUF_F64)
        return tr_fail(TR_E_FORMAT, "model %s: key %.*s has unknown kind %u", p->g->path,
                       shown(e->key), (const char *)e->key.data, kind);
    e->kind = (tr_gguf_kind)kind;
    e->n = 1;
    if (e->kind == TR_GGUF_ARRAY)
        return read_array(p, e);
    e->item = e->kind;
    size_t begin = p->c.pos;
    if (e->kind == TR_GGUF_STRING)
        skip_strings(&p->c, 1);
    else
        tr_cursor_take(&p->c, tr_gguf_kind_size(e->kind));
    if (!tr_cursor_ok(&p->c))
        return truncated(p, "a value");
    e->raw = (tr_bytes){ p->c.bytes.data + begin, p->c.pos - begin };
    return TR_OK;
}

static int compare_bytes(tr_bytes a, tr_bytes b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return c ? c : (a.size > b.size) - (a.size < b.size);
}

static int compare_keys(const void *x, const void *y, void *ctx)
{
    const tr_gguf *g = ctx;

    return compare_bytes(g->entry[*(const uint32_t *)x].key, g->entry[*(const uint32_t *)y].key);
}

static int compare_names(const void *x, const void *y, void *ctx)
{
    const tr_gguf *g = ctx;

    return strcmp(g->tensor[*(const uint32_t *)x].name, g->tensor[*(const uint32_t *)y].name);
}

/* 0..n-1 in the order of compare. */
static tr_status sorted(const tr_gguf *g, size_t n,
                        int (*compare)(const void *, const void *, void *), uint32_t **out)
{
    uint32_t *order = malloc((n ? n : 1) * sizeof *order);

    if (!order)
        return tr_fail(TR_E_MEMORY, "model %s: no memory for an index of %zu", g->path, n);
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    qsort_r(order, n, sizeof *order, compare, (void *)(uintptr_t)g);
    *out = order;
    return TR_OK;
}

static tr_status read_entries(parser *p, uint64_t n)
{
    tr_gguf *g = p->g;

    if (n > TR_GGUF_MAX_KEYS || n > tr_cursor_left(&p->c) / MIN_KEY)
        return tr_fail(TR_E_FORMAT,
                       "model %s: promises %llu keys, more than the file or the limit %d allows",
                       g->path, (unsigned long long)n, TR_GGUF_MAX_KEYS);
    g->entry = calloc(n ? n : 1, sizeof *g->entry);
    if (!g->entry)
        return tr_fail(TR_E_MEMORY, "model %s: no memory for %llu keys", g->path,
                       (unsigned long long)n);
    g->n_entries = n;
    for (size_t i = 0; i < n; i++) {
        tr_status st = read_entry(p, &g->entry[i]);
        if (st != TR_OK)
            return st;
    }
    tr_status st = sorted(g, n, compare_keys, &g->entry_by_key);
    for (size_t i = 1; i < n && st == TR_OK; i++)
        if (compare_keys(&g->entry_by_key[i - 1], &g->entry_by_key[i], g) == 0) {
            tr_bytes key = g->entry[g->entry_by_key[i]].key;
            st = tr_fail(TR_E_FORMAT, "model %s: key %.*s appears twice", g->path, shown(key),
                         (const char *)key.data);
        }
    return st;
}

static tr_status read_alignment(parser *p)
{
    uint32_t alignment = DEFAULT_ALIGNMENT;

    tr_status st = tr_gguf_opt_u32(p->g, "general.alignment", &alignment);
    if (st != TR_OK)
        return st;
    if (alignment == 0 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1)) != 0)
        return tr_fail(TR_E_FORMAT,
                       "model %s: general.alignment is %u, but must be a power of two up to %d",
                       p->g->path, alignment, MAX_ALIGNMENT);
    p->alignment = alignment;
    return TR_OK;
}

/* ---- tensors ------------------------------------------------------------------------ */

static tr_status read_dims(parser *p, tr_gguf_tensor *t)
{
    t->n_dims = tr_cursor_u32(&p->c);
    if (!tr_cursor_ok(&p->c))
        return truncated(p, "a tensor's shape");
    if (t->n_dims == 0 || t->n_dims > TR_GGUF_MAX_DIMS)
        return tr_fail(TR_E_FORMAT, "model %s: tensor %s has %u dimensions, allowed are 1..%d",
                       p->g->path, t->name, t->n_dims, TR_GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < TR_GGUF_MAX_DIMS; i++)
        t->dim[i] = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        t->dim[i] = tr_cursor_u64(&p->c);
        if (!tr_cursor_ok(&p->c))
            return truncated(p, "a tensor's shape");
        if (t->dim[i] == 0 || t->dim[i] > INT64_MAX)
            return tr_fail(TR_E_FORMAT, "model %s: tensor %s has a dimension of %llu", p->g->path,
                           t->name, (unsigned long long)t->dim[i]);
    }
    return TR_OK;
}

static tr_status measure(parser *p, tr_gguf_tensor *t, uint32_t type)
{
    const tr_type_info *info = tr_type_get(type);
    size_t size;

    if (!info)
        return tr_fail(TR_E_FORMAT, "model %s: tensor %s has unknown type %u", p->g->path, t->name,
                       type);
    t->type = (tr_type)type;
    if (t->dim[0] % info->block != 0)
        return tr_fail(
            TR_E_FORMAT,
            "model %s: tensor %s has rows of %llu elements, but %s needs multiples of %u",
            p->g->path, t->name, (unsigned long long)t->dim[0], info->name, info->block);
    if (!tr_type_row_size(t->type, t->dim[0], &size) || !tr_mul_size(size, t->dim[1], &size) ||
        !tr_mul_size(size, t->dim[2], &size) || !tr_mul_size(size, t->dim[3], &size) ||
        size > INT64_MAX)
        return tr_fail(TR_E_FORMAT, "model %s: tensor %s is larger than any file", p->g->path,
                       t->name);
    t->size = size;
    return TR_OK;
}

static tr_status read_tensor(parser *p, tr_gguf_tensor *t)
{
    tr_bytes name = { NULL, 0 };

    tr_status st = read_name(p, "a tensor", TR_GGUF_MAX_NAME - 1, &name);
    if (st != TR_OK)
        return st;
    memcpy(t->name, name.data, name.size);
    st = read_dims(p, t);
    if (st != TR_OK)
        return st;
    uint32_t type = tr_cursor_u32(&p->c);
    t->offset = tr_cursor_u64(&p->c);
    if (!tr_cursor_ok(&p->c))
        return truncated(p, "a tensor");
    st = measure(p, t, type);
    if (st != TR_OK)
        return st;
    if (t->offset % p->alignment != 0)
        return tr_fail(TR_E_FORMAT, "model %s: tensor %s lies at offset %llu, no multiple of %llu",
                       p->g->path, t->name, (unsigned long long)t->offset,
                       (unsigned long long)p->alignment);
    return TR_OK;
}

tr_status tr_gguf_index_tensors(tr_gguf *g)
{
    free(g->tensor_by_name);
    g->tensor_by_name = NULL;
    tr_status st = sorted(g, g->n_tensors, compare_names, &g->tensor_by_name);
    for (size_t i = 1; i < g->n_tensors && st == TR_OK; i++)
        if (compare_names(&g->tensor_by_name[i - 1], &g->tensor_by_name[i], g) == 0)
            st = tr_fail(TR_E_FORMAT, "model %s: tensor %s appears twice", g->path,
                         g->tensor[g->tensor_by_name[i]].name);
    return st;
}

static tr_status read_tensors(parser *p, uint64_t n)
{
    tr_gguf *g = p->g;

    if (n > TR_GGUF_MAX_TENSORS || n > tr_cursor_left(&p->c) / MIN_TENSOR)
        return tr_fail(TR_E_FORMAT,
                       "model %s: promises %llu tensors, more than the file or the limit %d allows",
                       g->path, (unsigned long long)n, TR_GGUF_MAX_TENSORS);
    g->tensor = calloc(n ? n : 1, sizeof *g->tensor);
    if (!g->tensor)
        return tr_fail(TR_E_MEMORY, "model %s: no memory for %llu tensors", g->path,
                       (unsigned long long)n);
    g->n_tensors = n;
    for (size_t i = 0; i < n; i++) {
        tr_status st = read_tensor(p, &g->tensor[i]);
        if (st != TR_OK)
            return st;
    }
    return tr_gguf_index_tensors(g);
}

static int compare_offsets(const void *x, const void *y, void *ctx)
{
    const tr_gguf *g = ctx;
    uint64_t a = g->tensor[*(const uint32_t *)x].offset;
    uint64_t b = g->tensor[*(const uint32_t *)y].offset;

    return (a > b) - (a < b);
}

/* Offsets become those of the file; every tensor lies inside it and beside the others. */
static tr_status place_tensors(parser *p)
{
    tr_gguf *g = p->g;
    uint32_t *order = NULL;
    uint64_t end = p->data;

    tr_status st = sorted(g, g->n_tensors, compare_offsets, &order);
    for (size_t i = 0; i < g->n_tensors && st == TR_OK; i++) {
        tr_gguf_tensor *t = &g->tensor[order[i]];
        if (t->offset > g->file_size || p->data > g->file_size - t->offset ||
            t->size > g->file_size - p->data - t->offset)
            st = tr_fail(
                TR_E_FORMAT,
                "model %s: tensor %s ends behind the end of the file (%llu bytes): the file is "
                "incomplete",
                g->path, t->name, (unsigned long long)g->file_size);
        else if (t->offset + p->data < end)
            st = tr_fail(TR_E_FORMAT, "model %s: tensor %s overlaps tensor %s", g->path, t->name,
                         g->tensor[order[i - 1]].name);
        else
            end = (t->offset += p->data) + t->size;
    }
    free(order);
    return st;
}

/* ---- the whole ---------------------------------------------------------------------- */

/* The length of a header in 8 bytes, and a header in JSON. */
static bool is_safetensors(tr_bytes file)
{
    uint64_t length;

    if (file.size < sizeof length + 2)
        return false;
    memcpy(&length, file.data, sizeof length);
    return length <= file.size - sizeof length && memcmp(file.data + sizeof length, "{\"", 2) == 0;
}

static tr_status read_start(parser *p, uint64_t *n_tensors, uint64_t *n_keys)
{
    tr_gguf *g = p->g;
    uint32_t magic = tr_cursor_u32(&p->c);

    g->version = tr_cursor_u32(&p->c);
    *n_tensors = tr_cursor_u64(&p->c);
    *n_keys = tr_cursor_u64(&p->c);
    if (magic != MAGIC && p->c.bytes.size >= 4)
        return tr_fail(TR_E_FORMAT, "model %s: no GGUF file (its first bytes are not \"GGUF\")%s",
                       g->path,
                       is_safetensors(p->c.bytes)
                           ? ", but safetensors: troupe convert makes one of its directory"
                           : "");
    if (!tr_cursor_ok(&p->c))
        return truncated(p, "the first 24 bytes");
    if (g->version == __builtin_bswap32(2) || g->version == __builtin_bswap32(3))
        return tr_fail(TR_E_FORMAT, "model %s: a big-endian file: convert it to little-endian",
                       g->path);
    if (g->version != 2 && g->version != 3)
        return tr_fail(TR_E_FORMAT, "model %s: GGUF version %u: versions 2 and 3 are supported",
                       g->path, g->version);
    return TR_OK;
}

static tr_status parse(tr_gguf *g, tr_bytes bytes)
{
    parser p = { .g = g, .c = tr_cursor_over(bytes) };
    uint64_t n_tensors;
    uint64_t n_keys;

    tr_status st = read_start(&p, &n_tensors, &n_keys);
    if (st == TR_OK)
        st = read_entries(&p, n_keys);
    if (st == TR_OK)
        st = read_alignment(&p);
    if (st == TR_OK)
        st = read_tensors(&p, n_tensors);
    if (st != TR_OK)
        return st;
    p.data = (p.c.pos + p.alignment - 1) & ~(p.alignment - 1);
    g->header = (tr_bytes){ bytes.data, p.c.pos };
    g->identity = XXH3_64bits_withSeed(bytes.data, p.c.pos, g->file_size);
    return place_tensors(&p);
}

static tr_status new_gguf(const char *path, uint64_t file_size, tr_gguf **out)
{
    tr_gguf *g = calloc(1, sizeof *g);

    if (g)
        g->path = strdup(path);
    if (!g || !g->path) {
        free(g);
        return tr_fail(TR_E_MEMORY, "model %s: no memory", path);
    }
    g->fd = -1;
    g->file_size = file_size;
    *out = g;
    return TR_OK;
}

tr_status tr_gguf_parse(const char *name, tr_bytes header, uint64_t file_size, tr_gguf **out)
{
    tr_gguf *g = NULL;

    tr_status st = new_gguf(name, file_size, &g);
    if (st == TR_OK)
        st = parse(g, header);
    if (st != TR_OK) {
        tr_gguf_close(&g);
        return st;
    }
    *out = g;
    return TR_OK;
}

static tr_status map_file(tr_gguf *g)
{
    struct stat s;

    g->fd = open(g->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would make it wait */
    if (g->fd < 0)
        return tr_fail(TR_E_IO, "model %s: open: %s", g->path, strerror(errno));
    if (fstat(g->fd, &s) != 0)
        return tr_fail(TR_E_IO, "model %s: stat: %s", g->path, strerror(errno));
    if (!S_ISREG(s.st_mode))
        return tr_fail(TR_E_IO, "model %s: not a regular file%s", g->path,
                       S_ISDIR(s.st_mode) ? "; troupe convert makes one of a Hugging Face directory"
                                          : "");
    if (s.st_size == 0)
        return tr_fail(TR_E_FORMAT, "model %s: the file is empty", g->path);
    g->file_size = (uint64_t)s.st_size;
    g->map_size = (size_t)s.st_size;
    void *map = mmap(NULL, g->map_size, PROT_READ, MAP_PRIVATE, g->fd, 0);
    if (map == MAP_FAILED)
        return tr_fail(TR_E_IO, "model %s: mmap: %s", g->path, strerror(errno));
    g->map = map;
    return TR_OK;
}

tr_status tr_gguf_open_file(const char *path, tr_gguf **out)
{
    tr_gguf *g = NULL;

    tr_status st = new_gguf(path, 0, &g);
    if (st == TR_OK)
        st = map_file(g);
    if (st == TR_OK)
        st = parse(g, (tr_bytes){ g->map, g->map_size });
    if (st != TR_OK) {
        tr_gguf_close(&g);
        return st;
    }
    *out = g;
    return TR_OK;
}

tr_status tr_gguf_open(const char *path, tr_gguf **out)
{
    tr_gguf *g = NULL;

    tr_status st = tr_gguf_open_file(path, &g);
    if (st == TR_OK)
        st = tr_gguf_join_parts(&g);
    if (st != TR_OK) {
        tr_gguf_close(&g);
        return st;
    }
    *out = g;
    return TR_OK;
}

void tr_gguf_close(tr_gguf **gguf)
{
    tr_gguf *g = *gguf;

    if (!g)
        return;
    if (g->map)
        munmap(g->map, g->map_size);
    if (g->fd >= 0)
        close(g->fd);
    for (size_t i = 1; i < g->n_parts; i++)
        tr_gguf_close(&g->part[i]);
    free(g->part);
    free(g->base);
    free(g->entry);
    free(g->entry_by_key);
    free(g->tensor);
    free(g->tensor_by_name);
    free(g->path);
    free(g);
    *gguf = NULL;
}

/* How many bytes of a part could be read; fewer than size at its end, and where reading fails, for
 * which *error then stands. */
static size_t read_part(const tr_gguf *g, uint64_t offset, size_t size, uint8_t *to, int *error)
{
    size_t done = 0;

    *error = 0;
    while (done < size) {
        ssize_t n = pread(g->fd, to + done, size - done, (off_t)(offset + done));
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR) {
            *error = n < 0 ? errno : 0;
            break;
        }
    }
    return done;
}

tr_status tr_gguf_read(const tr_gguf *model, uint64_t offset, size_t size, void *to)
{
    const tr_gguf *g = tr_gguf_part_at(model, &offset);
    int error;

    if (g->fd < 0)
        return tr_fail(TR_E_IO, "model %s: has no file to read from", g->path);
    tr_status st = tr_fault_before_read(size);
    if (st != TR_OK)
        return st;
    size_t done = read_part(g, offset, size, to, &error);
    unsigned long long at = offset + done;
    if (error)
        return tr_fail(TR_E_IO, "model %s: read at byte %llu: %s", g->path, at, strerror(error));
    if (done < size)
        return tr_fail(TR_E_IO, "model %s: ends at byte %llu: it was cut while in use", g->path,
                       at);
    return TR_OK;
}

bool tr_gguf_try_read(const tr_gguf *model, uint64_t offset, size_t size, void *to)
{
    const tr_gguf *g = tr_gguf_part_at(model, &offset);
    int error;

    return g->fd >= 0 && read_part(g, offset, size, to, &error) == size;
}
