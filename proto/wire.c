/* wire.c - protobuf on one side, checked structs on the other.
 *
 * protobuf-c allocates as it decodes; the allocator here is an arena of bounded size, so that a
 * hostile message can't make a process grow.
 *
 * Texts end up in logs and on terminals: only UTF-8 without control characters comes in.  Reasons
 * may quote anything, so they are made such before they go out.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire.h"

#include "base/check.h"
#include "control.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

/* A decoded message is larger than its bytes: an expert range of 6 becomes a struct and a pointer.
 */
enum { ARENA_LEAST = 64 << 10, ARENA_FACTOR = 16 };

typedef Troupe__Control__Envelope envelope;
typedef Troupe__Control__ExpertRange expert_range;

/* ---- allocation while decoding -------------------------------------------------------- */

typedef struct {
    ProtobufCAllocator allocator;
    uint8_t *base;
    size_t size, used;
} arena;

static void *arena_alloc(void *ctx, size_t size)
{
    arena *a = ctx;
    size_t at = tr_align_up(a->used, 16);

    if (size > a->size || at > a->size - size)
        return NULL;
    a->used = at + size;
    return a->base + at;
}

static void arena_free(void *ctx, void *block)
{
    (void)ctx;
    (void)block; /* all at once, at the end */
}

static tr_status arena_begin(arena *a, size_t message_size)
{
    a->size = ARENA_LEAST + ARENA_FACTOR * message_size;
    a->base = malloc(a->size);
    a->used = 0;
    a->allocator = (ProtobufCAllocator){ arena_alloc, arena_free, a };
    return a->base ? TR_OK : tr_fail(TR_E_MEMORY, "control message: no memory to decode it");
}

/* ---- checks --------------------------------------------------------------------------- */

static tr_status bad(const char *message, const char *field)
{
    return tr_fail(TR_E_PROTOCOL, "control message %s: %s is missing, too long or out of range",
                   message, field);
}

/* Bytes of the character that s begins with, 0 if it is none or one that moves a cursor: C0, DEL
 * and C1 controls.  s ends with a zero. */
static size_t printable(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t size = u[0] < 0x80 ? 1 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    static const uint32_t least[] = { 0, 0x20, 0xa0, 0x800, 0x10000 };
    uint32_t code = size == 1 ? u[0] : u[0] & (0x7fu >> size);

    if ((u[0] >= 0x80 && u[0] < 0xc0) || u[0] >= 0xf8 || u[0] == 0x7f)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((u[i] & 0xc0) != 0x80) /* also at the final zero */
            return 0;
        code = code << 6 | (u[i] & 0x3f);
    }
    bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
    return code >= least[size] && code <= 0x10ffff && !is_surrogate ? size : 0;
}

/* A printable text that fits to with its final zero. */
static bool copy_text(char *to, size_t size, const char *from)
{
    size_t n = from ? strlen(from) : 0;

    if (n >= size)
        return false;
    for (size_t i = 0; i < n;) {
        size_t step = printable(from + i);
        if (step == 0)
            return false;
        i += step;
    }
    memset(to, 0, size);
    memcpy(to, from ? from : "", n);
    return true;
}

static bool copy_name(char *to, size_t size, const char *from)
{
    return copy_text(to, size, from) && to[0] != '\0';
}

/* A file's name is bytes that the file system gave, not always UTF-8. */
static bool copy_path(char *to, size_t size, ProtobufCBinaryData from)
{
    if (from.len == 0 || from.len >= size)
        return false;
    for (size_t i = 0; i < from.len; i++)
        if (from.data[i] < 0x20 || from.data[i] == 0x7f)
            return false;
    memset(to, 0, size);
    memcpy(to, from.data, from.len);
    return true;
}

static bool copy_key(uint8_t *to, ProtobufCBinaryData from)
{
    if (from.len != TR_KEY_SIZE)
        return false;
    memcpy(to, from.data, TR_KEY_SIZE);
    return true;
}

/* ---- assignments ---------------------------------------------------------------------- */

tr_status tr_assignment_init(tr_assignment *a, uint32_t n_layers)
{
    *a = (tr_assignment){ .n_layers = n_layers };
    a->layer = calloc(n_layers ? n_layers : 1, sizeof *a->layer);
    return a->layer ? TR_OK : tr_fail(TR_E_MEMORY, "assignment: no memory for %u layers", n_layers);
}

