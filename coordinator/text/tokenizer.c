/* tokenizer.c - a vocabulary read from a file, checked, and used.
 *
 * All tables are built once.  Merges of byte-level vocabularies are kept by token id, so that
 * encoding compares numbers and never text; that works because both halves of a merge and the whole
 * are tokens, which new checks.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/spm.h"
#include "coordinator/text/utf8.h"
#include "coordinator/text/vocab.h"
#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>

/* tokenizer.ggml.token_type */
enum {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_USER_DEFINED = 4,
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6,
};

struct tr_tokenizer {
    bool is_spm; /* SentencePiece; else byte-level */
    size_t n_vocab;
    tr_bytes *pieces;  /* n_vocab, views into block */
    uint8_t *types;    /* n_vocab */
    bool *is_eog;      /* n_vocab */
    uint8_t *block;    /* the bytes of all pieces */
    uint32_t *special; /* n_special ids, by their text in ascending order */
    size_t n_special;
    uint32_t byte_id[256]; /* TR_VOCAB_NO_TOKEN if the vocabulary lacks it */
    uint32_t bos, eos;     /* TR_VOCAB_NO_TOKEN if the file names none */
    bool adds_bos, adds_eos;
    bool adds_space; /* to the front of text, and behind special tokens */

    /* byte-level */
    tr_text_map words; /* pieces of normal tokens */
    tr_merges merges;
    tr_pretokenizer *pre;

    tr_spm *spm;
};

static int text_width(tr_bytes text)
{
    return text.size < 64 ? (int)text.size : 64;
}

/* Text of control and user-defined tokens is what it is; that of others is the byte alphabet. */
static bool is_encoded(uint8_t type)
{
    return type == TYPE_NORMAL || type == TYPE_BYTE;
}

static tr_status types_read(const tr_gguf *g, tr_tokenizer *t)
{
    const char *key = "tokenizer.ggml.token_type";
    const tr_gguf_entry *e = tr_gguf_entry_find(g, key);

    memset(t->types, TYPE_NORMAL, t->n_vocab);
    if (!e)
        return TR_OK;
    if (e->kind != TR_GGUF_ARRAY || (e->item != TR_GGUF_I32 && e->item != TR_GGUF_U32))
        return tr_fail(TR_E_FORMAT, "%s: %s is no array of 32-bit integers", tr_gguf_path(g), key);
    if (e->n != t->n_vocab)
        return tr_fail(TR_E_FORMAT, "%s: %s has %llu items for %zu tokens", tr_gguf_path(g), key,
                       (unsigned long long)e->n, t->n_vocab);
    for (size_t i = 0; i < t->n_vocab; i++) {
        uint32_t type;
        memcpy(&type, e->raw.data + i * sizeof type, sizeof type);
        if (type < TYPE_NORMAL || type > TYPE_BYTE)
            return tr_fail(TR_E_FORMAT, "%s: %s[%zu] is %u, not 1 to 6", tr_gguf_path(g), key, i,
                           type);
        t->types[i] = (uint8_t)type;
    }
    return TR_OK;
}

static tr_status tables_new(const tr_gguf *g, tr_tokenizer *t, const tr_bytes *texts)
{
    size_t total = 1;

    for (size_t i = 0; i < t->n_vocab; i++)
        total += texts[i].size;
    t->pieces = calloc(t->n_vocab, sizeof *t->pieces);
    t->types = calloc(t->n_vocab, sizeof *t->types);
    t->is_eog = calloc(t->n_vocab, sizeof *t->is_eog);
    t->special = calloc(t->n_vocab, sizeof *t->special);
    t->block = malloc(total);
    if (!t->pieces || !t->types || !t->is_eog || !t->special || !t->block)
        return tr_fail(TR_E_MEMORY, "%s: no memory for a vocabulary of %zu tokens", tr_gguf_path(g),
                       t->n_vocab);
    return TR_OK;
}

/* The bytes of a token with this text, written to out; returns their number, 0 for a byte's token
 * whose text names none. */
