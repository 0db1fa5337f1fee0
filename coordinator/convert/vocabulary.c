/* vocabulary.c - ids, types, merges, and the tokens with a meaning.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/vocabulary.h"

#include "base/log.h"
#include "coordinator/convert/pre_name.h"
#include "coordinator/text/spm.h"
#include "coordinator/text/vocab.h"

#include <stdio.h>
#include <stdlib.h>

/* tokenizer.ggml.token_type */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

#define SPACE_MARK "\xe2\x96\x81"

typedef struct {
    const tr_vocabulary_files *files;
    const char *path; /* of tokenizer.json */
    const json_t *model;
    tr_gguf_writer *w;
    size_t n;
    tr_bytes *token; /* [n], views into the JSON or pads */
    int32_t *type;   /* [n]; 0: no token yet */
    float *score;    /* [n], SentencePiece */
    tr_bytes *merge; /* [n_merges] "left right", views into joined */
    size_t n_merges;
    char *joined;
    char (*pad)[16]; /* [n] */
    bool is_spm;
    uint32_t bos, eos; /* TR_VOCAB_NO_TOKEN */
} vocabulary;

/* ---- tokens --------------------------------------------------------------------------------- */

static tr_status put_token(vocabulary *v, json_int_t id, tr_bytes text, int32_t type)
{
    if (id < 0 || (uint64_t)id >= v->n)
        return tr_fail(TR_E_FORMAT, "%s: token \"%.60s\" has id %lld, but there are %zu tokens",
                       v->path, (const char *)text.data, (long long)id, v->n);
    if (v->type[id] != 0 && !tr_bytes_equal(v->token[id], text))
        return tr_fail(TR_E_FORMAT, "%s: tokens \"%.60s\" and \"%.60s\" have the same id %lld",
                       v->path, (const char *)v->token[id].data, (const char *)text.data,
                       (long long)id);
    v->token[id] = text;
    v->type[id] = type;
    return TR_OK;
}

static tr_status read_tokens(vocabulary *v)
{
    json_t *map = tr_json_member(v->model, "vocab");
    const json_t *unknown = tr_json_member(v->model, "unk_token");
    const char *text;
    json_t *id;
    tr_status st = TR_OK;

    if (!json_is_object(map))
        return tr_fail(TR_E_FORMAT, "%s: \"vocab\" is missing or no object", v->path);
    json_object_foreach(map, text, id)
    {
        int32_t type = NORMAL;
        uint8_t byte;
        if (v->is_spm && tr_spm_byte(tr_bytes_of(text), &byte))
            type = BYTE;
        else if (v->is_spm && tr_json_is_text(unknown, text))
            type = UNKNOWN;
        if (st == TR_OK && !json_is_integer(id))
            st = tr_fail(TR_E_FORMAT, "%s: token \"%.60s\" has no whole number as its id", v->path,
                         text);
        if (st == TR_OK && json_integer_value(id) >= 0 && (uint64_t)json_integer_value(id) < v->n &&
            v->type[json_integer_value(id)] != 0)
            st = tr_fail(TR_E_FORMAT, "%s: tokens \"%.60s\" and \"%.60s\" have the same id %lld",
                         v->path, (const char *)v->token[json_integer_value(id)].data, text,
                         (long long)json_integer_value(id));
        if (st == TR_OK)
            st = put_token(v, json_integer_value(id), tr_bytes_of(text), type);
    }
    return st;
}

