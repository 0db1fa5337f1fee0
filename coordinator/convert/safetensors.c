/* safetensors.c - the length, the JSON, and whether the tensors tile the data.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/safetensors.h"

#include "base/check.h"
#include "coordinator/convert/json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { LENGTH = 8 }; /* bytes in front of the header */

struct tr_safetensors {
    char *path;
    int fd; /* -1: parsed from memory */
    tr_st_tensor *tensor;
    size_t n;
    uint64_t identity;
};

static const struct {
    const char *name;
    tr_st_type type;
    uint32_t size; /* bytes of one value */
} types[] = {
    { "F32", TR_ST_F32, 4 },         { "F16", TR_ST_F16, 2 },   { "BF16", TR_ST_BF16, 2 },
    { "F8_E4M3", TR_ST_F8_E4M3, 1 }, { "U8", TR_ST_U8, 1 },     { "F8_E5M2", TR_ST_OTHER, 1 },
    { "BOOL", TR_ST_OTHER, 1 },      { "I8", TR_ST_OTHER, 1 },  { "I16", TR_ST_OTHER, 2 },
    { "U16", TR_ST_OTHER, 2 },       { "I32", TR_ST_OTHER, 4 }, { "U32", TR_ST_OTHER, 4 },
    { "F64", TR_ST_OTHER, 8 },       { "I64", TR_ST_OTHER, 8 }, { "U64", TR_ST_OTHER, 8 },
};

/* ---- one tensor ----------------------------------------------------------------------------- */

static tr_status read_type(const tr_safetensors *s, const json_t *v, tr_st_tensor *t,
                           uint32_t *size)
{
    const json_t *name = tr_json_member(v, "dtype");

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (tr_json_is_text(name, types[i].name)) {
            t->type = types[i].type;
            t->type_name = types[i].name;
            *size = types[i].size;
            return TR_OK;
        }
    }
    if (!json_is_string(name))
        return tr_fail(TR_E_FORMAT, "%s: tensor %s: \"dtype\" is missing or no text", s->path,
                       t->name);
    return tr_fail(TR_E_UNSUPPORTED, "%s: tensor %s is of type %.32s, which is not known", s->path,
                   t->name, json_string_value(name));
}

/* Its number of bytes, if its shape and values of this size are to be believed. */
static tr_status read_shape(const tr_safetensors *s, const json_t *v, uint32_t value_size,
                            tr_st_tensor *t, uint64_t *bytes)
{
    const json_t *shape = tr_json_member(v, "shape");
    size_t product = value_size;

    if (!json_is_array(shape) || json_array_size(shape) > TR_ST_MAX_DIMS)
        return tr_fail(TR_E_FORMAT, "%s: tensor %s: \"shape\" is no list of at most %d numbers",
                       s->path, t->name, TR_ST_MAX_DIMS);
    t->n_dims = (uint32_t)json_array_size(shape);
    for (size_t i = 0; i < TR_ST_MAX_DIMS; i++) {
        const json_t *d = json_array_get(shape, i);
        json_int_t n = i < t->n_dims ? json_integer_value(d) : 1;
        if ((i < t->n_dims && !json_is_integer(d)) || n < 0 ||
            !tr_mul_size(product, (size_t)n, &product))
            return tr_fail(TR_E_FORMAT, "%s: tensor %s: \"shape\" makes no sense", s->path,
                           t->name);
        t->dim[i] = (uint64_t)n;
    }
    *bytes = product;
    return TR_OK;
}

static tr_status read_place(const tr_safetensors *s, const json_t *v, uint64_t data, uint64_t end,
                            uint64_t bytes, tr_st_tensor *t)
{
    const json_t *place = tr_json_member(v, "data_offsets");
    json_int_t from = json_integer_value(json_array_get(place, 0));
    json_int_t to = json_integer_value(json_array_get(place, 1));

    if (json_array_size(place) != 2 || !json_is_integer(json_array_get(place, 0)) ||
        !json_is_integer(json_array_get(place, 1)) || from < 0 || to < from)
        return tr_fail(TR_E_FORMAT, "%s: tensor %s: \"data_offsets\" are no first and last byte",
                       s->path, t->name);
    if ((uint64_t)to > end - data)
        return tr_fail(TR_E_FORMAT,
                       "%s: is incomplete: tensor %s ends at byte %llu of the data, of which there "
                       "are %llu",
                       s->path, t->name, (unsigned long long)to, (unsigned long long)(end - data));
    if ((uint64_t)(to - from) != bytes)
        return tr_fail(TR_E_FORMAT,
                       "%s: tensor %s has %llu bytes, but its shape and type need %llu", s->path,
                       t->name, (unsigned long long)(to - from), (unsigned long long)bytes);
    t->offset = data + (uint64_t)from;
    t->size = bytes;
    return TR_OK;
}

