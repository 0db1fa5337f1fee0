/* frame.c - write data-plane frames, and believe none that comes in.
 *
 * The struct of frame.h is the wire layout: every supported machine is little-endian
 * (base/cursor.c refuses others), so a frame is written and read in place.
 *
 * A kind uses some of the header's fields; begin clears the others and open insists that they
 * are zero.  So a frame has exactly one encoding, and a field that gets a meaning in a
 * later version can't hold garbage from this one.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "proto/frame.h"
#include "base/check.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static_assert(sizeof(tr_frame_pick) == 8, "a pick has no padding");
static_assert(TR_FRAME_HEADER % TR_FRAME_ALIGN == 0, "the first array is aligned");
static_assert((uint64_t)TR_MAX_PICKS * TR_MAX_DIM * sizeof(float) < SIZE_MAX / 2,
              "sizes within the limits can't overflow");

/* The wire's numbers for the form of activation rows: tr_act of compute/kernels.h. */
enum { ACT_F32 = 0, ACT_Q8 = 1, Q8_BLOCK = 32 };

/* What a header of one kind says. */
typedef struct {
    const char *name;
    bool has_place; /* share, layer: part of a step's work */
    bool has_picks; /* n_picks, dim */
    bool has_rows;  /* n_rows, row_size, act */
    bool has_time;  /* busy_ns */
    size_t max_text;
} kind_info;

static const kind_info kinds[] = {
    [TR_FRAME_SHARE] = { .name = "share", .has_place = true, .has_picks = true, .has_rows = true },
    [TR_FRAME_ANSWER] = { .name = "answer",
                          .has_place = true,
                          .has_picks = true,
                          .has_time = true },
    [TR_FRAME_ERROR] = { .name = "error", .has_place = true, .max_text = TR_MAX_TEXT },
    [TR_FRAME_STOP] = { .name = "stop" },
    [TR_FRAME_INVITE] = { .name = "invite", .max_text = TR_MAX_CONTROL },
    [TR_FRAME_ECHO] = { .name = "echo", .max_text = TR_MAX_CONTROL },
};

static const kind_info *kind_of(uint16_t kind)
{
    if (kind >= sizeof kinds / sizeof kinds[0] || !kinds[kind].name)
        return NULL;
    return &kinds[kind];
}

/* Offset of a share's rows. */
static size_t rows_offset(size_t n_picks)
{
    return TR_FRAME_HEADER + tr_align_up(n_picks * sizeof(tr_frame_pick), TR_FRAME_ALIGN);
}

size_t tr_frame_share_size(size_t n_picks, size_t n_rows, size_t row_size)
{
    size_t rows;

    TR_CHECK(n_picks <= TR_MAX_PICKS);
    TR_CHECK(tr_mul_size(n_rows, row_size, &rows));
    return rows_offset(n_picks) + rows;
}

size_t tr_frame_answer_size(size_t n_picks, size_t dim)
{
    TR_CHECK(n_picks <= TR_MAX_PICKS);
    TR_CHECK(dim <= TR_MAX_DIM);
    return TR_FRAME_HEADER + n_picks * dim * sizeof(float);
}

size_t tr_frame_text_size(size_t n)
{
    TR_CHECK(n <= TR_MAX_CONTROL);
    return TR_FRAME_HEADER + n;
}

/* h without the fields that its kind does not use. */
static tr_frame_header canonical(const kind_info *kind, const tr_frame_header *h)
{
    tr_frame_header c = *h;

    if (!kind->has_place)
        c.share = c.layer = 0;
    if (!kind->has_picks)
        c.n_picks = c.dim = 0;
    if (!kind->has_rows)
        c.n_rows = c.row_size = c.act = 0;
    if (!kind->has_time)
        c.busy_ns = 0;
    memset(c.reserved, 0, sizeof c.reserved);
    return c;
}

