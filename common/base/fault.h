/* fault.h - where a simulation makes a disk slow and memory short, for one thread.
 *
 * Code that reads a file or takes a large block asks here first.  Without a source, which is always
 * but in simulations, the answer is TR_OK and costs one look at a thread's variable.
 *
 * USE     st = tr_fault_before_read(size);       gguf.c
 *         st = tr_fault_before_memory(size);     memory.c; what is wrong is said by the caller
 *
 *         tr_fault_use_here(&source);            borrowed until the next call; NULL: none
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_FAULT_H
#define TR_BASE_FAULT_H

#include "base/status.h"

#include <stddef.h>

typedef struct {
    tr_status (*before_read)(void *ctx, size_t size);   /* may sleep */
    tr_status (*before_memory)(void *ctx, size_t size); /* no line */
    void *ctx;
} tr_fault_source;

void tr_fault_use_here(const tr_fault_source *source);

tr_status tr_fault_before_read(size_t size);
tr_status tr_fault_before_memory(size_t size);

#endif
