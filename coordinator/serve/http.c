/* http.c - libmicrohttpd's callbacks.
 *
 * A connection sleeps (MHD_suspend_connection) while it has nothing to send.  Falling asleep and
 * being woken happen on different threads: `woken` keeps a call that came too early.
 *
 * Who may ask is decided before the body comes.  The body of a request that is refused is dropped
 * as it arrives and answered at its end: an answer before that, and the connection closed behind
 * it, would not reach a client that is still sending.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/http.h"

#include "base/host.h"
#include "coordinator/serve/error.h"
#include "coordinator/serve/web.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

enum {
    MEMORY = 32 * 1024,   /* of a connection: headers must fit */
    STREAM_BLOCK = 16384, /* bytes asked for at once */
    REASON = 512,
    MAX_DROPPED = 64 << 20, /* bytes of a refused body that are waited for */
    LEAST_RATE = 16 * 1024, /* bytes a second that a body must come with, in the long run */
};

static const tr_time watch_period = 50 * TR_MS;

/* How often a client that has ended its side is asked whether it is there at all. */
static const tr_time probe_period = TR_SECOND;

/* How long closing waits for what clients have not taken yet. */
static const tr_time flush_patience = 2 * TR_SECOND;

/* Why a request is not served. */
typedef struct {
    unsigned http;
    const char *code, *message;
} refusal;

struct route;

/* One request on a connection. */
typedef struct client {
    tr_http *h;
    struct MHD_Connection *connection;
    const struct route *route; /* NULL: a file of the page */
    const refusal *refused;    /* NULL: it is not */
    bool is_http11;
    tr_time began, probed;
    char *body;
    size_t n_body, room;
    uint64_t received;
    tr_exchange *x;

    pthread_mutex_t lock;
    bool is_asleep, is_woken;
    struct client *previous, *next; /* of those with an exchange */
} client;

struct tr_http {
    tr_http_options o;
    struct MHD_Daemon *daemon;
    uint16_t port;
    bool checks_names;
    char hostname[256];
    int listening; /* after MHD let go of it; -1: it has it */
    pthread_t watcher;
    bool has_watcher;
    atomic_bool is_over;
    pthread_mutex_t lock; /* of the list */
    client *clients;
};

/* ---- replies --------------------------------------------------------------------------------- */

static void harden(struct MHD_Response *r)
{
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "Content-Security-Policy",
                            "default-src 'self'; frame-ancestors 'none'");
}

/* Queue text, which is for free() and may be NULL for want of memory. */
static enum MHD_Result reply_text(client *c, unsigned http, const char *type, char *text)
{
    if (!text)
        return MHD_NO;
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type", type);
    if (http == MHD_HTTP_TOO_MANY_REQUESTS || http == MHD_HTTP_SERVICE_UNAVAILABLE)
        MHD_add_response_header(r, "Retry-After", "1");
    if (http == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    harden(r);
    enum MHD_Result result = MHD_queue_response(c->connection, http, r);
    MHD_destroy_response(r);
    return result;
}

/* Takes o. */
static enum MHD_Result reply_json(client *c, unsigned http, json_t *o)
{
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

