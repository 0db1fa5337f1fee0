/* forward.c - the pass of a batch through the model, in the order of the papers.
 *
 *   x = embedding[token], plus positions[position] where they are learned
 *   for each layer:
 *       x += attention(norm(x))
 *       x += sum over the picked experts of weight * expert(norm(x))
 *       x += shared expert(norm(x)), where there is one, perhaps weighted: sigmoid(w . norm(x))
 *   logits = output * norm(x)
 *
 * A dense layer's feed-forward network is an expert that every row picks.
 *
 * tr_forward_step reads from top to bottom; what it calls is one stage each.  The experts are
 * anywhere: moe() hands rows to dispatch and gets sums back; the shared expert is computed here
 * meanwhile.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/forward.h"

#include "base/check.h"
#include "base/memory.h"
#include "coordinator/model/attention.h"
#include "coordinator/model/latent.h"
#include "coordinator/model/layer_norm.h"
#include "coordinator/model/rope.h"
#include "coordinator/model/router.h"

#include <stdlib.h>
#include <string.h>

struct tr_forward {
    tr_forward_options o;
    const tr_model_config *config; /* the model's */
    const tr_kv_shape *kv_shape;   /* of o.kv */
    size_t threads;
    size_t dim, q_dim, kv_dim, half; /* half: the pairs of a head that are rotated */
    size_t heads_dim, given_dim;     /* what attention works on, what it gives: n_heads times */
    size_t n_rows;                   /* of the batch in flight */
    const tr_batch *batch;
    uint32_t layer;

    tr_arena arena;
    float *x;                  /* [max_rows][dim] residual stream */
    float *normed;             /* [max_rows][dim] */
    uint8_t *act;              /* [max_rows] activation rows of whatever a matrix takes */
    float *q;                  /* [max_rows][q_dim] */
    float *k, *v;              /* [max_rows][kv_dim] */
    float *heads;              /* [max_rows][heads_dim] what attention gives */
    float *q_low;              /* [max_rows][query_rank], if queries are made in two steps */
    float *queries, *values;   /* [max_rows][heads_dim], [given_dim], if there is a latent */
    uint8_t *latent_scratch;   /* [threads] of latent.h */
    float *added;              /* [max_rows][dim] a branch's output before it is added */
    float *shared, *shared_up; /* [max_rows][shared_ffn] */
    uint8_t *shared_act;       /* [max_rows] activation rows of max(dim, shared_ffn) values */
    float *router;             /* [max_rows][n_experts] */
    tr_pick *picks;            /* [max_rows][top_k] */
    float *cosine, *sine;      /* [max_rows][half] */
    double *inverse;           /* [half] */
    float *scratch;            /* [threads] of attention */
    uint32_t *block_begin;     /* [max_rows] */
    size_t score_stride;

    tr_forward_times times;
    tr_time since; /* end of the last part that was timed */
};

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Space for one buffer; before the arena exists its size is only counted. */
static void *take(tr_forward *f, size_t *need, size_t size)
{
    *need += tr_arena_size(size);
    return f->arena.base ? tr_arena_get(&f->arena, size) : NULL;
}

