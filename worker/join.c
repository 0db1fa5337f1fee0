/* join.c - from an invitation to a place in the cluster.
 * SPDX-License-Identifier: Apache-2.0 */
#include "worker/join.h"

#include "base/host.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "compute/cpu.h"
#include "compute/kernels.h"
#include "proto/frame.h"
#include "transport/link.h"
#include "transport/zmq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The coordinator reads its model and starts up first.  After that it may compute a long step
 * without a word: its end shows at once on the connection, silence only says that its host or
 * the network is gone. */
static const tr_time invite_timeout = 120 * TR_SECOND;
static const tr_time wait_period = 20 * TR_MS;
static const tr_time look_period = 10 * TR_MS;
static const tr_time progress_period = 100 * TR_MS;

enum { SILENCES = 15 }; /* of a worker's, that the coordinator may be silent */

/* Assignments that nobody has taken, oldest first. */
typedef struct pending {
    tr_assignment assignment;
    struct pending *next;
} pending;

struct tr_join {
    tr_transport *transport; /* of the data plane */
    tr_transport *own;       /* the same if it was opened here, else NULL */
    tr_link *link;
    tr_gguf *gguf;
    tr_invite invite; /* without the keys */
    pending *assignments;
    tr_fault_rule fault[TR_MAX_FAULTS]; /* [n_faults] */
    uint32_t n_faults;
    bool has_fetched; /* what was said of that must be taken back */
    bool is_over, job_failed, had_losses, may_say_bye;
    tr_status failed; /* sticky */
    tr_time looked, heard, said;
    uint8_t *buffer; /* [TR_MAX_CONTROL] for messages to send */
};

static tr_status send(tr_join *j, const tr_control *c)
{
    size_t size;

    tr_status st = tr_wire_pack(c, j->buffer, TR_MAX_CONTROL, &size);
    if (st == TR_OK)
        st = tr_link_send(j->link, 0, (tr_bytes){ j->buffer, size });
    j->said = tr_now();
    return st;
}

void tr_join_fail(tr_join *j, const char *reason)
{
    tr_control c = { .kind = TR_CONTROL_FAILURE };

    snprintf(c.reason, sizeof c.reason, "%s", reason);
    if (send(j, &c) != TR_OK)
        tr_log(TR_LOG_DEBUG, "the coordinator could not be told");
    j->may_say_bye = false;
}

void tr_join_leave(tr_join *j)
{
    send(j, &(tr_control){ .kind = TR_CONTROL_LEAVE }); /* who is gone need not know */
}

/* ---- the invitation ------------------------------------------------------------------- */

static tr_status read_invite(tr_join *j, tr_bytes frame, bool *is_over)
{
    tr_frame_view v;

    tr_status st = tr_frame_open(frame, NULL, &v);
    if (st != TR_OK)
        return st;
    if (v.header.kind == TR_FRAME_STOP) {
        *is_over = true;
        return TR_OK;
    }
    if (v.header.kind != TR_FRAME_INVITE)
        return tr_fail(TR_E_PROTOCOL, "the coordinator's first frame is of kind %u, no invite",
                       v.header.kind);
    return tr_wire_unpack_invite(v.text, &j->invite);
}

static tr_status await_invite(tr_join *j, bool *is_over)
{
    tr_time deadline = tr_now() + invite_timeout;

    for (;;) {
        tr_msg *m = NULL;
        tr_peer from;
        tr_status st = tr_transport_recv(j->transport, tr_now() + wait_period, &from, &m);
        if (st == TR_OK) {
            st = read_invite(j, (tr_bytes){ m->data, m->size }, is_over);
            explicit_bzero(m->data, m->size); /* it holds keys */
            tr_msg_free(&m);
            return st;
        }
        if (st == TR_E_PEER_LOST)
            return tr_fail(st, "the coordinator is gone");
        if (st != TR_E_DEADLINE)
            return st;
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        if (tr_now() > deadline)
            return tr_fail(TR_E_DEADLINE, "no coordinator invited this worker within %.0f s",
                           (double)invite_timeout / (double)TR_SECOND);
    }
}

