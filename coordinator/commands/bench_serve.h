/* bench_serve.h - `troupe bench --serve`: what many users would see.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_BENCH_SERVE_H
#define TR_COORDINATOR_COMMANDS_BENCH_SERVE_H

#include "base/status.h"

/* argv[0] is "bench", argv[1] "--serve". */
tr_status tr_command_bench_serve(int argc, char **argv);

#endif