/* Bytes of the whole frame; text_size where the kind has no arrays. */
static size_t frame_size(const kind_info *kind, const tr_frame_header *h, size_t text_size)
{
    if (kind->has_rows)
        return tr_frame_share_size(h->n_picks, h->n_rows, h->row_size);
    if (kind->has_picks)
        return tr_frame_answer_size(h->n_picks, h->dim);
    return tr_frame_text_size(text_size);
}

void tr_frame_begin(uint8_t *buffer, const tr_frame_header *h, size_t text_size)
{
    const kind_info *kind = kind_of(h->kind);

    TR_CHECK(kind != NULL);
    TR_CHECK(text_size <= kind->max_text);
    TR_CHECK((uintptr_t)buffer % TR_FRAME_ALIGN == 0);

    tr_frame_header out = canonical(kind, h);
    out.magic = TR_FRAME_MAGIC;
    out.version = TR_FRAME_VERSION;
    out.checksum = 0;
    out.size = frame_size(kind, h, text_size);
    memcpy(buffer, &out, sizeof out);

    if (kind->has_rows) {
        size_t end = TR_FRAME_HEADER + out.n_picks * sizeof(tr_frame_pick);
        memset(buffer + end, 0, rows_offset(out.n_picks) - end);
    }
}

/* The header of a frame that tr_frame_begin wrote. */
static tr_frame_header begun_header(const uint8_t *buffer)
{
    tr_frame_header h;

    memcpy(&h, buffer, sizeof h);
    TR_CHECK(h.magic == TR_FRAME_MAGIC);
    return h;
}

tr_frame_pick *tr_frame_picks(uint8_t *buffer)
{
    TR_CHECK(begun_header(buffer).kind == TR_FRAME_SHARE);
    return (tr_frame_pick *)(void *)(buffer + TR_FRAME_HEADER);
}

uint8_t *tr_frame_rows(uint8_t *buffer)
{
    tr_frame_header h = begun_header(buffer);

    TR_CHECK(h.kind == TR_FRAME_SHARE || h.kind == TR_FRAME_ANSWER);
    return buffer + (h.kind == TR_FRAME_SHARE ? rows_offset(h.n_picks) : TR_FRAME_HEADER);
}

uint8_t *tr_frame_text(uint8_t *buffer)
{
    tr_frame_header h = begun_header(buffer);

    TR_CHECK(h.kind == TR_FRAME_ERROR || h.kind == TR_FRAME_INVITE || h.kind == TR_FRAME_ECHO);
    return buffer + TR_FRAME_HEADER;
}

/* XXH3-64 of the frame as if its checksum were zero. */
static uint64_t checksum_of(const uint8_t *frame, size_t size)
{
    XXH3_state_t state;
    tr_frame_header h;

    memcpy(&h, frame, sizeof h);
    h.checksum = 0;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, &h, sizeof h);
    XXH3_64bits_update(&state, frame + sizeof h, size - sizeof h);
    return XXH3_64bits_digest(&state);
}

void tr_frame_set_busy(uint8_t *buffer, uint64_t busy_ns)
{
    TR_CHECK(begun_header(buffer).kind == TR_FRAME_ANSWER);
    memcpy(buffer + offsetof(tr_frame_header, busy_ns), &busy_ns, sizeof busy_ns);
}

void tr_frame_seal(uint8_t *buffer)
{
    tr_frame_header h = begun_header(buffer);

    h.checksum = checksum_of(buffer, h.size);
    memcpy(buffer, &h, sizeof h);
}

