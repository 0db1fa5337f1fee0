/* inspect.h - `troupe inspect`: what a model file holds.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_INSPECT_H
#define TR_COORDINATOR_COMMANDS_INSPECT_H

#include "base/status.h"

/* argv[0] is "inspect". */
tr_status tr_command_inspect(int argc, char **argv);

#endif
