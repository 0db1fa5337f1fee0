/* kernels_avx2_panels.c - products of 8-bit activations with panels, for AVX2.
 *
 * A vector holds eight outputs, so a panel is two halves.  Products of an unsigned and a signed
 * byte are added in pairs to 16 bits.  Codes of up to 6 bits are the unsigned side, and a few such
 * sums fit 16 bits before they are widened; codes of 8 bits, made signed, give their sign to x
 * first, which is why x must not be -128.  As in the other tables, a block's sums are exact and
 * scaled sums are added in block order: an output has the bits that plain C gives it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_table.h"

#include <immintrin.h>

enum {
    ROWS = 4,   /* of x that share one pass over a panel */
    HALVES = 2, /* of a panel */
    HALF = TR_PANEL / HALVES,
    HALF_VECTOR = TR_PANEL_VECTOR / HALVES, /* bytes */
    VECTORS = TR_PANEL_VECTORS,
};

/* ---- codes ------------------------------------------------------------------------------- */

/* Sixteen-bit lanes moved by a number of bits that the compiler knows once loops are unrolled. */
typedef uint16_t lanes_u16 __attribute__((vector_size(32)));

TR_INLINE __m256i moved_down(__m256i v, size_t bits)
{
    return (__m256i)((lanes_u16)v >> (uint16_t)bits);
}

TR_INLINE __m256i moved_up(__m256i v, size_t bits)
{
    return (__m256i)((lanes_u16)v << (uint16_t)bits);
}

TR_INLINE __m256i vector_at(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}

TR_INLINE bool is_signed(tr_panel_format f)
{
    return f.low == 8 || f.has_levels;
}

/* The low bits of all vectors of a block's half. */
TR_INLINE void unpack_low(tr_panel_format f, const uint8_t *codes, __m256i *v)
{
    if (f.low == 8) {
        for (size_t j = 0; j < VECTORS; j++)
            v[j] = _mm256_xor_si256(vector_at(codes + j * TR_PANEL_VECTOR),
                                    _mm256_set1_epi8((char)-128));
        return;
    }
    const __m256i mask = _mm256_set1_epi8((char)((1 << f.low) - 1));
    const size_t n = f.low; /* vectors in memory, of 8 / low fields each */
    for (size_t j = 0; j < n; j++) {
        __m256i all = vector_at(codes + j * TR_PANEL_VECTOR);
        for (size_t field = 0; field < VECTORS / n; field++)
            v[field * n + j] = _mm256_and_si256(moved_down(all, field * f.low), mask);
    }
}

/* Put the high bits over them. */
TR_INLINE void unpack_high(tr_panel_format f, const uint8_t *codes, __m256i *v)
{
    const __m256i mask = _mm256_set1_epi8((char)(((1 << f.high) - 1) << f.low));
    const size_t n = f.high;

    for (size_t j = 0; j < n; j++) {
        __m256i all = vector_at(codes + (f.low + j) * TR_PANEL_VECTOR);
        for (size_t field = 0; field < VECTORS / n; field++) {
            size_t at = field * f.high;
            __m256i moved = at < f.low ? moved_up(all, f.low - at) : moved_down(all, at - f.low);
            v[field * n + j] = _mm256_or_si256(v[field * n + j], _mm256_and_si256(moved, mask));
        }
    }
}

/* Vector j has inputs 4j..4j+3 of eight rows: signed values, or codes. */
TR_INLINE void unpack(tr_panel_format f, __m256i levels, const uint8_t *codes, __m256i *v)
{
    unpack_low(f, codes, v);
    if (f.high > 0)
        unpack_high(f, codes, v);
    if (f.has_levels)
        for (size_t j = 0; j < VECTORS; j++)
            v[j] = _mm256_shuffle_epi8(levels, v[j]);
}

/* ---- scales ------------------------------------------------------------------------------ */

/* The scales of one block of eight rows. */
typedef struct {
    __m256 d;        /* times the scale where both halves have the same: that is exact */
    __m256 dmin;     /* of types with minima */
    __m256 scale[2]; /* of types with a scale for each half of the block */
    __m256i min;     /* pairs of int16, for the two sums of x */
} scales;

TR_INLINE __m256i signed_bytes(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p));
}

TR_INLINE __m256i unsigned_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
}

TR_INLINE __m256 halves_at(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

/* 2^(e - 128); two values of e give subnormals. */
TR_INLINE __m256 exponents_at(const uint8_t *p)
{
    __m256i e = unsigned_bytes(p);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i is_normal = _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1));

    return _mm256_castsi256_ps(_mm256_blendv_epi8(tiny, normal, is_normal));
}

TR_INLINE __m256i pair_of(__m256i first, __m256i second)
{
    return _mm256_or_si256(first, _mm256_slli_epi32(second, 16));
}

TR_INLINE scales scales_at(tr_panel_format f, tr_panel_parts parts, const uint8_t *panel, size_t i,
                           size_t half)
{
    const uint8_t *small = panel + parts.small + i * f.n_small * TR_PANEL + half * HALF;
    const uint8_t *halves = panel + parts.halves +
                            (f.is_super ? i / TR_SUPER : i) * f.n_half * 2 * TR_PANEL +
                            half * 2 * HALF;
    const __m256i nibble = _mm256_set1_epi32(15);
    scales s = { .min = _mm256_set1_epi32(0x00010001) };

    s.d = f.small == TR_SMALL_EXPONENT ? exponents_at(small) : halves_at(halves);
    if (f.n_half > 1)
        s.dmin = halves_at(halves + 2 * TR_PANEL);
    if (f.small == TR_SMALL_SCALE || f.small == TR_SMALL_SCALE_MIN)
        s.d = _mm256_mul_ps(s.d, _mm256_cvtepi32_ps(signed_bytes(small)));
    if (f.small == TR_SMALL_SCALE_MIN) {
        __m256i min = unsigned_bytes(small + TR_PANEL);
        s.min = pair_of(min, min);
    }
    if (f.small == TR_SMALL_SCALES)
        for (size_t h = 0; h < 2; h++)
            s.scale[h] = _mm256_cvtepi32_ps(signed_bytes(small + h * TR_PANEL));
    if (f.small == TR_SMALL_SCALES_MINS) {
        __m256i both[2] = { unsigned_bytes(small), unsigned_bytes(small + TR_PANEL) };
        for (size_t h = 0; h < 2; h++)
            s.scale[h] = _mm256_cvtepi32_ps(_mm256_and_si256(both[h], nibble));
        s.min = pair_of(_mm256_srli_epi32(both[0], 4), _mm256_srli_epi32(both[1], 4));
    }
    return s;
}

