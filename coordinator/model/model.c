/* model.c - find, check and load the dense tensors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/model.h"

#include "base/memory.h"
#include "proto/limits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const tr_gguf *g;
    const tr_compute *compute;
    tr_model *m;
    tr_status (*progress)(void *ctx, uint64_t bytes);
    void *ctx;
    uint8_t *used; /* [n_tensors] for a check: only note what would be loaded, and count it if there
                    * is a compute */
} loader;

/* The tensor, if its shape is in x out x n (out 1: a vector). */
static tr_status find(const loader *l, const char *name, uint64_t in, uint64_t out, uint64_t n,
                      const tr_gguf_tensor **found)
{
    const tr_gguf_tensor *t = tr_gguf_find(l->g, name);

    if (!t)
        return tr_fail(TR_E_FORMAT, "model %s: tensor %s is missing", tr_gguf_path(l->g), name);
    if (t->dim[0] != in || t->dim[1] != out || t->dim[2] != n || t->dim[3] != 1)
        return tr_fail(TR_E_FORMAT,
                       "model %s: tensor %s has shape %llu x %llu x %llu, the metadata promises "
                       "%llu x %llu x %llu",
                       tr_gguf_path(l->g), name, (unsigned long long)t->dim[0],
                       (unsigned long long)t->dim[1], (unsigned long long)t->dim[2],
                       (unsigned long long)in, (unsigned long long)out, (unsigned long long)n);
    if (l->used)
        l->used[t - tr_gguf_tensor_at(l->g, 0)] = 1;
    *found = t;
    return TR_OK;
}

static tr_status loaded(loader *l, uint64_t bytes)
{
    l->m->bytes += bytes;
    return l->progress ? l->progress(l->ctx, l->m->bytes) : TR_OK;
}

/* As loaded, but nothing was. */
static tr_status checked(loader *l, const tr_gguf_tensor *t, uint64_t bytes)
{
    l->m->bytes += bytes;
    return tr_weights_check(l->g, t);
}

static tr_status matrix(loader *l, const char *name, uint64_t in, uint64_t out, tr_weights *w)
{
    const tr_gguf_tensor *t = NULL;

    tr_status st = find(l, name, in, out, 1, &t);
    if (st == TR_OK && l->used)
        return checked(l, t, l->compute ? tr_weights_size_for(l->compute, t, 1) : 0);
    if (st == TR_OK)
        st = tr_weights_load_for(l->compute, l->g, t, 0, 1, w);
    if (st == TR_OK)
        st = loaded(l, w->size);
    return st;
}

/* Whole, as floats [n][out][in]. */
static tr_status floats(loader *l, const char *name, uint64_t in, uint64_t out, uint64_t n,
                        float **v)
{
    const tr_gguf_tensor *t = NULL;

    tr_status st = find(l, name, in, out, n, &t);
    if (st == TR_OK && l->used)
        return checked(l, t, in * out * n * sizeof(float));
    if (st == TR_OK)
        st = tr_vector_load(l->g, t, v);
    if (st == TR_OK)
        st = loaded(l, in * out * n * sizeof(float));
    return st;
}

static tr_status vector(loader *l, const char *name, uint64_t n, float **v)
{
    return floats(l, name, n, 1, 1, v);
}

static void vector_free(float **v, size_t n)
{
    void *block = *v;

    tr_memory_free(&block, n * sizeof(float));
    *v = NULL;
}

/* blk.I.NAME.weight of a layer. */
static tr_status layer_matrix(loader *l, uint32_t i, const char *name, uint64_t in, uint64_t out,
                              tr_weights *w)
{
    char full[64];

    snprintf(full, sizeof full, "blk.%u.%s.weight", i, name);
    return matrix(l, full, in, out, w);
}

static tr_status layer_vector(loader *l, uint32_t i, const char *name, uint64_t n, float **v)
{
    char full[64];

    snprintf(full, sizeof full, "blk.%u.%s.weight", i, name);
    return vector(l, full, n, v);
}

/* blk.I.NAME.bias of a layer. */
static tr_status layer_bias(loader *l, uint32_t i, const char *name, uint64_t n, float **v)
{
    char full[64];

    snprintf(full, sizeof full, "blk.%u.%s.bias", i, name);
    return vector(l, full, n, v);
}

static size_t q_norm_size(const tr_model_config *c)
{
    return c->qk_norm == TR_QK_NORM_HEAD ? c->head_dim : (size_t)c->head_dim * c->n_heads;
}

