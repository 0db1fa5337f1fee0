/* limits.c - read a block that no cache holds; multiply in registers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/limits.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"

#include <stdatomic.h>

enum {
    BLOCK = 1 << 30, /* bytes: many times any cache */
    PIECE = 1 << 20, /* bytes of one task */
    TRIES = 5,
    ROUNDS = 200000, /* of the loops, per task */
};

typedef double (*peak_fn)(const tr_kernels *k);

typedef struct {
    const tr_compute *c;
    uint64_t *block;
    peak_fn peak;
    _Atomic uint64_t sink; /* so that nothing is optimised away */
    _Atomic uint64_t ops;
} limits_job;

enum { WORDS = PIECE / sizeof(uint64_t) };

/* Pages of equal content could be one page to a virtual machine's host, and stay in its cache:
 * every word differs. */
static void fill_pieces(void *ctx, size_t thread, size_t begin, size_t end)
{
    limits_job *j = ctx;

    (void)thread;
    for (size_t i = begin * WORDS; i < end * WORDS; i++)
        j->block[i] = tr_rng_mix(i);
}

static void read_pieces(void *ctx, size_t thread, size_t begin, size_t end)
{
    limits_job *j = ctx;
    enum { LANES = 32 };
    uint64_t lane[LANES] = { 0 };
    uint64_t sum = 0;

    (void)thread;
    for (size_t i = begin * WORDS; i < end * WORDS; i += LANES)
        for (size_t k = 0; k < LANES; k++)
            lane[k] ^= j->block[i + k];
    for (size_t k = 0; k < LANES; k++)
        sum ^= lane[k];
    atomic_fetch_xor(&j->sink, sum);
}

static double int8_peak(const tr_kernels *k)
{
    int32_t sink = 1;

    return k->int8_peak(ROUNDS, &sink);
}

static double float_peak(const tr_kernels *k)
{
    float sink = 1.0f;

    return k->float_peak(ROUNDS, &sink);
}

static double bf16_peak(const tr_kernels *k)
{
    float sink = 1.0f;

    return k->bf16_peak(ROUNDS, &sink);
}

static void multiply(void *ctx, size_t thread, size_t begin, size_t end)
{
    limits_job *j = ctx;

    (void)thread;
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&j->ops, (uint64_t)j->peak(j->c->kernels));
}

/* The best of several tries: what others take from the machine is not its limit. */
static double best(double so_far, double amount, tr_time begin)
{
    double rate = amount * (double)TR_SECOND / (double)(tr_now() - begin + 1);

    return rate > so_far ? rate : so_far;
}

/* Operations a second of all threads together. */
static double product_rate(limits_job *j, peak_fn peak, double so_far)
{
    tr_time begin = tr_now();

    j->peak = peak;
    atomic_store(&j->ops, 0);
    tr_pool_for(j->c->pool, 8 * tr_pool_threads(j->c->pool), 1, multiply, j);
    return best(so_far, (double)atomic_load(&j->ops), begin);
}

tr_status tr_limits_measure(const tr_compute *c, tr_limits *out)
{
    limits_job j = { .c = c };
    tr_limits l = { 0 };
    void *block = NULL;

    tr_status st = tr_memory_new(BLOCK, "memory benchmark", &block);
    if (st != TR_OK)
        return st;
    j.block = block;
    /* By all threads, as weights are: on machines of several memories each then holds a part. */
    tr_pool_for(c->pool, BLOCK / PIECE, 1, fill_pieces, &j);
    for (int t = 0; t < TRIES; t++) {
        tr_time begin = tr_now();
        tr_pool_for(c->pool, BLOCK / PIECE, 1, read_pieces, &j);
        l.read_bytes = best(l.read_bytes, BLOCK, begin);
        l.int8_ops = product_rate(&j, int8_peak, l.int8_ops);
        l.float_ops = product_rate(&j, float_peak, l.float_ops);
        if (c->kernels->bf16_peak)
            l.bf16_ops = product_rate(&j, bf16_peak, l.bf16_ops);
    }
    tr_memory_free(&block, BLOCK);
    *out = l;
    return TR_OK;
}
