/* kernels_avx512_panels.c - products of 8-bit activations with panels, by VNNI.
 *
 * One vector holds sixteen outputs.  For a block of 32 inputs eight instructions add 512 products
 * (vpdpbusd: four unsigned by signed bytes a lane); then the sums become floats, are scaled and
 * added, in block order and without a fused multiply-add: so an output has the bits that plain C
 * gives it.  Weights of a block are unpacked once for up to ROWS rows of activations.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_table.h"

#include <immintrin.h>

enum {
    ROWS = TR_PANEL_ROWS, /* rows of x that share one pass over a panel */
    STREAMS = 4,          /* panels that are worked on side by side for one row of x, */
    FEW = 4,
    PAIR = 2,    /* and for up to FEW rows */
    MAX_ACC = 8, /* vectors of outputs in one pass */
    VECTORS = TR_PANEL_VECTORS,
    SEGMENT = 64, /* blocks that are prepared for together */
};

TR_INLINE __m512i vector_at(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

/* Sixteen-bit lanes moved by a number of bits that the compiler knows once loops are unrolled. */
typedef uint16_t lanes_u16 __attribute__((vector_size(64)));

TR_INLINE __m512i moved_down(__m512i v, size_t bits)
{
    return (__m512i)((lanes_u16)v >> (uint16_t)bits);
}

TR_INLINE __m512i moved_up(__m512i v, size_t bits)
{
    return (__m512i)((lanes_u16)v << (uint16_t)bits);
}

/* (a & mask) | b */
TR_INLINE __m512i and_or(__m512i a, __m512i mask, __m512i b)
{
    return _mm512_ternarylogic_epi32(a, mask, b, 0xea);
}

/* The low bits of all vectors of a block. */
TR_INLINE void unpack_low(tr_panel_format f, const uint8_t *codes, __m512i *v)
{
    if (f.low == 8) {
        for (size_t j = 0; j < VECTORS; j++)
            v[j] = vector_at(codes + j * TR_PANEL_VECTOR);
        return;
    }
    const __m512i mask = _mm512_set1_epi8((char)((1 << f.low) - 1));
    const size_t n = f.low; /* vectors in memory, of 8 / low fields each */
    for (size_t j = 0; j < n; j++) {
        __m512i all = vector_at(codes + j * TR_PANEL_VECTOR);
        for (size_t field = 0; field < VECTORS / n; field++)
            v[field * n + j] = _mm512_and_si512(moved_down(all, field * f.low), mask);
    }
}

/* Put the high bits over them. */
TR_INLINE void unpack_high(tr_panel_format f, const uint8_t *codes, __m512i *v)
{
    const __m512i mask = _mm512_set1_epi8((char)(((1 << f.high) - 1) << f.low));
    const size_t n = f.high;

    for (size_t j = 0; j < n; j++) {
        __m512i all = vector_at(codes + (f.low + j) * TR_PANEL_VECTOR);
        for (size_t field = 0; field < VECTORS / n; field++) {
            size_t at = field * f.high;
            __m512i moved = at < f.low ? moved_up(all, f.low - at) : moved_down(all, at - f.low);
            v[field * n + j] = and_or(moved, mask, v[field * n + j]);
        }
    }
}

/* The levels of a type plus 128. */
TR_INLINE __m512i levels_of(tr_type type)
{
    uint8_t level[TR_BLOCK_LEVELS];

    for (size_t i = 0; i < TR_BLOCK_LEVELS; i++)
        level[i] = (uint8_t)(tr_block_codes_of(type).level[i] ^ 0x80);
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)level));
}

/* Unsigned codes: vector j has inputs 4j..4j+3 of sixteen rows. */
TR_INLINE void unpack(tr_panel_format f, __m512i levels, const uint8_t *codes, __m512i *v)
{
    unpack_low(f, codes, v);
    if (f.high > 0)
        unpack_high(f, codes, v);
    if (f.has_levels)
        for (size_t j = 0; j < VECTORS; j++)
            v[j] = _mm512_shuffle_epi8(levels, v[j]);
}

/* Four bytes of x in every lane. */
TR_INLINE __m512i four_of(const void *p)
{
    int32_t four;

    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Sixteen small bytes as numbers. */
TR_INLINE __m512i signed_bytes(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p));
}