static void lay_out(tr_forward *f, size_t *need)
{
    const tr_model_config *c = f->config;
    size_t rows = f->o.max_rows;

    *need = 0;
    f->x = take(f, need, rows * f->dim * sizeof(float));
    f->normed = take(f, need, rows * f->dim * sizeof(float));
    size_t widest = max_size(max_size(f->dim, f->given_dim), c->query_rank);
    f->act = take(f, need, rows * tr_act_row_size(TR_ACT_F32, widest));
    f->q = take(f, need, rows * f->q_dim * sizeof(float));
    f->k = take(f, need, rows * f->kv_dim * sizeof(float));
    f->v = take(f, need, rows * f->kv_dim * sizeof(float));
    f->heads = take(f, need, rows * f->heads_dim * sizeof(float));
    if (c->latent > 0) {
        f->q_low = take(f, need, rows * c->query_rank * sizeof(float));
        f->queries = take(f, need, rows * f->heads_dim * sizeof(float));
        f->values = take(f, need, rows * f->given_dim * sizeof(float));
        f->latent_scratch = take(f, need, f->threads * tr_latent_scratch(c));
    }
    f->added = take(f, need, rows * f->dim * sizeof(float));
    if (c->shared_ffn > 0) {
        f->shared = take(f, need, rows * c->shared_ffn * sizeof(float));
        f->shared_up = take(f, need, rows * c->shared_ffn * sizeof(float));
        f->shared_act =
            take(f, need, rows * tr_act_row_size(TR_ACT_F32, max_size(f->dim, c->shared_ffn)));
    }
    f->router = take(f, need, rows * c->n_experts * sizeof(float));
    f->picks = take(f, need, rows * c->top_k * sizeof(tr_pick));
    f->cosine = take(f, need, rows * f->half * sizeof(float));
    f->sine = take(f, need, rows * f->half * sizeof(float));
    f->inverse = take(f, need, f->half * sizeof(double));
    f->scratch = take(
        f, need, f->threads * sizeof(float) * tr_attention_scratch(f->kv_shape, f->score_stride));
    f->block_begin = take(f, need, rows * sizeof(uint32_t));
}

/* Sizes that follow from the model's and the maxima; f->o has the latter. */
static void derive_sizes(tr_forward *f, const tr_model_config *c)
{
    f->config = c;
    f->dim = c->dim;
    f->q_dim = (size_t)c->n_heads * c->head_dim;
    f->kv_dim = (size_t)c->cache_heads * c->cache_dim;
    f->heads_dim = (size_t)c->n_heads * c->cache_dim;
    f->given_dim = (size_t)c->n_heads * c->value_dim;
    f->half = c->n_rot / 2;
    f->score_stride = tr_align_up(f->o.max_context + c->has_sinks, TR_ALIGN / sizeof(float));
}

size_t tr_forward_bytes(const tr_model_config *c, const tr_kv_shape *kv, size_t threads,
                        size_t max_rows, size_t max_context)
{
    tr_forward f = { .o = { .max_rows = max_rows, .max_context = max_context },
                     .kv_shape = kv,
                     .threads = threads };
    size_t size;

    derive_sizes(&f, c);
    lay_out(&f, &size);
    return size;
}

tr_status tr_forward_new(const tr_forward_options *o, tr_forward **out)
{
    const tr_model_config *c = &o->model->config;
    tr_forward *f = calloc(1, sizeof *f);
    size_t size;

    if (!f)
        return tr_fail(TR_E_MEMORY, "forward: no memory");
    f->o = *o;
    f->kv_shape = tr_kv_get_shape(o->kv);
    f->threads = tr_pool_threads(o->compute->pool);
    derive_sizes(f, c);
    lay_out(f, &size);
    tr_status st = tr_arena_init(&f->arena, size, "step buffers (a smaller --batch needs less)");
    if (st != TR_OK) {
        free(f);
        return st;
    }
    lay_out(f, &size);
    tr_rope_frequencies(c, o->model->rope_factors, f->inverse);
    *out = f;
    return TR_OK;
}

void tr_forward_free(tr_forward **f)
{
    if (!*f)
        return;
    tr_arena_fini(&(*f)->arena);
    free(*f);
    *f = NULL;
}

/* ---- a step's stages, each over the rows of the batch ------------------------------- */

static void lap(tr_time *sum, tr_time *since)
{
    tr_time now = tr_now();

    *sum += now - *since;
    *since = now;
}

static void scale(float by, size_t n, float *x)
{
    for (size_t i = 0; i < n && by != 1.0f; i++)
        x[i] *= by;
}

