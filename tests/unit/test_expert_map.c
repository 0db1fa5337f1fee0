/* test_expert_map.c - layers may differ: dense ones are layers of one expert, blocks that only
 * predict further tokens are none, and what the metadata promises is held against the tensors.
 *
 * Method: the header of a model of four blocks, dense, two with experts, one behind; changed in one
 * place.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/gguf_bytes.h"
#include "tests/support/tr_test.h"

#include "experts/expert_map.h"

enum { DIM = 32, FFN = 64, EXPERT_FFN = 16, N_EXPERTS = 4, DATA = 1 << 20, N_PARTS = 3 };

static const struct {
    const char *key;
    uint32_t value;
} numbers[] = {
    { "x.block_count", 4 },
    { "x.nextn_predict_layers", 1 },
    { "x.embedding_length", DIM },
    { "x.expert_count", N_EXPERTS },
    { "x.expert_used_count", 3 },
    { "x.feed_forward_length", FFN },
    { "x.expert_feed_forward_length", EXPERT_FFN },
};

enum { N_NUMBERS = sizeof numbers / sizeof numbers[0] };

/* What differs from the sound file. */
typedef struct {
    const char *key; /* NULL: no number */
    uint32_t value;
    const char *lacks; /* a tensor; NULL: none */
    const char *more;  /* a tensor beside the others; NULL: none */
    bool is_plain;     /* layer 0 has biases in place of its gate */
    bool has_bias;     /* layer 2's experts */
    uint32_t bias_type;
    const char *word; /* of the line */
} change;

static bool is_left_out(const change *c, const char *name)
{
    return c->lacks && strcmp(c->lacks, name) == 0;
}

static uint64_t put_tensors(gguf_bytes *b, const change *c)
{
    static const char *const parts[N_PARTS] = { "gate", "up", "down" };
    uint64_t at = 0;
    uint64_t n = 0;

    for (unsigned layer = 0; layer < 4; layer++) {
        for (unsigned p = 0; p < N_PARTS; p++) {
            uint64_t ffn = layer == 0 ? FFN : EXPERT_FFN;
            uint64_t shape[] = { p == 2 ? ffn : DIM, p == 2 ? DIM : ffn, N_EXPERTS };
            char name[64];
            snprintf(name, sizeof name, "blk.%u.ffn_%s%s.weight", layer, parts[p],
                     layer == 0 ? "" : "_exps");
            if (is_left_out(c, name) || (c->is_plain && layer == 0 && p == 0))
                continue;
            gb_tensor(b, name, shape, layer == 0 ? 2 : 3, TR_TYPE_F32, at);
            at += DIM * ffn * (layer == 0 ? 1 : N_EXPERTS) * sizeof(float);
            n++;
        }
    }
    return n;
}

static uint64_t put_biases(gguf_bytes *b, const change *c)
{
    static const char *const parts[N_PARTS] = { "gate", "up", "down" };
    uint64_t n = 0;

    for (unsigned p = 0; p < N_PARTS && c->has_bias; p++) {
        const uint64_t shape[] = { p == 2 ? DIM : EXPERT_FFN, N_EXPERTS };
        char name[64];
        snprintf(name, sizeof name, "blk.2.ffn_%s_exps.bias", parts[p]);
        if (is_left_out(c, name))
            continue;
        gb_tensor(b, name, shape, 2, c->bias_type, DATA / 2 + 1024 * p);
        n++;
    }
    return n;
}

static uint64_t put_plain_biases(gguf_bytes *b, const change *c)
{
    static const char *const names[] = { "blk.0.ffn_up.bias", "blk.0.ffn_down.bias" };
    uint64_t n = 0;

    for (unsigned i = 0; i < 2 && c->is_plain; i++) {
        if (is_left_out(c, names[i]))
            continue;
        gb_tensor(b, names[i], (uint64_t[]){ i == 0 ? FFN : DIM }, 1, TR_TYPE_F32,
                  DATA / 2 + 8192 + 1024 * i);
        n++;
    }
    return n;
}