    json_decref(o);
    return reply_text(c, http, "application/json", text);
}

static enum MHD_Result reply_error(client *c, unsigned http, const char *code, const char *message)
{
    return reply_json(c, http,
                      json_pack("{s:{s:s, s:s, s:s, s:n}}", "error", "message", message, "type",
                                http < 500 ? "invalid_request_error" : "server_error", "code", code,
                                "param"));
}

static enum MHD_Result reply_status(client *c, tr_status st, const char *why)
{
    return reply_json(c, tr_serve_error_http(st), tr_serve_error_json(st, why));
}

/* ---- completions ----------------------------------------------------------------------------- */

static void wake(void *ctx)
{
    client *c = ctx;

    pthread_mutex_lock(&c->lock);
    if (c->is_asleep)
        MHD_resume_connection(c->connection);
    else
        c->is_woken = true;
    c->is_asleep = false;
    pthread_mutex_unlock(&c->lock);
}

/* False if there was something to do meanwhile. */
static bool fall_asleep(client *c)
{
    pthread_mutex_lock(&c->lock);
    bool sleeps = !c->is_woken;
    c->is_woken = false;
    c->is_asleep = sleeps;
    if (sleeps)
        MHD_suspend_connection(c->connection);
    pthread_mutex_unlock(&c->lock);
    return sleeps;
}

static ssize_t read_stream(void *ctx, uint64_t at, char *buffer, size_t size)
{
    client *c = ctx;
    bool ended;

    (void)at;
    for (;;) {
        size_t n = tr_exchange_read(c->x, buffer, size, &ended);
        if (n > 0)
            return (ssize_t)n;
        if (ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (fall_asleep(c))
            return 0;
    }
}

static enum MHD_Result reply_stream(client *c)
{
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, c, NULL);

    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    harden(r);
    enum MHD_Result result = MHD_queue_response(c->connection, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return result;
}

/* Called again each time the connection is woken. */
static enum MHD_Result reply_whole(client *c)
{
    unsigned http;

    while (!tr_exchange_is_done(c->x))
        if (fall_asleep(c))
            return MHD_YES;
    char *text = tr_exchange_reply(c->x, &http);
    return reply_text(c, http, "application/json", text);
}

static void watch(client *c)
{
    tr_http *h = c->h;

    pthread_mutex_lock(&h->lock);
    c->next = h->clients;
    if (c->next)
        c->next->previous = c;
    h->clients = c;
    pthread_mutex_unlock(&h->lock);
}

static void unwatch(client *c)
{
    tr_http *h = c->h;

    pthread_mutex_lock(&h->lock);
    *(c->previous ? &c->previous->next : &h->clients) = c->next;
    if (c->next)
        c->next->previous = c->previous;
    pthread_mutex_unlock(&h->lock);
}

static enum MHD_Result complete(client *c, tr_api_kind kind)
{
    const tr_exchange_host *host = c->h->o.host;
    char why[REASON] = "";
    tr_api_request r;

    tr_fail_capture_begin(why, sizeof why);
    tr_status st =
        tr_api_parse(&host->model, kind, (tr_bytes){ (const uint8_t *)c->body, c->n_body }, &r);
    if (st == TR_OK)
        st = tr_exchange_start(host, &r, wake, c, &c->x);
    tr_fail_capture_end();
    if (st != TR_OK)
        return reply_status(c, st, st == TR_E_BUSY ? "the queue is full: try again later" : why);
    watch(c);
    return tr_exchange_is_stream(c->x) ? reply_stream(c) : reply_whole(c);
}

static enum MHD_Result do_completions(client *c)
{
    return complete(c, TR_API_COMPLETION);
}

static enum MHD_Result do_chat(client *c)
{
    return complete(c, TR_API_CHAT);
}

/* ---- the other paths ---------------------------------------------------------------------------
 */

static tr_status tokenize(const tr_api_model *m, const json_t *body, json_t **out)
{
    const json_t *text = json_object_get(body, "content");
    const json_t *special = json_object_get(body, "parse_special");
    uint32_t *ids = NULL;
    size_t n = 0;

    if (!text)
        text = json_object_get(body, "prompt");
    if (!json_is_string(text))
        return tr_fail(TR_E_REQUEST, "content: must be a text");
    tr_bytes bytes = { (const uint8_t *)json_string_value(text), json_string_length(text) };
    tr_status st = tr_api_check_text(m, "content", bytes.size);
    if (st == TR_OK)
        st = tr_tokenizer_encode(m->tokenizer, bytes, json_is_true(special), &ids, &n);
    if (st != TR_OK)
        return st;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(ids[i]));
    free(ids);
    *out = json_pack("{s:o, s:I}", "tokens", list, "count", (json_int_t)n);
    return TR_OK;
}

static tr_status detokenize(const tr_api_model *m, const json_t *body, json_t **out)
{
    const json_t *list = json_object_get(body, "tokens");
    const tr_tokenizer *t = m->tokenizer;
    char *text = NULL;
    size_t size = 0, i;
    json_t *v;
    tr_status st = TR_OK;

    if (!json_is_array(list))
        return tr_fail(TR_E_REQUEST, "tokens: must be a list of token ids");
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return tr_fail(TR_E_MEMORY, "detokenize: no memory");
    json_array_foreach(list, i, v)
    {
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || (uint64_t)id >= tr_tokenizer_n_vocab(t)) {
            st = tr_fail(TR_E_REQUEST, "tokens[%zu]: must be an id below %zu", i,
                         tr_tokenizer_n_vocab(t));
            break;
        }
        tr_bytes piece = tr_tokenizer_piece(t, (uint32_t)id);
        fwrite(piece.data, 1, piece.size, f);
    }
    if (fclose(f) != 0 && st == TR_OK)
        st = tr_fail(TR_E_MEMORY, "detokenize: no memory");
    if (st == TR_OK)
        *out = json_pack("{s:o}", "content", tr_api_text((tr_bytes){ (uint8_t *)text, size }));
    free(text);
    return st;
}

