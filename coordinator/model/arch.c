/* arch.c - find the architecture, read and check the sizes that all have in common.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/arch.h"

#include "proto/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const tr_arch *const known[] = {
    &tr_arch_bailingmoe2, &tr_arch_deepseek2,  &tr_arch_glm4moe,  &tr_arch_gpt2,
    &tr_arch_gpt_oss,     &tr_arch_granitemoe, &tr_arch_llama,    &tr_arch_olmoe,
    &tr_arch_qwen2moe,    &tr_arch_qwen3,      &tr_arch_qwen3moe,
};

enum { N_KNOWN = sizeof known / sizeof known[0], MAX_VOCAB = 1 << 24, MAX_HEAD = 4096 };

static tr_status find_arch(const tr_gguf *g, const tr_arch **out)
{
    tr_bytes name = { NULL, 0 };

    tr_status st = tr_gguf_get_string(g, "general.architecture", &name);
    if (st != TR_OK)
        return st;
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (tr_bytes_equal(name, tr_bytes_of(known[i]->name))) {
            *out = known[i];
            return TR_OK;
        }
    }
    char list[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < N_KNOWN && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                 known[i]->name);
    return tr_fail(TR_E_UNSUPPORTED,
                   "model %s: architecture '%.*s' is not supported; supported: %s", tr_gguf_path(g),
                   (int)(name.size < 64 ? name.size : 64), (const char *)name.data, list);
}

/* ARCH.name within 1..max; if fallback is not 0 the key may be absent. */
static tr_status size_of(const tr_gguf *g, const char *arch, const char *name, uint32_t fallback,
                         uint32_t max, uint32_t *out)
{
    char key[128];
    uint32_t v = fallback;

    snprintf(key, sizeof key, "%s.%s", arch, name);
    tr_status st = fallback ? tr_gguf_opt_u32(g, key, &v) : tr_gguf_get_u32(g, key, &v);
    if (st != TR_OK)
        return st;
    if (v == 0 || v > max)
        return tr_fail(TR_E_FORMAT, "model %s: %s is %u, but must be 1..%u", tr_gguf_path(g), key,
                       v, max);
    *out = v;
    return TR_OK;
}

tr_status tr_arch_number(const tr_gguf *g, const tr_model_config *c, const char *name, uint32_t max,
                         uint32_t *out)
{
    char key[128];
    uint32_t v = *out;

    snprintf(key, sizeof key, "%s.%s", c->arch, name);
    tr_status st = tr_gguf_opt_u32(g, key, &v);
    if (st != TR_OK)
        return st;
    if (v > max)
        return tr_fail(TR_E_FORMAT, "model %s: %s is %u, but must be at most %u", tr_gguf_path(g),
                       key, v, max);
    *out = v;
    return TR_OK;
}

tr_status tr_arch_real(const tr_gguf *g, const tr_model_config *c, const char *name, float *out)
{
    char key[128];
    float v = *out;

    snprintf(key, sizeof key, "%s.%s", c->arch, name);
    tr_status st = tr_gguf_opt_f32(g, key, &v);
    if (st != TR_OK)
        return st;
    if (!(isfinite(v) && v > 0.0f))
        return tr_fail(TR_E_FORMAT, "model %s: %s is %g, but must be finite and above 0",
                       tr_gguf_path(g), key, (double)v);
    *out = v;
    return TR_OK;
}

tr_status tr_arch_flag(const tr_gguf *g, const tr_model_config *c, const char *name, bool *out)
{
    char key[128];

    snprintf(key, sizeof key, "%s.%s", c->arch, name);
    return tr_gguf_opt_bool(g, key, out);
}

tr_status tr_arch_layers(const tr_gguf *g, tr_model_config *c)
{
    tr_status st = tr_arch_number(g, c, "nextn_predict_layers", c->n_layers - 1, &c->n_behind);

    if (st != TR_OK)
        return st;
    c->n_layers -= c->n_behind;
    return tr_arch_number(g, c, "leading_dense_block_count", c->n_layers, &c->n_dense);
}

/* A factor of a scaling that the file does not name: which one is meant can't be known. */
static tr_status refuse_lone_factor(const tr_gguf *g, const tr_model_config *c)
{
    float factor = 1.0f;

    tr_status st = tr_arch_real(g, c, "rope.scaling.factor", &factor);
    if (st == TR_OK && factor != 1.0f)
        st = tr_fail(TR_E_FORMAT,
                     "model %s: %s.rope.scaling.factor is %g, but %s.rope.scaling.type "
                     "is missing",
                     tr_gguf_path(g), c->arch, (double)factor, c->arch);
    return st;
}

