/* talk.c - read, encode the whole conversation, answer, remember.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/talk.h"

#include "base/log.h"
#include "coordinator/commands/lines.h"
#include "coordinator/text/stop.h"
#include "coordinator/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 4096, LONGEST_PIECE = 4096 };

typedef struct {
    const tr_talk_options *o;
    tr_chat_message messages[MAX_MESSAGES]; /* contents are owned */
    size_t n;
    uint64_t answers; /* numbers their random streams */

    /* the answer being written */
    tr_utf8_filter filter;
    tr_stop *stop;
    char *text;
    size_t n_text, room;
    tr_status st;
} talk;

static void clear(talk *t)
{
    while (t->n > 0)
        free((void *)(uintptr_t)t->messages[--t->n].content.data);
}

/* Takes text. */
static void add(talk *t, const char *role, char *text, size_t size)
{
    t->messages[t->n++] = (tr_chat_message){ tr_bytes_of(role), { (const uint8_t *)text, size } };
}

static void show(talk *t, tr_bytes text)
{
    if (text.size == 0 || t->st != TR_OK)
        return;
    if (t->n_text + text.size > t->room) {
        size_t room = 2 * (t->n_text + text.size);
        char *longer = realloc(t->text, room);
        if (!longer) {
            t->st = tr_fail(TR_E_MEMORY, "answer: no memory");
            return;
        }
        t->text = longer;
        t->room = room;
    }
    memcpy(t->text + t->n_text, text.data, text.size);
    t->n_text += text.size;
    if (fwrite(text.data, 1, text.size, stdout) != text.size || fflush(stdout) != 0)
        t->st = tr_fail(TR_E_IO, "standard output can't be written");
}

static bool on_token(void *ctx, const tr_generated *g)
{
    talk *t = ctx;
    tr_bytes piece = tr_tokenizer_piece(t->o->tokenizer, g->id);
    uint8_t out[TR_UTF8_ROOM(LONGEST_PIECE)];
    tr_bytes text = { NULL, 0 };

    if (tr_tokenizer_is_special(t->o->tokenizer, g->id) || piece.size > LONGEST_PIECE)
        return true;
    size_t n = tr_utf8_feed(&t->filter, piece, out);
    tr_status st = tr_stop_feed(t->stop, (tr_bytes){ out, n }, &text);
    if (st != TR_OK)
        t->st = st;
    show(t, text);
    return t->st == TR_OK && !tr_stop_found(t->stop);
}

static bool is_end(void *ctx, uint32_t id)
{
    const talk *t = ctx;
    tr_chat_stops stops = tr_chat_stops_of(t->o->chat);

    for (size_t i = 0; i < stops.n_ids; i++)
        if (stops.ids[i] == id)
            return true;
    return !t->o->options->ignore_eos && tr_tokenizer_is_eog(t->o->tokenizer, id);
}

static tr_status begin_answer(talk *t)
{
    tr_chat_stops own = tr_chat_stops_of(t->o->chat);
    const tr_run_options *o = t->o->options;
    tr_bytes strings[TR_STOP_MAX_STRINGS];
    size_t n = 0;

    if (own.n_strings + o->n_stops > TR_STOP_MAX_STRINGS)
        return tr_fail(TR_E_USAGE, "--stop: at most %zu, since the model's template has %zu itself",
                       TR_STOP_MAX_STRINGS - own.n_strings, own.n_strings);
    for (size_t i = 0; i < own.n_strings; i++)
        strings[n++] = own.strings[i];
    for (size_t i = 0; i < o->n_stops; i++)
        strings[n++] = tr_bytes_of(o->stop[i]);
    t->filter = (tr_utf8_filter){ 0 };
    t->text = NULL;
    t->n_text = t->room = 0;
    t->st = TR_OK;
    return tr_stop_new(strings, n, &t->stop);
}

static void end_answer(talk *t)
{
    uint8_t tail[TR_UTF8_ROOM(0)];
    tr_bytes text = { NULL, 0 };

    if (!tr_stop_found(t->stop)) {
        size_t n = tr_utf8_flush(&t->filter, tail);
        if (tr_stop_feed(t->stop, (tr_bytes){ tail, n }, &text) == TR_OK)
            show(t, text);
        show(t, tr_stop_flush(t->stop));
    }
    tr_stop_free(&t->stop);
    putchar('\n');
    fflush(stdout);
}

static tr_status generate(talk *t, const uint32_t *ids, size_t n)
{
    size_t room = t->o->context - n;
    size_t wanted = (size_t)t->o->options->tokens;
    tr_generate_request q = {
        .prompt = ids,
        .n_prompt = n,
        .max_tokens = wanted < room ? wanted : room,
        .sampling = t->o->sampling,
        .number = t->answers++,
        .is_end = is_end,
        .on_token = on_token,
        .ctx = t,
    };
    tr_generate_result result;

    tr_status st = begin_answer(t);
    if (st != TR_OK)
        return st;
    st = tr_generate(t->o->engine, &q, &result);
    end_answer(t);
    if (st == TR_OK)
        st = t->st;
    if (st == TR_OK)
        add(t, "assistant", t->text, t->n_text);
    else
        free(t->text);
    return st;
}

/* The answer to the conversation so far.  If it does not fit, or a message is no text, the last one
 * is left out. */
static tr_status answer(talk *t)
{
    uint32_t *ids = NULL;
    size_t n = 0;

    tr_status st = tr_chat_encode(t->o->chat, t->messages, t->n, true, &ids, &n);
    if (st == TR_OK && n >= t->o->context)
        st = tr_fail(TR_E_REQUEST,
                     "the conversation has %zu tokens, the context %zu: /clear begins a new one", n,
                     t->o->context);
    if (st == TR_OK)
        st = generate(t, ids, n);
    free(ids);
    if (st != TR_E_REQUEST)
        return st;
    free((void *)(uintptr_t)t->messages[--t->n].content.data);
    return TR_OK;
}

/* True if the message was for us. */
static bool command(talk *t, const char *message, bool *is_over)
{
    *is_over = strcmp(message, "/bye") == 0;
    if (strcmp(message, "/clear") == 0)
        clear(t);
    else if (message[0] != '/' && message[0] != '\0')
        return false;
    else if (message[0] == '/' && !*is_over)
        tr_log(TR_LOG_INFO, "/clear begins a new conversation, /bye ends; a line that ends with \\ "
                            "goes on, \"\"\" begins and ends many");
    return true;
}

static tr_status loop(talk *t)
{
    tr_status st = TR_OK;
    bool is_over = false;

    while (st == TR_OK && !is_over) {
        char *message = NULL;
        st = tr_lines_read("> ", t->o->options->progress, &message);
        if (st != TR_OK || !message)
            break;
        if (command(t, message, &is_over)) {
            free(message);
            continue;
        }
        if (t->n + 2 > MAX_MESSAGES)
            clear(t);
        add(t, "user", message, strlen(message));
        st = answer(t);
    }
    return st;
}

tr_status tr_talk(const tr_talk_options *o)
{
    talk *t = calloc(1, sizeof *t);

    if (!t)
        return tr_fail(TR_E_MEMORY, "chat: no memory");
    t->o = o;
    tr_status st = loop(t);
    clear(t);
    free(t);
    return st;
}
