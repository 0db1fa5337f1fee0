/* serve_options.h - what the user asked of `troupe serve`.
 *
 * USE     st = tr_serve_options_parse(argc, argv, &o, &done);     argv[0] is "serve"
 *         st = tr_serve_options_words(argc, argv, &words);        for the launcher; free(words)
 *
 * MEMORY  Strings are borrowed from argv; words own theirs, in one block.
 * FAILS   TR_E_USAGE, with one line that names the option, the value and what is allowed.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_SERVE_OPTIONS_H
#define TR_COORDINATOR_COMMANDS_SERVE_OPTIONS_H

#include "base/status.h"
#include "compute/types.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *model, *name;      /* name: for clients; NULL: the file's */
    const char *host, *host_names; /* of it in URLs, separated by commas; NULL: only its own */
    const char *api_keys, *tls_cert, *tls_key, *new_key, *chat_template;
    bool is_insecure; /* listen beyond loopback without keys or TLS */
    uint64_t port, parallel, queue, ctx, cache, batch, threads;
    uint64_t max_body_kib, connections, idle_s, drain_s;
    tr_type kv;
    bool ignores_groups; /* of experts */
    const char *isa, *listen;
    uint64_t workers;
    uint64_t outside;       /* workers that come from elsewhere, */
    const char *invite_dir; /* their invitations; NULL if there are none */
    const char *cluster, *worker_binary;
    bool places_rotating;
    bool by_zmq; /* how workers get their rows; else by MPI */
    uint32_t experts[TR_MAX_WORKERS];
    size_t n_experts;
    uint64_t join_ms, suspect_ms, silence_ms, share_ms;
    const char *replacement;                            /* NULL: auto */
    uint64_t memory_mib;                                /* 0: what there is */
    const char *faults;                                 /* a plan's file; NULL: none */
    uint64_t worker_memory_mib, coordinator_memory_mib; /* for experts */
} tr_serve_options;

/* done: --help was printed. */
tr_status tr_serve_options_parse(int argc, char **argv, tr_serve_options *o, bool *done);

/* The options again, as --name=value each, without those of the launcher; NULL-terminated. */
tr_status tr_serve_options_words(int argc, char **argv, const char ***words);

#endif
