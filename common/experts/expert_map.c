/* expert_map.c - find the expert tensors by name and hold their shapes against the metadata.
 * SPDX-License-Identifier: Apache-2.0 */
#include "experts/expert_map.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_LAYERS = 1024, MAX_EXPERTS = 4096, MAX_DIM = 65536, MAX_TOP_K = 64 };

/* What the metadata says, for all layers. */
typedef struct {
    const tr_gguf *g;
    tr_bytes arch;
    uint32_t n_experts, top_k; /* 0: not said, so no layer may have experts */
} promise;

/* "ARCH.name", which must be at most max; what stays as it was where the file does not say. */
static tr_status opt_count(const promise *p, const char *name, uint32_t max, uint32_t *out)
{
    char key[160];
    uint32_t v = *out;

    snprintf(key, sizeof key, "%.*s.%s", (int)p->arch.size, (const char *)p->arch.data, name);
    tr_status st = tr_gguf_opt_u32(p->g, key, &v);
    if (st != TR_OK)
        return st;
    if (v > max)
        return tr_fail(TR_E_FORMAT, "model %s: %s is %u, but must be at most %u",
                       tr_gguf_path(p->g), key, v, max);
    *out = v;
    return TR_OK;
}

/* As opt_count, but it must be said, and more than 0. */
static tr_status get_count(const promise *p, const char *name, uint32_t max, uint32_t *out)
{
    uint32_t v = 0;

    tr_status st = opt_count(p, name, max, &v);
    if (st == TR_OK && v == 0)
        st = tr_fail(TR_E_FORMAT, "model %s: %.*s.%s is 0 or missing", tr_gguf_path(p->g),
                     (int)p->arch.size, (const char *)p->arch.data, name);
    if (st == TR_OK)
        *out = v;
    return st;
}

static tr_status check_shape(const tr_gguf *g, const tr_gguf_tensor *t, uint64_t in, uint64_t out,
                             uint64_t n)
{
    if (t->dim[0] == in && t->dim[1] == out && t->dim[2] == n && t->dim[3] == 1)
        return TR_OK;
    return tr_fail(TR_E_FORMAT,
                   "model %s: tensor %s has shape %llu x %llu x %llu, the metadata promises "
                   "%llu x %llu x %llu",
                   tr_gguf_path(g), t->name, (unsigned long long)t->dim[0],
                   (unsigned long long)t->dim[1], (unsigned long long)t->dim[2],
                   (unsigned long long)in, (unsigned long long)out, (unsigned long long)n);
}

/* blk.LAYER.ffn_PART.weight, for experts with _exps behind the part. */
static const tr_gguf_tensor *find(const tr_gguf *g, uint32_t layer, const char *part,
                                  const char *behind)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%u.ffn_%s%s.weight", layer, part, behind);
    return tr_gguf_find(g, name);
}

/* blk.LAYER.ffn_PART.bias, the same way. */
static const tr_gguf_tensor *find_bias(const tr_gguf *g, uint32_t layer, const char *part,
                                       const char *behind)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%u.ffn_%s%s.bias", layer, part, behind);
    return tr_gguf_find(g, name);
}

static tr_status check_bias(const tr_gguf *g, const tr_gguf_tensor *t, uint64_t n,
                            uint64_t n_experts)
{
    if (t->type != TR_TYPE_F32)
        return tr_fail(TR_E_UNSUPPORTED,
                       "model %s: tensor %s is of type %s, but biases must be F32", tr_gguf_path(g),
                       t->name, tr_type_get(t->type)->name);
    return check_shape(g, t, n, n_experts, 1);
}

/* Biases of the experts, if the file has any for them, and of a network without a gate. */
static tr_status read_biases(const promise *p, uint32_t layer, uint32_t dim, tr_expert_tensors *e)
{
    static const char *const parts[] = { "gate", "up", "down" };
    const tr_gguf_tensor **out[] = { &e->gate_bias, &e->up_bias, &e->down_bias };
    const uint64_t sizes[] = { e->ffn, e->ffn, dim };
    const char *behind = e->is_dense ? "" : "_exps";
    size_t first = tr_expert_is_plain(e) ? 1 : 0;
    uint32_t n = 0;
    tr_status st = TR_OK;

    if (e->is_dense && !tr_expert_is_plain(e))
        return TR_OK;
    for (size_t i = first; i < 3; i++) {
        *out[i] = find_bias(p->g, layer, parts[i], behind);
        n += *out[i] != NULL;
    }
    for (size_t i = first; i < 3 && n > 0 && st == TR_OK; i++)
        st = *out[i] ? check_bias(p->g, *out[i], sizes[i], e->n_experts)
                     : tr_fail(TR_E_FORMAT, "model %s: layer %u lacks blk.%u.ffn_%s%s.bias",
                               tr_gguf_path(p->g), layer, layer, parts[i], behind);
    return st;
}

