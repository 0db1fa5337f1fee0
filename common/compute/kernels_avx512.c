/* kernels_avx512.c - products of 8-bit activations with panels, by VNNI.
 *
 * One vector holds sixteen outputs.  For a block of 32 inputs eight instructions add 512 products
 * (vpdpbusd: four unsigned by signed bytes a lane); then the sums become floats, are scaled and
 * added, in block order and without a fused multiply-add: so an output has the bits that plain C
 * gives it.  Weights of a block are unpacked once for up to ROWS rows of activations.
 *
 * Everything else is the AVX2 table's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_table.h"

#include "compute/panels.h"

#include <immintrin.h>

enum {
    ROWS = 8,     /* rows of x that share one pass over a panel */
    STREAMED = 4, /* rows up to which panels are worked on side by side, */
    STREAMS = 4,  /* so many */
    MAX_ACC = 16, /* vectors of outputs in one pass */
    VECTORS = 8,  /* of a block, once unpacked */
};

/* What the rows of one pass need from x. */
typedef struct {
    const int8_t *q[ROWS];
    const float *scale[ROWS];
    const int16_t *sum[ROWS];
} activations;

static inline activations activations_of(const uint8_t *x, size_t stride, size_t n_in, size_t n)
{
    activations a;

    for (size_t r = 0; r < n; r++) {
        const void *row = x + r * stride;
        a.q[r] = tr_q8_values(row);
        a.scale[r] = tr_q8_scales(row, n_in);
        a.sum[r] = tr_q8_sums(row, n_in);
    }
    return a;
}

static inline void unpack_q8_0(const uint8_t *codes, __m512i *v)
{
    for (size_t j = 0; j < VECTORS; j++)
        v[j] = _mm512_loadu_si512(codes + j * 64);
}

static inline void unpack_q4_0(const uint8_t *codes, __m512i *v)
{
    const __m512i low = _mm512_set1_epi8(15);

    for (size_t j = 0; j < VECTORS / 2; j++) {
        __m512i both = _mm512_loadu_si512(codes + j * 64);
        v[j] = _mm512_and_si512(both, low);
        v[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
}

/* Four bytes of x in every lane. */
static inline __m512i four_of(const int8_t *q)
{
    int32_t four;

    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* The integer sums of one block: two chains, so that they don't wait for each other. */
static inline __m512i block_sums(const __m512i *v, const int8_t *q, int32_t begin)
{
    __m512i a = _mm512_set1_epi32(begin);
    __m512i b = _mm512_setzero_si512();

    for (size_t j = 0; j < VECTORS; j += 2) {
        a = _mm512_dpbusd_epi32(a, v[j], four_of(q + 4 * j));
        b = _mm512_dpbusd_epi32(b, v[j + 1], four_of(q + 4 * j + 4));
    }
    return _mm512_add_epi32(a, b);
}

/* Sixteen outputs of each of n_panels panels (one after the other in memory) for n rows, out
 * [n_panels][n]; n_panels, n and is_q4 are constants where this is inlined. */
static inline __attribute__((always_inline)) void panels_rows(const uint8_t *panels,
                                                              size_t panel_size, size_t n_panels,
                                                              size_t n_in, const activations *x,
                                                              size_t n, bool is_q4, __m512 *out)
{
    const size_t size = is_q4 ? 256 : 512;
    const int32_t offset = is_q4 ? -8 : -128;
    __m512 acc[MAX_ACC];

    for (size_t i = 0; i < n_panels * n; i++)
        acc[i] = _mm512_setzero_ps();
    for (size_t i = 0; i < n_in / 32; i++) {
        for (size_t p = 0; p < n_panels; p++) {
            const uint8_t *codes = panels + p * panel_size;
            const uint8_t *scales = codes + n_in / 32 * size;
            __m512i v[VECTORS];
            if (is_q4)
                unpack_q4_0(codes + i * size, v);
            else
                unpack_q8_0(codes + i * size, v);
            __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(scales + i * 32)));
            for (size_t r = 0; r < n; r++) {
                __m512i sums = block_sums(v, x->q[r] + 32 * i, offset * x->sum[r][i]);
                __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(x->scale[r][i]));
                acc[p * n + r] =
                    _mm512_add_ps(acc[p * n + r], _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums)));
            }
        }
    }
    for (size_t i = 0; i < n_panels * n; i++)
        out[i] = acc[i];
}

