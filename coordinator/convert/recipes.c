/* recipes.c - go through the family's tables, layer by layer, and find what they name.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/recipes.h"

#include "base/log.h"
#include "compute/blocks.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

enum { MXFP4_BLOCK = 32, MXFP4_BYTES = 16 };

typedef struct {
    const tr_hf_model *m;
    tr_checkpoint *c;
    const tr_type_rules *types;
    tr_recipes *list;
    size_t capacity;
} maker;

/* ---- sources -------------------------------------------------------------------------------- */

static tr_status missing(const maker *k, const char *name)
{
    return tr_fail(TR_E_FORMAT, "%s: tensor %s is missing", k->m->dir, name);
}

static void shape_text(const uint64_t *dim, uint32_t n, char text[96])
{
    size_t used = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < n && used < 90; i++)
        used += (size_t)snprintf(text + used, 96 - used, "%s%llu", i ? " x " : "",
                                 (unsigned long long)dim[i]);
}

static tr_status check_shape(const tr_source *s, const uint64_t *dim, uint32_t n)
{
    const tr_st_tensor *t = s->tensor;
    char is[96], wanted[96];

    if (t->n_dims == n && memcmp(t->dim, dim, n * sizeof *dim) == 0)
        return TR_OK;
    shape_text(t->dim, t->n_dims, is);
    shape_text(dim, n, wanted);
    return tr_fail(TR_E_FORMAT, "%s: tensor %s has shape [%s], but config.json promises [%s]",
                   tr_safetensors_path(s->file), t->name, is, wanted);
}

/* The type of a source's rows in the output's terms, and whether it has a scale beside it. */
static tr_status type_of(const tr_source *s, tr_type *from, tr_type *kept)
{
    switch (s->tensor->type) {
    case TR_ST_F32:
        *from = *kept = TR_TYPE_F32;
        return TR_OK;
    case TR_ST_F16:
        *from = *kept = TR_TYPE_F16;
        return TR_OK;
    case TR_ST_BF16:
        *from = *kept = TR_TYPE_BF16;
        return TR_OK;
    case TR_ST_F8_E4M3: /* times its scale it is a float */
        *from = TR_TYPE_F32;
        *kept = TR_TYPE_BF16;
        return TR_OK;
    default:
        return tr_fail(TR_E_UNSUPPORTED,
                       "%s: tensor %s is of type %s, which can't be converted: only F32, F16, "
                       "BF16 and F8_E4M3 with scales",
                       tr_safetensors_path(s->file), s->tensor->name, s->tensor->type_name);
    }
}

static tr_status find(const maker *k, const char *name, const uint64_t *dim, uint32_t n,
                      const tr_source **out)
{
    tr_source *s = tr_checkpoint_find(k->c, name);

    if (!s)
        return missing(k, name);
    s->is_used = true;
    *out = s;
    return check_shape(s, dim, n);
}

/* Each block of an F8 matrix has a scale. */
static tr_status find_scale(const maker *k, const tr_source *s, tr_recipe *r, size_t i)
{
    const uint32_t *block = k->m->f8_block;
    const tr_st_tensor *t = s->tensor;
    char name[TR_ST_MAX_NAME + 16];

    if (t->n_dims != 2 || block[0] == 0 || block[1] == 0)
        return tr_fail(TR_E_UNSUPPORTED,
                       "%s: tensor %s is F8_E4M3, but config.json has no \"weight_block_size\" for "
                       "it",
                       tr_safetensors_path(s->file), t->name);
    const uint64_t dim[] = { (t->dim[0] + block[0] - 1) / block[0],
                             (t->dim[1] + block[1] - 1) / block[1] };
    snprintf(name, sizeof name, "%s_scale_inv", t->name);
    memcpy(r->scale_block, block, sizeof r->scale_block);
    tr_status st = find(k, name, dim, 2, &r->scale[i]);
    if (st == TR_OK && r->scale[i]->tensor->type != TR_ST_F32 &&
        r->scale[i]->tensor->type != TR_ST_BF16)
        st =
            tr_fail(TR_E_UNSUPPORTED, "%s: tensor %s is of type %s, but scales must be F32 or BF16",
                    tr_safetensors_path(r->scale[i]->file), name, r->scale[i]->tensor->type_name);
    return st;
}