void tr_assignment_fini(tr_assignment *a)
{
    for (uint32_t l = 0; a->layer && l < a->n_layers; l++)
        free(a->layer[l].expert);
    free(a->layer);
    *a = (tr_assignment){ 0 };
}

static tr_status add_range(tr_assignment *a, const expert_range *r)
{
    if (r->layer >= a->n_layers || r->count == 0 || r->count > TR_MAX_EXPERTS ||
        r->first > TR_MAX_EXPERTS - r->count)
        return bad("assign", "experts");
    tr_layer_experts *l = &a->layer[r->layer];
    if (l->n > 0 && r->first <= l->expert[l->n - 1])
        return tr_fail(TR_E_PROTOCOL, "control message assign: experts of layer %u do not ascend",
                       r->layer);
    uint32_t *grown = realloc(l->expert, (l->n + r->count) * sizeof *grown);
    if (!grown)
        return tr_fail(TR_E_MEMORY, "assignment: no memory for the experts of layer %u", r->layer);
    l->expert = grown;
    for (uint32_t i = 0; i < r->count; i++)
        l->expert[l->n++] = r->first + i;
    return TR_OK;
}

static tr_status unpack_assign(const Troupe__Control__Assign *p, tr_assignment *out)
{
    tr_assignment a = { 0 };
    uint32_t layer = 0;

    if (p->n_layers == 0 || p->n_layers > TR_MAX_LAYERS)
        return bad("assign", "n_layers");
    if (p->max_rows == 0 || p->max_rows > TR_MAX_ROWS)
        return bad("assign", "max_rows");
    tr_status st = tr_assignment_init(&a, p->n_layers);
    if (st != TR_OK)
        return st;
    a.epoch = p->epoch;
    a.exact = p->exact;
    a.lazy = p->lazy;
    a.max_rows = p->max_rows;
    if (!copy_name(a.kernels, sizeof a.kernels, p->kernels))
        st = bad("assign", "kernels");
    for (size_t i = 0; i < p->n_experts && st == TR_OK; i++) {
        st = p->experts[i]->layer < layer ? bad("assign", "experts") : add_range(&a, p->experts[i]);
        layer = p->experts[i]->layer;
    }
    if (st != TR_OK) {
        tr_assignment_fini(&a);
        return st;
    }
    *out = a;
    return TR_OK;
}

/* ---- from bytes ----------------------------------------------------------------------- */

static tr_status unpack_hello(const Troupe__Control__Hello *p, tr_hello *out)
{
    *out = (tr_hello){
        .protocol = p->protocol,
        .worker = p->worker,
        .pid = p->pid,
        .model = p->model,
        .memory = p->memory,
        .memory_limit = p->memory_limit,
        .cores = p->cores,
        .threads = p->threads,
    };
    if (!copy_name(out->program, sizeof out->program, p->program))
        return bad("hello", "program");
    if (!copy_name(out->host, sizeof out->host, p->host))
        return bad("hello", "host");
    if (p->worker == 0 || p->worker > TR_MAX_WORKERS)
        return bad("hello", "worker");
    if (p->n_kernels == 0 || p->n_kernels > TR_MAX_KERNEL_TABLES)
        return bad("hello", "kernels");
    for (size_t i = 0; i < p->n_kernels; i++)
        if (!copy_name(out->kernels[i], sizeof out->kernels[i], p->kernels[i]))
            return bad("hello", "kernels");
    out->n_kernels = (uint32_t)p->n_kernels;
    return TR_OK;
}

static void unpack_heartbeat(const Troupe__Control__Heartbeat *p, tr_worker_stats *out)
{
    *out = (tr_worker_stats){ p->shares,         p->rows,     p->picks,     p->busy_ns,
                              p->frames_dropped, p->bytes_in, p->bytes_out, p->resident };
}

static tr_status unpack_reason(const char *name, const char *reason, char *out)
{
    return copy_text(out, TR_MAX_TEXT, reason) ? TR_OK : bad(name, "reason");
}

static tr_status unpack_progress(const Troupe__Control__Progress *p, tr_control *out)
{
    if (p->done > p->total)
        return bad("progress", "done");
    out->progress.done = p->done;
    out->progress.total = p->total;
    return TR_OK;
}

