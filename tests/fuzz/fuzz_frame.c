/* fuzz_frame.c - no bytes make the reader of frames crash or read outside, and what it accepts
 * keeps the promises of frame.h.
 *
 * Random bytes would hardly ever pass the checksum, so each input is also tried with the
 * envelope (magic, version, size, job, checksum) made right.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "proto/frame.h"

#include "base/check.h"

#include <stddef.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const tr_frame_limits limits = {
    .job = 77, .n_layers = 4, .n_experts = 16, .max_rows = 8, .max_picks = 32, .dim = 64
};

static void check_share(const tr_frame_view *v, const uint8_t *end)
{
    const tr_frame_header *h = &v->header;

    TR_CHECK((uintptr_t)v->picks % 64 == 0);
    TR_CHECK((uintptr_t)v->rows % 64 == 0);
    TR_CHECK(h->row_size % 64 == 0);
    TR_CHECK((const uint8_t *)(v->picks + h->n_picks) <= v->rows);
    TR_CHECK(v->rows + (size_t)h->n_rows * h->row_size == end);
    for (size_t i = 0; i < h->n_picks; i++)
        TR_CHECK(v->picks[i].row < h->n_rows);
}

static void check_view(const tr_frame_view *v, tr_bytes message, const tr_frame_limits *l)
{
    const tr_frame_header *h = &v->header;
    const uint8_t *end = message.data + message.size;

    TR_CHECK(h->size == message.size);
    if (l)
        TR_CHECK(h->job == l->job);
    if (h->kind == TR_FRAME_SHARE) {
        check_share(v, end);
    } else if (h->kind == TR_FRAME_ANSWER) {
        TR_CHECK((uintptr_t)v->rows % 64 == 0);
        TR_CHECK(v->rows + (size_t)h->n_picks * h->dim * sizeof(float) == end);
    } else if (h->kind == TR_FRAME_STOP) {
        TR_CHECK(message.size == TR_FRAME_HEADER);
    } else {
        TR_CHECK(v->text.data + v->text.size == end);
    }
}

static void try_open(tr_bytes message, const tr_frame_limits *l)
{
    char reason[256];
    tr_frame_view v;

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_frame_open(message, l, &v);
    tr_fail_capture_end();
    if (st == TR_OK) {
        check_view(&v, message, l);
        return;
    }
    TR_CHECK(st == TR_E_PROTOCOL || st == TR_E_REFUSED);
    TR_CHECK(reason[0] != '\0');
}

/* Make right what a random change can't. */
static void mend(uint8_t *frame, size_t size)
{
    tr_frame_header h;

    memcpy(&h, frame, sizeof h);
    h.magic = TR_FRAME_MAGIC;
    h.version = TR_FRAME_VERSION;
    h.size = size;
    h.job = limits.job;
    memcpy(frame, &h, sizeof h);
    tr_frame_seal(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    void *copy = NULL;

    /* Exactly size bytes, so that a sanitizer sees a read past the end. */
    if (posix_memalign(&copy, TR_FRAME_ALIGN, size > 0 ? size : 1) != 0)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    tr_bytes message = { copy, size };
    try_open(message, &limits);
    try_open(message, NULL);
    if (size >= TR_FRAME_HEADER) {
        mend(copy, size);
        try_open(message, &limits);
        try_open(message, NULL);
    }
    free(copy);
    return 0;
}