TR_INLINE __m512i unsigned_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
}

TR_INLINE __m512 halves_at(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

/* 2^(e - 128); two values of e give subnormals. */
TR_INLINE __m512 exponents_at(const uint8_t *p)
{
    __m512i e = unsigned_bytes(p);
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    __mmask16 is_tiny = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));

    return _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_tiny, normal, tiny));
}

/* The scales of one block of sixteen rows. */
typedef struct {
    __m512 d;        /* times the scale where both halves have the same: that is exact */
    __m512 dmin;     /* likewise times the minimum */
    __m512 scale[2]; /* of types with a scale for each half */
    __m512i min;     /* of types with a minimum for each half: pairs of int16 */
} scales;

TR_INLINE __m512i pair_of(__m512i first, __m512i second)
{
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
}

TR_INLINE scales scales_at(tr_panel_format f, tr_panel_parts parts, const uint8_t *panel, size_t i)
{
    const uint8_t *small = panel + parts.small + i * f.n_small * TR_PANEL;
    const uint8_t *half = panel + parts.halves + (f.is_super ? i / TR_SUPER : i) * f.n_half * 32;
    const __m512i nibble = _mm512_set1_epi32(15);
    scales s;

    s.d = f.small == TR_SMALL_EXPONENT ? exponents_at(small) : halves_at(half);
    if (f.n_half > 1)
        s.dmin = halves_at(half + 32);
    if (f.small == TR_SMALL_SCALE || f.small == TR_SMALL_SCALE_MIN)
        s.d = _mm512_mul_ps(s.d, _mm512_cvtepi32_ps(signed_bytes(small)));
    if (f.small == TR_SMALL_SCALE_MIN)
        s.dmin = _mm512_mul_ps(s.dmin, _mm512_cvtepi32_ps(unsigned_bytes(small + TR_PANEL)));
    if (f.small == TR_SMALL_SCALES)
        for (size_t h = 0; h < 2; h++)
            s.scale[h] = _mm512_cvtepi32_ps(signed_bytes(small + h * TR_PANEL));
    if (f.small == TR_SMALL_SCALES_MINS) {
        __m512i both[2] = { unsigned_bytes(small), unsigned_bytes(small + TR_PANEL) };
        for (size_t h = 0; h < 2; h++)
            s.scale[h] = _mm512_cvtepi32_ps(_mm512_and_si512(both[h], nibble));
        s.min = pair_of(_mm512_srli_epi32(both[0], 4), _mm512_srli_epi32(both[1], 4));
    }
    return s;
}

/* What goes with the blocks of a segment, for each row of x: made once for all outputs of a panel,
 * because multipliers are what limits the loop below. */
typedef struct {
    int32_t offset[ROWS][2 * SEGMENT]; /* what sums begin with, one or two of a block */
    float sum[ROWS][SEGMENT];          /* of x */
} prepared;

TR_INLINE int32_t offset_of(tr_panel_format f)
{
    return f.has_levels ? 128 : f.offset;
}

TR_INLINE void prepare(tr_panel_format f, const tr_panel_rows *x, size_t n, size_t first,
                       size_t n_blocks, prepared *out)
{
    const __m512i offsets = _mm512_set1_epi32(-offset_of(f));
    const __m512i ones = _mm512_set1_epi16(1);

    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < n_blocks; i += 16) {
            size_t left = n_blocks - i;
            __mmask32 pairs = left < 16 ? (1u << 2 * left) - 1 : ~0u;
            __m512i sums = _mm512_maskz_loadu_epi16(pairs, x->sum[r] + 2 * (first + i));
            __m512i both = _mm512_madd_epi16(sums, ones);
            if (tr_panel_has_two_scales(f)) {
                __m512i lo = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sums));
                __m512i hi = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sums, 1));
                _mm512_storeu_si512(&out->offset[r][2 * i], _mm512_mullo_epi32(lo, offsets));
                _mm512_storeu_si512(&out->offset[r][2 * i + 16], _mm512_mullo_epi32(hi, offsets));
            } else {
                _mm512_storeu_si512(&out->offset[r][i], _mm512_mullo_epi32(both, offsets));
            }
            if (f.n_half > 1)
                _mm512_storeu_ps(&out->sum[r][i], _mm512_cvtepi32_ps(both));
        }
    }
}

