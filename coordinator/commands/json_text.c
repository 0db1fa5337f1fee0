/* json_text.c - see json_text.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/json_text.h"

json_t *tr_json_text(tr_bytes text)
{
    json_t *v = json_stringn((const char *)text.data, text.size);

    return v ? v : json_string("(not UTF-8)");
}
