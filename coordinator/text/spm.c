/* spm.c - scores turned into merges, and text cut where no piece reaches across.
 *
 * A symbol is the id of a piece or, with the highest bit set, a character that is no piece.  Pieces
 * may consist of such characters, so they take part in merges.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/spm.h"
#include "coordinator/text/utf8.h"
#include "base/check.h"

#include <math.h>
#include <stdlib.h>

static const uint32_t character = UINT32_C(1) << 31;
static const uint8_t space_mark[] = { 0xe2, 0x96, 0x81 }; /* U+2581 */

struct tr_spm {
    tr_text_map words;
    tr_merges merges;
    uint32_t byte_ids[256];
    bool has_inner_space; /* some piece has a space behind another character */
};

static bool has_mark(tr_bytes text)
{
    return text.size >= sizeof space_mark && memcmp(text.data, space_mark, sizeof space_mark) == 0;
}

size_t tr_spm_decode(tr_bytes text, uint8_t *out)
{
    size_t n = 0;

    for (size_t pos = 0; pos < text.size;) {
        bool is_mark = has_mark((tr_bytes){ text.data + pos, text.size - pos });
        out[n++] = is_mark ? ' ' : text.data[pos];
        pos += is_mark ? sizeof space_mark : 1;
    }
    return n;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool tr_spm_byte(tr_bytes text, uint8_t *byte)
{
    if (text.size != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>')
        return false;
    int high = hex_digit(text.data[3]), low = hex_digit(text.data[4]);
    if (high < 0 || low < 0)
        return false;
    *byte = (uint8_t)(16 * high + low);
    return true;
}

/* ---- merges ---- */

typedef struct {
    tr_merge *items;
    size_t n, capacity;
} merge_list;

static tr_status merge_add(const tr_gguf *g, merge_list *list, tr_merge merge)
{
    if (list->n == TR_SPM_MAX_MERGES)
        return tr_fail(TR_E_FORMAT,
                       "%s: there are more than %d ways to cut tokenizer.ggml.tokens into two",
                       tr_gguf_path(g), TR_SPM_MAX_MERGES);
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 1024;
        tr_merge *grown = realloc(list->items, capacity * sizeof *grown);
        if (!grown)
            return tr_fail(TR_E_MEMORY, "tokenizer: no memory for %zu merges", capacity);
        list->items = grown;
        list->capacity = capacity;
    }
    list->items[list->n++] = merge;
    return TR_OK;
}

/* Ranks ascend where scores descend, and equal scores (also 0 and -0) have equal ranks. */
static uint32_t rank_of(float score)
{
    uint32_t bits;

    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~(bits | UINT32_C(1) << 31);
}

/* The symbol of a piece or a single character; text is not empty. */
static bool symbol_find(const tr_spm *s, tr_bytes text, uint32_t *symbol)
{
    size_t size;

    if (tr_text_map_find(&s->words, text, symbol))
        return true;
    tr_utf8_first(text, &size);
    if (size < text.size)
        return false;
    *symbol = character | tr_utf8_code(text.data, size);
    return true;
}

static tr_status piece_cut(const tr_gguf *g, const tr_spm *s, tr_bytes piece, tr_merge merge,
                           merge_list *list)
{
    tr_status st = TR_OK;

    for (size_t pos = 1; st == TR_OK && pos < piece.size; pos++) {
        tr_bytes left = { piece.data, pos }, right = { piece.data + pos, piece.size - pos };
        if ((right.data[0] & 0xc0) == 0x80)
            continue; /* inside a character */
        if (symbol_find(s, left, &merge.left) && symbol_find(s, right, &merge.right))
            st = merge_add(g, list, merge);
    }
    return st;
}

static tr_status merges_make(const tr_gguf *g, tr_spm *s, const tr_spm_vocab *v,
                             const uint8_t *scores)
{
    merge_list list = { 0 };
    tr_status st = TR_OK;
    uint32_t id;

    for (size_t i = 0; st == TR_OK && i < v->n; i++) {
        float score;
        memcpy(&score, scores + i * sizeof score, sizeof score);
        if (isnan(score))
            st = tr_fail(TR_E_FORMAT, "%s: tokenizer.ggml.scores[%zu] is no number",
                         tr_gguf_path(g), i);
        else if (v->is_word[i] && tr_text_map_find(&s->words, v->pieces[i], &id) && id == i)
            st = piece_cut(g, s, v->pieces[i],
                           (tr_merge){ .rank = rank_of(score), .joined = (uint32_t)i }, &list);
    }
    if (st == TR_OK)
        st = tr_merges_init(&s->merges, list.n);
    for (size_t i = 0; st == TR_OK && i < list.n; i++)
        tr_merges_put(&s->merges, list.items[i]);
    free(list.items);
    return st;
}

/* ---- new ---- */

static tr_status scores_find(const tr_gguf *g, size_t n, const uint8_t **scores)
{
    const char *key = "tokenizer.ggml.scores";
    const tr_gguf_entry *e = tr_gguf_entry_find(g, key);

    if (!e || e->kind != TR_GGUF_ARRAY || e->item != TR_GGUF_F32)
        return tr_fail(TR_E_FORMAT, "%s: %s is %s", tr_gguf_path(g), key,
                       e ? "no array of 32-bit floats" : "missing");
    if (e->n != n)
        return tr_fail(TR_E_FORMAT, "%s: %s has %llu items for %zu tokens", tr_gguf_path(g), key,
                       (unsigned long long)e->n, n);
    *scores = e->raw.data;
    return TR_OK;
}

static bool has_inner_space(tr_bytes piece)
{
    for (size_t i = 1; i < piece.size; i++)
        if (piece.data[i] == ' ' && piece.data[i - 1] != ' ')
            return true;
    return false;
}

static tr_status words_index(const tr_gguf *g, tr_spm *s, const tr_spm_vocab *v)
{
    tr_status st = tr_text_map_init(&s->words, v->pieces, v->n);
    size_t squares = 0, square;

    for (size_t i = 0; st == TR_OK && i < v->n; i++) {
        tr_bytes piece = v->pieces[i];
        if (!v->is_word[i] || piece.size == 0)
            continue;
        if (!tr_mul_size(piece.size, piece.size, &square) ||
            !tr_add_size(squares, square, &squares) || squares > TR_SPM_MAX_SQUARES)
            return tr_fail(TR_E_FORMAT,
                           "%s: tokenizer.ggml.tokens are too long: %zu bytes at [%zu], and those "
                           "before it",
                           tr_gguf_path(g), piece.size, i);
        tr_text_map_put(&s->words, (uint32_t)i);
        s->has_inner_space = s->has_inner_space || has_inner_space(piece);
    }
    return st;
}

tr_status tr_spm_new(const tr_gguf *g, const tr_spm_vocab *vocab, tr_spm **out)
{
    const uint8_t *scores = NULL;

    if (vocab->n >= character)
        return tr_fail(TR_E_FORMAT, "%s: %zu tokens are too many", tr_gguf_path(g), vocab->n);
    tr_spm *s = calloc(1, sizeof *s);
    if (!s)
        return tr_fail(TR_E_MEMORY, "tokenizer: no memory");
    memcpy(s->byte_ids, vocab->byte_ids, sizeof s->byte_ids);
    tr_status st = scores_find(g, vocab->n, &scores);
    if (st == TR_OK)
        st = words_index(g, s, vocab);
    if (st == TR_OK)
        st = merges_make(g, s, vocab, scores);
    if (st != TR_OK) {
        tr_spm_free(&s);
        return st;
    }
    *out = s;
    return TR_OK;
}

void tr_spm_free(tr_spm **s)
{
    if (!*s)
        return;
    tr_text_map_fini(&(*s)->words);
    tr_merges_fini(&(*s)->merges);
    free(*s);
    *s = NULL;
}

/* ---- encode ---- */

/* Characters that are left become the tokens of their bytes, from the last one on: so that there
 * is room without another array. */
static tr_status characters_to_bytes(const tr_spm *s, uint32_t *ids, size_t *n)
{
    uint8_t bytes[4];
    size_t to = 0;

    for (size_t i = 0; i < *n; i++)
        to += ids[i] & character ? tr_utf8_encode(ids[i] & ~character, bytes) : 1;
    size_t total = to;
    for (size_t i = *n; i-- > 0;) {
        uint32_t symbol = ids[i];
        if (!(symbol & character)) {
            ids[--to] = symbol;
            continue;
        }
        for (size_t k = tr_utf8_encode(symbol & ~character, bytes); k-- > 0;) {
            tr_status st = tr_vocab_byte(s->byte_ids, bytes[k], &ids[--to]);
            if (st != TR_OK)
                return st;
        }
    }
    *n = total;
    return TR_OK;
}

static tr_status join(const tr_spm *s, tr_bpe_work *w, uint32_t *ids, size_t *n)
{
    tr_status st = tr_bpe_merge(&s->merges, w, ids, n);

    return st == TR_OK ? characters_to_bytes(s, ids, n) : st;
}

tr_status tr_spm_encode(const tr_spm *s, tr_bpe_work *w, tr_bytes text, bool add_space,
                        uint32_t *ids, size_t *n)
{
    const tr_bytes space = tr_bytes_of(" ");
    size_t n_done = 0, n_part = 0, size;
    bool was_space = true;
    tr_status st = TR_OK;

    if (add_space)
        symbol_find(s, space, &ids[n_part++]);
    for (size_t pos = 0; st == TR_OK && pos < text.size; pos += size) {
        tr_bytes rest = { text.data + pos, text.size - pos };
        tr_utf8_first(rest, &size);
        bool is_space = rest.data[0] == ' ' || has_mark(rest);
        if (is_space && !was_space && !s->has_inner_space) {
            st = join(s, w, ids + n_done, &n_part);
            n_done += n_part;
            n_part = 0;
        }
        symbol_find(s, is_space ? space : (tr_bytes){ rest.data, size }, &ids[n_done + n_part++]);
        was_space = is_space;
    }
    if (st == TR_OK)
        st = join(s, w, ids + n_done, &n_part);
    if (st == TR_OK)
        *n = n_done + n_part;
    return st;
}
