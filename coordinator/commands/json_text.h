/* json_text.h - bytes that should be text, as JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_JSON_TEXT_H
#define TR_COORDINATOR_COMMANDS_JSON_TEXT_H

#include "base/bytes.h"

#include <jansson.h>

/* A new string; names in files and paths may be any bytes, JSON is UTF-8: others are said to be. */
json_t *tr_json_text(tr_bytes text);

#endif
