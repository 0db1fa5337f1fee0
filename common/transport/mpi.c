/* mpi.c - messages between ranks, by non-blocking calls only.
 *
 * A rank that dies gives no error in most versions of MPI: requests to it stay pending for
 * ever.  So nothing here ever waits for one request: each poll tests all pending sends and
 * receives, probes for a new message, and goes back to the caller's deadline.
 *
 * What MPI still holds of a lost peer is forgotten but never freed nor used again, since MPI may
 * read or write it at any time; and nothing is sent to such a peer any more.
 *
 * Messages of one peer may complete out of order (a short one overtakes a long one that is
 * still being pulled over); each peer's queue hands them on in the order of arrival.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "transport/mpi.h"
#include "base/check.h"
#include "base/log.h"
#include "transport/msg_pool.h"
#include "transport/shm.h"
#include "transport/start_watch.h"

#include <mpi.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

enum {
    TAG = 1,
    SENDS_PER_PEER = 32,   /* incomplete sends to one peer */
    RECEIVES_MAX = 1024,   /* incomplete receives of all peers */
    SPIN_POLLS = 40,       /* polls before the first yield */
    SLEEP_SHARE = 8,       /* sleep this part of the time waited so far */
    TIMER_SLACK_NS = 1000, /* the default of 50 us would dwarf short sleeps */
};

/* A wait yields up to here, then sleeps. */
static const tr_time YIELD_UNTIL = 40 * TR_US;
/* Longest sleep: an idle rank still wakes in less than 1 ms. */
static const tr_time SLEEP_MAX = 900 * TR_US;
/* Longest sleep where every peer rings. */
static const tr_time NEAR_SLEEP_MAX = TR_SECOND;
static const tr_time CLOSE_PATIENCE = 2 * TR_SECOND;

/* Requests and their buffers, in order of their start. */
typedef struct {
    size_t n, room;
    MPI_Request *request;
    tr_slab **slab;
} flight;

typedef enum {
    PEER_LIVE = 0,
    PEER_FAILED, /* MPI or the peer's behaviour says so; recv has not told yet */
    PEER_LOST,   /* dropped, or told */
} peer_state;

typedef struct {
    tr_slab_list incoming; /* matched, in order; the head is not complete */
    uint32_t n_sends;      /* incomplete */
    peer_state state;
    bool is_near; /* on this host: through shared memory */
} peer_link;

typedef struct {
    tr_transport base;
    size_t max_size;
    tr_msg_pool pool;
    tr_shm *shm;     /* NULL if no peer is near */
    size_t n_far;    /* peers of this end that are reached by MPI */
    tr_peer next;    /* near peer to be asked first */
    peer_link *peer; /* [n_peers + 1] */
    flight sends, receives;
    int *done; /* [largest room] results of a test */
    MPI_Status *statuses;
    tr_slab_list ready; /* complete messages, next to be received first */
    uint32_t n_idle;    /* vain polls since the last message in or out */
    tr_time idle_since; /* the first of them */
    size_t n_failed;    /* peers that are PEER_FAILED */
    bool probe_each;    /* any-source probes fail: see probe */
    bool is_abandoned;
} end;

static void mpi_msg_free(tr_msg *m)
{
    tr_msg_pool_put(tr_slab_of(m));
}

static const struct tr_msg_ops msg_ops = { mpi_msg_free };

/* The peer is lost by what MPI or the peer did; recv will tell. */
static void peer_fail(end *e, tr_peer peer, const char *why)
{
    if (e->peer[peer].state != PEER_LIVE)
        return;
    tr_fail(TR_E_PEER_LOST, "mpi: peer %u is lost: %s", peer, why);
    e->peer[peer].state = PEER_FAILED;
    e->n_failed++;
}

