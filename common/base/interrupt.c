/* interrupt.c - a handler that does nothing but set a flag.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t is_interrupted, is_asked, is_deferred;

static void handle(int signal_number)
{
    if (is_deferred && !is_asked) {
        is_asked = 1;
        return;
    }
    is_interrupted = 1;
    if (is_deferred)
        signal(signal_number, SIG_DFL);
}

static void watch(int flags)
{
    struct sigaction now, action = { .sa_handler = handle, .sa_flags = flags };

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler != SIG_IGN) /* nohup */
        sigaction(SIGHUP, &action, NULL);
}

void tr_interrupt_watch(void)
{
    /* SA_RESETHAND: the second signal finds the default action. */
    watch((int)SA_RESETHAND);
}

void tr_interrupt_defer(void)
{
    is_deferred = 1;
    if (!is_interrupted)
        watch(0);
}

bool tr_interrupt_asked(void)
{
    return is_asked != 0;
}

bool tr_interrupted(void)
{
    return is_interrupted != 0;
}
