/* exchange.h - one completion: its answers as they are made, and what goes to the client.
 *
 * Between two threads: the engine's adds tokens, the server's takes bytes.  It lives until both let
 * go of it.  Until it is closed a third may look after it: cancel, is_behind, nudge.
 *
 * USE     st = tr_exchange_start(&host, &request, wake, ctx, &x);     takes the request
 *         tr_exchange_read(x, buffer, size, &ended)       a stream's next bytes
 *         text = tr_exchange_reply(x, &status)            or, once done, the whole answer
 *         tr_exchange_close(&x);                          cancels what still runs
 *
 * Each choice draws from a random stream of its own, numbered by its index: with the same seed the
 * first is what `troupe run` writes.
 *
 * FAILS   start  TR_E_BUSY         all places are taken, without a line; nothing was started
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

/* What still runs ends, and the client is told why, a constant text, if it is still there.  Only
 * the first call counts. */
void tr_exchange_cancel(tr_exchange *x, const char *why);

bool tr_exchange_is_stream(const tr_exchange *x);

/* True for a stream of which so much has not been read that it should be cancelled. */
bool tr_exchange_is_behind(tr_exchange *x);

/* A comment into a stream of which all has been read: a client that is there passes it over, and
 * sending it to one that is not shows that. */
void tr_exchange_nudge(tr_exchange *x);

/* Bytes of the event stream into buffer; 0 if there are none yet.  *ended: nor will there be.
 * If there are none and it is not over, the next ones will wake. */
size_t tr_exchange_read(tr_exchange *x, char *buffer, size_t size, bool *ended);

/* True once every choice has ended; if not, its end will wake. */
bool tr_exchange_is_done(tr_exchange *x);

/* The whole answer as JSON, for free(), and its HTTP status; NULL for want of memory.  Once it is
 * done. */
char *tr_exchange_reply(tr_exchange *x, unsigned *status);

#endif