/* ---- products ---------------------------------------------------------------------------- */

/* Four bytes of x in every lane. */
TR_INLINE __m256i four_of(const void *p)
{
    int32_t four;

    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

TR_INLINE __m256i widened(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Sums over four vectors: half a block. */
TR_INLINE __m256i half_dot(tr_panel_format f, const __m256i *v, const int8_t *q)
{
    const size_t fit = f.low + f.high <= 5 ? 4 : 2; /* vectors whose sums fit 16 bits */
    __m256i sum = _mm256_setzero_si256();

    if (is_signed(f)) {
        for (size_t j = 0; j < 4; j++) {
            __m256i x = _mm256_sign_epi8(four_of(q + 4 * j), v[j]);
            sum = _mm256_add_epi32(sum, widened(_mm256_maddubs_epi16(_mm256_abs_epi8(v[j]), x)));
        }
        return sum;
    }
    for (size_t j = 0; j < 4; j += fit) {
        __m256i pairs = _mm256_maddubs_epi16(v[j], four_of(q + 4 * j));
        for (size_t k = 1; k < fit; k++)
            pairs =
                _mm256_add_epi16(pairs, _mm256_maddubs_epi16(v[j + k], four_of(q + 4 * (j + k))));
        sum = _mm256_add_epi32(sum, widened(pairs));
    }
    return sum;
}

/* d * P - dmin * M of one block of eight rows and one row of x. */
TR_INLINE __m256 block_product(tr_panel_format f, const scales *s, const __m256i *v,
                               const int8_t *q, const int16_t *sum)
{
    const int32_t offset = is_signed(f) ? 0 : f.offset;
    const __m256i sums = four_of(sum);
    __m256i a = half_dot(f, v, q);
    __m256i b = half_dot(f, v + 4, q + 16);
    __m256 p;

    if (offset != 0 && tr_panel_has_two_scales(f)) {
        a = _mm256_sub_epi32(a, _mm256_madd_epi16(sums, _mm256_set1_epi32(offset)));
        b = _mm256_sub_epi32(b, _mm256_madd_epi16(sums, _mm256_set1_epi32(offset << 16)));
    } else if (offset != 0) {
        a = _mm256_sub_epi32(a, _mm256_madd_epi16(sums, _mm256_set1_epi16((int16_t)offset)));
    }
    if (tr_panel_has_two_scales(f)) /* each product, and their sum, has at most 24 bits */
        p = _mm256_add_ps(_mm256_mul_ps(s->scale[0], _mm256_cvtepi32_ps(a)),
                          _mm256_mul_ps(s->scale[1], _mm256_cvtepi32_ps(b)));
    else
        p = _mm256_cvtepi32_ps(_mm256_add_epi32(a, b));
    p = _mm256_mul_ps(s->d, p);
    if (f.n_half > 1) {
        __m256i m = _mm256_madd_epi16(sums, s->min);
        p = _mm256_sub_ps(p, _mm256_mul_ps(s->dmin, _mm256_cvtepi32_ps(m)));
    }
    return p;
}

/* The sixteen outputs of a panel for n rows, out [n][TR_PANEL]; the type and n are constants where
 * this is inlined. */
TR_INLINE void panel_rows(tr_type type, const uint8_t *panel, size_t n_in, const tr_panel_rows *x,
                          size_t n, float (*out)[TR_PANEL])
{
    const tr_panel_format f = tr_panel_format_of(type);
    const tr_panel_parts parts = tr_panel_parts_of(f, n_in);
    __m256i levels = _mm256_setzero_si256();
    __m256 acc[ROWS][HALVES];

    if (f.has_levels)
        levels = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const void *)tr_block_codes_of(type).level));
    for (size_t r = 0; r < n; r++)
        acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (size_t i = 0; i < n_in / TR_BLOCK; i++) {
        for (size_t h = 0; h < HALVES; h++) {
            __m256i v[VECTORS];
            unpack(f, levels, panel + i * tr_panel_codes(f) + h * HALF_VECTOR, v);
            scales s = scales_at(f, parts, panel, i, h);
            for (size_t r = 0; r < n; r++) {
                __m256 t = block_product(f, &s, v, x->q[r] + TR_BLOCK * i, x->sum[r] + 2 * i);
                acc[r][h] =
                    _mm256_add_ps(acc[r][h], _mm256_mul_ps(t, _mm256_set1_ps(x->scale[r][i])));
            }
        }
    }
    for (size_t r = 0; r < n; r++)
        for (size_t h = 0; h < HALVES; h++)
            _mm256_storeu_ps(&out[r][h * HALF], acc[r][h]);
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

void tr_kernels_avx2_panels(tr_kernels *k)
{
#define INSTALL(name, type) k->panels[type] = panels_##name;
    TR_PANEL_TYPES(INSTALL)
#undef INSTALL
}
