/* apply.c - gather, gate and up, SwiGLU, down: three passes over all groups of a chunk.
 * SPDX-License-Identifier: Apache-2.0 */
#include "experts/apply.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    SCRATCH = 12 << 20, /* bytes that a chunk's buffers should fit in */
    MIN_CHUNK = 32,     /* picks, however wide the model */
    MAX_CHUNK = 2048,
    RANGE = 64, /* outputs of one task */
};

struct tr_apply {
    const tr_compute *compute;
    const tr_shards *shards;
    size_t dim;
    tr_arena arena;
    uint8_t *in;      /* [chunk][activation row of dim] */
    float *gate;      /* [chunk][the layer's ffn], becomes the hidden row */
    float *up;        /* [chunk][the layer's ffn] */
    uint8_t *hidden;  /* [chunk][activation row of the layer's ffn] */
    tr_group *groups; /* [chunk] */
};

/* Everything that the tasks of one chunk read; their outputs are disjoint. */
typedef struct {
    tr_apply *a;
    const tr_apply_share_in *share;
    size_t ffn; /* of the layer */
    size_t first, n_picks, n_groups;
    size_t ranges;      /* tasks per group */
    size_t hidden_size; /* bytes of a hidden row */
    tr_act hidden_act;
    float *answers; /* of the chunk's first pick */
} chunk_job;

/* A narrow layer takes more picks at once than a wide one. */
static size_t chunk_picks(size_t dim, size_t ffn)
{
    size_t per_pick = tr_act_row_size(TR_ACT_F32, dim) + 2 * ffn * sizeof(float) +
                      tr_act_row_size(TR_ACT_F32, ffn);
    size_t n = SCRATCH / per_pick;

    return n < MIN_CHUNK ? MIN_CHUNK : n > MAX_CHUNK ? MAX_CHUNK : n;
}

typedef struct {
    size_t in, row, hidden, groups; /* bytes */
} sizes;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Enough for a chunk of any layer. */
static sizes sizes_for(const tr_expert_map *map)
{
    sizes n = { 0 };

    for (uint32_t l = 0; l < map->n_layers; l++) {
        size_t ffn = map->layer[l].ffn;
        size_t chunk = chunk_picks(map->dim, ffn);
        n.in = larger(n.in, chunk * tr_act_row_size(TR_ACT_F32, map->dim));
        n.row = larger(n.row, chunk * ffn * sizeof(float));
        n.hidden = larger(n.hidden, chunk * tr_act_row_size(TR_ACT_F32, ffn));
        n.groups = larger(n.groups, chunk * sizeof(tr_group));
    }
    return n;
}

static size_t arena_size(const sizes *n)
{
    return tr_arena_size(n->in) + 2 * tr_arena_size(n->row) + tr_arena_size(n->hidden) +
           tr_arena_size(n->groups);
}

size_t tr_apply_bytes(const tr_expert_map *map)
{
    sizes n = sizes_for(map);

    return arena_size(&n);
}

tr_status tr_apply_new(const tr_compute *compute, const tr_shards *shards, tr_apply **out)
{
    const tr_expert_map *map = tr_shards_map(shards);
    tr_apply *a = calloc(1, sizeof *a);

    if (!a)
        return tr_fail(TR_E_MEMORY, "apply: no memory");
    a->compute = compute;
    a->shards = shards;
    a->dim = map->dim;
    sizes n = sizes_for(map);
    tr_status st = tr_arena_init(&a->arena, arena_size(&n), "expert scratch");
    if (st != TR_OK) {
        free(a);
        return st;
    }
    a->in = tr_arena_get(&a->arena, n.in);
    a->gate = tr_arena_get(&a->arena, n.row);
    a->up = tr_arena_get(&a->arena, n.row);
    a->hidden = tr_arena_get(&a->arena, n.hidden);
    a->groups = tr_arena_get(&a->arena, n.groups);
    *out = a;
    return TR_OK;
}

void tr_apply_free(tr_apply **a)
{
    if (!*a)
        return;
    tr_arena_fini(&(*a)->arena);
    free(*a);
    *a = NULL;
}

void tr_apply_use(tr_apply *a, const tr_shards *shards)
{
    a->shards = shards;
}

/* Rows of a group side by side, so that a kernel walks them with one stride. */
static void gather(void *ctx, size_t thread, size_t begin, size_t end)
{
    const chunk_job *j = ctx;
    const tr_apply_share_in *s = j->share;

    (void)thread;
    for (size_t i = begin; i < end; i++)
        memcpy(j->a->in + i * s->row_size, s->rows + s->picks[j->first + i].row * s->row_size,
               s->row_size);
}

/* Task t is outputs lo..hi-1 of a group. */
static const tr_group *task_of(const chunk_job *j, size_t t, size_t n_out, size_t *lo, size_t *hi)
{
    *lo = t % j->ranges * RANGE;
    *hi = *lo + RANGE < n_out ? *lo + RANGE : n_out;
    return &j->a->groups[t / j->ranges];
}

/* The hidden rows' part lo..hi-1, of one group, goes into the form that the down product takes
 * while it is still in the nearest cache.  RANGE is a whole number of 8-bit blocks. */
static void hide(const chunk_job *j, size_t at, size_t lo, size_t hi)
{
    const tr_apply *a = j->a;
    const float *from = a->gate + at * j->ffn + lo;
    uint8_t *row = a->hidden + at * j->hidden_size;

    if (j->hidden_act == TR_ACT_F32)
        memcpy((float *)(void *)row + lo, from, (hi - lo) * sizeof(float));
    else
        tr_act_q8_part(a->compute->kernels, from, lo, hi, j->ffn, row);
}

static void add(const float *bias, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += bias[i];
}

