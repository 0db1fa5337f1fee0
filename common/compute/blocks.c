/* blocks.c - any format's blocks, by a table.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/blocks.h"

#include "base/check.h"
#include "compute/block_formats.h"
#include "compute/kernels.h"

bool tr_block_has(tr_type type)
{
    return type < TR_TYPE_COUNT && tr_block_formats[type].get_scales;
}

tr_block_codes tr_block_codes_of(tr_type type)
{
    TR_CHECK(tr_block_has(type));
    return tr_block_formats[type].codes;
}

/* The file's block that has block i of 32. */
static const uint8_t *file_block(tr_type type, const void *row, size_t i, size_t *part)
{
    const tr_type_info *t = tr_type_get(type);

    if (t->block == TR_BLOCK) {
        *part = 0;
        return (const uint8_t *)row + i * t->size;
    }
    *part = i % TR_SUPER;
    return (const uint8_t *)row + i / TR_SUPER * t->size;
}

void tr_block_get_scales(tr_type type, const void *row, size_t i, tr_block_scales *out)
{
    size_t part;
    const uint8_t *p = file_block(type, row, i, &part);

    *out = (tr_block_scales){ 0 };
    tr_block_formats[type].get_scales(p, part, out);
}

const uint8_t *tr_block_nibbles(tr_type type, const void *row, size_t i)
{
    size_t part;
    const uint8_t *p = file_block(type, row, i, &part);

    return tr_block_formats[type].nibbles ? p + tr_block_formats[type].nibbles + part * 16 : NULL;
}

void tr_block_get_codes(tr_type type, const void *row, size_t i, uint8_t *code)
{
    size_t part;
    const uint8_t *p = file_block(type, row, i, &part);

    if (tr_block_formats[type].get_codes)
        tr_block_formats[type].get_codes(p, part, code);
    else
        tr_block_low_codes(p + tr_block_formats[type].nibbles + part * 16, code);
}

void tr_block_get(tr_type type, const void *row, size_t i, tr_block *out)
{
    tr_block_get_scales(type, row, i, &out->s);
    tr_block_get_codes(type, row, i, out->code);
}

float tr_block_exponent(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23; /* two are subnormal */
    float d;

    memcpy(&d, &bits, sizeof d);
    return d;
}

float tr_block_d(const tr_block_scales *s)
{
    return s->d_is_exponent ? tr_block_exponent((uint8_t)s->d) : tr_f16_to_f32(s->d);
}

float tr_block_dmin(const tr_block_scales *s)
{
    return tr_f16_to_f32(s->dmin);
}

void tr_block_values(const tr_block_codes *c, const tr_block *b, int8_t *q)
{
    for (size_t k = 0; k < TR_BLOCK; k++)
        q[k] = c->level ? c->level[b->code[k]] : (int8_t)(b->code[k] - c->offset);
}

void tr_block_floats(const tr_block_codes *c, const tr_block *b, float *out)
{
    float d = tr_block_d(&b->s);
    float dmin = tr_block_dmin(&b->s);
    int8_t q[TR_BLOCK];

    tr_block_values(c, b, q);
    for (size_t h = 0; h < 2; h++) {
        float scale = d * (float)b->s.scale[h];
        float min = dmin * (float)b->s.min[h];
        for (size_t k = h * 16; k < h * 16 + 16; k++)
            out[k] = scale * (float)q[k] - min;
    }
}
