/* family.c - find the family, read its tables, and what most have in common.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/family.h"

#include "coordinator/convert/families.h"
#include "proto/limits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const tr_family *const known[] = {
    &tr_family_deepseek_v2, &tr_family_deepseek_v3, &tr_family_glm4_moe, &tr_family_gpt_oss,
    &tr_family_granitemoe,  &tr_family_llama,       &tr_family_mistral,  &tr_family_mixtral,
    &tr_family_olmoe,       &tr_family_qwen2_moe,   &tr_family_qwen3,    &tr_family_qwen3_moe,
};

enum { N_KNOWN = sizeof known / sizeof known[0] };

const tr_family *tr_family_at(size_t i)
{
    return i < N_KNOWN ? known[i] : NULL;
}

tr_status tr_family_find(tr_hf_model *m)
{
    const json_t *type = tr_json_member(m->config->root, "model_type");
    char list[256] = "";
    size_t used = 0;

    if (!json_is_string(type))
        return tr_fail(TR_E_FORMAT, "%s: \"model_type\" is missing or no text", m->config->path);
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (tr_json_is_text(type, known[i]->model_type)) {
            m->family = known[i];
            return TR_OK;
        }
    }
    for (size_t i = 0; i < N_KNOWN && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                 known[i]->model_type);
    return tr_fail(TR_E_UNSUPPORTED, "%s: model_type \"%.64s\" can't be converted; known are %s",
                   m->config->path, json_string_value(type), list);
}

/* ---- metadata ------------------------------------------------------------------------------- */

static void full_name(const tr_hf_model *m, const char *name, char key[128])
{
    snprintf(key, 128, "%s.%s", m->family->arch, name);
}

void tr_family_put_count(tr_hf_model *m, const char *name, uint64_t v)
{
    char key[128];

    full_name(m, name, key);
    tr_gguf_put_u32(m->w, key, (uint32_t)v);
}

void tr_family_put_real(tr_hf_model *m, const char *name, float v)
{
    char key[128];

    full_name(m, name, key);
    tr_gguf_put_f32(m->w, key, v);
}

void tr_family_put_text(tr_hf_model *m, const char *name, const char *v)
{
    char key[128];

    full_name(m, name, key);
    tr_gguf_put_string(m->w, key, tr_bytes_of(v));
}

static void put_flag(tr_hf_model *m, const char *name, bool v)
{
    char key[128];

    full_name(m, name, key);
    tr_gguf_put_bool(m->w, key, v);
}

/* ---- tables --------------------------------------------------------------------------------- */

static tr_status read_count(tr_hf_model *m, const tr_config_key *k)
{
    uint32_t n = 0;

    tr_status st = tr_json_count(m->config, m->config->root, k->json, &n);
    if (st != TR_OK)
        return st;
    if (k->size != TR_SIZE_NONE) {
        uint32_t most = k->size == TR_SIZE_VOCAB ? 1u << 24 : 1u << 20;
        if (n > most || (n == 0 && k->size != TR_SIZE_DENSE_LAYERS))
            return tr_fail(TR_E_FORMAT, "%s: \"%s\" is %u, not 1 to %u", m->config->path, k->json,
                           n, most);
        m->size[k->size] = n;
    }
    if (k->gguf)
        tr_family_put_count(m, k->gguf, n);
    return TR_OK;
}

static tr_status read_key(tr_hf_model *m, const tr_config_key *k)
{
    float real = 0.0f;
    bool flag = false;
    tr_status st;

    if (k->is_optional && !tr_json_member(m->config->root, k->json))
        return TR_OK;
    switch (k->kind) {
    case TR_KEY_COUNT:
        return read_count(m, k);
    case TR_KEY_REAL:
        st = tr_json_real(m->config, m->config->root, k->json, &real);
        if (st == TR_OK && k->gguf)
            tr_family_put_real(m, k->gguf, real);
        return st;
    default:
        st = tr_json_flag(m->config, m->config->root, k->json, &flag);
        if (st == TR_OK && k->gguf)
            put_flag(m, k->gguf, flag);
        return st;
    }
}

