/* chat.c - choose a family for a file, check a conversation, write it as the family wants it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/chat.h"
#include "coordinator/text/chat_family.h"
#include "coordinator/text/chat_writer.h"
#include "coordinator/text/utf8.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

/* Marks that some models of a family have as tokens, others as text. */
static const char *const optional_marks[] = {
    "<think>", "</think>",   "<tool_response>", "</tool_response>", "[INST]",
    "[/INST]", "<|system|>", "<|user|>",        "<|assistant|>",    NULL,
};

enum { MAX_DEFAULT_SYSTEM = 4096 };

struct tr_chat {
    const tr_chat_family *family;
    tr_chat_marks marks;
    bool begins_with_bos, drops_thoughts;
    uint8_t *default_system; /* n_default bytes, or NULL */
    size_t n_default;
    tr_bytes stop_strings[TR_CHAT_MAX_STOPS];
    uint32_t stop_ids[TR_CHAT_MAX_ENDS];
    size_t n_stop_strings, n_stop_ids;
};

/* ---- open ---- */

/* "a, b, c" */
static void names_list(char *out, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; tr_chat_name_at(i) && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? ", " : "",
                                 tr_chat_name_at(i));
}

/* The first of the family's marks that is no special token of the vocabulary, or NULL. */
static const char *missing_mark(const tr_chat_family *f, const tr_tokenizer *t)
{
    uint32_t id;

    for (size_t i = 0; i < TR_CHAT_MAX_MARKS && f->marks[i]; i++)
        if (!tr_tokenizer_special(t, tr_bytes_of(f->marks[i]), &id))
            return f->marks[i];
    return NULL;
}

/* Models that were never trained for chats often have the tokens for it too, but only a chat
 * model's file calls the end of a turn the end of the text. */
static bool ends_with_turns(const tr_gguf *g, const tr_tokenizer *t, const tr_chat_family *f)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id" };
    uint32_t end;

    for (size_t k = 0; k < 2; k++) {
        uint32_t id = UINT32_MAX;
        if (tr_gguf_opt_u32(g, keys[k], &id) != TR_OK)
            return false;
        for (size_t i = 0; i < TR_CHAT_MAX_ENDS && f->ends[i]; i++)
            if (tr_tokenizer_special(t, tr_bytes_of(f->ends[i]), &end) && end == id)
                return true;
    }
    return false;
}

/* For a file without a template: the one family whose tokens it has, or plain. */
static const tr_chat_family *family_by_tokens(const tr_gguf *g, const tr_tokenizer *t)
{
    const tr_chat_family *found = NULL, *f;

    for (size_t i = 0; (f = tr_chat_family_at(i)); i++) {
        if (!(f->flags & TR_CHAT_BY_TOKENS) || missing_mark(f, t) || !ends_with_turns(g, t, f))
            continue;
        if (found)
            return tr_chat_family_by_name("plain");
        found = f;
    }
    return found ? found : tr_chat_family_by_name("plain");
}

static tr_status family_choose(const tr_gguf *g, const tr_tokenizer *t, const char *choice,
                               tr_bytes text, const tr_chat_family **out)
{
    char names[1024];

    names_list(names, sizeof names);
    *out = NULL;
    if (choice) {
        *out = tr_chat_family_by_name(choice);
        if (!*out)
            return tr_fail(TR_E_USAGE, "chat template \"%.64s\" is none of %s", choice, names);
    } else if (text.size == 0) {
        *out = family_by_tokens(g, t);
    } else if (text.size <= TR_CHAT_MAX_TEMPLATE) {
        *out = tr_chat_family_by_template(text);
    }
    if (!*out)
        return tr_fail(TR_E_UNSUPPORTED,
                       "model %s: its chat template is none that is known; choose with "
                       "--chat-template one of %s",
                       tr_gguf_path(g), names);
    const char *missing = missing_mark(*out, t);
    if (missing)
        return tr_fail(TR_E_UNSUPPORTED,
                       "model %s: the vocabulary has no special token %s, which the chat template "
                       "%s needs; choose with --chat-template one of %s",
                       tr_gguf_path(g), missing, (*out)->name, names);
    return TR_OK;
}