static tr_status unpack_faults(const Troupe__Control__Faults *p, tr_control *out)
{
    if (p->n_faults > TR_MAX_FAULTS)
        return bad("faults", "faults");
    out->faults.n = (uint32_t)p->n_faults;
    for (size_t i = 0; i < p->n_faults; i++) {
        const Troupe__Control__Fault *f = p->faults[i];
        tr_fault_rule *r = &out->faults.rule[i];
        if (f->layer > TR_MAX_LAYERS)
            return bad("faults", "layer");
        *r = (tr_fault_rule){
            .kind = (tr_fault_kind)f->kind,
            .moment = (tr_fault_moment)f->moment,
            .after_ms = f->after_ms,
            .nth = f->nth,
            .layer = f->layer == 0 ? TR_FAULT_ANY_LAYER : f->layer - 1,
            .per_million = f->per_million,
            .seed = f->seed,
            .times = f->times,
            .ms = f->ms,
            .message = (tr_fault_message)f->message,
        };
        if (!tr_fault_rule_is_sound(r))
            return bad("faults", "a fault");
    }
    return TR_OK;
}

static tr_status unpack_any(const envelope *e, tr_control *out)
{
    switch (e->message_case) {
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_HELLO:
        out->kind = TR_CONTROL_HELLO;
        return unpack_hello(e->hello, &out->hello);
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_REFUSE:
        out->kind = TR_CONTROL_REFUSE;
        return unpack_reason("refuse", e->refuse->reason, out->reason);
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_ASSIGN:
        out->kind = TR_CONTROL_ASSIGN;
        return unpack_assign(e->assign, &out->assign);
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_PROGRESS:
        out->kind = TR_CONTROL_PROGRESS;
        return unpack_progress(e->progress, out);
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_READY:
        out->kind = TR_CONTROL_READY;
        out->ready.experts = e->ready->experts;
        out->ready.bytes = e->ready->bytes;
        return TR_OK;
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_HEARTBEAT:
        out->kind = TR_CONTROL_HEARTBEAT;
        unpack_heartbeat(e->heartbeat, &out->heartbeat);
        return TR_OK;
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_ALIVE:
        out->kind = TR_CONTROL_ALIVE;
        return TR_OK;
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_FAILURE:
        out->kind = TR_CONTROL_FAILURE;
        return unpack_reason("failure", e->failure->reason, out->reason);
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_SHUTDOWN:
        out->kind = TR_CONTROL_SHUTDOWN;
        out->shutdown.failed = e->shutdown->failed;
        out->shutdown.had_losses = e->shutdown->had_losses;
        return TR_OK;
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_LEAVE:
        out->kind = TR_CONTROL_LEAVE;
        return TR_OK;
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_FAULTS:
        out->kind = TR_CONTROL_FAULTS;
        return unpack_faults(e->faults, out);
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_INJECTED:
        out->kind = TR_CONTROL_INJECTED;
        out->injected.number = e->injected->number;
        out->injected.nth = e->injected->nth;
        return e->injected->number < TR_MAX_FAULTS ? TR_OK : bad("injected", "number");
    case TROUPE__CONTROL__ENVELOPE__MESSAGE_BYE:
        out->kind = TR_CONTROL_BYE;
        return TR_OK;
    default:
        return tr_fail(TR_E_PROTOCOL, "control message of an unknown kind");
    }
}

tr_status tr_wire_unpack(tr_bytes bytes, tr_control *out)
{
    arena a;
    tr_control m = { .kind = TR_CONTROL_NONE };

    if (bytes.size > TR_MAX_CONTROL)
        return tr_fail(TR_E_PROTOCOL, "control message of %zu bytes, at most %d", bytes.size,
                       TR_MAX_CONTROL);
    tr_status st = arena_begin(&a, bytes.size);
    if (st != TR_OK)
        return st;
    envelope *e = troupe__control__envelope__unpack(&a.allocator, bytes.size, bytes.data);
    st = e ? unpack_any(e, &m) : tr_fail(TR_E_PROTOCOL, "control message can't be decoded");
    free(a.base);
    if (st == TR_OK)
        *out = m;
    return st;
}

/* Either the data plane has a connection of its own, with keys, or there is nothing of it. */
static tr_status check_invite_data(const Troupe__Control__Invite *p, tr_invite *out)
{
    if (!copy_text(out->data.endpoint, sizeof out->data.endpoint, p->data_endpoint))
        return bad("invite", "data_endpoint");
    bool has_keys = p->data_server_public.len > 0 || p->data_worker_public.len > 0 ||
                    p->data_worker_secret.len > 0;
    if (out->data.endpoint[0] == '\0')
        return has_keys ? bad("invite", "data_endpoint") : TR_OK;
    if (!copy_key(out->data.server_public, p->data_server_public) ||
        !copy_key(out->data.worker_public, p->data_worker_public) ||
        !copy_key(out->data.worker_secret, p->data_worker_secret))
        return bad("invite", "a key of the data plane");
    return TR_OK;
}

