/* utf8.h - is this valid UTF-8, and how do bytes of tokens become text while they stream?
 *
 * A token may end in the middle of a character, so the bytes of generated tokens pass
 * through a filter: what is complete comes out at once, a tail that may still become a
 * character waits, and what can't become one comes out as U+FFFD.  The filter's output is
 * always valid UTF-8 and does not depend on how the input was cut.
 *
 * USE     tr_utf8_filter f = { 0 };
 *         size_t n = tr_utf8_feed(&f, piece, out);      out has TR_UTF8_ROOM(piece.size)
 *         n = tr_utf8_flush(&f, out);                   at the end; at most 3 bytes
 * STATE   The filter holds at most 3 bytes of one unfinished character.
 * FAILS   Never.  Surrogates, overlong forms and values above U+10FFFF are invalid; one
 *         U+FFFD stands for each longest prefix of a character (as the Unicode standard
 *         recommends, section 3.9).
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_UTF8_H
#define TR_COORDINATOR_TEXT_UTF8_H

#include "base/bytes.h"

typedef enum {
    TR_UTF8_CHAR,    /* a character of *size bytes */
    TR_UTF8_PARTIAL, /* the bytes end inside a character; *size of them belong to it */
    TR_UTF8_INVALID, /* *size bytes that no character begins with */
} tr_utf8_kind;

/* What the bytes begin with.  bytes is not empty; *size is at least 1. */
tr_utf8_kind tr_utf8_first(tr_bytes bytes, size_t *size);

/* The code point of a character that tr_utf8_first found. */
uint32_t tr_utf8_code(const uint8_t *bytes, size_t size);

/* The bytes of a code point; returns their number. */
size_t tr_utf8_encode(uint32_t code, uint8_t out[4]);

/* If false, *bad is the position of the first byte that begins no complete character. */
bool tr_utf8_valid(tr_bytes text, size_t *bad);

typedef struct {
    uint8_t tail[3];
    uint8_t n_tail;
} tr_utf8_filter;

/* Bytes that a feed of n bytes may write: each byte can become a U+FFFD of three. */
#define TR_UTF8_ROOM(n) (3 * ((n) + 3))

size_t tr_utf8_feed(tr_utf8_filter *f, tr_bytes in, uint8_t *out);
size_t tr_utf8_flush(tr_utf8_filter *f, uint8_t *out);

#endif
