/* keys.h - who may ask: API keys, kept as hashes.
 *
 * The file has one SHA-256 of a key a line, in hexadecimal, and perhaps a name after it; lines that
 * begin with # and empty ones are passed over.  Keys are long and random (tr_keys_make), so a plain
 * hash is enough: there is nothing to guess.
 *
 * USE     st = tr_keys_load("keys.txt", &k);
 *         if (tr_keys_allow(k, "Bearer troupe-...")) ...
 *         tr_keys_free(&k);
 *
 * FAILS   TR_E_IO      the file can't be read or written
 *         TR_E_CONFIG  a line that is no hash; a file without any; a file that others may read
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_KEYS_H
#define TR_COORDINATOR_SERVE_KEYS_H

#include "base/status.h"

#include <stdbool.h>

typedef struct tr_keys tr_keys;

tr_status tr_keys_load(const char *path, tr_keys **out);
void tr_keys_free(tr_keys **k);

/* authorization: the header's value, may be NULL.  Takes the same time for every wrong key. */
bool tr_keys_allow(const tr_keys *k, const char *authorization);

/* A new key: its hash is added to the file, which is made if need be; the key itself goes into out
 * (TR_KEY_TEXT bytes) and nowhere else. */
enum { TR_KEY_TEXT = 64 };
tr_status tr_keys_make(const char *path, char *out);

#endif
