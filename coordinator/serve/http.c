/* http.c - libmicrohttpd's callbacks.
 *
 * A connection sleeps (MHD_suspend_connection) while it has nothing to send.  Falling asleep and
 * being woken happen on different threads: `woken` keeps a call that came too early.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/http.h"

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
    PATIENCE = 4, /* times max_body that a client may send before it is cut off */
};

static const tr_time watch_period = 50 * TR_MS;

/* How long closing waits for what clients have not taken yet. */
static const tr_time flush_patience = 2 * TR_SECOND;

/* One request on a connection. */
typedef struct client {
    tr_http *h;
    struct MHD_Connection *connection;
    char *body;
    size_t n_body, room, received;
    tr_exchange *x;

    pthread_mutex_t lock;
    bool is_asleep, is_woken;
    struct client *previous, *next; /* of those with an exchange */
} client;

struct tr_http {
    tr_http_options o;
    struct MHD_Daemon *daemon;
    uint16_t port;
    bool is_loopback;
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

typedef struct {
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

/* The name in a Host header is one of this machine's own for itself. */
static bool names_loopback(const char *host)
{
    static const char *const names[] = { "localhost", "127.0.0.1", "[::1]" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(host, names[i], n) == 0 && (host[n] == '\0' || host[n] == ':'))
            return true;
    }
    return false;
}

/* A page of another site in a user's browser may not use a server that only this machine reaches:
 * neither under its own name (a name that resolves to loopback) nor across sites. */
static bool is_foreign(client *c)
{
    const char *host = header(c, MHD_HTTP_HEADER_HOST);
    const char *origin = header(c, MHD_HTTP_HEADER_ORIGIN);

    if (c->h->is_loopback && host && !names_loopback(host))
        return true;
    if (!origin)
        return false;
    const char *rest = strstr(origin, "://");
    return !rest || !host || strcasecmp(rest + 3, host) != 0;
}

static enum MHD_Result serve(client *c, const char *url, const char *method)
{
    bool is_head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    const char *wanted = is_head ? MHD_HTTP_METHOD_GET : method;
    tr_web_file f;

    if (is_foreign(c))
        return reply_error(c, MHD_HTTP_FORBIDDEN, "foreign_origin",
                           "requests from pages of other sites are refused");
    if (c->received > c->h->o.max_body)
        return reply_error(c, MHD_HTTP_CONTENT_TOO_LARGE, "body_too_large",
                           "the body is larger than this server takes");
    if (strcmp(wanted, MHD_HTTP_METHOD_GET) == 0 && tr_web_find(url, &f))
        return reply_file(c, &f);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const route *r = &routes[i];
        if (strcmp(url, r->path) != 0)
            continue;
        if (strcmp(wanted, r->method) != 0)
            return reply_error(c, MHD_HTTP_METHOD_NOT_ALLOWED, "method_not_allowed",
                               "this path takes another method");
        if (!r->is_open && c->h->o.keys &&
            !tr_keys_allow(c->h->o.keys, header(c, MHD_HTTP_HEADER_AUTHORIZATION)))
            return reply_error(c, MHD_HTTP_UNAUTHORIZED, "invalid_api_key",
                               "no API key, or a wrong one: send Authorization: Bearer KEY");
        return r->serve(c);
    }
    return reply_error(c, MHD_HTTP_NOT_FOUND, "not_found", "there is nothing at this path");
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

/* Part of a body; what is beyond the limit is counted and dropped. */
static bool take_body(client *c, const char *data, size_t size)
{
    c->received += size;
    if (c->received > c->h->o.max_body)
        return c->received / PATIENCE <= c->h->o.max_body;
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

    (void)version;
    if (!c) {
        *request = client_new(ctx, connection);
        return *request ? MHD_YES : MHD_NO;
    }
    if (*size > 0) {
        bool goes_on = take_body(c, data, *size);
        *size = 0;
        return goes_on ? MHD_YES : MHD_NO;
    }
    return c->x ? reply_whole(c) : serve(c, url, method);
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

static bool is_gone(const client *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct pollfd p = { .fd = info ? info->connect_fd : -1, .events = POLLRDHUP };

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
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
            if (is_gone(c))
                tr_exchange_cancel(c->x);
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
    address a;

    tr_status st = address_read(o, &a, &h->is_loopback);
    if (st != TR_OK)
        return st;
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
    MHD_socket fd = MHD_quiesce_daemon(h->daemon);

    if (fd != MHD_INVALID_SOCKET)
        close(fd);
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
    pthread_mutex_destroy(&h->lock);
    free(h);
    *http = NULL;
}