/* What the sums of block i of a segment, or of its two halves, begin with for row r of x. */
TR_INLINE void block_begin(tr_panel_format f, const prepared *ready, size_t r, size_t i, __m512i *a,
                           __m512i *b)
{
    *a = *b = _mm512_setzero_si512();
    if (offset_of(f) == 0)
        return;
    if (tr_panel_has_two_scales(f)) {
        *a = _mm512_set1_epi32(ready->offset[r][2 * i]);
        *b = _mm512_set1_epi32(ready->offset[r][2 * i + 1]);
    } else {
        *a = _mm512_set1_epi32(ready->offset[r][i]);
    }
}

/* d * P - dmin * M of that block, from the sums over its halves; sum is x's for that block. */
TR_INLINE __m512 block_end(tr_panel_format f, const scales *s, __m512i a, __m512i b,
                           const prepared *ready, size_t r, size_t i, const int16_t *sum)
{
    __m512 p;

    if (tr_panel_has_two_scales(f)) /* each product, and their sum, has at most 24 bits */
        p = _mm512_add_ps(_mm512_mul_ps(s->scale[0], _mm512_cvtepi32_ps(a)),
                          _mm512_mul_ps(s->scale[1], _mm512_cvtepi32_ps(b)));
    else
        p = _mm512_cvtepi32_ps(_mm512_add_epi32(a, b));
    p = _mm512_mul_ps(s->d, p);
    if (f.small == TR_SMALL_SCALES_MINS) {
        __m512i m = _mm512_dpwssd_epi32(_mm512_setzero_si512(), four_of(sum), s->min);
        p = _mm512_sub_ps(p, _mm512_mul_ps(s->dmin, _mm512_cvtepi32_ps(m)));
    } else if (f.n_half > 1) { /* dmin * min is exact, so this rounds as dmin * M does */
        p = _mm512_sub_ps(p, _mm512_mul_ps(s->dmin, _mm512_set1_ps(ready->sum[r][i])));
    }
    return p;
}

/* The product with a block of one panel, whose codes are v; q are x's values.  Products run in two
 * chains, one for each half: so that they don't wait for each other, and because some types scale
 * the halves apart. */
TR_INLINE __m512 block_product(tr_panel_format f, const scales *s, const __m512i *v,
                               const prepared *ready, size_t r, size_t i, const int8_t *q,
                               const int16_t *sum)
{
    __m512i a, b;

    block_begin(f, ready, r, i, &a, &b);
    for (size_t j = 0; j < VECTORS / 2; j++) {
        a = _mm512_dpbusd_epi32(a, v[j], four_of(q + 4 * j));
        b = _mm512_dpbusd_epi32(b, v[j + 4], four_of(q + 4 * j + 16));
    }
    return block_end(f, s, a, b, ready, r, i, sum);
}

/* The same for a pair of panels, which take four values of x at the same time: else the compiler
 * would keep all of them in registers that the codes need. */
TR_INLINE void pair_product(tr_panel_format f, const scales *s, __m512i (*v)[VECTORS],
                            const prepared *ready, size_t r, size_t i, const int8_t *q,
                            const int16_t *sum, __m512 *out)
{
    __m512i a[PAIR], b[PAIR];

    for (size_t p = 0; p < PAIR; p++)
        block_begin(f, ready, r, i, &a[p], &b[p]);
    for (size_t j = 0; j < VECTORS / 2; j++) {
        const __m512i first = four_of(q + 4 * j);
        const __m512i second = four_of(q + 4 * j + 16);
        for (size_t p = 0; p < PAIR; p++) {
            a[p] = _mm512_dpbusd_epi32(a[p], v[p][j], first);
            b[p] = _mm512_dpbusd_epi32(b[p], v[p][j + 4], second);
        }
    }
    for (size_t p = 0; p < PAIR; p++)
        out[p] = block_end(f, &s[p], a[p], b[p], ready, r, i, sum);
}

/* What a product is about; the type is a constant where this is inlined. */
typedef struct {
    tr_type type;
    size_t n_in, panel_size;
} shape;

