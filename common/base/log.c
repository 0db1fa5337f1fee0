/* log.c - format a line, clean it, write it at once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char log_name[32] = "troupe";
static tr_log_level log_level = TR_LOG_INFO;

void tr_log_init(const char *name, tr_log_level level)
{
    snprintf(log_name, sizeof log_name, "%s", name);
    log_level = level;
}

void tr_log_set_level(tr_log_level level)
{
    log_level = level;
}

static void clean(char *line, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)line[i];
        if (c < 0x20 || c == 0x7f)
            line[i] = c == '\t' ? ' ' : '?';
    }
}

void tr_log(tr_log_level level, const char *format, ...)
{
    static const char *const word[] = { "debug: ", "", "warning: ", "error: " };
    char line[1200];
    va_list args;

    if (level < log_level)
        return;

    int saved = errno;
    int n = snprintf(line, sizeof line - 1, "%s: %s", log_name, word[level]);
    size_t used = n > 0 ? (size_t)n : 0;
    va_start(args, format);
    n = vsnprintf(line + used, sizeof line - 1 - used, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n;
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    clean(line, used);
    line[used++] = '\n';
    for (size_t done = 0; done < used;) {
        ssize_t w = write(STDERR_FILENO, line + done, used - done);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            break; /* nobody listens: there is no better place to say so */
        done += (size_t)w;
    }
    errno = saved;
}
