/* test_arch.c - a model's sizes are believed only within limits and where they fit each other,
 * and what no code here computes is refused rather than computed wrongly.
 *
 * Method: sound metadata of a small model but for one key, which is another number, text or
 * missing; the line must name what is wrong.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/gguf_bytes.h"
#include "tests/support/tr_test.h"

#include "coordinator/model/arch.h"
#include "coordinator/model/rope.h"

#include <math.h>

enum { DATA = 1 << 16, ABSENT = UINT32_MAX };

static const struct {
    const char *key;
    uint32_t value;
} numbers[] = {
    { "qwen3moe.block_count", 2 },
    { "qwen3moe.context_length", 128 },
    { "qwen3moe.embedding_length", 64 },
    { "qwen3moe.attention.head_count", 4 },
    { "qwen3moe.attention.head_count_kv", 2 },
    { "qwen3moe.attention.key_length", 32 },
    { "qwen3moe.expert_count", 8 },
    { "qwen3moe.expert_used_count", 2 },
    { "qwen3moe.rope.dimension_count", 32 },
    { "qwen3moe.attention.value_length", 32 },
    { "qwen3moe.vocab_size", 32 },
};

enum { N_NUMBERS = sizeof numbers / sizeof numbers[0] };

/* What differs from the sound model. */
typedef struct {
    const char *arch;    /* NULL: qwen3moe */
    const char *key;     /* of a number; NULL: all sound */
    uint32_t value;      /* ABSENT: no such key */
    float norm_eps;      /* 0: 1e-6 */
    float rope_base;     /* 0: 10000 */
    const char *scaling; /* of rotary embedding; NULL: not said */
} change;

static void put_f32(gguf_bytes *b, const char *key, float v)
{
    gb_text(b, key);
    gb_u32(b, TR_GGUF_F32);
    gb_put(b, &v, sizeof v);
}

static void put_bool(gguf_bytes *b, const char *key, bool v)
{
    uint8_t byte = v;

    gb_text(b, key);
    gb_u32(b, TR_GGUF_BOOL);
    gb_put(b, &byte, sizeof byte);
}

static tr_status read_changed(const change *c, tr_model_config *out)
{
    static const uint64_t shape[] = { 64, 32 };
    gguf_bytes b = { 0 };
    gguf_bytes body = { 0 };
    uint64_t n = 3;
    tr_gguf *g = NULL;

    gb_text_entry(&body, "general.architecture", c->arch ? c->arch : "qwen3moe");
    put_f32(&body, "qwen3moe.attention.layer_norm_rms_epsilon",
            c->norm_eps != 0 ? c->norm_eps : 1e-6f);
    put_f32(&body, "qwen3moe.rope.freq_base", c->rope_base != 0 ? c->rope_base : 10000.0f);
    if (c->scaling) {
        gb_text_entry(&body, "qwen3moe.rope.scaling.type", c->scaling);
        n++;
    }
    for (size_t i = 0; i < N_NUMBERS; i++) {
        bool is_changed = c->key && strcmp(c->key, numbers[i].key) == 0;
        uint32_t v = is_changed ? c->value : numbers[i].value;
        if (v == ABSENT)
            continue;
        gb_u32_entry(&body, numbers[i].key, v);
        n++;
    }
    gb_start(&b, 3, 1, n);
    gb_put(&b, body.data, body.size);
    gb_tensor(&b, "token_embd.weight", shape, 2, TR_TYPE_F32, 0);
    assert_int_equal(tr_gguf_parse("x.gguf", (tr_bytes){ b.data, b.size }, b.size + DATA, &g),
                     TR_OK);
    tr_status st = tr_model_config_read(g, out);
    tr_gguf_close(&g);
    return st;
}

