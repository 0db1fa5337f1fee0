/* api.c - member by member; the first that is wrong is named.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/api.h"

#include "coordinator/engine/generate.h"
#include "coordinator/text/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- members ------------------------------------------------------------------------------- */

/* The member, or NULL if it is absent or null. */
static json_t *member(const json_t *o, const char *name)
{
    json_t *v = json_object_get(o, name);

    return json_is_null(v) ? NULL : v;
}

static tr_status get_bool(const json_t *o, const char *name, bool *out)
{
    const json_t *v = member(o, name);

    if (v && !json_is_boolean(v))
        return tr_fail(TR_E_REQUEST, "%s: must be true or false", name);
    if (v)
        *out = json_is_true(v);
    return TR_OK;
}

static tr_status get_count(const json_t *o, const char *name, uint64_t least, uint64_t most,
                           uint64_t *out)
{
    const json_t *v = member(o, name);

    if (!v)
        return TR_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0 ||
        (uint64_t)json_integer_value(v) < least || (uint64_t)json_integer_value(v) > most)
        return tr_fail(TR_E_REQUEST, "%s: must be a whole number from %llu to %llu", name,
                       (unsigned long long)least, (unsigned long long)most);
    *out = (uint64_t)json_integer_value(v);
    return TR_OK;
}

static tr_status get_real(const json_t *o, const char *name, double least, double most, float *out)
{
    const json_t *v = member(o, name);
    double x = json_number_value(v);

    if (!v)
        return TR_OK;
    if (!json_is_number(v) || !(x >= least && x <= most))
        return tr_fail(TR_E_REQUEST, "%s: must be a number from %g to %g", name, least, most);
    *out = (float)x;
    return TR_OK;
}

static tr_bytes bytes_of_string(const json_t *s)
{
    return (tr_bytes){ (const uint8_t *)json_string_value(s), json_string_length(s) };
}

/* What a member may say that changes nothing. */
typedef enum {
    ONLY_NULL,
    EMPTY_LIST,
    EMPTY_TEXT,
    NO_TOOL /* "none", or "auto" where there are none */
} harmless;

static bool is_harmless(const json_t *v, harmless h)
{
    const char *word = json_string_value(v);

    switch (h) {
    case ONLY_NULL:
        return false;
    case EMPTY_LIST:
        return json_is_array(v) && json_array_size(v) == 0;
    case EMPTY_TEXT:
        return word && *word == '\0';
    case NO_TOOL:
        break;
    }
    return word && (strcmp(word, "none") == 0 || strcmp(word, "auto") == 0);
}

/* Members that would change the answer in a way that nothing here does. */
static tr_status refuse_members(const json_t *o)
{
    static const struct {
        const char *name;
        harmless allowed;
    } members[] = {
        { "tools", EMPTY_LIST },      { "functions", EMPTY_LIST }, { "tool_choice", NO_TOOL },
        { "function_call", NO_TOOL }, { "suffix", EMPTY_TEXT },    { "audio", ONLY_NULL },
    };

    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const json_t *v = member(o, members[i].name);
        if (v && !is_harmless(v, members[i].allowed))
            return tr_fail(TR_E_REQUEST, "%s: is not served here; leave it out", members[i].name);
    }
    return TR_OK;
}

/* ---- what the prompt is ---------------------------------------------------------------------- */

static tr_status with_bos(const tr_tokenizer *t, uint32_t **ids, size_t *n)
{
    uint32_t bos;

    if (!tr_tokenizer_adds_bos(t) || !tr_tokenizer_bos(t, &bos) || (*n > 0 && (*ids)[0] == bos))
        return TR_OK;
    uint32_t *longer = realloc(*ids, (*n + 1) * sizeof *longer);
    if (!longer)
        return tr_fail(TR_E_MEMORY, "prompt: no memory");
    memmove(longer + 1, longer, *n * sizeof *longer);
    longer[0] = bos;
    *ids = longer;
    ++*n;
    return TR_OK;
}

