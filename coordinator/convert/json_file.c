/* json_file.c - read, parse, look up.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static tr_status read_all(int fd, const char *path, size_t size, char **out)
{
    char *text = malloc(size + 1);
    size_t done = 0;

    if (!text)
        return tr_fail(TR_E_MEMORY, "%s: no memory for %zu bytes", path, size);
    while (done < size) {
        ssize_t n = read(fd, text + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            free(text);
            return tr_fail(TR_E_IO, "%s: read: %s", path, n < 0 ? strerror(errno) : "it shrank");
        }
        done += (size_t)n;
    }
    text[size] = '\0';
    *out = text;
    return TR_OK;
}

tr_status tr_json_parse(const char *path, tr_bytes text, json_t **out)
{
    json_error_t e;
    json_t *root = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &e);

    if (!root)
        return tr_fail(TR_E_FORMAT, "%s: no valid JSON: line %d, column %d: %.100s", path, e.line,
                       e.column, e.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return tr_fail(TR_E_FORMAT, "%s: is JSON, but no object", path);
    }
    *out = root;
    return TR_OK;
}

static tr_status open_at(const char *path, tr_json_need need, int *fd)
{
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would make it wait */
    if (*fd >= 0 || (errno == ENOENT && need == TR_JSON_OPTIONAL))
        return TR_OK;
    return tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
}

tr_status tr_text_file_read(const char *path, tr_json_need need, char **text, size_t *size)
{
    struct stat s;
    int fd;
    tr_status st = open_at(path, need, &fd);

    *text = NULL;
    *size = 0;
    if (st != TR_OK || fd < 0)
        return st;
    if (fstat(fd, &s) != 0)
        st = tr_fail(TR_E_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(s.st_mode))
        st = tr_fail(TR_E_IO, "%s: is no regular file", path);
    else if (s.st_size > TR_JSON_FILE_MAX)
        st = tr_fail(TR_E_FORMAT, "%s: has %lld bytes, at most %d are read", path,
                     (long long)s.st_size, TR_JSON_FILE_MAX);
    else
        st = read_all(fd, path, (size_t)s.st_size, text);
    close(fd);
    if (st == TR_OK)
        *size = (size_t)s.st_size;
    return st;
}

static tr_status load(const char *path, tr_json_need need, json_t **out)
{
    char *text;
    size_t size;
    tr_status st = tr_text_file_read(path, need, &text, &size);

    if (st == TR_OK && text)
        st = tr_json_parse(path, (tr_bytes){ (uint8_t *)text, size }, out);
    free(text);
    return st;
}

tr_status tr_json_file_open(const char *dir, const char *name, tr_json_need need, tr_json_file *out)
{
    tr_json_file f = { NULL, NULL };

    if (asprintf(&f.path, "%s/%s", dir, name) < 0)
        return tr_fail(TR_E_MEMORY, "%s/%s: no memory", dir, name);
    tr_status st = load(f.path, need, &f.root);
    if (st != TR_OK) {
        tr_json_file_close(&f);
        return st;
    }
    *out = f;
    return TR_OK;
}

void tr_json_file_close(tr_json_file *f)
{
    json_decref(f->root);
    free(f->path);
    *f = (tr_json_file){ NULL, NULL };
}

json_t *tr_json_member(const json_t *o, const char *name)
{
    json_t *v = json_object_get(o, name);

    return json_is_null(v) ? NULL : v;
}

tr_bytes tr_json_text_of(const json_t *s)
{
    return (tr_bytes){ (const uint8_t *)json_string_value(s), json_string_length(s) };
}

bool tr_json_is_text(const json_t *s, const char *text)
{
    return json_is_string(s) && tr_bytes_equal(tr_json_text_of(s), tr_bytes_of(text));
}

static tr_status another_type(const tr_json_file *f, const json_t *v, const char *name,
                              const char *wanted)
{
    return tr_fail(TR_E_FORMAT, "%s: \"%s\" %s", f->path, name, v ? wanted : "is missing");
}

tr_status tr_json_count(const tr_json_file *f, const json_t *o, const char *name, uint32_t *out)
{
    const json_t *v = tr_json_member(o, name);
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < 0 || n > UINT32_MAX)
        return another_type(f, v, name, "must be a whole number from 0 to 4294967295");
    *out = (uint32_t)n;
    return TR_OK;
}

tr_status tr_json_real(const tr_json_file *f, const json_t *o, const char *name, float *out)
{
    const json_t *v = tr_json_member(o, name);
    float x = (float)json_number_value(v);

    if (!json_is_number(v) || !isfinite(x))
        return another_type(f, v, name, "must be a number that a float can hold");
    *out = x;
    return TR_OK;
}

tr_status tr_json_flag(const tr_json_file *f, const json_t *o, const char *name, bool *out)
{
    const json_t *v = tr_json_member(o, name);

    if (!json_is_boolean(v))
        return another_type(f, v, name, "must be true or false");
    *out = json_is_true(v);
    return TR_OK;
}
