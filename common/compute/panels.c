/* panels.c - from rows to panels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/panels.h"

#include "base/check.h"
#include "compute/kernels.h"

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
static void spread(const uint8_t *bytes, size_t n, size_t row, uint8_t *vectors)
{
    for (size_t k = 0; k < n; k += 4)
        memcpy(vectors + k / 4 * TR_PANEL_VECTOR + 4 * row, bytes + k, 4);
}

/* The fields of `bits` bits above bit `from` of 32 codes, 8 / bits of them in a byte: those of
 * vectors that are 32 * bits / 8 codes apart. */
static void fields(const uint8_t *code, unsigned from, unsigned bits, uint8_t *out)
{
    size_t n = TR_BLOCK * bits / 8;
    uint8_t mask = (uint8_t)((1u << bits) - 1);

    memset(out, 0, n);
    for (size_t f = 0; f < 8 / bits; f++)
        for (size_t k = 0; k < n; k++)
            out[k] |= (uint8_t)((code[f * n + k] >> from & mask) << f * bits);
}

static void pack_codes(tr_panel_format f, const uint8_t *code, size_t row, uint8_t *out)
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

static uint8_t exponent_of(float d)
{
    uint32_t bits;

    memcpy(&bits, &d, sizeof bits);
    return (uint8_t)(bits >> 23 ? (bits >> 23) + 1 : bits >> 22);
}

static void pack_small(tr_small kind, const tr_block *b, size_t row, uint8_t *out)
{
    switch (kind) {
    case TR_SMALL_NONE:
        return;
    case TR_SMALL_EXPONENT:
        out[row] = exponent_of(b->d);
        return;
    case TR_SMALL_SCALE:
        out[row] = (uint8_t)b->scale[0];
        return;
    case TR_SMALL_SCALE_MIN:
        out[row] = (uint8_t)b->scale[0];
        out[TR_PANEL + row] = (uint8_t)b->min[0];
        return;
    case TR_SMALL_SCALES:
        out[row] = (uint8_t)b->scale[0];
        out[TR_PANEL + row] = (uint8_t)b->scale[1];
        return;
    case TR_SMALL_SCALES_MINS:
        out[row] = (uint8_t)(b->scale[0] | b->min[0] << 4);
        out[TR_PANEL + row] = (uint8_t)(b->scale[1] | b->min[1] << 4);
        return;
    }
}

static void pack_row(tr_type type, tr_panel_format f, size_t n_in, const void *row, size_t r,
                     uint8_t *panel)
{
    tr_panel_parts parts = tr_panel_parts_of(f, n_in);
    uint16_t *halves = (uint16_t *)(void *)(panel + parts.halves);
    size_t per_half = f.is_super ? TR_SUPER : 1;

    for (size_t i = 0; i < n_in / TR_BLOCK; i++) {
        tr_block b;
        tr_block_get(type, row, i, &b);
        pack_codes(f, b.code, r, panel + i * tr_panel_codes(f));
        pack_small(f.small, &b, r, panel + parts.small + i * f.n_small * TR_PANEL);
        uint16_t *half = halves + i / per_half * f.n_half * TR_PANEL;
        if (f.n_half > 0)
            half[r] = tr_f32_to_f16(b.d);
        if (f.n_half > 1)
            half[TR_PANEL + r] = tr_f32_to_f16(b.dmin);
    }
}

void tr_panel_pack(tr_type type, size_t n_in, const void *rows, size_t row_size, size_t n_rows,
                   void *panel)
{
    tr_panel_format f = tr_panel_format_of(type);

    TR_CHECK(tr_panels_has(type));
    TR_CHECK(n_rows >= 1);
    TR_CHECK(n_rows <= TR_PANEL);
    if (n_rows < TR_PANEL)
        memset(panel, 0, tr_panel_size(type, n_in));
    for (size_t r = 0; r < n_rows; r++)
        pack_row(type, f, n_in, (const uint8_t *)rows + r * row_size, r, panel);
}
