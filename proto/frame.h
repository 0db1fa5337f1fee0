/* frame.h - messages of the data plane: shares to a worker, answers back.
 *
 * A frame is a 128-byte header and arrays, each at a multiple of 64 bytes:
 *
 *   SHARE   picks[n_picks]  {row, expert}   ascending (expert, row)
 *           rows[n_rows]    activation rows of row_size bytes, as kernels take them
 *   ANSWER  rows[n_picks]   dim floats each, in the order of the share's picks
 *   ERROR   text[n]         why a share could not be computed
 *   STOP    nothing         the job is over
 *   INVITE  bytes[n]        first message to a worker: where and with which keys to join
 *                           (a control message, see control.proto)
 *   ECHO    bytes[n]        the receiver sends the same bytes back: a measure of the way
 *
 * USE     size_t size = tr_frame_share_size(n_picks, n_rows, row_size);
 *         tr_frame_header h = { .kind = TR_FRAME_SHARE, ... };
 *         tr_frame_begin(buffer, &h, 0);              header, arrays zero-padded
 *         ... fill tr_frame_picks(buffer), tr_frame_rows(buffer) ...
 *         tr_frame_seal(buffer);                      checksum
 *         st = tr_frame_open(bytes, &limits, &view);  the receiver checks everything
 *
 * Pure: no I/O, no allocation.  PROTOCOL.md shows one frame byte by byte.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_PROTO_FRAME_H
#define TR_PROTO_FRAME_H

#include "base/bytes.h"
#include "base/status.h"
#include "proto/limits.h"

enum {
    TR_FRAME_MAGIC = 0x46505254, /* "TRPF" in memory */
    TR_FRAME_VERSION = 1,
    TR_FRAME_HEADER = 128,
    TR_FRAME_ALIGN = 64,
};

typedef enum {
    TR_FRAME_SHARE = 1,
    TR_FRAME_ANSWER = 2,
    TR_FRAME_ERROR = 3,
    TR_FRAME_STOP = 4,
    TR_FRAME_INVITE = 5,
    TR_FRAME_ECHO = 6,
} tr_frame_kind;

/* As it lies in memory and on the wire: little-endian, no padding. */
typedef struct {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;     /* tr_frame_kind */
    uint64_t job;      /* random, one per coordinator process */
    uint64_t checksum; /* XXH3-64 of the whole frame with this field zero */
    uint64_t size;     /* bytes of the whole frame */
    uint64_t step;     /* counts the coordinator's steps */
    uint64_t share;    /* unique within the job; an answer repeats it */
    uint32_t epoch;    /* version of the placement */
    uint32_t layer;
    uint32_t n_rows; /* activation rows in a share */
    uint32_t n_picks;
    uint32_t dim;         /* values of a row */
    uint32_t row_size;    /* bytes of an activation row */
    uint32_t act;         /* form of the activation rows, tr_act of compute/kernels.h */
    uint32_t sender;      /* peer number */
    uint64_t busy_ns;     /* in an answer: time the worker computed */
    uint8_t reserved[40]; /* zero */
} tr_frame_header;

static_assert(sizeof(tr_frame_header) == TR_FRAME_HEADER, "the header has no padding");

typedef struct {
    uint32_t row;    /* of this share, 0..n_rows-1 */
    uint32_t expert; /* of the layer */
} tr_frame_pick;

/* What a receiver accepts. */
typedef struct {
    uint64_t job;
    uint32_t n_layers, n_experts, max_rows, max_picks, dim;
} tr_frame_limits;

/* A frame that passed tr_frame_open: pointers into the message, valid as long as it. */
typedef struct {
    tr_frame_header header;
    const tr_frame_pick *picks; /* SHARE: [n_picks] */
    const uint8_t *rows;        /* SHARE: [n_rows][row_size]; ANSWER: [n_picks][dim] floats */
    tr_bytes text;              /* ERROR, INVITE, ECHO */
} tr_frame_view;

size_t tr_frame_share_size(size_t n_picks, size_t n_rows, size_t row_size);
size_t tr_frame_answer_size(size_t n_picks, size_t dim);
size_t tr_frame_text_size(size_t n); /* ERROR, INVITE, ECHO; STOP with n = 0 */

/* Write the header (magic, version and size are filled in from h's counts) and zero the gaps
 * between arrays.  Fields that the kind does not use are written as zero (an answer has no n_rows,
 * row_size, act), and open refuses a frame where they are not.  buffer is 64-byte aligned and
 * has the matching size above; text_size is for ERROR (at most TR_MAX_TEXT), INVITE and ECHO
 * (at most TR_MAX_CONTROL). */
void tr_frame_begin(uint8_t *buffer, const tr_frame_header *h, size_t text_size);

/* Where to write a begun frame's arrays. */
tr_frame_pick *tr_frame_picks(uint8_t *buffer);
uint8_t *tr_frame_rows(uint8_t *buffer); /* SHARE and ANSWER */
uint8_t *tr_frame_text(uint8_t *buffer);

/* In a begun ANSWER: how long the worker computed, known only once it has. */
void tr_frame_set_busy(uint8_t *buffer, uint64_t busy_ns);

/* Set the checksum; nothing may be written afterwards. */
void tr_frame_seal(uint8_t *buffer);

/* Check a received message (64-byte aligned) completely: sizes against each other and the
 * limits, version, job, checksum; in a share every pick's row and expert, the order of picks,
 * act and row_size.  limits NULL: only what needs no knowledge of the job (an INVITE).
 * TR_E_PROTOCOL with one line, TR_E_REFUSED for another version. */
tr_status tr_frame_open(tr_bytes message, const tr_frame_limits *limits, tr_frame_view *out);

#endif