static void sound_metadata_is_read_as_it_is(void **state)
{
    static const change sound[] = {
        { .key = NULL },
        { .key = "qwen3moe.rope.dimension_count", .value = ABSENT },
        { .key = "qwen3moe.vocab_size", .value = ABSENT },
        { .scaling = "none" },
    };
    tr_model_config c;

    (void)state;
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
        assert_int_equal(read_changed(&sound[i], &c), TR_OK);
        assert_int_equal(c.n_layers, 2);
        assert_int_equal(c.n_vocab, 32);
        assert_int_equal(c.head_dim, 32);
        assert_int_equal(c.n_kv_heads, 2);
        assert_int_equal(c.top_k, 2);
    }
}

static void without_experts_every_layer_is_dense(void **state)
{
    static const change dense[] = {
        { .key = "qwen3moe.expert_count", .value = ABSENT },
        { .key = "qwen3moe.expert_count", .value = 0 },
    };
    tr_model_config c;

    (void)state;
    assert_int_equal(read_changed(&(change){ .key = NULL }, &c), TR_OK);
    assert_int_equal(c.n_dense, 0);
    for (size_t i = 0; i < sizeof dense / sizeof dense[0]; i++) {
        assert_int_equal(read_changed(&dense[i], &c), TR_OK);
        assert_int_equal(c.n_dense, c.n_layers);
        assert_int_equal(c.n_experts, 1);
        assert_int_equal(c.top_k, 1);
    }
}

static const struct {
    change with;
    tr_status st;
    const char *word;
} refused[] = {
    { { .arch = "llama9" }, TR_E_UNSUPPORTED, "'llama9' is not supported; supported: " },
    { { .key = "qwen3moe.block_count", .value = ABSENT }, TR_E_FORMAT, "block_count is missing" },
    { { .key = "qwen3moe.block_count", .value = 0 }, TR_E_FORMAT, "block_count is 0" },
    { { .key = "qwen3moe.block_count", .value = 1 << 30 }, TR_E_FORMAT, "block_count" },
    { { .key = "qwen3moe.embedding_length", .value = 1 << 30 }, TR_E_FORMAT, "embedding_length" },
    { { .key = "qwen3moe.context_length", .value = 1 << 30 }, TR_E_FORMAT, "context_length" },
    { { .key = "qwen3moe.expert_count", .value = 1 << 30 }, TR_E_FORMAT, "expert_count" },
    { { .key = "qwen3moe.expert_used_count", .value = 9 }, TR_E_FORMAT, "must be 1..8" },
    { { .key = "qwen3moe.attention.head_count", .value = 0 }, TR_E_FORMAT, "head_count is 0" },
    { { .key = "qwen3moe.attention.head_count_kv", .value = 3 }, TR_E_FORMAT, "can't share 3" },
    { { .key = "qwen3moe.attention.head_count_kv", .value = 8 }, TR_E_FORMAT, "must be 1..4" },
    { { .key = "qwen3moe.attention.key_length", .value = 33 }, TR_E_FORMAT, "must be even" },
    { { .key = "qwen3moe.rope.dimension_count", .value = 16 }, TR_E_UNSUPPORTED, "is 16" },
    { { .key = "qwen3moe.attention.value_length", .value = 16 }, TR_E_UNSUPPORTED, "is 16" },
    { { .key = "qwen3moe.vocab_size", .value = 31 }, TR_E_FORMAT, "has 32 rows" },
    { { .norm_eps = 2.0f }, TR_E_FORMAT, "epsilon is 2" },
    { { .norm_eps = -1.0f }, TR_E_FORMAT, "epsilon is -1" },
    { { .rope_base = 0.5f }, TR_E_FORMAT, "freq_base is 0.5" },
    { { .scaling = "yarn" }, TR_E_UNSUPPORTED, "'yarn' is not supported" },
};

