/* bench.h - `troupe bench`: speed beside the limits of the machine, measured in the same run.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_BENCH_H
#define TR_COORDINATOR_COMMANDS_BENCH_H

#include "base/status.h"

/* argv[0] is "bench". */
tr_status tr_command_bench(int argc, char **argv);

#endif
