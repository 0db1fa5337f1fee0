/* pool.c - threads that claim ranges from a shared counter.
 *
 * One word holds the whole state of a job: its generation, whether it is open, and how many
 * threads are inside.  A thread goes in only while the job is open; the caller works too,
 * closes the job when no range is left, and waits for those inside alone.  So a thread that
 * sleeps, or that another process keeps from its core, delays nobody.
 *
 * The lock protects nothing but sleeping and waking.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/pool.h"

#include "base/check.h"
#include "compute/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* Before a thread sleeps it looks at the state for some microseconds, then for some tens of them
 * between offers of its core to others: a layer's loops follow each other closely, and waking a
 * thread costs as much as a small one of them. */
enum { SPINS = 200, YIELDS = 150 };

/* generation << 32 | OPEN | threads inside */
#define OPEN ((uint64_t)1 << 31)

struct tr_pool {
    size_t n_threads;
    pthread_t *thread; /* [n_threads - 1] */
    size_t n_started;

    /* the job, written while it is closed and empty */
    tr_pool_fn fn;
    void *ctx;
    size_t n, chunk;

    atomic_size_t next; /* first row not yet claimed */
    _Atomic uint64_t state;
    atomic_size_t n_asleep;
    atomic_bool is_closing;
    atomic_bool is_running;

    pthread_mutex_t lock;
    pthread_cond_t work, done;
};

typedef struct {
    tr_pool *pool;
    size_t index;
} start;

static uint32_t generation_of(uint64_t state)
{
    return (uint32_t)(state >> 32);
}

static uint64_t inside_of(uint64_t state)
{
    return state & (OPEN - 1);
}

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

/* Go into a job that is open and not the one seen last; false if there is none. */
static bool enter(tr_pool *p, uint32_t *seen)
{
    uint64_t state = atomic_load(&p->state);

    while ((state & OPEN) && generation_of(state) != *seen) {
        if (atomic_compare_exchange_weak(&p->state, &state, state + 1)) {
            *seen = generation_of(state);
            return true;
        }
    }
    return false;
}

static void leave(tr_pool *p)
{
    uint64_t before = atomic_fetch_sub_explicit(&p->state, 1, memory_order_acq_rel);

    if ((before & OPEN) || inside_of(before) > 1)
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->lock);
}

/* n_asleep is raised before the state is looked at, and the caller opens a job before it looks
 * at n_asleep: one of the two sees the other. */
static bool sleep_until_entered(tr_pool *p, uint32_t *seen)
{
    bool is_inside = false;

    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_asleep, 1);
    for (;;) {
        is_inside = enter(p, seen);
        if (is_inside || atomic_load(&p->is_closing))
            break;
        pthread_cond_wait(&p->work, &p->lock);
    }
    atomic_fetch_sub(&p->n_asleep, 1);
    pthread_mutex_unlock(&p->lock);
    return is_inside;
}

/* False when the pool closes. */
static bool await_work(tr_pool *p, uint32_t *seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (enter(p, seen))
            return true;
        relax();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (enter(p, seen))
            return true;
        if (atomic_load(&p->is_closing)) /* on a busy core each yield may last a while */
            return false;
        sched_yield();
    }
    return sleep_until_entered(p, seen);
}

static void *thread_main(void *ctx)
{
    start *s = ctx;
    tr_pool *p = s->pool;
    size_t index = s->index;
    uint32_t seen = 0;

    free(s);
    while (await_work(p, &seen)) {
        claim(p, index);
        leave(p);
    }
    return NULL;
}

static void wake_all(tr_pool *p)
{
    pthread_mutex_lock(&p->lock);
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

/* Signals belong to the threads that wait for something; a pool thread takes none. */
static tr_status start_threads_deaf(tr_pool *p)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    tr_status st = start_threads(p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return st;
}

size_t tr_pool_default_threads(void)
{
    size_t n = tr_cpu_cores();

    return n < TR_POOL_MAX_THREADS ? n : TR_POOL_MAX_THREADS;
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
    tr_status st =
        p->thread ? start_threads_deaf(p) : tr_fail(TR_E_MEMORY, "thread pool: no memory");
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
    wake_all(p);
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
        if (inside_of(atomic_load_explicit(&p->state, memory_order_acquire)) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    while (inside_of(atomic_load_explicit(&p->state, memory_order_acquire)) != 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void job_open(tr_pool *p)
{
    uint32_t generation = generation_of(atomic_load(&p->state)) + 1;

    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store(&p->state, (uint64_t)generation << 32 | OPEN);
    if (atomic_load(&p->n_asleep) > 0)
        wake_all(p);
}

static void job_close(tr_pool *p)
{
    uint64_t before = atomic_fetch_and(&p->state, ~OPEN);

    if (inside_of(before) > 0)
        await_done(p);
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
        job_open(p);
        claim(p, 0);
        job_close(p);
    }
    atomic_store(&p->is_running, false);
}