static void every_size_that_can_not_be_is_refused_and_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char line[512] = "";
        tr_model_config c = { .n_layers = 77 };
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = read_changed(&refused[i].with, &c);
        tr_fail_capture_end();
        if (st != refused[i].st || !strstr(line, refused[i].word) || !strstr(line, "x.gguf"))
            fail_msg("\"%s\": status %d, line: %s", refused[i].word, (int)st, line);
        assert_int_equal(c.n_layers, 77); /* not written */
    }
}

/* ---- keys that single architectures have ------------------------------------------------ */

/* A key behind "ARCH.", of the kind of what is set. */
typedef struct {
    const char *key;
    uint32_t number;
    float real;
    const char *text;
    const char *flag; /* "true" or "false" */
} entry;

enum { MAX_OWN = 5 };

typedef struct {
    const char *arch;
    entry own[MAX_OWN];
    const char *tensor; /* beside the embedding, or NULL */
} own_case;

static void put_entry(gguf_bytes *b, const char *arch, const entry *e)
{
    char key[128];

    snprintf(key, sizeof key, "%s.%s", arch, e->key);
    if (e->text)
        gb_text_entry(b, key, e->text);
    else if (e->flag)
        put_bool(b, key, strcmp(e->flag, "true") == 0);
    else if (e->real != 0.0f)
        put_f32(b, key, e->real);
    else
        gb_u32_entry(b, key, e->number);
}

static const entry *find_own(const own_case *c, const char *key)
{
    for (size_t i = 0; i < MAX_OWN && c->own[i].key; i++)
        if (strcmp(c->own[i].key, key) == 0)
            return &c->own[i];
    return NULL;
}

/* What any architecture here takes. */
static uint64_t put_common(gguf_bytes *b, const own_case *c)
{
    static const entry common[] = {
        { .key = "block_count", .number = 4 },
        { .key = "context_length", .number = 128 },
        { .key = "embedding_length", .number = 64 },
        { .key = "attention.head_count", .number = 4 },
        { .key = "attention.layer_norm_rms_epsilon", .real = 1e-6f },
        { .key = "rope.freq_base", .real = 10000.0f },
        { .key = "expert_count", .number = 8 },
        { .key = "expert_used_count", .number = 2 },
    };
    static const entry latent[] = {
        { .key = "attention.key_length", .number = 32 },
        { .key = "attention.value_length", .number = 16 },
        { .key = "attention.kv_lora_rank", .number = 16 },
        { .key = "rope.dimension_count", .number = 8 },
    };
    uint64_t n = 0;

    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++)
        if (!find_own(c, common[i].key)) {
            put_entry(b, c->arch, &common[i]);
            n++;
        }
    for (size_t i = 0; strcmp(c->arch, "deepseek2") == 0 && i < sizeof latent / sizeof latent[0];
         i++, n++)
        put_entry(b, c->arch, &latent[i]);
    for (size_t i = 0; i < MAX_OWN && c->own[i].key; i++, n++)
        put_entry(b, c->arch, &c->own[i]);
    return n;
}

static tr_status read_own(const own_case *c, tr_model_config *out)
{
    static const uint64_t shape[] = { 64, 32 };
    gguf_bytes b = { 0 };
    gguf_bytes body = { 0 };
    tr_gguf *g = NULL;

    gb_text_entry(&body, "general.architecture", c->arch);
    uint64_t n = 1 + put_common(&body, c);
    gb_start(&b, 3, c->tensor ? 2 : 1, n);
    gb_put(&b, body.data, body.size);
    gb_tensor(&b, "token_embd.weight", shape, 2, TR_TYPE_F32, 0);
    if (c->tensor)
        gb_tensor(&b, c->tensor, shape, 1, TR_TYPE_F32, 8192);
    assert_int_equal(tr_gguf_parse("x.gguf", (tr_bytes){ b.data, b.size }, b.size + DATA, &g),
                     TR_OK);
    tr_status st = tr_model_config_read(g, out);
    tr_gguf_close(&g);
    return st;
}

