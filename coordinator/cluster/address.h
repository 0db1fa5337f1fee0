/* address.h - is a text an address to listen on: HOST, HOST:PORT or [IPV6]:PORT?
 *
 * Only the form is checked; the name is resolved where it is used.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_ADDRESS_H
#define TR_COORDINATOR_CLUSTER_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define TR_ADDRESS_FORM "HOST, HOST:PORT or [ADDRESS]:PORT with a port in 1..65535"

/* Digits of a number in 1..65535. */
static inline bool tr_address_port_is_sound(const char *port)
{
    unsigned v = 0;
    size_t size = strlen(port);

    if (size == 0 || size > 5)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (port[i] < '0' || port[i] > '9')
            return false;
        v = v * 10 + (unsigned)(port[i] - '0');
    }
    return v >= 1 && v <= 65535;
}

static inline bool tr_address_is_sound(const char *text)
{
    const bool brackets = text[0] == '[';
    const char *end = brackets ? strchr(text, ']') : text + strcspn(text, ":");
    const char *host = brackets ? text + 1 : text;
    const char *allowed = brackets ? "0123456789abcdefABCDEF:.%"
                                   : "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789._-*";

    if (!end || end == host || end - host > 255)
        return false;
    if (strspn(host, allowed) != (size_t)(end - host))
        return false;
    end += brackets;
    return *end == '\0' || (*end == ':' && tr_address_port_is_sound(end + 1));
}

#endif
