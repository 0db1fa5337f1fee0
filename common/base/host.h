/* host.h - the name of this machine.
 *
 * USE     char name[64];
 *         tr_host_name(name, sizeof name);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_HOST_H
#define TR_BASE_HOST_H

#include <stddef.h>

/* Up to size - 1 bytes of it and a zero; empty where the system does not tell. */
void tr_host_name(char *out, size_t size);

#endif
