/* test_apply.c - a share's answers are down * (silu(gate * x) . (up * x)) of the picked experts,
 * for every mixture of weight types, and the same bytes for any threads and any kernel table.
 *
 * Method: a small file of experts with random weights; the definition in double.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "compute/cpu.h"
#include "compute/gguf_write.h"
#include "experts/apply.h"

#include <math.h>
#include <unistd.h>

enum {
    DIM = 64,
    FFN = 96,
    N_EXPERTS = 3,
    TOP_K = 2,
    N_ROWS = 5,
    N_PICKS = 9,
    N_MATRIX = DIM * FFN
};

typedef enum { SWIGLU, CLAMPED, PLAIN } activation; /* of activation, apply.h */

typedef struct {
    tr_type gate, up, down;
    activation kind;
} types;

/* Of experts of gpt-oss's kind, and of a network without a gate, which is one expert. */
static float gate_bias[N_EXPERTS][FFN], up_bias[N_EXPERTS][FFN], down_bias[N_EXPERTS][DIM];

/* What the file holds, dequantised: [gate, up, down][expert][N_MATRIX]. */
static float weights[3][N_EXPERTS][N_MATRIX];

static const tr_share_pick picks[N_PICKS] = { { 0, 0 }, { 3, 0 }, { 4, 0 }, { 1, 1 }, { 2, 1 },
                                              { 0, 2 }, { 1, 2 }, { 2, 2 }, { 3, 2 } };

static void write_tensor(tr_gguf_writer *w, int which, tr_type type, uint64_t in, int n_experts,
                         uint64_t *at)
{
    static float x[N_MATRIX];
    static uint8_t bytes[N_MATRIX * sizeof(float)];
    size_t size;

    assert_true(tr_type_row_size(type, N_MATRIX, &size));
    for (int e = 0; e < n_experts; e++) {
        for (size_t i = 0; i < N_MATRIX; i++)
            x[i] = (float)((2 * tr_rng_unit(tr_rng_u64(7, (uint64_t)which, (*at)++)) - 1) /
                           sqrt((double)in) * 1.7);
        assert_true(tr_quantise_row(type, x, N_MATRIX, bytes));
        tr_dequantise_row(type, bytes, N_MATRIX, weights[which][e]);
        assert_int_equal(tr_gguf_writer_data(w, (tr_bytes){ bytes, size }), TR_OK);
    }
}

static void put_bias(tr_gguf_writer *w, const char *name, uint64_t n, uint64_t n_experts)
{
    tr_gguf_put_tensor(w, name, TR_TYPE_F32, (const uint64_t[]){ n, n_experts }, 2);
}

/* Wide enough that the activation's bounds are met. */
static void write_bias(tr_gguf_writer *w, float *bias, size_t n, float width, uint64_t *at)
{
    for (size_t i = 0; i < n; i++)
        bias[i] = width * (float)(2 * tr_rng_unit(tr_rng_u64(7, 9, (*at)++)) - 1);
    assert_int_equal(tr_gguf_writer_data(w, (tr_bytes){ (const uint8_t *)bias, n * sizeof *bias }),
                     TR_OK);
}

static void put_experts(tr_gguf_writer *w, const types *t)
{
    const uint64_t wide[] = { DIM, FFN, N_EXPERTS };
    const uint64_t tall[] = { FFN, DIM, N_EXPERTS };

    tr_gguf_put_tensor(w, "blk.0.ffn_gate_exps.weight", t->gate, wide, 3);
    tr_gguf_put_tensor(w, "blk.0.ffn_up_exps.weight", t->up, wide, 3);
    tr_gguf_put_tensor(w, "blk.0.ffn_down_exps.weight", t->down, tall, 3);
    if (t->kind == SWIGLU)
        return;
    put_bias(w, "blk.0.ffn_gate_exps.bias", FFN, N_EXPERTS);
    put_bias(w, "blk.0.ffn_up_exps.bias", FFN, N_EXPERTS);
    put_bias(w, "blk.0.ffn_down_exps.bias", DIM, N_EXPERTS);
}

static void put_plain(tr_gguf_writer *w, const types *t)
{
    tr_gguf_put_tensor(w, "blk.0.ffn_up.weight", t->up, (const uint64_t[]){ DIM, FFN }, 2);
    tr_gguf_put_tensor(w, "blk.0.ffn_down.weight", t->down, (const uint64_t[]){ FFN, DIM }, 2);
    put_bias(w, "blk.0.ffn_up.bias", FFN, 1);
    put_bias(w, "blk.0.ffn_down.bias", DIM, 1);
}

