/* kernels_avx2.c - the table for x86-64 processors with AVX2 and F16C.
 *
 * Every entry gives the bits of its twin in kernels_c.c: the same lanes, the same tree, a
 * product rounded before it is added (no fused multiply-add).  On the processors this is for
 * the sums below are bound by loads and integer work, so the promise costs nothing, and a
 * cluster whose machines differ still agrees to the last bit.
 *
 * Products with 8-bit activations work on TILE weight rows at once: the integer sums of one
 * block of all rows end up in one vector, one lane per output, so that scaling and adding is
 * done once for all of them and in block order.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_table.h"

#include "compute/quant.h"

#include <immintrin.h>
#include <math.h>

enum {
    LANES = 16, /* partial sums of float products, as in kernels_c.c */
    CHUNK = 256,
    GROUP = 8, /* rows of x that share one pass over the weights */
    TILE = 8,  /* weight rows in one pass */
};

/* ---- sums of float products ---------------------------------------------------------- */

typedef struct {
    __m256 lo, hi; /* lanes 0..7 and 8..15 */
} lanes;

static inline lanes lanes_zero(void)
{
    return (lanes){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

static inline lanes lanes_step(lanes s, const float *a, const float *b)
{
    s.lo = _mm256_add_ps(s.lo, _mm256_mul_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b)));
    s.hi = _mm256_add_ps(s.hi, _mm256_mul_ps(_mm256_loadu_ps(a + 8), _mm256_loadu_ps(b + 8)));
    return s;
}

/* The last n < LANES products.  The other lanes get +0, which changes no sum: a lane begins
 * at +0 and so is never -0. */
static lanes lanes_rest(lanes s, const float *a, const float *b, size_t n)
{
    float x[LANES] = { 0 };
    float y[LANES] = { 0 };

    memcpy(x, a, n * sizeof *x);
    memcpy(y, b, n * sizeof *y);
    return lanes_step(s, x, y);
}

static inline lanes lanes_add(lanes s, const float *a, const float *b, size_t n)
{
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        s = lanes_step(s, a + i, b + i);
    return i < n ? lanes_rest(s, a + i, b + i, n - i) : s;
}

static inline float lanes_sum(lanes s)
{
    __m256 t8 = _mm256_add_ps(s.lo, s.hi);
    __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
    return _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)));
}

/* ---- products with float activations ------------------------------------------------- */

static inline __m256 half_load(const uint16_t *h)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)h));
}

static inline __m256 float_of_int8(const int8_t *q)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)q)));
}

static void from_f16(const uint16_t *h, size_t n, float *out)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, half_load(h + i));
    for (; i < n; i++)
        out[i] = _cvtsh_ss(h[i]);
}

static void from_bf16(const uint16_t *h, size_t n, float *out)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(h + i)));
        _mm256_storeu_si256((void *)(out + i), _mm256_slli_epi32(wide, 16));
    }
    tr_dequantise_row(TR_TYPE_BF16, h + i, n - i, out + i);
}

static void from_q8_0(const tr_block_q8_0 *b, size_t n_blocks, float *out)
{
    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        __m256 d = _mm256_set1_ps(_cvtsh_ss(b[i].d));
        for (size_t j = 0; j < 32; j += 8)
            _mm256_storeu_ps(out + j, _mm256_mul_ps(d, float_of_int8(b[i].q + j)));
    }
}

/* Values 0..15 of a block are its low nibbles, 16..31 its high ones: one 0..15 per byte. */
static inline __m256i nibbles_of(const tr_block_q4_0 *b)
{
    const __m256i shift = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)b->q));

    return _mm256_and_si256(_mm256_srlv_epi32(both, shift), _mm256_set1_epi8(15));
}

static void from_q4_0(const tr_block_q4_0 *b, size_t n_blocks, float *out)
{
    int8_t q[32];

    for (size_t i = 0; i < n_blocks; i++, out += 32) {
        __m256 d = _mm256_set1_ps(_cvtsh_ss(b[i].d));
        __m256i v = _mm256_sub_epi8(nibbles_of(&b[i]), _mm256_set1_epi8(8));
        _mm256_storeu_si256((void *)q, v);
        for (size_t j = 0; j < 32; j += 8)
            _mm256_storeu_ps(out + j, _mm256_mul_ps(d, float_of_int8(q + j)));
    }
}