static tr_status read_added(vocabulary *v)
{
    tr_status st = TR_OK;
    size_t i;
    json_t *t;

    json_array_foreach(tr_json_member(v->files->tokenizer->root, "added_tokens"), i, t)
    {
        const json_t *text = tr_json_member(t, "content");
        const json_t *id = tr_json_member(t, "id");
        if (!json_is_string(text) || !json_is_integer(id))
            return tr_fail(TR_E_FORMAT, "%s: added_tokens[%zu] has no id or no content", v->path,
                           i);
        json_int_t at = json_integer_value(id);
        bool is_unknown = at >= 0 && (uint64_t)at < v->n && v->type[at] == UNKNOWN;
        int32_t type = json_is_true(tr_json_member(t, "special")) ? CONTROL : USER_DEFINED;
        st = put_token(v, at, tr_json_text_of(text), is_unknown ? UNKNOWN : type);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

static tr_status fill_up(vocabulary *v)
{
    size_t n = 0;

    for (size_t i = 0; i < v->n; i++) {
        if (v->type[i] != 0)
            continue;
        int size = snprintf(v->pad[i], sizeof v->pad[i], "[PAD%zu]", i);
        v->token[i] = (tr_bytes){ (const uint8_t *)v->pad[i], (size_t)size };
        v->type[i] = UNUSED;
        n++;
    }
    if (n == v->n)
        return tr_fail(TR_E_FORMAT, "%s: has no tokens", v->path);
    if (n > 0)
        tr_log(TR_LOG_INFO, "%s: %zu of %zu ids have no token", v->path, n, v->n);
    return TR_OK;
}

/* Spaces and words beside an added token are left as they are. */
static void say_what_is_not_done(const vocabulary *v)
{
    static const char *const flags[] = { "lstrip", "rstrip", "single_word" };
    size_t n = 0, i;
    const char *first = "";
    json_t *t;

    json_array_foreach(tr_json_member(v->files->tokenizer->root, "added_tokens"), i, t)
    {
        bool is_set = false;
        for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++)
            is_set = is_set || json_is_true(tr_json_member(t, flags[f]));
        if (is_set && n++ == 0)
            first = json_string_value(tr_json_member(t, "content"));
    }
    if (n > 0)
        tr_log(TR_LOG_WARN,
               "%s: %zu added tokens, \"%.60s\" first, have lstrip, rstrip or single_word, which "
               "is ignored: what stands beside them may get other tokens",
               v->path, n, first);
}

/* ---- merges --------------------------------------------------------------------------------- */

/* Older files have "left right", newer ones [left, right]. */
static bool halves_of(const json_t *m, tr_bytes *left, tr_bytes *right)
{
    if (json_is_array(m)) {
        *left = tr_json_text_of(json_array_get(m, 0));
        *right = tr_json_text_of(json_array_get(m, 1));
        return json_array_size(m) == 2 && left->size > 0 && right->size > 0;
    }
    tr_bytes text = tr_json_text_of(m);
    const uint8_t *space = text.size > 1 ? memchr(text.data + 1, ' ', text.size - 1) : NULL;
    if (!space)
        return false;
    *left = (tr_bytes){ text.data, (size_t)(space - text.data) };
    *right = (tr_bytes){ space + 1, text.size - left->size - 1 };
    return right->size > 0;
}

static tr_status read_merges(vocabulary *v)
{
    const json_t *list = tr_json_member(v->model, "merges");
    size_t total = 1, i;
    json_t *m;
    tr_bytes left, right;

    v->n_merges = json_array_size(list);
    json_array_foreach((json_t *)list, i, m)
    {
        if (!halves_of(m, &left, &right))
            return tr_fail(TR_E_FORMAT, "%s: merges[%zu] is no pair of tokens", v->path, i);
        total += left.size + right.size + 1;
    }
    v->merge = calloc(v->n_merges + 1, sizeof *v->merge);
    v->joined = malloc(total);
    if (!v->merge || !v->joined)
        return tr_fail(TR_E_MEMORY, "%s: no memory for %zu merges", v->path, v->n_merges);
    char *at = v->joined;
    json_array_foreach((json_t *)list, i, m)
    {
        halves_of(m, &left, &right);
        v->merge[i] = (tr_bytes){ (const uint8_t *)at, left.size + 1 + right.size };
        memcpy(at, left.data, left.size);
        at[left.size] = ' ';
        memcpy(at + left.size + 1, right.data, right.size);
        at += left.size + 1 + right.size;
    }
    return TR_OK;
}

/* ---- SentencePiece -------------------------------------------------------------------------- */

/* The order of first merges, as descending scores; pieces that no merge makes come after all. */
static tr_status score_pieces(vocabulary *v)
{
    tr_text_map map;
    uint8_t *whole = malloc(TR_JSON_FILE_MAX / 256);
    float next = 0.0f;

    tr_status st = whole ? tr_text_map_init(&map, v->token, v->n)
                         : tr_fail(TR_E_MEMORY, "%s: no memory", v->path);
    if (st != TR_OK) {
        free(whole);
        return st;
    }
    for (size_t i = 0; i < v->n; i++) {
        v->score[i] = 1.0f;
        tr_text_map_put(&map, (uint32_t)i);
    }
    for (size_t i = 0; i < v->n_merges && st == TR_OK; i++) {
        tr_bytes left, right, m = v->merge[i];
        const uint8_t *space = memchr(m.data + 1, ' ', m.size - 1);
        uint32_t id;
        left = (tr_bytes){ m.data, (size_t)(space - m.data) };
        right = (tr_bytes){ space + 1, m.size - left.size - 1 };
        if (m.size > TR_JSON_FILE_MAX / 256) {
            st = tr_fail(TR_E_FORMAT, "%s: merges[%zu] has %zu bytes", v->path, i, m.size);
            break;
        }
        memcpy(whole, left.data, left.size);
        memcpy(whole + left.size, right.data, right.size);
        if (!tr_text_map_find(&map, (tr_bytes){ whole, left.size + right.size }, &id))
            st = tr_fail(TR_E_FORMAT, "%s: merges[%zu] \"%.*s\" makes no token", v->path, i,
                         m.size < 60 ? (int)m.size : 60, (const char *)m.data);
        else if (v->score[id] > 0.0f)
            v->score[id] = -next++;
    }
    for (size_t i = 0; i < v->n; i++)
        if (v->score[i] > 0.0f)
            v->score[i] = v->type[i] == NORMAL ? -next : 0.0f;
    tr_text_map_fini(&map);
    free(whole);
    return st;
}

/* Text is prepared in one of two forms: steps that put a mark in front and replace spaces by it, or
 * one that does both. */
static tr_status read_space_rule(const vocabulary *v, bool *adds_space)
{
    const json_t *root = v->files->tokenizer->root;
    const json_t *normalizer = tr_json_member(root, "normalizer");
    const json_t *pre = tr_json_member(root, "pre_tokenizer");
    const json_t *steps = tr_json_member(normalizer, "normalizers");
    bool replaces = false;
    size_t i;
    json_t *s;

    *adds_space = false;
    if (tr_json_is_text(tr_json_member(pre, "type"), "Metaspace")) {
        const json_t *scheme = tr_json_member(pre, "prepend_scheme");
        *adds_space = scheme ? !tr_json_is_text(scheme, "never")
                             : !json_is_false(tr_json_member(pre, "add_prefix_space"));
        return tr_json_is_text(tr_json_member(pre, "replacement"), SPACE_MARK) && !normalizer
                   ? TR_OK
                   : tr_fail(TR_E_UNSUPPORTED, "%s: how it writes spaces is not supported",
                             v->path);
    }
    json_array_foreach((json_t *)steps, i, s)
    {
        const json_t *type = tr_json_member(s, "type");
        if (tr_json_is_text(type, "Prepend") &&
            tr_json_is_text(tr_json_member(s, "prepend"), SPACE_MARK))
            *adds_space = true;
        else if (tr_json_is_text(type, "Replace") &&
                 tr_json_is_text(tr_json_member(s, "content"), SPACE_MARK))
            replaces = true;
        else
            return tr_fail(TR_E_UNSUPPORTED, "%s: normalizer of type \"%.40s\" is not supported",
                           v->path, json_is_string(type) ? json_string_value(type) : "?");
    }
    return replaces && !pre
               ? TR_OK
               : tr_fail(TR_E_UNSUPPORTED, "%s: how it writes spaces is not supported", v->path);
}

static tr_status put_spm(vocabulary *v)
{
    bool adds_space;

    tr_status st = read_space_rule(v, &adds_space);
    if (st == TR_OK)
        st = score_pieces(v);
    if (st != TR_OK)
        return st;
    tr_gguf_put_string(v->w, "tokenizer.ggml.model", tr_bytes_of("llama"));
    tr_gguf_put_string(v->w, "tokenizer.ggml.pre", tr_bytes_of("default"));
    tr_gguf_put_f32s(v->w, "tokenizer.ggml.scores", v->score, v->n);
    tr_gguf_put_bool(v->w, "tokenizer.ggml.add_space_prefix", adds_space);
    return TR_OK;
}

/* ---- byte-level ----------------------------------------------------------------------------- */

/* NFC composes letters and accents that were written apart, which few texts have; llama.cpp, whose
 * ids ours are to be, leaves it out as well, and files have no key for it. */
static tr_status check_normalizer(const vocabulary *v)
{
    const json_t *n = tr_json_member(v->files->tokenizer->root, "normalizer");
    const json_t *type = tr_json_member(n, "type");

    if (tr_json_is_text(type, "NFC")) {
        tr_log(TR_LOG_WARN,
               "%s: would compose accents that stand apart from their letters (NFC), which is not "
               "done here: such text gets other tokens",
               v->path);
        return TR_OK;
    }
    if (!n || (tr_json_is_text(type, "Sequence") &&
               json_array_size(tr_json_member(n, "normalizers")) == 0))
        return TR_OK;
    return tr_fail(TR_E_UNSUPPORTED, "%s: normalizer of type \"%.40s\" is not supported", v->path,
                   json_is_string(type) ? json_string_value(type) : "?");
}

static tr_status put_byte_level(vocabulary *v, const char *pre)
{
    tr_status st = check_normalizer(v);

    if (st == TR_OK && !pre)
        st = tr_pre_name_find(v->files->tokenizer, &pre);
    if (st != TR_OK)
        return st;
    tr_gguf_put_string(v->w, "tokenizer.ggml.model", tr_bytes_of("gpt2"));
    tr_gguf_put_string(v->w, "tokenizer.ggml.pre", tr_bytes_of(pre));
    tr_gguf_put_strings(v->w, "tokenizer.ggml.merges", v->merge, v->n_merges);
    return TR_OK;
}

/* ---- tokens with a meaning ------------------------------------------------------------------ */

/* A token is named by its text, alone or in an object. */
static uint32_t id_of_name(const vocabulary *v, const char *name)
{
    const json_t *t = tr_json_member(v->files->settings->root, name);
    tr_bytes text = tr_json_text_of(json_is_object(t) ? tr_json_member(t, "content") : t);

    for (size_t i = 0; i < v->n && text.size > 0; i++)
        if (tr_bytes_equal(v->token[i], text))
            return (uint32_t)i;
    return TR_VOCAB_NO_TOKEN;
}

/* Or by its id; there may be a list, of which this is the i-th. */
static uint32_t id_of_number(const vocabulary *v, const tr_json_file *f, const char *name, size_t i)
{
    const json_t *id = tr_json_member(f->root, name);

    if (json_is_array(id))
        id = json_array_get(id, i);
    else if (i > 0)
        id = NULL;
    json_int_t n = json_integer_value(id);
    return json_is_integer(id) && n >= 0 && (uint64_t)n < v->n ? (uint32_t)n : TR_VOCAB_NO_TOKEN;
}

static uint32_t find_id(const vocabulary *v, const char *token, const char *id)
{
    uint32_t found = id_of_name(v, token);

    if (found == TR_VOCAB_NO_TOKEN)
        found = id_of_number(v, v->files->generation, id, 0);
    if (found == TR_VOCAB_NO_TOKEN)
        found = id_of_number(v, v->files->config, id, 0);
    return found;
}

static void put_id(const vocabulary *v, const char *key, uint32_t id)
{
    if (id != TR_VOCAB_NO_TOKEN)
        tr_gguf_put_u32(v->w, key, id);
}

/* Tokens that end a turn besides the one that ends a text. */
static void put_more_ends(const vocabulary *v)
{
    static const char *const keys[] = { "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    size_t n = 0;

    for (size_t i = 0; n < 2; i++) {
        uint32_t id = id_of_number(v, v->files->generation, "eos_token_id", i);
        if (id == TR_VOCAB_NO_TOKEN)
            return;
        if (id != v->eos)
            put_id(v, keys[n++], id);
    }
}

/* Does the post-processor put the token in front? */
static bool begins_with_bos(const vocabulary *v)
{
    const json_t *p = tr_json_member(v->files->tokenizer->root, "post_processor");
    json_t *list = tr_json_member(p, "processors");
    const json_t *template = p;
    size_t i;
    json_t *step;

    json_array_foreach(list, i, step)
    {
        if (tr_json_is_text(tr_json_member(step, "type"), "TemplateProcessing"))
            template = step;
    }
    const json_t *first = json_array_get(tr_json_member(template, "single"), 0);
    tr_bytes text = tr_json_text_of(tr_json_member(tr_json_member(first, "SpecialToken"), "id"));
    return v->bos != TR_VOCAB_NO_TOKEN && text.size > 0 && tr_bytes_equal(text, v->token[v->bos]);
}

static void put_meanings(vocabulary *v)
{
    const json_t *settings = v->files->settings->root;
    const json_t *adds_bos = tr_json_member(settings, "add_bos_token");
    const json_t *adds_eos = tr_json_member(settings, "add_eos_token");

    v->bos = find_id(v, "bos_token", "bos_token_id");
    v->eos = find_id(v, "eos_token", "eos_token_id");
    put_id(v, "tokenizer.ggml.bos_token_id", v->bos);
    put_id(v, "tokenizer.ggml.eos_token_id", v->eos);
    put_id(v, "tokenizer.ggml.padding_token_id", find_id(v, "pad_token", "pad_token_id"));
    put_id(v, "tokenizer.ggml.unknown_token_id", id_of_name(v, "unk_token"));
    put_more_ends(v);
    bool adds =
        json_is_boolean(adds_bos) ? json_is_true(adds_bos) : v->is_spm || begins_with_bos(v);
    tr_gguf_put_bool(v->w, "tokenizer.ggml.add_bos_token", adds && v->bos != TR_VOCAB_NO_TOKEN);
    tr_gguf_put_bool(v->w, "tokenizer.ggml.add_eos_token", json_is_true(adds_eos));
}

static void put_chat_template(const vocabulary *v)
{
    json_t *t = tr_json_member(v->files->settings->root, "chat_template");
    tr_bytes text = tr_json_text_of(t);
    size_t i;
    json_t *one;

    json_array_foreach(t, i, one)
    {
        if (tr_json_is_text(tr_json_member(one, "name"), "default"))
            text = tr_json_text_of(tr_json_member(one, "template"));
    }
    if (text.size == 0)
        text = v->files->chat_template;
    if (text.size > 0)
        tr_gguf_put_string(v->w, "tokenizer.chat_template", text);
}

/* ---- all of it ------------------------------------------------------------------------------ */

static tr_status read_kind(vocabulary *v)
{
    static const char *const unused[] = { "continuing_subword_prefix", "end_of_word_suffix",
                                          "dropout" };
    const json_t *type;

    v->model = tr_json_member(v->files->tokenizer->root, "model");
    type = tr_json_member(v->model, "type");
    v->is_spm = json_is_true(tr_json_member(v->model, "byte_fallback"));
    /* Some old files don't say. */
    if (type ? !tr_json_is_text(type, "BPE") : !json_is_array(tr_json_member(v->model, "merges")))
        return tr_fail(TR_E_UNSUPPORTED, "%s: a tokenizer of type \"%.40s\" is not supported",
                       v->path, json_is_string(type) ? json_string_value(type) : "?");
    for (size_t i = 0; i < sizeof unused / sizeof unused[0]; i++) {
        const json_t *x = tr_json_member(v->model, unused[i]);
        if (x && json_string_length(x) + (json_is_string(x) ? 0 : 1) > 0)
            return tr_fail(TR_E_UNSUPPORTED, "%s: \"%s\" is not supported", v->path, unused[i]);
    }
    return TR_OK;
}

static tr_status make(vocabulary *v, const char *pre)
{
    tr_status st = read_kind(v);

    if (st == TR_OK)
        st = read_tokens(v);
    if (st == TR_OK)
        st = read_added(v);
    if (st == TR_OK)
        say_what_is_not_done(v);
    if (st == TR_OK)
        st = fill_up(v);
    if (st == TR_OK)
        st = read_merges(v);
    if (st == TR_OK)
        st = v->is_spm ? put_spm(v) : put_byte_level(v, pre);
    if (st != TR_OK)
        return st;
    tr_gguf_put_strings(v->w, "tokenizer.ggml.tokens", v->token, v->n);
    tr_gguf_put_i32s(v->w, "tokenizer.ggml.token_type", v->type, v->n);
    put_meanings(v);
    put_chat_template(v);
    return TR_OK;
}

tr_status tr_vocabulary_put(const tr_vocabulary_files *files, size_t n_vocab, const char *pre,
                            tr_gguf_writer *w)
{
    vocabulary v = { .files = files, .path = files->tokenizer->path, .w = w, .n = n_vocab };

    v.token = calloc(n_vocab, sizeof *v.token);
    v.type = calloc(n_vocab, sizeof *v.type);
    v.score = calloc(n_vocab, sizeof *v.score);
    v.pad = calloc(n_vocab, sizeof *v.pad);
    tr_status st = v.token && v.type && v.score && v.pad
                       ? make(&v, pre)
                       : tr_fail(TR_E_MEMORY, "%s: no memory for %zu tokens", v.path, n_vocab);
    free(v.token);
    free(v.type);
    free(v.score);
    free(v.pad);
    free(v.merge);
    free(v.joined);
    return st;
}
