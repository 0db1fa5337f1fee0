/* pool.h - run one function over a range of rows on several threads.
 *
 * USE     tr_pool *p;
 *         st = tr_pool_new(n_threads, &p);
 *         tr_pool_for(p, n_rows, 1, rows_do, &job);    returns when all rows are done
 *         tr_pool_free(&p);
 *
 * The caller is one of the threads.  Ranges are disjoint, so tasks share nothing and take
 * no lock; which thread gets which range is not fixed, so a result must not depend on it.
 * Idle threads spin briefly, then sleep: an idle pool uses no core.
 *
 * THREAD  tr_pool_for from one thread at a time; not from inside a task.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_POOL_H
#define TR_COMPUTE_POOL_H

#include "base/status.h"

#include <stddef.h>

enum { TR_POOL_MAX_THREADS = 512 };

typedef struct tr_pool tr_pool;

/* Rows begin..end-1.  thread is 0..n_threads-1, to pick scratch that is not shared. */
typedef void (*tr_pool_fn)(void *ctx, size_t thread, size_t begin, size_t end);

/* One thread for each core that this process may use, as far as a pool can have them. */
size_t tr_pool_default_threads(void);

/* n_threads 1..TR_POOL_MAX_THREADS, the caller included; 1 starts none. */
tr_status tr_pool_new(size_t n_threads, tr_pool **out);
void tr_pool_free(tr_pool **p);

size_t tr_pool_threads(const tr_pool *p);

/* Call fn so that every row of 0..n-1 is in exactly one range.  A range begins at a multiple
 * of grain (at least 1).  n may be 0. */
void tr_pool_for(tr_pool *p, size_t n, size_t grain, tr_pool_fn fn, void *ctx);

#endif