/* Is this a whole frame of our version?  What kind? */
static tr_status check_envelope(tr_bytes message, const kind_info **out)
{
    tr_frame_header h;

    /* Magic and version first: another version may have another header. */
    if (message.size < sizeof h)
        return tr_fail(TR_E_PROTOCOL, "frame: %zu bytes, a header has %zu", message.size, sizeof h);
    memcpy(&h, message.data, sizeof h);
    if (h.magic != TR_FRAME_MAGIC)
        return tr_fail(TR_E_PROTOCOL, "frame: magic %08x, not a Troupe frame", h.magic);
    if (h.version != TR_FRAME_VERSION)
        return tr_fail(TR_E_REFUSED,
                       "frame: version %u, this Troupe speaks %d; install the same "
                       "version on all hosts",
                       h.version, TR_FRAME_VERSION);
    if (h.size != message.size)
        return tr_fail(TR_E_PROTOCOL, "frame: size field %llu, message has %zu bytes",
                       (unsigned long long)h.size, message.size);
    if (h.checksum != checksum_of(message.data, message.size))
        return tr_fail(TR_E_PROTOCOL, "frame: checksum wrong, damaged on the way");

    const kind_info *kind = kind_of(h.kind);
    if (!kind)
        return tr_fail(TR_E_PROTOCOL, "frame: kind %u unknown", h.kind);
    tr_frame_header c = canonical(kind, &h);
    if (memcmp(&c, &h, sizeof h) != 0)
        return tr_fail(TR_E_PROTOCOL, "frame: %s with a nonzero unused field", kind->name);
    *out = kind;
    return TR_OK;
}

/* The header's counts against what this receiver accepts. */
static tr_status check_limits(const kind_info *kind, const tr_frame_header *h,
                              const tr_frame_limits *limits)
{
    if (h->sender > TR_MAX_WORKERS)
        return tr_fail(TR_E_PROTOCOL, "frame: sender %u, at most %d", h->sender, TR_MAX_WORKERS);
    if (kind->has_place && h->layer >= limits->n_layers)
        return tr_fail(TR_E_PROTOCOL, "frame: layer %u of %u", h->layer, limits->n_layers);
    if (kind->has_picks && (h->n_picks < 1 || h->n_picks > limits->max_picks))
        return tr_fail(TR_E_PROTOCOL, "frame: n_picks %u outside 1..%u", h->n_picks,
                       limits->max_picks);
    if (kind->has_picks && (h->dim < 1 || h->dim > limits->dim))
        return tr_fail(TR_E_PROTOCOL, "frame: dim %u outside 1..%u", h->dim, limits->dim);
    if (kind->has_rows && (h->n_rows < 1 || h->n_rows > limits->max_rows))
        return tr_fail(TR_E_PROTOCOL, "frame: n_rows %u outside 1..%u", h->n_rows,
                       limits->max_rows);
    return TR_OK;
}

/* Bytes of an activation row; 0 if there is no such form or dim does not suit it.  The same
 * numbers as tr_act_row_size, which this layer must not call; test_frame compares them. */
static size_t act_row_size(uint32_t act, size_t dim)
{
    if (act == ACT_F32)
        return tr_align_up(dim * sizeof(float), TR_FRAME_ALIGN);
    if (act == ACT_Q8 && dim % Q8_BLOCK == 0)
        return tr_align_up(dim + dim / Q8_BLOCK * (sizeof(float) + 2 * sizeof(int16_t)),
                           TR_FRAME_ALIGN);
    return 0;
}

static tr_status check_size(const kind_info *kind, const tr_frame_header *h)
{
    if (kind->has_rows) {
        size_t row_size = act_row_size(h->act, h->dim);
        if (row_size == 0)
            return tr_fail(TR_E_PROTOCOL, "frame: act %u unknown or unfit for dim %u", h->act,
                           h->dim);
        if (h->row_size != row_size)
            return tr_fail(TR_E_PROTOCOL, "frame: row_size %u, form and dim make it %zu",
                           h->row_size, row_size);
    }
    if (!kind->has_picks && h->size - TR_FRAME_HEADER > kind->max_text)
        return tr_fail(TR_E_PROTOCOL, "frame: %s with %llu bytes of text, at most %zu", kind->name,
                       (unsigned long long)h->size - TR_FRAME_HEADER, kind->max_text);
    if (kind->has_picks && h->size != frame_size(kind, h, 0))
        return tr_fail(TR_E_PROTOCOL, "frame: %llu bytes, the counts make it %zu",
                       (unsigned long long)h->size, frame_size(kind, h, 0));
    return TR_OK;
}