static void embed(tr_forward *f)
{
    const tr_matrix *e = &f->o.model->embedding.matrix;

    for (size_t r = 0; r < f->n_rows; r++)
        tr_matrix_row(e, f->batch->token[r], f->x + r * f->dim);
    scale(f->o.model->config.embedding_scale, f->n_rows * f->dim, f->x);
    if (!f->o.model->config.has_positions)
        return;
    for (size_t r = 0; r < f->n_rows; r++) {
        tr_matrix_row(&f->o.model->positions.matrix, f->batch->position[r], f->normed);
        f->o.compute->kernels->axpy_f32(1.0f, f->normed, f->dim, f->x + r * f->dim);
    }
}

static void angles(tr_forward *f)
{
    double magnitude = (double)f->o.model->config.rope_magnitude;

    for (size_t r = 0; r < f->n_rows; r++)
        tr_rope_angles(f->batch->position[r], 2 * f->half, f->inverse, magnitude,
                       f->cosine + r * f->half, f->sine + r * f->half);
}

typedef struct {
    tr_forward *f;
    const float *weight, *bias;
} norm_job;

static void norm_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    const norm_job *j = ctx;
    const tr_forward *f = j->f;
    const tr_model_config *c = &f->o.model->config;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *x = f->x + r * f->dim;
        float *y = f->normed + r * f->dim;
        if (c->norm == TR_NORM_RMS)
            f->o.compute->kernels->rms_norm(x, j->weight, f->dim, c->norm_eps, y);
        else
            tr_layer_norm(x, j->weight, j->bias, f->dim, c->norm_eps, y);
    }
}

/* normed = norm(x) * weight, plus bias where the norm has one */
static void norm(tr_forward *f, const float *weight, const float *bias)
{
    norm_job j = { f, weight, bias };

    tr_pool_for(f->o.compute->pool, f->n_rows, 4, norm_rows, &j);
}

/* y = w * rows of x, in the activation form that suits w; *made is the form that rows already hold
 * of the same x, or TR_ACT_COUNT. */
static void linear_with(tr_forward *f, const tr_weights *w, const float *x, tr_act *made,
                        uint8_t *rows, float *y)
{
    const tr_compute *c = f->o.compute;
    tr_act act = tr_act_for(w->matrix.type, c->exact);

    if (*made != act)
        tr_act_rows(c, act, x, w->matrix.n_in, f->n_rows, rows);
    *made = act;
    tr_linear(c, &w->matrix, act, rows, tr_act_row_size(act, w->matrix.n_in), f->n_rows, y);
}

static void linear(tr_forward *f, const tr_weights *w, const float *x, tr_act *made, float *y)
{
    linear_with(f, w, x, made, f->act, y);
}

/* Norm (where the architecture has it) and rotate the heads of one row of queries or keys. */
static void shape_heads(const tr_forward *f, size_t row, const float *weight, size_t n_heads,
                        float *x)
{
    const tr_model_config *c = &f->o.model->config;
    const tr_kernels *k = f->o.compute->kernels;

    if (c->qk_norm == TR_QK_NORM_WHOLE)
        k->rms_norm(x, weight, n_heads * c->head_dim, c->norm_eps, x);
    for (size_t h = 0; h < n_heads; h++) {
        float *head = x + h * c->head_dim;
        if (c->qk_norm == TR_QK_NORM_HEAD)
            k->rms_norm(head, weight, c->head_dim, c->norm_eps, head);
        tr_rope_apply(c->rope, f->cosine + row * f->half, f->sine + row * f->half, c->n_rot, head);
    }
}

static void add_bias(const tr_forward *f, const float *bias, size_t n, float *x)
{
    if (bias)
        f->o.compute->kernels->axpy_f32(1.0f, bias, n, x);
}