static void v3_is_known_by_its_bias_where_the_file_does_not_name_the_gate(void **state)
{
    static const char bias[] = "blk.0.exp_probs_b.bias";
    own_case old = { .arch = "deepseek2", .tensor = bias };
    own_case zero = { "deepseek2", { { .key = "expert_gating_func", .number = 0 } }, bias };
    own_case v2 = { .arch = "deepseek2" };
    tr_model_config c;

    (void)state;
    assert_int_equal(read_own(&old, &c), TR_OK);
    assert_int_equal(c.gate, TR_GATE_SIGMOID);
    assert_true(c.has_choice_bias);
    assert_int_equal(read_own(&zero, &c), TR_OK);
    assert_int_equal(c.gate, TR_GATE_SIGMOID);
    assert_int_equal(read_own(&v2, &c), TR_OK);
    assert_int_equal(c.gate, TR_GATE_SOFTMAX);
    assert_false(c.has_choice_bias);
}

/* clang-format off */
#define GROUPS(count, used) { { .key = "expert_group_count", .number = count }, \
                              { .key = "expert_group_used_count", .number = used } }
#define YARN(more, value) { { .key = "rope.scaling.type", .text = "yarn" },                      \
                            { .key = "rope.scaling.factor", .real = 32.0f },                     \
                            { .key = "rope.scaling.original_context_length", .number = 4096 },   \
                            { .key = "rope.scaling.yarn_log_multiplier", .real = 0.1f },         \
                            { .key = more, .real = value } }
/* clang-format on */

static void shared_experts_of_ling_have_their_own_width(void **state)
{
    own_case own = { "bailingmoe2",
                     { { .key = "expert_shared_count", .number = 2 },
                       { .key = "expert_feed_forward_length", .number = 32 },
                       { .key = "expert_shared_feed_forward_length", .number = 48 } },
                     NULL };
    own_case same = { "bailingmoe2",
                      { { .key = "expert_shared_count", .number = 2 },
                        { .key = "expert_feed_forward_length", .number = 32 } },
                      NULL };
    tr_model_config c;

    (void)state;
    assert_int_equal(read_own(&own, &c), TR_OK);
    assert_int_equal(c.shared_ffn, 96);
    assert_int_equal(read_own(&same, &c), TR_OK);
    assert_int_equal(c.shared_ffn, 64);
}

static void groups_are_read_and_one_group_is_none(void **state)
{
    own_case four = { "deepseek2", GROUPS(4, 2), NULL };
    own_case one = { "deepseek2", GROUPS(1, 1), NULL };
    tr_model_config c;

    (void)state;
    assert_int_equal(read_own(&four, &c), TR_OK);
    assert_int_equal(c.n_groups, 4);
    assert_int_equal(c.used_groups, 2);
    assert_int_equal(read_own(&one, &c), TR_OK);
    assert_int_equal(c.n_groups, 0);
}

/* Of 4 pairs, 2.8 turn once in 4096 positions and 1.3 turn 32 times. */
static void yarn_leaves_what_turns_often_enough_by_the_file_s_own_measure(void **state)
{
    own_case as_usual = { "deepseek2", YARN("rope.scaling.yarn_beta_fast", 32.0f), NULL };
    own_case kimi = { "deepseek2", YARN("rope.scaling.yarn_beta_fast", 1.0f), NULL };
    own_case slow = { "deepseek2", YARN("rope.scaling.yarn_beta_slow", 8.0f), NULL };
    tr_model_config c;
    double inverse[4];

    (void)state;
    assert_int_equal(read_own(&as_usual, &c), TR_OK);
    tr_rope_frequencies(&c, NULL, inverse);
    assert_true(fabs(inverse[1] / 0.1 - 1) < 1e-9);
    assert_true(fabs(inverse[2] / 0.01 - (0.5 + 0.5 / 32)) < 1e-9);
    assert_int_equal(read_own(&kimi, &c), TR_OK);
    tr_rope_frequencies(&c, NULL, inverse);
    assert_true(fabs(inverse[2] / 0.01 - 1) < 1e-9);
    assert_true(fabs(inverse[3] / 0.001 - 1.0 / 32) < 1e-9);
    assert_int_equal(read_own(&slow, &c), TR_OK);
    tr_rope_frequencies(&c, NULL, inverse);
    assert_true(fabs(inverse[2] / 0.01 - 1.0 / 32) < 1e-9);
}