/* Panels that are worked on side by side.  With few rows the weights come from memory, and a
 * processor fetches several streams faster than one; with many the registers are for rows. */
static inline size_t panels_for(size_t n, size_t n_left)
{
    return n <= STREAMED && n_left >= STREAMS ? STREAMS : 1;
}

static inline __attribute__((always_inline)) void panels_any(const uint8_t *panels,
                                                             size_t panel_size, size_t n_panels,
                                                             size_t n_in, const activations *x,
                                                             size_t n, bool is_q4, __m512 *out)
{
    if (n_panels == STREAMS) {
        if (n == 1)
            panels_rows(panels, panel_size, STREAMS, n_in, x, 1, is_q4, out);
        else if (n == 2)
            panels_rows(panels, panel_size, STREAMS, n_in, x, 2, is_q4, out);
        else if (n == 3)
            panels_rows(panels, panel_size, STREAMS, n_in, x, 3, is_q4, out);
        else
            panels_rows(panels, panel_size, STREAMS, n_in, x, 4, is_q4, out);
        return;
    }
    switch (n) {
    case 1:
        panels_rows(panels, panel_size, 1, n_in, x, 1, is_q4, out);
        return;
    case 2:
        panels_rows(panels, panel_size, 1, n_in, x, 2, is_q4, out);
        return;
    case 3:
        panels_rows(panels, panel_size, 1, n_in, x, 3, is_q4, out);
        return;
    case 4:
        panels_rows(panels, panel_size, 1, n_in, x, 4, is_q4, out);
        return;
    case 5:
        panels_rows(panels, panel_size, 1, n_in, x, 5, is_q4, out);
        return;
    case 6:
        panels_rows(panels, panel_size, 1, n_in, x, 6, is_q4, out);
        return;
    case 7:
        panels_rows(panels, panel_size, 1, n_in, x, 7, is_q4, out);
        return;
    default:
        panels_rows(panels, panel_size, 1, n_in, x, ROWS, is_q4, out);
    }
}

/* Which lanes of panel p are outputs begin..end-1. */
static inline __mmask16 lanes_in(size_t p, size_t begin, size_t end)
{
    size_t lo = begin > p * TR_PANEL ? begin - p * TR_PANEL : 0;
    size_t hi = end < (p + 1) * TR_PANEL ? end - p * TR_PANEL : TR_PANEL;

    return (__mmask16)((0xffffu << lo) & (0xffffu >> (TR_PANEL - hi)));
}

static inline __attribute__((always_inline)) void
matmul_panels(const tr_matrix *w, size_t out_begin, size_t out_end, const uint8_t *x,
              size_t x_stride, size_t n_rows, float *y, size_t y_stride, bool is_q4)
{
    size_t panel_size = tr_panel_size(w->type, w->n_in);
    size_t end = (out_end + TR_PANEL - 1) / TR_PANEL;
    size_t n_panels;

    /* A panel stays in the nearest cache while all rows pass over it. */
    for (size_t p = out_begin / TR_PANEL; p < end; p += n_panels) {
        n_panels = panels_for(n_rows, end - p);
        for (size_t r = 0; r < n_rows; r += ROWS) {
            __m512 out[MAX_ACC];
            size_t n = n_rows - r < ROWS ? n_rows - r : ROWS;
            activations a = activations_of(x + r * x_stride, x_stride, w->n_in, n);
            panels_any((const uint8_t *)w->data + p * panel_size, panel_size, n_panels, w->n_in, &a,
                       n, is_q4, out);
            for (size_t i = 0; i < n_panels * n; i++)
                _mm512_mask_storeu_ps(y + (r + i % n) * y_stride + (p + i / n) * TR_PANEL,
                                      lanes_in(p + i / n, out_begin, out_end), out[i]);
        }
    }
}

static void panels_q8_0(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                        size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    matmul_panels(w, out_begin, out_end, x, x_stride, n_rows, y, y_stride, false);
}

static void panels_q4_0(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                        size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    matmul_panels(w, out_begin, out_end, x, x_stride, n_rows, y, y_stride, true);
}

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

void tr_kernels_avx512(tr_kernels *k)
{
    k->panels[TR_TYPE_Q8_0] = panels_q8_0;
    k->panels[TR_TYPE_Q4_0] = panels_q4_0;
    k->int8_peak = int8_peak;
}
