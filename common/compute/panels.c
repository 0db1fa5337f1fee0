/* panels.c - from rows to panels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/panels.h"

#include "base/check.h"
#include "compute/quant.h"

enum { VECTOR = 64 };

bool tr_panels_has(tr_type type)
{
    return type == TR_TYPE_Q8_0 || type == TR_TYPE_Q4_0;
}

/* Bytes of the codes of one block of sixteen rows. */
static size_t codes_size(tr_type type)
{
    return type == TR_TYPE_Q8_0 ? 8 * VECTOR : 4 * VECTOR;
}

size_t tr_panel_size(tr_type type, size_t n_in)
{
    TR_CHECK(tr_panels_has(type));
    return n_in / 32 * (codes_size(type) + TR_PANEL * sizeof(uint16_t));
}

static void pack_q8_0(const tr_block_q8_0 *b, size_t row, uint8_t *codes)
{
    for (size_t k = 0; k < 32; k++)
        codes[k / 4 * VECTOR + 4 * row + k % 4] = (uint8_t)(b->q[k] + 128);
}

/* In the file low nibbles are inputs 0..15 and high ones 16..31, which are vectors 0..3 and 4..7.
 */
static void pack_q4_0(const tr_block_q4_0 *b, size_t row, uint8_t *codes)
{
    for (size_t k = 0; k < 16; k++)
        codes[k / 4 * VECTOR + 4 * row + k % 4] = b->q[k];
}

void tr_panel_pack(tr_type type, size_t n_in, const void *rows, size_t row_size, size_t n_rows,
                   void *panel)
{
    size_t n_blocks = n_in / 32;
    size_t size = codes_size(type);
    uint8_t *codes = panel;
    uint16_t *scales = (uint16_t *)(void *)(codes + n_blocks * size);

    TR_CHECK(n_rows >= 1);
    TR_CHECK(n_rows <= TR_PANEL);
    if (n_rows < TR_PANEL)
        memset(panel, 0, tr_panel_size(type, n_in));
    for (size_t r = 0; r < n_rows; r++) {
        const uint8_t *row = (const uint8_t *)rows + r * row_size;
        for (size_t i = 0; i < n_blocks; i++) {
            if (type == TR_TYPE_Q8_0) {
                const tr_block_q8_0 *b = (const tr_block_q8_0 *)(const void *)row + i;
                pack_q8_0(b, r, codes + i * size);
                scales[i * TR_PANEL + r] = b->d;
            } else {
                const tr_block_q4_0 *b = (const tr_block_q4_0 *)(const void *)row + i;
                pack_q4_0(b, r, codes + i * size);
                scales[i * TR_PANEL + r] = b->d;
            }
        }
    }
}
