/* rows.c - where each row is, and how it comes apart.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/rows.h"

#include "compute/kernels.h"

#include <math.h>
#include <stdlib.h>

enum { BLOCK = 32, CODES = 16 }; /* MXFP4: values and bytes of a block */

/* ---- where ---------------------------------------------------------------------------------- */

static uint64_t rows_of_source(const tr_recipe *p)
{
    return p->n_rows / p->n_sources;
}

/* Rows of the output that a group of the source's gives. */
static uint64_t rows_of_group(const tr_recipe *p)
{
    switch (p->order) {
    case TR_ROWS_AS_THEY_ARE:
        return rows_of_source(p);
    case TR_ROWS_INTERLEAVED:
        return p->group;
    default:
        return p->group / 2;
    }
}

/* The row of a source that row q of what it gives is. */
static uint64_t place(const tr_recipe *p, uint64_t q)
{
    uint64_t per_group = rows_of_group(p);
    uint64_t first = q / per_group * p->group;
    uint64_t k = q % per_group;

    switch (p->order) {
    case TR_ROWS_INTERLEAVED:
        return first + k % 2 * (p->group / 2) + k / 2;
    case TR_ROWS_FIRST_HALF:
        return first + k;
    case TR_ROWS_SECOND_HALF:
        return first + p->group / 2 + k;
    case TR_ROWS_EVEN:
        return first + 2 * k;
    case TR_ROWS_ODD:
        return first + 2 * k + 1;
    default:
        return q;
    }
}

/* Rows q..q+n of one group lie in *low..*high of the source. */
static void stretch_of(const tr_recipe *p, uint64_t q, size_t n, uint64_t *low, uint64_t *high)
{
    *low = UINT64_MAX;
    *high = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = place(p, q + i);
        *low = at < *low ? at : *low;
        *high = at + 1 > *high ? at + 1 : *high;
    }
}

/* The longest stretch for n rows at a time. */
static size_t stretch_room(const tr_recipe *p, size_t n)
{
    switch (p->order) {
    case TR_ROWS_INTERLEAVED:
        return (size_t)p->group;
    case TR_ROWS_EVEN:
    case TR_ROWS_ODD:
        return 2 * n;
    default:
        return n;
    }
}

/* ---- what ----------------------------------------------------------------------------------- */

float tr_f8_e4m3(uint8_t code)
{
    int exponent = code >> 3 & 15;
    int mantissa = code & 7;
    float magnitude =
        exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);

    if (exponent == 15 && mantissa == 7)
        return NAN;
    return code & 0x80 ? -magnitude : magnitude;
}

/* Bytes of a row of a source, of which MXFP4 has the scales elsewhere. */
static size_t source_row_size(const tr_recipe *p)
{
    switch (p->source[0]->tensor->type) {
    case TR_ST_F32:
        return p->row_len * 4;
    case TR_ST_F16:
    case TR_ST_BF16:
        return p->row_len * 2;
    case TR_ST_U8:
        return p->row_len / BLOCK * CODES;
    default:
        return p->row_len;
    }
}

static void put_f8(const tr_row_reader *r, const uint8_t *codes, uint64_t row, uint8_t *to)
{
    const tr_recipe *p = r->recipe;
    const float *scales = (const float *)(const void *)r->scales;
    size_t per_row = (p->row_len + p->scale_block[1] - 1) / p->scale_block[1];
    const float *of_row = scales + row / p->scale_block[0] * per_row;

    for (size_t i = 0; i < p->row_len; i++) {
        float v = r->f8[codes[i]] * of_row[i / p->scale_block[1]];
        memcpy(to + i * sizeof v, &v, sizeof v);
    }
}

