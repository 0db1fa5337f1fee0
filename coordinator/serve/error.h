/* error.h - a status as the OpenAI interface says it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_ERROR_H
#define TR_COORDINATOR_SERVE_ERROR_H

#include "base/status.h"

#include <jansson.h>

/* 400 for a request that is wrong, 404 for another model, 429 for a full queue, 503 while the
 * cluster can't serve, 500 for the rest. */
unsigned tr_serve_error_http(tr_status st);

/* {"error": {"message", "type", "code", "param"}}; a new reference. */
json_t *tr_serve_error_json(tr_status st, const char *message);

/* The same for a request that was cancelled, which is not the server's stopping. */
json_t *tr_serve_cancelled_json(const char *why);

#endif