/* Queries and keys get their positions; keys and values go into the cache. */
static void position_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    tr_forward *f = ctx;
    const tr_model_config *c = &f->o.model->config;
    const tr_layer *y = &f->o.model->layer[f->layer];

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        add_bias(f, y->q_bias, f->q_dim, f->q + r * f->q_dim);
        add_bias(f, y->k_bias, f->kv_dim, f->k + r * f->kv_dim);
        add_bias(f, y->v_bias, f->kv_dim, f->v + r * f->kv_dim);
        shape_heads(f, r, y->q_norm, c->n_heads, f->q + r * f->q_dim);
        shape_heads(f, r, y->k_norm, c->n_kv_heads, f->k + r * f->kv_dim);
        tr_kv_put(f->o.kv, f->batch->table[r], f->layer, f->batch->position[r],
                  f->k + r * f->kv_dim, f->v + r * f->kv_dim);
    }
}

static void add_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    tr_forward *f = ctx;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        add_bias(f, f->o.model->layer[f->layer].out_bias, f->dim, f->added + r * f->dim);
        f->o.compute->kernels->axpy_f32(f->o.model->config.residual_scale, f->added + r * f->dim,
                                        f->dim, f->x + r * f->dim);
    }
}

/* Rotate the last values of each query head and of what all keys share; norm the latent; keep both,
 * which is key and value at once: the sum of latents is cut off what attention adds up. */
static void position_latent_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    tr_forward *f = ctx;
    const tr_model_config *c = &f->o.model->config;
    const tr_layer *y = &f->o.model->layer[f->layer];
    size_t n_key = c->head_dim - c->n_rot;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const float *cosine = f->cosine + r * f->half;
        const float *sine = f->sine + r * f->half;
        float *k = f->k + r * f->kv_dim;
        for (size_t h = 0; h < c->n_heads; h++)
            tr_rope_apply(c->rope, cosine, sine, c->n_rot,
                          f->q + r * f->q_dim + h * c->head_dim + n_key);
        f->o.compute->kernels->rms_norm(k, y->latent_norm, c->latent, c->norm_eps, k);
        tr_rope_apply(c->rope, cosine, sine, c->n_rot, k + c->latent);
        tr_kv_put(f->o.kv, f->batch->table[r], f->layer, f->batch->position[r], k, NULL);
    }
}

static tr_latent latent_of(const tr_forward *f)
{
    return (tr_latent){ f->o.compute, &f->o.model->config, &f->o.model->layer[f->layer].up,
                        f->latent_scratch };
}

/* Queries, and what is kept of the rows, from norm(x), by way of the latent. */
static const float *project_latent(tr_forward *f)
{
    const tr_model_config *c = &f->o.model->config;
    const tr_layer *y = &f->o.model->layer[f->layer];
    const tr_kernels *k = f->o.compute->kernels;
    tr_latent l = latent_of(f);
    tr_act made = TR_ACT_COUNT;

    linear(f, &y->kv_low, f->normed, &made, f->k);
    if (c->query_rank == 0) {
        linear(f, &y->q, f->normed, &made, f->q);
    } else {
        linear(f, &y->q_low, f->normed, &made, f->q_low);
        for (size_t r = 0; r < f->n_rows; r++) {
            float *low = f->q_low + r * c->query_rank;
            k->rms_norm(low, y->q_low_norm, c->query_rank, c->norm_eps, low);
        }
        made = TR_ACT_COUNT;
        linear(f, &y->q, f->q_low, &made, f->q);
    }
    tr_pool_for(f->o.compute->pool, f->n_rows, 1, position_latent_rows, f);
    tr_latent_queries(&l, f->q, f->n_rows, f->queries);
    return f->queries;
}

/* Queries, keys and values from norm(x); the latter two are kept. */
static const float *project(tr_forward *f)
{
    const tr_layer *y = &f->o.model->layer[f->layer];
    tr_act made = TR_ACT_COUNT;

    linear(f, &y->q, f->normed, &made, f->q);
    linear(f, &y->k, f->normed, &made, f->k);
    linear(f, &y->v, f->normed, &made, f->v);
    tr_pool_for(f->o.compute->pool, f->n_rows, 1, position_rows, f);
    return f->q;
}