/* The width that the metadata promises, if it does: some files leave it out, some write 0. */
static tr_status check_width(const promise *p, const tr_expert_tensors *e)
{
    const char *name = e->is_dense ? "feed_forward_length" : "expert_feed_forward_length";
    uint32_t promised = 0;

    tr_status st = opt_count(p, name, MAX_DIM, &promised);
    if (st == TR_OK && promised != 0 && promised != e->ffn)
        st =
            tr_fail(TR_E_FORMAT, "model %s: tensor %s: %s %u wide, but %.*s.%s is %u",
                    tr_gguf_path(p->g), e->up->name, e->is_dense ? "the network is" : "experts are",
                    e->ffn, (int)p->arch.size, (const char *)p->arch.data, name, promised);
    return st;
}

static tr_status check_layer(const promise *p, uint32_t dim, tr_expert_tensors *e)
{
    const tr_gguf *g = p->g;

    const tr_gguf_tensor *wide = e->gate ? e->gate : e->up;

    if (wide->dim[1] == 0 || wide->dim[1] > MAX_DIM)
        return tr_fail(TR_E_FORMAT, "model %s: tensor %s: %llu hidden units, at most %d",
                       tr_gguf_path(g), wide->name, (unsigned long long)wide->dim[1], MAX_DIM);
    e->ffn = (uint32_t)wide->dim[1];
    tr_status st = check_shape(g, wide, dim, e->ffn, e->n_experts);
    if (st == TR_OK)
        st = check_shape(g, e->up, dim, e->ffn, e->n_experts);
    if (st == TR_OK)
        st = check_shape(g, e->down, e->ffn, dim, e->n_experts);
    return st == TR_OK ? check_width(p, e) : st;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* A dense network that has biases and no gate; what has neither merely lacks its gate. */
static bool is_without_gate(const tr_gguf *g, uint32_t layer)
{
    bool has_bias = find_bias(g, layer, "up", "") || find_bias(g, layer, "down", "");

    return has_bias && !find(g, layer, "gate", "");
}

/* Fills m->layer[i]. */
static tr_status read_layer(const promise *p, tr_expert_map *m, uint32_t i)
{
    const tr_gguf *g = p->g;
    bool is_plain = is_without_gate(g, i);
    bool is_dense = is_plain || find(g, i, "gate", "") != NULL;
    const char *behind = is_dense ? "" : "_exps";
    tr_expert_tensors e = { .gate = find(g, i, "gate", behind),
                            .up = find(g, i, "up", behind),
                            .down = find(g, i, "down", behind),
                            .n_experts = is_dense ? 1 : p->n_experts,
                            .top_k = is_dense ? 1 : p->top_k,
                            .is_dense = is_dense };

    if (!e.gate && !e.up && !e.down)
        return TR_OK;
    if ((!e.gate && !is_plain) || !e.up || !e.down)
        return tr_fail(TR_E_FORMAT, "model %s: layer %u lacks blk.%u.ffn_%s%s.weight",
                       tr_gguf_path(g), i, i,
                       !e.gate && !is_plain ? "gate"
                       : !e.up              ? "up"
                                            : "down",
                       behind);
    if (e.n_experts == 0)
        return tr_fail(TR_E_FORMAT,
                       "model %s: has tensor %s, but %.*s.expert_count is 0 or missing",
                       tr_gguf_path(g), e.up->name, (int)p->arch.size, (const char *)p->arch.data);
    tr_status st = check_layer(p, m->dim, &e);
    if (st == TR_OK)
        st = read_biases(p, i, m->dim, &e);
    if (st != TR_OK)
        return st;
    m->layer[i] = e;
    m->n_experts = larger(m->n_experts, e.n_experts);
    m->top_k = larger(m->top_k, e.top_k);
    m->ffn = larger(m->ffn, e.ffn);
    return TR_OK;
}

/* Files of early 2024 have one tensor an expert, newer ones may have gate and up in one: the line
 * that some tensor is missing would help nobody. */
static tr_status refuse_layouts(const promise *p, uint32_t layer)
{
    const tr_gguf_tensor *one = find(p->g, layer, "gate", ".0");
    const tr_gguf_tensor *joint = find(p->g, layer, "gate_up", "_exps");

    if (one)
        return tr_fail(
            TR_E_UNSUPPORTED,
            "model %s: has tensor %s: one tensor for each expert, an old layout; convert "
            "the model again",
            tr_gguf_path(p->g), one->name);
    if (joint)
        return tr_fail(TR_E_UNSUPPORTED,
                       "model %s: has tensor %s: gate and up in one, which is not supported; "
                       "convert the model again with these apart",
                       tr_gguf_path(p->g), joint->name);
    return TR_OK;
}

/* Layers of the whole file less those behind them that only predict further tokens. */
static tr_status read_layer_count(const promise *p, uint32_t *out)
{
    uint32_t n = 0;
    uint32_t n_behind = 0;

    tr_status st = get_count(p, "block_count", MAX_LAYERS, &n);
    if (st == TR_OK)
        st = opt_count(p, "nextn_predict_layers", n - 1, &n_behind);
    *out = n - n_behind;
    return st;
}

static tr_status read_experts(promise *p)
{
    tr_status st = opt_count(p, "expert_count", MAX_EXPERTS, &p->n_experts);

    if (st != TR_OK || p->n_experts == 0)
        return st;
    st = get_count(p, "expert_used_count", MAX_TOP_K, &p->top_k);
    if (st == TR_OK && p->top_k > p->n_experts)
        st = tr_fail(TR_E_FORMAT, "model %s: %u of %u experts used: more than there are",
                     tr_gguf_path(p->g), p->top_k, p->n_experts);
    return st;
}

tr_status tr_expert_map_read(const tr_gguf *g, tr_expert_map *out)
{
    tr_expert_map m = { 0 };
    promise p = { .g = g };

    tr_status st = tr_gguf_get_string(g, "general.architecture", &p.arch);
    if (st != TR_OK)
        return st;
    if (p.arch.size == 0 || p.arch.size > 64)
        return tr_fail(TR_E_FORMAT, "model %s: general.architecture has %zu bytes, not 1..64",
                       tr_gguf_path(g), p.arch.size);
    st = read_layer_count(&p, &m.n_layers);
    if (st == TR_OK)
        st = get_count(&p, "embedding_length", MAX_DIM, &m.dim);
    if (st == TR_OK)
        st = read_experts(&p);
    if (st != TR_OK)
        return st;
    m.layer = calloc(m.n_layers, sizeof *m.layer);
    if (!m.layer)
        return tr_fail(TR_E_MEMORY, "expert map: no memory for %u layers", m.n_layers);
    for (uint32_t i = 0; i < m.n_layers && st == TR_OK; i++) {
        st = refuse_layouts(&p, i);
        if (st == TR_OK)
            st = read_layer(&p, &m, i);
    }
    if (st == TR_OK && m.ffn == 0)
        st = tr_fail(TR_E_FORMAT,
                     "model %s: no tensor blk.N.ffn_up_exps.weight or blk.N.ffn_up.weight",
                     tr_gguf_path(g));
    if (st != TR_OK) {
        tr_expert_map_fini(&m);
        return st;
    }
    *out = m;
    return TR_OK;
}

void tr_expert_map_fini(tr_expert_map *m)
{
    free(m->layer);
    *m = (tr_expert_map){ 0 };
}

bool tr_expert_map_is_behind(const tr_expert_map *m, const char *tensor)
{
    unsigned block;

    return sscanf(tensor, "blk.%u.", &block) == 1 && block >= m->n_layers;
}

tr_act tr_expert_map_act(const tr_expert_map *m, uint32_t layer, bool exact)
{
    const tr_expert_tensors *e = &m->layer[layer];

    /* One form serves gate and up; float32 suits every weight type. */
    if ((!e->gate || tr_act_for(e->gate->type, exact) == TR_ACT_Q8) &&
        tr_act_for(e->up->type, exact) == TR_ACT_Q8)
        return TR_ACT_Q8;
    return TR_ACT_F32;
}

uint64_t tr_expert_map_bytes(const tr_expert_map *m, uint32_t layer)
{
    const tr_expert_tensors *e = &m->layer[layer];
    const tr_gguf_tensor *parts[] = { e->gate,      e->up,      e->down,
                                      e->gate_bias, e->up_bias, e->down_bias };
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        sum += parts[i] ? parts[i]->size : 0;
    return sum / e->n_experts;
}
