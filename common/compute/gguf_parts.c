/* gguf_parts.c - a model in several files, read as one.
 *
 * NAME-00001-of-00003.gguf and its like: each part is a GGUF file of its own, the first has the
 * metadata, and the key split.count says how many there are.  Joined, their bytes stand one file
 * after the other, so a tensor's place is one number, as in a single file.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/gguf_entry.h"

#include <xxhash.h>

#include <stdio.h>
#include <stdlib.h>

enum { MAX_PARTS = 1000, SUFFIX = 20 }; /* "-00001-of-00003.gguf" */

/* Where in a part's path its number and the count stand; NULL if it is not called so. */
static const char *suffix_of(const char *path, uint32_t n)
{
    size_t size = strlen(path);
    char count[SUFFIX];

    if (size <= SUFFIX)
        return NULL;
    const char *suffix = path + size - SUFFIX;
    snprintf(count, sizeof count, "-of-%05u.gguf", n);
    return suffix[0] == '-' && strcmp(suffix + 6, count) == 0 ? suffix : NULL;
}

static tr_status check_part(const tr_gguf *g, uint32_t number, uint32_t n)
{
    uint32_t its_number = UINT32_MAX;
    uint32_t its_n = 0;

    tr_status st = tr_gguf_get_u32(g, "split.no", &its_number);
    if (st == TR_OK)
        st = tr_gguf_get_u32(g, "split.count", &its_n);
    if (st == TR_OK && (its_number != number || its_n != n))
        st = tr_fail(TR_E_FORMAT,
                     "model %s: says that it is part %llu of %u, but its name says %u of %u",
                     g->path, (unsigned long long)its_number + 1, its_n, number + 1, n);
    return st;
}

static tr_status open_part(const char *path, const char *suffix, uint32_t number, uint32_t n,
                           tr_gguf **out)
{
    size_t size = strlen(path) + 1;
    char *name = malloc(size);

    if (!name)
        return tr_fail(TR_E_MEMORY, "model %s: no memory", path);
    snprintf(name, size, "%.*s-%05u-of-%05u.gguf", (int)(suffix - path), path, number + 1, n);
    tr_status st = tr_gguf_open_file(name, out);
    if (st == TR_OK)
        st = check_part(*out, number, n);
    free(name);
    return st;
}

/* The tensors of all parts in the list of the first, at places behind all bytes before. */
static tr_status join(tr_gguf *g)
{
    uint32_t promised = UINT32_MAX;
    size_t n = g->n_tensors;

    for (size_t i = 1; i < g->n_parts; i++)
        n += g->part[i]->n_tensors;
    tr_status st = tr_gguf_opt_u32(g, "split.tensors.count", &promised);
    if (st == TR_OK && promised != UINT32_MAX && promised != n)
        st = tr_fail(TR_E_FORMAT, "model %s: its %zu parts have %zu tensors, not %u", g->path,
                     g->n_parts, n, promised);
    if (st == TR_OK && n > TR_GGUF_MAX_TENSORS)
        st = tr_fail(TR_E_FORMAT, "model %s: %zu tensors, more than the limit %d", g->path, n,
                     TR_GGUF_MAX_TENSORS);
    tr_gguf_tensor *all = st == TR_OK ? realloc(g->tensor, (n ? n : 1) * sizeof *all) : NULL;
    if (!all)
        return st == TR_OK ? tr_fail(TR_E_MEMORY, "model %s: no memory", g->path) : st;
    g->tensor = all;
    for (size_t i = 1; i < g->n_parts; i++) {
        const tr_gguf *p = g->part[i];
        for (size_t t = 0; t < p->n_tensors; t++) {
            all[g->n_tensors] = p->tensor[t];
            all[g->n_tensors++].offset += g->base[i];
        }
        g->identity = XXH3_64bits_withSeed(&p->identity, sizeof p->identity, g->identity);
    }
    return tr_gguf_index_tensors(g);
}

tr_status tr_gguf_join_parts(tr_gguf **gguf)
{
    tr_gguf *given = *gguf;
    tr_gguf *g = NULL;
    uint32_t n = 0;

    tr_status st = tr_gguf_opt_u32(given, "split.count", &n);
    if (st != TR_OK || n <= 1)
        return st;
    const char *suffix = suffix_of(given->path, n);
    if (n > MAX_PARTS || !suffix)
        return tr_fail(TR_E_FORMAT,
                       "model %s: is one of %u parts, at most %d, which must be called "
                       "NAME-00001-of-%05u.gguf and so on to be found",
                       given->path, n, MAX_PARTS, n);
    st = open_part(given->path, suffix, 0, n, &g);
    if (st == TR_OK) {
        g->part = calloc(n, sizeof *g->part);
        g->base = calloc(n, sizeof *g->base);
        g->n_parts = g->part && g->base ? n : 0;
        st = g->n_parts ? TR_OK : tr_fail(TR_E_MEMORY, "model %s: no memory", given->path);
    }
    for (uint32_t i = 1; i < n && st == TR_OK; i++) {
        g->base[i] = g->file_size;
        st = open_part(given->path, suffix, i, n, &g->part[i]);
        if (st == TR_OK && !tr_add_size(g->file_size, g->part[i]->file_size, &g->file_size))
            st = tr_fail(TR_E_FORMAT, "model %s: its parts are too large", given->path);
    }
    if (st == TR_OK)
        st = join(g);
    if (st != TR_OK) {
        tr_gguf_close(&g);
        return st;
    }
    tr_gguf_close(gguf);
    *gguf = g;
    return TR_OK;
}

const tr_gguf *tr_gguf_part_at(const tr_gguf *g, uint64_t *offset)
{
    size_t i = g->n_parts;

    while (i > 1 && *offset < g->base[i - 1])
        i--;
    if (i <= 1)
        return g;
    *offset -= g->base[i - 1];
    return g->part[i - 1];
}
