/* shm.c - a memfd with rings and arenas.
 *
 * Layout:  head | one desk for each process | the arenas, one for each process
 *
 * Arenas are large and sparse: pages exist once they are written, and messages are used again.
 * Who reserved a message owns it: the receiver only clears the mark in its head.
 *
 * Sleeping: a receiver notes the count of its bell, says that it sleeps, looks at its rings once
 * more, and sleeps while the count is as it was.  A sender puts the place into the ring, raises
 * the count, and wakes who sleeps.  One of the two sees the other.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/shm.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    RING = 64, /* messages on their way in one direction */
    LINE = 64, /* what caches and messages are aligned to */
    SLAB_MIN = 1024,
    CLASSES = 40,
    DESK_SIZE = 8192,
};

/* Address space of an arena; memory only where messages were. */
static const size_t arena_size = (size_t)4 << 30;

/* Where a message is. */
typedef struct {
    uint64_t offset, size; /* of the data, in the region */
} place;

/* One producer, one consumer. */
typedef struct {
    _Alignas(LINE) _Atomic uint32_t put;
    _Alignas(LINE) _Atomic uint32_t got;
    _Alignas(LINE) place at[RING];
} ring;

/* What belongs to one process. */
typedef struct {
    _Alignas(LINE) _Atomic uint32_t bell;
    _Atomic uint32_t is_asleep;
    ring from_coordinator, to_coordinator; /* of a worker */
} desk;

_Static_assert(sizeof(desk) <= DESK_SIZE, "a desk has its pages");

typedef struct {
    uint64_t nonce;
} head;

/* In the region, just before a message's data. */
typedef struct {
    _Alignas(LINE) _Atomic uint32_t is_out; /* not yet free again */
} mark;

/* This process's record of a message. */
typedef struct note {
    tr_msg msg; /* first: a tr_msg of ours is its note */
    tr_shm *shm;
    mark *mark;
    struct note *next;
    uint32_t size_class;
    bool is_mine;
} note;

struct tr_shm {
    uint8_t *base;
    size_t size;
    uint64_t nonce;
    int fd;
    tr_peer self, n_workers;
    size_t max_size;
    size_t used;         /* bytes of this process's arena that have been cut into messages */
    note *free[CLASSES]; /* messages of ours that nobody holds */
    note *sent;          /* of ours, perhaps still read */
    note *spare;         /* records without a message */
    bool *is_dropped;    /* [n_workers + 1] */
    size_t n_out;        /* messages that callers of this process hold */
};

static size_t class_size(uint32_t c)
{
    return (size_t)SLAB_MIN << c;
}

static size_t arenas_at(tr_peer n_workers)
{
    return tr_align_up(LINE + ((size_t)n_workers + 1) * DESK_SIZE, 4096);
}

static size_t region_size(tr_peer n_workers)
{
    return arenas_at(n_workers) + ((size_t)n_workers + 1) * arena_size;
}

static desk *desk_of(const tr_shm *s, tr_peer peer)
{
    return (desk *)(void *)(s->base + LINE + (size_t)peer * DESK_SIZE);
}

static size_t arena_of(const tr_shm *s, tr_peer peer)
{
    return arenas_at(s->n_workers) + (size_t)peer * arena_size;
}

/* ---- opening ----------------------------------------------------------------------------- */

static tr_shm *shm_new(tr_peer self, tr_peer n_workers, size_t max_size)
{
    tr_shm *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->is_dropped = calloc((size_t)n_workers + 1, sizeof *s->is_dropped);
    if (!s->is_dropped) {
        free(s);
        return NULL;
    }
    s->fd = -1;
    s->self = self;
    s->n_workers = n_workers;
    s->size = region_size(n_workers);
    s->max_size = max_size;
    return s;
}

/* False where the address space or the system has no room. */
static bool region_map(tr_shm *s)
{
    void *base = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->fd, 0);

    if (base == MAP_FAILED)
        return false;
    s->base = base;
    return true;
}

/* A limit on the size of files would end this process with a signal. */
static bool size_is_allowed(size_t size)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
           (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= size);
}

tr_status tr_shm_create(tr_peer n_workers, size_t max_size, tr_shm **out)
{
    tr_shm *s = shm_new(0, n_workers, max_size);

    if (!s)
        return TR_E_UNSUPPORTED;
    s->fd = memfd_create("troupe-messages", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->fd < 0 || !size_is_allowed(s->size) || ftruncate(s->fd, (off_t)s->size) != 0 ||
        fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        !region_map(s) || getrandom(&s->nonce, sizeof s->nonce, 0) != (ssize_t)sizeof s->nonce) {
        tr_shm_close(&s);
        return TR_E_UNSUPPORTED;
    }
    ((head *)(void *)s->base)->nonce = s->nonce;
    *out = s;
    return TR_OK;
}