static size_t piece_decode(const tr_tokenizer *t, uint8_t type, tr_bytes text, uint8_t *out)
{
    if (t->is_spm && type == TYPE_BYTE)
        return tr_spm_byte(text, out) ? 1 : 0;
    if (t->is_spm && type != TYPE_CONTROL && type != TYPE_UNKNOWN)
        return tr_spm_decode(text, out);
    if (!t->is_spm && is_encoded(type))
        return tr_vocab_decode(text, out);
    if (text.size > 0)
        memcpy(out, text.data, text.size);
    return text.size;
}

static tr_status pieces_decode(const tr_gguf *g, tr_tokenizer *t, const tr_bytes *texts)
{
    uint8_t *at = t->block;
    size_t bad;

    for (size_t i = 0; i < t->n_vocab; i++) {
        if (!tr_utf8_valid(texts[i], &bad))
            return tr_fail(TR_E_FORMAT, "%s: tokenizer.ggml.tokens[%zu] is not valid UTF-8",
                           tr_gguf_path(g), i);
        size_t size = piece_decode(t, t->types[i], texts[i], at);
        if (t->is_spm && t->types[i] == TYPE_BYTE && size == 0)
            return tr_fail(
                TR_E_FORMAT,
                "%s: tokenizer.ggml.tokens[%zu] \"%.*s\" is a byte's token, but not like "
                "<0x0A>",
                tr_gguf_path(g), i, text_width(texts[i]), (const char *)texts[i].data);
        t->pieces[i] = (tr_bytes){ at, size };
        at += size;
    }
    return TR_OK;
}

/* words and byte_id; texts_map finds a token by its text in the file. */
static tr_status words_index(tr_tokenizer *t, const tr_text_map *texts_map)
{
    tr_status st = tr_text_map_init(&t->words, t->pieces, t->n_vocab);

    if (st != TR_OK)
        return st;
    for (size_t i = 0; i < t->n_vocab; i++)
        if (is_encoded(t->types[i]))
            tr_text_map_put(&t->words, (uint32_t)i);
    for (size_t b = 0; b < 256; b++) {
        uint8_t text[2];
        tr_bytes key = { text, tr_vocab_encode_byte((uint8_t)b, text) };
        uint32_t id;
        bool has_token = tr_text_map_find(texts_map, key, &id) && t->pieces[id].size == 1 &&
                         t->pieces[id].data[0] == b;
        t->byte_id[b] = has_token ? id : TR_VOCAB_NO_TOKEN;
    }
    return TR_OK;
}

/* Do the bytes of two tokens make those of a third?  They don't if one of the three is, say, a
 * control token, whose text is not in the byte alphabet. */
static bool makes(tr_bytes left, tr_bytes right, tr_bytes whole)
{
    return whole.size == left.size + right.size &&
           tr_bytes_equal((tr_bytes){ whole.data, left.size }, left) &&
           tr_bytes_equal((tr_bytes){ whole.data + left.size, right.size }, right);
}

