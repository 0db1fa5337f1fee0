/* replacement.h - start processes that take the places of lost workers.
 *
 * USE     st = tr_replacement_new(command, n_workers, &r);
 *         st = tr_replacement_start(r, worker, invitation);   its command gets it on standard input
 *         if (tr_replacement_has_ended(r, worker)) ...
 *         tr_replacement_free(&r);        who has not ended soon is killed, and waited for a moment
 *
 * The invitation holds secrets: it goes through a pipe and into no file.
 *
 * THREAD  One.
 * FAILS   TR_E_SYSTEM  the command can't be run
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_REPLACEMENT_H
#define TR_COORDINATOR_CLUSTER_REPLACEMENT_H

#include "base/bytes.h"
#include "base/status.h"

typedef struct tr_replacement tr_replacement;

/* command: words separated by blanks, without quoting, the first as execvp finds it; "auto": the
 * troupe-worker beside this program, with --join -. */
tr_status tr_replacement_new(const char *command, uint32_t n_workers, tr_replacement **out);
void tr_replacement_free(tr_replacement **r);

/* What an option or a file says as a command: NULL is auto, and none is NULL.  *is_here: the
 * command starts a process on this machine. */
const char *tr_replacement_choice(const char *given, bool *is_here);

tr_status tr_replacement_start(tr_replacement *r, uint32_t worker, tr_bytes invitation);

/* The process that was started last for a worker has ended; true if there is none. */
bool tr_replacement_has_ended(tr_replacement *r, uint32_t worker);

#endif
