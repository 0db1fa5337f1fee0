/* host.c - gethostname, which need not end what it cuts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/host.h"

#include <string.h>
#include <unistd.h>

void tr_host_name(char *out, size_t size)
{
    memset(out, 0, size);
    if (gethostname(out, size - 1) != 0)
        out[0] = '\0';
}
