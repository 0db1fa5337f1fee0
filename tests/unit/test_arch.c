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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_metadata_is_read_as_it_is),
        cmocka_unit_test(without_experts_every_layer_is_dense),
        cmocka_unit_test(every_size_that_can_not_be_is_refused_and_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
