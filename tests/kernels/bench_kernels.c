/* bench_kernels.c - how fast each entry of each table is, on one core.
 *
 * USE     bench_kernels [TABLE]        one line an entry: GB/s of weights or rows, GOP/s
 *
 * Weights of the products with 1 row are larger than the caches, as in decoding; those with
 * 64 rows are one expert's, as in prefill.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/rng.h"
#include "compute/cpu.h"
#include "compute/kernels.h"
#include "compute/panels.h"
#include "tests/kernels/bench_block.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_IN = 2048, MAX_OUT = 24 * 1024, MAX_ROWS = 64, N_VECTOR = 4096 };

/* A page of a cache, and queries that look at it. */
enum { HEAD = 128, PAGE = N_VECTOR / HEAD, MAX_QUERIES = 16 };

#define LEAST (100 * TR_MS) /* a measurement */

typedef struct {
    const tr_kernels *k;
    tr_act act;
    tr_matrix w;
    size_t n_rows;
    float *x, *y, *z;
    uint16_t *half;
    uint8_t *act_rows, *blocks;
    const float *query[MAX_QUERIES]; /* of HEAD values, or weights of PAGE values */
    float *sum[MAX_QUERIES];
} bench;

static void product_do(bench *b)
{
    tr_matmul_for(b->k, &b->w, b->act)(&b->w, 0, b->w.n_out, b->act_rows,
                                       tr_act_row_size(b->act, N_IN), b->n_rows, b->y, b->w.n_out);
}

static void act_q8_do(bench *b)
{
    b->k->act_q8(b->x, N_VECTOR, b->act_rows);
}
static void rms_norm_do(bench *b)
{
    b->k->rms_norm(b->x, b->z, N_VECTOR, 1e-6f, b->y);
}
static void softmax_do(bench *b)
{
    b->k->softmax(b->y, N_VECTOR);
}
static void silu_mul_do(bench *b)
{
    b->k->silu_mul(b->y, b->x, N_VECTOR);
}
static void dots_do(bench *b)
{
    b->k->dots[b->w.type](b->query, b->n_rows, b->w.data, PAGE, HEAD, b->sum);
}
static void mix_do(bench *b)
{
    b->k->mix[b->w.type](b->query, b->n_rows, b->w.data, PAGE, HEAD, b->sum);
}
static void axpy_f32_do(bench *b)
{
    b->k->axpy_f32(1e-9f, b->x, N_VECTOR, b->y);
}
static void from_f16_do(bench *b)
{
    b->k->from_f16(b->half, N_VECTOR, b->y);
}
static void from_q8_0_do(bench *b)
{
    b->k->from_q8_0(b->blocks, N_VECTOR, b->y);
}
static void to_f16_do(bench *b)
{
    b->k->to_f16(b->x, N_VECTOR, b->half);
}

static void measure(bench *b, const char *name, double bytes, double ops, void (*fn)(bench *b))
{
    tr_time begin = tr_now();
    tr_time end;
    size_t n = 0;

    do {
        fn(b);
        n++;
        end = tr_now();
    } while (end - begin < LEAST);
    double ns = (double)(end - begin) / (double)n;
    printf("%-6s %-20s %9.2f us %8.2f GB/s %8.2f GOP/s\n", b->k->name, name, ns / 1e3, bytes / ns,
           ops / ns);
}

/* Every row of weights is the same random row.  Random codes do for types that Troupe doesn't
 * write; their scales may be infinite, which costs nothing here. */
static void random_weights(const bench *b, tr_type type, uint8_t *data, size_t n_out,
                           size_t row_size)
{
    if (!tr_quantise_row(type, b->x, N_IN, data))
        for (size_t i = 0; i < row_size; i++)
            data[i] = (uint8_t)tr_rng_u64(3, type, i);
    for (size_t o = 1; o < n_out; o++)
        memcpy(data + o * row_size, data, row_size);
}