/* ---- one recipe ----------------------------------------------------------------------------- */

static tr_status add(maker *k, tr_recipe **out)
{
    tr_recipes *p = k->list;

    if (p->n == k->capacity) {
        size_t capacity = k->capacity ? 2 * k->capacity : 256;
        tr_recipe *grown = realloc(p->recipe, capacity * sizeof *grown);
        if (!grown)
            return tr_fail(TR_E_MEMORY, "%s: no memory for the tensors", k->m->dir);
        p->recipe = grown;
        k->capacity = capacity;
    }
    *out = &p->recipe[p->n++];
    **out = (tr_recipe){ .n_dims = 0 };
    return TR_OK;
}

static void name_it(tr_recipe *r, const tr_tensor_rule *rule, uint32_t layer)
{
    if (rule->flags & TR_RULE_ONCE)
        snprintf(r->name, sizeof r->name, "%s", rule->gguf);
    else
        snprintf(r->name, sizeof r->name, "blk.%u.%s", layer, rule->gguf);
}

static void hf_name(const tr_tensor_rule *rule, uint32_t layer, size_t expert,
                    char name[TR_ST_MAX_NAME])
{
    const char *mark = strstr(rule->hf, "%e");
    size_t used = 0;

    if (!(rule->flags & TR_RULE_ONCE))
        used = (size_t)snprintf(name, TR_ST_MAX_NAME, "model.layers.%u.", layer);
    if (mark)
        snprintf(name + used, TR_ST_MAX_NAME - used, "%.*s%zu%s", (int)(mark - rule->hf), rule->hf,
                 expert, mark + 2);
    else
        snprintf(name + used, TR_ST_MAX_NAME - used, "%s", rule->hf);
}

static bool is_split(tr_rows order)
{
    return order != TR_ROWS_AS_THEY_ARE && order != TR_ROWS_INTERLEAVED;
}

/* The output's shape, and how its rows lie in sources of this shape. */
static void lay_out(const tr_hf_model *m, const tr_tensor_rule *rule, const uint64_t *dim,
                    uint32_t n_dims, tr_recipe *r)
{
    uint64_t rows = 1;

    r->order = rule->rows;
    r->n_sources = strstr(rule->hf, "%e") ? (size_t)m->size[TR_SIZE_EXPERTS] : 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        uint64_t n = dim[i];
        if (i == 1 && is_split(rule->rows))
            n /= 2;
        if (i == 0 && n == 1 && n_dims > 1) /* a matrix of one row is a vector */
            continue;
        r->dim[r->n_dims++] = n;
    }
    if (r->n_sources > 1 || strstr(rule->hf, "%e")) {
        memmove(r->dim + 1, r->dim, r->n_dims * sizeof r->dim[0]);
        r->dim[0] = r->n_sources;
        r->n_dims++;
    }
    for (uint32_t i = 0; i < r->n_dims / 2; i++) {
        uint64_t swapped = r->dim[i];
        r->dim[i] = r->dim[r->n_dims - 1 - i];
        r->dim[r->n_dims - 1 - i] = swapped;
    }
    for (uint32_t i = 0; i < r->n_dims; i++)
        rows *= r->dim[i];
    bool by_value = is_split(rule->rows) && n_dims == 2;
    r->row_len = by_value ? 1 : (size_t)r->dim[0];
    r->n_rows = rows / r->row_len;
    if (is_split(rule->rows))
        r->group = dim[1];
    else
        r->group = rule->rows == TR_ROWS_INTERLEAVED ? m->size[TR_SIZE_HEAD] : 1;
}

/* NAME_blocks has the codes of 32 values in 16 bytes, NAME_scales the exponents of these. */
static tr_status find_mxfp4(const maker *k, const char *name, const uint64_t *dim, tr_recipe *r)
{
    const uint64_t blocks[] = { dim[0], dim[1], dim[2] / MXFP4_BLOCK, MXFP4_BYTES };
    char full[TR_ST_MAX_NAME + 16];

    snprintf(full, sizeof full, "%s_blocks", name);
    tr_status st = find(k, full, blocks, 4, &r->source[0]);
    if (st != TR_OK)
        return st;
    snprintf(full, sizeof full, "%s_scales", name);
    st = find(k, full, blocks, 3, &r->scale[0]);
    if (st == TR_OK && (dim[2] % MXFP4_BLOCK != 0 || r->source[0]->tensor->type != TR_ST_U8 ||
                        r->scale[0]->tensor->type != TR_ST_U8))
        st = tr_fail(TR_E_UNSUPPORTED, "%s: tensors %s_blocks and _scales are no MXFP4", k->m->dir,
                     name);
    r->from = TR_TYPE_MXFP4;
    return st;
}

