/* guide.c - the vocabulary in the order of its bytes, walked with one state a depth.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/guide.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PIECE = 1024 }; /* longer tokens never come under a guide */

struct tr_guide_vocab {
    const tr_tokenizer *t;
    size_t n, n_vocab;
    uint32_t *id;     /* [n] in the order of their bytes: those that are text */
    uint16_t *common; /* [n] bytes that a piece has in common with the one before */
};

struct tr_guide {
    const tr_guide_vocab *v;
    tr_walk *walk;
    int32_t state;
    uint8_t *may; /* [n_vocab] while constraining */
};

static int by_bytes(const void *a, const void *b, void *ctx)
{
    tr_bytes x = tr_tokenizer_piece(ctx, *(const uint32_t *)a);
    tr_bytes y = tr_tokenizer_piece(ctx, *(const uint32_t *)b);
    size_t n = x.size < y.size ? x.size : y.size;
    int order = n ? memcmp(x.data, y.data, n) : 0;

    return order ? order : (x.size > y.size) - (x.size < y.size);
}

static size_t in_common(tr_bytes a, tr_bytes b)
{
    size_t n = 0;

    while (n < a.size && n < b.size && a.data[n] == b.data[n])
        n++;
    return n;
}

tr_status tr_guide_vocab_new(const tr_tokenizer *t, tr_guide_vocab **out)
{
    tr_guide_vocab *v = calloc(1, sizeof *v);

    if (!v)
        return tr_fail(TR_E_MEMORY, "guide: no memory");
    v->t = t;
    v->n_vocab = tr_tokenizer_n_vocab(t);
    v->id = malloc(v->n_vocab * sizeof *v->id);
    v->common = calloc(v->n_vocab + 1, sizeof *v->common);
    if (!v->id || !v->common) {
        tr_guide_vocab_free(&v);
        return tr_fail(TR_E_MEMORY, "guide: no memory");
    }
    for (uint32_t i = 0; i < v->n_vocab; i++) {
        size_t size = tr_tokenizer_piece(t, i).size;
        if (!tr_tokenizer_is_special(t, i) && !tr_tokenizer_is_eog(t, i) && size > 0 &&
            size <= MAX_PIECE)
            v->id[v->n++] = i;
    }
    qsort_r(v->id, v->n, sizeof *v->id, by_bytes, (void *)(uintptr_t)t);
    for (size_t i = 1; i < v->n; i++)
        v->common[i] = (uint16_t)in_common(tr_tokenizer_piece(t, v->id[i - 1]),
                                           tr_tokenizer_piece(t, v->id[i]));
    *out = v;
    return TR_OK;
}

void tr_guide_vocab_free(tr_guide_vocab **v)
{
    if (!*v)
        return;
    free((*v)->id);
    free((*v)->common);
    free(*v);
    *v = NULL;
}

tr_status tr_guide_new(const tr_guide_vocab *v, const tr_grammar *grammar, tr_guide **out)
{
    tr_guide *g = calloc(1, sizeof *g);

    if (!g)
        return tr_fail(TR_E_MEMORY, "guide: no memory");
    g->v = v;
    g->may = calloc(v->n_vocab, 1);
    tr_status st =
        g->may ? tr_walk_new(grammar, &g->walk) : tr_fail(TR_E_MEMORY, "guide: no memory");
    if (st != TR_OK) {
        tr_guide_free(&g);
        return st;
    }
    g->state = tr_walk_start(g->walk);
    *out = g;
    return TR_OK;
}

void tr_guide_free(tr_guide **g)
{
    if (!*g)
        return;
    tr_walk_free(&(*g)->walk);
    free((*g)->may);
    free(*g);
    *g = NULL;
}

/* Mark the pieces whose bytes can all follow. */
static size_t mark(tr_guide *g)
{
    const tr_guide_vocab *v = g->v;
    int32_t at[MAX_PIECE + 1]; /* after each byte of the piece before */
    size_t alive = 0;          /* bytes of the piece before that can follow */
    size_t n = 0;

    at[0] = g->state;
    for (size_t i = 0; i < v->n; i++) {
        size_t depth = v->common[i];
        if (depth > alive)
            continue; /* begins with what can't follow; `alive` still is right for the next */
        tr_bytes piece = tr_tokenizer_piece(v->t, v->id[i]);
        alive = depth;
        while (alive < piece.size && (at[alive + 1] = tr_walk_next(
                                          g->walk, at[alive], piece.data[alive])) != TR_WALK_DEAD)
            alive++;
        if (alive == piece.size) {
            g->may[v->id[i]] = 1;
            n++;
        }
    }
    return n;
}

size_t tr_guide_constrain(tr_guide *g, float *logits, size_t n_vocab)
{
    const tr_tokenizer *t = g->v->t;
    bool may_end = tr_walk_is_end(g->walk, g->state);
    size_t known = n_vocab < g->v->n_vocab ? n_vocab : g->v->n_vocab;

    g->state = tr_walk_trim(g->walk, g->state);
    memset(g->may, 0, g->v->n_vocab);
    size_t n = mark(g);
    for (uint32_t i = 0; may_end && i < known; i++) {
        if (tr_tokenizer_is_eog(t, i)) {
            g->may[i] = 1;
            n++;
        }
    }
    for (size_t i = 0; i < n_vocab; i++)
        if (i >= known || !g->may[i])
            logits[i] = -INFINITY;
    return n;
}

bool tr_guide_accept(tr_guide *g, uint32_t id)
{
    tr_bytes piece = tr_tokenizer_piece(g->v->t, id);

    for (size_t i = 0; i < piece.size; i++)
        g->state = tr_walk_next(g->walk, g->state, piece.data[i]);
    return g->state != TR_WALK_DEAD;
}

bool tr_guide_is_over(const tr_guide *g)
{
    return tr_walk_is_over(g->walk, g->state);
}
