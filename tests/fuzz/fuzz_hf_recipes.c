/* fuzz_hf_recipes.c - no config.json and no tensors beside it make recipes that a file can't have.
 *
 * The input is config.json, a line's end, and the header of a safetensors file, whose data is as
 * long as the header says.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "coordinator/convert/recipes.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LENGTH = 8 };

static uint64_t data_size(const json_t *header)
{
    uint64_t end = 0;
    const char *name;
    json_t *t;

    json_object_foreach((json_t *)header, name, t)
    {
        json_int_t n = json_integer_value(json_array_get(tr_json_member(t, "data_offsets"), 1));
        if (n > 0 && (uint64_t)n > end)
            end = (uint64_t)n;
    }
    return end;
}

static tr_status open_tensors(tr_bytes header, tr_checkpoint **out)
{
    tr_safetensors *file = NULL;
    json_t *root = NULL;
    uint64_t length = header.size;

    tr_status st = tr_json_parse("fuzz", header, &root);
    if (st != TR_OK)
        return st;
    uint64_t size = LENGTH + length + data_size(root);
    json_decref(root);
    uint8_t *start = malloc(LENGTH + header.size);
    TR_CHECK(start != NULL);
    memcpy(start, &length, LENGTH);
    memcpy(start + LENGTH, header.data, header.size);
    st = tr_safetensors_parse("fuzz", (tr_bytes){ start, LENGTH + header.size }, size, &file);
    free(start);
    return st == TR_OK ? tr_checkpoint_of("fuzz", file, out) : st;
}

/* What a recipe says of its rows is what its sources have, and the writer takes its shape. */
static void check_recipe(const tr_recipe *r, tr_gguf_writer *w)
{
    uint64_t values = 1, have = 0;

    TR_CHECK(r->n_dims >= 1 && r->n_dims <= TR_GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < r->n_dims; i++)
        values *= r->dim[i];
    TR_CHECK(values > 0);
    TR_CHECK(values == r->n_rows * r->row_len);
    TR_CHECK(r->n_sources == 0 || r->n_rows % r->n_sources == 0);
    for (size_t i = 0; i < r->n_sources; i++) {
        const tr_st_tensor *t = r->source[i]->tensor;
        TR_CHECK(r->source[i]->is_used);
        uint64_t n = t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
        have += r->from == TR_TYPE_MXFP4 ? 2 * n : n;
    }
    bool is_half = r->order != TR_ROWS_AS_THEY_ARE && r->order != TR_ROWS_INTERLEAVED;
    TR_CHECK(r->values || have == (is_half ? 2 * values : values));
    tr_gguf_put_tensor(w, r->name, r->to, r->dim, r->n_dims);
}

static void make(tr_hf_model *m, tr_checkpoint *c)
{
    const tr_type_rules rules[] = { { .keeps = true },
                                    { .experts = TR_TYPE_Q4_K, .dense = TR_TYPE_Q8_0 } };

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        tr_recipes p;
        if (tr_recipes_make(m, c, &rules[i], &p) != TR_OK)
            return;
        for (size_t k = 0; k < p.n; k++)
            check_recipe(&p.recipe[k], m->w);
        tr_recipes_fini(&p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    char reason[1024], path[] = "fuzz";
    tr_json_file f = { path, NULL };
    tr_hf_model m = { .dir = "fuzz", .config = &f };
    tr_checkpoint *c = NULL;

    if (!end)
        return 0;
    tr_bytes config = { data, (size_t)(end - data) };
    tr_bytes header = { end + 1, size - config.size - 1 };
    tr_fail_capture_begin(reason, sizeof reason);
    if (tr_json_parse("fuzz", config, &f.root) == TR_OK && tr_family_find(&m) == TR_OK &&
        tr_gguf_writer_new(NULL, false, &m.w) == TR_OK && tr_family_read(&m) == TR_OK &&
        open_tensors(header, &c) == TR_OK)
        make(&m, c);
    tr_checkpoint_close(&c);
    if (m.w)
        tr_gguf_writer_abandon(&m.w);
    tr_fail_capture_end();
    free(m.rope_factors);
    json_decref(f.root);
    return 0;
}