static tr_status find_sources(const maker *k, const tr_tensor_rule *rule, uint32_t layer,
                              const uint64_t *dim, uint32_t n_dims, tr_recipe *r, tr_type *kept)
{
    char name[TR_ST_MAX_NAME];
    tr_status st = TR_OK;

    r->source = calloc(r->n_sources, sizeof *r->source);
    r->scale = calloc(r->n_sources, sizeof *r->scale);
    if (!r->source || !r->scale)
        return tr_fail(TR_E_MEMORY, "%s: no memory for the tensors", k->m->dir);
    if (rule->flags & TR_RULE_MXFP4) {
        hf_name(rule, layer, 0, name);
        *kept = TR_TYPE_MXFP4;
        return find_mxfp4(k, name, dim, r);
    }
    for (size_t i = 0; i < r->n_sources && st == TR_OK; i++) {
        tr_type from = TR_TYPE_F32, keeps = TR_TYPE_F32;
        hf_name(rule, layer, i, name);
        st = find(k, name, dim, n_dims, &r->source[i]);
        if (st == TR_OK)
            st = type_of(r->source[i], &from, &keeps);
        if (st == TR_OK && r->source[i]->tensor->type == TR_ST_F8_E4M3)
            st = find_scale(k, r->source[i], r, i);
        if (st == TR_OK && i > 0 && r->source[i]->tensor->type != r->source[0]->tensor->type)
            st = tr_fail(TR_E_UNSUPPORTED, "%s: tensor %s is of type %s, but that of expert 0 %s",
                         k->m->dir, name, r->source[i]->tensor->type_name,
                         r->source[0]->tensor->type_name);
        r->from = from;
        *kept = keeps;
    }
    return st;
}

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name);
    size_t m = strlen(tail);

    return n >= m && strcmp(name + n - m, tail) == 0;
}

/* Vectors and routers are F32 whatever they were; what is quantised stays so unless it becomes
 * floats. */
static void choose_type(const maker *k, tr_recipe *r, tr_type kept)
{
    bool is_matrix = r->n_dims >= 2 && r->dim[1] > 1;
    bool is_weight = is_matrix && ends_with(r->name, ".weight") && !strstr(r->name, "ffn_gate_inp");
    tr_type wanted;

    r->to = tr_type_rules_choose(k->types, r->name, is_weight ? kept : TR_TYPE_F32, r->dim[0],
                                 is_matrix, &wanted);
    if (tr_block_has(r->from) && tr_block_has(r->to))
        r->to = r->from;
    else if (r->to != wanted)
        tr_log(TR_LOG_INFO, "%s: rows of %llu values don't fill blocks of %s, so it becomes %s",
               r->name, (unsigned long long)r->dim[0], tr_type_get(wanted)->name,
               tr_type_get(r->to)->name);
}

/* ---- all of them ---------------------------------------------------------------------------- */

static bool applies(const maker *k, const tr_tensor_rule *rule, uint32_t layer)
{
    bool is_dense = layer < k->m->size[TR_SIZE_DENSE_LAYERS];
    bool has_q_low = k->m->size[TR_SIZE_Q_LOW] != 0;
    char name[TR_ST_MAX_NAME];

    if (((rule->flags & TR_RULE_DENSE) && !is_dense) ||
        ((rule->flags & TR_RULE_SPARSE) && is_dense) ||
        ((rule->flags & TR_RULE_UNTIED) && k->m->is_tied) ||
        ((rule->flags & TR_RULE_Q_LOW) && !has_q_low) ||
        ((rule->flags & TR_RULE_NO_Q_LOW) && has_q_low))
        return false;
    hf_name(rule, layer, 0, name);
    return !(rule->flags & TR_RULE_OPTIONAL) || tr_checkpoint_find(k->c, name);
}

