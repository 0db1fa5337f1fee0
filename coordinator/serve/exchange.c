/* exchange.c - tokens to text to events.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/exchange.h"

#include "coordinator/serve/error.h"
#include "coordinator/serve/schema.h"
#include "coordinator/text/utf8.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    LONGEST_PIECE = 4096,
    REASON = 256,
    MAX_UNREAD = 1 << 20, /* bytes of events that a client may leave lying */
};

typedef struct {
    tr_exchange *x;
    size_t index;
    uint64_t ticket;
    tr_utf8_filter filter;
    tr_stop *stop;
    tr_guide *guide;   /* NULL: the answer is free */
    json_t *log_probs; /* of a whole answer, or of the event being made; NULL: not wanted */
    char *text;        /* of a whole answer */
    size_t n_text, room;
    size_t n_tokens;
    size_t n_characters; /* begun by the tokens so far */
    tr_finish finish;
    bool has_news; /* log_probs hold a token that the client has not seen */
    bool is_ended;
} choice;

struct tr_exchange {
    const tr_exchange_host *host;
    tr_api_request r;
    tr_grammar *grammar; /* of the answers; NULL: they are free */
    char id[TR_SERVING_NAME];
    long long created;
    void (*wake)(void *ctx);
    void *ctx;

    pthread_mutex_t lock;
    size_t holders; /* the server, and each choice that has not ended */
    choice choices[TR_API_MAX_CHOICES];
    size_t n_started, n_ended;
    char *out; /* events not yet read: out[n_read..n_out) */
    size_t n_out, n_read, room;
    bool wants_wake, is_closed, is_out_of_memory;
    const char *cancelled; /* why; NULL: it is not */
    tr_status failed;      /* the first choice's that failed */
    char why[REASON];
};

/* A choice that was not submitted yet has not ended either. */
static bool has_ended(const tr_exchange *x)
{
    return x->n_ended == x->r.n;
}

/* ---- text that grows ------------------------------------------------------------------------ */

static void append(tr_exchange *x, char **text, size_t *n, size_t *room, const char *more,
                   size_t size)
{
    if (*n + size > *room) {
        size_t wanted = 2 * (*n + size) + 256;
        char *longer = realloc(*text, wanted);
        if (!longer) {
            x->is_out_of_memory = true;
            return;
        }
        *text = longer;
        *room = wanted;
    }
    if (size > 0)
        memcpy(*text + *n, more, size);
    *n += size;
}

static void put_out(tr_exchange *x, const char *text, size_t size)
{
    if (x->n_read == x->n_out)
        x->n_read = x->n_out = 0;
    append(x, &x->out, &x->n_out, &x->room, text, size);
}

/* One event; takes o. */
static void put_event(tr_exchange *x, json_t *o)
{
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

    json_decref(o);
    if (!text) {
        x->is_out_of_memory = true;
        return;
    }
    put_out(x, "data: ", 6);
    put_out(x, text, strlen(text));
    put_out(x, "\n\n", 2);
    free(text);
}

/* ---- the interface's objects ----------------------------------------------------------------- */

static bool is_chat(const tr_exchange *x)
{
    return x->r.kind == TR_API_CHAT;
}

static json_t *envelope(const tr_exchange *x, const char *kind)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", x->id, "object", kind, "created",
                     (json_int_t)x->created, "model", x->host->model.name);
}

static const char *finish_reason(tr_finish f)
{
    return f == TR_FINISH_LENGTH ? "length" : "stop";
}

static json_t *usage_of(const tr_exchange *x)
{
    size_t n = 0;

    for (size_t i = 0; i < x->n_started; i++)
        n += x->choices[i].n_tokens;
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", (json_int_t)x->r.n_prompt,
                     "completion_tokens", (json_int_t)n, "total_tokens",
                     (json_int_t)(x->r.n_prompt + n));
}

static json_t *bytes_list(tr_bytes b)
{
    json_t *list = json_array();

    for (size_t i = 0; i < b.size; i++)
        json_array_append_new(list, json_integer(b.data[i]));
    return list;
}