static void peer_fail_by_code(end *e, tr_peer peer, int code)
{
    char why[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;

    MPI_Error_string(code, why, &length);
    peer_fail(e, peer, why);
}

static void peer_fail_by_size(end *e, tr_peer peer, long long size)
{
    char why[80];

    snprintf(why, sizeof why, "message of %lld bytes, 1..%zu are allowed", size, e->max_size);
    peer_fail(e, peer, why);
}

static void flight_add(flight *f, MPI_Request request, tr_slab *slab)
{
    TR_CHECK(f->n < f->room);
    f->request[f->n] = request;
    f->slab[f->n] = slab;
    f->n++;
}

/* Remove entries whose slab has been taken out (NULL), keeping the order. */
static void flight_compact(flight *f)
{
    size_t kept = 0;

    for (size_t i = 0; i < f->n; i++) {
        if (!f->slab[i])
            continue;
        f->request[kept] = f->request[i];
        f->slab[kept] = f->slab[i];
        kept++;
    }
    f->n = kept;
}

/* Forget peer's entries: MPI goes on with them, or not. */
static void flight_abandon(flight *f, tr_peer peer)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->slab[i]->peer == peer)
            f->slab[i] = NULL;
    flight_compact(f);
}

typedef void (*on_complete)(end *e, tr_slab *slab);

/* Test all of f; finish takes the slab of each completed request.  A failed one fails its
 * peer. */
static void flight_test(end *e, flight *f, on_complete finish)
{
    int n_done = 0;

    if (f->n == 0)
        return;
    int rc = MPI_Testsome((int)f->n, f->request, &n_done, e->done, e->statuses);
    if (n_done == MPI_UNDEFINED || n_done == 0)
        return;
    for (int i = 0; i < n_done; i++) {
        tr_slab *slab = f->slab[e->done[i]];
        int code = rc == MPI_ERR_IN_STATUS ? e->statuses[i].MPI_ERROR : rc;

        f->slab[e->done[i]] = NULL;
        if (code == MPI_SUCCESS)
            finish(e, slab);
        else
            peer_fail_by_code(e, slab->peer, code);
    }
    flight_compact(f);
    e->n_idle = 0;
}

static void send_done(end *e, tr_slab *slab)
{
    e->peer[slab->peer].n_sends--;
    tr_msg_pool_put(slab);
}

/* Hand on what is complete and has nothing incomplete before it. */
static void receive_done(end *e, tr_slab *slab)
{
    tr_slab_list *incoming = &e->peer[slab->peer].incoming;

    slab->has_come = true;
    while (incoming->head && incoming->head->has_come)
        tr_slab_append(&e->ready, tr_slab_pop(incoming));
}

/* A message from a peer that is no longer listened to: let MPI have the rest of it. */
static void receive_unwanted(tr_slab *slab, MPI_Message *message)
{
    MPI_Request request;
    int done = 0;

    if (MPI_Imrecv(slab->msg.data, (int)slab->msg.size, MPI_BYTE, message, &request) ==
            MPI_SUCCESS &&
        MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done)
        tr_msg_pool_put(slab);
}

/* Start to receive a message that a probe has matched. */
static void receive_begin(end *e, tr_peer from, MPI_Message *message, int size)
{
    MPI_Request request;
    tr_slab *slab = NULL;
    int done = 0;

    if (size < 1 || (size_t)size > e->max_size) {
        peer_fail_by_size(e, from, size);
        return; /* the matched message stays with MPI */
    }
    if (tr_msg_pool_take(&e->pool, (size_t)size, &slab) != TR_OK) {
        peer_fail(e, from, "no memory for its message");
        return;
    }
    slab->peer = from;
    if (e->peer[from].state != PEER_LIVE) {
        receive_unwanted(slab, message);
        return;
    }
    int rc = MPI_Imrecv(slab->msg.data, size, MPI_BYTE, message, &request);
    if (rc == MPI_SUCCESS)
        rc = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (rc != MPI_SUCCESS) {
        peer_fail_by_code(e, from, rc);
        return;
    }
    tr_slab_append(&e->peer[from].incoming, slab);
    if (done)
        receive_done(e, slab);
    else
        flight_add(&e->receives, request, slab);
    e->n_idle = 0;
}