/* gate becomes the hidden values of experts with biases; a NaN stays one. */
static void clamped_swiglu(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float g = gate[i] > 7.0f ? 7.0f : gate[i];
        float u = up[i] > 7.0f ? 7.0f : up[i] < -7.0f ? -7.0f : up[i];
        gate[i] = g / (1.0f + tr_expf(-1.702f * g)) * (u + 1.0f);
    }
}

/* 0.5 u (1 + tanh(z)) is u sigmoid(2z), z = sqrt(2/pi) (u + 0.044715 u^3). */
static void gelu(const float *up, size_t n, float *hidden)
{
    const float twice = 1.5957691216f; /* 2 sqrt(2/pi) */

    for (size_t i = 0; i < n; i++) {
        float u = up[i];
        float z = twice * (u + 0.044715f * u * u * u);
        hidden[i] = u / (1.0f + tr_expf(-z));
    }
}

/* The hidden values lo..hi-1 of one row, from the products, in place of gate's. */
static void activate(const tr_kernels *k, const tr_expert *e, size_t lo, size_t hi, float *gate,
                     float *up)
{
    if (!e->up_bias) {
        k->silu_mul(gate + lo, up + lo, hi - lo);
        return;
    }
    add(e->up_bias + lo, hi - lo, up + lo);
    if (!e->gate_bias) {
        gelu(up + lo, hi - lo, gate + lo);
        return;
    }
    add(e->gate_bias + lo, hi - lo, gate + lo);
    clamped_swiglu(gate + lo, up + lo, hi - lo);
}

static void gate_and_up(void *ctx, size_t thread, size_t begin, size_t end)
{
    const chunk_job *j = ctx;
    const tr_apply *a = j->a;
    const tr_kernels *k = a->compute->kernels;

    (void)thread;
    for (size_t t = begin; t < end; t++) {
        size_t lo, hi;
        const tr_group *g = task_of(j, t, j->ffn, &lo, &hi);
        const tr_expert *e = tr_shards_get(a->shards, j->share->layer, g->expert);
        size_t at = g->first - j->first;
        const uint8_t *x = a->in + at * j->share->row_size;
        float *gate = a->gate + at * j->ffn;
        float *up = a->up + at * j->ffn;

        if (e->gate.data)
            tr_matmul_for(k, &e->gate, j->share->act)(&e->gate, lo, hi, x, j->share->row_size, g->n,
                                                      gate, j->ffn);
        tr_matmul_for(k, &e->up, j->share->act)(&e->up, lo, hi, x, j->share->row_size, g->n, up,
                                                j->ffn);
        for (size_t r = 0; r < g->n; r++) {
            activate(k, e, lo, hi, gate + r * j->ffn, up + r * j->ffn);
            hide(j, at + r, lo, hi);
        }
    }
}

static void down(void *ctx, size_t thread, size_t begin, size_t end)
{
    const chunk_job *j = ctx;
    const tr_apply *a = j->a;

    (void)thread;
    for (size_t t = begin; t < end; t++) {
        size_t lo, hi;
        const tr_group *g = task_of(j, t, a->dim, &lo, &hi);
        const tr_expert *e = tr_shards_get(a->shards, j->share->layer, g->expert);
        size_t at = g->first - j->first;

        tr_matmul_for(a->compute->kernels, &e->down,
                      j->hidden_act)(&e->down, lo, hi, a->hidden + at * j->hidden_size,
                                     j->hidden_size, g->n, j->answers + at * a->dim, a->dim);
        for (size_t r = 0; r < g->n && e->down_bias; r++)
            add(e->down_bias + lo, hi - lo, j->answers + (at + r) * a->dim + lo);
    }
}

static void run_chunk(chunk_job *j)
{
    tr_apply *a = j->a;
    tr_pool *pool = a->compute->pool;

    tr_pool_for(pool, j->n_picks, 16, gather, j);
    j->ranges = (j->ffn + RANGE - 1) / RANGE;
    tr_pool_for(pool, j->n_groups * j->ranges, 1, gate_and_up, j);
    j->ranges = (a->dim + RANGE - 1) / RANGE;
    tr_pool_for(pool, j->n_groups * j->ranges, 1, down, j);
}

static tr_status check_held(const tr_apply *a, const tr_apply_share_in *share)
{
    for (size_t i = 0; i < share->n_picks; i++) {
        if (i > 0 && share->picks[i].expert == share->picks[i - 1].expert)
            continue;
        if (!tr_shards_get(a->shards, share->layer, share->picks[i].expert))
            return tr_fail(TR_E_PROTOCOL, "share: layer %u expert %u is not held here",
                           share->layer, share->picks[i].expert);
    }
    return TR_OK;
}

tr_status tr_apply_share(tr_apply *a, const tr_apply_share_in *share, float *answers,
                         void (*tick)(void *ctx), void *ctx)
{
    const tr_expert_map *map = tr_shards_map(a->shards);

    tr_status st = check_held(a, share);
    if (st != TR_OK)
        return st;
    chunk_job j = { .a = a, .share = share, .ffn = map->layer[share->layer].ffn };
    j.hidden_act = tr_act_for(map->layer[share->layer].down->type, a->compute->exact);
    j.hidden_size = tr_act_row_size(j.hidden_act, j.ffn);
    size_t chunk = chunk_picks(a->dim, j.ffn);
    for (size_t next = 0; next < share->n_picks;) {
        j.first = next;
        j.n_groups =
            tr_group_picks(share->picks, share->n_picks, j.first, chunk, a->groups, chunk, &next);
        j.n_picks = next - j.first;
        j.answers = answers + j.first * a->dim;
        run_chunk(&j);
        if (tick)
            tick(ctx);
    }
    return TR_OK;
}