/* x += attention(norm(x)) */
static void attend(tr_forward *f)
{
    const tr_model_config *c = &f->o.model->config;
    const tr_layer *y = &f->o.model->layer[f->layer];
    const float *given = f->heads;
    tr_act made = TR_ACT_COUNT;

    norm(f, y->attn_norm, y->attn_norm_bias);
    const float *queries = c->latent > 0 ? project_latent(f) : project(f);
    tr_attention a = {
        .compute = f->o.compute,
        .kv = f->o.kv,
        .layer = f->layer,
        .n_rows = f->n_rows,
        .n_heads = c->n_heads,
        .scale = c->attention_scale,
        .window = tr_kv_window(tr_kv_get_shape(f->o.kv), f->layer),
        .sinks = y->sinks,
        .q = queries,
        .table = f->batch->table,
        .position = f->batch->position,
        .score_stride = f->score_stride,
        .scratch = f->scratch,
        .block_begin = f->block_begin,
        .out = f->heads,
    };
    lap(&f->times.dense, &f->since);
    tr_attention_run(&a);
    lap(&f->times.attention, &f->since);
    if (c->latent > 0) {
        tr_latent l = latent_of(f);
        tr_latent_values(&l, f->heads, f->n_rows, f->values);
        given = f->values;
    }
    linear(f, &y->attn_out, given, &made, f->added);
    tr_pool_for(f->o.compute->pool, f->n_rows, 4, add_rows, f);
}

static void pick_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    tr_forward *f = ctx;
    const tr_model_config *c = &f->o.model->config;
    const tr_layer *y = &f->o.model->layer[f->layer];

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *logits = f->router + r * c->n_experts;
        add_bias(f, y->router_bias, c->n_experts, logits);
        tr_router_pick(f->o.compute->kernels, c, y->choice_bias, logits, (uint32_t)r,
                       f->picks + r * c->top_k);
    }
}

/* picks = the experts of each row of norm(x); in a dense layer the only one */
static void route(tr_forward *f)
{
    const tr_model_config *c = &f->o.model->config;
    const tr_layer *y = &f->o.model->layer[f->layer];
    bool is_dense = f->layer < c->n_dense;
    tr_act made = TR_ACT_COUNT;

    norm(f, y->ffn_norm, y->ffn_norm_bias);
    if (is_dense) {
        for (size_t r = 0; r < f->n_rows; r++)
            f->picks[r] = (tr_pick){ (uint32_t)r, 0, c->residual_scale };
    } else {
        linear(f, &y->router, f->normed, &made, f->router);
        tr_pool_for(f->o.compute->pool, f->n_rows, 4, pick_rows, f);
    }
    if (f->o.on_picks)
        f->o.on_picks(f->o.ctx, f->layer, f->picks, f->n_rows, is_dense ? 1 : c->top_k);
}

static void shared_hidden_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    tr_forward *f = ctx;
    size_t n = f->o.model->config.shared_ffn;

    (void)thread;
    for (size_t r = begin; r < end; r++)
        f->o.compute->kernels->silu_mul(f->shared + r * n, f->shared_up + r * n, n);
}

/* added = the shared expert's answers; rows of experts' shares stay as they are */
static void compute_shared(tr_forward *f)
{
    const tr_layer *y = &f->o.model->layer[f->layer];
    tr_act made = TR_ACT_COUNT;

    linear_with(f, &y->shared_gate, f->normed, &made, f->shared_act, f->shared);
    linear_with(f, &y->shared_up, f->normed, &made, f->shared_act, f->shared_up);
    tr_pool_for(f->o.compute->pool, f->n_rows, 1, shared_hidden_rows, f);
    made = TR_ACT_COUNT;
    linear_with(f, &y->shared_down, f->shared, &made, f->shared_act, f->added);
}