static void linear_scaling_divides_positions(void **state)
{
    own_case with = { "llama",
                      { { .key = "rope.scaling.type", .text = "linear" },
                        { .key = "rope.scaling.factor", .real = 4.0f } },
                      NULL };
    tr_model_config c;
    double inverse[64];

    (void)state;
    assert_int_equal(read_own(&with, &c), TR_OK);
    assert_true(c.rope_linear == 4.0f);
    assert_in_range(c.n_rot, 2, 128);
    tr_rope_frequencies(&c, NULL, inverse);
    assert_true(inverse[0] == 0.25);
}

static void blocks_behind_are_not_layers(void **state)
{
    static const char *const archs[] = { "deepseek2", "glm4moe" };
    tr_model_config c;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        own_case with = { archs[i], { { .key = "nextn_predict_layers", .number = 1 } }, NULL };
        assert_int_equal(read_own(&with, &c), TR_OK);
        assert_int_equal(c.n_layers, 3);
        assert_int_equal(c.n_behind, 1);
    }
}

static const struct {
    own_case with;
    tr_status st;
    const char *word;
} own_refused[] = {
    { { "deepseek2", GROUPS(3, 2), NULL }, TR_E_FORMAT, "8 experts in 3 groups" },
    { { "deepseek2", GROUPS(4, 0), NULL }, TR_E_FORMAT, "4 groups, 0 of them used" },
    { { "deepseek2", GROUPS(4, 5), NULL }, TR_E_FORMAT, "4 groups, 5 of them used" },
    { { "deepseek2", GROUPS(8, 1), NULL }, TR_E_FORMAT, "from which to choose 2" },
    { { "deepseek2", GROUPS(100, 1), NULL }, TR_E_FORMAT, "expert_group_count is 100" },
    { { "deepseek2", { { .key = "expert_gating_func", .number = 1 } }, "blk.0.exp_probs_b.bias" },
      TR_E_UNSUPPORTED,
      "exp_probs_b" },
    { { "deepseek2", YARN("rope.scaling.yarn_beta_fast", 0.5f), NULL },
      TR_E_FORMAT,
      "yarn_beta_fast is 0.5, less than yarn_beta_slow: 1" },
    { { "deepseek2", YARN("rope.scaling.yarn_beta_slow", -1.0f), NULL },
      TR_E_FORMAT,
      "must be finite and above 0" },
    { { "deepseek2", YARN("rope.scaling.yarn_ext_factor", 0.5f), NULL },
      TR_E_UNSUPPORTED,
      "yarn_ext_factor is 0.5" },
    { { "deepseek2", YARN("attention.temperature_scale", 0.1f), NULL },
      TR_E_UNSUPPORTED,
      "temperature_scale is 0.1" },
    { { "deepseek2",
        { { .key = "rope.scaling.type", .text = "yarn" },
          { .key = "rope.scaling.factor", .real = 32.0f },
          { .key = "rope.scaling.original_context_length", .number = 4096 } },
        NULL },
      TR_E_FORMAT,
      "yarn_log_multiplier is missing" },
    { { "deepseek2", { { .key = "rope.scaling.factor", .real = 32.0f } }, NULL },
      TR_E_FORMAT,
      "rope.scaling.type is missing" },
    { { .arch = "gpt-oss" }, TR_E_FORMAT, "attention.sliding_window is missing" },
    { { "gpt-oss",
        { { .key = "attention.sliding_window", .number = 8 },
          { .key = "rope.scaling.factor", .real = 32.0f } },
        NULL },
      TR_E_FORMAT,
      "rope.scaling.type is missing" },
    { { "gpt-oss",
        { { .key = "attention.sliding_window", .number = 8 },
          { .key = "swiglu_limit", .real = 5.0f } },
        NULL },
      TR_E_UNSUPPORTED,
      "swiglu_limit is 5" },
    { { "granitemoe", { { .key = "rope.scaling.finetuned", .flag = "false" } }, NULL },
      TR_E_UNSUPPORTED,
      "finetuned is false" },
    { { "llama", { { .key = "attn_logit_softcapping", .real = 50.0f } }, NULL },
      TR_E_UNSUPPORTED,
      "attn_logit_softcapping is 50" },
    { { "llama", { { .key = "final_logit_softcapping", .real = 30.0f } }, NULL },
      TR_E_UNSUPPORTED,
      "final_logit_softcapping is 30" },
    { { "llama", { { .key = "rope.scale_linear", .real = 4.0f } }, NULL },
      TR_E_UNSUPPORTED,
      "scale_linear is 4" },
    { { "llama", { { .key = "rope.scaling.alpha", .real = 1000.0f } }, NULL },
      TR_E_UNSUPPORTED,
      "alpha is 1000" },
    { { "llama", { { .key = "rope.scaling.yarn_attn_factor", .real = 1.5f } }, NULL },
      TR_E_UNSUPPORTED,
      "yarn_attn_factor is 1.5" },
    { { "llama", { { .key = "attention.temperature_length", .number = 8192 } }, NULL },
      TR_E_UNSUPPORTED,
      "temperature_length is 8192" },
    { { "llama", { { .key = "swiglu_limit", .real = 7.0f } }, NULL },
      TR_E_UNSUPPORTED,
      "swiglu_limit is 7" },
    { { "bailingmoe2", { { .key = "expert_gating_func", .number = 1 } }, NULL },
      TR_E_UNSUPPORTED,
      "expert_gating_func is 1 (softmax)" },
    { { "bailingmoe2", GROUPS(3, 2), NULL }, TR_E_FORMAT, "8 experts in 3 groups" },
    { { "bailingmoe2",
        { { .key = "expert_shared_count", .number = 4096 },
          { .key = "expert_shared_feed_forward_length", .number = 512 } },
        NULL },
      TR_E_FORMAT,
      "4096 shared experts of width 512" },
    { { "gpt2", { { .key = "expert_count", .number = 0 } }, NULL },
      TR_E_FORMAT,
      "gpt2.attention.layer_norm_epsilon is missing" },
};

static void what_an_architecture_does_not_compute_is_refused_and_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof own_refused / sizeof own_refused[0]; i++) {
        char line[512] = "";
        tr_model_config c = { 0 };
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = read_own(&own_refused[i].with, &c);
        tr_fail_capture_end();
        if (st != own_refused[i].st || !strstr(line, own_refused[i].word))
            fail_msg("\"%s\": status %d, line: %s", own_refused[i].word, (int)st, line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_metadata_is_read_as_it_is),
        cmocka_unit_test(without_experts_every_layer_is_dense),
        cmocka_unit_test(every_size_that_can_not_be_is_refused_and_named),
        cmocka_unit_test(v3_is_known_by_its_bias_where_the_file_does_not_name_the_gate),
        cmocka_unit_test(shared_experts_of_ling_have_their_own_width),
        cmocka_unit_test(groups_are_read_and_one_group_is_none),
        cmocka_unit_test(yarn_leaves_what_turns_often_enough_by_the_file_s_own_measure),
        cmocka_unit_test(linear_scaling_divides_positions),
        cmocka_unit_test(blocks_behind_are_not_layers),
        cmocka_unit_test(what_an_architecture_does_not_compute_is_refused_and_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
