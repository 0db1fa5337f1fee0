/* vocab.c - an open-addressing hash table, and the byte alphabet.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/vocab.h"
#include "coordinator/text/utf8.h"
#include "base/check.h"
#include "base/rng.h"

#include <stdlib.h>
#include <sys/random.h>

static size_t hash(uint64_t seed, tr_bytes key)
{
    uint64_t h = tr_rng_mix(seed ^ key.size);

    for (size_t i = 0; i < key.size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, key.data + i, key.size - i < 8 ? key.size - i : 8);
        h = tr_rng_mix(h ^ word);
    }
    return (size_t)h;
}

tr_status tr_text_map_init(tr_text_map *map, const tr_bytes *keys, size_t n)
{
    size_t n_slots = 16;

    TR_CHECK(n < UINT32_MAX);
    while (n_slots < 2 * n)
        n_slots *= 2;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!slots)
        return tr_fail(TR_E_MEMORY, "tokenizer: no memory for a table of %zu tokens", n);
    *map = (tr_text_map){ keys, slots, n_slots - 1, 0 };
    if (getrandom(&map->seed, sizeof map->seed, GRND_NONBLOCK) < 0)
        map->seed = (uint64_t)(uintptr_t)slots; /* early in a boot: better than none */
    return TR_OK;
}

void tr_text_map_fini(tr_text_map *map)
{
    free(map->slots);
    *map = (tr_text_map){ 0 };
}

/* The slot that holds key, or the free one where it belongs. */
static size_t slot_of(const tr_text_map *map, tr_bytes key)
{
    size_t i = hash(map->seed, key) & map->mask;

    while (map->slots[i] != 0 && !tr_bytes_equal(map->keys[map->slots[i] - 1], key))
        i = (i + 1) & map->mask;
    return i;
}

void tr_text_map_put(tr_text_map *map, uint32_t index)
{
    size_t i = slot_of(map, map->keys[index]);

    if (map->slots[i] == 0)
        map->slots[i] = index + 1;
}

bool tr_text_map_find(const tr_text_map *map, tr_bytes key, uint32_t *index)
{
    size_t i = slot_of(map, key);

    if (map->slots[i] == 0)
        return false;
    *index = map->slots[i] - 1;
    return true;
}

/* Bytes that stand for themselves.  The others are 0..32, 127..160 and 173. */
static bool is_plain(uint32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte != 173);
}

static bool byte_of(uint32_t code, uint8_t *byte)
{
    if (is_plain(code))
        *byte = (uint8_t)code;
    else if (code >= 256 && code <= 256 + 32)
        *byte = (uint8_t)(code - 256);
    else if (code > 256 + 32 && code <= 256 + 66)
        *byte = (uint8_t)(code - 256 - 33 + 127);
    else if (code == 256 + 67)
        *byte = 173;
    else
        return false;
    return true;
}

size_t tr_vocab_decode(tr_bytes text, uint8_t *out)
{
    size_t n = 0, size;

    for (size_t pos = 0; pos < text.size; pos += size) {
        tr_bytes rest = { text.data + pos, text.size - pos };
        tr_utf8_kind kind = tr_utf8_first(rest, &size);
        TR_CHECK(kind == TR_UTF8_CHAR);
        if (!byte_of(tr_utf8_code(rest.data, size), &out[n++])) {
            memcpy(out, text.data, text.size);
            return text.size;
        }
    }
    return n;
}

size_t tr_vocab_encode_byte(uint8_t byte, uint8_t out[2])
{
    uint32_t code = byte;

    if (!is_plain(byte))
        code = byte <= 32 ? 256u + byte : byte == 173 ? 256 + 67 : 256u + 33 + byte - 127;
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    out[0] = (uint8_t)(0xc0 | code >> 6);
    out[1] = (uint8_t)(0x80 | (code & 0x3f));
    return 2;
}

tr_status tr_vocab_byte(const uint32_t ids[256], uint8_t byte, uint32_t *id)
{
    if (ids[byte] == TR_VOCAB_NO_TOKEN)
        return tr_fail(TR_E_REQUEST, "the vocabulary has no token for the byte 0x%02x", byte);
    *id = ids[byte];
    return TR_OK;
}