static size_t k_norm_size(const tr_model_config *c)
{
    return c->qk_norm == TR_QK_NORM_HEAD ? c->head_dim : (size_t)c->head_dim * c->n_kv_heads;
}

/* A norm's weight and, where the architecture has one, its bias. */
static tr_status layer_norm(loader *l, uint32_t i, const char *name, float **weight, float **bias)
{
    uint32_t dim = l->m->config.dim;

    tr_status st = layer_vector(l, i, name, dim, weight);
    if (st == TR_OK && l->m->config.norm == TR_NORM_LAYER)
        st = layer_bias(l, i, name, dim, bias);
    return st;
}

static tr_status load_biases(loader *l, uint32_t i, uint64_t q, uint64_t kv)
{
    tr_layer *y = &l->m->layer[i];

    tr_status st = layer_bias(l, i, "attn_q", q, &y->q_bias);
    if (st == TR_OK)
        st = layer_bias(l, i, "attn_k", kv, &y->k_bias);
    if (st == TR_OK)
        st = layer_bias(l, i, "attn_v", kv, &y->v_bias);
    return st;
}

static tr_status load_shared(loader *l, uint32_t i)
{
    const tr_model_config *c = &l->m->config;
    tr_layer *y = &l->m->layer[i];

    tr_status st = layer_matrix(l, i, "ffn_gate_shexp", c->dim, c->shared_ffn, &y->shared_gate);
    if (st == TR_OK)
        st = layer_matrix(l, i, "ffn_up_shexp", c->dim, c->shared_ffn, &y->shared_up);
    if (st == TR_OK)
        st = layer_matrix(l, i, "ffn_down_shexp", c->shared_ffn, c->dim, &y->shared_down);
    if (st == TR_OK && c->has_shared_gate)
        st = layer_vector(l, i, "ffn_gate_inp_shexp", c->dim, &y->shared_weight);
    return st;
}

/* A bias for choosing that is no number would go unnoticed: weights don't have it. */
static tr_status load_choice_bias(loader *l, uint32_t i)
{
    tr_layer *y = &l->m->layer[i];
    uint32_t n = l->m->config.n_experts;

    tr_status st = layer_bias(l, i, "exp_probs_b", n, &y->choice_bias);
    if (st != TR_OK || l->used)
        return st;
    for (uint32_t e = 0; e < n; e++)
        if (!isfinite(y->choice_bias[e]))
            return tr_fail(TR_E_FORMAT,
                           "model %s: tensor blk.%u.exp_probs_b.bias: the value of expert %u is no "
                           "number",
                           tr_gguf_path(l->g), i, e);
    return TR_OK;
}

/* What stands beside the experts of a layer. */
static tr_status load_router(loader *l, uint32_t i)
{
    const tr_model_config *c = &l->m->config;
    tr_layer *y = &l->m->layer[i];

    tr_status st = layer_matrix(l, i, "ffn_gate_inp", c->dim, c->n_experts, &y->router);
    if (st == TR_OK && c->has_router_bias)
        st = layer_bias(l, i, "ffn_gate_inp", c->n_experts, &y->router_bias);
    if (st == TR_OK && c->has_choice_bias)
        st = load_choice_bias(l, i);
    if (st == TR_OK && c->shared_ffn > 0)
        st = load_shared(l, i);
    return st;
}

static tr_status wrong_kind(const loader *l, uint32_t i)
{
    return tr_fail(TR_E_FORMAT, "model %s: layer %u has tensor %s, but the metadata promises %s",
                   tr_gguf_path(l->g), i, l->m->experts.layer[i].up->name,
                   i < l->m->config.n_dense ? "a layer without experts" : "experts");
}