/* Rows and experts exist, (expert, row) ascends strictly, the gap up to the rows is zero. */
static tr_status check_picks(tr_bytes message, const tr_frame_header *h, uint32_t n_experts)
{
    const tr_frame_pick *pick = (const void *)(message.data + TR_FRAME_HEADER);

    for (size_t i = 0; i < h->n_picks; i++) {
        if (pick[i].row >= h->n_rows)
            return tr_fail(TR_E_PROTOCOL, "frame: pick %zu has row %u of %u", i, pick[i].row,
                           h->n_rows);
        if (pick[i].expert >= n_experts)
            return tr_fail(TR_E_PROTOCOL, "frame: pick %zu has expert %u of %u", i, pick[i].expert,
                           n_experts);
        if (i == 0 || pick[i].expert > pick[i - 1].expert)
            continue;
        if (pick[i].expert < pick[i - 1].expert || pick[i].row <= pick[i - 1].row)
            return tr_fail(TR_E_PROTOCOL, "frame: pick %zu breaks the order (expert, row)", i);
    }

    size_t end = TR_FRAME_HEADER + h->n_picks * sizeof(tr_frame_pick);
    for (size_t i = end; i < rows_offset(h->n_picks); i++)
        if (message.data[i] != 0)
            return tr_fail(TR_E_PROTOCOL, "frame: byte %zu between the arrays is not zero", i);
    return TR_OK;
}

static tr_frame_view view_of(tr_bytes message, const tr_frame_header *h)
{
    const uint8_t *body = message.data + TR_FRAME_HEADER;
    tr_frame_view v = { .header = *h };

    switch ((tr_frame_kind)h->kind) {
    case TR_FRAME_SHARE:
        v.picks = (const void *)body;
        v.rows = message.data + rows_offset(h->n_picks);
        break;
    case TR_FRAME_ANSWER:
        v.rows = body;
        break;
    case TR_FRAME_ERROR:
    case TR_FRAME_INVITE:
    case TR_FRAME_ECHO:
        v.text = (tr_bytes){ body, message.size - TR_FRAME_HEADER };
        break;
    case TR_FRAME_STOP:
        break;
    }
    return v;
}

tr_status tr_frame_open(tr_bytes message, const tr_frame_limits *limits, tr_frame_view *out)
{
    static const tr_frame_limits widest = { .n_layers = TR_MAX_LAYERS,
                                            .n_experts = TR_MAX_EXPERTS,
                                            .max_rows = TR_MAX_ROWS,
                                            .max_picks = TR_MAX_PICKS,
                                            .dim = TR_MAX_DIM };
    const tr_frame_limits *bound = limits ? limits : &widest;
    const kind_info *kind = NULL;
    tr_frame_header h;

    /* Not the peer's fault: the transport promises aligned messages. */
    TR_CHECK((uintptr_t)message.data % TR_FRAME_ALIGN == 0);

    tr_status st = check_envelope(message, &kind);
    if (st != TR_OK)
        return st;
    memcpy(&h, message.data, sizeof h);

    if (limits && h.job != limits->job)
        return tr_fail(TR_E_PROTOCOL, "frame: of job %016llx, this is job %016llx",
                       (unsigned long long)h.job, (unsigned long long)limits->job);
    if (limits && kind->has_picks && h.dim != limits->dim)
        return tr_fail(TR_E_PROTOCOL, "frame: dim %u, this model has %u", h.dim, limits->dim);
    st = check_limits(kind, &h, bound);
    if (st == TR_OK)
        st = check_size(kind, &h);
    if (st == TR_OK && kind->has_rows)
        st = check_picks(message, &h, bound->n_experts);
    if (st != TR_OK)
        return st;

    *out = view_of(message, &h);
    return TR_OK;
}