/* How much the shared expert's answer to a row counts. */
static float shared_weight(const tr_forward *f, size_t row)
{
    const float *gate = f->o.model->layer[f->layer].shared_weight;
    const float *x = f->normed + row * f->dim;
    float g, *out = &g;

    if (!gate)
        return 1.0f;
    f->o.compute->kernels->dots[TR_TYPE_F32](&x, 1, gate, 1, f->dim, &out);
    return 1.0f / (1.0f + tr_expf(-g));
}

/* After the picked experts' sum, so that the order of additions is always the same. */
static void add_shared_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    tr_forward *f = ctx;
    float residual = f->o.model->config.residual_scale;

    (void)thread;
    for (size_t r = begin; r < end; r++)
        f->o.compute->kernels->axpy_f32(residual * shared_weight(f, r), f->added + r * f->dim,
                                        f->dim, f->x + r * f->dim);
}

/* x += the picked experts' answers, wherever the experts are, and the shared expert's */
static tr_status moe(tr_forward *f)
{
    tr_act act = tr_expert_map_act(&f->o.model->experts, f->layer, f->o.compute->exact);

    tr_act_rows(f->o.compute, act, f->normed, f->dim, f->n_rows, f->act);
    tr_status st = tr_dispatch_begin(f->o.dispatch, f->layer, f->picks, f->act, f->n_rows);
    lap(&f->times.dispatch, &f->since);
    if (st != TR_OK)
        return st;
    const tr_model_config *c = &f->o.model->config;
    bool has_shared = c->shared_ffn > 0 && f->layer >= c->n_dense;
    if (has_shared) {
        compute_shared(f);
        lap(&f->times.shared, &f->since);
    }
    st = tr_dispatch_finish(f->o.dispatch, f->x);
    f->since = tr_now(); /* dispatch keeps these times itself */
    if (st != TR_OK || !has_shared)
        return st;
    tr_pool_for(f->o.compute->pool, f->n_rows, 4, add_shared_rows, f);
    lap(&f->times.shared, &f->since);
    return TR_OK;
}

/* Keep the rows that want logits, side by side, then logits = output * norm(x). */
static void output(tr_forward *f, float *logits)
{
    const tr_compute *c = f->o.compute;
    const tr_matrix *w = f->o.model->output;
    tr_act act = tr_act_for(w->type, c->exact);
    size_t n = 0;

    for (size_t r = 0; r < f->n_rows; r++)
        if (f->batch->wants_logits[r])
            memmove(f->x + n++ * f->dim, f->x + r * f->dim, f->dim * sizeof(float));
    TR_CHECK(n <= f->o.max_logits);
    f->n_rows = n;
    norm(f, f->o.model->output_norm, f->o.model->output_norm_bias);
    tr_act_rows(c, act, f->normed, f->dim, n, f->act);
    tr_linear(c, w, act, f->act, tr_act_row_size(act, f->dim), n, logits);
    scale(1.0f / f->o.model->config.logit_scale, n * w->n_out, logits);
}

tr_status tr_forward_step(tr_forward *f, const tr_batch *batch, float *logits)
{
    TR_CHECK(batch->n_rows > 0);
    TR_CHECK(batch->n_rows <= f->o.max_rows);
    f->batch = batch;
    f->n_rows = batch->n_rows;
    f->since = tr_now();
    embed(f);
    angles(f);
    lap(&f->times.output, &f->since);
    for (f->layer = 0; f->layer < f->o.model->config.n_layers; f->layer++) {
        attend(f);
        lap(&f->times.dense, &f->since);
        route(f);
        lap(&f->times.router, &f->since);
        tr_status st = moe(f);
        if (st != TR_OK)
            return st;
    }
    output(f, logits);
    lap(&f->times.output, &f->since);
    return TR_OK;
}

tr_forward_times tr_forward_get_times(const tr_forward *f)
{
    tr_forward_times t = f->times;
    tr_dispatch_stats d = tr_dispatch_get_stats(f->o.dispatch);

    t.experts = (tr_time)d.peer_busy[0];
    t.wait = d.wait;
    t.combine = d.combine;
    return t;
}
