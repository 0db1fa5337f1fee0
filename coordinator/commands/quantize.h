/* quantize.h - `troupe quantize`: a model file with its matrices in other types.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_QUANTIZE_H
#define TR_COORDINATOR_COMMANDS_QUANTIZE_H

#include "base/status.h"

/* argv[0] is "quantize". */
tr_status tr_command_quantize(int argc, char **argv);

#endif