static tr_status follow(maker *k, const tr_tensor_rule *rule, uint32_t layer)
{
    uint64_t dim[3];
    uint32_t n_dims = 0;
    tr_recipe *r = NULL;
    tr_type kept = TR_TYPE_F32;

    if (!applies(k, rule, layer))
        return TR_OK;
    for (; n_dims < 3 && rule->shape[n_dims] != TR_SIZE_NONE; n_dims++)
        dim[n_dims] = k->m->size[rule->shape[n_dims]];
    for (uint32_t i = 0; i < n_dims; i++)
        if (dim[i] == 0)
            return tr_fail(TR_E_UNSUPPORTED, "%s: leaves tensor %s of layer %u without values",
                           k->m->config->path, rule->hf, layer);
    tr_status st = add(k, &r);
    if (st != TR_OK)
        return st;
    name_it(r, rule, layer);
    lay_out(k->m, rule, dim, n_dims, r);
    st = find_sources(k, rule, layer, dim, n_dims, r, &kept);
    if (st == TR_OK)
        choose_type(k, r, kept);
    return st;
}

static tr_status follow_tables(maker *k, bool once, uint32_t layer)
{
    tr_status st = TR_OK;

    for (size_t i = 0; i < TR_FAMILY_TABLES && k->m->family->rules[i]; i++)
        for (const tr_tensor_rule *rule = k->m->family->rules[i]; rule->hf && st == TR_OK; rule++)
            if (((rule->flags & TR_RULE_ONCE) != 0) == once)
                st = follow(k, rule, layer);
    return st;
}

static tr_status add_rope_factors(maker *k)
{
    tr_recipe *r = NULL;

    tr_status st = add(k, &r);
    if (st != TR_OK)
        return st;
    snprintf(r->name, sizeof r->name, "rope_freqs.weight");
    r->n_dims = 1;
    r->dim[0] = r->row_len = (size_t)k->m->size[TR_SIZE_ROTATED] / 2;
    r->n_rows = 1;
    r->values = k->m->rope_factors;
    return TR_OK;
}

/* Tensors that are no part of what is computed: tables that follow from the configuration, a copy
 * of the embedding, layers behind the last. */
static bool is_left_out(const maker *k, const char *name)
{
    unsigned layer;

    if (fnmatch("*.rotary_emb.inv_freq", name, 0) == 0)
        return true;
    if (k->m->is_tied && strcmp(name, "lm_head.weight") == 0)
        return true;
    return k->m->family->has_layers_behind && sscanf(name, "model.layers.%u.", &layer) == 1 &&
           layer >= k->m->size[TR_SIZE_LAYERS];
}

static tr_status check_all_used(const maker *k)
{
    for (size_t i = 0; i < tr_checkpoint_n(k->c); i++) {
        const tr_source *s = tr_checkpoint_at(k->c, i);
        if (!s->is_used && !is_left_out(k, s->tensor->name))
            return tr_fail(TR_E_UNSUPPORTED,
                           "%s: tensor %s is none that a %s model is known to have",
                           tr_safetensors_path(s->file), s->tensor->name, k->m->family->model_type);
    }
    return TR_OK;
}

static const char *name_at(const void *ctx, size_t i)
{
    const tr_recipes *p = ctx;

    return p->recipe[i].name;
}

tr_status tr_recipes_make(const tr_hf_model *m, tr_checkpoint *c, const tr_type_rules *types,
                          tr_recipes *out)
{
    tr_recipes list = { NULL, 0 };
    maker k = { .m = m, .c = c, .types = types, .list = &list };

    tr_status st = follow_tables(&k, true, 0);
    if (st == TR_OK && m->rope_factors)
        st = add_rope_factors(&k);
    for (uint32_t i = 0; i < m->size[TR_SIZE_LAYERS] && st == TR_OK; i++)
        st = follow_tables(&k, false, i);
    if (st == TR_OK)
        st = check_all_used(&k);
    if (st != TR_OK) {
        tr_recipes_fini(&list);
        return st;
    }
    tr_type_rules_warn(types, name_at, &list, list.n);
    *out = list;
    return TR_OK;
}

void tr_recipes_fini(tr_recipes *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->recipe[i].source);
        free(p->recipe[i].scale);
    }
    free(p->recipe);
    *p = (tr_recipes){ NULL, 0 };
}
