/* panels.c - from rows to panels, by a loop that the compiler makes again for each type.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/panels.h"

#include "base/check.h"
#include "compute/block_formats.h"
#include "compute/kernels_table.h"

bool tr_panels_has(tr_type type)
{
    return tr_block_has(type);
}

size_t tr_panel_size(tr_type type, size_t n_in)
{
    TR_CHECK(tr_panels_has(type));
    return tr_panel_parts_of(tr_panel_format_of(type), n_in).end;
}

/* Four codes of a row at a time: byte k of n bytes goes to vector k / 4. */
TR_INLINE void spread(const uint8_t *bytes, size_t n, size_t row, uint8_t *vectors)
{
    for (size_t k = 0; k < n; k += 4)
        memcpy(vectors + k / 4 * TR_PANEL_VECTOR + 4 * row, bytes + k, 4);
}

/* The fields of `bits` bits above bit `from` of 32 codes, 8 / bits of them in a byte: those of
 * vectors that are 32 * bits / 8 codes apart.  Four bytes are one number. */
TR_INLINE void fields(const uint8_t *code, unsigned from, unsigned bits, uint8_t *out)
{
    const size_t n = TR_BLOCK * bits / 8;
    const uint32_t mask = ((1u << bits) - 1) * 0x01010101u;

    for (size_t k = 0; k < n; k += 4) {
        uint32_t four = 0;
        for (size_t f = 0; f < 8 / bits; f++) {
            uint32_t codes;
            memcpy(&codes, code + f * n + k, 4);
            four |= (codes >> from & mask) << f * bits;
        }
        memcpy(out + k, &four, 4);
    }
}

TR_INLINE void pack_codes(tr_panel_format f, const uint8_t *code, size_t row, uint8_t *out)
{
    uint8_t bytes[TR_BLOCK];

    if (f.low == 8) {
        spread(code, TR_BLOCK, row, out);
        return;
    }
    fields(code, 0, f.low, bytes);
    spread(bytes, (size_t)TR_BLOCK * f.low / 8, row, out);
    if (f.high > 0) {
        fields(code, f.low, f.high, bytes);
        spread(bytes, (size_t)TR_BLOCK * f.high / 8, row, out + (size_t)f.low * TR_PANEL_VECTOR);
    }
}

TR_INLINE void pack_small(tr_small kind, const tr_block_scales *s, size_t row, uint8_t *out)
{
    switch (kind) {
    case TR_SMALL_NONE:
        return;
    case TR_SMALL_EXPONENT:
        out[row] = (uint8_t)s->d;
        return;
    case TR_SMALL_SCALE:
        out[row] = (uint8_t)s->scale[0];
        return;
    case TR_SMALL_SCALE_MIN:
        out[row] = (uint8_t)s->scale[0];
        out[TR_PANEL + row] = (uint8_t)s->min[0];
        return;
    case TR_SMALL_SCALES:
        out[row] = (uint8_t)s->scale[0];
        out[TR_PANEL + row] = (uint8_t)s->scale[1];
        return;
    case TR_SMALL_SCALES_MINS:
        out[row] = (uint8_t)(s->scale[0] | s->min[0] << 4);
        out[TR_PANEL + row] = (uint8_t)(s->scale[1] | s->min[1] << 4);
        return;
    }
}

/* Block `part` of the file's block at p, which is block i of row r.  Nibbles that lie in the file
 * as they do here are copied. */
TR_INLINE void pack_block(tr_type type, const tr_panel_parts *parts, const uint8_t *p, size_t part,
                          size_t i, size_t r, uint8_t *panel)
{
    const tr_panel_format f = tr_panel_format_of(type);
    const tr_block_format *file = &tr_block_formats[type];
    uint8_t *codes = panel + i * tr_panel_codes(f);
    uint16_t *halves = (uint16_t *)(void *)(panel + parts->halves) +
                       (f.is_super ? i / TR_SUPER : i) * f.n_half * TR_PANEL;
    tr_block_scales s = { 0 };

    file->get_scales(p, part, &s);
    pack_small(f.small, &s, r, panel + parts->small + i * f.n_small * TR_PANEL);
    if (f.n_half > 0)
        halves[r] = s.d;
    if (f.n_half > 1)
        halves[TR_PANEL + r] = s.dmin;
    if (f.high == 0 && file->nibbles) {
        spread(p + file->nibbles + part * TR_BLOCK / 2, TR_BLOCK / 2, r, codes);
    } else {
        uint8_t code[TR_BLOCK];
        if (file->get_codes)
            file->get_codes(p, part, code);
        else
            tr_block_low_codes(p + file->nibbles + part * TR_BLOCK / 2, code);
        pack_codes(f, code, r, codes);
    }
}