/* n weights from element `at` of a row as floats: in place if they are, else in buffer. */
static const float *weights_at(tr_type type, const void *row, size_t at, size_t n, float *buffer)
{
    switch (type) {
    case TR_TYPE_F32:
        return (const float *)row + at;
    case TR_TYPE_F16:
        from_f16((const uint16_t *)row + at, n, buffer);
        break;
    case TR_TYPE_BF16:
        from_bf16((const uint16_t *)row + at, n, buffer);
        break;
    case TR_TYPE_Q8_0:
        from_q8_0((const tr_block_q8_0 *)row + at / 32, n / 32, buffer);
        break;
    default:
        from_q4_0((const tr_block_q4_0 *)row + at / 32, n / 32, buffer);
        break;
    }
    return buffer;
}

static inline const float *float_row(const uint8_t *x, size_t stride, size_t row)
{
    return (const float *)(const void *)(x + row * stride);
}

/* Four rows at once: their sums don't wait for each other. */
static void four_rows_add(lanes *s, const float *w, const uint8_t *x, size_t x_stride, size_t at,
                          size_t n)
{
    const float *x0 = float_row(x, x_stride, 0) + at;
    const float *x1 = float_row(x, x_stride, 1) + at;
    const float *x2 = float_row(x, x_stride, 2) + at;
    const float *x3 = float_row(x, x_stride, 3) + at;
    lanes s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        s0 = lanes_step(s0, w + i, x0 + i);
        s1 = lanes_step(s1, w + i, x1 + i);
        s2 = lanes_step(s2, w + i, x2 + i);
        s3 = lanes_step(s3, w + i, x3 + i);
    }
    if (i < n) {
        s0 = lanes_rest(s0, w + i, x0 + i, n - i);
        s1 = lanes_rest(s1, w + i, x1 + i, n - i);
        s2 = lanes_rest(s2, w + i, x2 + i, n - i);
        s3 = lanes_rest(s3, w + i, x3 + i, n - i);
    }
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3;
}

static void output_f32(const tr_matrix *w, size_t o, const uint8_t *x, size_t x_stride,
                       size_t n_rows, float *y, size_t y_stride)
{
    const uint8_t *row = (const uint8_t *)w->data + o * w->row_size;
    float buffer[CHUNK];
    lanes s[GROUP];

    for (size_t r = 0; r < n_rows; r++)
        s[r] = lanes_zero();
    for (size_t at = 0; at < w->n_in; at += CHUNK) {
        size_t n = w->n_in - at < CHUNK ? w->n_in - at : CHUNK;
        const float *weights = weights_at(w->type, row, at, n, buffer);
        size_t r = 0;
        for (; r + 4 <= n_rows; r += 4)
            four_rows_add(s + r, weights, x + r * x_stride, x_stride, at, n);
        for (; r < n_rows; r++)
            s[r] = lanes_add(s[r], weights, float_row(x, x_stride, r) + at, n);
    }
    for (size_t r = 0; r < n_rows; r++)
        y[r * y_stride + o] = lanes_sum(s[r]);
}

static void matmul_f32(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                       size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    for (size_t r = 0; r < n_rows; r += GROUP) {
        size_t n = n_rows - r < GROUP ? n_rows - r : GROUP;
        for (size_t o = out_begin; o < out_end; o++)
            output_f32(w, o, (const uint8_t *)x + r * x_stride, x_stride, n, y + r * y_stride,
                       y_stride);
    }
}

/* ---- products with 8-bit activations ------------------------------------------------- */

/* What one pass over TILE weight rows and up to GROUP rows of x needs.  Beyond the last
 * output the last row is repeated; its results are not stored. */
typedef struct {
    const uint8_t *row[TILE];
    size_t n_out, row_size;
    const uint8_t *x;
    size_t x_stride, n_in;
    float *y; /* of the first output of the first row */
    size_t y_stride;
} tile;