static tr_status prompt_of_ids(const tr_api_model *m, const json_t *list, tr_api_request *r)
{
    size_t n_vocab = tr_tokenizer_n_vocab(m->tokenizer);
    size_t i;
    json_t *v;

    r->n_prompt = json_array_size(list);
    r->prompt = malloc((r->n_prompt ? r->n_prompt : 1) * sizeof *r->prompt);
    if (!r->prompt)
        return tr_fail(TR_E_MEMORY, "prompt: no memory for %zu tokens", r->n_prompt);
    json_array_foreach(list, i, v)
    {
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || (uint64_t)id >= n_vocab)
            return tr_fail(TR_E_REQUEST, "prompt[%zu]: a list must be of token ids below %zu", i,
                           n_vocab);
        r->prompt[i] = (uint32_t)id;
    }
    return TR_OK;
}

tr_status tr_api_check_text(const tr_api_model *m, const char *name, size_t size)
{
    return size <= m->max_text
               ? TR_OK
               : tr_fail(TR_E_REQUEST,
                         "%s: %zu bytes of text are more than a context of %zu tokens can hold",
                         name, size, m->context);
}

static tr_status read_prompt(const tr_api_model *m, const json_t *root, tr_api_request *r)
{
    const json_t *p = member(root, "prompt");

    if (json_is_array(p) && json_array_size(p) == 1 && json_is_string(json_array_get(p, 0)))
        p = json_array_get(p, 0);
    if (json_is_array(p))
        return prompt_of_ids(m, p, r);
    if (!json_is_string(p))
        return tr_fail(TR_E_REQUEST, "prompt: must be a text or a list of token ids");
    tr_status st = tr_api_check_text(m, "prompt", json_string_length(p));
    if (st == TR_OK)
        st = tr_tokenizer_encode(m->tokenizer, bytes_of_string(p), false, &r->prompt, &r->n_prompt);
    return st == TR_OK ? with_bos(m->tokenizer, &r->prompt, &r->n_prompt) : st;
}

/* One text of all parts, each of which must be text, in place of the list. */
static tr_status join_parts(json_t *o, json_t *parts, size_t i)
{
    size_t size = 0, n = 0, k;
    json_t *part;

    json_array_foreach(parts, k, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (!json_is_string(text))
            return tr_fail(TR_E_REQUEST, "messages[%zu].content[%zu]: only text is served here", i,
                           k);
        size += json_string_length(text);
    }
    char *whole = malloc(size + 1);
    if (!whole)
        return tr_fail(TR_E_MEMORY, "messages[%zu]: no memory", i);
    json_array_foreach(parts, k, part)
    {
        tr_bytes text = bytes_of_string(json_object_get(part, "text"));
        memcpy(whole + n, text.data, text.size);
        n += text.size;
    }
    /* owned by the request from here on */
    int set = json_object_set_new(o, "content", json_stringn_nocheck(whole, n));
    free(whole);
    return set == 0 ? TR_OK : tr_fail(TR_E_MEMORY, "messages[%zu]: no memory", i);
}

/* The text of a message: a string, or a list of parts of which each is text. */
static tr_status message_text(json_t *o, size_t i, tr_bytes *out)
{
    json_t *content = member(o, "content");

    if (json_is_array(content)) {
        tr_status st = join_parts(o, content, i);
        if (st != TR_OK)
            return st;
        content = member(o, "content");
    }
    if (content && !json_is_string(content))
        return tr_fail(TR_E_REQUEST, "messages[%zu].content: must be a text", i);
    *out = content ? bytes_of_string(content) : tr_bytes_of("");
    return TR_OK;
}

