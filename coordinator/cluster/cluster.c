/* cluster.c - from invited workers to ready ones.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/cluster.h"

#include "coordinator/cluster/launch.h"
#include "base/log.h"
#include "base/version.h"
#include "compute/cpu.h"
#include "proto/frame.h"

#include <stdio.h>
#include <stdlib.h>

struct tr_cluster {
    tr_cluster_options o;
    tr_members *members;
    tr_recovery *recovery;
    tr_replacement *replacement;
    const tr_kernels *kernels;
};

static bool has_table(const tr_hello *h, const char *name)
{
    for (uint32_t i = 0; i < h->n_kernels; i++)
        if (strcmp(h->kernels[i], name) == 0)
            return true;
    return false;
}

/* The last, so the best, of this machine's tables that every worker has. */
static tr_status choose_kernels(tr_cluster *c)
{
    const char *isa = c->o.isa && strcmp(c->o.isa, "auto") != 0 ? c->o.isa : NULL;

    for (const char *const *name = tr_kernels_names(); *name; name++) {
        const tr_kernels *k = tr_kernels_select(tr_cpu_features(), *name);
        bool is_common = k && (!isa || strcmp(isa, *name) == 0);
        for (uint32_t w = 1; w <= c->o.transport->n_peers && is_common; w++)
            is_common = has_table(&tr_members_get(c->members, w)->hello, *name);
        if (is_common)
            c->kernels = k;
    }
    if (!c->kernels)
        return tr_fail(TR_E_USAGE, "--isa %s: no such kernel table on every machine of the cluster",
                       isa ? isa : "auto");
    return TR_OK;
}

/* Without experts. */
static tr_assignment assignment_form(const tr_cluster *c)
{
    tr_assignment a = {
        .epoch = c->o.placement->epoch,
        .exact = c->o.exact,
        .max_rows = (uint32_t)c->o.max_rows,
        .n_layers = c->o.placement->n_layers,
    };

    snprintf(a.kernels, sizeof a.kernels, "%s", c->kernels->name);
    return a;
}

static tr_status assignment_of(const tr_cluster *c, uint32_t peer, tr_assignment *out)
{
    const tr_placement *p = c->o.placement;
    tr_assignment a = assignment_form(c);

    a.layer = calloc(p->n_layers, sizeof *a.layer);
    if (!a.layer)
        return tr_fail(TR_E_MEMORY, "assignment: no memory");
    for (uint32_t l = 0; l < p->n_layers; l++) {
        if (!tr_expert_map_has(c->o.map, l))
            continue;
        a.layer[l].expert = malloc(p->n_experts * sizeof(uint32_t));
        if (!a.layer[l].expert) {
            tr_assignment_fini(&a);
            return tr_fail(TR_E_MEMORY, "assignment: no memory");
        }
        for (uint32_t e = 0; e < c->o.map->layer[l].n_experts; e++)
            if (tr_placement_holder(p, l, e) == peer)
                a.layer[l].expert[a.layer[l].n++] = e;
    }
    *out = a;
    return TR_OK;
}

static tr_status assign_all(tr_cluster *c)
{
    tr_status st = TR_OK;

    for (uint32_t peer = 1; peer <= c->o.transport->n_peers && st == TR_OK; peer++) {
        tr_assignment a;
        st = assignment_of(c, peer, &a);
        if (st != TR_OK)
            return st;
        st = tr_members_assign(c->members, peer, &a);
        tr_assignment_fini(&a);
    }
    return st;
}

static tr_status open_recovery(tr_cluster *c)
{
    const tr_assignment first = assignment_form(c);
    tr_recovery_options o = {
        .members = c->members,
        .placement = c->o.placement,
        .map = c->o.map,
        .first = &first,
        .n_workers = c->o.transport->n_peers,
        .worker_memory = c->o.worker_memory,
        .coordinator_memory = c->o.coordinator_memory,
        .replaces_here = c->o.replaces_here,
    };

    tr_status st = TR_OK;
    if (c->o.replacement)
        st = tr_replacement_new(c->o.replacement, o.n_workers, &c->replacement);
    o.replacement = c->replacement;
    return st == TR_OK ? tr_recovery_new(&o, &c->recovery) : st;
}

