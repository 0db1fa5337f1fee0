/* test_matrix.c - weights out of a file, whole and in slices; linear maps over the pool.
 *
 * The file is written here: one tensor of random blocks, 3 matrices of 20 rows of 64 elements.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"
#include "base/rng.h"
#include "compute/cpu.h"
#include "compute/matrix.h"
#include "tests/support/tr_test.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_IN = 64, N_OUT = 20, N_MATRICES = 3, N_ALL = N_IN * N_OUT * N_MATRICES, HEADER = 128 };

typedef struct {
    char path[64];
    tr_gguf *g;
    const tr_gguf_tensor *t;
    uint8_t *data; /* of the tensor */
    size_t size;
} fixture;

static void put(uint8_t **at, const void *data, size_t size)
{
    memcpy(*at, data, size);
    *at += size;
}

static void put_u32(uint8_t **at, uint32_t v)
{
    put(at, &v, sizeof v);
}

static void put_u64(uint8_t **at, uint64_t v)
{
    put(at, &v, sizeof v);
}

/* One tensor called "w" at offset 0 of the data. */
static void header_write(uint8_t *header, tr_type type)
{
    uint8_t *at = header;

    put(&at, "GGUF\3\0\0\0", 8);
    put_u64(&at, 1); /* tensors */
    put_u64(&at, 0); /* keys */
    put_u64(&at, 1);
    put(&at, "w", 1);
    put_u32(&at, 3);
    put_u64(&at, N_IN);
    put_u64(&at, N_OUT);
    put_u64(&at, N_MATRICES);
    put_u32(&at, type);
    put_u64(&at, 0);
}

/* Any bytes will do for a type without kernels. */
static void data_fill(fixture *f, tr_type type)
{
    float x[N_ALL];

    for (size_t i = 0; i < N_ALL; i++)
        x[i] = (float)(2.0 * tr_rng_unit(tr_rng_u64(7, type, i)) - 1.0);
    (void)tr_quantise_row(type, x, N_ALL, f->data);
}

static void fixture_init(fixture *f, tr_type type)
{
    uint8_t header[HEADER] = { 0 };
    size_t row;

    assert_true(tr_type_row_size(type, N_IN, &row));
    f->size = row * N_OUT * N_MATRICES;
    f->data = calloc(1, f->size);
    assert_non_null(f->data);
    data_fill(f, type);
    header_write(header, type);
    snprintf(f->path, sizeof f->path, "/tmp/test_matrix.XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    size_t used = 8 + 8 + 8 + 8 + 1 + 4 + 24 + 4 + 8;
    size_t padded = tr_align_up(used, 32);
    assert_true(padded <= HEADER);
    assert_int_equal(write(fd, header, padded), padded);
    assert_int_equal(write(fd, f->data, f->size), f->size);
    assert_int_equal(close(fd), 0);
    assert_int_equal(tr_gguf_open(f->path, &f->g), TR_OK);
    f->t = tr_gguf_find(f->g, "w");
    assert_non_null(f->t);
    assert_int_equal(f->t->size, f->size);
}

static void fixture_fini(fixture *f)
{
    tr_gguf_close(&f->g);
    assert_int_equal(unlink(f->path), 0);
    free(f->data);
}

static const tr_type types[] = { TR_TYPE_F32, TR_TYPE_F16, TR_TYPE_BF16, TR_TYPE_Q8_0,
                                 TR_TYPE_Q4_0 };

enum { N_TYPES = sizeof types / sizeof types[0] };

static void drop(void *block, size_t size)
{
    tr_memory_free(&block, size);
}

/* ---- loading ------------------------------------------------------------------------- */

static void a_slice_holds_the_bytes_of_its_matrices(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        fixture f;
        fixture_init(&f, types[i]);
        size_t one = f.size / N_MATRICES;
        for (size_t first = 0; first < N_MATRICES; first++) {
            for (size_t count = 1; first + count <= N_MATRICES; count++) {
                tr_weights w;
                assert_int_equal(tr_weights_load(f.g, f.t, first, count, &w), TR_OK);
                assert_int_equal(w.size, count * one);
                assert_int_equal(w.matrix.n_out, count * N_OUT);
                assert_int_equal(w.matrix.n_in, N_IN);
                assert_int_equal(w.matrix.row_size * w.matrix.n_out, w.size);
                assert_memory_equal(w.matrix.data, f.data + first * one, w.size);
                tr_weights_free(&w);
                assert_null(w.matrix.data);
            }
        }
        fixture_fini(&f);
    }
}