static enum MHD_Result do_text(client *c, tr_status (*convert)(const tr_api_model *, const json_t *,
                                                               json_t **))
{
    char why[REASON] = "";
    json_t *body = NULL;
    json_t *out = NULL;

    tr_fail_capture_begin(why, sizeof why);
    tr_status st = tr_api_object((tr_bytes){ (const uint8_t *)c->body, c->n_body }, &body);
    if (st == TR_OK)
        st = convert(&c->h->o.host->model, body, &out);
    tr_fail_capture_end();
    json_decref(body);
    return st == TR_OK ? reply_json(c, MHD_HTTP_OK, out) : reply_status(c, st, why);
}

static enum MHD_Result do_tokenize(client *c)
{
    return do_text(c, tokenize);
}

static enum MHD_Result do_detokenize(client *c)
{
    return do_text(c, detokenize);
}

static enum MHD_Result do_models(client *c)
{
    const tr_api_model *m = &c->h->o.host->model;

    return reply_json(c, MHD_HTTP_OK,
                      json_pack("{s:s, s:[{s:s, s:s, s:I, s:s, s:I}]}", "object", "list", "data",
                                "id", m->name, "object", "model", "created", (json_int_t)0,
                                "owned_by", "troupe", "max_model_len", (json_int_t)m->context));
}

static enum MHD_Result do_health(client *c)
{
    unsigned http = MHD_HTTP_OK;
    json_t *o = tr_serve_state_health(c->h->o.state, c->h->o.host->serving, &http);

    return reply_json(c, http, o);
}

static enum MHD_Result do_cluster(client *c)
{
    return reply_json(c, MHD_HTTP_OK, tr_serve_state_cluster(c->h->o.state, c->h->o.host->serving));
}

static enum MHD_Result do_metrics(client *c)
{
    return reply_text(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                      tr_serve_state_metrics(c->h->o.state, c->h->o.host->serving));
}

static enum MHD_Result reply_file(client *c, const tr_web_file *f)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(f->size, (void *)(uintptr_t)f->data,
                                                             MHD_RESPMEM_PERSISTENT);

    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", f->type);
    harden(r);
    enum MHD_Result result = MHD_queue_response(c->connection, MHD_HTTP_OK, r);
    MHD_destroy_response(r);
    return result;
}

/* ---- who may ask what ---------------------------------------------------------------------------
 */

typedef struct route {
    const char *path, *method;
    enum MHD_Result (*serve)(client *c);
    bool is_open; /* without a key too */
} route;

/* Browsers ask for one; the page names none. */
static enum MHD_Result do_icon(client *c)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

    if (!r)
        return MHD_NO;
    harden(r);
    enum MHD_Result result = MHD_queue_response(c->connection, MHD_HTTP_NO_CONTENT, r);
    MHD_destroy_response(r);
    return result;
}

static const route routes[] = {
    { "/favicon.ico", MHD_HTTP_METHOD_GET, do_icon, true },
    { "/health", MHD_HTTP_METHOD_GET, do_health, true },
    { "/metrics", MHD_HTTP_METHOD_GET, do_metrics, false },
    { "/cluster", MHD_HTTP_METHOD_GET, do_cluster, false },
    { "/v1/models", MHD_HTTP_METHOD_GET, do_models, false },
    { "/v1/completions", MHD_HTTP_METHOD_POST, do_completions, false },
    { "/v1/chat/completions", MHD_HTTP_METHOD_POST, do_chat, false },
    { "/tokenize", MHD_HTTP_METHOD_POST, do_tokenize, false },
    { "/detokenize", MHD_HTTP_METHOD_POST, do_detokenize, false },
};

static const char *header(client *c, const char *name)
{
    return MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, name);
}