static tr_status read_yarn_turns(const tr_gguf *g, tr_model_config *c)
{
    tr_status st = tr_arch_real(g, c, "rope.scaling.yarn_beta_fast", &c->yarn_fast);

    if (st == TR_OK)
        st = tr_arch_real(g, c, "rope.scaling.yarn_beta_slow", &c->yarn_slow);
    if (st == TR_OK && c->yarn_fast < c->yarn_slow)
        st = tr_fail(TR_E_FORMAT,
                     "model %s: %s.rope.scaling.yarn_beta_fast is %g, less than yarn_beta_slow: %g",
                     tr_gguf_path(g), c->arch, (double)c->yarn_fast, (double)c->yarn_slow);
    return st;
}

tr_status tr_arch_yarn(const tr_gguf *g, tr_model_config *c)
{
    char key[128];
    tr_bytes kind = tr_bytes_of("none");

    snprintf(key, sizeof key, "%s.rope.scaling.type", c->arch);
    if (!tr_gguf_entry_find(g, key))
        return refuse_lone_factor(g, c);
    tr_status st = tr_gguf_opt_string(g, key, &kind);
    if (st != TR_OK || tr_bytes_equal(kind, tr_bytes_of("none")))
        return st;
    if (!tr_bytes_equal(kind, tr_bytes_of("yarn")))
        return tr_fail(TR_E_UNSUPPORTED, "model %s: rotary scaling '%.*s' is not supported",
                       tr_gguf_path(g), (int)(kind.size < 64 ? kind.size : 64),
                       (const char *)kind.data);
    st = tr_arch_real(g, c, "rope.scaling.factor", &c->yarn_factor);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "rope.scaling.original_context_length", TR_MAX_CONTEXT,
                            &c->yarn_context);
    if (st == TR_OK)
        st = read_yarn_turns(g, c);
    if (st == TR_OK && (c->yarn_factor < 1.0f || c->yarn_context == 0))
        st = tr_fail(TR_E_FORMAT,
                     "model %s: YaRN needs %s.rope.scaling.factor of at least 1 (it is %g) and "
                     "%s.rope.scaling.original_context_length (it is %u)",
                     tr_gguf_path(g), c->arch, (double)c->yarn_factor, c->arch, c->yarn_context);
    return st;
}

tr_status tr_arch_shared(const tr_gguf *g, tr_model_config *c)
{
    uint32_t n = 0;
    uint32_t width = 0;

    tr_status st = tr_arch_number(g, c, "expert_shared_count", TR_MAX_EXPERTS, &n);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "expert_feed_forward_length", TR_MAX_DIM, &width);
    if (st == TR_OK && (uint64_t)n * width > TR_MAX_DIM)
        st = tr_fail(TR_E_FORMAT, "model %s: %u shared experts of width %u: together at most %d",
                     tr_gguf_path(g), n, width, TR_MAX_DIM);
    c->shared_ffn = st == TR_OK ? n * width : 0;
    return st;
}

tr_status tr_arch_rotated(const tr_gguf *g, tr_model_config *c)
{
    tr_status st = tr_arch_number(g, c, "rope.dimension_count", c->head_dim, &c->n_rot);

    if (st == TR_OK && (c->n_rot == 0 || c->n_rot % 2 != 0))
        st = tr_fail(TR_E_FORMAT,
                     "model %s: %s.rope.dimension_count is %u, but must be even and above 0",
                     tr_gguf_path(g), c->arch, c->n_rot);
    return st;
}

/* One group, or none, is no choice. */
tr_status tr_arch_groups(const tr_gguf *g, tr_model_config *c)
{
    uint32_t n = 0;
    uint32_t used = 0;

    tr_status st = tr_arch_number(g, c, "expert_group_count", TR_MAX_GROUPS, &n);
    if (st == TR_OK)
        st = tr_arch_number(g, c, "expert_group_used_count", TR_MAX_GROUPS, &used);
    if (st != TR_OK || n <= 1)
        return st;
    if (c->n_experts % n != 0 || used == 0 || used > n || c->n_experts / n * used < c->top_k)
        return tr_fail(TR_E_FORMAT,
                       "model %s: %u experts in %u groups, %u of them used, from which to choose "
                       "%u (%s.expert_group_count, expert_group_used_count)",
                       tr_gguf_path(g), c->n_experts, n, used, c->top_k, c->arch);
    c->n_groups = n;
    c->used_groups = used;
    return TR_OK;
}

