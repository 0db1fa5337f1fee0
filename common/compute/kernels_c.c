/* kernels_c.c - every kernel in plain C: the definition of right.
 *
 * Sums over float products run in LANES partial sums, element i in lane i % LANES, which are
 * added up in a fixed tree at the end.  That order is a function of the length alone, keeps
 * rounding errors small, and lets a compiler use vectors without reordering anything.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels_table.h"

#include "compute/blocks.h"
#include "compute/quant.h"

#include <math.h>

enum { LANES = 16, CHUNK = 256 };

static float lanes_sum(const float *lane)
{
    float t[LANES];

    memcpy(t, lane, sizeof t);
    for (size_t n = LANES / 2; n > 0; n /= 2)
        for (size_t i = 0; i < n; i++)
            t[i] += t[i + n];
    return t[0];
}

/* lane[i % LANES] += a[i] * b[i]; n a multiple of LANES but in the last call for a row. */
static void lanes_add(float *lane, const float *a, const float *b, size_t n)
{
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i < n; i++, j++)
        lane[j] += a[i] * b[i];
}

/* ---- products with float activations ------------------------------------------------- */

/* One output of up to GROUP rows of x: each chunk of weights is dequantised once for all. */
enum { GROUP = 8 };

static void output_f32(const tr_matrix *w, size_t o, const uint8_t *x, size_t x_stride,
                       size_t n_rows, float *y, size_t y_stride)
{
    const tr_type_info *t = tr_type_get(w->type);
    const uint8_t *row = (const uint8_t *)w->data + o * w->row_size;
    float weights[CHUNK];
    float lane[GROUP][LANES] = { { 0 } };

    for (size_t at = 0; at < w->n_in; at += CHUNK) {
        size_t n = w->n_in - at < CHUNK ? w->n_in - at : CHUNK;
        tr_dequantise_row(w->type, row + at / t->block * t->size, n, weights);
        for (size_t r = 0; r < n_rows; r++)
            lanes_add(lane[r], weights, (const float *)(const void *)(x + r * x_stride) + at, n);
    }
    for (size_t r = 0; r < n_rows; r++)
        y[r * y_stride + o] = lanes_sum(lane[r]);
}

/* One output of up to GROUP rows of x. */
typedef void (*output_fn)(const tr_matrix *w, size_t o, const uint8_t *x, size_t x_stride,
                          size_t n_rows, float *y, size_t y_stride);

static void outputs_by(output_fn output, const tr_matrix *w, size_t out_begin, size_t out_end,
                       const uint8_t *x, size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    for (size_t r = 0; r < n_rows; r += GROUP) {
        size_t n = n_rows - r < GROUP ? n_rows - r : GROUP;
        for (size_t o = out_begin; o < out_end; o++)
            output(w, o, x + r * x_stride, x_stride, n, y + r * y_stride, y_stride);
    }
}

static void matmul_f32(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                       size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    outputs_by(output_f32, w, out_begin, out_end, x, x_stride, n_rows, y, y_stride);
}

/* ---- products with 8-bit activations -------------------------------------------------- */

/* A block of weights as products need it. */
typedef struct {
    const tr_block_scales *s;
    float d, dmin;
    int8_t q[TR_BLOCK];
} weights;

static int32_t dot_of_16(const int8_t *q, const int8_t *x)
{
    int32_t sum = 0;

    for (size_t k = 0; k < 16; k++)
        sum += q[k] * x[k];
    return sum;
}

/* What block i adds to the product with row x of n values. */
static float block_product(const weights *w, const void *x, size_t n, size_t i)
{
    const int8_t *q = tr_q8_values(x) + i * TR_BLOCK;
    const int16_t *sum = tr_q8_sums(x, n) + 2 * i;
    int32_t p = w->s->scale[0] * dot_of_16(w->q, q) + w->s->scale[1] * dot_of_16(w->q + 16, q + 16);
    int32_t m = w->s->min[0] * sum[0] + w->s->min[1] * sum[1];

    return (w->d * (float)p - w->dmin * (float)m) * tr_q8_scales(x, n)[i];
}

