/* run_options.h - what the user asked of `troupe run` or `troupe eval`.
 *
 * One table describes every option: its name, type, range, default and help.  The parser, the
 * help text and the list that a launcher hands on all read that table, so none of them can
 * forget an option.  eval shares the options of model, text, arithmetic and cluster; where it takes
 * FILE without an option's name, that is --file.
 *
 * USE     tr_run_options o;
 *         bool done;
 *         st = tr_run_options_parse(argc, argv, &o, &done);     argv[0] is "run" or "eval"
 *         if (st != TR_OK || done)
 *             return st;                                        done: --help was printed
 *
 * MEMORY  Strings are borrowed from argv.
 * THREAD  getopt has one global state: one thread at a time.
 * FAILS   TR_E_USAGE, with one line that names the option, the value and what is allowed.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_RUN_OPTIONS_H
#define TR_COORDINATOR_COMMANDS_RUN_OPTIONS_H

#include "base/status.h"
#include "compute/pool.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TR_RUN_MAX_STOPS = 16,
    TR_RUN_MAX_STOP_SIZE = 256,  /* bytes of one stop string */
    TR_RUN_MAX_TOKENS = 1 << 24, /* of a prompt, an answer, a context */
    TR_RUN_MAX_THREADS = TR_POOL_MAX_THREADS,
    TR_RUN_WINDOW = 512, /* tokens of a window of eval */
};

typedef enum { TR_RUN_ACTIVATIONS_AUTO, TR_RUN_ACTIVATIONS_F32 } tr_run_activations;
typedef enum { TR_RUN_KV_F16, TR_RUN_KV_F32, TR_RUN_KV_Q8_0 } tr_run_kv;
typedef enum { TR_RUN_GROUPS_ON, TR_RUN_GROUPS_OFF } tr_run_groups;
typedef enum { TR_RUN_BOS_AUTO, TR_RUN_BOS_ON, TR_RUN_BOS_OFF } tr_run_bos;
typedef enum {
    TR_RUN_TRANSPORT_AUTO,
    TR_RUN_TRANSPORT_MPI,
    TR_RUN_TRANSPORT_ZMQ,
    TR_RUN_TRANSPORT_INPROC,
} tr_run_transport;
typedef enum { TR_RUN_PLACE_EVEN, TR_RUN_PLACE_ROTATE } tr_run_placement;

typedef struct tr_run_options {
    /* The model and exactly one of the five prompts. */
    const char *model;         /* NULL only if cluster is set */
    const char *prompt;        /* text, or NULL */
    bool prompt_stdin;         /* -p - */
    bool chat;                 /* --chat: messages from standard input instead of a prompt */
    const char *chat_template; /* a family's name, or NULL: the file's */
    const char *prompt_file;   /* -f */
    const char *ids;           /* --ids, a checked list for tr_run_ids_parse */
    const char *ids_file;      /* --ids-file, the same in a file */

    /* Generation. */
    uint64_t tokens, ctx, threads, batch; /* ctx 0: the model's; threads 0: all cores */
    const char *stop[TR_RUN_MAX_STOPS];
    size_t n_stops;
    uint32_t bos; /* tr_run_bos */
    bool ignore_eos;

    /* Evaluation. */
    bool is_eval;     /* the command is eval: ctx is the window, 0: TR_RUN_WINDOW or the model's */
    uint64_t skip;    /* positions at a window's begin that don't count, only if has_skip */
    bool has_skip;    /* else half of the window */
    uint64_t top;     /* tokens of each position that a base file keeps; 0: all */
    const char *save; /* a base file to write, or NULL */
    bool overwrite;   /* which may be there already */
    const char *kl;   /* a base file to compare with, or NULL */

    /* Sampling. */
    double temp, top_p, min_p, repeat_penalty;
    uint64_t top_k; /* 0: off */
    uint64_t seed;  /* only if has_seed, else the caller draws one */
    bool has_seed;

    /* Numbers. */
    uint32_t activations, kv; /* tr_run_activations, tr_run_kv */
    uint32_t expert_groups;   /* tr_run_groups */
    const char *isa;          /* NULL: the best of this processor */

    /* Output. */
    bool json, verbose, quiet, progress;
    uint64_t logprobs; /* most likely tokens listed per step, 0: none */

    /* Cluster. */
    uint64_t workers; /* only if has_workers: launch that many on this machine */
    bool has_workers;
    const char *cluster; /* a configuration file to launch from */
    bool dry_run;
    uint32_t transport, placement; /* tr_run_transport, tr_run_placement */
    uint32_t experts[TR_MAX_WORKERS];
    size_t n_experts; /* 0: as placement says, else of each layer on each worker */
    const char *listen;
    uint64_t outside;       /* workers that come from elsewhere, */
    const char *invite_dir; /* their invitations; NULL if there are none */
    const char *worker_binary;
    uint64_t worker_threads;                                      /* 0: the worker decides */
    uint64_t timeout_ms, suspect_ms, silence_ms, join_timeout_ms; /* share, heartbeat, start-up */
    const char *replacement;                                      /* NULL: auto */
    const char *faults;                                           /* a plan's file; NULL: none */
    uint64_t memory_mib;                                          /* 0: what there is */
    uint64_t worker_memory_mib, coordinator_memory_mib;           /* for experts */
} tr_run_options;

/* *done: the help was written to stdout and there is nothing to run; *out is then unset. */
tr_status tr_run_options_parse(int argc, char **argv, tr_run_options *out, bool *done);

/* Calls fn for each option in argv, in order: its long name, its value (NULL for a flag), and
 * whether only the launching process needs it.  argv must have passed tr_run_options_parse. */
void tr_run_options_each(int argc, char **argv,
                         void (*fn)(void *ctx, const char *name, const char *value,
                                    bool launcher_only),
                         void *ctx);

/* Reads a list of numbers separated by blanks, commas or newlines.  what names its origin in an
 * error line.  out may be NULL to count only; more than max numbers is an error. */
tr_status tr_run_ids_parse(const char *text, const char *what, uint32_t *out, size_t max,
                           size_t *n);

#endif
