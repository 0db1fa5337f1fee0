/* msg_pool.c - lists of free buffers by size.
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/msg_pool.h"
#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>

void tr_msg_pool_init(tr_msg_pool *pool, const struct tr_msg_ops *ops, void *owner)
{
    *pool = (tr_msg_pool){ .ops = ops, .owner = owner };
}

static size_t class_size(uint32_t size_class)
{
    return (size_t)TR_SLAB_MIN << size_class;
}

static void slab_delete(tr_slab *slab)
{
    void *data = slab->msg.data;

    tr_memory_free(&data, class_size(slab->size_class));
    free(slab);
}

void tr_msg_pool_fini(tr_msg_pool *pool)
{
    TR_CHECK(pool->n_out == 0);
    for (size_t c = 0; c < TR_SLAB_CLASSES; c++) {
        while (pool->free[c]) {
            tr_slab *slab = pool->free[c];
            pool->free[c] = slab->next;
            slab_delete(slab);
        }
    }
}

static tr_status slab_new(tr_msg_pool *pool, uint32_t size_class, tr_slab **out)
{
    void *data = NULL;
    tr_status st = tr_memory_new(class_size(size_class), "message", &data);

    if (st != TR_OK)
        return st;
    tr_slab *slab = calloc(1, sizeof *slab);
    if (!slab) {
        tr_memory_free(&data, class_size(size_class));
        return tr_fail(TR_E_MEMORY, "message: no memory for its record");
    }
    slab->msg.data = data;
    slab->msg.ops = pool->ops;
    slab->pool = pool;
    slab->size_class = size_class;
    *out = slab;
    return TR_OK;
}

tr_status tr_msg_pool_take(tr_msg_pool *pool, size_t size, tr_slab **out)
{
    uint32_t size_class = 0;

    while (class_size(size_class) < size) {
        size_class++;
        TR_CHECK(size_class < TR_SLAB_CLASSES);
    }

    tr_slab *slab = pool->free[size_class];
    if (slab) {
        pool->free[size_class] = slab->next;
    } else {
        tr_status st = slab_new(pool, size_class, &slab);
        if (st != TR_OK)
            return st;
    }
    slab->next = NULL;
    slab->msg.size = size;
    slab->has_come = false;
    pool->n_out++;
    *out = slab;
    return TR_OK;
}

void tr_msg_pool_put(tr_slab *slab)
{
    tr_msg_pool *pool = slab->pool;

    TR_CHECK(pool->n_out > 0);
    pool->n_out--;
    slab->next = pool->free[slab->size_class];
    pool->free[slab->size_class] = slab;
}

void tr_slab_split(tr_slab_list *list, tr_peer peer, tr_slab_list *out)
{
    tr_slab_list kept = { NULL, NULL };
    tr_slab *slab;

    while ((slab = tr_slab_pop(list)))
        tr_slab_append(slab->peer == peer ? out : &kept, slab);
    *list = kept;
}