static void write_file(const char *path, const types *t)
{
    int n_experts = t->kind == PLAIN ? 1 : N_EXPERTS;
    size_t n_bias = (size_t)n_experts;
    tr_gguf_writer *w = NULL;
    uint64_t at = 0;

    assert_int_equal(tr_gguf_writer_new(path, true, &w), TR_OK);
    tr_gguf_put_string(w, "general.architecture", tr_bytes_of("x"));
    tr_gguf_put_u32(w, "x.block_count", 1);
    tr_gguf_put_u32(w, "x.embedding_length", DIM);
    tr_gguf_put_u32(w, "x.expert_count", t->kind == PLAIN ? 0 : N_EXPERTS);
    tr_gguf_put_u32(w, "x.expert_used_count", TOP_K);
    if (t->kind == PLAIN)
        put_plain(w, t);
    else
        put_experts(w, t);
    assert_int_equal(tr_gguf_writer_begin_data(w), TR_OK);
    if (t->kind != PLAIN)
        write_tensor(w, 0, t->gate, DIM, n_experts, &at);
    write_tensor(w, 1, t->up, DIM, n_experts, &at);
    write_tensor(w, 2, t->down, FFN, n_experts, &at);
    if (t->kind == CLAMPED)
        write_bias(w, gate_bias[0], n_bias * FFN, 9.0f, &at);
    if (t->kind != SWIGLU) {
        write_bias(w, up_bias[0], n_bias * FFN, 9.0f, &at);
        write_bias(w, down_bias[0], n_bias * DIM, 1.0f, &at);
    }
    assert_int_equal(tr_gguf_writer_finish(&w), TR_OK);
}

static double hidden_by_definition(double g, double u, activation kind)
{
    if (kind == SWIGLU)
        return g / (1 + exp(-g)) * u;
    if (kind == PLAIN)
        return 0.5 * u * (1 + tanh(sqrt(2 / acos(-1)) * (u + 0.044715 * u * u * u)));
    g = fmin(g, 7);
    u = fmax(fmin(u, 7), -7);
    return g / (1 + exp(-1.702 * g)) * (u + 1);
}

static void answer_by_definition(const float *x, uint32_t expert, activation kind, double *out)
{
    bool has_bias = kind != SWIGLU;
    double hidden[FFN];

    for (size_t f = 0; f < FFN; f++) {
        double g = has_bias ? (double)gate_bias[expert][f] : 0;
        double u = has_bias ? (double)up_bias[expert][f] : 0;
        for (size_t d = 0; d < DIM; d++) {
            g += (double)weights[0][expert][f * DIM + d] * (double)x[d];
            u += (double)weights[1][expert][f * DIM + d] * (double)x[d];
        }
        hidden[f] = hidden_by_definition(g, u, kind);
    }
    for (size_t d = 0; d < DIM; d++) {
        out[d] = has_bias ? (double)down_bias[expert][d] : 0;
        for (size_t f = 0; f < FFN; f++)
            out[d] += (double)weights[2][expert][d * FFN + f] * hidden[f];
    }
}

/* Those of the first expert come first. */
static size_t picks_of(uint32_t n_experts)
{
    return n_experts == 1 ? 3 : N_PICKS;
}

/* answers [N_PICKS][DIM] of the share under a table and a number of threads. */
static void apply(const char *path, const tr_kernels *k, size_t threads, bool exact, const float *x,
                  float *answers)
{
    tr_compute c = { .kernels = k, .exact = exact };
    tr_gguf *g = NULL;
    tr_expert_map map;
    tr_shards *s = NULL;
    tr_apply *a = NULL;

    assert_int_equal(tr_pool_new(threads, &c.pool), TR_OK);
    assert_int_equal(tr_gguf_open(path, &g), TR_OK);
    assert_int_equal(tr_expert_map_read(g, &map), TR_OK);
    assert_int_equal(tr_shards_new(&c, g, &map, &s), TR_OK);
    for (uint32_t e = 0; e < map.n_experts; e++)
        assert_int_equal(tr_shards_load(s, 0, e), TR_OK);
    assert_int_equal(tr_apply_new(&c, s, &a), TR_OK);
    tr_act act = tr_expert_map_act(&map, 0, exact);
    size_t row_size = tr_act_row_size(act, DIM);
    uint8_t *rows = aligned_alloc(64, N_ROWS * row_size);
    assert_non_null(rows);
    tr_act_rows(&c, act, x, DIM, N_ROWS, rows);
    tr_apply_share_in in = { 0, act, N_ROWS, picks_of(map.n_experts), picks, rows, row_size };
    assert_int_equal(tr_apply_share(a, &in, answers, NULL, NULL), TR_OK);
    free(rows);
    tr_apply_free(&a);
    tr_shards_free(&s);
    tr_expert_map_fini(&map);
    tr_gguf_close(&g);
    tr_pool_free(&c.pool);
}