tr_shm_ticket tr_shm_get_ticket(const tr_shm *s)
{
    return (tr_shm_ticket){ .pid = (int32_t)getpid(),
                            .fd = s->fd,
                            .n_workers = s->n_workers,
                            .size = s->size,
                            .nonce = s->nonce };
}

/* Another process of the same number, in another container, has another file there or none. */
static bool region_is_it(const tr_shm *s, const tr_shm_ticket *t)
{
    struct stat file;
    int seals = fcntl(s->fd, F_GET_SEALS);

    return fstat(s->fd, &file) == 0 && (uint64_t)file.st_size == t->size && seals >= 0 &&
           (seals & F_SEAL_SHRINK);
}

tr_status tr_shm_join(const tr_shm_ticket *t, tr_peer self, size_t max_size, tr_shm **out)
{
    char path[64];

    if (t->fd < 0 || self < 1 || self > t->n_workers || t->size != region_size(t->n_workers))
        return TR_E_UNSUPPORTED;
    tr_shm *s = shm_new(self, t->n_workers, max_size);
    if (!s)
        return TR_E_UNSUPPORTED;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)t->pid, (int)t->fd);
    s->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0 || !region_is_it(s, t) || !region_map(s) ||
        ((const head *)(const void *)s->base)->nonce != t->nonce) {
        tr_shm_close(&s);
        return TR_E_UNSUPPORTED;
    }
    *out = s;
    return TR_OK;
}

void tr_shm_open_done(tr_shm *s)
{
    close(s->fd);
    s->fd = -1;
}

static void notes_free(note *n)
{
    while (n) {
        note *next = n->next;
        free(n);
        n = next;
    }
}

void tr_shm_close(tr_shm **shm)
{
    tr_shm *s = *shm;

    if (!s)
        return;
    TR_CHECK(s->n_out == 0);
    if (s->base)
        munmap(s->base, s->size);
    if (s->fd >= 0)
        close(s->fd);
    for (size_t c = 0; c < CLASSES; c++)
        notes_free(s->free[c]);
    notes_free(s->sent);
    notes_free(s->spare);
    free(s->is_dropped);
    free(s);
    *shm = NULL;
}

/* ---- messages ---------------------------------------------------------------------------- */

static void message_free(tr_msg *m);

static const struct tr_msg_ops msg_ops = { message_free };

static void note_push(note **list, note *n)
{
    n->next = *list;
    *list = n;
}

static void message_free(tr_msg *m)
{
    note *n = (note *)(void *)m;
    tr_shm *s = n->shm;

    s->n_out--;
    if (n->is_mine) {
        note_push(&s->free[n->size_class], n);
        return;
    }
    atomic_store_explicit(&n->mark->is_out, 0, memory_order_release);
    note_push(&s->spare, n);
}

static note *note_new(tr_shm *s)
{
    note *n = s->spare;

    if (n)
        s->spare = n->next;
    else
        n = calloc(1, sizeof *n);
    if (n)
        *n = (note){ .msg.ops = &msg_ops, .shm = s };
    return n;
}

/* Take back what receivers have freed. */
static void sent_collect(tr_shm *s)
{
    note **at = &s->sent;

    while (*at) {
        note *n = *at;
        if (atomic_load_explicit(&n->mark->is_out, memory_order_acquire)) {
            at = &n->next;
            continue;
        }
        *at = n->next;
        note_push(&s->free[n->size_class], n);
    }
}

/* A new message at the end of the arena's used part. */
static note *slab_cut(tr_shm *s, uint32_t c)
{
    size_t need = sizeof(mark) + class_size(c);

    if (arena_size - s->used < need)
        return NULL;
    note *n = note_new(s);
    if (!n)
        return NULL;
    uint8_t *at = s->base + arena_of(s, s->self) + s->used;
    n->mark = (mark *)(void *)at;
    n->msg.data = at + sizeof(mark);
    n->size_class = c;
    n->is_mine = true;
    s->used += need;
    return n;
}

tr_status tr_shm_reserve(tr_shm *s, size_t size, tr_msg **out)
{
    uint32_t c = 0;

    while (class_size(c) < size)
        c++;
    TR_CHECK(c < CLASSES);
    if (!s->free[c])
        sent_collect(s);
    note *n = s->free[c];
    if (n)
        s->free[c] = n->next;
    else
        n = slab_cut(s, c);
    if (!n)
        return TR_E_BUSY;
    n->next = NULL;
    n->msg.size = size;
    s->n_out++;
    *out = &n->msg;
    return TR_OK;
}