static bool equals(const char *name, size_t n, const char *other)
{
    return strlen(other) == n && strncasecmp(name, other, n) == 0;
}

/* An address, IPv6 in brackets: no other site can have such a name. */
static bool is_number(const char *name, size_t n)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr a;
    bool is_v6 = n > 2 && name[0] == '[' && name[n - 1] == ']';

    name += is_v6;
    n -= is_v6 ? 2 : 0;
    if (n >= sizeof text)
        return false;
    memcpy(text, name, n);
    text[n] = '\0';
    return inet_pton(is_v6 ? AF_INET6 : AF_INET, text, &a) == 1;
}

static bool is_in_list(const char *name, size_t n, const char *list)
{
    while (list && *list) {
        size_t size = strcspn(list, ",");
        if (size == n && strncasecmp(name, list, n) == 0)
            return true;
        list += size + (list[size] == ',');
    }
    return false;
}

/* The name of a Host header, with or without a port, is ours. */
static bool is_our_name(const tr_http *h, const char *host)
{
    size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");

    if (n == 0 || n > strlen(host) || (host[n] != '\0' && host[n] != ':'))
        return false;
    return is_number(host, n) || equals(host, n, "localhost") || equals(host, n, h->hostname) ||
           is_in_list(host, n, h->o.names);
}

/* A page of another site in a user's browser may not use a server that it could not reach itself:
 * neither under a name of its own that it lets resolve to this machine, nor across sites. */
static const refusal *find_foreign(client *c)
{
    static const refusal name = {
        MHD_HTTP_FORBIDDEN, "foreign_host",
        "Host: this server does not go by that name; use its address, or start it with --host-name"
    };
    static const refusal origin = { MHD_HTTP_FORBIDDEN, "foreign_origin",
                                    "requests from pages of other sites are refused" };
    const char *host = header(c, MHD_HTTP_HEADER_HOST);
    const char *from = header(c, MHD_HTTP_HEADER_ORIGIN);

    if (c->h->checks_names && host && !is_our_name(c->h, host))
        return &name;
    if (!from)
        return NULL;
    const char *rest = strstr(from, "://");
    return rest && host && strcasecmp(rest + 3, host) == 0 ? NULL : &origin;
}

static const refusal too_large = { MHD_HTTP_CONTENT_TOO_LARGE, "body_too_large",
                                   "the body is larger than this server takes" };

/* Sets the request's route, or says why it has none. */
static const refusal *find_route(client *c, const char *url, const char *method)
{
    static const refusal no_method = { MHD_HTTP_METHOD_NOT_ALLOWED, "method_not_allowed",
                                       "this path takes another method" };
    static const refusal no_key = { MHD_HTTP_UNAUTHORIZED, "invalid_api_key",
                                    "no API key, or a wrong one: send Authorization: Bearer KEY" };
    static const refusal no_path = { MHD_HTTP_NOT_FOUND, "not_found",
                                     "there is nothing at this path" };
    bool is_head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    const char *wanted = is_head ? MHD_HTTP_METHOD_GET : method;
    const tr_keys *keys = c->h->o.keys;
    tr_web_file f;

    if (strcmp(wanted, MHD_HTTP_METHOD_GET) == 0 && tr_web_find(url, &f))
        return NULL;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const route *r = &routes[i];
        if (strcmp(url, r->path) != 0)
            continue;
        c->route = r;
        if (strcmp(wanted, r->method) != 0)
            return &no_method;
        if (!r->is_open && keys && !tr_keys_allow(keys, header(c, MHD_HTTP_HEADER_AUTHORIZATION)))
            return &no_key;
        return NULL;
    }
    return &no_path;
}

static enum MHD_Result reply_refusal(client *c)
{
    return reply_error(c, c->refused->http, c->refused->code, c->refused->message);
}

static enum MHD_Result serve(client *c, const char *url)
{
    tr_web_file f;

    if (c->refused)
        return reply_refusal(c);
    if (c->route)
        return c->route->serve(c);
    return tr_web_find(url, &f) ? reply_file(c, &f) : MHD_NO;
}

/* ---- libmicrohttpd's callbacks ------------------------------------------------------------------
 */