/* Every row of x is the same too. */
static void product_measure(bench *b, tr_act act, tr_type type, size_t n_out, size_t n_rows)
{
    static const char *const act_name[] = { "f32", "q8" };
    size_t row_size;
    char name[64];

    if (!b->k->matmul[act][type] || !tr_type_row_size(type, N_IN, &row_size))
        return;
    uint8_t *data = block_new(n_out * row_size);
    random_weights(b, type, data, n_out, row_size);
    for (size_t r = 0; r < n_rows; r++) {
        uint8_t *row = b->act_rows + r * tr_act_row_size(act, N_IN);
        if (act == TR_ACT_Q8)
            b->k->act_q8(b->x, N_IN, row);
        else
            memcpy(row, b->x, N_IN * sizeof(float));
    }
    size_t size = n_out * row_size;
    bool is_packed = act == TR_ACT_Q8 && b->k->panels[type];
    if (is_packed) {
        uint8_t *panels = block_new(tr_panels_size(type, N_IN, n_out));
        for (size_t o = 0; o < n_out; o += TR_PANEL)
            tr_panel_pack(type, N_IN, data + o * row_size, row_size, TR_PANEL,
                          panels + o / TR_PANEL * tr_panel_size(type, N_IN));
        free(data);
        data = panels;
    }
    b->act = act;
    b->w = (tr_matrix){ .type = type,
                        .n_out = n_out,
                        .n_in = N_IN,
                        .row_size = row_size,
                        .data = data,
                        .layout = is_packed ? TR_LAYOUT_PANELS : TR_LAYOUT_ROWS };
    b->n_rows = n_rows;
    snprintf(name, sizeof name, "%s x %s, %zu row%s", tr_type_get(type)->name, act_name[act],
             n_rows, n_rows > 1 ? "s" : "");
    measure(b, name, (double)size, 2.0 * (double)(n_out * N_IN * n_rows), product_do);
    free(data);
}

static void page_measure(bench *b, tr_type type, size_t n_queries)
{
    const double ops = 2.0 * N_VECTOR * (double)n_queries;
    size_t size;
    char name[64];

    if (!tr_type_row_size(type, N_VECTOR, &size))
        return;
    uint8_t *page = block_new(size);
    tr_quantise_row(type, b->x, N_VECTOR, page);
    b->w = (tr_matrix){ .type = type, .data = page };
    b->n_rows = n_queries;
    for (size_t i = 0; i < n_queries; i++) {
        b->query[i] = b->x + i * HEAD;
        b->sum[i] = b->y + i * HEAD;
    }
    snprintf(name, sizeof name, "dots %s x %zu", tr_type_get(type)->name, n_queries);
    measure(b, name, (double)size, ops, dots_do);
    snprintf(name, sizeof name, "mix %s x %zu", tr_type_get(type)->name, n_queries);
    measure(b, name, (double)size, ops, mix_do);
    free(page);
}

static void table_measure(bench *b)
{
    const double n = N_VECTOR;

    for (size_t act = 0; act < TR_ACT_COUNT; act++) {
        for (uint32_t t = 0; t < TR_TYPE_COUNT; t++) {
            product_measure(b, (tr_act)act, (tr_type)t, MAX_OUT, 1);
            product_measure(b, (tr_act)act, (tr_type)t, 1024, MAX_ROWS);
        }
    }
    measure(b, "act_q8", n * 4, n * 2, act_q8_do);
    measure(b, "rms_norm", n * 4, n * 4, rms_norm_do);
    measure(b, "softmax", n * 4, n * 3, softmax_do);
    measure(b, "silu_mul", n * 8, n * 4, silu_mul_do);
    measure(b, "axpy_f32", n * 8, n * 2, axpy_f32_do);
    measure(b, "from_f16", n * 6, n, from_f16_do);
    measure(b, "from_q8_0", n * 5 + n / 16, n, from_q8_0_do);
    measure(b, "to_f16", n * 4, n, to_f16_do);
    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++)
        if (b->k->dots[t])
            for (size_t queries = 1; queries <= MAX_QUERIES; queries *= 2)
                page_measure(b, (tr_type)t, queries);
}

int main(int argc, char **argv)
{
    bench b = {
        .x = block_new(N_VECTOR * sizeof(float)),
        .y = block_new((size_t)MAX_OUT * MAX_ROWS * sizeof(float)),
        .z = block_new(N_VECTOR * sizeof(float)),
        .half = block_new(N_VECTOR * sizeof(uint16_t)),
        .blocks = block_new(N_VECTOR * sizeof(uint16_t)),
        .act_rows = block_new(MAX_ROWS * tr_act_row_size(TR_ACT_F32, N_VECTOR)),
    };

    for (size_t i = 0; i < N_VECTOR; i++)
        b.x[i] = b.z[i] = (float)(2.0 * tr_rng_unit(tr_rng_u64(1, 2, i)) - 1.0);
    tr_quantise_row(TR_TYPE_Q8_0, b.x, N_VECTOR, b.blocks);
    for (size_t i = 0; tr_kernels_names()[i]; i++) {
        b.k = tr_kernels_select(tr_cpu_features(), tr_kernels_names()[i]);
        if (b.k && (argc < 2 || strcmp(argv[1], b.k->name) == 0))
            table_measure(&b);
    }
    free(b.x);
    free(b.y);
    free(b.z);
    free(b.half);
    free(b.blocks);
    free(b.act_rows);
    return 0;
}