bool tr_shm_owns(const tr_shm *s, const tr_msg *m)
{
    return m->ops == &msg_ops && ((const note *)(const void *)m)->shm == s &&
           ((const note *)(const void *)m)->is_mine;
}

/* ---- rings ------------------------------------------------------------------------------- */

static long futex(_Atomic uint32_t *word, int operation, uint32_t value,
                  const struct timespec *timeout)
{
    return syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

static void ring_bell(desk *d)
{
    atomic_fetch_add(&d->bell, 1);
    if (atomic_load(&d->is_asleep))
        futex(&d->bell, FUTEX_WAKE, 1, NULL);
}

/* The ring that this process puts into for, or takes from, a peer. */
static ring *ring_to(const tr_shm *s, tr_peer peer)
{
    return s->self == 0 ? &desk_of(s, peer)->from_coordinator
                        : &desk_of(s, s->self)->to_coordinator;
}

static ring *ring_from(const tr_shm *s, tr_peer peer)
{
    return s->self == 0 ? &desk_of(s, peer)->to_coordinator
                        : &desk_of(s, s->self)->from_coordinator;
}

tr_status tr_shm_send(tr_shm *s, tr_peer to, tr_msg **m)
{
    note *n = (note *)(void *)*m;
    ring *r = ring_to(s, to);
    uint32_t put = atomic_load_explicit(&r->put, memory_order_relaxed);

    TR_CHECK(tr_shm_owns(s, *m));
    TR_CHECK(s->self == 0 || to == 0);
    if (put - atomic_load_explicit(&r->got, memory_order_acquire) >= RING)
        return TR_E_BUSY;
    atomic_store_explicit(&n->mark->is_out, 1, memory_order_relaxed);
    r->at[put % RING] = (place){ (uint64_t)(n->msg.data - s->base), n->msg.size };
    atomic_store_explicit(&r->put, put + 1, memory_order_release);
    ring_bell(desk_of(s, to));
    s->n_out--;
    note_push(&s->sent, n);
    *m = NULL;
    return TR_OK;
}

/* A place inside the sender's arena, where its messages can be. */
static bool place_is_sound(const tr_shm *s, tr_peer from, place p)
{
    size_t begin = arena_of(s, from) + sizeof(mark);
    size_t end = arena_of(s, from) + arena_size;

    return p.size >= 1 && p.size <= s->max_size && p.offset >= begin && p.offset < end &&
           p.offset % LINE == 0 && p.size <= end - p.offset;
}

tr_status tr_shm_recv(tr_shm *s, tr_peer from, size_t *size, tr_msg **out)
{
    ring *r = ring_from(s, from);
    uint32_t got = atomic_load_explicit(&r->got, memory_order_relaxed);

    if (atomic_load_explicit(&r->put, memory_order_acquire) == got)
        return TR_E_DEADLINE;
    place p = r->at[got % RING]; /* a copy: the peer can't change it after the check */
    *size = p.size;
    if (!place_is_sound(s, from, p))
        return TR_E_PROTOCOL;
    note *n = note_new(s);
    if (!n)
        return TR_E_BUSY;
    n->msg.data = s->base + p.offset;
    n->msg.size = p.size;
    n->mark = (mark *)(void *)(n->msg.data - sizeof(mark));
    atomic_store_explicit(&r->got, got + 1, memory_order_release);
    s->n_out++;
    *out = &n->msg;
    return TR_OK;
}

void tr_shm_drop(tr_shm *s, tr_peer peer)
{
    s->is_dropped[peer] = true;
}

/* Something is there to be taken. */
static bool any_ring_has(const tr_shm *s)
{
    tr_peer first = s->self == 0 ? 1 : 0;
    tr_peer last = s->self == 0 ? s->n_workers : 0;

    for (tr_peer p = first; p <= last; p++) {
        const ring *r = ring_from(s, p);
        if (!s->is_dropped[p] && atomic_load_explicit(&r->put, memory_order_acquire) !=
                                     atomic_load_explicit(&r->got, memory_order_relaxed))
            return true;
    }
    return false;
}

void tr_shm_wait(tr_shm *s, tr_time timeout)
{
    desk *own = desk_of(s, s->self);
    struct timespec t = { .tv_sec = (time_t)(timeout / TR_SECOND),
                          .tv_nsec = (long)(timeout % TR_SECOND) };

    if (timeout <= 0)
        return;
    uint32_t bell = atomic_load(&own->bell);
    atomic_store(&own->is_asleep, 1);
    if (!any_ring_has(s))
        futex(&own->bell, FUTEX_WAIT, bell, &t);
    atomic_store(&own->is_asleep, 0);
}