static tile tile_at(const tr_matrix *w, size_t o, size_t out_end)
{
    tile t = { .n_out = out_end - o < TILE ? out_end - o : TILE,
               .row_size = w->row_size,
               .n_in = w->n_in };

    for (size_t i = 0; i < TILE; i++)
        t.row[i] = (const uint8_t *)w->data + (o + (i < t.n_out ? i : t.n_out - 1)) * w->row_size;
    return t;
}

/* Ask for the bytes of the next tile that lie where this one's blocks do, size bytes of each
 * row.  Rows are one after the other, so the next tile is one stretch; the processor's own
 * prefetching doesn't see that in TILE short streams.  Past the last row it asks in vain. */
static inline void next_tile_prefetch(const tile *t, size_t at, size_t size)
{
    uintptr_t next = (uintptr_t)t->row[0] + TILE * t->row_size + TILE * at;

    for (size_t i = 0; i < TILE * size; i += 64)
        _mm_prefetch((const void *)(next + i), _MM_HINT_T0);
}

static inline uint16_t half_at(const uint8_t *p)
{
    uint16_t h;

    memcpy(&h, p, sizeof h);
    return h;
}

/* The scales of the blocks at byte `at` of each row. */
static inline __m256 tile_scales(const tile *t, size_t at)
{
    uint16_t h[TILE];

    for (size_t i = 0; i < TILE; i++)
        h[i] = half_at(t->row[i] + at);
    return half_load(h);
}

static inline void tile_store(const tile *t, size_t row, __m256 sum)
{
    float *y = t->y + row * t->y_stride;
    float all[TILE];

    if (t->n_out == TILE) {
        _mm256_storeu_ps(y, sum);
        return;
    }
    _mm256_storeu_ps(all, sum);
    memcpy(y, all, t->n_out * sizeof *y);
}

/* sum + scale * x_scale * dots, rounded as in kernels_c.c. */
static inline __m256 scaled_add(__m256 sum, __m256 scale, float x_scale, __m256i dots)
{
    __m256 s = _mm256_mul_ps(scale, _mm256_set1_ps(x_scale));

    return _mm256_add_ps(sum, _mm256_mul_ps(s, _mm256_cvtepi32_ps(dots)));
}

/* Lane i = sum of the 8 lanes of v[i]. */
static inline __m256i sums_of_8(const __m256i *v)
{
    __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));

    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}

/* Widened to 16 bits no product or pair of products can overflow, whatever the bytes are. */
static inline __m256i dots_q8_0(const __m256i w[TILE][2], const int8_t *x)
{
    __m256i x0 = _mm256_cvtepi8_epi16(_mm_load_si128((const void *)x));
    __m256i x1 = _mm256_cvtepi8_epi16(_mm_load_si128((const void *)(x + 16)));
    __m256i v[TILE];

    for (size_t i = 0; i < TILE; i++)
        v[i] = _mm256_add_epi32(_mm256_madd_epi16(w[i][0], x0), _mm256_madd_epi16(w[i][1], x1));
    return sums_of_8(v);
}

static inline __attribute__((always_inline)) void tile_q8_0(const tile *t, size_t n_rows)
{
    __m256 sum[GROUP];

    for (size_t r = 0; r < n_rows; r++)
        sum[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < t->n_in / 32; b++) {
        size_t at = b * sizeof(tr_block_q8_0);
        next_tile_prefetch(t, at, sizeof(tr_block_q8_0));
        __m256 scale = tile_scales(t, at);
        __m256i w[TILE][2];
        for (size_t i = 0; i < TILE; i++) {
            const uint8_t *q = t->row[i] + at + offsetof(tr_block_q8_0, q);
            w[i][0] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)q));
            w[i][1] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(q + 16)));
        }
        for (size_t r = 0; r < n_rows; r++) {
            const uint8_t *x = t->x + r * t->x_stride;
            __m256i dots = dots_q8_0((const __m256i(*)[2])w, tr_q8_values(x) + b * 32);
            sum[r] = scaled_add(sum[r], scale, tr_q8_scales(x, t->n_in)[b], dots);
        }
    }
    for (size_t r = 0; r < n_rows; r++)
        tile_store(t, r, sum[r]);
}