static tr_status check_invite(const Troupe__Control__Invite *p, tr_invite *out)
{
    *out = (tr_invite){
        .protocol = p->protocol,
        .job = p->job,
        .worker = p->worker,
        .heartbeat_ms = p->heartbeat_ms,
        .silence_ms = p->silence_ms,
    };
    if (!copy_name(out->program, sizeof out->program, p->program))
        return bad("invite", "program");
    if (p->worker == 0 || p->worker > TR_MAX_WORKERS)
        return bad("invite", "worker");
    if (!copy_name(out->endpoint, sizeof out->endpoint, p->endpoint))
        return bad("invite", "endpoint");
    if (!copy_key(out->server_public, p->server_public) ||
        !copy_key(out->worker_public, p->worker_public) ||
        !copy_key(out->worker_secret, p->worker_secret))
        return bad("invite", "a key");
    if (!copy_path(out->model, sizeof out->model, p->model))
        return bad("invite", "model");
    if (p->heartbeat_ms == 0 || p->heartbeat_ms > p->silence_ms || p->silence_ms > 86400000)
        return bad("invite", "heartbeat_ms");
    return check_invite_data(p, out);
}

tr_status tr_wire_unpack_invite(tr_bytes bytes, tr_invite *out)
{
    arena a;
    tr_invite i;

    if (bytes.size > TR_MAX_CONTROL)
        return tr_fail(TR_E_PROTOCOL, "invite of %zu bytes, at most %d", bytes.size,
                       TR_MAX_CONTROL);
    tr_status st = arena_begin(&a, bytes.size);
    if (st != TR_OK)
        return st;
    Troupe__Control__Invite *p =
        troupe__control__invite__unpack(&a.allocator, bytes.size, bytes.data);
    st = p ? check_invite(p, &i) : tr_fail(TR_E_PROTOCOL, "invite can't be decoded");
    explicit_bzero(a.base, a.used); /* it holds a key */
    free(a.base);
    if (st == TR_OK)
        *out = i;
    return st;
}

void tr_control_fini(tr_control *m)
{
    if (m->kind == TR_CONTROL_ASSIGN)
        tr_assignment_fini(&m->assign);
    m->kind = TR_CONTROL_NONE;
}

/* ---- to bytes ------------------------------------------------------------------------- */

static tr_status pack(const ProtobufCMessage *p, uint8_t *buffer, size_t size, size_t *used)
{
    size_t need = protobuf_c_message_get_packed_size(p);

    if (need > size)
        return tr_fail(TR_E_PROTOCOL, "control message of %zu bytes does not fit %zu", need, size);
    *used = protobuf_c_message_pack(p, buffer);
    return TR_OK;
}

/* A reason may quote a file name, or have been cut within a character. */
static void clean(char *to, const char *from)
{
    for (size_t i = 0; from[i] != '\0';) {
        size_t n = printable(from + i);
        if (n == 0)
            to[i] = '?';
        else
            memcpy(to + i, from + i, n);
        i += n ? n : 1;
        to[i] = '\0';
    }
}

static tr_status pack_hello(const tr_hello *h, uint8_t *buffer, size_t size, size_t *used)
{
    Troupe__Control__Hello p = TROUPE__CONTROL__HELLO__INIT;
    envelope e = TROUPE__CONTROL__ENVELOPE__INIT;
    char *kernels[TR_MAX_KERNEL_TABLES];

    TR_CHECK(h->n_kernels <= TR_MAX_KERNEL_TABLES);
    for (uint32_t i = 0; i < h->n_kernels; i++)
        kernels[i] = (char *)(uintptr_t)h->kernels[i];
    p.protocol = h->protocol;
    p.program = (char *)(uintptr_t)h->program;
    p.worker = h->worker;
    p.pid = h->pid;
    p.host = (char *)(uintptr_t)h->host;
    p.model = h->model;
    p.memory = h->memory;
    p.memory_limit = h->memory_limit;
    p.cores = h->cores;
    p.threads = h->threads;
    p.n_kernels = h->n_kernels;
    p.kernels = kernels;
    e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_HELLO;
    e.hello = &p;
    return pack(&e.base, buffer, size, used);
}

