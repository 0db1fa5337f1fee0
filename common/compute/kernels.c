/* kernels.c - which table, and what all tables share.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/kernels.h"

#include "base/check.h"
#include "compute/cpu.h"
#include "compute/kernels_table.h"

#include <pthread.h>

typedef struct {
    const char *name;
    uint32_t needs; /* features */
    void (*improve)(tr_kernels *k);
} step;

/* Slowest first; each table is all steps up to it. */
static const step steps[] = {
    { "c", 0, tr_kernels_c },
#if defined(TR_HAVE_AVX2)
    { "avx2", TR_CPU_AVX2, tr_kernels_avx2 },
    { "avx512", TR_CPU_AVX2 | TR_CPU_AVX512, tr_kernels_avx512 },
#endif
#if defined(TR_HAVE_NEON)
    { "neon", TR_CPU_DOTPROD, tr_kernels_neon },
#endif
};

enum { N_STEPS = sizeof steps / sizeof steps[0] };

static tr_kernels table[N_STEPS];
static const char *names[N_STEPS + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build(void)
{
    for (size_t i = 0; i < N_STEPS; i++) {
        if (i > 0)
            table[i] = table[i - 1];
        steps[i].improve(&table[i]);
        table[i].name = steps[i].name;
        names[i] = steps[i].name;
    }
}

const tr_kernels *tr_kernels_select(uint32_t cpu_features, const char *isa)
{
    const tr_kernels *best = NULL;
    bool is_best_wanted = !isa || strcmp(isa, "auto") == 0;

    pthread_once(&once, build);
    for (size_t i = 0; i < N_STEPS; i++)
        if ((steps[i].needs & ~cpu_features) == 0 &&
            (is_best_wanted || strcmp(isa, steps[i].name) == 0))
            best = &table[i];
    return best;
}

const char *const *tr_kernels_names(void)
{
    pthread_once(&once, build);
    return names;
}

tr_matmul_fn tr_matmul_for(const tr_kernels *k, const tr_matrix *w, tr_act act)
{
    tr_matmul_fn fn = w->layout == TR_LAYOUT_PANELS ? k->panels[w->type] : k->matmul[act][w->type];

    TR_CHECK(fn != NULL);
    TR_CHECK(w->layout == TR_LAYOUT_ROWS || act == TR_ACT_Q8);
    return fn;
}

size_t tr_act_row_size(tr_act act, size_t n)
{
    if (act == TR_ACT_F32)
        return tr_align_up(n * sizeof(float), 64);
    TR_CHECK(n % TR_Q8_BLOCK == 0);
    return tr_align_up(n + n / TR_Q8_BLOCK * (sizeof(float) + 2 * sizeof(int16_t)), 64);
}

tr_act tr_act_for(tr_type weight, bool exact)
{
    if (exact || weight == TR_TYPE_F32 || weight == TR_TYPE_F16 || weight == TR_TYPE_BF16)
        return TR_ACT_F32;
    return TR_ACT_Q8;
}