/* Sums of 16 products of 0..15 with an int8 fit 16 bits: three pairwise sums leave output i
 * in 16-bit lane i of both halves.  The offset of 8 goes through the block's sum of x. */
static inline __m256i dots_q4_0(const __m256i *w, const int8_t *x, int32_t x_sum)
{
    __m256i q = _mm256_load_si256((const void *)x);
    __m256i v[TILE];

    for (size_t i = 0; i < TILE; i++)
        v[i] = _mm256_maddubs_epi16(w[i], q);
    __m256i a = _mm256_hadd_epi16(_mm256_hadd_epi16(v[0], v[1]), _mm256_hadd_epi16(v[2], v[3]));
    __m256i b = _mm256_hadd_epi16(_mm256_hadd_epi16(v[4], v[5]), _mm256_hadd_epi16(v[6], v[7]));
    __m256i c = _mm256_hadd_epi16(a, b);
    __m256i dots = _mm256_add_epi32(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(c)),
                                    _mm256_cvtepi16_epi32(_mm256_extracti128_si256(c, 1)));
    return _mm256_sub_epi32(dots, _mm256_set1_epi32(8 * x_sum));
}

static inline __attribute__((always_inline)) void tile_q4_0(const tile *t, size_t n_rows)
{
    __m256 sum[GROUP];

    for (size_t r = 0; r < n_rows; r++)
        sum[r] = _mm256_setzero_ps();
    for (size_t b = 0; b < t->n_in / 32; b++) {
        size_t at = b * sizeof(tr_block_q4_0);
        next_tile_prefetch(t, at, sizeof(tr_block_q4_0));
        __m256 scale = tile_scales(t, at);
        __m256i w[TILE];
        for (size_t i = 0; i < TILE; i++)
            w[i] = nibbles_of((const void *)(t->row[i] + at));
        for (size_t r = 0; r < n_rows; r++) {
            const uint8_t *x = t->x + r * t->x_stride;
            __m256i dots = dots_q4_0(w, tr_q8_values(x) + b * 32, tr_q8_sums(x, t->n_in)[b]);
            sum[r] = scaled_add(sum[r], scale, tr_q8_scales(x, t->n_in)[b], dots);
        }
    }
    for (size_t r = 0; r < n_rows; r++)
        tile_store(t, r, sum[r]);
}

/* The compiler keeps everything in registers where the number of rows is a constant. */
static void tile_q8_0_rows(const tile *t, size_t n_rows)
{
    if (n_rows == 1)
        tile_q8_0(t, 1);
    else
        tile_q8_0(t, n_rows);
}

static void tile_q4_0_rows(const tile *t, size_t n_rows)
{
    if (n_rows == 1)
        tile_q4_0(t, 1);
    else
        tile_q4_0(t, n_rows);
}

typedef struct {
    size_t out_begin, out_end;
    const uint8_t *x;
    size_t x_stride, n_rows;
    float *y;
    size_t y_stride;
} product;

static inline void product_do(const tr_matrix *w, const product *p,
                              void (*rows)(const tile *t, size_t n_rows))
{
    for (size_t r = 0; r < p->n_rows; r += GROUP) {
        size_t n = p->n_rows - r < GROUP ? p->n_rows - r : GROUP;
        for (size_t o = p->out_begin; o < p->out_end; o += TILE) {
            tile t = tile_at(w, o, p->out_end);
            t.x = p->x + r * p->x_stride;
            t.x_stride = p->x_stride;
            t.y = p->y + r * p->y_stride + o;
            t.y_stride = p->y_stride;
            rows(&t, n);
        }
    }
}

static void matmul_q8_q8_0(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                           size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    product p = { out_begin, out_end, x, x_stride, n_rows, y, y_stride };

    product_do(w, &p, tile_q8_0_rows);
}

static void matmul_q8_q4_0(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                           size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    product p = { out_begin, out_end, x, x_stride, n_rows, y, y_stride };

    product_do(w, &p, tile_q4_0_rows);
}

/* ---- 8-bit activations --------------------------------------------------------------- */

static inline float largest_of(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline float largest_magnitude(const float *x)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 m = _mm256_setzero_ps();

    /* Of two operands with a NaN the second is the result, so NaNs are passed over. */
    for (size_t j = 0; j < 32; j += 8)
        m = _mm256_max_ps(_mm256_and_ps(_mm256_loadu_ps(x + j), magnitude), m);
    return largest_of(m);
}

