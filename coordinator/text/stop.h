/* stop.h - cut a stream of text where a stop string appears.
 *
 * What could be the beginning of a stop string is held back until it is clear whether it
 * is one.  The result does not depend on how the text is cut into pieces: the stream ends
 * at the first byte that completes any stop string, and the text before that string is what
 * comes out (if one byte completes several, before the longest of them).
 *
 * USE     st = tr_stop_new(strings, n, &s);
 *         st = tr_stop_feed(s, piece, &text);          text to show, valid until the next call
 *         if (tr_stop_found(s)) ...                    the rest is dropped
 *         text = tr_stop_flush(s);                     at the end: what was held back
 *         tr_stop_free(&s);
 * MEMORY  Text that comes out is a view into *s.
 * FAILS   TR_E_USAGE   a stop string is empty, too long or not UTF-8, or there are too many
 *         TR_E_MEMORY
 *
 * Pieces of whole characters come out as whole characters, because stop strings are valid
 * UTF-8 and what is held back begins where one of them begins.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_STOP_H
#define TR_COORDINATOR_TEXT_STOP_H

#include "base/bytes.h"
#include "base/status.h"

enum { TR_STOP_MAX_STRINGS = 16, TR_STOP_MAX_LENGTH = 1024 };

typedef struct tr_stop tr_stop;

/* strings are copied; n may be 0. */
tr_status tr_stop_new(const tr_bytes *strings, size_t n, tr_stop **out);
void tr_stop_free(tr_stop **s);

/* After a stop string was found every feed gives nothing. */
tr_status tr_stop_feed(tr_stop *s, tr_bytes piece, tr_bytes *text);
bool tr_stop_found(const tr_stop *s);
tr_bytes tr_stop_flush(tr_stop *s);

#endif
