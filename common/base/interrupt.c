/* interrupt.c - a handler that does nothing but set a flag.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t is_interrupted;

static void handle(int signal_number)
{
    (void)signal_number;
    is_interrupted = 1;
}

void tr_interrupt_watch(void)
{
    /* SA_RESETHAND: the second signal finds the default action. */
    struct sigaction action = { .sa_handler = handle, .sa_flags = (int)SA_RESETHAND };

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool tr_interrupted(void)
{
    return is_interrupted != 0;
}