/* A heartbeat must be late many times before a worker is suspected. */
static tr_time heartbeat(const tr_cluster_options *o)
{
    tr_time limit = o->suspect_timeout > 0 && o->suspect_timeout < o->silence_timeout
                        ? o->suspect_timeout
                        : o->silence_timeout;

    return limit / 8 > 10 * TR_MS ? limit / 8 : 10 * TR_MS;
}

/* Workers open the file by this path: it must not depend on where they were started. */
static tr_status open_members(tr_cluster *c)
{
    char *path = realpath(tr_gguf_path(c->o.gguf), NULL);
    tr_members_options m = {
        .listen = c->o.listen,
        .version = TR_VERSION,
        .model_path = path ? path : tr_gguf_path(c->o.gguf),
        .model = tr_gguf_identity(c->o.gguf),
        .inviter = c->o.inviter,
        .invite_dir = c->o.invite_dir,
        .n_outside = c->o.n_outside,
        .join_timeout = c->o.join_timeout,
        .suspect_timeout = c->o.suspect_timeout,
        .silence_timeout = c->o.silence_timeout,
        .heartbeat = heartbeat(&c->o),
        .faults = c->o.faults,
    };

    tr_status st = tr_members_open(&m, c->o.transport, &c->members);
    free(path);
    return st;
}

tr_status tr_cluster_open(const tr_cluster_options *o, tr_cluster **out)
{
    tr_cluster *c = calloc(1, sizeof *c);

    if (!c)
        return tr_fail(TR_E_MEMORY, "cluster: no memory");
    c->o = *o;
    tr_status st = open_members(c);
    if (st == TR_OK) {
        tr_launch_report_up();
        st = choose_kernels(c);
    }
    if (st == TR_OK)
        st = assign_all(c);
    if (st == TR_OK)
        st = open_recovery(c);
    if (st != TR_OK) {
        tr_cluster_close(&c);
        return st;
    }
    *out = c;
    return TR_OK;
}

tr_status tr_cluster_wait_ready(tr_cluster *c, tr_time timeout,
                                void (*watch)(void *ctx, uint64_t bytes), void *ctx)
{
    tr_time deadline = tr_deadline_after(tr_now(), timeout);
    uint64_t seen;
    tr_status st;

    /* Who is lost while it loads leaves its experts to others, who load them before it begins. */
    do {
        seen = tr_members_changes(c->members);
        st = tr_members_await_ready(c->members, deadline, watch, ctx);
        if (st == TR_OK)
            st = tr_recovery_look(c->recovery);
    } while (st == TR_OK && seen != tr_members_changes(c->members));
    if (st == TR_E_BUSY) {
        char text[256];
        tr_recovery_short(c->recovery, text, sizeof text);
        st = tr_fail(TR_E_PEER_LOST, "%s: give the cluster more workers or more memory", text);
    }
    return st == TR_OK ? tr_members_await_ready(c->members, deadline, watch, ctx) : st;
}

void tr_cluster_close(tr_cluster **c)
{
    if (!*c)
        return;
    tr_recovery_free(&(*c)->recovery);
    tr_members_close(&(*c)->members);
    tr_replacement_free(&(*c)->replacement);
    free(*c);
    *c = NULL;
}

const tr_kernels *tr_cluster_kernels(const tr_cluster *c)
{
    return c->kernels;
}

tr_members *tr_cluster_members(tr_cluster *c)
{
    return c->members;
}

tr_recovery *tr_cluster_recovery(tr_cluster *c)
{
    return c->recovery;
}

uint64_t tr_cluster_job(const tr_cluster *c)
{
    return tr_members_job(c->members);
}

void tr_cluster_call_off(tr_transport *t)
{
    for (uint32_t peer = 1; peer <= t->n_peers; peer++) {
        tr_msg *m = NULL;
        tr_frame_header h = { .kind = TR_FRAME_STOP };
        if (tr_transport_reserve(t, peer, tr_frame_text_size(0), &m) != TR_OK)
            return;
        tr_frame_begin(m->data, &h, 0);
        tr_frame_seal(m->data);
        if (tr_transport_send(t, peer, &m) != TR_OK)
            tr_log(TR_LOG_DEBUG, "worker %u could not be told to stop", peer);
        tr_msg_free(&m);
    }
}
