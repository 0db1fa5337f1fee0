/* answer.c - stream text to standard output, or collect a JSON object.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/answer.h"

#include "coordinator/cluster/launch.h"
#include "coordinator/commands/json_text.h"
#include "coordinator/text/stop.h"
#include "coordinator/text/utf8.h"

#include <jansson.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tr_answer {
    const tr_run_options *o;
    const tr_tokenizer *tokenizer;
    tr_utf8_filter filter;
    tr_stop *stop;
    json_t *tokens; /* with --json */
    char *text;     /* with --json: all that was shown */
    size_t text_size, text_capacity;
    uint8_t *buffer; /* for the filter's output */
    size_t buffer_size;
    tr_status st; /* of output; sticky */
};

tr_status tr_answer_new(const tr_run_options *o, const tr_tokenizer *t, tr_answer **out)
{
    tr_bytes stops[TR_RUN_MAX_STOPS];
    tr_answer *a = calloc(1, sizeof *a);

    if (!a)
        return tr_fail(TR_E_MEMORY, "answer: no memory");
    a->o = o;
    a->tokenizer = t;
    for (size_t i = 0; i < o->n_stops; i++)
        stops[i] = tr_bytes_of(o->stop[i]);
    tr_status st = tr_stop_new(stops, o->n_stops, &a->stop);
    if (st == TR_OK && o->json && !(a->tokens = json_array()))
        st = tr_fail(TR_E_MEMORY, "answer: no memory");
    if (st != TR_OK) {
        tr_answer_free(&a);
        return st;
    }
    *out = a;
    return TR_OK;
}

void tr_answer_free(tr_answer **a)
{
    if (!*a)
        return;
    tr_stop_free(&(*a)->stop);
    json_decref((*a)->tokens);
    free((*a)->text);
    free((*a)->buffer);
    free(*a);
    *a = NULL;
}

static tr_status write_all(const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t n = write(STDOUT_FILENO, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return tr_fail(TR_E_IO, "standard output: write: %s", strerror(errno));
        tr_launch_count_output((size_t)n);
        at += n;
        size -= (size_t)n;
    }
    return TR_OK;
}

static tr_status keep(tr_answer *a, tr_bytes text)
{
    if (text.size == 0)
        return TR_OK;
    if (a->text_size + text.size > a->text_capacity) {
        size_t capacity = 2 * (a->text_size + text.size);
        char *grown = realloc(a->text, capacity);
        if (!grown)
            return tr_fail(TR_E_MEMORY, "answer: no memory for %zu bytes", capacity);
        a->text = grown;
        a->text_capacity = capacity;
    }
    memcpy(a->text + a->text_size, text.data, text.size);
    a->text_size += text.size;
    return TR_OK;
}

/* Valid UTF-8 goes through the stop strings and out. */
static tr_status show(tr_answer *a, tr_bytes piece)
{
    tr_bytes text = { NULL, 0 };

    tr_status st = tr_stop_feed(a->stop, piece, &text);
    if (st != TR_OK || text.size == 0)
        return st;
    return a->o->json ? keep(a, text) : write_all(text.data, text.size);
}

static tr_status filter(tr_answer *a, tr_bytes piece)
{
    size_t room = TR_UTF8_ROOM(piece.size);

    if (room > a->buffer_size) {
        uint8_t *grown = realloc(a->buffer, room);
        if (!grown)
            return tr_fail(TR_E_MEMORY, "answer: no memory for %zu bytes", room);
        a->buffer = grown;
        a->buffer_size = room;
    }
    size_t n = tr_utf8_feed(&a->filter, piece, a->buffer);
    return show(a, (tr_bytes){ a->buffer, n });
}

/* A token's bytes as text, or null where they are no whole characters. */
static json_t *piece_json(tr_bytes piece)
{
    size_t bad;

    if (!tr_utf8_valid(piece, &bad))
        return json_null();
    return json_stringn((const char *)piece.data, piece.size);
}

/* JSON has no infinities. */
static json_t *log_prob_json(double log_prob)
{
    return isfinite(log_prob) ? json_real(log_prob) : json_null();
}

