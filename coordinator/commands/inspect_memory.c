/* inspect_memory.c - one object for the coordinator, one for each worker; the largest is shown.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/inspect_memory.h"

#include "compute/cpu.h"
#include "compute/pool.h"
#include "coordinator/engine/memory_need.h"
#include "coordinator/model/arch.h"

#include <stdio.h>
#include <stdlib.h>

/* What a process is before it holds anything of a model: the program, its libraries, Open MPI with
 * its connections.  Measured with a model of 4 MB: alone 12 MB, as a coordinator 33, a worker 23 to
 * 25. */
static const uint64_t alone_bytes = 12 << 20;
static const uint64_t coordinator_bytes = 33 << 20;
static const uint64_t worker_bytes = 24 << 20;

enum { DEFAULT_CONTEXT = 8192 };

static json_t *part_json(const tr_memory_need *n, uint64_t program)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "weights", (json_int_t)n->weights, "cache",
                     (json_int_t)n->cache, "buffers", (json_int_t)n->buffers, "messages",
                     (json_int_t)n->messages, "program", (json_int_t)program, "total",
                     (json_int_t)(tr_memory_need_sum(n) + program));
}

static json_t *memory_json(const tr_memory_need_options *o, const tr_memory_need *need,
                           uint64_t text_bytes)
{
    json_t *workers = json_array();
    uint64_t program = o->n_workers > 0 ? coordinator_bytes : alone_bytes;

    for (uint32_t w = 1; w <= o->n_workers; w++)
        json_array_append_new(workers, part_json(&need[w], worker_bytes));
    return json_pack("{s:I, s:I, s:I, s:s, s:o, s:o}", "workers", (json_int_t)o->n_workers, "ctx",
                     (json_int_t)o->context, "batch", (json_int_t)o->max_rows, "kv",
                     tr_type_get(o->kv_type)->name, "coordinator",
                     part_json(&need[0], program + text_bytes), "worker", workers);
}

tr_status tr_inspect_memory(const tr_gguf *g, const tr_inspect_memory_options *o,
                            uint64_t text_bytes, json_t **out)
{
    tr_memory_need_options n = { .n_workers = (uint32_t)o->workers,
                                 .context = (size_t)o->ctx,
                                 .max_rows = (size_t)o->batch,
                                 .threads = tr_pool_default_threads(),
                                 .kv_type = o->kv,
                                 .kernels = tr_kernels_select(tr_cpu_features(), NULL) };
    tr_model_config config;

    tr_status st = tr_model_config_read(g, &config);
    if (st != TR_OK)
        return st;
    if (n.context == 0)
        n.context = config.context < DEFAULT_CONTEXT ? config.context : DEFAULT_CONTEXT;
    tr_memory_need *need = calloc((size_t)o->workers + 1, sizeof *need);
    if (!need)
        return tr_fail(TR_E_MEMORY, "inspect: no memory");
    st = tr_memory_need_read(g, &n, need);
    if (st == TR_OK)
        *out = memory_json(&n, need, text_bytes);
    free(need);
    return st == TR_OK && !*out ? tr_fail(TR_E_MEMORY, "inspect: no memory") : st;
}

static double mib(const json_t *part, const char *key)
{
    return (double)json_integer_value(json_object_get(part, key)) / (1 << 20);
}

static void print_part(const char *who, const json_t *part)
{
    printf("%-18s %.0f MiB: weights %.1f, cache %.1f, buffers %.1f, messages %.1f, program %.1f\n",
           who, mib(part, "total"), mib(part, "weights"), mib(part, "cache"), mib(part, "buffers"),
           mib(part, "messages"), mib(part, "program"));
}

void tr_inspect_memory_print(const json_t *memory)
{
    const json_t *workers = json_object_get(memory, "worker"), *largest = NULL;
    size_t n = json_array_size(workers);

    for (size_t i = 0; i < n; i++) {
        const json_t *w = json_array_get(workers, i);
        if (!largest || mib(w, "total") > mib(largest, "total"))
            largest = w;
    }
    printf("%-18s with %zu workers, %lld tokens of context in %s, steps of %lld rows\n", "memory",
           n, (long long)json_integer_value(json_object_get(memory, "ctx")),
           json_string_value(json_object_get(memory, "kv")),
           (long long)json_integer_value(json_object_get(memory, "batch")));
    print_part("  coordinator", json_object_get(memory, "coordinator"));
    if (largest)
        print_part(n > 1 ? "  largest worker" : "  worker", largest);
}
