/* status.c - status codes, their names, and the one place that prints a failure.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"
#include "base/check.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

enum { MAX_CAPTURES = 8 };

typedef struct {
    char *buffer;
    unsigned long size;
} capture;

static _Thread_local capture captures[MAX_CAPTURES];
static _Thread_local unsigned n_captures;

tr_scope tr_status_scope(tr_status st)
{
    if (st >= 0)
        return TR_SCOPE_NONE;
    if (st > -20)
        return TR_SCOPE_REQUEST;
    if (st > -40)
        return TR_SCOPE_PEER;
    return TR_SCOPE_PROCESS;
}

const char *tr_status_name(tr_status st)
{
    switch (st) {
    case TR_OK:
        return "ok";
    case TR_E_USAGE:
        return "usage";
    case TR_E_REQUEST:
        return "bad request";
    case TR_E_BUSY:
        return "busy";
    case TR_E_PEER_LOST:
        return "peer lost";
    case TR_E_DEADLINE:
        return "deadline passed";
    case TR_E_PROTOCOL:
        return "protocol violated";
    case TR_E_REFUSED:
        return "refused";
    case TR_E_IO:
        return "input or output";
    case TR_E_FORMAT:
        return "malformed file";
    case TR_E_UNSUPPORTED:
        return "unsupported";
    case TR_E_CONFIG:
        return "configuration";
    case TR_E_MEMORY:
        return "out of memory";
    case TR_E_SYSTEM:
        return "system";
    case TR_E_INTERRUPTED:
        return "interrupted";
    }
    return "unknown status";
}

int tr_status_exit_code(tr_status st)
{
    switch (st) {
    case TR_OK:
        return 0;
    case TR_E_USAGE:
    case TR_E_CONFIG:
        return 2;
    case TR_E_FORMAT:
    case TR_E_UNSUPPORTED:
        return 3;
    case TR_E_REQUEST:
    case TR_E_BUSY:
        return 4;
    case TR_E_PEER_LOST:
    case TR_E_DEADLINE:
    case TR_E_PROTOCOL:
    case TR_E_REFUSED:
        return 5;
    case TR_E_IO:
        return 6;
    case TR_E_INTERRUPTED:
        return 130;
    case TR_E_MEMORY:
    case TR_E_SYSTEM:
        return 7;
    }
    return 7;
}

tr_status tr_fail(tr_status st, const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n_captures > 0)
        snprintf(captures[n_captures - 1].buffer, captures[n_captures - 1].size, "%s", line);
    else
        tr_log(TR_LOG_ERROR, "%s", line);
    return st;
}

void tr_fail_capture_begin(char *buffer, unsigned long size)
{
    TR_CHECK(n_captures < MAX_CAPTURES);
    captures[n_captures++] = (capture){ buffer, size };
    if (size > 0)
        buffer[0] = '\0';
}

void tr_fail_capture_end(void)
{
    TR_CHECK(n_captures > 0);
    n_captures--;
}