static tr_status marks_find(tr_chat *c, const tr_gguf *g)
{
    const tr_chat_family *f = c->family;
    const char *key = "tokenizer.ggml.eos_token_id";
    uint32_t bos, eos = UINT32_MAX;

    for (size_t i = 0; i < TR_CHAT_MAX_MARKS && f->marks[i]; i++)
        tr_chat_marks_add(&c->marks, f->marks[i]);
    for (size_t i = 0; optional_marks[i]; i++)
        tr_chat_marks_add(&c->marks, optional_marks[i]);
    if (tr_tokenizer_bos(c->marks.t, &bos))
        tr_chat_marks_set_bos(&c->marks, bos);
    tr_status st = tr_gguf_opt_u32(g, key, &eos);
    if (st != TR_OK)
        return st;
    if (eos < tr_tokenizer_n_vocab(c->marks.t))
        tr_chat_marks_set_eos(&c->marks, eos);
    else if (strstr(f->assistant.after, TR_CHAT_EOS))
        return tr_fail(TR_E_UNSUPPORTED, "model %s: it has no %s, which the chat template %s needs",
                       tr_gguf_path(g), key, f->name);
    return TR_OK;
}

static void stops_find(tr_chat *c)
{
    const tr_chat_family *f = c->family;
    const tr_tokenizer *t = c->marks.t;
    uint32_t id;

    for (size_t i = 0; i < TR_CHAT_MAX_STOPS && f->stops[i]; i++)
        c->stop_strings[c->n_stop_strings++] = tr_bytes_of(f->stops[i]);
    for (size_t i = 0; i < TR_CHAT_MAX_ENDS && f->ends[i]; i++)
        if (tr_tokenizer_special(t, tr_bytes_of(f->ends[i]), &id) && !tr_tokenizer_is_eog(t, id))
            c->stop_ids[c->n_stop_ids++] = id;
}

/* Where a template says "system turn, some words, end of turn" in one breath, the words are what
 * it puts there when a conversation brings none of its own. */
static tr_bytes spelled_system(const tr_chat_family *f, tr_bytes text)
{
    size_t begin, end = 0, stop, next;

    if (f->system.before[0] != '<' || f->system.after[0] != '<')
        return (tr_bytes){ NULL, 0 };
    const char *close = f->marks[0];
    for (size_t i = 0; i < TR_CHAT_MAX_MARKS && f->marks[i]; i++)
        if (strncmp(f->system.after, f->marks[i], strlen(f->marks[i])) == 0)
            close = f->marks[i];
    while (tr_chat_template_find(text, f->system.before, end, &begin, &end)) {
        size_t left = text.size - end;
        tr_bytes near = { text.data + end, left < MAX_DEFAULT_SYSTEM ? left : MAX_DEFAULT_SYSTEM };
        if (!tr_chat_template_find(near, close, 0, &stop, &next))
            continue;
        bool is_spelled = stop > 0;
        for (size_t i = 0; i < stop; i++)
            is_spelled = is_spelled && !strchr("'\"{}\\", near.data[i]);
        if (is_spelled)
            return (tr_bytes){ near.data, stop };
    }
    return (tr_bytes){ NULL, 0 };
}

static tr_status default_system_find(tr_chat *c, tr_bytes text)
{
    tr_bytes words = spelled_system(c->family, text);
    size_t bad;

    if (words.size == 0 && c->family->default_system)
        words = tr_bytes_of(c->family->default_system);
    if (words.size == 0 || !tr_utf8_valid(words, &bad))
        return TR_OK;
    c->default_system = malloc(words.size);
    if (!c->default_system)
        return tr_fail(TR_E_MEMORY, "chat template: no memory");
    memcpy(c->default_system, words.data, words.size);
    c->n_default = words.size;
    return TR_OK;
}

tr_status tr_chat_open(const tr_gguf *g, const tr_tokenizer *t, const char *choice, tr_chat **out)
{
    tr_bytes text = { NULL, 0 };
    const tr_chat_family *family;
    size_t begin, end;
    tr_status st = TR_OK;

    if (!choice)
        st = tr_gguf_opt_string(g, "tokenizer.chat_template", &text);
    if (st == TR_OK)
        st = family_choose(g, t, choice, text, &family);
    if (st != TR_OK)
        return st;
    tr_chat *c = calloc(1, sizeof *c);
    if (!c)
        return tr_fail(TR_E_MEMORY, "chat template: no memory");
    c->family = family;
    c->marks.t = t;
    c->begins_with_bos = (family->flags & TR_CHAT_BEGINS_WITH_BOS) || tr_tokenizer_adds_bos(t) ||
                         tr_chat_template_find(text, "bos_token", 0, &begin, &end);
    c->drops_thoughts = (family->flags & TR_CHAT_THINKS) ||
                        tr_chat_template_find(text, "</think>", 0, &begin, &end);
    stops_find(c);
    st = marks_find(c, g);
    if (st == TR_OK)
        st = default_system_find(c, text);
    if (st != TR_OK) {
        tr_chat_close(&c);
        return st;
    }
    *out = c;
    return TR_OK;
}