/* The first layers are dense, the others have experts, as the metadata says. */
static tr_status check_kind(const loader *l, uint32_t i)
{
    const tr_expert_tensors *e = &l->m->experts.layer[i];
    bool is_dense = i < l->m->config.n_dense;
    bool is_plain = is_dense && l->m->config.has_plain_ffn;

    if (!tr_expert_map_has(&l->m->experts, i))
        return tr_fail(TR_E_FORMAT, "model %s: layer %u lacks blk.%u.ffn_%s%s.weight",
                       tr_gguf_path(l->g), i, i, is_plain ? "up" : "gate", is_dense ? "" : "_exps");
    if (e->is_dense != is_dense)
        return wrong_kind(l, i);
    if (is_plain != tr_expert_is_plain(e))
        return tr_fail(TR_E_UNSUPPORTED,
                       "model %s: layer %u has %s tensor blk.%u.ffn_gate.weight: this variant of "
                       "%s is not supported",
                       tr_gguf_path(l->g), i, is_plain ? "a" : "no", i, l->m->config.arch);
    bool has_bias = e->up_bias != NULL;
    if (is_dense || has_bias == l->m->config.has_expert_bias)
        return TR_OK;
    return tr_fail(TR_E_UNSUPPORTED,
                   "model %s: layer %u has experts with%s biases: this variant of "
                   "%s is not supported",
                   tr_gguf_path(l->g), i, has_bias ? "" : "out", l->m->config.arch);
}

/* A tensor of one matrix a head, or of all heads' in one. */
static tr_status find_heads(const loader *l, uint32_t i, const char *part, uint64_t in,
                            uint64_t out, uint64_t n, const tr_gguf_tensor **t)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%u.%s.weight", i, part);
    tr_status st = find(l, name, in, out, n, t);
    return st == TR_OK ? tr_weights_check(l->g, *t) : st;
}

/* The matrices of keys and values; older files have both in one tensor. */
static tr_status load_up(loader *l, uint32_t i)
{
    const tr_model_config *c = &l->m->config;
    tr_latent_weights *up = &l->m->layer[i].up;
    uint64_t n_key = c->head_dim - c->n_rot;
    const tr_gguf_tensor *keys = NULL, *values = NULL;
    char name[64];

    snprintf(name, sizeof name, "blk.%u.attn_k_b.weight", i);
    bool is_joint = !tr_gguf_find(l->g, name);
    tr_status st = is_joint ? find_heads(l, i, "attn_kv_b", c->latent,
                                         c->n_heads * (n_key + c->value_dim), 1, &keys)
                            : find_heads(l, i, "attn_k_b", n_key, c->latent, c->n_heads, &keys);
    if (st == TR_OK && !is_joint)
        st = find_heads(l, i, "attn_v_b", c->latent, c->value_dim, c->n_heads, &values);
    if (st == TR_OK && l->used && l->compute)
        l->m->bytes += tr_latent_size(l->compute, c, keys, values);
    if (st != TR_OK || l->used)
        return st;
    st = is_joint ? tr_latent_load_joint(l->compute, l->g, c, keys, up)
                  : tr_latent_load(l->compute, l->g, keys, values, up);
    return st == TR_OK ? loaded(l, up->keys.size + up->values.size) : st;
}

static tr_status load_latent(loader *l, uint32_t i)
{
    const tr_model_config *c = &l->m->config;
    tr_layer *y = &l->m->layer[i];
    uint64_t q = (uint64_t)c->n_heads * c->head_dim;
    tr_status st = TR_OK;

    if (c->query_rank > 0) {
        st = layer_matrix(l, i, "attn_q_a", c->dim, c->query_rank, &y->q_low);
        if (st == TR_OK)
            st = layer_vector(l, i, "attn_q_a_norm", c->query_rank, &y->q_low_norm);
        if (st == TR_OK)
            st = layer_matrix(l, i, "attn_q_b", c->query_rank, q, &y->q);
    } else {
        st = layer_matrix(l, i, "attn_q", c->dim, q, &y->q);
    }
    if (st == TR_OK)
        st = layer_matrix(l, i, "attn_kv_a_mqa", c->dim, c->latent + c->n_rot, &y->kv_low);
    if (st == TR_OK)
        st = layer_vector(l, i, "attn_kv_a_norm", c->latent, &y->latent_norm);
    return st == TR_OK ? load_up(l, i) : st;
}

/* Each a matrix of its own. */
static tr_status load_single_qkv(loader *l, uint32_t i, uint64_t q, uint64_t kv)
{
    const tr_model_config *c = &l->m->config;
    tr_layer *y = &l->m->layer[i];

    tr_status st = layer_matrix(l, i, "attn_q", c->dim, q, &y->q);
    if (st == TR_OK)
        st = layer_matrix(l, i, "attn_k", c->dim, kv, &y->k);
    if (st == TR_OK)
        st = layer_matrix(l, i, "attn_v", c->dim, kv, &y->v);
    return st == TR_OK && c->has_qkv_bias ? load_biases(l, i, q, kv) : st;
}

