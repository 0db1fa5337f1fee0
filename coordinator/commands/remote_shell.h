/* remote_shell.h - troupe remote-shell PROGRAM [ARGUMENT...]: what mpirun starts its daemons with.
 *
 * mpirun 4.x takes the end of a remote shell for a daemon that did not start, and ends the job; but
 * a host that dies ends its shell too.  So once all processes of the job are up, the shell's end is
 * hidden from mpirun; before, its status is handed on.  Composed by launch_line, not for users.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_REMOTE_SHELL_H
#define TR_COORDINATOR_COMMANDS_REMOTE_SHELL_H

#include "base/status.h"

tr_status tr_command_remote_shell(int argc, char **argv);

#endif
