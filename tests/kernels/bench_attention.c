/* bench_attention.c - how fast blocks of queries pass over a cache that is larger than the nearest
 * caches: one answer, some answers and prompts.
 *
 * USE     bench_attention [TABLE [THREADS [CASE]]]    the best table, two threads, all cases
 *
 * One line a case: GB/s of keys and values, each counted once a row of queries of a sequence's
 * block, and Gop/s of products and additions.  Each call works on the next of some layers.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "compute/cpu.h"
#include "coordinator/model/attention.h"
#include "tests/kernels/bench_block.h"

#include <stdio.h>
#include <stdlib.h>

enum { HEAD = 128, MAX_HEADS = 32, LAYERS = 4, KINDS = 64, MAX_ROWS = 512 };

#define LEAST (500 * TR_MS) /* a measurement */

typedef struct {
    tr_type type;
    size_t n_heads, kv_heads;
    size_t before, n_rows; /* positions of earlier steps, rows of this one */
} work;

static const work works[] = {
    { TR_TYPE_F16, 16, 16, 2048, 1 },    { TR_TYPE_F16, 16, 16, 12000, 1 },
    { TR_TYPE_Q8_0, 16, 16, 2048, 1 },   { TR_TYPE_Q8_0, 16, 16, 12000, 1 },
    { TR_TYPE_F32, 16, 16, 2048, 1 },    { TR_TYPE_F16, 32, 16, 2048, 1 },
    { TR_TYPE_F16, 32, 8, 2048, 1 },     { TR_TYPE_Q8_0, 32, 8, 2048, 1 },
    { TR_TYPE_F16, 32, 4, 12000, 1 },    { TR_TYPE_Q8_0, 32, 4, 12000, 1 },
    { TR_TYPE_F16, 32, 2, 12000, 1 },    { TR_TYPE_F16, 16, 16, 0, 512 },
    { TR_TYPE_Q8_0, 16, 16, 0, 512 },    { TR_TYPE_F16, 16, 16, 2048, 512 },
    { TR_TYPE_Q8_0, 16, 16, 2048, 512 }, { TR_TYPE_F16, 32, 4, 2048, 512 },
    { TR_TYPE_F16, 16, 16, 12000, 64 },
};

typedef struct {
    const work *w;
    tr_compute compute;
    tr_kv *kv;
    tr_kv_table table;
    const tr_kv_table *row_table[MAX_ROWS];
    uint32_t position[MAX_ROWS], block_begin[MAX_ROWS];
    float *q, *out, *scratch;
    size_t score_stride;
} bench;

static void cache_fill(bench *b, size_t n)
{
    static float some[KINDS + 1][MAX_HEADS * HEAD];

    for (size_t k = 0; k <= KINDS; k++)
        for (size_t i = 0; i < MAX_HEADS * HEAD; i++)
            some[k][i] = (float)(2.0 * tr_rng_unit(tr_rng_u64(1, k, i)) - 1.0);
    if (tr_kv_reserve(b->kv, &b->table, n) != TR_OK)
        abort();
    for (size_t layer = 0; layer < LAYERS; layer++)
        for (size_t p = 0; p < n; p++)
            tr_kv_put(b->kv, &b->table, layer, p, some[p % KINDS], some[p % KINDS + 1]);
}

static void bench_init(bench *b, const work *w, const tr_compute *compute)
{
    size_t n = w->before + w->n_rows;
    size_t values = w->n_rows * w->n_heads * HEAD;
    tr_kv_shape shape = { .kernels = compute->kernels,
                          .n_layers = LAYERS,
                          .n_heads = w->kv_heads,
                          .head_dim = HEAD,
                          .type = w->type };

    *b = (bench){ .w = w, .compute = *compute, .score_stride = n + 16 };
    if (tr_kv_new(&shape, tr_kv_pages_for(n), 0, &b->kv) != TR_OK)
        abort();
    cache_fill(b, n);
    for (size_t r = 0; r < w->n_rows; r++) {
        b->row_table[r] = &b->table;
        b->position[r] = (uint32_t)(w->before + r);
    }
    b->q = block_new(values * sizeof *b->q);
    b->out = block_new(values * sizeof *b->out);
    b->scratch = block_new(tr_pool_threads(compute->pool) *
                           tr_attention_scratch(&shape, b->score_stride) * sizeof *b->scratch);
    for (size_t i = 0; i < values; i++)
        b->q[i] = (float)(2.0 * tr_rng_unit(tr_rng_u64(7, 7, i)) - 1.0);
}

static void bench_fini(bench *b)
{
    tr_kv_release(b->kv, &b->table);
    tr_kv_free(&b->kv);
    free(b->q);
    free(b->out);
    free(b->scratch);
}

static void run(bench *b, size_t layer)
{
    tr_attention a = {
        .compute = &b->compute,
        .kv = b->kv,
        .layer = layer,
        .n_rows = b->w->n_rows,
        .n_heads = b->w->n_heads,
        .scale = 0.1f,
        .q = b->q,
        .table = b->row_table,
        .position = b->position,
        .score_stride = b->score_stride,
        .scratch = b->scratch,
        .block_begin = b->block_begin,
        .out = b->out,
    };

    tr_attention_run(&a);
}

static void measure(bench *b)
{
    const work *w = b->w;
    tr_time begin = tr_now(), end;
    size_t n = 0, row_size = 0;

    do {
        run(b, n++ % LAYERS);
        end = tr_now();
    } while (end - begin < LEAST);
    double ns = (double)(end - begin) / (double)n;
    double seen = (double)w->n_rows * ((double)w->before + (double)(w->n_rows + 1) / 2.0);
    (void)tr_type_row_size(w->type, HEAD, &row_size);
    double bytes = 2.0 * (double)row_size * (double)w->kv_heads * seen;
    double ops = 4.0 * HEAD * (double)w->n_heads * seen;
    printf("%-6s %-5s %2zu/%-2zu heads %5zu before %3zu rows %10.1f us", b->compute.kernels->name,
           tr_type_get(w->type)->name, w->n_heads, w->kv_heads, w->before, w->n_rows, ns / 1e3);
    if (w->n_rows == 1)
        printf(" %8.2f GB/s", bytes / ns);
    printf(" %8.2f Gop/s\n", ops / ns);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    tr_compute compute = { .kernels =
                               tr_kernels_select(tr_cpu_features(), argc > 1 ? argv[1] : NULL) };
    size_t n_threads = argc > 2 ? (size_t)strtoul(argv[2], NULL, 10) : 2;
    size_t only = argc > 3 ? (size_t)strtoul(argv[3], NULL, 10) : SIZE_MAX;

    if (!compute.kernels || tr_pool_new(n_threads, &compute.pool) != TR_OK)
        return 1;
    for (size_t i = 0; i < sizeof works / sizeof works[0]; i++) {
        bench b;
        if (only != SIZE_MAX && only != i)
            continue;
        bench_init(&b, &works[i], &compute);
        measure(&b);
        bench_fini(&b);
    }
    tr_pool_free(&compute.pool);
    return 0;
}
