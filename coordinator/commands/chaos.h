/* chaos.h - `troupe chaos`: clusters under faults, each held against the run without.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_CHAOS_H
#define TR_COORDINATOR_COMMANDS_CHAOS_H

#include "base/status.h"
#include "transport/sim.h"

/* argv[0] is "chaos"; worker is what the workers of a simulated cluster run. */
tr_status tr_command_chaos(int argc, char **argv, tr_sim_main worker);

#endif
