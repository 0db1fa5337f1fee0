/* checkpoint.c - find the files, open them, sort their tensors by name.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/checkpoint.h"

#include "coordinator/convert/json_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

static const char index_name[] = "model.safetensors.index.json";

enum { MAX_FILES = 1024 };

struct tr_checkpoint {
    const char *dir;
    char *name[MAX_FILES]; /* within the directory, in ascending order once opened */
    tr_safetensors *file[MAX_FILES];
    size_t n_files;
    tr_source *source;
    size_t n;
};

/* ---- which files ---------------------------------------------------------------------------- */

static tr_status add_name(tr_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->n_files; i++)
        if (strcmp(c->name[i], name) == 0)
            return TR_OK;
    if (c->n_files == MAX_FILES)
        return tr_fail(TR_E_UNSUPPORTED, "%s: more than %d safetensors files", c->dir, MAX_FILES);
    c->name[c->n_files] = strdup(name);
    if (!c->name[c->n_files])
        return tr_fail(TR_E_MEMORY, "%s: no memory", c->dir);
    c->n_files++;
    return TR_OK;
}

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name);
    size_t m = strlen(tail);

    return n > m && strcmp(name + n - m, tail) == 0;
}

static tr_status names_of_directory(tr_checkpoint *c)
{
    tr_status st = TR_OK;
    DIR *d = opendir(c->dir);

    if (!d)
        return tr_fail(TR_E_IO, "%s: %s", c->dir, strerror(errno));
    for (struct dirent *e = readdir(d); e && st == TR_OK; e = readdir(d))
        if (ends_with(e->d_name, ".safetensors"))
            st = add_name(c, e->d_name);
    closedir(d);
    if (st == TR_OK && c->n_files == 0)
        st = tr_fail(TR_E_IO, "%s: has no *.safetensors file", c->dir);
    return st;
}

/* A file outside of the directory is nobody's business. */
static tr_status names_of_index(tr_checkpoint *c, const tr_json_file *f)
{
    const json_t *map = tr_json_member(f->root, "weight_map");
    const char *tensor;
    json_t *v;
    tr_status st = TR_OK;

    if (!json_is_object(map))
        return tr_fail(TR_E_FORMAT, "%s: \"weight_map\" is missing or no object", f->path);
    json_object_foreach((json_t *)map, tensor, v)
    {
        const char *name = json_string_value(v);
        if (st != TR_OK)
            break;
        if (!name || strlen(name) != json_string_length(v) || strchr(name, '/') ||
            !ends_with(name, ".safetensors"))
            st = tr_fail(TR_E_FORMAT, "%s: tensor %.200s is not in a *.safetensors file", f->path,
                         tensor);
        else
            st = add_name(c, name);
    }
    if (st == TR_OK && c->n_files == 0)
        st = tr_fail(TR_E_FORMAT, "%s: names no tensor", f->path);
    return st;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ---- their tensors -------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tr_source *)a)->tensor->name, ((const tr_source *)b)->tensor->name);
}

static tr_status open_files(tr_checkpoint *c)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < c->n_files && st == TR_OK; i++) {
        char *path = NULL;
        if (asprintf(&path, "%s/%s", c->dir, c->name[i]) < 0)
            return tr_fail(TR_E_MEMORY, "%s: no memory", c->dir);
        st = tr_safetensors_open(path, &c->file[i]);
        free(path);
        if (st == TR_OK)
            c->n += tr_safetensors_n(c->file[i]);
    }
    return st;
}

static tr_status gather(tr_checkpoint *c)
{
    size_t n = 0;

    c->source = calloc(c->n + 1, sizeof *c->source);
    if (!c->source)
        return tr_fail(TR_E_MEMORY, "%s: no memory for %zu tensors", c->dir, c->n);
    for (size_t i = 0; i < c->n_files; i++)
        for (size_t k = 0; k < tr_safetensors_n(c->file[i]); k++)
            c->source[n++] = (tr_source){ c->file[i], tr_safetensors_at(c->file[i], k), false };
    qsort(c->source, n, sizeof *c->source, by_name);
    for (size_t i = 1; i < n; i++)
        if (by_name(&c->source[i - 1], &c->source[i]) == 0)
            return tr_fail(TR_E_FORMAT, "%s: tensor %s is there twice, in %s and in %s", c->dir,
                           c->source[i].tensor->name, tr_safetensors_path(c->source[i - 1].file),
                           tr_safetensors_path(c->source[i].file));
    return TR_OK;
}

