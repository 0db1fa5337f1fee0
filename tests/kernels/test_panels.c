/* test_panels.c - products with panels have the bits of plain C with rows, whatever the shape,
 * the number of rows, the range of outputs and the values; and nothing else is written.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernels/kernel_cases.h"

#include "compute/panels.h"

enum { MAX_OUT = 70, MAX_IN = 512, MAX_ROWS = 19, GUARD = 32 };

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

    for (size_t i = 0; i < n_blocks * size; i++)
        data[i] = extreme == 0 ? 0x80 : extreme == 1 ? 0xff : (uint8_t)dice_u64(d);
    for (size_t i = 0; i < n_blocks; i++) {
        uint16_t scale = tr_f32_to_f16(dice_float(d));
        memcpy(data + i * size, &scale, sizeof scale);
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
    size_t n_in = 32 * (1 + dice_below(d, MAX_IN / 32));
    size_t n_out = 1 + dice_below(d, MAX_OUT);
    const tr_kernels *c = table_at(0);
    float x[MAX_IN];
    size_t row_size;

    assert_true(tr_type_row_size(type, n_in, &row_size));
    p.row_data = aligned_new(n_out * row_size);
    random_weights(d, type, n_out * n_in / 32, p.row_data);
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

static void panels_give_the_bits_of_plain_c(void **state)
{
    static const tr_type types[] = { TR_TYPE_Q8_0, TR_TYPE_Q4_0 };
    dice d = { tr_test_seed(), 0 };
    size_t n_tables = 0;

    (void)state;
    for (int round = 0; round < 400; round++) {
        product p = product_new(&d, types[round % 2]);
        float *want = aligned_new(p.n_rows * p.rows.n_out * sizeof *want);
        tr_matmul_for(table_at(0), &p.rows, TR_ACT_Q8)(&p.rows, 0, p.rows.n_out, p.x, p.x_stride,
                                                       p.n_rows, want, p.rows.n_out);
        for (size_t i = 0; table_at(i); i++) {
            if (!table_at(i)->panels[p.rows.type])
                continue;
            n_tables++;
            size_t begin = dice_below(&d, p.rows.n_out);
            check_range(&p, table_at(i), want, 0, p.rows.n_out);
            check_range(&p, table_at(i), want, begin,
                        begin + dice_below(&d, p.rows.n_out - begin + 1));
        }
        free(want);
        product_free(&p);
    }
    if (n_tables == 0)
        print_message("  no table of this machine has panels\n");
}

/* The layout itself, by its definition in panels.h. */
static void every_code_and_scale_is_where_the_header_says(void **state)
{
    dice d = { tr_test_seed(), 0 };

    (void)state;
    for (int round = 0; round < 50; round++) {
        product p = product_new(&d, round % 2 ? TR_TYPE_Q8_0 : TR_TYPE_Q4_0);
        bool is_q8 = p.rows.type == TR_TYPE_Q8_0;
        size_t block = is_q8 ? 512 : 256;
        size_t n_blocks = p.rows.n_in / 32;
        for (int probe = 0; probe < 200; probe++) {
            size_t o = dice_below(&d, p.rows.n_out);
            size_t i = dice_below(&d, n_blocks);
            size_t k = dice_below(&d, 32);
            const uint8_t *panel = p.panel_data + o / 16 * tr_panel_size(p.rows.type, p.rows.n_in);
            const uint8_t *b =
                p.row_data + o * p.rows.row_size + i * tr_type_get(p.rows.type)->size;
            size_t v = is_q8 ? k / 4 : k / 4 % 4;
            uint8_t got = panel[i * block + v * 64 + 4 * (o % 16) + k % 4];
            if (is_q8)
                assert_int_equal(got, (uint8_t)(b[2 + k] + 128));
            else
                assert_int_equal(k < 16 ? got & 15 : got >> 4,
                                 k < 16 ? b[2 + k % 16] & 15 : b[2 + k % 16] >> 4);
            assert_memory_equal(panel + n_blocks * block + (i * 16 + o % 16) * 2, b, 2);
        }
        product_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_give_the_bits_of_plain_c),
        cmocka_unit_test(every_code_and_scale_is_where_the_header_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
