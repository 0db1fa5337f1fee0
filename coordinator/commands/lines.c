/* lines.c - libedit or getline, and the rules of long messages.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/lines.h"

#include "base/interrupt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <editline/readline.h>

static const char block_mark[] = "\"\"\"";

/* A line without its end; NULL at the end of the input, or for an error (errno). */
static char *read_line(const char *prompt, bool shows_prompt)
{
    char *line = NULL;
    size_t room = 0;

    if (isatty(STDIN_FILENO)) {
        line = readline(prompt);
        errno = 0; /* it says nothing of why there is none: the end */
        if (line && *line)
            add_history(line);
        return line;
    }
    if (shows_prompt) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    errno = 0;
    ssize_t n = getline(&line, &room, stdin);
    if (n < 0) {
        free(line);
        return NULL;
    }
    if (n > 0 && line[n - 1] == '\n')
        line[n - 1] = '\0';
    return line;
}

static tr_status append(char **message, size_t *size, const char *line, size_t n)
{
    if (*size + n + 2 > TR_LINES_MAX_SIZE)
        return tr_fail(TR_E_REQUEST, "a message of more than %d bytes", TR_LINES_MAX_SIZE);
    char *longer = realloc(*message, *size + n + 2);
    if (!longer)
        return tr_fail(TR_E_MEMORY, "message: no memory");
    memcpy(longer + *size, line, n);
    *message = longer;
    *size += n;
    longer[*size] = '\0';
    return TR_OK;
}

static tr_status input_error(void)
{
    if (tr_interrupted() || errno == EINTR)
        return TR_E_INTERRUPTED;
    return errno ? tr_fail(TR_E_IO, "standard input: %s", strerror(errno)) : TR_OK;
}

tr_status tr_lines_read(const char *prompt, bool shows_prompt, char **message)
{
    size_t size = 0;
    bool in_block = false, goes_on = true;
    tr_status st = TR_OK;

    *message = NULL;
    while (goes_on && st == TR_OK) {
        char *line = read_line(size || in_block ? ". " : prompt, shows_prompt);
        if (!line) {
            st = input_error();
            break;
        }
        size_t n = strlen(line);
        if (strcmp(line, block_mark) == 0) {
            goes_on = in_block = !in_block;
            n = 0;
        } else if (in_block) {
            line[n++] = '\n'; /* over the final zero: append takes n bytes */
        } else {
            goes_on = n > 0 && line[n - 1] == '\\';
            if (goes_on)
                line[n - 1] = '\n';
        }
        st = append(message, &size, line, n);
        free(line);
    }
    if (st != TR_OK) {
        free(*message);
        *message = NULL;
    }
    return st;
}
