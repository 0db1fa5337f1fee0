/* msg_pool.h - messages whose memory is used again, for the transports' own use.
 *
 * Buffers come in sizes of powers of two; a freed one waits in the list of its size.  After
 * the first messages of each size traffic allocates nothing.
 *
 * USE     tr_msg_pool pool;
 *         tr_msg_pool_init(&pool, &ops, owner);
 *         st = tr_msg_pool_take(&pool, size, &slab);      slab->msg is what callers see
 *         tr_msg_pool_put(slab);
 *         tr_msg_pool_fini(&pool);                        every slab must be back
 *
 * A slab is also a link: transports keep messages on their way in tr_slab_list.
 *
 * THREAD  None of its own: the owner calls from one thread or holds its lock.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TRANSPORT_MSG_POOL_H
#define TR_TRANSPORT_MSG_POOL_H

#include "transport/transport.h"

typedef struct tr_msg_pool tr_msg_pool;

typedef struct tr_slab {
    tr_msg msg; /* first: a tr_msg of a pool is its slab */
    struct tr_slab *next;
    tr_msg_pool *pool;
    uint32_t size_class;
    tr_peer peer;  /* the other side, while on its way */
    bool has_come; /* for the owner: all of it is here */
} tr_slab;

enum { TR_SLAB_CLASSES = 53, TR_SLAB_MIN = 1024 };

struct tr_msg_pool {
    const struct tr_msg_ops *ops;
    void *owner;
    tr_slab *free[TR_SLAB_CLASSES]; /* of TR_SLAB_MIN << class bytes */
    size_t n_out;                   /* taken and not put back */
};

void tr_msg_pool_init(tr_msg_pool *pool, const struct tr_msg_ops *ops, void *owner);

/* Frees all memory; a message still out is a bug. */
void tr_msg_pool_fini(tr_msg_pool *pool);

tr_status tr_msg_pool_take(tr_msg_pool *pool, size_t size, tr_slab **out);
void tr_msg_pool_put(tr_slab *slab);

static inline tr_slab *tr_slab_of(tr_msg *m)
{
    return (tr_slab *)(void *)m;
}

/* First in, first out. */
typedef struct {
    tr_slab *head, *tail;
} tr_slab_list;

static inline void tr_slab_append(tr_slab_list *list, tr_slab *slab)
{
    slab->next = NULL;
    if (list->tail)
        list->tail->next = slab;
    else
        list->head = slab;
    list->tail = slab;
}

/* NULL when empty. */
static inline tr_slab *tr_slab_pop(tr_slab_list *list)
{
    tr_slab *slab = list->head;

    if (!slab)
        return NULL;
    list->head = slab->next;
    if (!list->head)
        list->tail = NULL;
    slab->next = NULL;
    return slab;
}

/* Move peer's slabs to out, which keeps their order. */
void tr_slab_split(tr_slab_list *list, tr_peer peer, tr_slab_list *out);

#endif
