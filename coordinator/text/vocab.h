/* vocab.h - find a token by its bytes, and turn a token's text in a file into its bytes.
 *
 * Byte-level vocabularies write each byte as one printable character, so that a
 * vocabulary is readable text: '!'..'~' and most of Latin-1 stand for themselves, the other 68
 * bytes for U+0100, U+0101, ... in their order.  A space is thus written U+0120.
 *
 * USE     st = tr_text_map_init(&map, keys, n);
 *         tr_text_map_put(&map, 17);                 keys[17]; the first of equal keys wins
 *         if (tr_text_map_find(&map, bytes, &id)) ...
 *         tr_text_map_fini(&map);
 * FAILS   init  TR_E_MEMORY
 *         byte  TR_E_REQUEST  the vocabulary has no token for the byte
 * MEMORY  The map borrows keys and what they point to.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_VOCAB_H
#define TR_COORDINATOR_TEXT_VOCAB_H

#include "base/bytes.h"
#include "base/status.h"

typedef struct {
    const tr_bytes *keys;
    uint32_t *slots; /* index of a key + 1, or 0 */
    size_t mask;
    uint64_t seed; /* of the hash: a file can't choose keys that collide */
} tr_text_map;

/* Room for n keys; n is below UINT32_MAX. */
tr_status tr_text_map_init(tr_text_map *map, const tr_bytes *keys, size_t n);
void tr_text_map_fini(tr_text_map *map);
void tr_text_map_put(tr_text_map *map, uint32_t index);
bool tr_text_map_find(const tr_text_map *map, tr_bytes key, uint32_t *index);

/* The bytes that a token's text stands for, written to out (room for text.size); returns their
 * number.  Text with a character that stands for no byte is copied as it is (tokens added to a
 * vocabulary later are often plain text).  text is valid UTF-8. */
size_t tr_vocab_decode(tr_bytes text, uint8_t *out);

/* The text of one byte, the inverse; returns its length, 1 or 2. */
size_t tr_vocab_encode_byte(uint8_t byte, uint8_t out[2]);

#define TR_VOCAB_NO_TOKEN UINT32_MAX

/* The token of a single byte. */
tr_status tr_vocab_byte(const uint32_t ids[256], uint8_t byte, uint32_t *id);

#endif