static tr_status read_messages(const tr_api_model *m, const json_t *root, tr_api_request *r)
{
    const json_t *list = member(root, "messages");
    size_t n = json_array_size(list);
    size_t size = 0, i;
    json_t *o;

    if (n == 0 || n > TR_API_MAX_MESSAGES)
        return tr_fail(TR_E_REQUEST, "messages: must be a list of 1 to %d messages",
                       TR_API_MAX_MESSAGES);
    tr_chat_message *messages = calloc(n, sizeof *messages);
    if (!messages)
        return tr_fail(TR_E_MEMORY, "messages: no memory");
    tr_status st = TR_OK;
    json_array_foreach(list, i, o)
    {
        const json_t *role = json_object_get(o, "role");
        if (!json_is_string(role))
            st = tr_fail(TR_E_REQUEST, "messages[%zu].role: is missing", i);
        else
            st = message_text(o, i, &messages[i].content);
        if (st != TR_OK)
            break;
        messages[i].role = bytes_of_string(role);
        size += messages[i].content.size;
    }
    if (st == TR_OK)
        st = tr_api_check_text(m, "messages", size);
    if (st == TR_OK)
        st = tr_chat_encode(m->chat, messages, n, true, &r->prompt, &r->n_prompt);
    free(messages);
    return st;
}

/* ---- how to answer -------------------------------------------------------------------------- */

static tr_status read_sampling(const json_t *root, tr_api_request *r)
{
    uint64_t top_k = 0, seed = 0;

    /* The interface's defaults, not ours. */
    r->sampling = tr_sampling_default();
    r->sampling.temperature = 1.0f;
    r->sampling.top_p = 1.0f;
    r->sampling.min_p = 0.0f;
    tr_status st = get_real(root, "temperature", 0.0, 100.0, &r->sampling.temperature);
    if (st == TR_OK)
        st = get_real(root, "top_p", 1e-6, 1.0, &r->sampling.top_p);
    if (st == TR_OK)
        st = get_real(root, "min_p", 0.0, 1.0, &r->sampling.min_p);
    if (st == TR_OK)
        st = get_real(root, "repetition_penalty", 0.01, 100.0, &r->sampling.repeat_penalty);
    if (st == TR_OK)
        st = get_real(root, "presence_penalty", -2.0, 2.0, &r->edit.presence);
    if (st == TR_OK)
        st = get_real(root, "frequency_penalty", -2.0, 2.0, &r->edit.frequency);
    if (st == TR_OK)
        st = get_count(root, "top_k", 0, UINT32_MAX, &top_k);
    if (st == TR_OK)
        st = get_count(root, "seed", 0, INT64_MAX, &seed);
    r->sampling.top_k = (uint32_t)top_k;
    r->sampling.seed = seed;
    r->has_seed = member(root, "seed") != NULL;
    return st;
}

static tr_status read_bias(const json_t *root, tr_api_request *r)
{
    json_t *o = member(root, "logit_bias");
    const char *key;
    json_t *v;

    if (!o)
        return TR_OK;
    if (!json_is_object(o) || json_object_size(o) > TR_API_MAX_BIAS)
        return tr_fail(TR_E_REQUEST, "logit_bias: must be an object of at most %d token ids",
                       TR_API_MAX_BIAS);
    r->edit.bias = calloc(json_object_size(o) + 1, sizeof *r->edit.bias);
    if (!r->edit.bias)
        return tr_fail(TR_E_MEMORY, "logit_bias: no memory");
    json_object_foreach(o, key, v)
    {
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        double value = json_number_value(v);
        if (*key < '0' || *key > '9' || *end != '\0' || id > UINT32_MAX)
            return tr_fail(TR_E_REQUEST, "logit_bias: \"%.40s\" is no token id", key);
        if (!json_is_number(v) || !(value >= -100.0 && value <= 100.0))
            return tr_fail(TR_E_REQUEST, "logit_bias.%lu: must be a number from -100 to 100", id);
        r->edit.bias[r->edit.n_bias++] =
            (tr_logit_bias){ (uint32_t)id, value <= -100.0 ? -INFINITY : (float)value };
    }
    return TR_OK;
}

