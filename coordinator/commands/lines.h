/* lines.h - what a person types, message by message.
 *
 * A message is a line; a line that ends with \ goes on in the next; between two lines of """ stands
 * one of many lines.  On a terminal lines can be edited, and the arrow keys bring earlier ones back
 * (libedit); elsewhere they are read as they come.
 *
 * USE     st = tr_lines_read("> ", shows_prompt, &message);      free(message)
 *         message is NULL at the end of the input
 * FAILS   TR_E_IO, TR_E_MEMORY, TR_E_INTERRUPTED
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_LINES_H
#define TR_COORDINATOR_COMMANDS_LINES_H

#include "base/status.h"

#include <stdbool.h>

enum { TR_LINES_MAX_SIZE = 1 << 20 }; /* bytes of a message */

/* shows_prompt: show it on standard output although that is done by nobody else, since standard
 * input is no terminal. */
tr_status tr_lines_read(const char *prompt, bool shows_prompt, char **message);

#endif
