/* exchange.h - one completion: its answers as they are made, and what goes to the client.
 *
 * Between two threads: the engine's adds tokens, the server's takes bytes.  It lives until both let
 * go of it.
 *
 * USE     st = tr_exchange_start(&host, &request, wake, ctx, &x);     takes the request
 *         tr_exchange_read(x, buffer, size, &ended)       a stream's next bytes
 *         text = tr_exchange_reply(x, &status)            or, once done, the whole answer
 *         tr_exchange_close(&x);                          cancels what still runs
 *
 * Each choice draws from a random stream of its own, numbered by its index: with the same seed the
 * first is what `troupe run` writes.
 *
 * FAILS   start  TR_E_BUSY         the queue is full, without a line; nothing was started
 *                TR_E_INTERRUPTED  the server is stopping
 *                TR_E_REQUEST      as tr_serving_submit; a stop string that can't be one; a schema
 *                                  that can't be held (schema.h)
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_EXCHANGE_H
#define TR_COORDINATOR_SERVE_EXCHANGE_H

#include "coordinator/engine/serving.h"
#include "coordinator/serve/api.h"
#include "coordinator/text/guide.h"

typedef struct tr_exchange tr_exchange;

/* What all exchanges share; outlives them. */
typedef struct {
    tr_api_model model;
    tr_serving *serving;
    const tr_guide_vocab *vocab; /* for answers that are held to a schema */
} tr_exchange_host;

/* Takes what *r holds, whatever comes of it.  wake is called by the engine's thread when there is
 * something to read, or to reply: it must not block, and must not call back into the exchange. */
tr_status tr_exchange_start(const tr_exchange_host *host, tr_api_request *r,
                            void (*wake)(void *ctx), void *ctx, tr_exchange **out);
void tr_exchange_close(tr_exchange **x);

/* The client is gone: what still runs ends, and says so as any end does. */
void tr_exchange_cancel(tr_exchange *x);

bool tr_exchange_is_stream(const tr_exchange *x);

/* Bytes of the event stream into buffer; 0 if there are none yet.  *ended: nor will there be.
 * If there are none and it is not over, the next ones will wake. */
size_t tr_exchange_read(tr_exchange *x, char *buffer, size_t size, bool *ended);

/* True once every choice has ended; if not, its end will wake. */
bool tr_exchange_is_done(tr_exchange *x);

/* The whole answer as JSON, for free(), and its HTTP status; NULL for want of memory.  Once it is
 * done. */
char *tr_exchange_reply(tr_exchange *x, unsigned *status);

#endif