static void a_vector_is_the_tensor_in_floats(void **state)
{
    float want[N_ALL];

    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        fixture f;
        float *v = NULL;
        fixture_init(&f, types[i]);
        assert_int_equal(tr_vector_load(f.g, f.t, &v), TR_OK);
        tr_dequantise_row(types[i], f.data, N_ALL, want);
        assert_memory_equal(v, want, sizeof want);
        drop(v, sizeof want);
        fixture_fini(&f);
    }
}

static void a_type_without_kernels_is_refused_by_name(void **state)
{
    char line[256] = "";
    fixture f;
    tr_weights w = { .size = 99 };
    float *v = NULL;

    (void)state;
    fixture_init(&f, TR_TYPE_I32);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_weights_load(f.g, f.t, 0, 1, &w), TR_E_UNSUPPORTED);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "tensor w"));
    assert_non_null(strstr(line, "I32"));
    assert_int_equal(w.size, 99);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_vector_load(f.g, f.t, &v), TR_E_UNSUPPORTED);
    tr_fail_capture_end();
    assert_null(v);
    fixture_fini(&f);
}

static void a_file_that_was_cut_since_is_an_error(void **state)
{
    char line[256] = "";
    fixture f;
    tr_weights w = { .size = 99 };

    (void)state;
    fixture_init(&f, TR_TYPE_Q8_0);
    assert_int_equal(truncate(f.path, HEADER), 0);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_weights_load(f.g, f.t, 0, 1, &w), TR_E_IO);
    tr_fail_capture_end();
    assert_int_equal(w.size, 99);
    fixture_fini(&f);
}

/* Panels, where this machine has a table that wants them. */
static void any_number_of_threads_loads_the_same_matrix(void **state)
{
    float want[N_IN], got[N_IN];

    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        fixture f;
        fixture_init(&f, types[i]);
        size_t row_size = f.size / (N_OUT * N_MATRICES);
        for (size_t threads = 1; threads <= 5; threads++) {
            tr_compute c = { .kernels = tr_kernels_select(tr_cpu_features(), NULL) };
            tr_weights w;
            assert_int_equal(tr_pool_new(threads, &c.pool), TR_OK);
            assert_int_equal(tr_weights_load_for(&c, f.g, f.t, 0, N_MATRICES, &w), TR_OK);
            assert_int_equal(w.matrix.n_out, N_OUT * N_MATRICES);
            for (size_t r = 0; r < w.matrix.n_out; r++) {
                tr_dequantise_row(types[i], f.data + r * row_size, N_IN, want);
                tr_matrix_row(&w.matrix, r, got);
                assert_memory_equal(got, want, sizeof want);
            }
            tr_weights_free(&w);
            tr_pool_free(&c.pool);
        }
        fixture_fini(&f);
    }
}

/* Threads say nothing; the one that waits for them says it once. */
static void a_file_cut_while_threads_load_it_is_an_error(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        tr_compute c = { .kernels = tr_kernels_select(tr_cpu_features(), NULL) };
        tr_weights w = { .size = 99 };
        char line[256] = "";
        fixture f;
        fixture_init(&f, types[i]);
        assert_int_equal(tr_pool_new(3, &c.pool), TR_OK);
        assert_int_equal(truncate(f.path, HEADER + (off_t)f.size / 2), 0);
        tr_fail_capture_begin(line, sizeof line);
        assert_int_equal(tr_weights_load_for(&c, f.g, f.t, 0, N_MATRICES, &w), TR_E_IO);
        tr_fail_capture_end();
        assert_non_null(strstr(line, "was cut while in use"));
        assert_int_equal(w.size, 99);
        tr_pool_free(&c.pool);
        fixture_fini(&f);
    }
}

/* ---- linear maps --------------------------------------------------------------------- */

typedef struct {
    float *x; /* [n_rows][N_IN] */
    uint8_t *act;
    float *y;
    size_t n_rows;
    tr_act form;
} rows;

static void *new_block(size_t size)
{
    void *p = NULL;

    assert_int_equal(tr_memory_new(size, "test", &p), TR_OK);
    return p;
}

static void linear_do(const tr_matrix *w, size_t n_threads, rows *r)
{
    tr_compute c = { .kernels = tr_kernels_select(tr_cpu_features(), NULL) };

    assert_int_equal(tr_pool_new(n_threads, &c.pool), TR_OK);
    memset(r->y, 0xff, r->n_rows * w->n_out * sizeof *r->y);
    tr_act_rows(&c, r->form, r->x, N_IN, r->n_rows, r->act);
    tr_linear(&c, w, r->form, r->act, tr_act_row_size(r->form, N_IN), r->n_rows, r->y);
    tr_pool_free(&c.pool);
}