/* A merge is "left right".  The whole is a token too; joined is room for its text. */
static tr_status merge_parse(const tr_gguf *g, const tr_tokenizer *t, const tr_text_map *texts_map,
                             tr_bytes text, size_t rank, uint8_t *joined, tr_merge *out)
{
    const uint8_t *space = NULL;

    if (text.size > 1)
        space = memchr(text.data + 1, ' ', text.size - 1);
    if (!space || space == text.data + text.size - 1)
        return tr_fail(TR_E_FORMAT, "%s: tokenizer.ggml.merges[%zu] is not two tokens and a space",
                       tr_gguf_path(g), rank);
    size_t n_left = (size_t)(space - text.data), n_right = text.size - n_left - 1;
    memcpy(joined, text.data, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    tr_bytes left = { text.data, n_left }, right = { space + 1, n_right };
    tr_bytes whole = { joined, n_left + n_right };
    *out = (tr_merge){ .rank = (uint32_t)rank };
    if (!tr_text_map_find(texts_map, left, &out->left) ||
        !tr_text_map_find(texts_map, right, &out->right) ||
        !tr_text_map_find(texts_map, whole, &out->joined))
        return tr_fail(
            TR_E_FORMAT,
            "%s: tokenizer.ggml.merges[%zu] \"%.*s\" joins what are no tokens, or to none",
            tr_gguf_path(g), rank, text_width(text), (const char *)text.data);
    if (!makes(t->pieces[out->left], t->pieces[out->right], t->pieces[out->joined]))
        return tr_fail(TR_E_FORMAT, "%s: tokenizer.ggml.merges[%zu] \"%.*s\" joins special tokens",
                       tr_gguf_path(g), rank, text_width(text), (const char *)text.data);
    return TR_OK;
}

static tr_status merges_read(const tr_gguf *g, tr_tokenizer *t, const tr_text_map *texts_map)
{
    tr_bytes *texts = NULL;
    size_t n, longest = 1;
    uint8_t *joined = NULL;
    tr_status st = tr_gguf_get_strings(g, "tokenizer.ggml.merges", &texts, &n);

    if (st != TR_OK)
        return st;
    if (n >= UINT32_MAX) {
        st = tr_fail(TR_E_FORMAT, "%s: %zu merges are too many", tr_gguf_path(g), n);
        goto out_texts;
    }
    for (size_t i = 0; i < n; i++)
        longest = texts[i].size > longest ? texts[i].size : longest;
    joined = malloc(longest);
    if (!joined) {
        st = tr_fail(TR_E_MEMORY, "%s: no memory for a merge of %zu bytes", tr_gguf_path(g),
                     longest);
        goto out_texts;
    }
    st = tr_merges_init(&t->merges, n);
    for (size_t i = 0; st == TR_OK && i < n; i++) {
        tr_merge merge;
        st = merge_parse(g, t, texts_map, texts[i], i, joined, &merge);
        if (st == TR_OK)
            tr_merges_put(&t->merges, merge);
    }
    free(joined);
out_texts:
    free(texts);
    return st;
}

static int compare(tr_bytes a, tr_bytes b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int order = n > 0 ? memcmp(a.data, b.data, n) : 0;

    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* By text; equal texts by id, so that the first one is found. */
static int compare_special(const void *a, const void *b, void *context)
{
    const tr_bytes *pieces = context;
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int order = compare(pieces[x], pieces[y]);

    return order != 0 ? order : (x > y) - (x < y);
}

static void special_index(tr_tokenizer *t)
{
    for (size_t i = 0; i < t->n_vocab; i++) {
        bool is_searched = t->types[i] == TYPE_CONTROL || t->types[i] == TYPE_USER_DEFINED ||
                           t->types[i] == TYPE_UNKNOWN;
        if (is_searched && t->pieces[i].size > 0)
            t->special[t->n_special++] = (uint32_t)i;
    }
    qsort_r(t->special, t->n_special, sizeof *t->special, compare_special, t->pieces);
}

/* An optional key that holds a token id. */
static tr_status id_read(const tr_gguf *g, const tr_tokenizer *t, const char *key, uint32_t *id)
{
    *id = TR_VOCAB_NO_TOKEN;
    if (!tr_gguf_entry_find(g, key))
        return TR_OK;
    tr_status st = tr_gguf_get_u32(g, key, id);
    if (st == TR_OK && *id >= t->n_vocab)
        st = tr_fail(TR_E_FORMAT, "%s: %s is %u, but there are %zu tokens", tr_gguf_path(g), key,
                     *id, t->n_vocab);
    return st;
}

/* The tokens that begin and end a text.  SentencePiece has usual places for them. */
static tr_status bounds_read(const tr_gguf *g, tr_tokenizer *t)
{
    enum { SPM_BOS = 1, SPM_EOS = 2 };
    tr_status st = id_read(g, t, "tokenizer.ggml.bos_token_id", &t->bos);

    if (st == TR_OK)
        st = id_read(g, t, "tokenizer.ggml.eos_token_id", &t->eos);
    if (st != TR_OK || !t->is_spm || t->n_vocab <= SPM_EOS)
        return st;
    if (t->bos == TR_VOCAB_NO_TOKEN && t->types[SPM_BOS] == TYPE_CONTROL)
        t->bos = SPM_BOS;
    if (t->eos == TR_VOCAB_NO_TOKEN && t->types[SPM_EOS] == TYPE_CONTROL)
        t->eos = SPM_EOS;
    return TR_OK;
}

/* Files often name only one of several tokens that end a turn, so known ones count as well. */
static tr_status ends_read(const tr_gguf *g, tr_tokenizer *t)
{
    static const char *const keys[] = { "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    static const char *const known[] = {
        "<|endoftext|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<end_of_turn>",
        "<|endofturn|>",
        "<EOT>",
        "<\xef\xbd\x9c"
        "end\xe2\x96\x81of\xe2\x96\x81sentence"
        "\xef\xbd\x9c>",
    };

    if (t->eos != TR_VOCAB_NO_TOKEN)
        t->is_eog[t->eos] = true;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint32_t id;
        tr_status st = id_read(g, t, keys[i], &id);
        if (st != TR_OK)
            return st;
        if (id != TR_VOCAB_NO_TOKEN)
            t->is_eog[id] = true;
    }
    for (size_t i = 0; i < t->n_vocab; i++)
        for (size_t j = 0; j < sizeof known / sizeof known[0]; j++)
            if (t->types[i] == TYPE_CONTROL && tr_bytes_equal(t->pieces[i], tr_bytes_of(known[j])))
                t->is_eog[i] = true;
    return TR_OK;
}

static tr_status kind_read(const tr_gguf *g, tr_tokenizer *t)
{
    tr_bytes model, pre = tr_bytes_of("default");
    tr_status st = tr_gguf_get_string(g, "tokenizer.ggml.model", &model);

    if (st != TR_OK)
        return st;
    t->is_spm = tr_bytes_equal(model, tr_bytes_of("llama"));
    if (t->is_spm)
        return TR_OK;
    if (!tr_bytes_equal(model, tr_bytes_of("gpt2")))
        return tr_fail(TR_E_UNSUPPORTED,
                       "%s: tokenizer.ggml.model is \"%.*s\", only \"gpt2\" (byte-level BPE) and "
                       "\"llama\" (SentencePiece) are supported",
                       tr_gguf_path(g), text_width(model), (const char *)model.data);
    if (!tr_gguf_entry_find(g, "tokenizer.ggml.pre"))
        tr_log(TR_LOG_WARN, "%s: no tokenizer.ggml.pre: words are cut by the default expressions",
               tr_gguf_path(g));
    st = tr_gguf_opt_string(g, "tokenizer.ggml.pre", &pre);
    return st == TR_OK ? tr_pretokenizer_new(pre, &t->pre) : st;
}

/* What byte-level vocabularies have besides pieces. */
static tr_status byte_level_read(const tr_gguf *g, tr_tokenizer *t, const tr_bytes *texts)
{
    tr_text_map texts_map;
    tr_status st = tr_text_map_init(&texts_map, texts, t->n_vocab);

    if (st != TR_OK)
        return st;
    for (size_t i = 0; i < t->n_vocab; i++)
        tr_text_map_put(&texts_map, (uint32_t)i);
    st = words_index(t, &texts_map);
    if (st == TR_OK)
        st = merges_read(g, t, &texts_map);
    tr_text_map_fini(&texts_map);
    return st;
}

/* Text becomes normal and unused tokens by merging, bytes where it must, and special ones only
 * where their whole text is found.  A token with a space of its own can't be reached: the spaces of
 * text are marks. */
static tr_status spm_read(const tr_gguf *g, tr_tokenizer *t, const tr_bytes *texts)
{
    bool *is_word = calloc(t->n_vocab, sizeof *is_word);

    if (!is_word)
        return tr_fail(TR_E_MEMORY, "%s: no memory for a vocabulary of %zu tokens", tr_gguf_path(g),
                       t->n_vocab);
    for (size_t b = 0; b < 256; b++)
        t->byte_id[b] = TR_VOCAB_NO_TOKEN;
    for (size_t i = 0; i < t->n_vocab; i++) {
        if (t->types[i] == TYPE_BYTE && t->byte_id[t->pieces[i].data[0]] == TR_VOCAB_NO_TOKEN)
            t->byte_id[t->pieces[i].data[0]] = (uint32_t)i;
        is_word[i] = (t->types[i] == TYPE_NORMAL || t->types[i] == TYPE_UNUSED) &&
                     texts[i].size > 0 && !memchr(texts[i].data, ' ', texts[i].size);
    }
    tr_spm_vocab vocab = { t->n_vocab, t->pieces, is_word, t->byte_id };
    tr_status st = tr_spm_new(g, &vocab, &t->spm);
    free(is_word);
    return st;
}

static tr_status vocabulary_read(const tr_gguf *g, tr_tokenizer *t)
{
    tr_bytes *texts = NULL;
    tr_status st = tr_gguf_get_strings(g, "tokenizer.ggml.tokens", &texts, &t->n_vocab);

    if (st != TR_OK)
        return st;
    if (t->n_vocab == 0 || t->n_vocab >= UINT32_MAX) {
        st = tr_fail(TR_E_FORMAT, "%s: tokenizer.ggml.tokens has %zu items", tr_gguf_path(g),
                     t->n_vocab);
        goto out_texts;
    }
    st = tables_new(g, t, texts);
    if (st == TR_OK)
        st = types_read(g, t);
    if (st == TR_OK)
        st = pieces_decode(g, t, texts);
    if (st == TR_OK)
        st = t->is_spm ? spm_read(g, t, texts) : byte_level_read(g, t, texts);
out_texts:
    free(texts);
    return st;
}

/* What is put around text without being asked for. */
static tr_status rules_read(const tr_gguf *g, tr_tokenizer *t)
{
    t->adds_bos = t->is_spm || tr_pretokenizer_adds_bos(t->pre);
    tr_status st = tr_gguf_opt_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos);
    if (st == TR_OK)
        st = tr_gguf_opt_bool(g, "tokenizer.ggml.add_eos_token", &t->adds_eos);
    if (st != TR_OK || !t->is_spm)
        return st;
    t->adds_space = true;
    return tr_gguf_opt_bool(g, "tokenizer.ggml.add_space_prefix", &t->adds_space);
}