/* Rows first..first+n-1 of t, as if they were a tensor. */
static tr_gguf_tensor rows_of(const tr_gguf_tensor *t, uint64_t first, uint64_t n)
{
    tr_gguf_tensor part = *t;
    uint64_t row = t->size / t->dim[1];

    part.dim[1] = n;
    part.offset += first * row;
    part.size = n * row;
    return part;
}

/* Matrices that lie one below the other in attn_qkv. */
static tr_status load_joint_matrices(loader *l, uint32_t i, const uint64_t rows[3])
{
    tr_layer *y = &l->m->layer[i];
    tr_weights *to[] = { &y->q, &y->k, &y->v };
    const tr_gguf_tensor *t = NULL;
    uint64_t first = 0;
    char name[64];

    snprintf(name, sizeof name, "blk.%u.attn_qkv.weight", i);
    tr_status st = find(l, name, l->m->config.dim, rows[0] + rows[1] + rows[2], 1, &t);
    for (size_t k = 0; k < 3 && st == TR_OK; k++) {
        tr_gguf_tensor part = rows_of(t, first, rows[k]);
        first += rows[k];
        if (l->used) {
            st = checked(l, t, l->compute ? tr_weights_size_for(l->compute, &part, 1) : 0);
            continue;
        }
        st = tr_weights_load_for(l->compute, l->g, &part, 0, 1, to[k]);
        if (st == TR_OK)
            st = loaded(l, to[k]->size);
    }
    return st;
}

/* Biases that lie one behind the other. */
static tr_status load_joint_biases(loader *l, uint32_t i, const uint64_t rows[3])
{
    tr_layer *y = &l->m->layer[i];
    float **to[] = { &y->q_bias, &y->k_bias, &y->v_bias };
    uint64_t n = rows[0] + rows[1] + rows[2];
    float *joint = NULL;
    const float *from;

    tr_status st = layer_bias(l, i, "attn_qkv", n, &joint);
    if (st != TR_OK || l->used)
        return st;
    from = joint;
    for (size_t k = 0; k < 3 && st == TR_OK; k++) {
        st = tr_memory_new(rows[k] * sizeof(float), "biases", (void **)to[k]);
        if (st == TR_OK)
            memcpy(*to[k], from, rows[k] * sizeof(float));
        from += rows[k];
    }
    vector_free(&joint, n);
    return st;
}

/* Queries, keys and values. */
static tr_status load_projections(loader *l, uint32_t i)
{
    const tr_model_config *c = &l->m->config;
    tr_layer *y = &l->m->layer[i];
    uint64_t q = (uint64_t)c->n_heads * c->head_dim;
    uint64_t kv = (uint64_t)c->n_kv_heads * c->head_dim;
    const uint64_t rows[] = { q, kv, kv };

    tr_status st =
        c->has_joint_qkv ? load_joint_matrices(l, i, rows) : load_single_qkv(l, i, q, kv);
    if (st == TR_OK && c->has_joint_qkv && c->has_qkv_bias)
        st = load_joint_biases(l, i, rows);
    if (st == TR_OK && c->qk_norm != TR_QK_NORM_NONE)
        st = layer_vector(l, i, "attn_q_norm", q_norm_size(c), &y->q_norm);
    if (st == TR_OK && c->qk_norm != TR_QK_NORM_NONE)
        st = layer_vector(l, i, "attn_k_norm", k_norm_size(c), &y->k_norm);
    return st;
}

static tr_status load_layer(loader *l, uint32_t i)
{
    const tr_model_config *c = &l->m->config;
    tr_layer *y = &l->m->layer[i];
    uint64_t given = (uint64_t)c->n_heads * c->value_dim;

    tr_status st = check_kind(l, i);
    if (st == TR_OK)
        st = layer_norm(l, i, "attn_norm", &y->attn_norm, &y->attn_norm_bias);
    if (st == TR_OK)
        st = c->latent > 0 ? load_latent(l, i) : load_projections(l, i);
    if (st == TR_OK)
        st = layer_matrix(l, i, "attn_output", given, c->dim, &y->attn_out);
    if (st == TR_OK && c->has_out_bias)
        st = layer_bias(l, i, "attn_output", c->dim, &y->out_bias);
    if (st == TR_OK && c->has_sinks)
        st = layer_vector(l, i, "attn_sinks", c->n_heads, &y->sinks);
    if (st == TR_OK)
        st = layer_norm(l, i, c->ffn_norm, &y->ffn_norm, &y->ffn_norm_bias);
    if (st == TR_OK && i >= c->n_dense)
        st = load_router(l, i);
    return st;
}

