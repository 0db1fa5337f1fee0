/* test_random_model.c - random weights have the mean and the spread that keep activations sane,
 * and are the same for the same seed.
 *
 * Method: write the smallest shape, read tensors back, and measure.  A mean of 1/32 of the
 * deviation is far outside of what chance gives over 65,536 weights.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "compute/gguf.h"
#include "compute/quant.h"
#include "coordinator/model/model.h"
#include "coordinator/model/random_model.h"

#include <math.h>
#include <unistd.h>

static const char path[] = "random_model.gguf";

static const tr_type types[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_BF16, TR_TYPE_Q8_0,
                                 TR_TYPE_Q4_0 };

enum { N_TYPES = sizeof types / sizeof types[0] };

static tr_gguf *write_and_open(tr_type type, uint64_t seed)
{
    tr_random_model o = {
        .shape = *tr_model_shape_find("tiny"),
        .path = path,
        .experts = type,
        .dense = type,
        .seed = seed,
        .overwrite = true,
    };
    tr_gguf *g = NULL;

    assert_int_equal(tr_random_model_write(&o), TR_OK);
    assert_int_equal(tr_gguf_open(path, &g), TR_OK);
    return g;
}

static uint8_t *read_raw(const tr_gguf *g, const tr_gguf_tensor *t)
{
    uint8_t *raw = malloc(t->size);

    assert_non_null(raw);
    assert_int_equal(tr_gguf_read(g, t->offset, t->size, raw), TR_OK);
    return raw;
}

static void check_spread(const tr_gguf *g, const char *name, double sigma)
{
    const tr_gguf_tensor *t = tr_gguf_find(g, name);
    double sum = 0;
    double squares = 0;
    size_t row_size;

    assert_non_null(t);
    uint8_t *raw = read_raw(g, t);
    float *row = malloc(t->dim[0] * sizeof *row);
    assert_non_null(row);
    assert_true(tr_type_row_size(t->type, t->dim[0], &row_size));
    uint64_t n_rows = t->dim[1] * t->dim[2];
    for (uint64_t r = 0; r < n_rows; r++) {
        tr_dequantise_row(t->type, raw + r * row_size, t->dim[0], row);
        for (uint64_t i = 0; i < t->dim[0]; i++) {
            sum += (double)row[i];
            squares += (double)row[i] * (double)row[i];
        }
    }
    double n = (double)(n_rows * t->dim[0]);
    double mean = sum / n;
    double spread = sqrt(squares / n);
    if (fabs(mean) > sigma / 32 || fabs(spread - sigma) > sigma / 32)
        fail_msg("%s of type %s: mean %g, deviation %g, wanted 0 and %g", name,
                 tr_type_get(t->type)->name, mean, spread, sigma);
    free(row);
    free(raw);
}

static void weights_of_every_type_have_no_mean_and_the_right_spread(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        tr_gguf *g = write_and_open(types[i], 7);
        check_spread(g, "blk.1.attn_q.weight", 1 / sqrt(256));
        check_spread(g, "blk.0.ffn_up_exps.weight", 1 / sqrt(256));
        check_spread(g, "blk.1.ffn_down_exps.weight", 1.5 / sqrt(256));
        tr_gguf_close(&g);
    }
    unlink(path);
}

/* Each shape made small, so that what differs between them is what architectures differ in. */
static void what_is_written_is_a_model_that_can_run(void **state)
{
    const tr_model_shape *shape;

    (void)state;
    for (size_t i = 0; (shape = tr_model_shape_at(i)); i++) {
        tr_random_model o = { .shape = *shape,
                              .path = path,
                              .experts = TR_TYPE_Q8_0,
                              .dense = TR_TYPE_Q8_0,
                              .overwrite = true };
        tr_model_config config;
        tr_gguf *g = NULL;
        o.shape.n_layers = 2;
        o.shape.dim = 768; /* gpt2's heads times their size */
        o.shape.ffn = 256;
        o.shape.n_vocab = 512;
        assert_int_equal(tr_random_model_write(&o), TR_OK);
        assert_int_equal(tr_gguf_open(path, &g), TR_OK);
        assert_int_equal(tr_model_check(g), TR_OK);
        assert_int_equal(tr_model_config_read(g, &config), TR_OK);
        assert_int_equal(config.n_experts, shape->n_experts ? shape->n_experts : 1);
        assert_int_equal(config.shared_ffn, shape->shared_ffn);
        assert_int_equal(config.n_dense, shape->n_experts ? 0 : 2);
        tr_gguf_close(&g);
    }
    unlink(path);
}

static void a_seed_fixes_every_byte(void **state)
{
    uint8_t *raw[3];
    size_t size = 0;

    (void)state;
    for (uint64_t i = 0; i < 3; i++) {
        tr_gguf *g = write_and_open(TR_TYPE_Q4_0, i / 2); /* seeds 0, 0, 1 */
        const tr_gguf_tensor *t = tr_gguf_find(g, "blk.0.ffn_gate_exps.weight");
        size = t->size;
        raw[i] = read_raw(g, t);
        tr_gguf_close(&g);
    }
    assert_memory_equal(raw[0], raw[1], size);
    assert_memory_not_equal(raw[0], raw[2], size);
    for (size_t i = 0; i < 3; i++)
        free(raw[i]);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_every_type_have_no_mean_and_the_right_spread),
        cmocka_unit_test(what_is_written_is_a_model_that_can_run),
        cmocka_unit_test(a_seed_fixes_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