/* Look for one new message of source (a rank or MPI_ANY_SOURCE).  Returns MPI's code. */
static int probe_source(end *e, int source)
{
    MPI_Message message;
    MPI_Status status;
    int found = 0, size = 0;

    int rc = MPI_Improbe(source, TAG, MPI_COMM_WORLD, &found, &message, &status);
    if (rc != MPI_SUCCESS || !found)
        return rc;
    MPI_Get_count(&status, MPI_BYTE, &size);
    receive_begin(e, (tr_peer)status.MPI_SOURCE, &message, size);
    return MPI_SUCCESS;
}

/* A worker listens to the coordinator only.  The coordinator asks for any source; where MPI
 * reports failures, such a probe fails from the first dead rank on, and each peer must be
 * asked by itself (which also says who died). */
static void probe(end *e)
{
    if (e->receives.n == e->receives.room)
        return;
    if (e->base.self != 0) {
        int rc = probe_source(e, 0);
        if (rc != MPI_SUCCESS)
            peer_fail_by_code(e, 0, rc);
        return;
    }
    if (!e->probe_each && probe_source(e, MPI_ANY_SOURCE) != MPI_SUCCESS)
        e->probe_each = true;
    if (!e->probe_each)
        return;
    for (tr_peer p = 1; p <= e->base.n_peers && e->receives.n < e->receives.room; p++) {
        if (e->peer[p].state != PEER_LIVE)
            continue;
        int rc = probe_source(e, (int)p);
        if (rc != MPI_SUCCESS)
            peer_fail_by_code(e, p, rc);
    }
}

static void poll_once(end *e)
{
    flight_test(e, &e->sends, send_done);
    flight_test(e, &e->receives, receive_done);
    probe(e);
}

static void sleep_for(end *e, tr_time d)
{
    if (e->shm)
        tr_shm_wait(e->shm, d);
    else
        tr_sleep(d);
}

/* Nothing to do until the deadline: burn, yield, then sleep, the longer the more has been
 * waited.  A sleep is at most an eighth of the wait so far, so it delays what comes by no more
 * than that.  The wait goes on over several calls of recv until a message moves.  Near peers ring;
 * where all are near, a sleep needs no end before the deadline. */
static void wait_a_little(end *e, tr_time now, tr_time deadline)
{
    if (e->n_idle == 0)
        e->idle_since = now;
    if (e->n_idle < SPIN_POLLS) {
        e->n_idle++;
        return;
    }
    tr_time waited = now - e->idle_since;
    if (waited < YIELD_UNTIL) {
        sched_yield();
        return;
    }
    if (e->n_far == 0) {
        sleep_for(e, deadline - now < NEAR_SLEEP_MAX ? deadline - now : NEAR_SLEEP_MAX);
        return;
    }
    tr_time d = waited / SLEEP_SHARE;
    if (d > SLEEP_MAX)
        d = SLEEP_MAX;
    if (d > deadline - now)
        d = deadline - now;
    sleep_for(e, d);
}

static tr_status mpi_reserve(tr_transport *t, tr_peer to, size_t size, tr_msg **out)
{
    end *e = (end *)t;
    tr_slab *slab = NULL;

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(size >= 1);
    TR_CHECK(size <= e->max_size);
    if (e->peer[to].is_near && tr_shm_reserve(e->shm, size, out) == TR_OK)
        return TR_OK;
    tr_status st = tr_msg_pool_take(&e->pool, size, &slab);
    if (st == TR_OK)
        *out = &slab->msg;
    return st;
}