static json_t *log_probs_begin(const tr_exchange *x)
{
    if (!x->r.wants_log_probs)
        return NULL;
    return is_chat(x) ? json_pack("{s:[]}", "content")
                      : json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs",
                                  "top_logprobs", "text_offset");
}

/* JSON has no infinities: a probability of zero is a very small one. */
static double number_of(double log_prob)
{
    return log_prob > -9999.0 ? log_prob : -9999.0;
}

static json_t *chat_log_prob(const tr_tokenizer *t, uint32_t id, double log_prob)
{
    tr_bytes piece = tr_tokenizer_piece(t, id);

    return json_pack("{s:o, s:f, s:o}", "token", tr_api_text(piece), "logprob", number_of(log_prob),
                     "bytes", bytes_list(piece));
}

/* Where in the text a token begins, in characters; one that goes on with a character stands where
 * this begins.  What is special is not in the text. */
static size_t offset_of(choice *c, uint32_t id)
{
    const tr_tokenizer *t = c->x->host->model.tokenizer;
    tr_bytes piece = tr_tokenizer_piece(t, id);
    size_t offset = c->n_characters;

    if (tr_tokenizer_is_special(t, id))
        return offset;
    for (size_t i = 0; i < piece.size; i++)
        c->n_characters += (piece.data[i] & 0xc0) != 0x80;
    bool goes_on = piece.size > 0 && (piece.data[0] & 0xc0) == 0x80;
    return offset - (goes_on && offset > 0);
}

static void log_probs_add(const tr_exchange *x, json_t *to, size_t offset, const tr_generated *g)
{
    const tr_tokenizer *t = x->host->model.tokenizer;

    if (is_chat(x)) {
        json_t *one = chat_log_prob(t, g->id, g->log_prob);
        json_t *top = json_array();
        for (size_t i = 0; i < g->n_alternatives; i++)
            json_array_append_new(
                top, chat_log_prob(t, g->alternatives[i].id, g->alternatives[i].log_prob));
        json_object_set_new(one, "top_logprobs", top);
        json_array_append_new(json_object_get(to, "content"), one);
        return;
    }
    json_t *top = json_object();
    for (size_t i = 0; i < g->n_alternatives; i++) {
        json_t *name = tr_api_text(tr_tokenizer_piece(t, g->alternatives[i].id));
        json_object_set_new(top, json_string_value(name),
                            json_real(number_of(g->alternatives[i].log_prob)));
        json_decref(name);
    }
    json_array_append_new(json_object_get(to, "tokens"), tr_api_text(tr_tokenizer_piece(t, g->id)));
    json_array_append_new(json_object_get(to, "token_logprobs"), json_real(number_of(g->log_prob)));
    json_array_append_new(json_object_get(to, "top_logprobs"), top);
    json_array_append_new(json_object_get(to, "text_offset"), json_integer((json_int_t)offset));
}

static json_t *or_null(json_t *o)
{
    return o ? o : json_null();
}

/* An event of one choice.  first: the role goes out; reason NULL: it goes on.  Takes log_probs. */
static void put_chunk(tr_exchange *x, size_t index, bool first, tr_bytes text, json_t *log_probs,
                      const char *reason)
{
    json_t *o = envelope(x, is_chat(x) ? "chat.completion.chunk" : "text_completion");
    json_t *c = json_pack("{s:I, s:o, s:s?}", "index", (json_int_t)index, "logprobs",
                          or_null(log_probs), "finish_reason", reason);

    if (is_chat(x)) {
        json_t *delta = json_object();
        if (first)
            json_object_set_new(delta, "role", json_string("assistant"));
        if (first || text.size > 0)
            json_object_set_new(delta, "content", tr_api_text(text));
        json_object_set_new(c, "delta", delta);
    } else {
        json_object_set_new(c, "text", tr_api_text(text));
    }
    json_object_set_new(o, "choices", json_pack("[o]", c));
    put_event(x, o);
}

