/* expert_map.c - find the expert tensors by name and hold their shapes against the metadata.
 * SPDX-License-Identifier: Apache-2.0 */
#include "experts/expert_map.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_LAYERS = 1024, MAX_EXPERTS = 4096, MAX_DIM = 65536, MAX_TOP_K = 64 };

/* "ARCH.name" as u32 within 1..max. */
static tr_status read_count(const tr_gguf *g, tr_bytes arch, const char *name, uint32_t max,
                            uint32_t *out)
{
    char key[160];
    uint32_t v = 0;

    snprintf(key, sizeof key, "%.*s.%s", (int)arch.size, (const char *)arch.data, name);
    tr_status st = tr_gguf_get_u32(g, key, &v);
    if (st != TR_OK)
        return st;
    if (v == 0 || v > max)
        return tr_fail(TR_E_FORMAT, "model %s: %s is %u, but must be 1..%u", tr_gguf_path(g), key,
                       v, max);
    *out = v;
    return TR_OK;
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

static const tr_gguf_tensor *find(const tr_gguf *g, uint32_t layer, const char *part)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%u.ffn_%s_exps.weight", layer, part);
    return tr_gguf_find(g, name);
}

/* The width that the metadata promises, if it does: some files leave it out, some write 0. */
static tr_status check_width(const tr_gguf *g, tr_bytes arch, const tr_expert_map *m)
{
    char key[160];
    uint32_t promised = 0;

    snprintf(key, sizeof key, "%.*s.expert_feed_forward_length", (int)arch.size,
             (const char *)arch.data);
    tr_status st = tr_gguf_opt_u32(g, key, &promised);
    if (st == TR_OK && promised != 0 && promised != m->ffn)
        st = tr_fail(TR_E_FORMAT, "model %s: experts are %u wide, but %s is %u", tr_gguf_path(g),
                     m->ffn, key, promised);
    return st;
}

/* Fills m->layer[i]; the first layer with experts fixes ffn. */
static tr_status read_layer(const tr_gguf *g, tr_expert_map *m, uint32_t i)
{
    tr_expert_tensors e = { find(g, i, "gate"), find(g, i, "up"), find(g, i, "down") };

    if (!e.gate && !e.up && !e.down)
        return TR_OK;
    if (!e.gate || !e.up || !e.down)
        return tr_fail(TR_E_FORMAT, "model %s: layer %u lacks blk.%u.ffn_%s_exps.weight",
                       tr_gguf_path(g), i, i,
                       !e.gate ? "gate"
                       : !e.up ? "up"
                               : "down");
    if (m->ffn == 0) {
        if (e.gate->dim[1] == 0 || e.gate->dim[1] > MAX_DIM)
            return tr_fail(TR_E_FORMAT, "model %s: tensor %s: %llu hidden units, at most %d",
                           tr_gguf_path(g), e.gate->name, (unsigned long long)e.gate->dim[1],
                           MAX_DIM);
        m->ffn = (uint32_t)e.gate->dim[1];
    }
    tr_status st = check_shape(g, e.gate, m->dim, m->ffn, m->n_experts);
    if (st == TR_OK)
        st = check_shape(g, e.up, m->dim, m->ffn, m->n_experts);
    if (st == TR_OK)
        st = check_shape(g, e.down, m->ffn, m->dim, m->n_experts);
    if (st == TR_OK)
        m->layer[i] = e;
    return st;
}

tr_status tr_expert_map_read(const tr_gguf *g, tr_expert_map *out)
{
    tr_expert_map m = { 0 };
    tr_bytes arch = { NULL, 0 };

    tr_status st = tr_gguf_get_string(g, "general.architecture", &arch);
    if (st != TR_OK)
        return st;
    if (arch.size == 0 || arch.size > 64)
        return tr_fail(TR_E_FORMAT, "model %s: general.architecture has %zu bytes, not 1..64",
                       tr_gguf_path(g), arch.size);
    st = read_count(g, arch, "block_count", MAX_LAYERS, &m.n_layers);
    if (st == TR_OK)
        st = read_count(g, arch, "embedding_length", MAX_DIM, &m.dim);
    if (st == TR_OK)
        st = read_count(g, arch, "expert_count", MAX_EXPERTS, &m.n_experts);
    if (st == TR_OK)
        st = read_count(g, arch, "expert_used_count", MAX_TOP_K, &m.top_k);
    if (st != TR_OK)
        return st;
    if (m.top_k > m.n_experts)
        return tr_fail(TR_E_FORMAT, "model %s: %u of %u experts used: more than there are",
                       tr_gguf_path(g), m.top_k, m.n_experts);
    m.layer = calloc(m.n_layers, sizeof *m.layer);
    if (!m.layer)
        return tr_fail(TR_E_MEMORY, "expert map: no memory for %u layers", m.n_layers);
    for (uint32_t i = 0; i < m.n_layers && st == TR_OK; i++)
        st = read_layer(g, &m, i);
    if (st == TR_OK && m.ffn == 0)
        st = tr_fail(TR_E_FORMAT, "model %s: no tensor blk.N.ffn_gate_exps.weight: no experts",
                     tr_gguf_path(g));
    if (st == TR_OK)
        st = check_width(g, arch, &m);
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

tr_act tr_expert_map_act(const tr_expert_map *m, uint32_t layer, bool exact)
{
    const tr_expert_tensors *e = &m->layer[layer];

    /* One form serves gate and up; float32 suits every weight type. */
    if (tr_act_for(e->gate->type, exact) == TR_ACT_Q8 &&
        tr_act_for(e->up->type, exact) == TR_ACT_Q8)
        return TR_ACT_Q8;
    return TR_ACT_F32;
}

uint64_t tr_expert_map_bytes(const tr_expert_map *m, uint32_t layer)
{
    const tr_expert_tensors *e = &m->layer[layer];

    return (e->gate->size + e->up->size + e->down->size) / m->n_experts;
}
