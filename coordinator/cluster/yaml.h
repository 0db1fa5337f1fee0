/* yaml.h - what the files that people write have in common: a shape, then values that are checked.
 *
 * libcyaml sees strings only: its own integers accept "3x" as 3 and say "UINT" to people.  So a
 * schema fixes the shape, and every value is read with its range and its key at hand.
 *
 * USE     st = tr_yaml_read(&form, path, &text, &size);                     free(text)
 *         st = tr_yaml_load(path, bytes, &form, &data);                     data as the schema says
 *         st = tr_yaml_number((tr_yaml_place){ path, "workers", "count", 0 }, y->count, 1, 8, &n);
 *         tr_yaml_free(&form, data);
 *
 * FAILS   TR_E_IO, TR_E_MEMORY
 *         TR_E_CONFIG  with a line that says where, what and what would be right
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_YAML_H
#define TR_COORDINATOR_CLUSTER_YAML_H

#include "base/bytes.h"
#include "base/status.h"

#include <cyaml/cyaml.h>

typedef struct {
    const cyaml_schema_value_t *schema; /* of a mapping behind a pointer */
    const char *what;                   /* such a file is: "cluster file" */
    size_t max;                         /* bytes of one */
    const char *must;                   /* a key without which there is nothing */
    const char *manual;                 /* where the keys are explained */
} tr_yaml_form;

/* Reads at most form->max + 1 bytes, so that tr_yaml_load sees that there are too many. */
tr_status tr_yaml_read(const tr_yaml_form *form, const char *path, uint8_t **text, size_t *size);

tr_status tr_yaml_load(const char *name, tr_bytes text, const tr_yaml_form *form, void **out);
void tr_yaml_free(const tr_yaml_form *form, void *data);

/* "hosts[2].slots" and the like; n 0: no index. */
typedef struct {
    const char *file, *owner, *key;
    size_t n;
} tr_yaml_place;

/* The line about a value. */
tr_status tr_yaml_refuse(tr_yaml_place p, const char *value, const char *allowed);

/* These leave *out alone when the key is not there (text NULL). */
tr_status tr_yaml_number(tr_yaml_place p, const char *text, uint32_t low, uint32_t high,
                         uint32_t *out);

/* choice is NULL-terminated; *out is the index. */
tr_status tr_yaml_choice(tr_yaml_place p, const char *text, const char *const *choice,
                         uint32_t *out);

#endif
