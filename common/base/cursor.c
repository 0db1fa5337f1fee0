/* cursor.c - the one assumption of cursor.h, checked when it is compiled.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/cursor.h"

#include <assert.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "files and messages are little-endian and are read in place");
