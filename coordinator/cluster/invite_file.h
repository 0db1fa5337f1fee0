/* invite_file.h - invitations for workers that no launcher of ours starts: DIR/worker-N.invite.
 *
 * USE     st = tr_invite_file_write(dir, worker, frame);     readable by this user only
 *         ... somebody carries it to the worker, as secretly as a private key ...
 *         tr_invite_file_remove(dir, worker);
 *
 * FAILS   TR_E_IO  the file can't be written
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_INVITE_FILE_H
#define TR_COORDINATOR_CLUSTER_INVITE_FILE_H

#include "base/bytes.h"
#include "base/status.h"

/* Takes the place of a file of that name, whole or not at all. */
tr_status tr_invite_file_write(const char *dir, uint32_t worker, tr_bytes frame);

/* Says nothing if there is none. */
void tr_invite_file_remove(const char *dir, uint32_t worker);

#endif