static tr_status read_tensor(tr_safetensors *s, const char *name, const json_t *v, uint64_t data,
                             uint64_t end)
{
    tr_st_tensor *t = &s->tensor[s->n];
    uint32_t value_size = 0;
    uint64_t bytes = 0;

    if (name[0] == '\0' || strlen(name) >= sizeof t->name)
        return tr_fail(TR_E_FORMAT, "%s: the name of a tensor has %zu bytes, not 1 to %d", s->path,
                       strlen(name), TR_ST_MAX_NAME - 1);
    snprintf(t->name, sizeof t->name, "%s", name);
    tr_status st = read_type(s, v, t, &value_size);
    if (st == TR_OK)
        st = read_shape(s, v, value_size, t, &bytes);
    if (st == TR_OK)
        st = read_place(s, v, data, end, bytes, t);
    if (st == TR_OK)
        s->n++;
    return st;
}

/* ---- all of them ---------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const tr_st_tensor *x = a;
    const tr_st_tensor *y = b;
    int order = (x->offset > y->offset) - (x->offset < y->offset);

    return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

static tr_status check_tiles(const tr_safetensors *s, uint64_t data, uint64_t end)
{
    uint64_t at = data;

    for (size_t i = 0; i < s->n; i++) {
        const tr_st_tensor *t = &s->tensor[i];
        if (t->offset != at)
            return tr_fail(TR_E_FORMAT, "%s: tensor %s %s what is before it", s->path, t->name,
                           t->offset < at ? "overlaps with" : "leaves a gap to");
        at += t->size;
    }
    if (at != end)
        return tr_fail(TR_E_FORMAT, "%s: has %llu bytes behind its last tensor", s->path,
                       (unsigned long long)(end - at));
    return TR_OK;
}

static tr_status read_header(tr_safetensors *s, tr_bytes json, uint64_t data, uint64_t end)
{
    json_t *root = NULL;
    const char *name;
    json_t *v;
    tr_status st = tr_json_parse(s->path, json, &root);

    if (st != TR_OK)
        return st;
    s->tensor = calloc(json_object_size(root) + 1, sizeof *s->tensor);
    if (!s->tensor)
        st = tr_fail(TR_E_MEMORY, "%s: no memory for %zu tensors", s->path, json_object_size(root));
    json_object_foreach(root, name, v)
    {
        if (st == TR_OK && strcmp(name, "__metadata__") != 0)
            st = read_tensor(s, name, v, data, end);
    }
    json_decref(root);
    if (st != TR_OK)
        return st;
    qsort(s->tensor, s->n, sizeof *s->tensor, by_offset);
    return check_tiles(s, data, end);
}

static uint64_t length_of(const uint8_t start[LENGTH])
{
    uint64_t n;

    memcpy(&n, start, sizeof n);
    return n;
}

static tr_status check_length(const char *path, uint64_t length, uint64_t file_size)
{
    if (length > TR_SAFETENSORS_MAX_HEADER)
        return tr_fail(TR_E_FORMAT,
                       "%s: is no safetensors file, or one with a header of %llu bytes: at most %d",
                       path, (unsigned long long)length, TR_SAFETENSORS_MAX_HEADER);
    if (length > file_size - LENGTH)
        return tr_fail(TR_E_FORMAT, "%s: is incomplete: %llu bytes, of which the header needs %llu",
                       path, (unsigned long long)file_size, (unsigned long long)length + LENGTH);
    return TR_OK;
}

tr_status tr_safetensors_parse(const char *path, tr_bytes start, uint64_t file_size,
                               tr_safetensors **out)
{
    if (start.size < LENGTH || file_size < start.size)
        return tr_fail(TR_E_FORMAT, "%s: is incomplete: %zu bytes", path, start.size);
    uint64_t length = length_of(start.data);
    tr_status st = check_length(path, length, file_size);
    if (st == TR_OK && length > start.size - LENGTH)
        st = tr_fail(TR_E_FORMAT, "%s: is incomplete: the header needs %llu bytes", path,
                     (unsigned long long)length + LENGTH);
    if (st != TR_OK)
        return st;
    tr_safetensors *s = calloc(1, sizeof *s);
    if (s)
        s->path = strdup(path);
    if (!s || !s->path) {
        free(s);
        return tr_fail(TR_E_MEMORY, "%s: no memory", path);
    }
    s->fd = -1;
    s->identity = XXH3_64bits_withSeed(start.data, LENGTH + (size_t)length, file_size);
    st = read_header(s, (tr_bytes){ start.data + LENGTH, (size_t)length }, LENGTH + length,
                     file_size);
    if (st != TR_OK) {
        tr_safetensors_close(&s);
        return st;
    }
    *out = s;
    return TR_OK;
}

/* ---- the file ------------------------------------------------------------------------------- */

