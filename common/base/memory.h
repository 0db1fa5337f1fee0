/* memory.h - blocks that are aligned for kernels and messages, and an arena over one block.
 *
 * Start-up computes how much is needed, takes it here, and a step only borrows.
 *
 * USE     tr_arena a;
 *         st = tr_arena_init(&a, size, "step buffers");
 *         float *x = tr_arena_get(&a, n * sizeof *x);     64-byte aligned, zeroed once
 *         tr_arena_fini(&a);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_BASE_MEMORY_H
#define TR_BASE_MEMORY_H

#include "base/bytes.h"
#include "base/status.h"

enum {
    TR_ALIGN = 64, /* a cache line, and the widest vector */
    TR_HUGE_PAGE =
        2 << 20, /* blocks from this size on come in such pages, if the system has them */
};

/* size bytes, 64-byte aligned and zeroed.  Large blocks come in pages of their own, which
 * become resident when first touched.  what names the block in the error line. */
tr_status tr_memory_new(size_t size, const char *what, void **out);

/* size as given to tr_memory_new.  Clears *block; does nothing when it is NULL. */
void tr_memory_free(void **block, size_t size);

/* Make a part of a large block resident now and not when it is touched.  Does nothing where the
 * system can't. */
void tr_memory_take(void *at, size_t size);

typedef struct {
    uint8_t *base;
    size_t size, used;
    const char *what;
} tr_arena;

tr_status tr_arena_init(tr_arena *a, size_t size, const char *what);
void tr_arena_fini(tr_arena *a);

/* Space from the arena.  Asking for more than was reserved is a bug and aborts: reserve with
 * tr_arena_size. */
void *tr_arena_get(tr_arena *a, size_t size);

/* What tr_arena_get(size) takes. */
static inline size_t tr_arena_size(size_t size)
{
    return tr_align_up(size, TR_ALIGN);
}

/* Resident bytes of this process; 0 where the system does not tell. */
uint64_t tr_memory_resident(void);

/* Bytes of memory of this machine, whoever may have them, and of them those that are to be had; 0
 * where it does not tell. */
uint64_t tr_memory_of_machine(void);
uint64_t tr_memory_left_on_machine(void);

/* The same, or what the groups of this process (containers, Slurm) may have if that is less. */
uint64_t tr_memory_physical(void);
uint64_t tr_memory_available(void);

#endif