/* ---- from the engine's thread ---------------------------------------------------------------- */

static void wake_reader(tr_exchange *x)
{
    if (!x->wants_wake || x->is_closed)
        return;
    x->wants_wake = false;
    x->wake(x->ctx);
}

/* Text of a choice goes to the client, or is kept for the whole answer. */
static void put_text(tr_exchange *x, choice *c, tr_bytes text)
{
    if (!x->r.stream) {
        append(x, &c->text, &c->n_text, &c->room, (const char *)text.data, text.size);
        return;
    }
    if (text.size == 0 && !c->has_news)
        return;
    c->has_news = false;
    put_chunk(x, c->index, false, text, c->log_probs, NULL);
    c->log_probs = log_probs_begin(x);
}

/* A piece of a token through both filters; *text is valid until the next call. */
static tr_status filter(choice *c, tr_bytes piece, tr_bytes *text)
{
    uint8_t out[TR_UTF8_ROOM(LONGEST_PIECE)];
    size_t n = tr_utf8_feed(&c->filter, piece, out);

    return tr_stop_feed(c->stop, (tr_bytes){ out, n }, text);
}

static bool on_token(void *ctx, const tr_generated *g)
{
    choice *c = ctx;
    tr_exchange *x = c->x;
    const tr_tokenizer *t = x->host->model.tokenizer;
    tr_bytes piece = tr_tokenizer_piece(t, g->id);
    tr_bytes text = { NULL, 0 };
    tr_bytes all = { NULL, 0 };

    pthread_mutex_lock(&x->lock);
    c->n_tokens++;
    c->has_news = c->log_probs != NULL;
    if (c->log_probs)
        log_probs_add(x, c->log_probs, offset_of(c, g->id), g);
    if (!tr_tokenizer_is_special(t, g->id))
        all = piece;
    do {
        tr_bytes part = { all.data, all.size < LONGEST_PIECE ? all.size : LONGEST_PIECE };
        all.data = all.data ? all.data + part.size : NULL;
        all.size -= part.size;
        if (filter(c, part, &text) != TR_OK)
            x->is_out_of_memory = true;
        put_text(x, c, text);
    } while (all.size > 0);
    bool goes_on = !tr_stop_found(c->stop) && !x->is_out_of_memory;
    if (c->guide)
        goes_on = tr_guide_accept(c->guide, g->id) && !tr_guide_is_over(c->guide) && goes_on;
    if (x->r.stream)
        wake_reader(x);
    pthread_mutex_unlock(&x->lock);
    return goes_on;
}

/* From the engine's pool, between two tokens of this choice. */
static bool constrain(void *ctx, float *logits, size_t n_vocab)
{
    choice *c = ctx;
    bool has_some = false;

    tr_guide_constrain(c->guide, logits, n_vocab);
    for (size_t i = 0; i < n_vocab && !has_some; i++)
        has_some = logits[i] > -INFINITY; /* logit_bias may have excluded what is left */
    return has_some;
}

static bool is_end(void *ctx, uint32_t id)
{
    const choice *c = ctx;
    const tr_api_model *m = &c->x->host->model;

    if (tr_tokenizer_is_eog(m->tokenizer, id))
        return true;
    if (!is_chat(c->x))
        return false;
    tr_chat_stops stops = tr_chat_stops_of(m->chat);
    for (size_t i = 0; i < stops.n_ids; i++)
        if (stops.ids[i] == id)
            return true;
    return false;
}

/* What the filters held back, then the reason. */
static void end_choice(tr_exchange *x, choice *c)
{
    uint8_t tail[TR_UTF8_ROOM(0)];
    tr_bytes text = { NULL, 0 };

    if (!tr_stop_found(c->stop)) {
        size_t n = tr_utf8_flush(&c->filter, tail);
        if (tr_stop_feed(c->stop, (tr_bytes){ tail, n }, &text) == TR_OK)
            put_text(x, c, text);
        put_text(x, c, tr_stop_flush(c->stop));
    }
    if (x->r.stream)
        put_chunk(x, c->index, false, (tr_bytes){ NULL, 0 }, NULL, finish_reason(c->finish));
}