static tr_status read_at(int fd, const char *path, uint64_t offset, size_t n, uint8_t *to)
{
    while (n > 0) {
        ssize_t got = pread(fd, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return tr_fail(TR_E_IO, "%s: read at byte %llu: %s", path, (unsigned long long)offset,
                           got < 0 ? strerror(errno) : "the file ends there");
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return TR_OK;
}

static tr_status load(int fd, const char *path, const struct stat *file, tr_safetensors **out)
{
    uint8_t length[LENGTH];
    uint64_t size = (uint64_t)file->st_size;

    if (!S_ISREG(file->st_mode))
        return tr_fail(TR_E_IO, "%s: is no regular file", path);
    if (size < LENGTH)
        return tr_fail(TR_E_FORMAT, "%s: is incomplete: %llu bytes", path,
                       (unsigned long long)size);
    tr_status st = read_at(fd, path, 0, LENGTH, length);
    if (st == TR_OK)
        st = check_length(path, length_of(length), size);
    if (st != TR_OK)
        return st;
    size_t n = LENGTH + (size_t)length_of(length);
    uint8_t *start = malloc(n);
    if (!start)
        return tr_fail(TR_E_MEMORY, "%s: no memory for a header of %zu bytes", path, n);
    st = read_at(fd, path, 0, n, start);
    if (st == TR_OK)
        st = tr_safetensors_parse(path, (tr_bytes){ start, n }, size, out);
    free(start);
    return st;
}

tr_status tr_safetensors_open(const char *path, tr_safetensors **out)
{
    struct stat file;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would make it wait */

    if (fd < 0)
        return tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
    tr_status st = fstat(fd, &file) == 0 ? load(fd, path, &file, out)
                                         : tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
    if (st != TR_OK) {
        close(fd);
        return st;
    }
    const int64_t date[] = { file.st_mtim.tv_sec, file.st_mtim.tv_nsec };
    (*out)->fd = fd;
    (*out)->identity = XXH3_64bits_withSeed(date, sizeof date, (*out)->identity);
    return TR_OK;
}

void tr_safetensors_close(tr_safetensors **s)
{
    if (!*s)
        return;
    if ((*s)->fd >= 0)
        close((*s)->fd);
    free((*s)->tensor);
    free((*s)->path);
    free(*s);
    *s = NULL;
}

const char *tr_safetensors_path(const tr_safetensors *s)
{
    return s->path;
}

size_t tr_safetensors_n(const tr_safetensors *s)
{
    return s->n;
}

const tr_st_tensor *tr_safetensors_at(const tr_safetensors *s, size_t i)
{
    return &s->tensor[i];
}

uint64_t tr_safetensors_identity(const tr_safetensors *s)
{
    return s->identity;
}

tr_status tr_safetensors_read(const tr_safetensors *s, const tr_st_tensor *t, uint64_t first_byte,
                              size_t n, void *to)
{
    TR_CHECK(first_byte <= t->size);
    TR_CHECK(n <= t->size - first_byte);
    if (s->fd < 0)
        return tr_fail(TR_E_IO, "%s: was parsed from memory", s->path);
    return read_at(s->fd, s->path, t->offset + first_byte, n, to);
}