bool tr_arch_has_choice_bias(const tr_gguf *g, const tr_model_config *c)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%u.exp_probs_b.bias", c->n_dense);
    return tr_gguf_find(g, name) != NULL;
}

/* After the architecture has said which norm it has. */
static tr_status read_epsilon(const tr_gguf *g, tr_model_config *c)
{
    char key[128];

    snprintf(key, sizeof key, "%s.attention.layer_norm_%sepsilon", c->arch,
             c->norm == TR_NORM_RMS ? "rms_" : "");
    tr_status st = tr_gguf_get_f32(g, key, &c->norm_eps);
    if (st == TR_OK && !(c->norm_eps > 0.0f && c->norm_eps < 1.0f))
        st = tr_fail(TR_E_FORMAT, "model %s: %s is %g, but must be between 0 and 1",
                     tr_gguf_path(g), key, (double)c->norm_eps);
    return st;
}

static tr_status read_rope_base(const tr_gguf *g, tr_model_config *c)
{
    char key[128];

    c->rope_base = 10000.0f;
    snprintf(key, sizeof key, "%s.rope.freq_base", c->arch);
    tr_status st = tr_gguf_opt_f32(g, key, &c->rope_base);
    if (st != TR_OK)
        return st;
    if (!(c->rope_base > 1.0f && c->rope_base < 1e12f))
        return tr_fail(TR_E_FORMAT, "model %s: %s is %g, but must be between 1 and 1e12",
                       tr_gguf_path(g), key, (double)c->rope_base);
    return TR_OK;
}

/* A key that may be absent, but must be the head's size where it is present. */
static tr_status only_head_size(const tr_gguf *g, const tr_model_config *c, const char *name)
{
    char key[128];
    uint32_t v = c->head_dim;

    snprintf(key, sizeof key, "%s.%s", c->arch, name);
    tr_status st = tr_gguf_opt_u32(g, key, &v);
    if (st != TR_OK || v == c->head_dim)
        return st;
    return tr_fail(TR_E_UNSUPPORTED,
                   "model %s: %s is %u; other than the head size %u is not supported",
                   tr_gguf_path(g), key, v, c->head_dim);
}

/* A key that asks for more than the code does, unless it has the value that asks for nothing. */
typedef struct {
    const char *name;
    double nothing, nothing_either;
} demand;

static tr_status refuse_demand(const tr_gguf *g, const char *arch, const demand *d)
{
    char key[128];
    double v = d->nothing;
    float real = 0.0f;
    uint32_t count = 0;

    snprintf(key, sizeof key, "%s.%s", arch, d->name);
    const tr_gguf_entry *e = tr_gguf_entry_find(g, key);
    if (!e)
        return TR_OK;
    bool is_real = e->kind == TR_GGUF_F32 || e->kind == TR_GGUF_F64;
    tr_status st = is_real ? tr_gguf_get_f32(g, key, &real) : tr_gguf_get_u32(g, key, &count);
    if (st != TR_OK)
        return st;
    v = is_real ? (double)real : (double)count;
    if (v == d->nothing || v == d->nothing_either)
        return TR_OK;
    return tr_fail(TR_E_UNSUPPORTED, "model %s: %s is %g, which is not supported", tr_gguf_path(g),
                   key, v);
}

static bool is_own(const tr_arch *a, const char *name)
{
    for (size_t i = 0; i < TR_ARCH_KEYS && a->keys[i]; i++)
        if (strcmp(a->keys[i], name) == 0)
            return true;
    return false;
}

/* is_stretched: the factor of the scaling is known to be that of positions. */
static tr_status refuse_demands(const tr_gguf *g, const tr_arch *a, bool is_stretched)
{
    static const demand demands[] = {
        { "expert_gating_func", 0, 1 }, /* softmax */
        { "expert_weights_scale", 0, 1 },
        { "expert_shared_count", 0, 0 },
        { "expert_group_count", 0, 1 },
        { "leading_dense_block_count", 0, 0 },
        { "nextn_predict_layers", 0, 0 },
        { "attention.sliding_window", 0, 0 },
        { "attention.clamp_kqv", 0, 0 },
        { "attention.scale", 0, 0 },
        { "attention.temperature_scale", 0, 0 },
        { "attention.temperature_length", 0, 0 },
        { "attn_logit_softcapping", 0, 0 },
        { "final_logit_softcapping", 0, 0 },
        { "swiglu_limit", 0, 0 },
        { "logit_scale", 0, 1 },
        { "rope.scaling.factor", 0, 1 },
        { "embedding_scale", 0, 1 },
        { "residual_scale", 0, 1 },
        { "rope.scale_linear", 0, 1 },
        { "rope.scaling.alpha", 0, 1 },
        { "rope.scaling.attn_factor", 0, 1 },
        { "rope.scaling.yarn_attn_factor", 0, 1 },
        { "rope.scaling.yarn_ext_factor", -1, 1 }, /* -1: as the type says */
        { "rope.scaling.yarn_beta_fast", 0, 32 },
        { "rope.scaling.yarn_beta_slow", 0, 1 },
    };
    tr_status st = TR_OK;

    for (size_t i = 0; i < sizeof demands / sizeof demands[0] && st == TR_OK; i++)
        if (!is_own(a, demands[i].name) &&
            !(is_stretched && strcmp(demands[i].name, "rope.scaling.factor") == 0))
            st = refuse_demand(g, a->name, &demands[i]);
    return st;
}

