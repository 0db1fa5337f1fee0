/* number.c - strtoull without its leniency.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/number.h"

#include <errno.h>
#include <stdlib.h>

tr_status tr_option_number(const char *name, const char *text, uint64_t low, uint64_t high,
                           uint64_t *out)
{
    char *end;

    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno == ERANGE || v < low || v > high)
        return tr_fail(TR_E_USAGE, "--%s \"%.40s\": give a number from %llu to %llu", name, text,
                       (unsigned long long)low, (unsigned long long)high);
    *out = v;
    return TR_OK;
}