static tr_gguf *file_of(const change *c)
{
    gguf_bytes b = { 0 };
    gguf_bytes tensors = { 0 };
    tr_gguf *g = NULL;

    uint64_t n = put_tensors(&tensors, c);
    n += put_biases(&tensors, c);
    n += put_plain_biases(&tensors, c);
    if (c->more) {
        gb_tensor(&tensors, c->more, (uint64_t[]){ DIM }, 1, TR_TYPE_F32, DATA - 1024);
        n++;
    }
    gb_start(&b, 3, n, N_NUMBERS + 1);
    gb_text_entry(&b, "general.architecture", "x");
    for (size_t i = 0; i < N_NUMBERS; i++)
        gb_u32_entry(&b, numbers[i].key,
                     c->key && strcmp(c->key, numbers[i].key) == 0 ? c->value : numbers[i].value);
    gb_put(&b, tensors.data, tensors.size);
    assert_int_equal(tr_gguf_parse("x.gguf", (tr_bytes){ b.data, b.size }, b.size + DATA, &g),
                     TR_OK);
    return g;
}

static void a_dense_layer_is_a_layer_of_one_expert(void **state)
{
    tr_gguf *g = file_of(&(change){ .key = NULL });
    tr_expert_map m;

    (void)state;
    assert_int_equal(tr_expert_map_read(g, &m), TR_OK);
    assert_int_equal(m.n_layers, 3);
    assert_int_equal(m.n_experts, N_EXPERTS);
    assert_int_equal(m.top_k, 3);
    assert_int_equal(m.ffn, FFN);
    for (uint32_t i = 0; i < m.n_layers; i++) {
        const tr_expert_tensors *e = &m.layer[i];
        assert_int_equal(e->is_dense, i == 0);
        assert_int_equal(e->n_experts, i == 0 ? 1 : N_EXPERTS);
        assert_int_equal(e->top_k, i == 0 ? 1 : 3);
        assert_int_equal(e->ffn, i == 0 ? FFN : EXPERT_FFN);
        assert_int_equal(tr_expert_map_bytes(&m, i),
                         (size_t)(N_PARTS * DIM * (i == 0 ? FFN : EXPERT_FFN)) * sizeof(float));
    }
    tr_expert_map_fini(&m);
    tr_gguf_close(&g);
}

static void biases_of_experts_come_with_them(void **state)
{
    char line[512] = "";
    tr_expert_map m;
    tr_gguf *g = file_of(&(change){ .has_bias = true, .bias_type = TR_TYPE_F32 });

    (void)state;
    assert_int_equal(tr_expert_map_read(g, &m), TR_OK);
    assert_null(m.layer[1].gate_bias);
    assert_non_null(m.layer[2].gate_bias);
    assert_non_null(m.layer[2].down_bias);
    assert_int_equal(tr_expert_map_bytes(&m, 2) - tr_expert_map_bytes(&m, 1),
                     (2 * EXPERT_FFN + DIM) * sizeof(float));
    tr_expert_map_fini(&m);
    tr_gguf_close(&g);

    g = file_of(&(change){ .has_bias = true, .bias_type = TR_TYPE_F16 });
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_expert_map_read(g, &m), TR_E_UNSUPPORTED);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "must be F32"));
    tr_gguf_close(&g);
}

static void a_network_without_a_gate_is_known_by_its_biases(void **state)
{
    tr_gguf *g = file_of(&(change){ .is_plain = true });
    tr_expert_map m;

    (void)state;
    assert_int_equal(tr_expert_map_read(g, &m), TR_OK);
    const tr_expert_tensors *e = &m.layer[0];
    assert_true(tr_expert_map_has(&m, 0));
    assert_true(e->is_dense);
    assert_true(tr_expert_is_plain(e));
    assert_false(tr_expert_is_plain(&m.layer[1]));
    assert_null(e->gate_bias);
    assert_non_null(e->up_bias);
    assert_non_null(e->down_bias);
    assert_int_equal(e->ffn, FFN);
    assert_int_equal(tr_expert_map_bytes(&m, 0), (2 * DIM * FFN + FFN + DIM) * sizeof(float));
    tr_expert_map_fini(&m);
    tr_gguf_close(&g);
}

