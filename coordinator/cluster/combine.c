/* combine.c - weighted sums, one task per row.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/combine.h"

typedef struct {
    const tr_kernels *kernels;
    const tr_pick *picks;
    const float *const *answers;
    size_t top_k, dim;
    float *x;
} combine_job;

static void combine_rows(void *ctx, size_t thread, size_t begin, size_t end)
{
    const combine_job *j = ctx;

    (void)thread;
    for (size_t r = begin; r < end; r++)
        for (size_t i = r * j->top_k; i < (r + 1) * j->top_k; i++)
            j->kernels->axpy_f32(j->picks[i].weight, j->answers[i], j->dim, j->x + r * j->dim);
}

void tr_combine(const tr_compute *c, const tr_pick *picks, const float *const *answers,
                size_t n_rows, size_t top_k, size_t dim, float *x)
{
    combine_job j = { c->kernels, picks, answers, top_k, dim, x };

    tr_pool_for(c->pool, n_rows, 1, combine_rows, &j);
}