/* One output of up to GROUP rows of x: each block of weights is taken apart once for all. */
static void output_q8(const tr_matrix *w, size_t o, const uint8_t *x, size_t x_stride,
                      size_t n_rows, float *y, size_t y_stride)
{
    const uint8_t *row = (const uint8_t *)w->data + o * w->row_size;
    tr_block_codes codes = tr_block_codes_of(w->type);
    float sum[GROUP] = { 0 };

    for (size_t i = 0; i < w->n_in / TR_BLOCK; i++) {
        tr_block b;
        tr_block_get(w->type, row, i, &b);
        weights block = { .s = &b.s, .d = tr_block_d(&b.s), .dmin = tr_block_dmin(&b.s) };
        tr_block_values(&codes, &b, block.q);
        for (size_t r = 0; r < n_rows; r++)
            sum[r] += block_product(&block, x + r * x_stride, w->n_in, i);
    }
    for (size_t r = 0; r < n_rows; r++)
        y[r * y_stride + o] = sum[r];
}

static void matmul_q8(const tr_matrix *w, size_t out_begin, size_t out_end, const void *x,
                      size_t x_stride, size_t n_rows, float *y, size_t y_stride)
{
    outputs_by(output_q8, w, out_begin, out_end, x, x_stride, n_rows, y, y_stride);
}

static void act_q8(const float *x, size_t n, void *row)
{
    int8_t *q = row;
    float *scale = (float *)(void *)((uint8_t *)row + n);
    int16_t *sum = (int16_t *)(void *)((uint8_t *)row + n + n / 32 * sizeof(float));
    size_t used = n + n / 32 * (sizeof(float) + 2 * sizeof(int16_t));

    for (size_t i = 0; i < n / 32; i++, x += 32, q += 32) {
        float largest = 0.0f;
        int32_t total[2] = { 0 };
        for (size_t j = 0; j < 32; j++)
            largest = fmaxf(largest, fabsf(x[j]));
        bool is_zero = largest < TR_Q8_TINY;
        scale[i] = is_zero ? 0.0f : largest / 127.0f;
        float inverse = is_zero ? 0.0f : 127.0f / largest;
        for (size_t j = 0; j < 32; j++) {
            float v = is_zero ? 0.0f : x[j] * inverse;
            q[j] = v >= -127.0f && v <= 127.0f ? (int8_t)lrintf(v) : (int8_t)(v > 0 ? 127 : -127);
            total[j / 16] += q[j];
        }
        sum[2 * i] = (int16_t)total[0];
        sum[2 * i + 1] = (int16_t)total[1];
    }
    memset((uint8_t *)row + used, 0, tr_act_row_size(TR_ACT_Q8, n) - used);
}

/* ---- vectors -------------------------------------------------------------------------- */

/* exp(x) = 2^k * exp(r) with |r| <= ln(2)/2; ln(2) in two parts so that r is exact to a few
 * ulp, exp(r) by its Taylor polynomial of degree 7 (error below 1e-8 relative on that range). */
float tr_expf(float x)
{
    if (!(x < 88.72283f))
        return x > 0 ? INFINITY : x; /* a NaN stays one */
    if (x < -87.0f)
        return 0.0f;
    float k = rintf(x * 1.44269504f);
    float r = x - k * 0.693145752f;
    r = r - k * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += (int32_t)k * (1 << 23);
    memcpy(&p, &bits, sizeof p);
    return p;
}

static float dot_f32(const float *a, const float *b, size_t n)
{
    float lane[LANES] = { 0 };

    lanes_add(lane, a, b, n);
    return lanes_sum(lane);
}

