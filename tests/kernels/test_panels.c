/* test_panels.c - products with panels have the bits of plain C with rows, whatever the shape,
 * the number of rows, the range of outputs and the values; and nothing else is written.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernels/kernel_cases.h"

#include "compute/matrix.h"
#include "compute/panels.h"

enum { N_TYPES = 13, MAX_OUT = 70, MAX_IN = 512, MAX_ROWS = 19, GUARD = 32 };

typedef struct {
    tr_matrix rows, panels;
    uint8_t *row_data, *panel_data, *x;
    size_t n_rows, x_stride;
} product;

/* Codes of every value, scales of every sane size; now and then extremes. */
static void random_weights(dice *d, tr_type type, size_t n_blocks, uint8_t *data)
{
    const size_t size = tr_type_get(type)->size;
    size_t extreme = dice_below(d, 4);
    size_t at[2];
    size_t n_halves = scale_offsets_of(type, at);

    for (size_t i = 0; i < n_blocks * size; i++)
        data[i] = extreme == 0 ? 0x80 : extreme == 1 ? 0xff : (uint8_t)dice_u64(d);
    for (size_t i = 0; i < n_blocks; i++) {
        for (size_t h = 0; h < n_halves; h++) {
            uint16_t scale = tr_f32_to_f16(dice_float(d));
            memcpy(data + i * size + at[h], &scale, sizeof scale);
        }
        if (type == TR_TYPE_MXFP4) /* the first two are subnormal */
            data[i * size] = (uint8_t)dice_below(d, dice_below(d, 2) ? 200 : 3);
    }
}

static void pack(product *p)
{
    const tr_matrix *w = &p->rows;

    for (size_t o = 0; o < w->n_out; o += TR_PANEL)
        tr_panel_pack(w->type, w->n_in, p->row_data + o * w->row_size, w->row_size,
                      w->n_out - o < TR_PANEL ? w->n_out - o : TR_PANEL,
                      p->panel_data + o / TR_PANEL * tr_panel_size(w->type, w->n_in));
}

static product product_new(dice *d, tr_type type)
{
    product p = { .n_rows = 1 + dice_below(d, MAX_ROWS) };
    size_t block = tr_type_get(type)->block;
    size_t n_in = block * (1 + dice_below(d, MAX_IN / block));
    size_t n_out = 1 + dice_below(d, MAX_OUT);
    const tr_kernels *c = table_at(0);
    float x[MAX_IN];
    size_t row_size;

    assert_true(tr_type_row_size(type, n_in, &row_size));
    p.row_data = aligned_new(n_out * row_size);
    random_weights(d, type, n_out * n_in / block, p.row_data);
    p.panel_data = aligned_new(tr_panels_size(type, n_in, n_out));
    p.rows = (tr_matrix){
        .type = type, .n_out = n_out, .n_in = n_in, .row_size = row_size, .data = p.row_data
    };
    p.panels = (tr_matrix){
        .type = type, .n_out = n_out, .n_in = n_in, .data = p.panel_data, .layout = TR_LAYOUT_PANELS
    };
    pack(&p);
    p.x_stride = tr_act_row_size(TR_ACT_Q8, n_in) + 64 * dice_below(d, 2);
    p.x = aligned_new(p.n_rows * p.x_stride);
    for (size_t r = 0; r < p.n_rows; r++) {
        float scale = dice_below(d, 5) ? 1.0f : 1e-30f;
        for (size_t i = 0; i < n_in; i++)
            x[i] = dice_below(d, 8) ? scale * dice_float(d) : (dice_below(d, 2) ? 127.0f : -127.0f);
        c->act_q8(x, n_in, p.x + r * p.x_stride);
    }
    return p;
}

static void product_free(product *p)
{
    free(p->row_data);
    free(p->panel_data);
    free(p->x);
}

/* Outputs begin..end-1 by panels into y, which was filled with a pattern. */
static void check_range(const product *p, const tr_kernels *k, const float *want, size_t begin,
                        size_t end)
{
    size_t n = p->n_rows * p->rows.n_out + GUARD;
    uint32_t *y = aligned_new(n * sizeof *y);

    for (size_t i = 0; i < n; i++)
        y[i] = 0xdeadbeefu;
    tr_matmul_for(k, &p->panels, TR_ACT_Q8)(&p->panels, begin, end, p->x, p->x_stride, p->n_rows,
                                            (float *)(void *)y, p->rows.n_out);
    for (size_t i = 0; i < n; i++) {
        size_t o = i % p->rows.n_out;
        bool is_asked = i < p->n_rows * p->rows.n_out && o >= begin && o < end;
        uint32_t bits;
        memcpy(&bits, &want[is_asked ? i : 0], sizeof bits);
        if (y[i] != (is_asked ? bits : 0xdeadbeefu))
            fail_msg(
                "%s %s: %zu outputs of %zu, %zu rows, range %zu..%zu: wrong at row %zu output %zu",
                k->name, tr_type_get(p->rows.type)->name, p->rows.n_out, p->rows.n_in, p->n_rows,
                begin, end, i / p->rows.n_out, o);
    }
    free(y);
}

