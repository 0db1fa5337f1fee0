/* kernels_neon_panels.c - products of 8-bit activations with panels, by ARM's SDOT.
 *
 * A vector holds four outputs, so a panel is four quarters.  One instruction adds four products of
 * signed bytes to each lane and takes the four activations from any lane of a vector of sixteen.
 * Codes of up to 6 bits are signed bytes as they are; what their offset adds is taken off with the
 * sums of the activations.  Codes of 8 bits, and levels, have none once they are signed.  As in the
 * other tables, a block's sums are exact and scaled sums are added in block order without a fused
 * multiply-add: an output has the bits that plain C gives it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_table.h"

#include <arm_neon.h>

enum {
    ROWS = 4,     /* of x that share one pass over a panel */
    QUARTERS = 4, /* of a panel */
    QUARTER = TR_PANEL / QUARTERS,
    VECTORS = TR_PANEL_VECTORS,
};

/* ---- codes ------------------------------------------------------------------------------- */

/* The low bits of all vectors of a block's quarter. */
TR_INLINE void unpack_low(tr_panel_format f, const uint8_t *codes, uint8x16_t *v)
{
    if (f.low == 8) {
        for (size_t j = 0; j < VECTORS; j++)
            v[j] = veorq_u8(vld1q_u8(codes + j * TR_PANEL_VECTOR), vdupq_n_u8(128));
        return;
    }
    const uint8x16_t mask = vdupq_n_u8((uint8_t)((1 << f.low) - 1));
    const size_t n = f.low; /* vectors in memory, of 8 / low fields each */
    for (size_t j = 0; j < n; j++) {
        uint8x16_t all = vld1q_u8(codes + j * TR_PANEL_VECTOR);
        for (size_t field = 0; field < VECTORS / n; field++)
            v[field * n + j] = all >> (uint8_t)(field * f.low) & mask;
    }
}

/* Put the high bits over them. */
TR_INLINE void unpack_high(tr_panel_format f, const uint8_t *codes, uint8x16_t *v)
{
    const uint8x16_t mask = vdupq_n_u8((uint8_t)(((1 << f.high) - 1) << f.low));
    const size_t n = f.high;

    for (size_t j = 0; j < n; j++) {
        uint8x16_t all = vld1q_u8(codes + (f.low + j) * TR_PANEL_VECTOR);
        for (size_t field = 0; field < VECTORS / n; field++) {
            size_t at = field * f.high;
            uint8x16_t moved =
                at < f.low ? all << (uint8_t)(f.low - at) : all >> (uint8_t)(at - f.low);
            v[field * n + j] |= moved & mask;
        }
    }
}

/* Vector j has inputs 4j..4j+3 of four rows. */
TR_INLINE void unpack(tr_panel_format f, int8x16_t levels, const uint8_t *codes, int8x16_t *v)
{
    uint8x16_t code[VECTORS];

    unpack_low(f, codes, code);
    if (f.high > 0)
        unpack_high(f, codes, code);
    for (size_t j = 0; j < VECTORS; j++)
        v[j] = f.has_levels ? vqtbl1q_s8(levels, code[j]) : vreinterpretq_s8_u8(code[j]);
}

/* What is still to be taken off the codes. */
TR_INLINE int32_t offset_of(tr_panel_format f)
{
    return f.low == 8 || f.has_levels ? 0 : f.offset;
}

/* ---- scales ------------------------------------------------------------------------------ */

/* The scales of one block of four rows. */
typedef struct {
    float32x4_t d;              /* times the scale where both halves have the same: that is exact */
    float32x4_t dmin;           /* of types with minima; likewise times the minimum */
    int32x4_t scale[2], min[2]; /* of types with a scale, or a minimum, for each half */
} scales;

TR_INLINE uint8x8_t four_bytes(const uint8_t *p)
{
    uint32_t four;

    memcpy(&four, p, sizeof four);
    return vcreate_u8(four);
}

