/* log.h - one line to stderr for people.
 *
 * USE     tr_log_init("worker 2", TR_LOG_INFO);
 *         tr_log(TR_LOG_INFO, "loaded %zu experts", n);    worker 2: loaded 32 experts
 *
 * Standard output belongs to the generated text; everything else comes through here.
 * A line is one write(2), so lines of several processes don't mix.  Control bytes
 * (newlines, escape sequences from a hostile file) are replaced by '?'.
 * THREAD  Any thread after init.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_LOG_H
#define TR_BASE_LOG_H

typedef enum {
    TR_LOG_DEBUG,
    TR_LOG_INFO,
    TR_LOG_WARN,
    TR_LOG_ERROR,
} tr_log_level;

/* name stands before each line (copied, at most 31 bytes); lines below level are dropped.
 * Without init the name is "troupe" and the level TR_LOG_INFO. */
void tr_log_init(const char *name, tr_log_level level);

void tr_log_set_level(tr_log_level level);

void tr_log(tr_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