static tr_status read_keys(tr_hf_model *m, const tr_config_key *keys)
{
    tr_status st = TR_OK;

    for (; keys && keys->json && st == TR_OK; keys++)
        st = read_key(m, keys);
    return st;
}

static bool has_value(const json_t *v, const char *text)
{
    json_t *wanted = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    bool is_equal = wanted && json_equal(v, wanted);

    if (wanted && json_is_number(wanted) && json_is_number(v)) /* 1 and 1.0 */
        is_equal = json_number_value(wanted) == json_number_value(v);
    json_decref(wanted);
    return is_equal;
}

static tr_status check_demands(const tr_hf_model *m, const tr_config_demand *d)
{
    for (; d && d->json; d++) {
        const json_t *v = tr_json_member(m->config->root, d->json);
        const char *said = d->absent;
        char *text = NULL;
        bool is_met =
            v ? has_value(v, d->value) || has_value(v, d->or_value)
              : strcmp(said, d->value) == 0 || (d->or_value && strcmp(said, d->or_value) == 0);
        if (is_met)
            continue;
        if (v)
            text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
        tr_status st =
            tr_fail(TR_E_UNSUPPORTED, "%s: \"%s\" is %.80s%s, which is not supported for %s",
                    m->config->path, d->json, text ? text : said, v ? "" : " (as it is not there)",
                    m->family->model_type);
        free(text);
        return st;
    }
    return TR_OK;
}

/* ---- heads and rotation --------------------------------------------------------------------- */

tr_status tr_family_heads(tr_hf_model *m)
{
    uint32_t head = 0;
    uint32_t kv = (uint32_t)m->size[TR_SIZE_HEADS];
    tr_status st = TR_OK;

    if (tr_json_member(m->config->root, "head_dim"))
        st = tr_json_count(m->config, m->config->root, "head_dim", &head);
    else
        head = (uint32_t)(m->size[TR_SIZE_DIM] / m->size[TR_SIZE_HEADS]);
    if (st == TR_OK && tr_json_member(m->config->root, "num_key_value_heads"))
        st = tr_json_count(m->config, m->config->root, "num_key_value_heads", &kv);
    if (st != TR_OK)
        return st;
    if (head == 0 || head % 2 != 0 || kv == 0 || head > TR_MAX_DIM || kv > TR_MAX_DIM)
        return tr_fail(TR_E_FORMAT, "%s: %u heads of keys, of %u values each, make no sense",
                       m->config->path, kv, head);
    m->size[TR_SIZE_HEAD] = m->size[TR_SIZE_ROTATED] = head;
    m->size[TR_SIZE_KV_HEADS] = kv;
    m->size[TR_SIZE_Q] = m->size[TR_SIZE_ATTENDED] = m->size[TR_SIZE_HEADS] * head;
    m->size[TR_SIZE_KV] = (uint64_t)kv * head;
    tr_family_put_count(m, "attention.head_count_kv", kv);
    tr_family_put_count(m, "attention.key_length", head);
    tr_family_put_count(m, "attention.value_length", head);
    return TR_OK;
}

/* Newer directories have everything about it in rope_parameters. */
const json_t *tr_family_rope_scaling(const tr_hf_model *m, const char **kind)
{
    const json_t *o = tr_json_member(m->config->root, "rope_parameters");

    if (!o)
        o = tr_json_member(m->config->root, "rope_scaling");
    const json_t *name = tr_json_member(o, "rope_type");
    if (!name)
        name = tr_json_member(o, "type");
    *kind = json_is_string(name) ? json_string_value(name) : o && name ? "?" : "default";
    return o;
}

static tr_status read_base(tr_hf_model *m, const json_t *scaling)
{
    const json_t *o = tr_json_member(scaling, "rope_theta") ? scaling : m->config->root;
    float base = 10000.0f;

    tr_status st =
        tr_json_member(o, "rope_theta") ? tr_json_real(m->config, o, "rope_theta", &base) : TR_OK;
    tr_family_put_real(m, "rope.freq_base", base);
    tr_family_put_count(m, "rope.dimension_count", m->size[TR_SIZE_ROTATED]);
    if (st == TR_OK && !(base > 1.0f))
        st = tr_fail(TR_E_FORMAT, "%s: \"rope_theta\" is %g, but must be above 1", m->config->path,
                     (double)base);
    m->rope_base = base;
    return st;
}