/* A model's output is one number for each token; a file of a vocabulary alone has none. */
static tr_status embedding_fits(const tr_gguf *g, const tr_tokenizer *t)
{
    const tr_gguf_tensor *rows = tr_gguf_find(g, "token_embd.weight");

    if (!rows || rows->dim[1] == t->n_vocab)
        return TR_OK;
    return tr_fail(TR_E_FORMAT, "model %s: the tokenizer has %zu tokens, the embedding %llu rows",
                   tr_gguf_path(g), t->n_vocab, (unsigned long long)rows->dim[1]);
}

tr_status tr_tokenizer_new(const tr_gguf *g, tr_tokenizer **out)
{
    tr_tokenizer *t = calloc(1, sizeof *t);

    if (!t)
        return tr_fail(TR_E_MEMORY, "tokenizer: no memory");
    tr_status st = kind_read(g, t);
    if (st == TR_OK)
        st = vocabulary_read(g, t);
    if (st == TR_OK)
        st = embedding_fits(g, t);
    if (st == TR_OK)
        st = bounds_read(g, t);
    if (st == TR_OK)
        st = ends_read(g, t);
    if (st == TR_OK)
        st = rules_read(g, t);
    if (st == TR_OK)
        special_index(t);
    if (st != TR_OK) {
        tr_tokenizer_free(&t);
        return st;
    }
    *out = t;
    return TR_OK;
}