/* After the architecture has said what it does with the weights. */
static tr_status check_renormalise(const tr_gguf *g, const tr_model_config *c)
{
    char key[128];
    bool wanted = c->renormalise;

    snprintf(key, sizeof key, "%s.expert_weights_norm", c->arch);
    tr_status st = tr_gguf_opt_bool(g, key, &wanted);
    if (st == TR_OK && wanted != c->renormalise)
        st = tr_fail(TR_E_UNSUPPORTED, "model %s: %s is %s, which is not supported for %s",
                     tr_gguf_path(g), key, wanted ? "true" : "false", c->arch);
    return st;
}

/* What a file may ask for, but no code here does: said rather than computed wrongly. */
static tr_status refuse_unknown_variants(const tr_gguf *g, const tr_arch *a,
                                         const tr_model_config *c)
{
    char key[128];
    tr_bytes scaling = tr_bytes_of("none");

    snprintf(key, sizeof key, "%s.rope.scaling.type", c->arch);
    tr_status st = tr_gguf_opt_string(g, key, &scaling);
    if (st != TR_OK)
        return st;
    bool is_linear = tr_bytes_equal(scaling, tr_bytes_of("linear"));
    if (!is_linear && !tr_bytes_equal(scaling, tr_bytes_of("none")) &&
        !is_own(a, "rope.scaling.type"))
        return tr_fail(TR_E_UNSUPPORTED, "model %s: rotary scaling '%.*s' is not supported",
                       tr_gguf_path(g), (int)(scaling.size < 64 ? scaling.size : 64),
                       (const char *)scaling.data);
    if (!is_own(a, "rope.dimension_count"))
        st = only_head_size(g, c, "rope.dimension_count");
    if (st == TR_OK)
        st = is_own(a, "attention.value_length") ? TR_OK
                                                 : only_head_size(g, c, "attention.value_length");
    if (st == TR_OK)
        st = refuse_demands(g, a, is_linear);
    return st;
}

static tr_status read_heads(const tr_gguf *g, tr_model_config *c)
{
    tr_status st = size_of(g, c->arch, "attention.head_count", 0, TR_MAX_DIM, &c->n_heads);
    if (st == TR_OK)
        st = size_of(g, c->arch, "attention.head_count_kv", c->n_heads, c->n_heads, &c->n_kv_heads);
    if (st != TR_OK)
        return st;
    if (c->n_heads % c->n_kv_heads != 0)
        return tr_fail(TR_E_FORMAT, "model %s: %u query heads can't share %u key/value heads",
                       tr_gguf_path(g), c->n_heads, c->n_kv_heads);
    uint32_t fallback = c->dim / c->n_heads;
    st = size_of(g, c->arch, "attention.key_length", fallback ? fallback : 1, MAX_HEAD,
                 &c->head_dim);
    if (st == TR_OK && c->head_dim % 2 != 0)
        st = tr_fail(TR_E_FORMAT, "model %s: heads of %u values: the size must be even",
                     tr_gguf_path(g), c->head_dim);
    return st;
}

/* After the architecture has said what its heads are. */
static tr_status check_heads(const tr_gguf *g, const tr_model_config *c)
{
    uint64_t widest = c->head_dim > c->cache_dim ? c->head_dim : c->cache_dim;

    if (widest * c->n_heads > TR_MAX_DIM * (c->latent ? 4u : 1u))
        return tr_fail(TR_E_FORMAT, "model %s: %u heads of %llu values are more than can be",
                       tr_gguf_path(g), c->n_heads, (unsigned long long)widest);
    return TR_OK;
}

