/* inspect_memory.h - the part of `troupe inspect` that says what each process would hold.
 *
 * USE     json_t *m = NULL;
 *         st = tr_inspect_memory(g, &options, text_bytes, &m);     a new object
 *         tr_inspect_memory_print(m);
 *
 * FAILS   as tr_memory_need_read; TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_INSPECT_MEMORY_H
#define TR_COORDINATOR_COMMANDS_INSPECT_MEMORY_H

#include "compute/gguf.h"

#include <jansson.h>

typedef struct {
    uint64_t workers, ctx, batch; /* ctx 0: the model's, at most 8192 */
    tr_type kv;
} tr_inspect_memory_options;

/* text_bytes: what header and tokenizer took in this process. */
tr_status tr_inspect_memory(const tr_gguf *g, const tr_inspect_memory_options *o,
                            uint64_t text_bytes, json_t **out);

void tr_inspect_memory_print(const json_t *memory);

#endif