static tr_status load(loader *l)
{
    tr_model *m = l->m;
    const tr_model_config *c = &m->config;

    tr_status st = matrix(l, "token_embd.weight", c->dim, c->n_vocab, &m->embedding);
    if (st == TR_OK)
        st = vector(l, "output_norm.weight", c->dim, &m->output_norm);
    if (st == TR_OK && c->norm == TR_NORM_LAYER)
        st = vector(l, "output_norm.bias", c->dim, &m->output_norm_bias);
    if (st == TR_OK && c->has_positions)
        st = matrix(l, "position_embd.weight", c->dim, c->context, &m->positions);
    if (st == TR_OK && c->has_rope_factors)
        st = vector(l, "rope_freqs.weight", c->n_rot / 2, &m->rope_factors);
    if (st != TR_OK)
        return st;
    m->output = &m->embedding.matrix;
    if (tr_gguf_find(l->g, "output.weight")) {
        st = matrix(l, "output.weight", c->dim, c->n_vocab, &m->output_own);
        m->output = &m->output_own.matrix;
    }
    for (uint32_t i = 0; i < c->n_layers && st == TR_OK; i++)
        st = load_layer(l, i);
    return st;
}

static tr_status read_and_load(loader *l)
{
    tr_model *m = l->m;

    tr_status st = tr_model_config_read(l->g, &m->config);
    if (st == TR_OK)
        st = tr_expert_map_read(l->g, &m->experts);
    if (st != TR_OK)
        return st;
    m->layer = calloc(m->config.n_layers, sizeof *m->layer);
    if (!m->layer)
        return tr_fail(TR_E_MEMORY, "model: no memory for %u layers", m->config.n_layers);
    return load(l);
}

static tr_status check_experts(loader *l)
{
    const tr_expert_map *map = &l->m->experts;

    for (uint32_t i = 0; i < map->n_layers; i++) {
        const tr_expert_tensors *e = &map->layer[i];
        const tr_gguf_tensor *all[] = { e->gate,      e->up,      e->down,
                                        e->gate_bias, e->up_bias, e->down_bias };
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++) {
            tr_status st = all[k] ? tr_weights_check(l->g, all[k]) : TR_OK;
            if (st != TR_OK)
                return st;
            if (all[k])
                l->used[all[k] - tr_gguf_tensor_at(l->g, 0)] = 1;
        }
    }
    return TR_OK;
}

/* Of a block behind the layers that are run. */
static bool is_behind(const tr_model_config *c, const char *name)
{
    unsigned block;

    return sscanf(name, "blk.%u.", &block) == 1 && block >= c->n_layers &&
           block < c->n_layers + c->n_behind;
}

/* A block behind says so by a tensor of its own, nextn.*; else it is a layer like others, and the
 * metadata's count of those that are run is wrong. */
static tr_status check_behind(const loader *l)
{
    const tr_model_config *c = &l->m->config;
    bool has_any[TR_MAX_LAYERS] = { false };
    bool has_own[TR_MAX_LAYERS] = { false };
    unsigned block;

    for (size_t i = 0; i < tr_gguf_n_tensors(l->g); i++) {
        const char *name = tr_gguf_tensor_at(l->g, i)->name;
        if (!is_behind(c, name) || sscanf(name, "blk.%u.", &block) != 1)
            continue;
        has_any[block] = true;
        has_own[block] |= strstr(name, ".nextn.") != NULL;
    }
    for (uint32_t b = c->n_layers; b < c->n_layers + c->n_behind; b++)
        if (has_any[b] && !has_own[b])
            return tr_fail(TR_E_FORMAT,
                           "model %s: %s.nextn_predict_layers is %u, but block %u has no tensor "
                           "blk.%u.nextn.*: it is a layer that is run",
                           tr_gguf_path(l->g), c->arch, c->n_behind, b, b);
    return TR_OK;
}

static tr_status check_unused(const loader *l)
{
    for (size_t i = 0; i < tr_gguf_n_tensors(l->g); i++)
        if (!l->used[i] && !is_behind(&l->m->config, tr_gguf_tensor_at(l->g, i)->name))
            return tr_fail(
                TR_E_UNSUPPORTED,
                "model %s: nothing here uses tensor %s: this variant of %s is not supported",
                tr_gguf_path(l->g), tr_gguf_tensor_at(l->g, i)->name, l->m->config.arch);
    return TR_OK;
}

