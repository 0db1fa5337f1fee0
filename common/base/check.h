/* check.h - assertions that stay on: a bug of ours stops the process at once.
 *
 * TR_CHECK is for what can only be false if the code is wrong.  What a file, a user or
 * a peer can cause is a tr_status (status.h), never a check.  Write conditions
 * one by one, TR_CHECK(a); TR_CHECK(b);, so that the message names the false one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_CHECK_H
#define TR_BASE_CHECK_H

_Noreturn void tr_check_failed(const char *file, int line, const char *expression);

#define TR_CHECK(expression)                                                                       \
    do {                                                                                           \
        if (!(expression))                                                                         \
            tr_check_failed(__FILE__, __LINE__, #expression);                                      \
    } while (0)

#endif
