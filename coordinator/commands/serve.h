/* serve.h - `troupe serve`: many users over HTTP.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_SERVE_H
#define TR_COORDINATOR_COMMANDS_SERVE_H

#include "base/status.h"

/* argv[0] is "serve". */
tr_status tr_command_serve(int argc, char **argv);

#endif