static client *client_new(tr_http *h, struct MHD_Connection *connection)
{
    client *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->h = h;
    c->connection = connection;
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

/* The headers are there, the body is not.  Who waits for leave to send it hears at once that it is
 * not wanted; so does who would send without end. */
static enum MHD_Result begin(client *c, const char *url, const char *method)
{
    const char *length = header(c, MHD_HTTP_HEADER_CONTENT_LENGTH);
    uint64_t announced = length ? strtoull(length, NULL, 10) : 0;

    c->began = tr_now();
    c->refused = find_foreign(c);
    if (!c->refused)
        c->refused = find_route(c, url, method);
    if (!c->refused && announced > c->h->o.max_body)
        c->refused = &too_large;
    bool is_early = header(c, MHD_HTTP_HEADER_EXPECT) || announced > MAX_DROPPED;
    return c->refused && is_early ? reply_refusal(c) : MHD_YES;
}

static void drop_body(client *c)
{
    free(c->body);
    c->body = NULL;
    c->n_body = c->room = 0;
}

/* Part of a body.  False: the client is cut off. */
static bool take_body(client *c, const char *data, size_t size)
{
    c->received += size;
    tr_time may_take = (tr_time)(c->h->o.idle_seconds + c->received / LEAST_RATE) * TR_SECOND;
    if (tr_now() - c->began > may_take)
        return false;
    if (!c->refused && c->received > c->h->o.max_body) {
        c->refused = &too_large;
        drop_body(c);
    }
    if (c->refused)
        return c->received <= MAX_DROPPED;
    if (c->n_body + size > c->room) {
        size_t room = 2 * (c->n_body + size);
        char *larger = realloc(c->body, room);
        if (!larger)
            return false;
        c->body = larger;
        c->room = room;
    }
    memcpy(c->body + c->n_body, data, size);
    c->n_body += size;
    return true;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **request)
{
    client *c = *request;

    if (!c) {
        c = *request = client_new(ctx, connection);
        if (!c)
            return MHD_NO;
        c->is_http11 = strcmp(version, MHD_HTTP_VERSION_1_1) == 0;
        return begin(c, url, method);
    }
    if (*size > 0) {
        bool goes_on = take_body(c, data, *size);
        *size = 0;
        return goes_on ? MHD_YES : MHD_NO;
    }
    return c->x ? reply_whole(c) : serve(c, url);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode how)
{
    client *c = *request;

    (void)ctx;
    (void)connection;
    (void)how;
    if (!c)
        return;
    if (c->x) {
        unwatch(c);
        tr_exchange_close(&c->x);
    }
    pthread_mutex_destroy(&c->lock);
    free(c->body);
    free(c);
    *request = NULL;
}

/* ---- those who left -----------------------------------------------------------------------------
 */

static int socket_of(const client *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    return info ? info->connect_fd : -1;
}

/* A client that has ended its side may be gone, or have said all that it wanted to say: only what
 * it is sent tells, since one that is gone answers with a reset.  A stream gets a comment, a client
 * that waits for a whole answer an interim one.  False: it can't be asked. */
static bool probe(client *c)
{
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";

    if (tr_exchange_is_stream(c->x)) {
        tr_exchange_nudge(c->x);
        return true;
    }
    if (!c->is_http11 || c->h->o.cert)
        return false;
    pthread_mutex_lock(&c->lock);
    if (c->is_asleep) /* so nobody else sends */
        (void)send(socket_of(c), interim, sizeof interim - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    pthread_mutex_unlock(&c->lock);
    return true;
}

static void look_after(client *c)
{
    struct pollfd p = { .fd = socket_of(c), .events = POLLRDHUP };
    short seen = poll(&p, 1, 0) > 0 ? p.revents : 0;
    tr_time now = tr_now();

    if (seen & (POLLHUP | POLLERR)) {
        tr_exchange_cancel(c->x, "the client is gone");
    } else if (tr_exchange_is_behind(c->x)) {
        tr_exchange_cancel(c->x, "the client does not read what it is sent");
    } else if ((seen & POLLRDHUP) && now - c->probed >= probe_period) {
        c->probed = now;
        if (!probe(c))
            tr_exchange_cancel(c->x, "the client is gone");
    }
}

/* A sleeping connection is not looked at by the server: nobody else would notice that a client has
 * hung up before its answer comes. */
static void *watcher_main(void *ctx)
{
    tr_http *h = ctx;

    while (!atomic_load(&h->is_over)) {
        tr_sleep(watch_period);
        pthread_mutex_lock(&h->lock);
        for (client *c = h->clients; c; c = c->next)
            look_after(c);
        pthread_mutex_unlock(&h->lock);
    }
    return NULL;
}

/* ---- open and close
 * ------------------------------------------------------------------------------ */

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} address;

static tr_status address_read(const tr_http_options *o, address *out, bool *is_loopback)
{
    *out = (address){ 0 };
    if (inet_pton(AF_INET, o->address, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(o->port);
        *is_loopback = (ntohl(out->v4.sin_addr.s_addr) >> 24) == 127;
        return TR_OK;
    }
    if (inet_pton(AF_INET6, o->address, &out->v6.sin6_addr) == 1) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons(o->port);
        *is_loopback = IN6_IS_ADDR_LOOPBACK(&out->v6.sin6_addr);
        return TR_OK;
    }
    return tr_fail(TR_E_USAGE, "--host %s: must be an IPv4 or IPv6 address", o->address);
}

static tr_status start(tr_http *h)
{
    const tr_http_options *o = &h->o;
    bool is_loopback = false;
    address a;

    tr_status st = address_read(o, &a, &is_loopback);
    if (st != TR_OK)
        return st;
    /* Elsewhere a certificate or a key keeps pages of other sites out. */
    h->checks_names = is_loopback || (!o->keys && !o->cert);
    tr_host_name(h->hostname, sizeof h->hostname);
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    if (a.any.sa_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    if (o->cert)
        flags |= MHD_USE_TLS;
    struct MHD_OptionItem tls[] = {
        { MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)o->cert },
        { MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->key },
        { MHD_OPTION_END, 0, NULL },
    };
    if (!o->cert)
        tls[0].option = MHD_OPTION_END;
    errno = 0;
    h->daemon = MHD_start_daemon(
        flags, o->port, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, &a.any,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_CONNECTION_LIMIT,
        o->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, o->idle_seconds,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (!h->daemon && errno == 0)
        return tr_fail(TR_E_CONFIG, "the server does not start: is the certificate the key's?");
    if (!h->daemon)
        return tr_fail(TR_E_SYSTEM, "%s port %u: can't be listened on: %s", o->address, o->port,
                       strerror(errno));
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
    h->port = info ? info->port : o->port;
    if (pthread_create(&h->watcher, NULL, watcher_main, h) != 0)
        return tr_fail(TR_E_SYSTEM, "serve: no thread to be had");
    h->has_watcher = true;
    return TR_OK;
}

tr_status tr_http_open(const tr_http_options *o, tr_http **out)
{
    tr_http *h = calloc(1, sizeof *h);

    if (!h)
        return tr_fail(TR_E_MEMORY, "serve: no memory");
    h->o = *o;
    h->listening = -1;
    atomic_init(&h->is_over, false);
    pthread_mutex_init(&h->lock, NULL);
    tr_status st = start(h);
    if (st != TR_OK) {
        tr_http_close(&h);
        return st;
    }
    *out = h;
    return TR_OK;
}

uint16_t tr_http_port(const tr_http *h)
{
    return h->port;
}

void tr_http_quiesce(tr_http *h)
{
    h->listening = MHD_quiesce_daemon(h->daemon);
    if (h->listening >= 0) /* its thread may still have it in hand: it is closed behind it */
        shutdown(h->listening, SHUT_RDWR);
}

static bool has_clients(tr_http *h)
{
    pthread_mutex_lock(&h->lock);
    bool has = h->clients != NULL;
    pthread_mutex_unlock(&h->lock);
    return has;
}

void tr_http_close(tr_http **http)
{
    tr_http *h = *http;

    if (!h)
        return;
    /* Answers are whole, but the last bytes may still be on their way to slow readers. */
    tr_time until = tr_deadline_after(tr_now(), flush_patience);
    while (has_clients(h) && tr_now() < until)
        tr_sleep(5 * TR_MS);
    atomic_store(&h->is_over, true);
    if (h->has_watcher)
        pthread_join(h->watcher, NULL);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    if (h->listening >= 0)
        close(h->listening);
    pthread_mutex_destroy(&h->lock);
    free(h);
    *http = NULL;
}