tr_status tr_model_check(const tr_gguf *g)
{
    uint64_t ignored;

    return tr_model_measure(g, NULL, &ignored);
}

tr_status tr_model_measure(const tr_gguf *g, const tr_compute *compute, uint64_t *bytes)
{
    size_t n = tr_gguf_n_tensors(g);
    tr_model *m = calloc(1, sizeof *m);
    uint8_t *used = calloc(n ? n : 1, 1);
    loader l = { g, compute, m, NULL, NULL, used };
    tr_status st =
        m && used ? read_and_load(&l) : tr_fail(TR_E_MEMORY, "model: no memory for a check");

    if (st == TR_OK)
        st = check_experts(&l);
    if (st == TR_OK)
        st = check_behind(&l);
    if (st == TR_OK)
        st = check_unused(&l);
    if (st == TR_OK)
        *bytes = m->bytes;
    tr_model_close(&m);
    free(used);
    return st;
}

tr_status tr_model_open(const tr_gguf *g, const tr_compute *compute,
                        tr_status (*progress)(void *ctx, uint64_t bytes), void *ctx, tr_model **out)
{
    tr_model *m = calloc(1, sizeof *m);

    if (!m)
        return tr_fail(TR_E_MEMORY, "model: no memory");
    loader l = { g, compute, m, progress, ctx, NULL };
    tr_status st = read_and_load(&l);
    if (st != TR_OK) {
        tr_model_close(&m);
        return st;
    }
    *out = m;
    return TR_OK;
}

static void layer_free(const tr_model_config *c, tr_layer *y)
{
    vector_free(&y->attn_norm, c->dim);
    vector_free(&y->attn_norm_bias, c->dim);
    tr_weights_free(&y->q);
    tr_weights_free(&y->k);
    tr_weights_free(&y->v);
    vector_free(&y->q_bias, (size_t)c->n_heads * c->head_dim);
    vector_free(&y->k_bias, (size_t)c->n_kv_heads * c->head_dim);
    vector_free(&y->v_bias, (size_t)c->n_kv_heads * c->head_dim);
    vector_free(&y->q_norm, q_norm_size(c));
    vector_free(&y->k_norm, k_norm_size(c));
    tr_weights_free(&y->attn_out);
    tr_weights_free(&y->q_low);
    vector_free(&y->q_low_norm, c->query_rank);
    tr_weights_free(&y->kv_low);
    vector_free(&y->latent_norm, c->latent);
    tr_latent_weights_free(&y->up);
    vector_free(&y->out_bias, c->dim);
    vector_free(&y->sinks, c->n_heads);
    vector_free(&y->ffn_norm, c->dim);
    vector_free(&y->ffn_norm_bias, c->dim);
    tr_weights_free(&y->router);
    vector_free(&y->router_bias, c->n_experts);
    vector_free(&y->choice_bias, c->n_experts);
    tr_weights_free(&y->shared_gate);
    tr_weights_free(&y->shared_up);
    tr_weights_free(&y->shared_down);
    vector_free(&y->shared_weight, c->dim);
}

void tr_model_close(tr_model **model)
{
    tr_model *m = *model;

    if (!m)
        return;
    for (uint32_t i = 0; m->layer && i < m->config.n_layers; i++)
        layer_free(&m->config, &m->layer[i]);
    free(m->layer);
    vector_free(&m->output_norm, m->config.dim);
    vector_free(&m->output_norm_bias, m->config.dim);
    tr_weights_free(&m->positions);
    vector_free(&m->rope_factors, m->config.n_rot / 2);
    tr_weights_free(&m->output_own);
    tr_weights_free(&m->embedding);
    tr_expert_map_fini(&m->experts);
    free(m);
    *model = NULL;
}

uint64_t tr_model_dense_bytes(const tr_gguf *g, const tr_expert_map *map)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < tr_gguf_n_tensors(g); i++) {
        const tr_gguf_tensor *t = tr_gguf_tensor_at(g, i);
        if (!tr_expert_map_is_behind(map, t->name))
            sum += t->size;
    }
    for (uint32_t l = 0; l < map->n_layers; l++)
        if (tr_expert_map_has(map, l))
            sum -= tr_expert_map_bytes(map, l) * map->layer[l].n_experts;
    return sum;
}