static tr_status read_stop(const json_t *root, tr_api_request *r)
{
    const json_t *v = member(root, "stop");
    size_t i;
    json_t *s;

    if (!v)
        return TR_OK;
    if (json_is_string(v)) {
        r->stop[r->n_stop++] = bytes_of_string(v);
        return TR_OK;
    }
    if (!json_is_array(v) || json_array_size(v) > TR_STOP_MAX_STRINGS)
        return tr_fail(TR_E_REQUEST, "stop: must be a text or a list of at most %d",
                       TR_STOP_MAX_STRINGS);
    json_array_foreach(v, i, s)
    {
        if (!json_is_string(s))
            return tr_fail(TR_E_REQUEST, "stop[%zu]: must be a text", i);
        r->stop[r->n_stop++] = bytes_of_string(s);
    }
    return TR_OK;
}

static tr_status read_log_probs(const json_t *root, tr_api_request *r)
{
    uint64_t n = 0;
    tr_status st;

    if (r->kind == TR_API_CHAT) {
        st = get_bool(root, "logprobs", &r->wants_log_probs);
        if (st == TR_OK)
            st = get_count(root, "top_logprobs", 0, TR_API_MAX_TOP_LOGPROBS, &n);
        if (st == TR_OK && n > 0 && !r->wants_log_probs)
            st = tr_fail(TR_E_REQUEST, "top_logprobs: needs logprobs: true");
    } else {
        st = get_count(root, "logprobs", 0, TR_API_MAX_TOP_LOGPROBS, &n);
        r->wants_log_probs = member(root, "logprobs") != NULL;
        if (st == TR_OK)
            st = get_bool(root, "echo", &r->echo);
        if (st == TR_OK && r->echo && r->wants_log_probs)
            st = tr_fail(TR_E_REQUEST, "echo with logprobs: those of a prompt are not kept");
    }
    r->n_alternatives = (size_t)n;
    return st;
}

static tr_status read_counts(const tr_api_model *m, const json_t *root, tr_api_request *r)
{
    uint64_t n = 1, best = 0, tokens = 0;
    bool is_chat = r->kind == TR_API_CHAT;
    size_t room = r->n_prompt < m->context ? m->context - r->n_prompt : 0;

    tr_status st = get_count(root, "n", 1, TR_API_MAX_CHOICES, &n);
    if (st == TR_OK)
        st = get_count(root, "max_tokens", 1, UINT32_MAX, &tokens);
    if (st == TR_OK && is_chat)
        st = get_count(root, "max_completion_tokens", 1, UINT32_MAX, &tokens);
    if (st == TR_OK)
        st = get_count(root, "best_of", 1, TR_API_MAX_CHOICES, &best);
    if (st != TR_OK)
        return st;
    if (best > n)
        return tr_fail(TR_E_REQUEST, "best_of: is not served here; leave it out");
    if (r->n_prompt == 0)
        return tr_fail(TR_E_REQUEST, "the prompt is empty: give at least one token");
    if (room == 0)
        return tr_fail(TR_E_REQUEST,
                       "the prompt has %zu tokens, and the context is %zu: shorten it", r->n_prompt,
                       m->context);
    if (tokens > room)
        return tr_fail(TR_E_REQUEST,
                       "max_tokens: %llu after a prompt of %zu tokens is more than the context of "
                       "%zu allows: at most %zu",
                       (unsigned long long)tokens, r->n_prompt, m->context, room);
    if (tokens == 0)
        tokens = is_chat || m->default_tokens > room ? room : m->default_tokens;
    r->n = (size_t)n;
    r->max_tokens = (size_t)tokens;
    return TR_OK;
}

/* {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": {...}}} */
static tr_status read_format(const json_t *root, tr_api_request *r)
{
    const json_t *v = member(root, "response_format");
    const char *type = json_string_value(json_object_get(v, "type"));

    if (!v || (type && strcmp(type, "text") == 0))
        return TR_OK;
    r->wants_json = true;
    if (type && strcmp(type, "json_object") == 0)
        return TR_OK;
    r->schema = json_object_get(json_object_get(v, "json_schema"), "schema");
    if (!type || strcmp(type, "json_schema") != 0)
        return tr_fail(TR_E_REQUEST,
                       "response_format.type: must be text, json_object or json_schema");
    return r->schema ? TR_OK
                     : tr_fail(TR_E_REQUEST, "response_format.json_schema.schema: is missing");
}