TR_INLINE int32x4_t signed_bytes(const uint8_t *p)
{
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four_bytes(p)))));
}

TR_INLINE uint32x4_t unsigned_bytes(const uint8_t *p)
{
    return vmovl_u16(vget_low_u16(vmovl_u8(four_bytes(p))));
}

TR_INLINE float32x4_t halves_at(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

/* 2^(e - 128); two values of e give subnormals. */
TR_INLINE float32x4_t exponents_at(const uint8_t *p)
{
    uint32x4_t e = unsigned_bytes(p);
    uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));

    return vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(e, vdupq_n_u32(1)), normal, tiny));
}

TR_INLINE scales scales_at(tr_panel_format f, tr_panel_parts parts, const uint8_t *panel, size_t i,
                           size_t quarter)
{
    const uint8_t *small = panel + parts.small + i * f.n_small * TR_PANEL + quarter * QUARTER;
    const uint8_t *halves = panel + parts.halves +
                            (f.is_super ? i / TR_SUPER : i) * f.n_half * 2 * TR_PANEL +
                            quarter * 2 * QUARTER;
    scales s;

    s.d = f.small == TR_SMALL_EXPONENT ? exponents_at(small) : halves_at(halves);
    if (f.n_half > 1)
        s.dmin = halves_at(halves + 2 * TR_PANEL);
    if (f.small == TR_SMALL_SCALE || f.small == TR_SMALL_SCALE_MIN)
        s.d = vmulq_f32(s.d, vcvtq_f32_s32(signed_bytes(small)));
    if (f.small == TR_SMALL_SCALE_MIN)
        s.dmin = vmulq_f32(s.dmin, vcvtq_f32_u32(unsigned_bytes(small + TR_PANEL)));
    if (f.small == TR_SMALL_SCALES)
        for (size_t h = 0; h < 2; h++)
            s.scale[h] = signed_bytes(small + h * TR_PANEL);
    if (f.small == TR_SMALL_SCALES_MINS) {
        for (size_t h = 0; h < 2; h++) {
            uint32x4_t both = unsigned_bytes(small + h * TR_PANEL);
            s.scale[h] = vreinterpretq_s32_u32(vandq_u32(both, vdupq_n_u32(15)));
            s.min[h] = vreinterpretq_s32_u32(vshrq_n_u32(both, 4));
        }
    }
    return s;
}

/* ---- products ---------------------------------------------------------------------------- */

/* What sums over four vectors, half a block, add up to from `begin`; x has their activations. */
TR_INLINE int32x4_t half_dot(int32_t begin, const int8x16_t *v, int8x16_t x)
{
    int32x4_t sum = vdupq_n_s32(begin);

    sum = vdotq_laneq_s32(sum, v[0], x, 0);
    sum = vdotq_laneq_s32(sum, v[1], x, 1);
    sum = vdotq_laneq_s32(sum, v[2], x, 2);
    return vdotq_laneq_s32(sum, v[3], x, 3);
}

/* d * P - dmin * M of one block of four rows and one row of x. */
TR_INLINE float32x4_t block_product(tr_panel_format f, const scales *s, const int8x16_t *v,
                                    const int8_t *q, const int16_t *sum)
{
    int32x4_t a = half_dot(-offset_of(f) * sum[0], v, vld1q_s8(q));
    int32x4_t b = half_dot(-offset_of(f) * sum[1], v + 4, vld1q_s8(q + 16));
    int32x4_t p = tr_panel_has_two_scales(f) ? vmlaq_s32(vmulq_s32(a, s->scale[0]), b, s->scale[1])
                                             : vaddq_s32(a, b);
    float32x4_t t = vmulq_f32(s->d, vcvtq_f32_s32(p));

    if (f.small == TR_SMALL_SCALES_MINS) {
        int32x4_t m = vmlaq_n_s32(vmulq_n_s32(s->min[0], sum[0]), s->min[1], sum[1]);
        t = vsubq_f32(t, vmulq_f32(s->dmin, vcvtq_f32_s32(m)));
    } else if (f.n_half > 1) { /* dmin * min is exact, so this rounds as dmin * M does */
        t = vsubq_f32(t, vmulq_n_f32(s->dmin, (float)(sum[0] + sum[1])));
    }
    return t;
}