static void check_close(const float *x, const float *answers, activation kind, double bound)
{
    for (size_t p = 0; p < picks_of(kind == PLAIN ? 1 : N_EXPERTS); p++) {
        double want[DIM];
        answer_by_definition(x + picks[p].row * DIM, picks[p].expert, kind, want);
        for (size_t d = 0; d < DIM; d++)
            assert_true(fabs((double)answers[p * DIM + d] - want[d]) <= bound);
    }
}

static void answers_are_right_for_every_mixture_of_types(void **state)
{
    static const tr_type all[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_Q8_0, TR_TYPE_Q4_0 };
    const char *path = "apply.gguf";
    float x[N_ROWS * DIM];
    float first[N_PICKS * DIM];
    float again[N_PICKS * DIM];

    (void)state;
    for (size_t i = 0; i < N_ROWS * DIM; i++)
        x[i] = (float)(2 * tr_rng_unit(tr_rng_u64(3, 0, i)) - 1);
    for (size_t m = 0; m < 4 * 4 * 4; m++) {
        types t = { all[m % 4], all[m / 4 % 4], all[m / 16], SWIGLU };
        write_file(path, &t);
        for (int exact = 0; exact < 2; exact++) {
            apply(path, tr_kernels_select(tr_cpu_features(), "c"), 1, exact == 1, x, first);
            check_close(x, first, SWIGLU,
                        exact ? 1e-5 : 0.05); /* 8-bit rows: some per cent of about 1 */
            for (const char *const *name = tr_kernels_names(); *name; name++) {
                const tr_kernels *k = tr_kernels_select(tr_cpu_features(), *name);
                if (!k)
                    continue;
                apply(path, k, 3, exact == 1, x, again);
                assert_memory_equal(again, first, sizeof first);
            }
        }
    }
    unlink(path);
}

static void check_other_activation(activation kind)
{
    const char *path = "apply.gguf";
    const types t = { TR_TYPE_Q8_0, TR_TYPE_F16, TR_TYPE_F32, kind };
    float x[N_ROWS * DIM];
    float first[N_PICKS * DIM] = { 0 };
    float again[N_PICKS * DIM] = { 0 };

    for (size_t i = 0; i < N_ROWS * DIM; i++)
        x[i] = (float)(2 * tr_rng_unit(tr_rng_u64(3, 0, i)) - 1);
    write_file(path, &t);
    apply(path, tr_kernels_select(tr_cpu_features(), "c"), 1, true, x, first);
    check_close(x, first, kind, 2e-4); /* sums of terms of up to 50 */
    apply(path, tr_kernels_select(tr_cpu_features(), NULL), 3, true, x, again);
    assert_memory_equal(again, first, sizeof first);
    unlink(path);
}

static void experts_with_biases_have_the_other_activation(void **state)
{
    (void)state;
    check_other_activation(CLAMPED);
}

static void a_network_without_a_gate_has_gelu(void **state)
{
    (void)state;
    check_other_activation(PLAIN);
}

static void an_expert_that_is_not_held_is_refused(void **state)
{
    const char *path = "apply.gguf";
    types t = { TR_TYPE_F32, TR_TYPE_F32, TR_TYPE_F32, SWIGLU };
    tr_compute c = { .kernels = tr_kernels_select(tr_cpu_features(), NULL) };
    static float rows[DIM] __attribute__((aligned(64)));
    float answers[DIM];
    char line[256];
    tr_gguf *g = NULL;
    tr_expert_map map;
    tr_shards *s = NULL;
    tr_apply *a = NULL;

    (void)state;
    write_file(path, &t);
    assert_int_equal(tr_pool_new(1, &c.pool), TR_OK);
    assert_int_equal(tr_gguf_open(path, &g), TR_OK);
    assert_int_equal(tr_expert_map_read(g, &map), TR_OK);
    assert_int_equal(tr_shards_new(&c, g, &map, &s), TR_OK);
    assert_int_equal(tr_shards_load(s, 0, 1), TR_OK);
    assert_int_equal(tr_shards_load(s, 0, 1), TR_OK); /* once more changes nothing */
    assert_int_equal(tr_shards_count(s), 1);
    assert_int_equal(tr_apply_new(&c, s, &a), TR_OK);
    tr_apply_share_in in = {
        0, TR_ACT_F32, 1, 1, &(tr_share_pick){ 0, 2 }, (const uint8_t *)rows, sizeof rows
    };
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_apply_share(a, &in, answers, NULL, NULL), TR_E_PROTOCOL);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "expert 2 is not held"));
    tr_apply_free(&a);
    tr_shards_free(&s);
    tr_expert_map_fini(&map);
    tr_gguf_close(&g);
    tr_pool_free(&c.pool);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_right_for_every_mixture_of_types),
        cmocka_unit_test(experts_with_biases_have_the_other_activation),
        cmocka_unit_test(a_network_without_a_gate_has_gelu),
        cmocka_unit_test(an_expert_that_is_not_held_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