/* 8-bit activations are off by half a step of max|x| / 127 <= 1/127 each. */
static void linear_check(const tr_matrix *w, const rows *r)
{
    float weight[N_IN];

    for (size_t o = 0; o < w->n_out; o++) {
        tr_dequantise_row(w->type, (const uint8_t *)w->data + o * w->row_size, N_IN, weight);
        for (size_t i = 0; i < r->n_rows; i++) {
            double sum = 0.0;
            double slack = 1e-6;
            for (size_t k = 0; k < N_IN; k++) {
                sum += (double)weight[k] * r->x[i * N_IN + k];
                slack += fabs((double)weight[k]) * (r->form == TR_ACT_Q8 ? 0.51 / 127 : 1e-6);
            }
            assert_true(fabs(r->y[i * w->n_out + o] - sum) <= slack);
        }
    }
}

static void linear_cases(const tr_matrix *w, tr_act form)
{
    static const size_t counts[] = { 0, 1, 3, 9, 70 };

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        rows r = { .n_rows = counts[i], .form = form };
        size_t act = (r.n_rows + 1) * tr_act_row_size(form, N_IN);
        size_t size = (r.n_rows + 1) * w->n_out * sizeof(float);
        r.x = new_block((r.n_rows + 1) * N_IN * sizeof(float));
        r.y = new_block(size);
        r.act = new_block(act);
        float *first = new_block(size);
        for (size_t k = 0; k < r.n_rows * N_IN; k++)
            r.x[k] = (float)(2.0 * tr_rng_unit(tr_rng_u64(11, i, k)) - 1.0);
        for (size_t threads = 1; threads <= 4; threads++) {
            linear_do(w, threads, &r);
            if (threads == 1)
                memcpy(first, r.y, size);
            assert_memory_equal(r.y, first, r.n_rows * w->n_out * sizeof(float));
        }
        linear_check(w, &r);
        drop(r.x, (r.n_rows + 1) * N_IN * sizeof(float));
        drop(r.y, size);
        drop(r.act, act);
        drop(first, size);
    }
}

static void linear_maps_are_right_and_the_same_for_any_threads(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        fixture f;
        tr_weights w;
        fixture_init(&f, types[i]);
        assert_int_equal(tr_weights_load(f.g, f.t, 0, N_MATRICES, &w), TR_OK);
        linear_cases(&w.matrix, TR_ACT_F32);
        if (tr_act_for(types[i], false) == TR_ACT_Q8)
            linear_cases(&w.matrix, TR_ACT_Q8);
        tr_weights_free(&w);
        fixture_fini(&f);
    }
}

static void each_weight_type_has_its_activations(void **state)
{
    (void)state;
    assert_int_equal(tr_act_for(TR_TYPE_F32, false), TR_ACT_F32);
    assert_int_equal(tr_act_for(TR_TYPE_F16, false), TR_ACT_F32);
    assert_int_equal(tr_act_for(TR_TYPE_BF16, false), TR_ACT_F32);
    assert_int_equal(tr_act_for(TR_TYPE_Q8_0, false), TR_ACT_Q8);
    assert_int_equal(tr_act_for(TR_TYPE_Q4_0, false), TR_ACT_Q8);
    for (size_t i = 0; i < N_TYPES; i++)
        assert_int_equal(tr_act_for(types[i], true), TR_ACT_F32);
    assert_int_equal(tr_act_row_size(TR_ACT_F32, 17), 128);
    assert_int_equal(tr_act_row_size(TR_ACT_Q8, 32), 64);
    assert_int_equal(tr_act_row_size(TR_ACT_Q8, 2048), 2048 + 64 * 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slice_holds_the_bytes_of_its_matrices),
        cmocka_unit_test(a_vector_is_the_tensor_in_floats),
        cmocka_unit_test(a_type_without_kernels_is_refused_by_name),
        cmocka_unit_test(a_file_that_was_cut_since_is_an_error),
        cmocka_unit_test(any_number_of_threads_loads_the_same_matrix),
        cmocka_unit_test(a_file_cut_while_threads_load_it_is_an_error),
        cmocka_unit_test(linear_maps_are_right_and_the_same_for_any_threads),
        cmocka_unit_test(each_weight_type_has_its_activations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
