/* pool.c - threads that claim ranges from a shared counter.
 *
 * A call publishes its job and raises the generation; threads see the new generation, claim
 * ranges with an atomic add until none is left, and the last one to leave wakes the caller.
 * The lock protects nothing but sleeping and waking.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/pool.h"

#include "base/check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SPINS = 200 }; /* looks at the generation before a thread sleeps: some microseconds */

struct tr_pool {
    size_t n_threads;
    pthread_t *thread; /* [n_threads - 1] */
    size_t n_started;

    /* the job, written before the generation is raised */
    tr_pool_fn fn;
    void *ctx;
    size_t n, chunk;

    atomic_size_t next;       /* first row not yet claimed */
    atomic_size_t n_busy;     /* threads that have not finished this generation */
    atomic_uint generation;
    atomic_bool is_closing;
    atomic_bool is_running;

    pthread_mutex_t lock;
    pthread_cond_t work, done;
};

typedef struct {
    tr_pool *pool;
    size_t index;
} start;

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void claim(tr_pool *p, size_t thread)
{
    for (;;) {
        size_t begin = atomic_fetch_add_explicit(&p->next, p->chunk, memory_order_relaxed);
        if (begin >= p->n)
            return;
        size_t end = p->n - begin > p->chunk ? begin + p->chunk : p->n;
        p->fn(p->ctx, thread, begin, end);
    }
}

/* Wait until the generation differs from seen. */
static unsigned await_work(tr_pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        unsigned now = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (now != seen)
            return now;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    unsigned now;
    while ((now = atomic_load_explicit(&p->generation, memory_order_acquire)) == seen)
        pthread_cond_wait(&p->work, &p->lock);
    pthread_mutex_unlock(&p->lock);
    return now;
}

static void *thread_main(void *ctx)
{
    start *s = ctx;
    tr_pool *p = s->pool;
    size_t index = s->index;
    unsigned seen = 0;

    free(s);
    for (;;) {
        seen = await_work(p, seen);
        if (atomic_load(&p->is_closing))
            return NULL;
        claim(p, index);
        if (atomic_fetch_sub_explicit(&p->n_busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void raise_generation(tr_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static tr_status start_threads(tr_pool *p)
{
    for (size_t i = 1; i < p->n_threads; i++) {
        start *s = malloc(sizeof *s);
        if (!s)
            return tr_fail(TR_E_MEMORY, "thread pool: no memory");
        *s = (start){ p, i };
        if (pthread_create(&p->thread[i - 1], NULL, thread_main, s) != 0) {
            free(s);
            return tr_fail(TR_E_SYSTEM, "thread pool: thread %zu of %zu can't be started", i + 1,
                           p->n_threads);
        }
        p->n_started++;
    }
    return TR_OK;
}

tr_status tr_pool_new(size_t n_threads, tr_pool **out)
{
    TR_CHECK(n_threads >= 1);
    TR_CHECK(n_threads <= TR_POOL_MAX_THREADS);
    tr_pool *p = calloc(1, sizeof *p);
    if (!p)
        return tr_fail(TR_E_MEMORY, "thread pool: no memory");
    p->n_threads = n_threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->thread = calloc(n_threads, sizeof *p->thread);
    tr_status st = p->thread ? start_threads(p) : tr_fail(TR_E_MEMORY, "thread pool: no memory");
    if (st != TR_OK) {
        tr_pool_free(&p);
        return st;
    }
    *out = p;
    return TR_OK;
}

void tr_pool_free(tr_pool **pool)
{
    tr_pool *p = *pool;

    if (!p)
        return;
    atomic_store(&p->is_closing, true);
    raise_generation(p);
    for (size_t i = 0; i < p->n_started; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p->thread);
    free(p);
    *pool = NULL;
}

size_t tr_pool_threads(const tr_pool *p)
{
    return p->n_threads;
}

static void await_done(tr_pool *p)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&p->n_busy, memory_order_acquire) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->n_busy, memory_order_acquire) != 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

/* Ranges small enough that threads end together, large enough that claiming costs nothing. */
static size_t chunk_of(size_t n, size_t grain, size_t n_threads)
{
    size_t chunk = n / (n_threads * 4);

    chunk = chunk / grain * grain;
    return chunk > grain ? chunk : grain;
}

void tr_pool_for(tr_pool *p, size_t n, size_t grain, tr_pool_fn fn, void *ctx)
{
    TR_CHECK(grain >= 1);
    TR_CHECK(!atomic_exchange(&p->is_running, true));
    if (n > 0 && (p->n_started == 0 || n <= grain)) {
        fn(ctx, 0, 0, n);
    } else if (n > 0) {
        p->fn = fn;
        p->ctx = ctx;
        p->n = n;
        p->chunk = chunk_of(n, grain, p->n_threads);
        atomic_store_explicit(&p->next, 0, memory_order_relaxed);
        atomic_store_explicit(&p->n_busy, p->n_started, memory_order_relaxed);
        raise_generation(p);
        claim(p, 0);
        await_done(p);
    }
    atomic_store(&p->is_running, false);
}
