/* pre_name.h - the name (tokenizer.ggml.pre) of the way in which a tokenizer.json cuts text.
 *
 * Known ways are recognised by their expressions, character for character; an unknown one has no
 * name, and whoever knows better can give one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_PRE_NAME_H
#define TR_COORDINATOR_CONVERT_PRE_NAME_H

#include "coordinator/convert/json_file.h"

/* root is that of a byte-level tokenizer.  TR_E_UNSUPPORTED if it cuts in an unknown way; the line
 * shows the expression. */
tr_status tr_pre_name_find(const tr_json_file *f, const char **name);

/* The i-th name that can be found, or NULL after the last. */
const char *tr_pre_name_at(size_t i);

#endif
