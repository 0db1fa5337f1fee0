/* fault.c - the source of faults of a thread.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

static _Thread_local const tr_fault_source *source;

void tr_fault_use_here(const tr_fault_source *s)
{
    source = s;
}

tr_status tr_fault_before_read(size_t size)
{
    return source ? source->before_read(source->ctx, size) : TR_OK;
}

tr_status tr_fault_before_memory(size_t size)
{
    return source ? source->before_memory(source->ctx, size) : TR_OK;
}