static tr_status read_yarn(tr_hf_model *m, const json_t *o)
{
    static const char *const names[][2] = { { "beta_fast", "rope.scaling.yarn_beta_fast" },
                                            { "beta_slow", "rope.scaling.yarn_beta_slow" } };
    float factor = 0.0f;
    uint32_t context = 0;

    if (tr_json_member(o, "attention_factor"))
        return tr_fail(TR_E_UNSUPPORTED, "%s: \"attention_factor\" of YaRN is not supported",
                       m->config->path);
    tr_status st = tr_json_real(m->config, o, "factor", &factor);
    if (st == TR_OK)
        st = tr_json_count(m->config, o, "original_max_position_embeddings", &context);
    tr_family_put_text(m, "rope.scaling.type", "yarn");
    tr_family_put_real(m, "rope.scaling.factor", factor);
    tr_family_put_count(m, "rope.scaling.original_context_length", context);
    for (size_t i = 0; i < 2 && st == TR_OK; i++) {
        float beta = 0.0f;
        if (!tr_json_member(o, names[i][0]))
            continue;
        st = tr_json_real(m->config, o, names[i][0], &beta);
        tr_family_put_real(m, names[i][1], beta);
    }
    return st;
}

/* Llama 3.1 divides slow frequencies by a factor, leaves fast ones, and blends between ("The Llama
 * 3 herd of models", 2024). */
static tr_status read_llama3(tr_hf_model *m, const json_t *o)
{
    float factor = 0.0f, low = 0.0f, high = 0.0f;
    uint32_t context = 0;
    size_t n = (size_t)m->size[TR_SIZE_ROTATED] / 2;

    tr_status st = tr_json_real(m->config, o, "factor", &factor);
    if (st == TR_OK)
        st = tr_json_real(m->config, o, "low_freq_factor", &low);
    if (st == TR_OK)
        st = tr_json_real(m->config, o, "high_freq_factor", &high);
    if (st == TR_OK)
        st = tr_json_count(m->config, o, "original_max_position_embeddings", &context);
    if (st == TR_OK && !(factor >= 1.0f && low > 0.0f && high > low && context > 0))
        st = tr_fail(TR_E_FORMAT, "%s: the numbers of \"rope_scaling\" make no sense",
                     m->config->path);
    if (st != TR_OK)
        return st;
    m->rope_factors = malloc(n * sizeof *m->rope_factors);
    if (!m->rope_factors)
        return tr_fail(TR_E_MEMORY, "%s: no memory", m->config->path);
    for (size_t i = 0; i < n; i++) {
        double length = 2.0 * M_PI * pow((double)m->rope_base, (double)i / (double)n);
        double turns = (double)context / length;
        double smooth = (turns - (double)low) / ((double)high - (double)low);
        smooth = fmin(fmax(smooth, 0.0), 1.0);
        m->rope_factors[i] = (float)(1.0 / ((1.0 - smooth) / (double)factor + smooth));
    }
    return TR_OK;
}

static tr_status read_linear(tr_hf_model *m, const json_t *o)
{
    float factor = 0.0f;

    tr_status st = tr_json_real(m->config, o, "factor", &factor);
    if (st == TR_OK && !(factor >= 1.0f))
        st = tr_fail(TR_E_FORMAT, "%s: the factor of \"rope_scaling\" is less than 1",
                     m->config->path);
    if (st != TR_OK)
        return st;
    tr_family_put_text(m, "rope.scaling.type", "linear");
    tr_family_put_real(m, "rope.scaling.factor", factor);
    return TR_OK;
}

tr_status tr_family_rope(tr_hf_model *m)
{
    const char *kind;
    const json_t *o = tr_family_rope_scaling(m, &kind);

    tr_status st = read_base(m, o);
    if (st != TR_OK || strcmp(kind, "default") == 0)
        return st;
    if (strcmp(kind, "yarn") == 0)
        return read_yarn(m, o);
    if (strcmp(kind, "llama3") == 0)
        return read_llama3(m, o);
    if (strcmp(kind, "linear") == 0)
        return read_linear(m, o);
    return tr_fail(TR_E_UNSUPPORTED, "%s: rotary scaling \"%.40s\" is not supported",
                   m->config->path, kind);
}