/* Runs of consecutive experts; counts them when out is NULL. */
static size_t ranges_of(const tr_assignment *a, expert_range *out)
{
    size_t n = 0;

    for (uint32_t l = 0; l < a->n_layers; l++) {
        const tr_layer_experts *x = &a->layer[l];
        for (uint32_t i = 0; i < x->n; n++) {
            uint32_t first = i++;
            while (i < x->n && x->expert[i] == x->expert[i - 1] + 1)
                i++;
            if (!out)
                continue;
            troupe__control__expert_range__init(&out[n]);
            out[n].layer = l;
            out[n].first = x->expert[first];
            out[n].count = i - first;
        }
    }
    return n;
}

static tr_status pack_assign(const tr_assignment *a, uint8_t *buffer, size_t size, size_t *used)
{
    Troupe__Control__Assign p = TROUPE__CONTROL__ASSIGN__INIT;
    envelope e = TROUPE__CONTROL__ENVELOPE__INIT;
    size_t n = ranges_of(a, NULL);
    expert_range *range = calloc(n ? n : 1, sizeof *range);
    expert_range **list = calloc(n ? n : 1, sizeof *list);
    tr_status st;

    if (range && list) {
        ranges_of(a, range);
        for (size_t i = 0; i < n; i++)
            list[i] = &range[i];
        p.epoch = a->epoch;
        p.kernels = (char *)(uintptr_t)a->kernels;
        p.exact = a->exact;
        p.lazy = a->lazy;
        p.max_rows = a->max_rows;
        p.n_layers = a->n_layers;
        p.n_experts = n;
        p.experts = list;
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_ASSIGN;
        e.assign = &p;
        st = pack(&e.base, buffer, size, used);
    } else {
        st = tr_fail(TR_E_MEMORY, "assignment: no memory for %zu ranges", n);
    }
    free(list);
    free(range);
    return st;
}

static tr_status pack_heartbeat(const tr_worker_stats *s, uint8_t *buffer, size_t size,
                                size_t *used)
{
    Troupe__Control__Heartbeat p = TROUPE__CONTROL__HEARTBEAT__INIT;
    envelope e = TROUPE__CONTROL__ENVELOPE__INIT;

    p.shares = s->shares;
    p.rows = s->rows;
    p.picks = s->picks;
    p.busy_ns = s->busy_ns;
    p.frames_dropped = s->frames_dropped;
    p.bytes_in = s->bytes_in;
    p.bytes_out = s->bytes_out;
    p.resident = s->resident;
    e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_HEARTBEAT;
    e.heartbeat = &p;
    return pack(&e.base, buffer, size, used);
}

static tr_status pack_faults(const tr_control *m, uint8_t *buffer, size_t size, size_t *used)
{
    Troupe__Control__Faults p = TROUPE__CONTROL__FAULTS__INIT;
    Troupe__Control__Fault fault[TR_MAX_FAULTS];
    Troupe__Control__Fault *list[TR_MAX_FAULTS];
    envelope e = TROUPE__CONTROL__ENVELOPE__INIT;

    TR_CHECK(m->faults.n <= TR_MAX_FAULTS);
    for (uint32_t i = 0; i < m->faults.n; i++) {
        const tr_fault_rule *r = &m->faults.rule[i];
        list[i] = &fault[i];
        troupe__control__fault__init(list[i]);
        fault[i].kind = (uint32_t)r->kind;
        fault[i].moment = (uint32_t)r->moment;
        fault[i].after_ms = r->after_ms;
        fault[i].nth = r->nth;
        fault[i].layer = r->layer == TR_FAULT_ANY_LAYER ? 0 : r->layer + 1;
        fault[i].per_million = r->per_million;
        fault[i].seed = r->seed;
        fault[i].times = r->times;
        fault[i].ms = r->ms;
        fault[i].message = (uint32_t)r->message;
    }
    p.n_faults = m->faults.n;
    p.faults = list;
    e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_FAULTS;
    e.faults = &p;
    return pack(&e.base, buffer, size, used);
}

static tr_status pack_injected(const tr_control *m, uint8_t *buffer, size_t size, size_t *used)
{
    Troupe__Control__Injected p = TROUPE__CONTROL__INJECTED__INIT;
    envelope e = TROUPE__CONTROL__ENVELOPE__INIT;

    p.number = m->injected.number;
    p.nth = m->injected.nth;
    e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_INJECTED;
    e.injected = &p;
    return pack(&e.base, buffer, size, used);
}

