/* memory.c - aligned blocks by mmap or the heap, and a bump arena.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/memory_limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* From here on a block gets pages of its own: they are zero without being touched, can be
 * huge, and go back to the system when freed. */
enum { PAGES_FROM = 1 << 20 };

tr_status tr_memory_new(size_t size, const char *what, void **out)
{
    if (size > SIZE_MAX / 2)
        return tr_fail(TR_E_MEMORY, "%s: %zu bytes is more than any machine has", what, size);

    void *block = NULL;
    tr_status st = tr_fault_before_memory(size);
    if (st == TR_OK && size < PAGES_FROM) {
        size_t rounded = tr_align_up(size ? size : 1, TR_ALIGN);
        block = aligned_alloc(TR_ALIGN, rounded);
        if (block)
            memset(block, 0, rounded);
    } else if (st == TR_OK) {
        block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED)
            block = NULL;
        else if (size >= TR_HUGE_PAGE)
            madvise(block, size, MADV_HUGEPAGE);
    }
    if (!block)
        return tr_fail(TR_E_MEMORY, "%s: no memory for %zu bytes", what, size);
    *out = block;
    return TR_OK;
}

void tr_memory_free(void **block, size_t size)
{
    if (!*block)
        return;
    if (size < PAGES_FROM)
        free(*block);
    else
        munmap(*block, size);
    *block = NULL;
}

void tr_memory_take(void *at, size_t size)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)at / page * page;

    madvise((void *)from, (uintptr_t)at + size - from, MADV_POPULATE_WRITE);
#else
    (void)at;
    (void)size;
#endif
}

tr_status tr_arena_init(tr_arena *a, size_t size, const char *what)
{
    void *base = NULL;
    tr_status st = tr_memory_new(size, what, &base);

    if (st != TR_OK)
        return st;
    *a = (tr_arena){ .base = base, .size = size, .used = 0, .what = what };
    return TR_OK;
}

void tr_arena_fini(tr_arena *a)
{
    void *base = a->base;

    tr_memory_free(&base, a->size);
    *a = (tr_arena){ 0 };
}

void *tr_arena_get(tr_arena *a, size_t size)
{
    TR_CHECK(size <= a->size);
    size_t take = tr_arena_size(size);
    TR_CHECK(take <= a->size - a->used);
    void *out = a->base + a->used;
    a->used += take;
    return out;
}

uint64_t tr_memory_resident(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long total;
    unsigned long long pages = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &total, &pages) != 2)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static tr_memory_limit limit_here(void)
{
    return tr_memory_limit_read("/proc/self/cgroup", "/sys/fs/cgroup");
}

uint64_t tr_memory_of_machine(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t tr_memory_physical(void)
{
    uint64_t all = tr_memory_of_machine();
    uint64_t most = limit_here().most;

    return most < all ? most : all;
}

uint64_t tr_memory_left_on_machine(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;

    while (f && kib == 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
            kib = 0;
    if (f)
        fclose(f);
    return kib * 1024;
}

/* A group that has nothing left still differs from a system that does not tell. */
uint64_t tr_memory_available(void)
{
    uint64_t all = tr_memory_left_on_machine();
    uint64_t left = limit_here().left;

    if (left < all)
        return left ? left : 1;
    return all;
}
