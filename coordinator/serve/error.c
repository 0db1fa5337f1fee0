/* error.c - one table.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/error.h"

#include <stddef.h>

typedef struct {
    tr_status st;
    unsigned http;
    const char *type, *code;
} row;

static const row rows[] = {
    { TR_E_REQUEST, 400, "invalid_request_error", "invalid_value" },
    { TR_E_UNSUPPORTED, 404, "invalid_request_error", "model_not_found" },
    { TR_E_BUSY, 429, "rate_limit_error", "queue_full" },
    { TR_E_PEER_LOST, 503, "service_unavailable_error", "worker_lost" },
    { TR_E_DEADLINE, 503, "service_unavailable_error", "worker_late" },
    { TR_E_INTERRUPTED, 503, "service_unavailable_error", "stopping" },
    { TR_E_MEMORY, 503, "service_unavailable_error", "out_of_memory" },
};

static const row *row_of(tr_status st)
{
    static const row other = { TR_OK, 500, "server_error", "internal_error" };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].st == st)
            return &rows[i];
    return &other;
}

unsigned tr_serve_error_http(tr_status st)
{
    return row_of(st)->http;
}

static json_t *to_json(const row *r, const char *message)
{
    return json_pack("{s:{s:s, s:s, s:s, s:n}}", "error", "message", message, "type", r->type,
                     "code", r->code, "param");
}

json_t *tr_serve_error_json(tr_status st, const char *message)
{
    return to_json(row_of(st), message);
}

json_t *tr_serve_cancelled_json(const char *why)
{
    static const row cancelled = { TR_E_INTERRUPTED, 503, "invalid_request_error", "cancelled" };

    return to_json(&cancelled, why);
}