/* ---- all of it ------------------------------------------------------------------------------ */

/* Which weights are stored otherwise than as floats. */
static tr_status read_quantization(tr_hf_model *m)
{
    const json_t *q = tr_json_member(m->config->root, "quantization_config");
    const json_t *method = tr_json_member(q, "quant_method");
    const json_t *block = tr_json_member(q, "weight_block_size");

    if (!q || tr_json_is_text(method, "mxfp4"))
        return TR_OK;
    if (!tr_json_is_text(method, "fp8") || json_array_size(block) != 2)
        return tr_fail(TR_E_UNSUPPORTED,
                       "%s: weights quantised as \"%.40s\"%s are not supported: start from those "
                       "that are not",
                       m->config->path, json_is_string(method) ? json_string_value(method) : "?",
                       tr_json_is_text(method, "fp8") ? " without \"weight_block_size\"" : "");
    for (size_t i = 0; i < 2; i++) {
        json_int_t n = json_integer_value(json_array_get(block, i));
        if (n < 1 || n > TR_MAX_DIM)
            return tr_fail(TR_E_FORMAT, "%s: \"weight_block_size\" makes no sense",
                           m->config->path);
        m->f8_block[i] = (uint32_t)n;
    }
    return TR_OK;
}

static const tr_config_key common[] = {
    { "num_hidden_layers", "block_count", TR_KEY_COUNT, TR_SIZE_LAYERS, false },
    { "hidden_size", "embedding_length", TR_KEY_COUNT, TR_SIZE_DIM, false },
    { "vocab_size", "vocab_size", TR_KEY_COUNT, TR_SIZE_VOCAB, false },
    { "max_position_embeddings", "context_length", TR_KEY_COUNT, TR_SIZE_NONE, false },
    { "intermediate_size", "feed_forward_length", TR_KEY_COUNT, TR_SIZE_FFN, false },
    { "num_attention_heads", "attention.head_count", TR_KEY_COUNT, TR_SIZE_HEADS, false },
    { "rms_norm_eps", "attention.layer_norm_rms_epsilon", TR_KEY_REAL, TR_SIZE_NONE, false },
    { NULL, NULL, TR_KEY_COUNT, TR_SIZE_NONE, false },
};

static const tr_config_demand common_demands[] = {
    { "hidden_act", "\"silu\"", NULL, "\"silu\"" },
    { "pretraining_tp", "1", NULL, "1" },
    { NULL, NULL, NULL, NULL },
};

tr_status tr_family_read(tr_hf_model *m)
{
    m->size[TR_SIZE_ONE] = 1;
    if (tr_json_member(m->config->root, "tie_word_embeddings")) {
        tr_status st = tr_json_flag(m->config, m->config->root, "tie_word_embeddings", &m->is_tied);
        if (st != TR_OK)
            return st;
    }
    tr_status st = read_keys(m, common);
    if (st == TR_OK)
        st = read_keys(m, m->family->keys);
    if (st == TR_OK)
        st = check_demands(m, common_demands);
    if (st == TR_OK)
        st = check_demands(m, m->family->demands);
    if (st == TR_OK)
        st = read_quantization(m);
    if (m->size[TR_SIZE_EXPERTS] == 0)
        m->size[TR_SIZE_DENSE_LAYERS] = m->size[TR_SIZE_LAYERS];
    if (st == TR_OK && m->size[TR_SIZE_LAYERS] > TR_MAX_LAYERS)
        st = tr_fail(TR_E_FORMAT, "%s: %llu layers, at most %d", m->config->path,
                     (unsigned long long)m->size[TR_SIZE_LAYERS], TR_MAX_LAYERS);
    if (st == TR_OK)
        st = m->family->configure(m);
    m->size[TR_SIZE_TWO_EXPERT_FFN] = 2 * m->size[TR_SIZE_EXPERT_FFN];
    return st;
}