/* Ask for the codes of block i of the panels after these: they come while these are worked on. */
TR_INLINE void next_prefetch(shape s, const uint8_t *panels, size_t n_panels, size_t i)
{
    const size_t size = tr_panel_codes(tr_panel_format_of(s.type));

    for (size_t p = n_panels; p < 2 * n_panels; p++)
        for (size_t at = 0; at < size; at += TR_PANEL_VECTOR)
            _mm_prefetch((const char *)panels + p * s.panel_size + i * size + at, _MM_HINT_T1);
}

/* Sixteen outputs of each of n_panels panels (one after the other in memory) for n rows, out
 * [n_panels][n]; n_panels and n are constants where this is inlined. */
TR_INLINE void panels_rows(shape s, const uint8_t *panels, size_t n_panels, const tr_panel_rows *x,
                           size_t n, __m512 *out)
{
    const tr_panel_format f = tr_panel_format_of(s.type);
    const tr_panel_parts parts = tr_panel_parts_of(f, s.n_in);
    const size_t n_blocks = s.n_in / TR_BLOCK;
    const __m512i levels = f.has_levels ? levels_of(s.type) : _mm512_setzero_si512();
    __m512 acc[MAX_ACC];

    for (size_t i = 0; i < n_panels * n; i++)
        acc[i] = _mm512_setzero_ps();
    for (size_t first = 0; first < n_blocks; first += SEGMENT) {
        size_t count = n_blocks - first < SEGMENT ? n_blocks - first : SEGMENT;
        prepared ready;
        prepare(f, x, n, first, count, &ready);
        for (size_t i = 0; i < count; i++) {
            for (size_t p = 0; p < n_panels; p++) {
                const uint8_t *panel = panels + p * s.panel_size;
                const size_t at = first + i;
                __m512i v[VECTORS];
                if (n_panels == 1)
                    next_prefetch(s, panel, 1, at);
                unpack(f, levels, panel + at * tr_panel_codes(f), v);
                scales w = scales_at(f, parts, panel, at);
                for (size_t r = 0; r < n; r++) {
                    __m512 t = block_product(f, &w, v, &ready, r, i, x->q[r] + TR_BLOCK * at,
                                             x->sum[r] + 2 * at);
                    t = _mm512_mul_ps(t, _mm512_set1_ps(x->scale[r][at]));
                    acc[p * n + r] = _mm512_add_ps(acc[p * n + r], t);
                }
            }
        }
    }
    for (size_t i = 0; i < n_panels * n; i++)
        out[i] = acc[i];
}

/* The sixteen outputs of each of a pair of panels for n rows, out [PAIR][n]; n is a constant where
 * this is inlined. */
TR_INLINE void pair_rows(shape s, const uint8_t *panels, const tr_panel_rows *x, size_t n,
                         __m512 *out)
{
    const tr_panel_format f = tr_panel_format_of(s.type);
    const tr_panel_parts parts = tr_panel_parts_of(f, s.n_in);
    const size_t n_blocks = s.n_in / TR_BLOCK;
    const __m512i levels = f.has_levels ? levels_of(s.type) : _mm512_setzero_si512();
    __m512 acc[MAX_ACC];

    for (size_t i = 0; i < PAIR * n; i++)
        acc[i] = _mm512_setzero_ps();
    for (size_t first = 0; first < n_blocks; first += SEGMENT) {
        size_t count = n_blocks - first < SEGMENT ? n_blocks - first : SEGMENT;
        prepared ready;
        prepare(f, x, n, first, count, &ready);
        for (size_t i = 0; i < count; i++) {
            const size_t at = first + i;
            __m512i v[PAIR][VECTORS];
            scales w[PAIR];
            next_prefetch(s, panels, PAIR, at);
            for (size_t p = 0; p < PAIR; p++) {
                const uint8_t *panel = panels + p * s.panel_size;
                unpack(f, levels, panel + at * tr_panel_codes(f), v[p]);
                w[p] = scales_at(f, parts, panel, at);
            }
            for (size_t r = 0; r < n; r++) {
                __m512 t[PAIR];
                pair_product(f, w, v, &ready, r, i, x->q[r] + TR_BLOCK * at, x->sum[r] + 2 * at, t);
                for (size_t p = 0; p < PAIR; p++)
                    acc[p * n + r] = _mm512_add_ps(
                        acc[p * n + r], _mm512_mul_ps(t[p], _mm512_set1_ps(x->scale[r][at])));
            }
        }
    }
    for (size_t i = 0; i < PAIR * n; i++)
        out[i] = acc[i];
}