/* Each tensor of the index must be where it says. */
static tr_status check_index(tr_checkpoint *c, const tr_json_file *f)
{
    const char *tensor;
    json_t *v;

    json_object_foreach(tr_json_member(f->root, "weight_map"), tensor, v)
    {
        const tr_source *s = tr_checkpoint_find(c, tensor);
        if (!s || !ends_with(tr_safetensors_path(s->file), json_string_value(v)))
            return tr_fail(TR_E_FORMAT, "%s: promises tensor %.200s in %.200s, where it is not",
                           f->path, tensor, json_string_value(v));
    }
    return TR_OK;
}

static tr_status open_all(tr_checkpoint *c, const tr_json_file *f)
{
    tr_status st = f->root ? names_of_index(c, f) : names_of_directory(c);

    if (st == TR_OK) {
        qsort(c->name, c->n_files, sizeof c->name[0], by_text);
        st = open_files(c);
    }
    if (st == TR_OK)
        st = gather(c);
    return st == TR_OK && f->root ? check_index(c, f) : st;
}

tr_status tr_checkpoint_open(const char *dir, tr_checkpoint **out)
{
    tr_json_file f;
    tr_status st = tr_json_file_open(dir, index_name, TR_JSON_OPTIONAL, &f);

    if (st != TR_OK)
        return st;
    tr_checkpoint *c = calloc(1, sizeof *c);
    if (c)
        c->dir = dir;
    st = c ? open_all(c, &f) : tr_fail(TR_E_MEMORY, "%s: no memory", dir);
    tr_json_file_close(&f);
    if (st != TR_OK) {
        tr_checkpoint_close(&c);
        return st;
    }
    *out = c;
    return TR_OK;
}

tr_status tr_checkpoint_of(const char *dir, tr_safetensors *file, tr_checkpoint **out)
{
    tr_checkpoint *c = calloc(1, sizeof *c);

    if (!c) {
        tr_safetensors_close(&file);
        return tr_fail(TR_E_MEMORY, "%s: no memory", dir);
    }
    *c = (tr_checkpoint){ .dir = dir, .file = { file }, .n_files = 1, .n = tr_safetensors_n(file) };
    tr_status st = gather(c);
    if (st != TR_OK) {
        tr_checkpoint_close(&c);
        return st;
    }
    *out = c;
    return TR_OK;
}

void tr_checkpoint_close(tr_checkpoint **checkpoint)
{
    tr_checkpoint *c = *checkpoint;

    if (!c)
        return;
    for (size_t i = 0; i < c->n_files; i++) {
        tr_safetensors_close(&c->file[i]);
        free(c->name[i]);
    }
    free(c->source);
    free(c);
    *checkpoint = NULL;
}

static int against_name(const void *key, const void *item)
{
    return strcmp(key, ((const tr_source *)item)->tensor->name);
}

tr_source *tr_checkpoint_find(tr_checkpoint *c, const char *name)
{
    return bsearch(name, c->source, c->n, sizeof *c->source, against_name);
}

size_t tr_checkpoint_n(const tr_checkpoint *c)
{
    return c->n;
}

const tr_source *tr_checkpoint_at(const tr_checkpoint *c, size_t i)
{
    return &c->source[i];
}

uint64_t tr_checkpoint_identity(const tr_checkpoint *c)
{
    uint64_t id = 0;

    for (size_t i = 0; i < c->n_files; i++) {
        uint64_t file = tr_safetensors_identity(c->file[i]);
        id = XXH3_64bits_withSeed(&file, sizeof file, id);
    }
    return id;
}