/* The message was reserved for a peer that is reached another way: move it. */
static tr_status change_memory(end *e, tr_peer to, tr_msg **m)
{
    bool is_shared = e->shm && tr_shm_owns(e->shm, *m);
    tr_msg *other = NULL;
    tr_status st = TR_OK;

    if (is_shared == e->peer[to].is_near)
        return TR_OK;
    if (is_shared) {
        tr_slab *slab = NULL;
        st = tr_msg_pool_take(&e->pool, (*m)->size, &slab);
        other = st == TR_OK ? &slab->msg : NULL;
    } else {
        st = tr_shm_reserve(e->shm, (*m)->size, &other);
    }
    if (st != TR_OK)
        return st;
    memcpy(other->data, (*m)->data, (*m)->size);
    tr_msg_free(m);
    *m = other;
    return TR_OK;
}

static void sent(end *e, size_t size)
{
    e->base.stats.messages_sent++;
    e->base.stats.bytes_sent += size;
    e->n_idle = 0;
}

static tr_status near_send(end *e, tr_peer to, tr_msg **m)
{
    size_t size = (*m)->size;

    if (e->peer[to].state != PEER_LIVE)
        return TR_E_PEER_LOST;
    tr_status st = tr_shm_send(e->shm, to, m);
    if (st == TR_OK)
        sent(e, size);
    return st;
}

/* A lost peer gives no line here: the reason has been said. */
static tr_status mpi_send(tr_transport *t, tr_peer to, tr_msg **m)
{
    end *e = (end *)t;
    MPI_Request request;
    int done = 0;

    TR_CHECK(to <= t->n_peers);
    TR_CHECK(to != t->self);
    tr_status st = change_memory(e, to, m);
    if (st != TR_OK)
        return st;
    peer_link *link = &e->peer[to];
    if (link->is_near)
        return near_send(e, to, m);
    tr_slab *slab = tr_slab_of(*m);
    if (link->state == PEER_LIVE && link->n_sends == SENDS_PER_PEER)
        flight_test(e, &e->sends, send_done);
    if (link->state != PEER_LIVE)
        return TR_E_PEER_LOST;
    if (link->n_sends == SENDS_PER_PEER)
        return TR_E_BUSY;

    size_t size = slab->msg.size;
    int rc = MPI_Isend(slab->msg.data, (int)size, MPI_BYTE, (int)to, TAG, MPI_COMM_WORLD, &request);
    if (rc != MPI_SUCCESS) {
        peer_fail_by_code(e, to, rc);
        return TR_E_PEER_LOST;
    }
    *m = NULL;
    slab->peer = to;
    link->n_sends++;
    rc = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (rc != MPI_SUCCESS)
        peer_fail_by_code(e, to, rc);
    else if (done)
        send_done(e, slab);
    else
        flight_add(&e->sends, request, slab);
    sent(e, size);
    return TR_OK;
}

/* End all traffic with peer. */
static void peer_end(end *e, tr_peer peer)
{
    peer_link *link = &e->peer[peer];
    tr_slab_list gone = { NULL, NULL };
    tr_slab *slab;

    if (link->state == PEER_FAILED)
        e->n_failed--;
    link->state = PEER_LOST;
    if (link->is_near)
        tr_shm_drop(e->shm, peer);

    tr_slab_split(&e->ready, peer, &gone);
    while ((slab = tr_slab_pop(&gone)))
        tr_msg_pool_put(slab);
    while ((slab = tr_slab_pop(&link->incoming)))
        if (slab->has_come)
            tr_msg_pool_put(slab);
    flight_abandon(&e->receives, peer);
    flight_abandon(&e->sends, peer);
}

/* The next peer that failed and has not been told of. */
static tr_peer tell_failed(end *e)
{
    tr_peer peer = 0;

    while (e->peer[peer].state != PEER_FAILED)
        peer++;
    peer_end(e, peer);
    return peer;
}

/* A message of one near peer, if there is one. */
static bool near_recv(end *e, tr_peer from, tr_msg **out)
{
    size_t size = 0;

    if (!e->peer[from].is_near || e->peer[from].state != PEER_LIVE)
        return false;
    tr_status st = tr_shm_recv(e->shm, from, &size, out);
    if (st == TR_E_PROTOCOL)
        peer_fail_by_size(e, from, (long long)size);
    return st == TR_OK;
}