/* The messages of few fields or none. */
static tr_status pack_small(const tr_control *m, uint8_t *buffer, size_t size, size_t *used)
{
    Troupe__Control__Refuse refuse = TROUPE__CONTROL__REFUSE__INIT;
    Troupe__Control__Failure failure = TROUPE__CONTROL__FAILURE__INIT;
    Troupe__Control__Progress progress = TROUPE__CONTROL__PROGRESS__INIT;
    Troupe__Control__Ready ready = TROUPE__CONTROL__READY__INIT;
    Troupe__Control__Alive alive = TROUPE__CONTROL__ALIVE__INIT;
    Troupe__Control__Shutdown shutdown = TROUPE__CONTROL__SHUTDOWN__INIT;
    Troupe__Control__Bye bye = TROUPE__CONTROL__BYE__INIT;
    Troupe__Control__Leave leave = TROUPE__CONTROL__LEAVE__INIT;
    envelope e = TROUPE__CONTROL__ENVELOPE__INIT;
    char reason[TR_MAX_TEXT] = "";

    switch (m->kind) {
    case TR_CONTROL_REFUSE:
        clean(reason, m->reason);
        refuse.reason = reason;
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_REFUSE;
        e.refuse = &refuse;
        break;
    case TR_CONTROL_FAILURE:
        clean(reason, m->reason);
        failure.reason = reason;
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_FAILURE;
        e.failure = &failure;
        break;
    case TR_CONTROL_PROGRESS:
        progress.done = m->progress.done;
        progress.total = m->progress.total;
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_PROGRESS;
        e.progress = &progress;
        break;
    case TR_CONTROL_READY:
        ready.experts = m->ready.experts;
        ready.bytes = m->ready.bytes;
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_READY;
        e.ready = &ready;
        break;
    case TR_CONTROL_ALIVE:
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_ALIVE;
        e.alive = &alive;
        break;
    case TR_CONTROL_SHUTDOWN:
        shutdown.failed = m->shutdown.failed;
        shutdown.had_losses = m->shutdown.had_losses;
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_SHUTDOWN;
        e.shutdown = &shutdown;
        break;
    case TR_CONTROL_LEAVE:
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_LEAVE;
        e.leave = &leave;
        break;
    case TR_CONTROL_BYE:
        e.message_case = TROUPE__CONTROL__ENVELOPE__MESSAGE_BYE;
        e.bye = &bye;
        break;
    default:
        return tr_fail(TR_E_PROTOCOL, "control message of kind %d can't be sent", (int)m->kind);
    }
    return pack(&e.base, buffer, size, used);
}

tr_status tr_wire_pack(const tr_control *m, uint8_t *buffer, size_t size, size_t *used)
{
    switch (m->kind) {
    case TR_CONTROL_HELLO:
        return pack_hello(&m->hello, buffer, size, used);
    case TR_CONTROL_ASSIGN:
        return pack_assign(&m->assign, buffer, size, used);
    case TR_CONTROL_HEARTBEAT:
        return pack_heartbeat(&m->heartbeat, buffer, size, used);
    case TR_CONTROL_FAULTS:
        return pack_faults(m, buffer, size, used);
    case TR_CONTROL_INJECTED:
        return pack_injected(m, buffer, size, used);
    default:
        return pack_small(m, buffer, size, used);
    }
}

static ProtobufCBinaryData key(const uint8_t *bytes)
{
    return (ProtobufCBinaryData){ TR_KEY_SIZE, (uint8_t *)(uintptr_t)bytes };
}

tr_status tr_wire_pack_invite(const tr_invite *i, uint8_t *buffer, size_t size, size_t *used)
{
    Troupe__Control__Invite p = TROUPE__CONTROL__INVITE__INIT;

    p.protocol = i->protocol;
    p.program = (char *)(uintptr_t)i->program;
    p.job = i->job;
    p.worker = i->worker;
    p.endpoint = (char *)(uintptr_t)i->endpoint;
    p.server_public = key(i->server_public);
    p.worker_public = key(i->worker_public);
    p.worker_secret = key(i->worker_secret);
    if (i->data.endpoint[0] != '\0') {
        p.data_endpoint = (char *)(uintptr_t)i->data.endpoint;
        p.data_server_public = key(i->data.server_public);
        p.data_worker_public = key(i->data.worker_public);
        p.data_worker_secret = key(i->data.worker_secret);
    }
    p.model = (ProtobufCBinaryData){ strlen(i->model), (uint8_t *)(uintptr_t)i->model };
    p.heartbeat_ms = i->heartbeat_ms;
    p.silence_ms = i->silence_ms;
    return pack(&p.base, buffer, size, used);
}
