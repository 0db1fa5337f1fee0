/* convert.h - `troupe convert`: a Hugging Face directory as a GGUF file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_CONVERT_H
#define TR_COORDINATOR_COMMANDS_CONVERT_H

#include "base/status.h"

/* argv[0] is "convert". */
tr_status tr_command_convert(int argc, char **argv);

#endif