static inline __m256i rounded(const float *x, __m256 inverse)
{
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x), inverse);

    v = _mm256_max_ps(v, _mm256_set1_ps(-127.0f)); /* a NaN becomes -127, as in plain C */
    return _mm256_cvtps_epi32(_mm256_min_ps(v, _mm256_set1_ps(127.0f)));
}

/* Quantise one block; the sum of its values. */
static inline int16_t block_q8(const float *x, float inverse, int8_t *q)
{
    __m256 s = _mm256_set1_ps(inverse);
    __m256i a = _mm256_packs_epi32(rounded(x, s), rounded(x + 8, s));
    __m256i b = _mm256_packs_epi32(rounded(x + 16, s), rounded(x + 24, s));
    __m256i v = _mm256_packs_epi16(a, b); /* groups of 4 in the order 0 2 4 6 1 3 5 7 */

    v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((void *)q, v);
    __m256i t = _mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1));
    __m128i u = _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1));
    u = _mm_add_epi32(u, _mm_shuffle_epi32(u, 0x4e));
    u = _mm_add_epi32(u, _mm_shuffle_epi32(u, 0xb1));
    return (int16_t)_mm_cvtsi128_si32(u);
}

static void act_q8(const float *x, size_t n, void *row)
{
    int8_t *q = row;
    float *scale = (float *)(void *)((uint8_t *)row + n);
    int16_t *sum = (int16_t *)(void *)((uint8_t *)row + n + n / 32 * sizeof(float));
    size_t used = n + n / 32 * (sizeof(float) + sizeof(int16_t));

    for (size_t i = 0; i < n / 32; i++) {
        float largest = largest_magnitude(x + i * 32);
        bool is_zero = largest < TR_Q8_TINY;
        scale[i] = is_zero ? 0.0f : largest / 127.0f;
        if (is_zero)
            memset(q + i * 32, 0, 32);
        sum[i] = is_zero ? 0 : block_q8(x + i * 32, 127.0f / largest, q + i * 32);
    }
    memset((uint8_t *)row + used, 0, tr_act_row_size(TR_ACT_Q8, n) - used);
}

/* ---- vectors -------------------------------------------------------------------------- */

/* tr_expf, eight at once: the same operations in the same order. */
static inline __m256 exp_of(__m256 x)
{
    __m256 k = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_sub_ps(x, _mm256_mul_ps(k, _mm256_set1_ps(0.693145752f)));
    r = _mm256_sub_ps(r, _mm256_mul_ps(k, _mm256_set1_ps(1.42860677e-6f)));
    __m256 p = _mm256_set1_ps(1.98412698e-4f);
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.38888889e-3f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(8.33333333e-3f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(4.16666667e-2f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.66666667e-1f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(0.5f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.0f));
    p = _mm256_add_ps(_mm256_mul_ps(p, r), _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(k), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));

    __m256 is_low = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_LT_OQ);
    __m256 is_high = _mm256_cmp_ps(x, _mm256_set1_ps(88.72283f), _CMP_GE_OQ);
    __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    p = _mm256_andnot_ps(is_low, p);
    p = _mm256_blendv_ps(p, _mm256_set1_ps(INFINITY), is_high);
    return _mm256_blendv_ps(p, x, is_nan);
}

static float dot_f32(const float *a, const float *b, size_t n)
{
    return lanes_sum(lanes_add(lanes_zero(), a, b, n));
}

