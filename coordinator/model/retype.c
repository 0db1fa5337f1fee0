/* retype.c - to floats, to blocks, and back to see what it cost.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/retype.h"

#include "compute/kernels.h"

#include <stdlib.h>

enum { STRIPE = 1 << 20 }; /* values */

static void convert_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    const tr_retype *s = ctx;

    (void)thread;
    for (size_t r = begin; r < end; r++) {
        float *x = s->floats + r * s->n_in;
        float back[256];
        tr_dequantise_row(s->from, s->in + r * s->row_in, s->n_in, x);
        tr_quantise_row(s->to, x, s->n_in, s->out + r * s->row_out);
        s->errors[r] = s->sizes[r] = 0.0;
        for (size_t i = 0; i < s->n_in; i += 256) {
            size_t n = s->n_in - i < 256 ? s->n_in - i : 256;
            const tr_type_info *t = tr_type_get(s->to);
            tr_dequantise_row(s->to, s->out + r * s->row_out + i / t->block * t->size, n, back);
            for (size_t k = 0; k < n; k++) {
                double d = (double)back[k] - (double)x[i + k];
                s->errors[r] += d * d;
                s->sizes[r] += (double)x[i + k] * (double)x[i + k];
            }
        }
    }
}

tr_status tr_retype_init(tr_retype *r, tr_type from, tr_type to, size_t n_in)
{
    *r = (tr_retype){ .from = from, .to = to, .n_in = n_in };
    if (n_in == 0 || !tr_type_row_size(from, n_in, &r->row_in) ||
        !tr_type_row_size(to, n_in, &r->row_out))
        return tr_fail(TR_E_FORMAT, "rows of %zu values are no whole blocks of %s and %s", n_in,
                       tr_type_get(from)->name, tr_type_get(to)->name);
    size_t n = n_in < STRIPE ? STRIPE / n_in : 1;
    r->n_rows = n;
    r->in = malloc(n * r->row_in);
    if (from != to) {
        r->floats = malloc(n * n_in * sizeof *r->floats);
        r->out = malloc(n * r->row_out);
        r->errors = malloc(n * sizeof *r->errors);
        r->sizes = malloc(n * sizeof *r->sizes);
    }
    if (r->in && (from == to || (r->floats && r->out && r->errors && r->sizes)))
        return TR_OK;
    tr_retype_fini(r);
    return tr_fail(TR_E_MEMORY, "no memory for rows of %zu values", n_in);
}

void tr_retype_fini(tr_retype *r)
{
    free(r->in);
    free(r->floats);
    free(r->out);
    free(r->errors);
    free(r->sizes);
    r->in = r->out = NULL;
    r->floats = NULL;
    r->errors = r->sizes = NULL;
}

tr_bytes tr_retype_rows(tr_retype *r, tr_pool *pool, size_t n)
{
    if (r->from == r->to)
        return (tr_bytes){ r->in, n * r->row_out };
    tr_pool_for(pool, n, 1, convert_rows, r);
    for (size_t i = 0; i < n; i++) {
        r->error += r->errors[i];
        r->size += r->sizes[i];
    }
    return (tr_bytes){ r->out, n * r->row_out };
}
