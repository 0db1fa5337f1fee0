/* json_file.h - a JSON file of a Hugging Face directory, and its members with their types.
 *
 * A member that is null counts as absent.
 *
 * USE     tr_json_file f;
 *         st = tr_json_file_open(dir, "config.json", TR_JSON_REQUIRED, &f);
 *         st = tr_json_count(&f, f.root, "hidden_size", &n);
 *         tr_json_file_close(&f);
 * FAILS   TR_E_IO      a required file is missing, or can't be read
 *         TR_E_FORMAT  no JSON object (with line and column), too large, a key twice; a member that
 *                      is missing or of another type: the line names file and member
 *         TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_JSON_FILE_H
#define TR_COORDINATOR_CONVERT_JSON_FILE_H

#include "base/bytes.h"
#include "base/status.h"

#include <jansson.h>

enum { TR_JSON_FILE_MAX = 1 << 28 }; /* bytes */

typedef enum { TR_JSON_REQUIRED, TR_JSON_OPTIONAL } tr_json_need;

typedef struct {
    char *path;
    json_t *root; /* NULL: an optional file that is not there */
} tr_json_file;

tr_status tr_json_file_open(const char *dir, const char *name, tr_json_need need,
                            tr_json_file *out);
void tr_json_file_close(tr_json_file *f);

/* The bytes of a file; a new block of *size and a final zero, NULL for an optional file that is not
 * there. */
tr_status tr_text_file_read(const char *path, tr_json_need need, char **text, size_t *size);

/* The object that text is; path is for error lines.  A new reference. */
tr_status tr_json_parse(const char *path, tr_bytes text, json_t **out);

/* NULL where o is NULL or no object, or has no such member. */
json_t *tr_json_member(const json_t *o, const char *name);

/* Text of a string; empty for anything else. */
tr_bytes tr_json_text_of(const json_t *s);
bool tr_json_is_text(const json_t *s, const char *text);

/* Members of an object in f.  A count is 0..2^32-1. */
tr_status tr_json_count(const tr_json_file *f, const json_t *o, const char *name, uint32_t *out);
tr_status tr_json_real(const tr_json_file *f, const json_t *o, const char *name, float *out);
tr_status tr_json_flag(const tr_json_file *f, const json_t *o, const char *name, bool *out);

#endif
