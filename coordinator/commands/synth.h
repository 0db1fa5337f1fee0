/* synth.h - `troupe synth`: a model of a known shape with random weights.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_SYNTH_H
#define TR_COORDINATOR_COMMANDS_SYNTH_H

#include "base/status.h"

/* argv[0] is "synth". */
tr_status tr_command_synth(int argc, char **argv);

#endif
