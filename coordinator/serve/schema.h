/* schema.h - a JSON schema as a grammar of the texts that satisfy it.
 *
 *   type            all seven, or a list of them
 *   properties, required, additionalProperties
 *                   properties come in the schema's order; others come only where no properties are
 *                   listed, since a name must not come twice
 *   items, minItems, maxItems
 *   minLength, maxLength     in characters; an escape is one
 *   enum, const, anyOf, oneOf (any one), allOf (of one), $ref to #/...
 *                   one of these, and beside enum and const a type that all values are of; nothing
 *                   else that narrows
 * Without a type, items and minItems mean an array, minLength a string, properties an object.
 *
 * Every text of the grammar satisfies the schema; some that would are not in it (other orders of
 * properties, long blanks, numbers of more than 16 digits).  A member that would narrow the schema,
 * and is none of the above, is refused by name; format and annotations (title, description,
 * default, examples, ...) are passed over.
 *
 * USE     st = tr_schema_compile(schema, &grammar);      NULL: any JSON object
 *         tr_grammar_free(&grammar);
 * FAILS   TR_E_REQUEST  one line: where in the schema, and what
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_SCHEMA_H
#define TR_COORDINATOR_SERVE_SCHEMA_H

#include "coordinator/text/grammar.h"

#include <jansson.h>

tr_status tr_schema_compile(json_t *schema, tr_grammar **out);

#endif