void tr_tokenizer_free(tr_tokenizer **t)
{
    if (!*t)
        return;
    tr_pretokenizer_free(&(*t)->pre);
    tr_merges_fini(&(*t)->merges);
    tr_text_map_fini(&(*t)->words);
    tr_spm_free(&(*t)->spm);
    free((*t)->pieces);
    free((*t)->types);
    free((*t)->is_eog);
    free((*t)->special);
    free((*t)->block);
    free(*t);
    *t = NULL;
}

/* One call of encode. */
typedef struct {
    const tr_tokenizer *t;
    tr_pieces pieces;
    tr_bpe_work bpe;
    uint32_t *ids; /* room for one per byte of the text, and spaces that are added */
    size_t n;
    bool adds_space; /* before the next text */
} encoder;

static tr_status encode_word(encoder *e, tr_bytes word)
{
    const tr_tokenizer *t = e->t;
    uint32_t *ids = e->ids + e->n, whole;
    size_t n = word.size;

    if (tr_pretokenizer_takes_whole_words(t->pre) && tr_text_map_find(&t->words, word, &whole)) {
        e->ids[e->n++] = whole;
        return TR_OK;
    }
    for (size_t i = 0; i < n; i++) {
        tr_status st = tr_vocab_byte(t->byte_id, word.data[i], &ids[i]);
        if (st != TR_OK)
            return st;
    }
    tr_status st = tr_bpe_merge(&t->merges, &e->bpe, ids, &n);
    if (st == TR_OK)
        e->n += n;
    return st;
}