static json_t *error_json(const tr_exchange *x)
{
    return x->cancelled && x->failed == TR_E_INTERRUPTED ? tr_serve_cancelled_json(x->cancelled)
                                                         : tr_serve_error_json(x->failed, x->why);
}

/* After the last choice. */
static void end_stream(tr_exchange *x)
{
    if (x->failed != TR_OK) {
        put_event(x, error_json(x));
    } else if (x->r.include_usage) {
        json_t *o = envelope(x, is_chat(x) ? "chat.completion.chunk" : "text_completion");
        json_object_set_new(o, "choices", json_array());
        json_object_set_new(o, "usage", usage_of(x));
        put_event(x, o);
    }
    put_out(x, "data: [DONE]\n\n", 14);
}

static void let_go(tr_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool is_last = --x->holders == 0;
    pthread_mutex_unlock(&x->lock);
    if (!is_last)
        return;
    for (size_t i = 0; i < TR_API_MAX_CHOICES; i++) {
        tr_stop_free(&x->choices[i].stop);
        tr_guide_free(&x->choices[i].guide);
        json_decref(x->choices[i].log_probs);
        free(x->choices[i].text);
    }
    tr_grammar_free(&x->grammar);
    free(x->out);
    tr_api_fini(&x->r);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

static void on_end(void *ctx, tr_finish f, tr_status st, const char *why)
{
    choice *c = ctx;
    tr_exchange *x = c->x;

    pthread_mutex_lock(&x->lock);
    c->finish = f;
    c->is_ended = true;
    x->n_ended++;
    if (st != TR_OK && x->failed == TR_OK) {
        x->failed = st;
        snprintf(x->why, sizeof x->why, "%s", why ? why : "");
    }
    if (st == TR_OK)
        end_choice(x, c);
    if (has_ended(x)) {
        if (x->r.stream)
            end_stream(x);
        wake_reader(x);
    }
    pthread_mutex_unlock(&x->lock);
    let_go(x);
}

/* ---- from the server's thread ---------------------------------------------------------------- */

static void name(tr_exchange *x)
{
    uint64_t random[2] = { 0, 0 };

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        random[0] = (uint64_t)tr_now();
    snprintf(x->id, sizeof x->id, "%s%016llx", is_chat(x) ? "chatcmpl-" : "cmpl-",
             (unsigned long long)random[0]);
    if (!x->r.has_seed)
        x->r.sampling.seed = random[1] >> 1;
    x->created = (long long)time(NULL);
}

static tr_status prepare_choice(tr_exchange *x, size_t i)
{
    tr_chat_stops stops = tr_chat_stops_of(x->host->model.chat);
    tr_bytes strings[TR_STOP_MAX_STRINGS];
    size_t n = 0;

    size_t own = is_chat(x) ? stops.n_strings : 0;

    if (own + x->r.n_stop > TR_STOP_MAX_STRINGS)
        return tr_fail(TR_E_REQUEST, "stop: at most %zu, since the model's template has %zu itself",
                       TR_STOP_MAX_STRINGS - own, own);
    for (size_t k = 0; k < own; k++)
        strings[n++] = stops.strings[k];
    for (size_t k = 0; k < x->r.n_stop; k++)
        strings[n++] = x->r.stop[k];
    x->choices[i] = (choice){ .x = x, .index = i, .log_probs = log_probs_begin(x) };
    tr_status st = tr_stop_new(strings, n, &x->choices[i].stop);
    if (st == TR_OK && x->grammar)
        st = tr_guide_new(x->host->vocab, x->grammar, &x->choices[i].guide);
    return st;
}

static tr_serving_request request_of(tr_exchange *x, size_t i)
{
    tr_serving_request q = {
        .prompt = x->r.prompt,
        .n_prompt = x->r.n_prompt,
        .max_tokens = x->r.max_tokens,
        .sampling = x->r.sampling,
        .number = i,
        .edit = x->r.edit,
        .priority = x->r.priority,
        .wants_log_probs = x->r.wants_log_probs,
        .n_alternatives = x->r.n_alternatives,
        .constrain = x->grammar ? constrain : NULL,
        .is_end = is_end,
        .on_token = on_token,
        .on_end = on_end,
        .ctx = &x->choices[i],
    };

    memcpy(q.name, x->id, sizeof q.name);
    return q;
}

/* All choices or none.  They may end before this returns. */
static tr_status submit(tr_exchange *x)
{
    tr_serving_request q[TR_API_MAX_CHOICES];
    uint64_t tickets[TR_API_MAX_CHOICES];

    for (size_t i = 0; i < x->r.n; i++)
        q[i] = request_of(x, i);
    pthread_mutex_lock(&x->lock);
    x->holders += x->r.n;
    x->n_started = x->r.n;
    pthread_mutex_unlock(&x->lock);
    tr_status st = tr_serving_submit(x->host->serving, q, x->r.n, tickets);
    pthread_mutex_lock(&x->lock);
    if (st != TR_OK) {
        x->holders -= x->r.n;
        x->n_started = 0;
    }
    for (size_t i = 0; i < x->n_started; i++)
        x->choices[i].ticket = tickets[i];
    pthread_mutex_unlock(&x->lock);
    return st;
}

/* The prompt as one text.  What it ends with of a character is left to the answer. */
static tr_status put_echo(tr_exchange *x)
{
    const tr_tokenizer *t = x->host->model.tokenizer;
    size_t size = 0, n = 0;

    for (size_t k = 0; k < x->r.n_prompt; k++)
        size += tr_tokenizer_piece(t, x->r.prompt[k]).size;
    uint8_t *text = malloc(size + TR_UTF8_ROOM(size));
    if (!text)
        return tr_fail(TR_E_MEMORY, "echo: no memory");
    for (size_t k = 0; k < x->r.n_prompt; k++) {
        tr_bytes piece = tr_tokenizer_piece(t, x->r.prompt[k]);
        if (tr_tokenizer_is_special(t, x->r.prompt[k]))
            continue;
        memcpy(text + n, piece.data, piece.size);
        n += piece.size;
    }
    for (size_t i = 0; i < x->r.n; i++) {
        choice *c = &x->choices[i];
        size_t n_out = tr_utf8_feed(&c->filter, (tr_bytes){ text, n }, text + size);
        put_text(x, c, (tr_bytes){ text + size, n_out });
    }
    free(text);
    return TR_OK;
}

static tr_status start(tr_exchange *x)
{
    tr_status st = x->r.wants_json ? tr_schema_compile(x->r.schema, &x->grammar) : TR_OK;

    for (size_t i = 0; i < x->r.n && st == TR_OK; i++)
        st = prepare_choice(x, i);
    if (st != TR_OK)
        return st == TR_E_USAGE ? TR_E_REQUEST : st;
    for (size_t i = 0; i < x->r.n && is_chat(x) && x->r.stream; i++)
        put_chunk(x, i, true, (tr_bytes){ NULL, 0 }, NULL, NULL);
    if (x->r.echo)
        st = put_echo(x);
    return st == TR_OK ? submit(x) : st;
}

tr_status tr_exchange_start(const tr_exchange_host *host, tr_api_request *r,
                            void (*wake)(void *ctx), void *ctx, tr_exchange **out)
{
    tr_exchange *x = calloc(1, sizeof *x);

    if (!x) {
        tr_api_fini(r);
        return tr_fail(TR_E_MEMORY, "completion: no memory");
    }
    x->host = host;
    x->r = *r;
    *r = (tr_api_request){ 0 };
    x->wake = wake;
    x->ctx = ctx;
    x->holders = 1;
    pthread_mutex_init(&x->lock, NULL);
    name(x);
    tr_status st = start(x);
    if (st != TR_OK) {
        tr_exchange_close(&x);
        return st;
    }
    *out = x;
    return TR_OK;
}

void tr_exchange_cancel(tr_exchange *x, const char *why)
{
    uint64_t live[TR_API_MAX_CHOICES];
    size_t n = 0;

    pthread_mutex_lock(&x->lock);
    bool is_first = !x->cancelled;
    x->cancelled = is_first ? why : x->cancelled;
    for (size_t i = 0; is_first && i < x->n_started; i++)
        if (!x->choices[i].is_ended)
            live[n++] = x->choices[i].ticket;
    pthread_mutex_unlock(&x->lock);
    for (size_t i = 0; i < n; i++)
        tr_serving_cancel(x->host->serving, live[i]);
}

void tr_exchange_close(tr_exchange **exchange)
{
    tr_exchange *x = *exchange;

    if (!x)
        return;
    pthread_mutex_lock(&x->lock);
    x->is_closed = true;
    pthread_mutex_unlock(&x->lock);
    tr_exchange_cancel(x, "the connection was closed");
    let_go(x);
    *exchange = NULL;
}

bool tr_exchange_is_stream(const tr_exchange *x)
{
    return x->r.stream;
}

bool tr_exchange_is_behind(tr_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool is_behind = x->r.stream && x->n_out - x->n_read > MAX_UNREAD;
    pthread_mutex_unlock(&x->lock);
    return is_behind;
}

void tr_exchange_nudge(tr_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->r.stream && x->n_read == x->n_out && !has_ended(x)) {
        put_out(x, ":\n\n", 3);
        wake_reader(x);
    }
    pthread_mutex_unlock(&x->lock);
}