TR_INLINE void pack_panel(tr_type type, size_t n_in, const uint8_t *rows, size_t row_size,
                          size_t n_rows, uint8_t *panel)
{
    const bool is_super = tr_panel_format_of(type).is_super;
    const tr_panel_parts parts = tr_panel_parts_of(tr_panel_format_of(type), n_in);
    const size_t size = tr_type_get(type)->size;

    if (n_rows < TR_PANEL)
        memset(panel, 0, parts.end);
    for (size_t i = 0; i < n_in / TR_BLOCK; i++) {
        const uint8_t *p = rows + (is_super ? i / TR_SUPER : i) * size;
        for (size_t r = 0; r < n_rows; r++)
            pack_block(type, &parts, p + r * row_size, is_super ? i % TR_SUPER : 0, i, r, panel);
    }
}

void tr_panel_pack(tr_type type, size_t n_in, const void *rows, size_t row_size, size_t n_rows,
                   void *panel)
{
    TR_CHECK(n_rows >= 1);
    TR_CHECK(n_rows <= TR_PANEL);
    switch (type) {
#define PACK(name, its_type)                                                                       \
    case its_type:                                                                                 \
        pack_panel(its_type, n_in, rows, row_size, n_rows, panel);                                 \
        return;
        TR_PANEL_TYPES(PACK)
#undef PACK
    default:
        TR_CHECK(tr_panels_has(type));
    }
}

/* ---- and back ---------------------------------------------------------------------------- */

static void gather(const uint8_t *vectors, size_t n, size_t row, uint8_t *bytes)
{
    for (size_t k = 0; k < n; k += 4)
        memcpy(bytes + k, vectors + k / 4 * TR_PANEL_VECTOR + 4 * row, 4);
}

/* What fields() put together. */
static void fields_take(const uint8_t *bytes, unsigned from, unsigned bits, uint8_t *code)
{
    size_t n = TR_BLOCK * bits / 8;
    uint8_t mask = (uint8_t)((1u << bits) - 1);

    for (size_t f = 0; f < 8 / bits; f++)
        for (size_t k = 0; k < n; k++)
            code[f * n + k] |= (uint8_t)((bytes[k] >> f * bits & mask) << from);
}

static void unpack_codes(tr_panel_format f, const uint8_t *vectors, size_t row, uint8_t *code)
{
    uint8_t bytes[TR_BLOCK];

    memset(code, 0, TR_BLOCK);
    gather(vectors, (size_t)TR_BLOCK * f.low / 8, row, bytes);
    fields_take(bytes, 0, f.low, code);
    if (f.high > 0) {
        gather(vectors + (size_t)f.low * TR_PANEL_VECTOR, (size_t)TR_BLOCK * f.high / 8, row,
               bytes);
        fields_take(bytes, f.low, f.high, code);
    }
}

static void unpack_small(tr_panel_format f, const uint8_t *small, size_t row, tr_block_scales *b)
{
    uint8_t first = f.n_small > 0 ? small[row] : 0;
    uint8_t second = f.n_small > 1 ? small[TR_PANEL + row] : first;

    b->scale[0] = b->scale[1] = 1;
    b->min[0] = b->min[1] = f.n_half > 1; /* a type without minima has dmin = 0 */
    switch (f.small) {
    case TR_SMALL_NONE:
        return;
    case TR_SMALL_EXPONENT:
        b->d = first;
        b->d_is_exponent = true;
        return;
    case TR_SMALL_SCALE:
    case TR_SMALL_SCALES:
        b->scale[0] = (int8_t)first;
        b->scale[1] = (int8_t)second;
        return;
    case TR_SMALL_SCALE_MIN:
        b->scale[0] = b->scale[1] = first;
        b->min[0] = b->min[1] = second;
        return;
    case TR_SMALL_SCALES_MINS:
        b->scale[0] = first & 15;
        b->scale[1] = second & 15;
        b->min[0] = first >> 4;
        b->min[1] = second >> 4;
        return;
    }
}

void tr_panel_row(tr_type type, size_t n_in, const void *panel, size_t r, float *out)
{
    const uint8_t *at = panel;
    tr_panel_format f = tr_panel_format_of(type);
    tr_panel_parts parts = tr_panel_parts_of(f, n_in);
    tr_block_codes codes = tr_block_codes_of(type);
    const uint16_t *halves = (const uint16_t *)(const void *)(at + parts.halves);
    size_t per_half = f.is_super ? TR_SUPER : 1;

    for (size_t i = 0; i < n_in / TR_BLOCK; i++) {
        tr_block b = { 0 };
        const uint16_t *half = halves + i / per_half * f.n_half * TR_PANEL;
        if (f.n_half > 0)
            b.s.d = half[r];
        if (f.n_half > 1)
            b.s.dmin = half[TR_PANEL + r];
        unpack_codes(f, at + i * tr_panel_codes(f), r, b.code);
        unpack_small(f, at + parts.small + i * f.n_small * TR_PANEL, r, &b.s);
        tr_block_floats(&codes, &b, out + i * TR_BLOCK);
    }
}
