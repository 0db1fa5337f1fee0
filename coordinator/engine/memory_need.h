/* memory_need.h - what each process of a run will hold, told from the model file's header alone.
 *
 * USE     tr_memory_need_options o = { .n_workers = 3, .context = 4096, .max_rows = 256, ... };
 *         tr_memory_need *need = calloc(4, sizeof *need);     [0] the coordinator, [w] worker w
 *         st = tr_memory_need_read(g, &o, need);
 *
 * Weights, cache and buffers are what the code that takes them says.  A step's buffers and messages
 * are resident once a step was as large as it can be, the cache once the context is full.
 *
 * FAILS   what tr_model_check fails with; TR_E_CONFIG for more workers than experts
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_ENGINE_MEMORY_NEED_H
#define TR_COORDINATOR_ENGINE_MEMORY_NEED_H

#include "compute/gguf.h"
#include "compute/kernels.h"

typedef struct {
    uint32_t n_workers; /* placed evenly */
    size_t context, max_rows, threads;
    tr_type kv_type;
    bool exact;
    const tr_kernels *kernels;
} tr_memory_need_options;

typedef struct {
    uint64_t weights;  /* dense ones, or experts, as they are laid out */
    uint64_t cache;    /* keys and values of one sequence that fills the context */
    uint64_t buffers;  /* of a step: rows, scratch of attention and of experts */
    uint64_t messages; /* shares and answers of a layer, on their way */
} tr_memory_need;

/* Bytes in all. */
uint64_t tr_memory_need_sum(const tr_memory_need *n);

/* need is [1 + n_workers]. */
tr_status tr_memory_need_read(const tr_gguf *g, const tr_memory_need_options *o,
                              tr_memory_need *need);

#endif