size_t tr_exchange_read(tr_exchange *x, char *buffer, size_t size, bool *ended)
{
    pthread_mutex_lock(&x->lock);
    size_t n = x->n_out - x->n_read < size ? x->n_out - x->n_read : size;
    if (n > 0)
        memcpy(buffer, x->out + x->n_read, n);
    x->n_read += n;
    *ended = n == 0 && (has_ended(x) || x->is_out_of_memory);
    x->wants_wake = n == 0 && !*ended;
    pthread_mutex_unlock(&x->lock);
    return n;
}

bool tr_exchange_is_done(tr_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool is_done = has_ended(x);
    x->wants_wake = !is_done;
    pthread_mutex_unlock(&x->lock);
    return is_done;
}

static json_t *choice_json(const tr_exchange *x, choice *c)
{
    json_t *text = tr_api_text((tr_bytes){ (const uint8_t *)(c->text ? c->text : ""), c->n_text });
    json_t *o = json_pack("{s:I, s:O, s:s}", "index", (json_int_t)c->index, "logprobs",
                          c->log_probs ? c->log_probs : json_null(), "finish_reason",
                          finish_reason(c->finish));

    if (is_chat(x))
        json_object_set_new(o, "message",
                            json_pack("{s:s, s:o}", "role", "assistant", "content", or_null(text)));
    else
        json_object_set_new(o, "text", or_null(text));
    return o;
}

char *tr_exchange_reply(tr_exchange *x, unsigned *status)
{
    json_t *o;

    pthread_mutex_lock(&x->lock);
    if (x->is_out_of_memory && x->failed == TR_OK)
        x->failed = TR_E_MEMORY;
    *status = x->failed == TR_OK ? 200 : tr_serve_error_http(x->failed);
    if (x->failed != TR_OK) {
        o = error_json(x);
    } else {
        json_t *choices = json_array();
        for (size_t i = 0; i < x->n_started; i++)
            json_array_append_new(choices, choice_json(x, &x->choices[i]));
        o = envelope(x, is_chat(x) ? "chat.completion" : "text_completion");
        json_object_set_new(o, "choices", choices);
        json_object_set_new(o, "usage", usage_of(x));
    }
    pthread_mutex_unlock(&x->lock);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return text;
}