/* Near peers in turn, so that none waits for the others. */
static bool near_poll(end *e, tr_peer *from, tr_msg **out)
{
    tr_peer n = e->base.n_peers + 1;

    if (!e->shm)
        return false;
    if (e->base.self != 0) {
        *from = 0;
        return near_recv(e, 0, out);
    }
    for (tr_peer i = 0; i < n; i++) {
        tr_peer p = (e->next + i) % n;
        if (near_recv(e, p, out)) {
            *from = p;
            e->next = p + 1;
            return true;
        }
    }
    return false;
}

static tr_status received(end *e, tr_msg *m, tr_msg **out)
{
    e->base.stats.messages_received++;
    e->base.stats.bytes_received += m->size;
    *out = m;
    return TR_OK;
}

static tr_status mpi_recv(tr_transport *t, tr_time deadline, tr_peer *from, tr_msg **out)
{
    end *e = (end *)t;
    tr_msg *m = NULL;

    while (!e->ready.head) {
        if (near_poll(e, from, &m)) {
            e->n_idle = 0;
            return received(e, m, out);
        }
        if (e->n_far > 0)
            poll_once(e);
        if (e->ready.head)
            break;
        if (e->n_failed > 0) {
            *from = tell_failed(e);
            return TR_E_PEER_LOST;
        }
        tr_time now = tr_now();
        if (now >= deadline)
            return TR_E_DEADLINE;
        wait_a_little(e, now, deadline);
    }
    tr_slab *slab = tr_slab_pop(&e->ready);
    *from = slab->peer;
    return received(e, &slab->msg, out);
}

static void mpi_drop(tr_transport *t, tr_peer peer)
{
    TR_CHECK(peer <= t->n_peers);
    TR_CHECK(peer != t->self);
    peer_end((end *)t, peer);
}

static void *finalize(void *ctx)
{
    (void)ctx;
    MPI_Finalize();
    return NULL;
}

/* MPI_Finalize waits for all ranks, also for one that hangs.  So another thread waits for it
 * (this one makes no MPI call meanwhile), and only for a while. */
static bool finalize_in_time(void)
{
    pthread_t thread;
    struct timespec until;

    if (pthread_create(&thread, NULL, finalize, NULL) != 0)
        return false;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(CLOSE_PATIENCE / TR_SECOND);
    if (pthread_timedjoin_np(thread, NULL, &until) == 0)
        return true;
    pthread_detach(thread);
    tr_log(TR_LOG_WARN, "mpi: MPI_Finalize does not return, leaving without it");
    return false;
}

/* Give what was sent to living peers a moment to leave. */
static void flush_sends(end *e)
{
    tr_time deadline = tr_deadline_after(tr_now(), CLOSE_PATIENCE / 2);

    while (e->sends.n > 0 && tr_now() < deadline) {
        poll_once(e);
        wait_a_little(e, tr_now(), deadline);
    }
}

static void discard(tr_slab_list *list)
{
    tr_slab *slab;

    while ((slab = tr_slab_pop(list)))
        tr_msg_pool_put(slab);
}

static void end_free(end *e)
{
    free(e->peer);
    free(e->sends.request);
    free(e->sends.slab);
    free(e->receives.request);
    free(e->receives.slab);
    free(e->done);
    free(e->statuses);
    free(e);
}

static void mpi_close(tr_transport *t)
{
    end *e = (end *)t;

    flush_sends(e);
    if (e->sends.n > 0 || e->receives.n > 0)
        e->is_abandoned = true;
    for (tr_peer p = 0; p <= t->n_peers; p++)
        if (e->peer[p].state != PEER_LIVE)
            e->is_abandoned = true;
    if (e->is_abandoned || !finalize_in_time())
        return; /* MPI may still use every buffer: they stay until _exit */

    discard(&e->ready);
    tr_msg_pool_fini(&e->pool);
    tr_shm_close(&e->shm);
    end_free(e);
}

