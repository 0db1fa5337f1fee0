/* interrupt.h - SIGINT, SIGTERM and SIGHUP, unless it is ignored, as a flag that loops look at.
 *
 * USE     tr_interrupt_watch();          once, in main
 *         if (tr_interrupted())
 *             return TR_E_INTERRUPTED;   where something can be left cleanly
 *
 * The first signal sets the flag; a second one ends the process at once.
 *
 *         tr_interrupt_defer();          a server: the first signal only asks,
 *         if (tr_interrupt_asked()) ...  finish what is begun; the second sets the flag,
 *                                        the third ends the process
 *
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_INTERRUPT_H
#define TR_BASE_INTERRUPT_H

#include <stdbool.h>

void tr_interrupt_watch(void);
bool tr_interrupted(void);

void tr_interrupt_defer(void);
bool tr_interrupt_asked(void);

#endif
