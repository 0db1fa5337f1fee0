/* check.c - say which check failed, then abort.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "base/log.h"

#include <stdlib.h>

void tr_check_failed(const char *file, int line, const char *expression)
{
    tr_log(TR_LOG_ERROR, "bug at %s:%d: %s does not hold; please report it", file, line,
           expression);
    abort();
}