static const tr_transport_ops mpi_ops = { "mpi",    mpi_reserve, mpi_send,
                                          mpi_recv, mpi_drop,    mpi_close };

void tr_mpi_abandon(tr_transport *t)
{
    TR_CHECK(t->ops == &mpi_ops);
    ((end *)t)->is_abandoned = true;
}

/* The number at the start of an environment variable's value; 0 if there is none. */
static uint32_t env_count(const char *name)
{
    const char *value = getenv(name);

    if (!value || *value < '0' || *value > '9')
        return 0;
    errno = 0;
    unsigned long n = strtoul(value, NULL, 10);
    return errno != 0 || n > UINT32_MAX ? 0 : (uint32_t)n;
}

bool tr_mpi_launched(uint32_t *n_ranks, uint32_t *local_ranks)
{
    uint32_t n = env_count("OMPI_COMM_WORLD_SIZE");
    uint32_t local = env_count("OMPI_COMM_WORLD_LOCAL_SIZE");

    if (n == 0) { /* MPICH and its kin */
        n = env_count("PMI_SIZE");
        local = env_count("MPI_LOCALNRANKS");
    }
    /* srun: the SLURM_ variables alone also stand in a batch script, which is no rank. */
    if (n == 0 && getenv("PMIX_RANK")) {
        n = env_count("SLURM_STEP_NUM_TASKS");
        local = env_count("SLURM_STEP_TASKS_PER_NODE"); /* "4(x2),3": of the first host */
    }
    if (n == 0)
        return false;
    *n_ranks = n;
    *local_ranks = local >= 1 && local <= n ? local : n;
    return true;
}

static bool flight_init(flight *f, size_t room)
{
    f->room = room;
    f->request = calloc(room, sizeof(MPI_Request));
    f->slab = calloc(room, sizeof(tr_slab *));
    return f->request && f->slab;
}

/* MPI runs; make the books. */
static tr_status end_new(size_t max_size, int rank, int n_ranks, end **out)
{
    size_t n_peers = (size_t)n_ranks - 1;
    size_t n_links = rank == 0 ? n_peers : 1;
    size_t n_sends = SENDS_PER_PEER * (n_links > 0 ? n_links : 1);
    size_t room = n_sends > RECEIVES_MAX ? n_sends : RECEIVES_MAX;
    end *e = calloc(1, sizeof *e);

    if (!e)
        return tr_fail(TR_E_MEMORY, "mpi: no memory for %d ranks", n_ranks);
    e->peer = calloc((size_t)n_ranks, sizeof *e->peer);
    e->done = calloc(room, sizeof *e->done);
    e->statuses = calloc(room, sizeof *e->statuses);
    bool has_flights = flight_init(&e->sends, n_sends);
    has_flights = flight_init(&e->receives, RECEIVES_MAX) && has_flights;
    if (!e->peer || !e->done || !e->statuses || !has_flights) {
        end_free(e);
        return tr_fail(TR_E_MEMORY, "mpi: no memory for %d ranks", n_ranks);
    }
    e->base = (tr_transport){ .ops = &mpi_ops, .self = (tr_peer)rank, .n_peers = (tr_peer)n_peers };
    e->max_size = max_size;
    tr_msg_pool_init(&e->pool, &msg_ops, e);
    *out = e;
    return TR_OK;
}

/* ---- peers on this host ------------------------------------------------------------------ */

/* Tell rank 0 of the host who has joined. */
static void near_collect(end *e, MPI_Comm host)
{
    int mine = e->peer[0].is_near ? (int)e->base.self : 0, size = 1;

    MPI_Comm_size(host, &size);
    int *joined = calloc((size_t)size, sizeof *joined);
    TR_CHECK(joined != NULL);
    MPI_Gather(&mine, 1, MPI_INT, joined, 1, MPI_INT, 0, host);
    for (int i = 0; i < size && e->base.self == 0; i++)
        if (joined[i] > 0 && (tr_peer)joined[i] <= e->base.n_peers)
            e->peer[joined[i]].is_near = true;
    free(joined);
    size_t n_near = 0;
    for (tr_peer p = 0; p <= e->base.n_peers; p++)
        n_near += e->peer[p].is_near;
    e->n_far = (e->base.self == 0 ? e->base.n_peers : 1) - n_near;
    if (n_near == 0)
        tr_shm_close(&e->shm);
}

