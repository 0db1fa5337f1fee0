/* run.h - `troupe run`: one prompt in, one answer out; and `troupe eval`, which takes the same way
 * up to a model that is ready (eval.h is what follows).
 *
 * Without workers the process does all itself; under mpirun rank 0 is the coordinator of the other
 * ranks; with -w or --cluster the process composes that mpirun line, runs it and hands its
 * result on (cluster/launch.h).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_RUN_H
#define TR_COORDINATOR_COMMANDS_RUN_H

#include "base/status.h"

/* argv[0] is "run" or "eval". */
tr_status tr_command_run(int argc, char **argv);

#endif