static void put_mxfp4(const tr_recipe *p, const uint8_t *codes, const uint8_t *scales, uint8_t *to)
{
    for (size_t b = 0; b < p->row_len / BLOCK; b++) {
        const uint8_t *pair = codes + b * CODES;
        uint8_t *block = to + b * (1 + CODES);
        block[0] = scales[b];
        for (size_t j = 0; j < CODES; j++) {
            uint8_t low = (uint8_t)(pair[j / 2] >> 4 * (j % 2) & 15);
            uint8_t high = (uint8_t)(pair[(j + 16) / 2] >> 4 * (j % 2) & 15);
            block[1 + j] = (uint8_t)(low | high << 4);
        }
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

static size_t n_scales(const tr_source *s)
{
    return (size_t)(s->tensor->dim[0] * s->tensor->dim[1]);
}

tr_status tr_row_reader_init(tr_row_reader *r, const tr_recipe *recipe, size_t n)
{
    size_t size = 0;

    *r = (tr_row_reader){ .recipe = recipe };
    if (recipe->values)
        return TR_OK;
    size_t room = stretch_room(recipe, n);
    bool fits = tr_mul_size(room, source_row_size(recipe), &size);
    r->stretch = fits ? malloc(size) : NULL;
    size_t scales = recipe->from == TR_TYPE_MXFP4 ? room * (recipe->row_len / BLOCK)
                    : recipe->scale[0]            ? n_scales(recipe->scale[0]) * sizeof(float)
                                                  : 1;
    for (size_t i = 0; i < 256; i++)
        r->f8[i] = tr_f8_e4m3((uint8_t)i);
    r->scales = malloc(scales);
    if (r->stretch && r->scales)
        return TR_OK;
    tr_row_reader_fini(r);
    return tr_fail(TR_E_MEMORY, "%s: no memory for %zu rows", recipe->name, room);
}

void tr_row_reader_fini(tr_row_reader *r)
{
    free(r->stretch);
    free(r->scales);
    *r = (tr_row_reader){ .recipe = NULL };
}

/* They are F32 or BF16; the latter come to lie behind where their floats go. */
static tr_status read_f8_scales(const tr_source *s, float *scales)
{
    size_t n = n_scales(s);
    uint16_t *half = (uint16_t *)(void *)scales + n;

    if (s->tensor->type == TR_ST_F32)
        return tr_safetensors_read(s->file, s->tensor, 0, n * sizeof *scales, scales);
    tr_status st = tr_safetensors_read(s->file, s->tensor, 0, n * sizeof *half, half);
    for (size_t i = 0; i < n && st == TR_OK; i++) {
        uint16_t one = half[i];
        tr_dequantise_row(TR_TYPE_BF16, &one, 1, &scales[i]);
    }
    return st;
}

static tr_status read_scales(tr_row_reader *r, size_t source, uint64_t low, uint64_t high)
{
    const tr_recipe *p = r->recipe;
    const tr_source *s = p->scale[source];
    size_t per_row = p->row_len / BLOCK;

    if (p->from == TR_TYPE_MXFP4)
        return tr_safetensors_read(s->file, s->tensor, low * per_row,
                                   (size_t)(high - low) * per_row, r->scales);
    if (!s || r->scales_of == source + 1)
        return TR_OK;
    r->scales_of = source + 1;
    return read_f8_scales(s, (float *)(void *)r->scales);
}

/* Rows q..q+n of what a source gives, all of one group. */
static tr_status read_group(tr_row_reader *r, size_t source, uint64_t q, size_t n, size_t row_size,
                            uint8_t *to)
{
    const tr_recipe *p = r->recipe;
    const tr_source *s = p->source[source];
    size_t size = source_row_size(p);
    uint64_t low, high;

    stretch_of(p, q, n, &low, &high);
    tr_status st = tr_safetensors_read(s->file, s->tensor, low * size, (size_t)(high - low) * size,
                                       r->stretch);
    if (st == TR_OK)
        st = read_scales(r, source, low, high);
    for (size_t i = 0; i < n && st == TR_OK; i++) {
        uint64_t row = place(p, q + i);
        const uint8_t *in = r->stretch + (row - low) * size;
        uint8_t *out = to + i * row_size;
        if (p->from == TR_TYPE_MXFP4)
            put_mxfp4(p, in, r->scales + (row - low) * (p->row_len / BLOCK), out);
        else if (s->tensor->type == TR_ST_F8_E4M3)
            put_f8(r, in, row, out);
        else
            memcpy(out, in, row_size);
    }
    return st;
}

tr_status tr_row_reader_read(tr_row_reader *r, uint64_t first, size_t n, uint8_t *to)
{
    const tr_recipe *p = r->recipe;
    tr_status st = TR_OK;
    size_t row_size = 0;

    tr_type_row_size(p->from, p->row_len, &row_size);
    if (p->values) {
        memcpy(to, (const uint8_t *)p->values + first * row_size, n * row_size);
        return TR_OK;
    }
    uint64_t per_source = rows_of_source(p);
    uint64_t per_group = rows_of_group(p);
    while (n > 0 && st == TR_OK) {
        uint64_t q = first % per_source;
        uint64_t left = per_group - q % per_group;
        size_t part = left < n ? (size_t)left : n;
        st = read_group(r, (size_t)(first / per_source), q, part, row_size, to);
        first += part;
        to += part * row_size;
        n -= part;
    }
    return st;
}