/* The types with panels, by a number that may be any. */
static tr_type type_at(size_t i)
{
    tr_type types[TR_TYPE_COUNT];
    size_t n = 0;

    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++)
        if (tr_panels_has((tr_type)t))
            types[n++] = (tr_type)t;
    assert_int_equal(n, N_TYPES);
    return types[i % n];
}

static void panels_give_the_bits_of_plain_c(void **state)
{
    dice d = { tr_test_seed(), 0 };

    (void)state;
    for (size_t round = 0; round < 100 * N_TYPES; round++) {
        product p = product_new(&d, type_at(round));
        float *want = aligned_new(p.n_rows * p.rows.n_out * sizeof *want);
        tr_matmul_for(table_at(0), &p.rows, TR_ACT_Q8)(&p.rows, 0, p.rows.n_out, p.x, p.x_stride,
                                                       p.n_rows, want, p.rows.n_out);
        for (size_t i = 1; table_at(i); i++) {
            size_t begin = dice_below(&d, p.rows.n_out);
            check_range(&p, table_at(i), want, 0, p.rows.n_out);
            check_range(&p, table_at(i), want, begin,
                        begin + dice_below(&d, p.rows.n_out - begin + 1));
        }
        free(want);
        product_free(&p);
    }
    if (!table_at(1))
        print_message("  no table of this machine has panels\n");
}

/* A field of a code as panels.h says where it lies: `bits` bits of input k of row r. */
static unsigned field_at(const uint8_t *vectors, unsigned bits, size_t k, size_t r)
{
    size_t per_byte = 8 / bits;
    size_t n = 8 / per_byte; /* vectors in memory */
    size_t v = k / 4;

    return (unsigned)vectors[v % n * 64 + 4 * r + k % 4] >> v / n * bits & ((1u << bits) - 1);
}

/* The layout itself, by its definition in panels.h. */
static void every_code_and_scale_is_where_the_header_says(void **state)
{
    dice d = { tr_test_seed(), 0 };

    (void)state;
    for (size_t round = 0; round < 10 * N_TYPES; round++) {
        product p = product_new(&d, type_at(round));
        tr_panel_format f = tr_panel_format_of(p.rows.type);
        tr_panel_parts parts = tr_panel_parts_of(f, p.rows.n_in);
        for (int probe = 0; probe < 200; probe++) {
            tr_block b;
            size_t o = dice_below(&d, p.rows.n_out);
            size_t i = dice_below(&d, p.rows.n_in / 32);
            size_t k = dice_below(&d, 32);
            const uint8_t *panel = p.panel_data + o / 16 * parts.end;
            const uint8_t *codes = panel + i * tr_panel_codes(f);
            tr_block_get(p.rows.type, p.row_data + o * p.rows.row_size, i, &b);
            unsigned code = field_at(codes, f.low, k, o % 16);
            if (f.high)
                code |= field_at(codes + f.low * 64, f.high, k, o % 16) << f.low;
            assert_int_equal(code, b.code[k]);
            const uint8_t *small = panel + parts.small + i * f.n_small * 16 + o % 16;
            if (f.small == TR_SMALL_SCALE || f.small == TR_SMALL_SCALES)
                for (size_t h = 0; h < f.n_small; h++)
                    assert_int_equal((int8_t)small[h * 16], b.s.scale[h]);
            const uint8_t *half =
                panel + parts.halves + o % 16 * 2 + (f.is_super ? i / 8 : i) * f.n_half * 32;
            if (f.n_half > 0)
                assert_memory_equal(half, &b.s.d, 2);
        }
        product_free(&p);
    }
}

static void a_row_of_a_panel_has_the_bits_of_the_row(void **state)
{
    dice d = { tr_test_seed(), 0 };
    float want[MAX_IN];
    float got[MAX_IN];

    (void)state;
    for (size_t round = 0; round < 20 * N_TYPES; round++) {
        product p = product_new(&d, type_at(round));
        size_t n_in = p.rows.n_in;
        for (size_t o = 0; o < p.rows.n_out; o++) {
            tr_matrix_row(&p.rows, o, want);
            tr_matrix_row(&p.panels, o, got);
            assert_memory_equal(got, want, n_in * sizeof *want);
        }
        product_free(&p);
    }
}

/* The promise of at most 5 % more memory than the file. */
static void panels_take_little_more_than_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        size_t row_size;
        assert_true(tr_type_row_size(type_at(i), 2048, &row_size));
        assert_true(tr_panel_size(type_at(i), 2048) >= 16 * row_size);
        assert_true(tr_panel_size(type_at(i), 2048) <= 16 * row_size * 104 / 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_give_the_bits_of_plain_c),
        cmocka_unit_test(every_code_and_scale_is_where_the_header_says),
        cmocka_unit_test(a_row_of_a_panel_has_the_bits_of_the_row),
        cmocka_unit_test(panels_take_little_more_than_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