static float dot_f16(const float *a, const uint16_t *b, size_t n)
{
    lanes s = lanes_zero();
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        s.lo = _mm256_add_ps(s.lo, _mm256_mul_ps(_mm256_loadu_ps(a + i), half_load(b + i)));
        s.hi = _mm256_add_ps(s.hi, _mm256_mul_ps(_mm256_loadu_ps(a + i + 8), half_load(b + i + 8)));
    }
    if (i < n) {
        float rest[LANES];
        from_f16(b + i, n - i, rest);
        s = lanes_rest(s, a + i, rest, n - i);
    }
    return lanes_sum(s);
}

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *y)
{
    float scale = 1.0f / sqrtf(dot_f32(x, x, n) / (float)n + eps);
    __m256 s = _mm256_set1_ps(scale);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), s);
        _mm256_storeu_ps(y + i, _mm256_mul_ps(v, _mm256_loadu_ps(w + i)));
    }
    for (; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static float largest_score(const float *x, size_t n)
{
    __m256 m = _mm256_set1_ps(x[0]);
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        m = _mm256_max_ps(_mm256_loadu_ps(x + i), m);
    float largest = largest_of(m);
    for (; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static void softmax(float *x, size_t n)
{
    float largest = largest_score(x, n);
    __m256 shift = _mm256_set1_ps(largest);
    lanes s = lanes_zero();
    size_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        __m256 lo = exp_of(_mm256_sub_ps(_mm256_loadu_ps(x + i), shift));
        __m256 hi = exp_of(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), shift));
        _mm256_storeu_ps(x + i, lo);
        _mm256_storeu_ps(x + i + 8, hi);
        s.lo = _mm256_add_ps(s.lo, lo);
        s.hi = _mm256_add_ps(s.hi, hi);
    }
    float rest[LANES] = { 0 };
    for (size_t j = 0; i + j < n; j++)
        rest[j] = x[i + j] = tr_expf(x[i + j] - largest);
    s.lo = _mm256_add_ps(s.lo, _mm256_loadu_ps(rest));
    s.hi = _mm256_add_ps(s.hi, _mm256_loadu_ps(rest + 8));
    float scale = 1.0f / lanes_sum(s);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)));
    for (; i < n; i++)
        x[i] *= scale;
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i);
        __m256 e = exp_of(_mm256_xor_ps(g, sign));
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(silu, _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++)
        gate[i] = gate[i] / (1.0f + tr_expf(-gate[i])) * up[i];
}

static void axpy_f32(float a, const float *x, size_t n, float *y)
{
    __m256 va = _mm256_set1_ps(a);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(va, _mm256_loadu_ps(x + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), v));
    }
    for (; i < n; i++)
        y[i] += a * x[i];
}

static void axpy_f16(float a, const uint16_t *x, size_t n, float *y)
{
    __m256 va = _mm256_set1_ps(a);
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(va, half_load(x + i));
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), v));
    }
    for (; i < n; i++)
        y[i] += a * _cvtsh_ss(x[i]);
}

static void to_f16(const float *x, size_t n, uint16_t *y)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(y + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++)
        y[i] = tr_f32_to_f16(x[i]);
}

/* Eight chains that don't wait for each other: 32 products in three instructions. */
static double int8_peak(size_t rounds, int32_t *sink)
{
    enum { CHAINS = 8 };
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i acc[CHAINS];
    __m256i a = _mm256_set1_epi32(*sink | 0x01020304);

    for (size_t i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_epi32((int32_t)i);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < CHAINS; i++)
            acc[i] =
                _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, acc[i]), ones));
    for (size_t i = 1; i < CHAINS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    *sink = _mm256_extract_epi32(acc[0], 0);
    return 2.0 * 32 * CHAINS * (double)rounds;
}

void tr_kernels_avx2(tr_kernels *k)
{
    static const tr_type float_products[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_BF16, TR_TYPE_Q8_0,
                                              TR_TYPE_Q4_0 };

    for (size_t i = 0; i < sizeof float_products / sizeof float_products[0]; i++)
        k->matmul[TR_ACT_F32][float_products[i]] = matmul_f32;
    k->matmul[TR_ACT_Q8][TR_TYPE_Q8_0] = matmul_q8_q8_0;
    k->matmul[TR_ACT_Q8][TR_TYPE_Q4_0] = matmul_q8_q4_0;
    k->act_q8 = act_q8;
    k->rms_norm = rms_norm;
    k->softmax = softmax;
    k->silu_mul = silu_mul;
    k->dot_f32 = dot_f32;
    k->dot_f16 = dot_f16;
    k->axpy_f32 = axpy_f32;
    k->axpy_f16 = axpy_f16;
    k->to_f16 = to_f16;
    k->int8_peak = int8_peak;
}