static tr_status read_vocab(const tr_gguf *g, tr_model_config *c)
{
    const tr_gguf_tensor *embedding = tr_gguf_find(g, "token_embd.weight");

    if (!embedding)
        return tr_fail(TR_E_FORMAT, "model %s: tensor token_embd.weight is missing",
                       tr_gguf_path(g));
    if (embedding->dim[1] > MAX_VOCAB)
        return tr_fail(TR_E_FORMAT, "model %s: token_embd.weight has %llu rows, at most %d",
                       tr_gguf_path(g), (unsigned long long)embedding->dim[1], MAX_VOCAB);
    uint32_t promised = (uint32_t)embedding->dim[1];
    tr_status st = size_of(g, c->arch, "vocab_size", promised, MAX_VOCAB, &promised);
    if (st == TR_OK && promised != embedding->dim[1])
        st = tr_fail(TR_E_FORMAT,
                     "model %s: token_embd.weight has %llu rows, but %s.vocab_size is %u",
                     tr_gguf_path(g), (unsigned long long)embedding->dim[1], c->arch, promised);
    c->n_vocab = promised;
    return st;
}

static void make_dense(tr_model_config *c)
{
    c->n_dense = c->n_layers;
    c->n_experts = c->top_k = 1;
}

/* Without a number of experts all layers are dense. */
static tr_status read_experts(const tr_gguf *g, tr_model_config *c)
{
    tr_status st = tr_arch_number(g, c, "expert_count", TR_MAX_EXPERTS, &c->n_experts);

    if (st != TR_OK)
        return st;
    if (c->n_experts == 0) {
        make_dense(c);
        return TR_OK;
    }
    return size_of(g, c->arch, "expert_used_count", 0,
                   c->n_experts < TR_MAX_TOP_K ? c->n_experts : TR_MAX_TOP_K, &c->top_k);
}

/* Architectures that know scalings of their own have looked at the type themselves. */
static tr_status read_linear(const tr_gguf *g, const tr_arch *a, tr_model_config *c)
{
    char key[128];
    tr_bytes scaling = tr_bytes_of("none");

    if (is_own(a, "rope.scaling.type"))
        return TR_OK;
    snprintf(key, sizeof key, "%s.rope.scaling.type", c->arch);
    tr_status st = tr_gguf_opt_string(g, key, &scaling);
    if (st == TR_OK && tr_bytes_equal(scaling, tr_bytes_of("linear")))
        st = tr_arch_real(g, c, "rope.scaling.factor", &c->rope_linear);
    return st;
}

static void set_defaults(tr_model_config *c)
{
    c->n_rot = c->value_dim = c->cache_dim = c->head_dim;
    c->cache_heads = c->n_kv_heads;
    c->attention_scale = 1.0f / sqrtf((float)c->head_dim);
    c->ffn_norm = "ffn_norm";
    c->routed_scale = c->embedding_scale = c->residual_scale = c->logit_scale = 1.0f;
    c->yarn_factor = c->rope_magnitude = c->rope_linear = 1.0f;
    c->yarn_fast = 32.0f;
    c->yarn_slow = 1.0f;
}

tr_status tr_model_config_read(const tr_gguf *g, tr_model_config *out)
{
    const tr_arch *arch = NULL;
    tr_model_config c = { 0 };

    tr_status st = find_arch(g, &arch);
    if (st != TR_OK)
        return st;
    c.arch = arch->name;
    st = size_of(g, c.arch, "block_count", 0, TR_MAX_LAYERS, &c.n_layers);
    if (st == TR_OK)
        st = size_of(g, c.arch, "embedding_length", 0, TR_MAX_DIM, &c.dim);
    if (st == TR_OK)
        st = size_of(g, c.arch, "context_length", 0, TR_MAX_CONTEXT, &c.context);
    if (st == TR_OK)
        st = read_experts(g, &c);
    if (st == TR_OK)
        st = read_heads(g, &c);
    if (st == TR_OK)
        st = read_rope_base(g, &c);
    if (st == TR_OK)
        st = read_vocab(g, &c);
    if (st == TR_OK)
        st = refuse_unknown_variants(g, arch, &c);
    if (st != TR_OK)
        return st;
    set_defaults(&c);
    st = read_linear(g, arch, &c);
    if (st == TR_OK)
        st = arch->configure(g, &c);
    if (st == TR_OK)
        st = read_epsilon(g, &c);
    if (st == TR_OK)
        st = check_heads(g, &c);
    if (c.n_dense >= c.n_layers) /* the architecture may have found so */
        make_dense(&c);
    if (st == TR_OK)
        st = check_renormalise(g, &c);
    if (st == TR_OK)
        *out = c;
    return st;
}