/* Whoever can read the file can take this worker's place. */
static tr_status check_file(int fd, const char *path)
{
    struct stat s;

    if (fstat(fd, &s) != 0)
        return tr_fail(TR_E_IO, "invitation %.256s: %s", path, strerror(errno));
    if (!S_ISREG(s.st_mode))
        return tr_fail(TR_E_CONFIG, "invitation %.256s: is no file", path);
    if (s.st_uid != geteuid() || (s.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        return tr_fail(TR_E_CONFIG,
                       "invitation %.256s: others can read it; it must be yours, chmod 600 it, and "
                       "make another if it was exposed",
                       path);
    return TR_OK;
}

static tr_status read_invite_of(tr_join *j, const char *path, tr_bytes frame)
{
    char reason[512];
    bool is_over = false;

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = read_invite(j, frame, &is_over);
    tr_fail_capture_end();
    if (st != TR_OK)
        return tr_fail(TR_E_CONFIG, "invitation %.256s: %s", path, reason);
    if (is_over || j->invite.data.endpoint[0] == '\0')
        return tr_fail(TR_E_CONFIG, "invitation %.256s: it does not say where rows come from",
                       path);
    return TR_OK;
}

static tr_status read_file(tr_join *j, const char *path)
{
    alignas(TR_FRAME_ALIGN) uint8_t bytes[8192];
    size_t size = 0;
    ssize_t n = 1;

    bool is_input = strcmp(path, "-") == 0;
    int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return tr_fail(TR_E_IO, "invitation %.256s: %s", path, strerror(errno));
    tr_status st = is_input ? TR_OK : check_file(fd, path);
    while (st == TR_OK && n > 0 && size < sizeof bytes) {
        n = read(fd, bytes + size, sizeof bytes - size);
        size += n > 0 ? (size_t)n : 0;
    }
    if (st == TR_OK && n < 0)
        st = tr_fail(TR_E_IO, "invitation %.256s: %s", path, strerror(errno));
    if (!is_input)
        close(fd);
    if (st == TR_OK)
        st = read_invite_of(j, path, (tr_bytes){ bytes, size });
    explicit_bzero(bytes, sizeof bytes);
    return st;
}

static tr_status connect_link(tr_join *j)
{
    tr_curve_keys keys;

    memcpy(keys.public_key, j->invite.worker_public, TR_CURVE_KEY);
    memcpy(keys.secret_key, j->invite.worker_secret, TR_CURVE_KEY);
    tr_status st = tr_link_connect_beside(j->transport, j->invite.endpoint, j->invite.server_public,
                                          &keys, &j->link);
    tr_curve_keys_forget(&keys);
    explicit_bzero(j->invite.worker_secret, TR_KEY_SIZE);
    return st;
}

/* The data plane's own connection, if the invitation names one. */
static tr_status connect_data(tr_join *j)
{
    tr_zmq_ticket ticket = { .endpoint = "" };

    if (j->invite.data.endpoint[0] == '\0')
        return TR_OK;
    if ((size_t)snprintf(ticket.endpoint, sizeof ticket.endpoint, "%s", j->invite.data.endpoint) >=
        sizeof ticket.endpoint)
        return tr_fail(TR_E_PROTOCOL, "the invitation's data endpoint is too long");
    memcpy(ticket.server_public, j->invite.data.server_public, TR_CURVE_KEY);
    memcpy(ticket.keys.public_key, j->invite.data.worker_public, TR_CURVE_KEY);
    memcpy(ticket.keys.secret_key, j->invite.data.worker_secret, TR_CURVE_KEY);
    tr_status st = tr_zmq_join(&ticket, j->invite.worker, TR_MAX_MESSAGE, &j->own);
    tr_zmq_ticket_forget(&ticket);
    explicit_bzero(j->invite.data.worker_secret, TR_KEY_SIZE);
    if (st == TR_OK)
        j->transport = j->own;
    return st;
}

/* ---- what the coordinator says ---------------------------------------------------------- */

static tr_status on_assign(tr_join *j, tr_control *c)
{
    pending **last = &j->assignments;
    pending *p = calloc(1, sizeof *p);

    if (!p)
        return tr_fail(TR_E_MEMORY, "join: no memory");
    p->assignment = c->assign;
    p->assignment.job = j->invite.job;
    c->kind = TR_CONTROL_NONE; /* taken over */
    while (*last)
        last = &(*last)->next;
    *last = p;
    return TR_OK;
}

static tr_status on_message(tr_join *j, tr_control *c)
{
    switch (c->kind) {
    case TR_CONTROL_REFUSE:
        return tr_fail(TR_E_REFUSED, "the coordinator refuses this worker: %s", c->reason);
    case TR_CONTROL_ASSIGN:
        return on_assign(j, c);
    case TR_CONTROL_FAULTS:
        j->n_faults = c->faults.n;
        memcpy(j->fault, c->faults.rule, c->faults.n * sizeof *j->fault);
        return TR_OK;
    case TR_CONTROL_SHUTDOWN:
        j->is_over = true;
        j->may_say_bye = true;
        j->job_failed = c->shutdown.failed;
        j->had_losses = c->shutdown.had_losses;
        return TR_OK;
    default:
        return TR_OK; /* ALIVE, or what a worker has no use for */
    }
}

static tr_status on_event(tr_join *j, const tr_link_event *e)
{
    tr_control c;

    if (e->kind == TR_LINK_GONE)
        return j->is_over ? TR_OK : tr_fail(TR_E_PEER_LOST, "the coordinator is gone");
    j->heard = tr_now();
    tr_status st = tr_wire_unpack(e->bytes, &c);
    if (st != TR_OK)
        return st;
    st = on_message(j, &c);
    tr_control_fini(&c);
    return st;
}

static tr_status look(tr_join *j, tr_time timeout)
{
    tr_time before = j->looked;

    while (j->failed == TR_OK) {
        tr_link_event e;
        tr_status st = tr_link_poll(j->link, timeout, &e);
        if (st == TR_E_DEADLINE)
            break;
        j->failed = st == TR_OK ? on_event(j, &e) : st;
        timeout = 0;
    }
    j->looked = tr_now();
    tr_time limit = (tr_time)j->invite.silence_ms * TR_MS * SILENCES;
    if (j->looked - before > limit / 2)
        j->heard = j->looked; /* who was away itself (a stopped job that goes on) can't tell */
    if (j->failed == TR_OK && j->looked - j->heard > limit)
        j->failed = tr_fail(TR_E_PEER_LOST, "the coordinator is silent for %.0f s",
                            (double)(j->looked - j->heard) / (double)TR_SECOND);
    return j->failed;
}

/* ---- joining ---------------------------------------------------------------------------- */

static tr_status say_hello(tr_join *j, const char *version, size_t threads)
{
    tr_control c = { .kind = TR_CONTROL_HELLO };
    tr_hello *h = &c.hello;

    h->protocol = TR_PROTOCOL;
    snprintf(h->program, sizeof h->program, "%s", version);
    h->worker = j->transport->self;
    h->pid = (uint32_t)getpid();
    tr_host_name(h->host, sizeof h->host);
    if (h->host[0] == '\0')
        snprintf(h->host, sizeof h->host, "unknown");
    h->model = tr_gguf_identity(j->gguf);
    h->memory = tr_memory_of_machine();
    h->memory_limit = tr_memory_physical();
    h->cores = (uint32_t)tr_cpu_cores();
    h->threads = (uint32_t)threads;
    for (const char *const *name = tr_kernels_names(); *name; name++)
        if (tr_kernels_select(tr_cpu_features(), *name) && h->n_kernels < TR_MAX_KERNEL_TABLES)
            snprintf(h->kernels[h->n_kernels++], TR_MAX_NAME, "%s", *name);
    return send(j, &c);
}

/* Both sides say why two versions can't work together. */
static tr_status check_version(tr_join *j, const char *version)
{
    char reason[256];

    if (j->invite.protocol == TR_PROTOCOL && strcmp(j->invite.program, version) == 0)
        return TR_OK;
    snprintf(reason, sizeof reason,
             "it is version %s (protocol %d), the coordinator %s (protocol %u): install the same "
             "everywhere",
             version, TR_PROTOCOL, j->invite.program, j->invite.protocol);
    tr_join_fail(j, reason);
    return tr_fail(TR_E_REFUSED, "this worker gives up: %s", reason);
}

static tr_status open_model(tr_join *j, const char *model)
{
    char reason[512];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_gguf_open(model ? model : j->invite.model, &j->gguf);
    tr_fail_capture_end();
    if (st == TR_OK)
        return st;
    tr_join_fail(j, reason);
    return tr_fail(st, "%s", reason);
}

/* path NULL: the invitation comes over the transport. */
static tr_status get_invite(tr_join *j, const char *path)
{
    j->buffer = malloc(TR_MAX_CONTROL);
    if (!j->buffer)
        return tr_fail(TR_E_MEMORY, "join: no memory");
    if (path)
        return read_file(j, path);
    tr_status st = await_invite(j, &j->is_over);
    if (st == TR_OK && !j->is_over && j->invite.worker != j->transport->self)
        st = tr_fail(TR_E_PROTOCOL, "invited as worker %u, but this is %u", j->invite.worker,
                     j->transport->self);
    return st;
}

static tr_status join(tr_join *j, const char *path, const char *version, const char *model,
                      size_t threads)
{
    tr_status st = get_invite(j, path);
    if (st != TR_OK || j->is_over)
        return st;
    st = connect_link(j);
    if (st == TR_OK)
        st = connect_data(j);
    j->heard = tr_now();
    if (st == TR_OK)
        st = check_version(j, version);
    if (st == TR_OK)
        st = open_model(j, model);
    if (st == TR_OK)
        st = say_hello(j, version, threads);
    return st;
}

static tr_status open_join(tr_transport *t, const char *path, const char *version,
                           const char *model, size_t threads, tr_join **out)
{
    tr_join *j = calloc(1, sizeof *j);

    if (!j)
        return tr_fail(TR_E_MEMORY, "join: no memory");
    j->transport = t;
    tr_status st = join(j, path, version, model, threads);
    bool is_called_off = j->is_over;
    if (st != TR_OK || is_called_off)
        tr_join_close(&j);
    if (st == TR_OK)
        *out = j;
    return st;
}

tr_status tr_join_open(tr_transport *t, const char *version, const char *model, size_t threads,
                       tr_join **out)
{
    return open_join(t, NULL, version, model, threads, out);
}

tr_status tr_join_open_file(const char *path, const char *version, const char *model,
                            size_t threads, tr_join **out)
{
    return open_join(NULL, path, version, model, threads, out);
}

void tr_join_close(tr_join **join)
{
    tr_join *j = *join;

    if (!j)
        return;
    if (j->link && j->may_say_bye)
        send(j, &(tr_control){ .kind = TR_CONTROL_BYE });
    tr_link_close(&j->link);
    tr_transport_close(&j->own);
    tr_gguf_close(&j->gguf);
    for (tr_assignment a; tr_join_next_assignment(j, &a);)
        tr_assignment_fini(&a);
    explicit_bzero(&j->invite, sizeof j->invite);
    free(j->buffer);
    free(j);
    *join = NULL;
}

tr_transport *tr_join_transport(tr_join *j)
{
    return j->transport;
}

bool tr_join_job_failed(const tr_join *j)
{
    return j->job_failed;
}

bool tr_join_had_losses(const tr_join *j)
{
    return j->had_losses;
}

const tr_gguf *tr_join_model(const tr_join *j)
{
    return j->gguf;
}

bool tr_join_next_assignment(tr_join *j, tr_assignment *out)
{
    pending *p = j->assignments;

    if (!p)
        return false;
    *out = p->assignment;
    j->assignments = p->next;
    free(p);
    return true;
}

tr_status tr_join_await_assignment(tr_join *j, tr_assignment *out, bool *is_over)
{
    while (!j->assignments && !j->is_over) {
        tr_status st = tr_interrupted() ? TR_E_INTERRUPTED : look(j, wait_period);
        if (st != TR_OK)
            return st;
    }
    *is_over = j->is_over;
    if (!j->is_over)
        tr_join_next_assignment(j, out);
    return TR_OK;
}

const tr_fault_rule *tr_join_faults(const tr_join *j, uint32_t *n)
{
    *n = j->n_faults;
    return j->fault;
}

void tr_join_injected(tr_join *j, uint32_t number, uint32_t nth)
{
    send(j, &(tr_control){ .kind = TR_CONTROL_INJECTED, .injected = { number, nth } });
}

static tr_status say_progress(tr_join *j, uint64_t done, uint64_t total, bool *is_over)
{
    tr_control c = { .kind = TR_CONTROL_PROGRESS };

    c.progress.done = done;
    c.progress.total = total;
    tr_status st = send(j, &c);
    if (st == TR_OK || st == TR_E_PEER_LOST) /* whether it is lost, the connection says */
        st = look(j, 0);
    *is_over = *is_over || j->is_over;
    return st;
}

tr_status tr_join_progress(tr_join *j, uint64_t done, uint64_t total, bool *is_over)
{
    if (tr_now() - j->said < progress_period)
        return j->failed;
    return say_progress(j, done, total, is_over);
}

tr_status tr_join_fetch(tr_join *j, uint64_t done, uint64_t total, bool *is_over)
{
    tr_status st = say_progress(j, done, total, is_over);

    j->has_fetched = true;
    return st;
}

tr_status tr_join_ready(tr_join *j, uint32_t n_experts, uint64_t bytes)
{
    tr_control c = { .kind = TR_CONTROL_READY };

    c.ready.experts = n_experts;
    c.ready.bytes = bytes;
    return send(j, &c);
}

tr_status tr_join_pump(tr_join *j, const tr_worker_stats *stats, bool *is_over)
{
    tr_time now = tr_now();

    if (now - j->looked < look_period && !j->has_fetched)
        return j->failed;
    if (now - j->said >= (tr_time)j->invite.heartbeat_ms * TR_MS || j->has_fetched) {
        j->has_fetched = false;
        tr_control c = { .kind = TR_CONTROL_HEARTBEAT, .heartbeat = *stats };
        c.heartbeat.bytes_in = j->transport->stats.bytes_received;
        c.heartbeat.bytes_out = j->transport->stats.bytes_sent;
        c.heartbeat.resident = tr_memory_resident();
        tr_status st = send(j, &c);
        if (st != TR_OK && st != TR_E_PEER_LOST)
            return st;
    }
    tr_status st = look(j, 0);
    *is_over = *is_over || j->is_over;
    return st;
}