void tr_chat_close(tr_chat **c)
{
    if (!*c)
        return;
    free((*c)->default_system);
    free(*c);
    *c = NULL;
}

const char *tr_chat_name(const tr_chat *c)
{
    return c->family->name;
}

const char *tr_chat_name_at(size_t i)
{
    const tr_chat_family *f = tr_chat_family_at(i);

    return f ? f->name : NULL;
}

tr_chat_stops tr_chat_stops_of(const tr_chat *c)
{
    return (tr_chat_stops){ c->stop_strings, c->n_stop_strings, c->stop_ids, c->n_stop_ids };
}

/* ---- messages ---- */

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, N_ROLES } role;

static role role_of(const tr_chat_message *m)
{
    static const struct {
        const char *name;
        role role;
    } roles[] = { { "system", ROLE_SYSTEM },
                  { "developer", ROLE_SYSTEM },
                  { "user", ROLE_USER },
                  { "assistant", ROLE_ASSISTANT },
                  { "tool", ROLE_TOOL } };

    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (tr_bytes_equal(m->role, tr_bytes_of(roles[i].name)))
            return roles[i].role;
    return N_ROLES;
}

static bool is_space(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

static tr_bytes trim(tr_bytes text)
{
    while (text.size > 0 && is_space(text.data[0]))
        text = (tr_bytes){ text.data + 1, text.size - 1 };
    while (text.size > 0 && is_space(text.data[text.size - 1]))
        text.size--;
    return text;
}

/* What follows the last thought. */
static tr_bytes without_thoughts(tr_bytes text, bool drops_lines)
{
    size_t begin, end = 0;

    while (tr_chat_template_find(text, "</think>", 0, &begin, &end)) {
        text = (tr_bytes){ text.data + end, text.size - end };
        while (drops_lines && text.size > 0 && text.data[0] == '\n')
            text = (tr_bytes){ text.data + 1, text.size - 1 };
    }
    return text;
}

static tr_bytes content_of(const tr_chat *c, const tr_chat_message *m, role r)
{
    static const unsigned trims[N_ROLES] = { [ROLE_SYSTEM] = TR_CHAT_TRIM_SYSTEM,
                                             [ROLE_USER] = TR_CHAT_TRIM_USER,
                                             [ROLE_ASSISTANT] = TR_CHAT_TRIM_ASSISTANT };
    unsigned flags = c->family->flags;
    tr_bytes text = m->content;

    if (r == ROLE_ASSISTANT && c->drops_thoughts)
        text = without_thoughts(text, flags & TR_CHAT_DROP_LINES);
    return flags & trims[r] ? trim(text) : text;
}

/* A conversation that passed its checks. */
typedef struct {
    const tr_chat_message *messages;
    size_t n;
    size_t n_leading;   /* system messages in front */
    size_t system_user; /* the message that takes them in, where a family wants that */
} conversation;

static tr_status message_check(const tr_chat *c, const conversation *v, size_t i)
{
    const tr_chat_message *m = &v->messages[i];
    const tr_chat_family *f = c->family;
    role r = role_of(m);
    size_t bad;

    if (r == N_ROLES)
        return tr_fail(TR_E_REQUEST,
                       "message %zu: its role \"%.*s\" is none of system, developer, user, "
                       "assistant, tool",
                       i + 1, m->role.size < 32 ? (int)m->role.size : 32,
                       m->role.size > 0 ? (const char *)m->role.data : "");
    if (!tr_utf8_valid(m->content, &bad))
        return tr_fail(TR_E_REQUEST, "message %zu is not valid UTF-8: byte 0x%02x at position %zu",
                       i + 1, m->content.data[bad], bad);
    if (r == ROLE_TOOL && !f->tools.before)
        return tr_fail(TR_E_REQUEST, "message %zu: the chat template %s has no place for a tool's",
                       i + 1, f->name);
    if (r == ROLE_SYSTEM && i >= v->n_leading && f->system_place != TR_CHAT_SYSTEM_TURN)
        return tr_fail(TR_E_REQUEST,
                       "message %zu: the chat template %s has system messages only in front", i + 1,
                       f->name);
    role wanted = (i - v->n_leading) % 2 ? ROLE_ASSISTANT : ROLE_USER;
    if (f->flags & TR_CHAT_ALTERNATES && i >= v->n_leading && r != wanted)
        return tr_fail(TR_E_REQUEST,
                       "message %zu: the chat template %s wants user and assistant in turns, "
                       "beginning with user",
                       i + 1, f->name);
    return TR_OK;
}

/* Does a system message stand inside one of the user? */
static bool is_inside(const tr_chat_family *f)
{
    return f->system_place == TR_CHAT_SYSTEM_IN_FIRST || f->system_place == TR_CHAT_SYSTEM_IN_LAST;
}

static tr_status conversation_check(const tr_chat *c, conversation *v, bool add_generation_prompt)
{
    const tr_chat_family *f = c->family;
    bool has_user = false;

    if (v->n == 0)
        return tr_fail(TR_E_REQUEST, "the conversation has no messages");
    while (v->n_leading < v->n && role_of(&v->messages[v->n_leading]) == ROLE_SYSTEM)
        v->n_leading++;
    for (size_t i = 0; i < v->n; i++) {
        tr_status st = message_check(c, v, i);
        if (st != TR_OK)
            return st;
        if (role_of(&v->messages[i]) != ROLE_USER)
            continue;
        if (!has_user || f->system_place == TR_CHAT_SYSTEM_IN_LAST)
            v->system_user = i;
        has_user = true;
    }
    if (is_inside(f) && !has_user)
        return tr_fail(TR_E_REQUEST, "the chat template %s needs a message of the user", f->name);
    if (add_generation_prompt && f->flags & TR_CHAT_ALTERNATES &&
        role_of(&v->messages[v->n - 1]) != ROLE_USER)
        return tr_fail(TR_E_REQUEST,
                       "the chat template %s has no answer to a message that is not the user's",
                       f->name);
    return TR_OK;
}

/* The system messages in front as one. */
static void put_leading(tr_chat_writer *w, const tr_chat *c, const conversation *v)
{
    if (v->n_leading == 0)
        return;
    tr_chat_put_own(w, c->family->system.before);
    for (size_t i = 0; i < v->n_leading; i++) {
        if (i > 0)
            tr_chat_put_text(w, tr_bytes_of("\n\n"));
        tr_chat_put_text(w, content_of(c, &v->messages[i], ROLE_SYSTEM));
    }
    tr_chat_put_own(w, c->family->system.after);
}

static void put_default_system(tr_chat_writer *w, const tr_chat *c)
{
    tr_chat_put_own(w, c->family->system.before);
    tr_chat_put_text(w, (tr_bytes){ c->default_system, c->n_default });
    tr_chat_put_own(w, c->family->system.after);
}

static bool is_tool(const conversation *v, size_t i)
{
    return i < v->n && role_of(&v->messages[i]) == ROLE_TOOL;
}

static void put_message(tr_chat_writer *w, const tr_chat *c, const conversation *v, size_t i)
{
    const tr_chat_family *f = c->family;
    const tr_chat_frame *frames[N_ROLES] = { &f->system, &f->user, &f->assistant, &f->tool };
    role r = role_of(&v->messages[i]);

    TR_CHECK(r < N_ROLES);
    const char *after = frames[r]->after;
    if (r == ROLE_ASSISTANT && i + 1 == v->n && f->last_assistant)
        after = f->last_assistant;
    if (r == ROLE_TOOL && (i == 0 || !is_tool(v, i - 1)))
        tr_chat_put_own(w, f->tools.before);
    tr_chat_put_own(w, frames[r]->before);
    if (is_inside(f) && i == v->system_user)
        put_leading(w, c, v);
    tr_chat_put_text(w, content_of(c, &v->messages[i], r));
    tr_chat_put_own(w, after);
    if (r == ROLE_TOOL && !is_tool(v, i + 1))
        tr_chat_put_own(w, f->tools.after);
}

tr_status tr_chat_encode(const tr_chat *c, const tr_chat_message *messages, size_t n,
                         bool add_generation_prompt, uint32_t **ids, size_t *n_ids)
{
    const tr_chat_family *f = c->family;
    conversation v = { .messages = messages, .n = n };
    tr_chat_writer w = { .marks = &c->marks };
    tr_status st = conversation_check(c, &v, add_generation_prompt);

    if (st != TR_OK)
        return st;
    if (c->begins_with_bos)
        tr_chat_put_own(&w, TR_CHAT_BOS);
    tr_chat_put_own(&w, f->start);
    if (v.n_leading == 0 && c->default_system)
        put_default_system(&w, c);
    if (f->system_place == TR_CHAT_SYSTEM_FRONT)
        put_leading(&w, c, &v);
    for (size_t i = f->system_place == TR_CHAT_SYSTEM_TURN ? 0 : v.n_leading; i < n; i++)
        put_message(&w, c, &v, i);
    if (add_generation_prompt)
        tr_chat_put_own(&w, f->generate);
    return tr_chat_writer_finish(&w, ids, n_ids);
}