static void other_layouts_of_experts_are_named(void **state)
{
    static const change layouts[] = {
        { .more = "blk.1.ffn_gate.0.weight", .word = "one tensor for each expert" },
        { .more = "blk.1.ffn_gate_up_exps.weight", .word = "gate and up in one" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        char line[512] = "";
        tr_gguf *g = file_of(&layouts[i]);
        tr_expert_map m;
        tr_fail_capture_begin(line, sizeof line);
        assert_int_equal(tr_expert_map_read(g, &m), TR_E_UNSUPPORTED);
        tr_fail_capture_end();
        assert_non_null(strstr(line, layouts[i].word));
        assert_non_null(strstr(line, layouts[i].more));
        tr_gguf_close(&g);
    }
}

static void what_does_not_fit_is_refused_and_named(void **state)
{
    static const change odd[] = {
        { .lacks = "blk.2.ffn_up_exps.bias",
          .has_bias = true,
          .word = "lacks blk.2.ffn_up_exps.bias" },
        { .key = "x.block_count", .value = 0, .word = "x.block_count is 0" },
        { .key = "x.nextn_predict_layers", .value = 4, .word = "x.nextn_predict_layers is 4" },
        { .key = "x.embedding_length",
          .value = DIM / 2,
          .word = "blk.0.ffn_gate.weight has shape" },
        { .key = "x.expert_count", .value = 0, .word = "x.expert_count is 0" },
        { .key = "x.expert_count", .value = 2, .word = "3 of 2 experts" },
        { .key = "x.expert_count", .value = 3, .word = "blk.1.ffn_gate_exps.weight has shape" },
        { .key = "x.expert_used_count", .value = 0, .word = "x.expert_used_count is 0" },
        { .key = "x.feed_forward_length",
          .value = 65,
          .word = "blk.0.ffn_up.weight: the network is 64 wide" },
        { .key = "x.expert_feed_forward_length",
          .value = 8,
          .word = "blk.1.ffn_up_exps.weight: experts are 16 wide" },
        { .lacks = "blk.0.ffn_down.weight", .word = "lacks blk.0.ffn_down.weight" },
        { .lacks = "blk.0.ffn_up.weight", .is_plain = true, .word = "lacks blk.0.ffn_up.weight" },
        { .lacks = "blk.0.ffn_up.bias", .is_plain = true, .word = "lacks blk.0.ffn_up.bias" },
        { .lacks = "blk.0.ffn_down.bias", .is_plain = true, .word = "lacks blk.0.ffn_down.bias" },
        { .lacks = "blk.2.ffn_gate_exps.weight", .word = "lacks blk.2.ffn_gate_exps.weight" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        char line[512] = "";
        tr_gguf *g = file_of(&odd[i]);
        tr_expert_map m = { .n_layers = 77 };
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = tr_expert_map_read(g, &m);
        tr_fail_capture_end();
        if (st != TR_E_FORMAT || !strstr(line, odd[i].word))
            fail_msg("\"%s\": status %d, line: %s", odd[i].word, (int)st, line);
        assert_int_equal(m.n_layers, 77); /* not written */
        tr_gguf_close(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dense_layer_is_a_layer_of_one_expert),
        cmocka_unit_test(biases_of_experts_come_with_them),
        cmocka_unit_test(a_network_without_a_gate_is_known_by_its_biases),
        cmocka_unit_test(other_layouts_of_experts_are_named),
        cmocka_unit_test(what_does_not_fit_is_refused_and_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