static tr_status read_rest(const tr_api_model *m, const json_t *root, tr_api_request *r)
{
    const json_t *options = member(root, "stream_options");
    float priority = 0.0f;

    tr_status st = read_counts(m, root, r);
    if (st == TR_OK)
        st = read_sampling(root, r);
    if (st == TR_OK)
        st = read_bias(root, r);
    if (st == TR_OK)
        st = read_stop(root, r);
    if (st == TR_OK)
        st = read_log_probs(root, r);
    if (st == TR_OK)
        st = read_format(root, r);
    if (st == TR_OK)
        st = get_bool(root, "stream", &r->stream);
    if (st == TR_OK && options && !json_is_object(options))
        st = tr_fail(TR_E_REQUEST, "stream_options: must be an object");
    if (st == TR_OK && options)
        st = get_bool(options, "include_usage", &r->include_usage);
    if (st == TR_OK)
        st = get_real(root, "priority", -100.0, 100.0, &priority);
    r->priority = (int32_t)priority;
    return st;
}

static tr_status check_model(const tr_api_model *m, const json_t *root)
{
    const json_t *v = member(root, "model");

    if (v && !json_is_string(v))
        return tr_fail(TR_E_REQUEST, "model: must be a text");
    if (v && strcmp(json_string_value(v), m->name) != 0)
        return tr_fail(TR_E_UNSUPPORTED, "model: \"%.80s\" is not served here, \"%s\" is",
                       json_string_value(v), m->name);
    return TR_OK;
}

tr_status tr_api_object(tr_bytes body, json_t **out)
{
    json_error_t error;

    if (body.size == 0)
        return tr_fail(TR_E_REQUEST, "the body is empty: send a JSON object");
    json_t *root = json_loadb((const char *)body.data, body.size, JSON_REJECT_DUPLICATES, &error);

    if (!root)
        return tr_fail(TR_E_REQUEST, "the body is no JSON: line %d: %s", error.line, error.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return tr_fail(TR_E_REQUEST, "the body is JSON, but no object");
    }
    *out = root;
    return TR_OK;
}

tr_status tr_api_parse(const tr_api_model *m, tr_api_kind kind, tr_bytes body, tr_api_request *out)
{
    tr_api_request r = { .kind = kind };

    tr_status st = tr_api_object(body, &r.root);
    if (st == TR_OK)
        st = check_model(m, r.root);
    if (st == TR_OK)
        st = refuse_members(r.root);
    if (st == TR_OK)
        st = kind == TR_API_CHAT ? read_messages(m, r.root, &r) : read_prompt(m, r.root, &r);
    if (st == TR_OK)
        st = read_rest(m, r.root, &r);
    if (st == TR_OK)
        st = tr_sampling_check(&r.sampling);
    if (st != TR_OK) {
        tr_api_fini(&r);
        return st == TR_E_USAGE ? TR_E_REQUEST : st;
    }
    *out = r;
    return TR_OK;
}

void tr_api_fini(tr_api_request *r)
{
    json_decref(r->root);
    free(r->prompt);
    free(r->edit.bias);
    *r = (tr_api_request){ 0 };
}

json_t *tr_api_text(tr_bytes bytes)
{
    json_t *s = json_stringn((const char *)bytes.data, bytes.size);

    if (s)
        return s;
    tr_utf8_filter f = { 0 };
    uint8_t *out = malloc(TR_UTF8_ROOM(bytes.size));
    if (!out)
        return NULL;
    size_t n = tr_utf8_feed(&f, bytes, out);
    n += tr_utf8_flush(&f, out + n);
    s = json_stringn((const char *)out, n);
    free(out);
    return s;
}
