/* progress.c - one line on stderr, drawn over itself.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include <stdio.h>
#include <unistd.h>

enum { WIDTH = 30 };

void tr_progress_begin(tr_progress *p, const char *what, uint64_t total, bool is_shown)
{
    *p = (tr_progress){ what, total, is_shown, tr_now(), 0 };
}

static void draw(const char *text, int n)
{
    /* A bar that can't be drawn is no error. */
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        return;
}

void tr_progress_show(tr_progress *p, uint64_t done)
{
    tr_time now = tr_now();
    char bar[WIDTH + 1];
    char line[160];

    if (!p->is_shown || p->total == 0 || now - p->last < 100 * TR_MS)
        return;
    p->last = now;
    double part = done < p->total ? (double)done / (double)p->total : 1.0;
    double seconds = (double)(now - p->begin) / (double)TR_SECOND;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < (int)(part * WIDTH) ? '#' : '.';
    bar[WIDTH] = '\0';
    int n =
        snprintf(line, sizeof line, "\r%s [%s] %3.0f %%  %.2f of %.2f GB  %.1f s\033[K", p->what,
                 bar, 100.0 * part, (double)done * 1e-9, (double)p->total * 1e-9, seconds);
    draw(line, n);
}

void tr_progress_end(tr_progress *p)
{
    if (p->is_shown && p->last != 0)
        draw("\r\033[K", 4);
    p->is_shown = false;
}