static void rms_norm(const float *x, const float *w, size_t n, float eps, float *y)
{
    float scale = 1.0f / sqrtf(dot_f32(x, x, n) / (float)n + eps);

    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static void softmax(float *x, size_t n)
{
    float lane[LANES] = { 0 };
    float largest = x[0];

    for (size_t i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    for (size_t i = 0; i < n; i++) {
        x[i] = tr_expf(x[i] - largest);
        lane[i % LANES] += x[i];
    }
    float scale = 1.0f / lanes_sum(lane);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + tr_expf(-gate[i])) * up[i];
}

static void axpy_f32(float a, const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void from_f16(const uint16_t *h, size_t n, float *out)
{
    tr_dequantise_row(TR_TYPE_F16, h, n, out);
}

static void from_q8_0(const void *blocks, size_t n, float *out)
{
    tr_dequantise_row(TR_TYPE_Q8_0, blocks, n, out);
}

static void to_f16(const float *x, size_t n, uint16_t *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = tr_f32_to_f16(x[i]);
}

/* ---- rows of a cache -------------------------------------------------------------------- */

/* Elements at..at+n-1 of a row of a cache, at a multiple of CHUNK. */
static const float *cached(tr_type type, const uint8_t *row, size_t at, size_t n, float *buffer)
{
    tr_dequantise_row(type, row + tr_cache_row_size(type, at), n, buffer);
    return buffer;
}

static float dot_cached(tr_type type, const float *q, const uint8_t *row, size_t dim)
{
    float buffer[CHUNK];
    float lane[LANES] = { 0 };

    for (size_t at = 0; at < dim; at += CHUNK) {
        size_t n = dim - at < CHUNK ? dim - at : CHUNK;
        lanes_add(lane, q + at, cached(type, row, at, n, buffer), n);
    }
    return lanes_sum(lane);
}

static void axpy_cached(tr_type type, float a, const uint8_t *row, size_t dim, float *y)
{
    float buffer[CHUNK];

    for (size_t at = 0; at < dim; at += CHUNK) {
        size_t n = dim - at < CHUNK ? dim - at : CHUNK;
        axpy_f32(a, cached(type, row, at, n, buffer), n, y + at);
    }
}

#define CACHE(name, type)                                                                          \
    static void dots_##name(const float *const *q, size_t n_queries, const void *keys, size_t n,   \
                            size_t dim, float *const *out)                                         \
    {                                                                                              \
        const uint8_t *row = keys;                                                                 \
        for (size_t k = 0; k < n; k++, row += tr_cache_row_size(type, dim))                        \
            for (size_t i = 0; i < n_queries; i++)                                                 \
                out[i][k] = dot_cached(type, q[i], row, dim);                                      \
    }                                                                                              \
    static void mix_##name(const float *const *w, size_t n_queries, const void *values, size_t n,  \
                           size_t dim, float *const *out)                                          \
    {                                                                                              \
        const uint8_t *row = values;                                                               \
        for (size_t k = 0; k < n; k++, row += tr_cache_row_size(type, dim))                        \
            for (size_t i = 0; i < n_queries; i++)                                                 \
                axpy_cached(type, w[i][k], row, dim, out[i]);                                      \
    }

TR_CACHE_TYPES(CACHE)

static double int8_peak(size_t rounds, int32_t *sink)
{
    enum { N = 256 };
    int8_t a[N], b[N];
    int32_t sum = *sink;

    for (size_t i = 0; i < N; i++) {
        a[i] = (int8_t)(i + rounds);
        b[i] = (int8_t)(3 * i);
    }
    for (size_t r = 0; r < rounds; r++) {
        a[r % N]++; /* so that no round is the same as the one before */
        for (size_t i = 0; i < N; i++)
            sum += a[i] * b[i];
    }
    *sink = sum;
    return 2.0 * N * (double)rounds;
}

static double float_peak(size_t rounds, float *sink)
{
    enum { N = 256 };
    float sum[N];

    for (size_t i = 0; i < N; i++)
        sum[i] = *sink + (float)i;
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < N; i++)
            sum[i] = sum[i] * 0.5f + 1.0f;
    for (size_t i = 1; i < N; i++)
        sum[0] += sum[i];
    *sink = sum[0];
    return 2.0 * N * (double)rounds;
}

void tr_kernels_c(tr_kernels *k)
{
    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++) {
        const tr_type_info *info = tr_type_get(t);
        if (info && info->computable)
            k->matmul[TR_ACT_F32][t] = matmul_f32;
        if (tr_block_has((tr_type)t))
            k->matmul[TR_ACT_Q8][t] = matmul_q8;
    }
    k->act_q8 = act_q8;
    k->rms_norm = rms_norm;
    k->softmax = softmax;
    k->silu_mul = silu_mul;
#define INSTALL(name, type)                                                                        \
    k->dots[type] = dots_##name;                                                                   \
    k->mix[type] = mix_##name;
    TR_CACHE_TYPES(INSTALL)
#undef INSTALL
    k->axpy_f32 = axpy_f32;
    k->from_f16 = from_f16;
    k->from_q8_0 = from_q8_0;
    k->to_f16 = to_f16;
    k->int8_peak = int8_peak;
    k->float_peak = float_peak;
}