static tr_status encode_spm(encoder *e, tr_bytes text)
{
    size_t n = 0;

    if (text.size == 0)
        return TR_OK;
    tr_status st = tr_spm_encode(e->t->spm, &e->bpe, text, e->adds_space, e->ids + e->n, &n);
    e->n += n;
    e->adds_space = false;
    return st;
}

static tr_status encode_plain(encoder *e, tr_bytes text)
{
    if (e->t->is_spm)
        return encode_spm(e, text);

    size_t from = 0;
    tr_status st = tr_pretokenize(e->t->pre, text, &e->pieces);

    for (size_t i = 0; st == TR_OK && i < e->pieces.n; i++) {
        size_t end = e->pieces.end[i];
        st = encode_word(e, (tr_bytes){ text.data + from, end - from });
        from = end;
    }
    return st;
}

/* The first i in from..to whose special token has at least `byte` at position pos, where all of
 * from..to have the same pos bytes in front of it. */
static size_t special_bound(const tr_tokenizer *t, size_t from, size_t to, size_t pos, int byte)
{
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        tr_bytes piece = t->pieces[t->special[middle]];
        int found = piece.size > pos ? piece.data[pos] : -1;
        if (found < byte)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* The longest special token that text begins with: the sorted tokens that agree with the text
 * so far are a range, and each byte narrows it. */
static uint32_t special_at(const tr_tokenizer *t, tr_bytes text, bool parse_special)
{
    size_t from = 0, to = t->n_special;
    uint32_t longest = TR_VOCAB_NO_TOKEN;

    for (size_t pos = 0; pos < text.size && from < to; pos++) {
        from = special_bound(t, from, to, pos, text.data[pos]);
        to = special_bound(t, from, to, pos, text.data[pos] + 1);
        for (size_t i = from; i < to && t->pieces[t->special[i]].size == pos + 1; i++) {
            uint32_t id = t->special[i];
            if (parse_special || t->types[id] == TYPE_USER_DEFINED) {
                longest = id;
                break;
            }
        }
    }
    return longest;
}

static tr_status encode_all(encoder *e, tr_bytes text, bool parse_special)
{
    size_t plain = 0, pos = 0;
    tr_status st = TR_OK;

    while (st == TR_OK && pos < text.size) {
        tr_bytes rest = { text.data + pos, text.size - pos };
        uint32_t id = special_at(e->t, rest, parse_special);
        if (id == TR_VOCAB_NO_TOKEN) {
            pos++;
            continue;
        }
        st = encode_plain(e, (tr_bytes){ text.data + plain, pos - plain });
        e->ids[e->n++] = id;
        e->adds_space = e->t->adds_space;
        pos += e->t->pieces[id].size;
        plain = pos;
    }
    if (st == TR_OK)
        st = encode_plain(e, (tr_bytes){ text.data + plain, text.size - plain });
    return st;
}

/* Each text behind a special token may begin with a space, so there are less than two ids for
 * each byte, and one. */
static tr_status encode(const tr_tokenizer *t, tr_bytes text, bool parse_special, bool adds_space,
                        uint32_t **ids, size_t *n)
{
    encoder e = { .t = t, .adds_space = adds_space };
    size_t bad;

    if (text.size == 0)
        text = tr_bytes_of(""); /* so that no code below computes with a null pointer */
    if (text.size > TR_TOKENIZER_MAX_TEXT)
        return tr_fail(TR_E_REQUEST, "the text of %zu bytes is longer than %d", text.size,
                       TR_TOKENIZER_MAX_TEXT);
    if (!tr_utf8_valid(text, &bad))
        return tr_fail(TR_E_REQUEST, "the text is not valid UTF-8: byte 0x%02x at position %zu",
                       text.data[bad], bad);
    e.ids = malloc((text.size * (t->adds_space ? 2 : 1) + 1) * sizeof *e.ids);
    if (!e.ids)
        return tr_fail(TR_E_MEMORY, "tokenizer: no memory for a text of %zu bytes", text.size);
    tr_status st = tr_pieces_init(&e.pieces);
    if (st == TR_OK)
        st = encode_all(&e, text, parse_special);
    tr_pieces_fini(&e.pieces);
    tr_bpe_work_fini(&e.bpe);
    if (st != TR_OK) {
        free(e.ids);
        return st;
    }
    uint32_t *fitted = realloc(e.ids, (e.n + 1) * sizeof *fitted);
    *ids = fitted ? fitted : e.ids;
    *n = e.n;
    return TR_OK;
}

tr_status tr_tokenizer_encode(const tr_tokenizer *t, tr_bytes text, bool parse_special,
                              uint32_t **ids, size_t *n)
{
    return encode(t, text, parse_special, t->adds_space, ids, n);
}

tr_status tr_tokenizer_encode_rest(const tr_tokenizer *t, tr_bytes text, bool parse_special,
                                   uint32_t **ids, size_t *n)
{
    return encode(t, text, parse_special, false, ids, n);
}

tr_bytes tr_tokenizer_piece(const tr_tokenizer *t, uint32_t id)
{
    TR_CHECK(id < t->n_vocab);
    return t->pieces[id];
}

size_t tr_tokenizer_n_vocab(const tr_tokenizer *t)
{
    return t->n_vocab;
}

bool tr_tokenizer_is_special(const tr_tokenizer *t, uint32_t id)
{
    TR_CHECK(id < t->n_vocab);
    return !is_encoded(t->types[id]) && t->types[id] != TYPE_USER_DEFINED;
}

bool tr_tokenizer_special(const tr_tokenizer *t, tr_bytes text, uint32_t *id)
{
    uint32_t found = special_at(t, text, true);

    if (found == TR_VOCAB_NO_TOKEN || t->pieces[found].size != text.size)
        return false;
    *id = found;
    return true;
}

bool tr_tokenizer_is_eog(const tr_tokenizer *t, uint32_t id)
{
    TR_CHECK(id < t->n_vocab);
    return t->is_eog[id];
}

bool tr_tokenizer_bos(const tr_tokenizer *t, uint32_t *id)
{
    if (t->bos == TR_VOCAB_NO_TOKEN)
        return false;
    *id = t->bos;
    return true;
}

bool tr_tokenizer_eos(const tr_tokenizer *t, uint32_t *id)
{
    if (t->eos == TR_VOCAB_NO_TOKEN)
        return false;
    *id = t->eos;
    return true;
}

bool tr_tokenizer_adds_eos(const tr_tokenizer *t)
{
    return t->adds_eos && t->eos != TR_VOCAB_NO_TOKEN;
}

bool tr_tokenizer_adds_bos(const tr_tokenizer *t)
{
    return t->adds_bos && t->bos != TR_VOCAB_NO_TOKEN;
}
