/* status.h - how a function says that it failed.
 *
 * USE     if (fd < 0)
 *             return tr_fail(TR_E_IO, "model %s: open: %s", path, strerror(errno));
 *         ...
 *         tr_status st = tr_gguf_open(path, &g);
 *         if (st != TR_OK)
 *             return st;                 the cause has been said already
 *
 * The first place that knows the cause says it, once, with the facts: what, where
 * and what to do.  Everyone above hands the code up unchanged.  Results are
 * out-parameters, written only on TR_OK.
 *
 * Codes are grouped by what is lost, so that recovery is a range test.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_STATUS_H
#define TR_BASE_STATUS_H

typedef enum {
    TR_OK = 0,

    /* The request is lost: answer the client, go on. */
    TR_E_USAGE = -1,   /* an option is unknown, missing or out of range */
    TR_E_REQUEST = -2, /* prompt too long, invalid UTF-8, ... */
    TR_E_BUSY = -3,    /* a queue is full: try again later */

    /* A peer is lost: drop it and send its shares elsewhere. */
    TR_E_PEER_LOST = -20,
    TR_E_DEADLINE = -21, /* it did not answer in time */
    TR_E_PROTOCOL = -22, /* it sent what the protocol forbids */
    TR_E_REFUSED = -23,  /* another version, another model, a wrong key */

    /* The process is lost: stop cleanly. */
    TR_E_IO = -40,          /* a file or stream can't be read or written */
    TR_E_FORMAT = -41,      /* a model file is malformed */
    TR_E_UNSUPPORTED = -42, /* a model file is sound, but needs what we don't have */
    TR_E_CONFIG = -43,      /* a configuration file is wrong */
    TR_E_MEMORY = -44,
    TR_E_SYSTEM = -45,      /* a system call or library failed without a better name */
    TR_E_INTERRUPTED = -46, /* SIGINT, SIGTERM or SIGHUP */
} tr_status;

typedef enum {
    TR_SCOPE_NONE,
    TR_SCOPE_REQUEST,
    TR_SCOPE_PEER,
    TR_SCOPE_PROCESS,
} tr_scope;

tr_scope tr_status_scope(tr_status st);

/* A short constant name such as "peer lost"; "unknown status" for any other value. */
const char *tr_status_name(tr_status st);

/* The exit status of a program that ends with st: 0 success, 2 usage or configuration,
 * 3 model file, 4 request, 5 cluster (a peer was lost or refused), 6 input or output,
 * 7 memory or system, 130 interrupted. */
int tr_status_exit_code(tr_status st);

/* Log one error line and return st, so that both are one expression. */
tr_status tr_fail(tr_status st, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As tr_fail, but the line is kept instead of printed: between begin and end every
 * tr_fail of this thread writes into the given buffer (the last one wins).  For callers
 * that hand the reason to a peer or try several things.  Pairs nest up to 8 deep; the innermost
 * buffer is written. */
void tr_fail_capture_begin(char *buffer, unsigned long size);
void tr_fail_capture_end(void);

#endif
