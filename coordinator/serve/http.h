/* http.h - the server: connections, who may ask, which path does what.
 *
 *   GET  /                     the page (web/)
 *   GET  /health               {"status", "reason"}; 503 unless ready
 *   GET  /metrics              for Prometheus
 *   GET  /cluster              members, placement, load
 *   GET  /v1/models
 *   POST /v1/completions, /v1/chat/completions, /tokenize, /detokenize
 *
 * One thread of libmicrohttpd takes all connections.  A connection that waits for tokens sleeps,
 * and is woken by the engine's thread; another thread looks whether those who wait are still there.
 *
 * USE     st = tr_http_open(&options, &h);
 *         port = tr_http_port(h);
 *         tr_http_close(&h);        after tr_serving_run has ended: everybody has been answered
 *
 * FAILS   TR_E_SYSTEM  the port is taken, or can't be listened on
 *         TR_E_CONFIG  the certificate or its key is no good
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_HTTP_H
#define TR_COORDINATOR_SERVE_HTTP_H

#include "coordinator/serve/exchange.h"
#include "coordinator/serve/keys.h"
#include "coordinator/serve/state.h"

typedef struct tr_http tr_http;

/* On loopback, and elsewhere without keys and TLS, requests must name the server (Host) by an
 * address, as localhost, by this machine's name, or by one of names. */

typedef struct {
    const char *address;    /* to listen on: a number, IPv4 or IPv6 */
    uint16_t port;          /* 0: any that is free */
    const char *cert, *key; /* PEM texts; NULL: no TLS */
    const char *names;      /* of this server in URLs, separated by commas; NULL: see below */
    const tr_keys *keys;    /* NULL: everybody may ask */
    size_t max_body;        /* bytes */
    unsigned max_connections;
    unsigned idle_seconds; /* a client that neither sends nor takes anything is cut off */
    const tr_exchange_host *host;
    tr_serve_state *state;
} tr_http_options;

tr_status tr_http_open(const tr_http_options *o, tr_http **out);
uint16_t tr_http_port(const tr_http *h);

/* Take no new connections; those that are there are served on. */
void tr_http_quiesce(tr_http *h);
void tr_http_close(tr_http **h);

#endif