/* Panels that are worked on side by side.  With few rows the weights come from memory, and a
 * processor fetches several streams faster than one; with many the registers are for rows. */
TR_INLINE size_t panels_for(size_t n_rows, size_t n_left)
{
    if (n_rows == 1 && n_left >= STREAMS)
        return STREAMS;
    return n_rows <= FEW && n_left >= PAIR ? PAIR : 1;
}

TR_INLINE void panels_any(shape s, const uint8_t *panels, size_t n_panels, const tr_panel_rows *x,
                          size_t n, __m512 *out)
{
    if (n_panels == STREAMS) {
        panels_rows(s, panels, STREAMS, x, 1, out);
        return;
    }
    if (n_panels == PAIR) {
        if (n == 1)
            pair_rows(s, panels, x, 1, out);
        else if (n == 2)
            pair_rows(s, panels, x, 2, out);
        else if (n == 3)
            pair_rows(s, panels, x, 3, out);
        else
            pair_rows(s, panels, x, FEW, out);
        return;
    }
    switch (n) {
    case 1:
        panels_rows(s, panels, 1, x, 1, out);
        return;
    case 2:
        panels_rows(s, panels, 1, x, 2, out);
        return;
    case 3:
        panels_rows(s, panels, 1, x, 3, out);
        return;
    case 4:
        panels_rows(s, panels, 1, x, 4, out);
        return;
    case 5:
        panels_rows(s, panels, 1, x, 5, out);
        return;
    case 6:
        panels_rows(s, panels, 1, x, 6, out);
        return;
    case 7:
        panels_rows(s, panels, 1, x, 7, out);
        return;
    default:
        panels_rows(s, panels, 1, x, ROWS, out);
    }
}

/* Which lanes of panel p are outputs begin..end-1. */
TR_INLINE __mmask16 lanes_in(size_t p, size_t begin, size_t end)
{
    size_t lo = begin > p * TR_PANEL ? begin - p * TR_PANEL : 0;
    size_t hi = end < (p + 1) * TR_PANEL ? end - p * TR_PANEL : TR_PANEL;

    return (__mmask16)((0xffffu << lo) & (0xffffu >> (TR_PANEL - hi)));
}

TR_INLINE void matmul_panels(tr_type type, const tr_matrix *w, size_t out_begin, size_t out_end,
                             const uint8_t *x, size_t x_stride, size_t n_rows, float *y,
                             size_t y_stride)
{
    const shape s = { type, w->n_in, tr_panel_size(type, w->n_in) };
    size_t end = (out_end + TR_PANEL - 1) / TR_PANEL;
    size_t n_panels;

    /* A panel stays in the nearest cache while all rows pass over it. */
    for (size_t p = out_begin / TR_PANEL; p < end; p += n_panels) {
        n_panels = panels_for(n_rows, end - p);
        for (size_t r = 0; r < n_rows; r += ROWS) {
            __m512 out[MAX_ACC];
            size_t n = n_rows - r < ROWS ? n_rows - r : ROWS;
            tr_panel_rows a = tr_panel_rows_of(x + r * x_stride, x_stride, w->n_in, n);
            panels_any(s, (const uint8_t *)w->data + p * s.panel_size, n_panels, &a, n, out);
            for (size_t i = 0; i < n_panels * n; i++)
                _mm512_mask_storeu_ps(y + (r + i % n) * y_stride + (p + i / n) * TR_PANEL,
                                      lanes_in(p + i / n, out_begin, out_end), out[i]);
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

/* Eight chains that don't wait for each other: 64 products an instruction. */
static double int8_peak(size_t rounds, int32_t *sink)
{
    enum { CHAINS = 8 };
    __m512i acc[CHAINS];
    __m512i a = _mm512_set1_epi32(*sink | 0x01020304);
    __m512i b = _mm512_set1_epi32(0x04030201);

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_epi32((int32_t)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    *sink = _mm512_reduce_add_epi32(acc[0]);
    return 2.0 * 64 * CHAINS * (double)rounds;
}

void tr_kernels_avx512_panels(tr_kernels *k)
{
#define INSTALL(name, type) k->panels[type] = panels_##name;
    TR_PANEL_TYPES(INSTALL)
#undef INSTALL
    k->int8_peak = int8_peak;
}