/* Ranks of the coordinator's host share memory.  All calls here are collective: they are made while
 * the start is watched.  A rank that can't join is reached by MPI, as those of other hosts are. */
static tr_status near_join(end *e, bool is_wanted)
{
    MPI_Comm host = MPI_COMM_NULL;
    tr_shm_ticket ticket = { .fd = -1 };
    int first = e->base.self == 0 ? 0 : 1, has_first = 1, rank = 0;

    if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, (int)e->base.self, MPI_INFO_NULL,
                            &host) != MPI_SUCCESS)
        return tr_fail(TR_E_SYSTEM, "mpi: MPI_Comm_split_type failed");
    MPI_Comm_rank(host, &rank);
    if (e->base.self == 0 && is_wanted && e->base.n_peers > 0 &&
        tr_shm_create(e->base.n_peers, e->max_size, &e->shm) == TR_OK)
        ticket = tr_shm_get_ticket(e->shm);
    MPI_Allreduce(&first, &has_first, 1, MPI_INT, MPI_MIN, host); /* 0: the coordinator is here */
    MPI_Bcast(&ticket, (int)sizeof ticket, MPI_BYTE, 0, host);
    if (has_first == 0 && rank > 0 &&
        tr_shm_join(&ticket, e->base.self, e->max_size, &e->shm) == TR_OK)
        e->peer[0].is_near = true;
    near_collect(e, host);
    MPI_Comm_free(&host);
    if (e->shm)
        tr_shm_open_done(e->shm);
    return TR_OK;
}

/* ---- start-up ---------------------------------------------------------------------------- */

/* All that waits for every rank. */
static tr_status ranks_meet(size_t max_size, bool share_memory, end **out)
{
    int provided = MPI_THREAD_SINGLE, rank = 0, n_ranks = 0;

    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS)
        return tr_fail(TR_E_SYSTEM, "mpi: MPI_Init_thread failed");
    if (provided < MPI_THREAD_SERIALIZED) /* one thread calls at a time; close has one of its own */
        return tr_fail(TR_E_SYSTEM, "mpi: this MPI can't be used beside other threads");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
    prctl(PR_SET_TIMERSLACK, (unsigned long)TIMER_SLACK_NS, 0UL, 0UL, 0UL);
    tr_status st = end_new(max_size, rank, n_ranks, out);
    return st == TR_OK ? near_join(*out, share_memory) : st;
}

tr_status tr_mpi_open(size_t max_size, tr_time init_timeout, void (*give_up)(void),
                      tr_transport **out)
{
    int is_initialized = 0;
    uint32_t n, local;
    end *e = NULL;

    const char *shared = getenv("TROUPE_SHARED_MEMORY");
    bool share_memory = !shared || strcmp(shared, "0") != 0;

    TR_CHECK(MPI_Initialized(&is_initialized) == MPI_SUCCESS);
    TR_CHECK(!is_initialized);
    if (max_size < 1 || max_size > INT_MAX)
        return tr_fail(TR_E_CONFIG, "mpi: messages of up to %zu bytes, MPI counts to %d", max_size,
                       INT_MAX);
    if (!tr_mpi_launched(&n, &local))
        return tr_fail(TR_E_USAGE, "mpi: this process was not started by mpirun or srun");
    tr_start_watch watch = { .n_ranks = n, .timeout = init_timeout, .give_up = give_up };
    tr_status st = tr_start_watch_begin(&watch);
    if (st != TR_OK)
        return st;
    st = ranks_meet(max_size, share_memory, &e);
    tr_start_watch_end(&watch);
    if (st != TR_OK)
        return st;
    *out = &e->base;
    return TR_OK;
}