/* The sixteen outputs of a panel for n rows, out [n][TR_PANEL]; the type and n are constants where
 * this is inlined. */
TR_INLINE void panel_rows(tr_type type, const uint8_t *panel, size_t n_in, const tr_panel_rows *x,
                          size_t n, float (*out)[TR_PANEL])
{
    const tr_panel_format f = tr_panel_format_of(type);
    const tr_panel_parts parts = tr_panel_parts_of(f, n_in);
    const int8x16_t levels = f.has_levels ? vld1q_s8(tr_block_codes_of(type).level) : vdupq_n_s8(0);
    float32x4_t acc[ROWS][QUARTERS];

    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < QUARTERS; g++)
            acc[r][g] = vdupq_n_f32(0.0f);
    for (size_t i = 0; i < n_in / TR_BLOCK; i++) {
        for (size_t g = 0; g < QUARTERS; g++) {
            int8x16_t v[VECTORS];
            unpack(f, levels, panel + i * tr_panel_codes(f) + g * 4 * QUARTER, v);
            scales s = scales_at(f, parts, panel, i, g);
            for (size_t r = 0; r < n; r++) {
                float32x4_t t = block_product(f, &s, v, x->q[r] + TR_BLOCK * i, x->sum[r] + 2 * i);
                acc[r][g] = vaddq_f32(acc[r][g], vmulq_n_f32(t, x->scale[r][i]));
            }
        }
    }
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < QUARTERS; g++)
            vst1q_f32(&out[r][g * QUARTER], acc[r][g]);
}

TR_INLINE void matmul_panels(tr_type type, const tr_matrix *w, size_t out_begin, size_t out_end,
                             const uint8_t *x, size_t x_stride, size_t n_rows, float *y,
                             size_t y_stride)
{
    const size_t panel_size = tr_panel_size(type, w->n_in);

    /* A panel stays in the nearest cache while all rows pass over it. */
    for (size_t o = out_begin; o < out_end; o = (o / TR_PANEL + 1) * TR_PANEL) {
        const uint8_t *panel = (const uint8_t *)w->data + o / TR_PANEL * panel_size;
        size_t last = (o / TR_PANEL + 1) * TR_PANEL;
        size_t count = (last < out_end ? last : out_end) - o;
        for (size_t r = 0; r < n_rows; r += ROWS) {
            float out[ROWS][TR_PANEL];
            size_t n = n_rows - r < ROWS ? n_rows - r : ROWS;
            tr_panel_rows a = tr_panel_rows_of(x + r * x_stride, x_stride, w->n_in, n);
            if (n == ROWS)
                panel_rows(type, panel, w->n_in, &a, ROWS, out);
            else if (n == 1)
                panel_rows(type, panel, w->n_in, &a, 1, out);
            else
                panel_rows(type, panel, w->n_in, &a, n, out);
            for (size_t k = 0; k < n; k++)
                memcpy(y + (r + k) * y_stride + o, &out[k][o % TR_PANEL], count * sizeof *y);
        }
    }
}

/* The product for one type. */
#define PANELS(name, type)                                                                         \
    static void panels_##name(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x, \
                              size_t x_stride, size_t n_rows, float *y, size_t y_stride)           \
    {                                                                                              \
        matmul_panels(type, w, out_begin, out_end, x, x_stride, n_rows, y, y_stride);              \
    }

TR_PANEL_TYPES(PANELS)

void tr_kernels_neon_panels(tr_kernels *k)
{
#define INSTALL(name, type) k->panels[type] = panels_##name;
    TR_PANEL_TYPES(INSTALL)
#undef INSTALL
}