static tr_status keep_token(tr_answer *a, const tr_generated *token)
{
    json_t *top = json_array();

    for (size_t i = 0; i < token->n_alternatives; i++) {
        const tr_alternative *alt = &token->alternatives[i];
        json_array_append_new(top,
                              json_pack("{s:i,s:o,s:o}", "id", (int)alt->id, "logprob",
                                        log_prob_json(alt->log_prob), "text",
                                        piece_json(tr_tokenizer_piece(a->tokenizer, alt->id))));
    }
    json_t *one =
        json_pack("{s:i,s:o,s:o}", "id", (int)token->id, "logprob", log_prob_json(token->log_prob),
                  "text", piece_json(tr_tokenizer_piece(a->tokenizer, token->id)));
    if (token->n_alternatives > 0)
        json_object_set(one, "top", top);
    json_decref(top);
    if (!one || json_array_append_new(a->tokens, one) != 0)
        return tr_fail(TR_E_MEMORY, "answer: no memory for a token");
    return TR_OK;
}

bool tr_answer_token(void *ctx, const tr_generated *token)
{
    tr_answer *a = ctx;

    if (a->o->json)
        a->st = keep_token(a, token);
    if (a->st == TR_OK && !tr_tokenizer_is_special(a->tokenizer, token->id))
        a->st = filter(a, tr_tokenizer_piece(a->tokenizer, token->id));
    return a->st == TR_OK && !tr_stop_found(a->stop);
}

bool tr_answer_is_end(void *ctx, uint32_t id)
{
    tr_answer *a = ctx;

    return !a->o->ignore_eos && tr_tokenizer_is_eog(a->tokenizer, id);
}

static double seconds(tr_time t)
{
    return (double)t / (double)TR_SECOND;
}

static json_t *workers_json(const tr_report *r)
{
    json_t *list = json_array();

    for (uint32_t w = 1; w <= r->n_workers; w++)
        json_array_append_new(list,
                              json_pack("{s:i,s:I,s:f}", "worker", (int)w, "rows",
                                        (json_int_t)r->stats->dispatch.peer_rows[w], "busy_seconds",
                                        (double)r->stats->dispatch.peer_busy[w] * 1e-9));
    return list;
}

static json_t *report_json(const tr_answer *a, const tr_report *r)
{
    const tr_generate_result *g = r->result;
    json_t *prompt = json_array();

    for (size_t i = 0; i < r->prompt->n; i++)
        json_array_append_new(prompt, json_integer(r->prompt->ids[i]));
    return json_pack(
        "{s:o, s:o, s:O, s:o, s:s, s:o, s:s, s:i, s:i, s:f, s:f, s:f, s:I, s:I, s:o}", "model",
        tr_json_text(tr_bytes_of(r->options->model)), "prompt_tokens", prompt, "tokens", a->tokens,
        "text", json_stringn(a->text ? a->text : "", a->text_size), "finish",
        tr_finish_name(g->finish), "seed", json_sprintf("%llu", (unsigned long long)r->seed),
        "kernels", r->kernels, "n_prompt", (int)g->n_prompt, "n_generated", (int)g->n_generated,
        "load_seconds", r->stats->load_seconds, "prefill_seconds", seconds(g->prefill),
        "decode_seconds", seconds(g->decode), "bytes_sent",
        (json_int_t)r->stats->transport.bytes_sent, "bytes_received",
        (json_int_t)r->stats->transport.bytes_received, "workers", workers_json(r));
}

static tr_status write_json(const tr_answer *a, const tr_report *r)
{
    json_t *object = report_json(a, r);
    char *text = object ? json_dumps(object, JSON_INDENT(1)) : NULL;
    tr_status st = text ? write_all(text, strlen(text))
                        : tr_fail(TR_E_MEMORY, "answer: no memory for the JSON object");

    free(text);
    json_decref(object);
    return st;
}

tr_status tr_answer_finish(tr_answer *a, const tr_report *report)
{
    uint8_t tail[16];

    if (a->st == TR_OK)
        a->st = show(a, (tr_bytes){ tail, tr_utf8_flush(&a->filter, tail) });
    if (a->st == TR_OK) {
        tr_bytes rest = tr_stop_flush(a->stop);
        a->st = a->o->json ? keep(a, rest) : write_all(rest.data, rest.size);
    }
    if (a->st == TR_OK && a->o->json)
        a->st = write_json(a, report);
    if (a->st == TR_OK)
        a->st = write_all("\n", 1);
    return a->st;
}
