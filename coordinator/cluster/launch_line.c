/* launch_line.c - words for mpirun, and their quoting for a shell.
 *
 * Options of `troupe run` are handed on as --name=value in one word: a prompt ":" would
 * otherwise end the program context, and an empty one would vanish from sight.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/launch_line.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- words --------------------------------------------------------------------------------- */

typedef struct {
    tr_launch_line *line;
    bool failed; /* out of memory: everything after is ignored */
} writer;

__attribute__((format(printf, 2, 3))) static void put(writer *w, const char *format, ...)
{
    tr_launch_line *l = w->line;
    va_list args;
    char *word;

    if (w->failed)
        return;
    if (l->n + 2 > l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        char **grown = realloc(l->word, capacity * sizeof *grown);
        if (!grown) {
            w->failed = true;
            return;
        }
        l->word = grown;
        l->capacity = capacity;
    }
    va_start(args, format);
    w->failed = vasprintf(&word, format, args) < 0;
    va_end(args);
    if (w->failed)
        return;
    l->word[l->n++] = word;
    l->word[l->n] = NULL;
}

static void put_all(writer *w, const char *const *words)
{
    for (; *words; words++)
        put(w, "%s", *words);
}

/* --- mpirun's own options ------------------------------------------------------------------ */

static bool is_here(const char *host, const tr_launch_facts *f)
{
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "127.0.0.1") == 0 ||
           strcasecmp(host, f->hostname) == 0;
}

/* The interfaces to use, NULL to leave it to Open MPI. */
static const char *network_of(const tr_cluster_config *c, const tr_launch_facts *f)
{
    if (c && c->network)
        return c->network;
    for (size_t i = 0; c && i < c->n_hosts; i++)
        if (!is_here(c->host[i].name, f))
            return NULL;
    return "lo";
}

/* One parameter of Open MPI, unless the file gives it: mpirun refuses it twice. */
static void put_parameter(writer *w, const tr_cluster_config *c, const char *flag, const char *name,
                          const char *value)
{
    for (size_t i = 0; c && i < c->n_arguments; i++)
        if (strcmp(c->argument[i], name) == 0)
            return;
    put(w, "%s", flag);
    put(w, "%s", name);
    put(w, "%s", value);
}

/* Sizes are a few rows of activations: with a small limit each message would wait for a handshake
 * first. */
static void put_eager(writer *w, const tr_cluster_config *c)
{
    char bytes[16];

    if (!c || c->eager_bytes == 0)
        return;
    snprintf(bytes, sizeof bytes, "%u", c->eager_bytes);
    put_parameter(w, c, "--mca", "btl_tcp_eager_limit", bytes);
}

static bool is_shell(const char *argument)
{
    return strcmp(argument, "plm_rsh_agent") == 0;
}

/* mpirun 4.x ends the job when a daemon's remote shell ends, as it does with its host: so ours
 * stands between (commands/remote_shell.h), on the one machine where it is known to be. */
static void put_shell(writer *w, const tr_cluster_config *c, const tr_launch_facts *f)
{
    bool is_given = false;
    bool has_far = false;

    for (size_t i = 0; c && i < c->n_hosts; i++)
        has_far = has_far || !is_here(c->host[i].name, f);
    for (size_t i = 0; c && i < c->n_arguments; i++)
        is_given = is_given || is_shell(c->argument[i]);
    if (!has_far)
        return;
    put_parameter(w, c, "--mca", "plm_rsh_no_tree_spawn", "1");
    if (is_given) /* put_arguments */
        return;
    put_all(w, (const char *const[]){ "--mca", "plm_rsh_agent", NULL });
    put(w, "%s remote-shell ssh", f->program);
}

/* The file's own, last. */
static void put_arguments(writer *w, const tr_cluster_config *c, const tr_launch_facts *f)
{
    for (size_t i = 0; c && i < c->n_arguments; i++)
        if (i > 0 && is_shell(c->argument[i - 1]) && f->open_mpi < 5)
            put(w, "%s remote-shell %s", f->program, c->argument[i]);
        else
            put(w, "%s", c->argument[i]);
}

/* A rank that dies must not take the job with it: --enable-recovery in 4.x.  Idle ranks give
 * their core away.  tcp is in the list since shared memory alone can't reach a later process. */
static void put_options_4(writer *w, const tr_cluster_config *c, const tr_launch_facts *f,
                          const char *network)
{
    put_all(w, (const char *const[]){ "--enable-recovery", "--oversubscribe", "--bind-to", "none",
                                      NULL });
    put_parameter(w, c, "--mca", "mpi_yield_when_idle", "1");
    put_parameter(w, c, "--mca", "btl", "self,vader,tcp");
    if (network) {
        put_parameter(w, c, "--mca", "btl_tcp_if_include", network);
        put_parameter(w, c, "--mca", "oob_tcp_if_include", network);
    }
    put_shell(w, c, f);
    put_eager(w, c);
}

/* 5.x has ULFM; --enable-recovery alone would let a dead rank's socket kill the coordinator. */
static void put_options_5(writer *w, const tr_cluster_config *c, const char *network)
{
    put_all(w,
            (const char *const[]){ "--with-ft", "ulfm", "--map-by", ":OVERSUBSCRIBE", "--bind-to",
                                   "none", "--runtime-options", "error-nonzero-status=0", NULL });
    put_parameter(w, c, "--prtemca", "prte_allowed_exit_without_sync", "1");
    put_parameter(w, c, "--mca", "mpi_yield_when_idle", "1");
    put_parameter(w, c, "--mca", "btl", "self,sm,tcp");
    if (c && c->n_hosts > 1) /* a silent daemon would otherwise end the job after 8 minutes */
        put_parameter(w, c, "--prtemca", "oob_tcp_keepalive_time", "0");
    if (network) {
        put_parameter(w, c, "--mca", "btl_tcp_if_include", network);
        put_parameter(w, c, "--prtemca", "prte_if_include", network);
    }
    put_eager(w, c);
}

static void put_mpirun(writer *w, const tr_cluster_config *c, const tr_launch_facts *f)
{
    const char *network = network_of(c, f);

    put(w, "%s", f->mpirun);
    if (f->is_root) /* refused otherwise */
        put(w, "--allow-run-as-root");
    if (f->open_mpi >= 5)
        put_options_5(w, c, network);
    else
        put_options_4(w, c, f, network);
    if (f->reports)
        put_all(w, (const char *const[]){ "-x", "TROUPE_RUN_DIR", NULL });
    put_arguments(w, c, f);
}

/* --- the programs -------------------------------------------------------------------------- */

static void put_option(void *ctx, const char *name, const char *value, bool launcher_only)
{
    if (launcher_only)
        return;
    if (value)
        put(ctx, "--%s=%s", name, value);
    else
        put(ctx, "--%s", name);
}

static void put_experts(writer *w, const tr_cluster_config *c)
{
    size_t size = c->n_workers * (size_t)12;
    char *list = malloc(size);
    size_t at = 0;

    if (!list) {
        w->failed = true;
        return;
    }
    for (uint32_t i = 0; i < c->n_workers; i++)
        at += (size_t)snprintf(list + at, size - at, "%s%u", i ? "," : "", c->experts[i]);
    put(w, "--experts=%s", list);
    free(list);
}

/* What the file says, before the command line's options: the last one counts. */
static void put_from_file(writer *w, const tr_run_options *o, const tr_cluster_config *c)
{
    if (c->model && !o->model)
        put(w, "--model=%s", c->model);
    if (c->coordinator_threads > 0)
        put(w, "--threads=%u", c->coordinator_threads);
    if (c->listen)
        put(w, "--listen=%s", c->listen);
    if (c->transport == TR_CLUSTER_TRANSPORT_MPI)
        put(w, "--transport=mpi");
    if (c->transport == TR_CLUSTER_TRANSPORT_ZMQ)
        put(w, "--transport=zmq");
    if (c->share_ms > 0)
        put(w, "--timeout-ms=%u", c->share_ms);
    if (c->suspect_ms > 0)
        put(w, "--suspect-ms=%u", c->suspect_ms);
    if (c->replacement)
        put(w, "--replacement=%s", c->replacement);
    if (c->worker_memory_mib > 0)
        put(w, "--worker-memory-mib=%u", c->worker_memory_mib);
    if (c->coordinator_memory_mib > 0)
        put(w, "--coordinator-memory-mib=%u", c->coordinator_memory_mib);
    if (c->silence_ms > 0)
        put(w, "--silence-ms=%u", c->silence_ms);
    if (c->join_ms > 0)
        put(w, "--join-timeout-ms=%u", c->join_ms);
    if (o->n_experts > 0 || o->placement != TR_RUN_PLACE_EVEN)
        return; /* the command line places the experts */
    if (c->placement == TR_CLUSTER_PLACE_ROTATE)
        put(w, "--placement=rotate");
    if (c->experts)
        put_experts(w, c);
}

static void put_workers(writer *w, const tr_launch_facts *f, const tr_cluster_host *host,
                        uint32_t n, const tr_run_options *o)
{
    uint64_t threads = o->worker_threads ? o->worker_threads : host->threads;

    put_all(w, (const char *const[]){ ":", "--host", NULL });
    put(w, "%s:%u", host->name, n);
    put(w, "-n");
    put(w, "%u", n);
    put(w, "%s", f->worker);
    if (threads > 0) {
        put(w, "--threads");
        put(w, "%llu", (unsigned long long)threads);
    }
    if (host->model) {
        put(w, "--model");
        put(w, "%s", host->model);
    }
}

static tr_status line_check(const tr_run_options *o, const tr_cluster_config *c, bool has_words)
{
    if (!c)
        return TR_OK;
    if (!o->model && !c->model && !has_words)
        return tr_fail(TR_E_USAGE, "no model: give -m FILE, or the key model in %.256s",
                       o->cluster ? o->cluster : "the cluster file");
    if (o->n_experts > 0 && o->n_experts != c->n_workers)
        return tr_fail(TR_E_USAGE, "--experts: %zu numbers for %u workers; give one for each",
                       o->n_experts, c->n_workers);
    return TR_OK;
}

tr_status tr_launch_line_compose(const tr_run_options *o, const tr_cluster_config *c, int argc,
                                 char **argv, const tr_launch_facts *facts, tr_launch_line *out)
{
    tr_cluster_host here = { .name = "localhost", .slots = (uint32_t)o->workers };
    const tr_cluster_host *host = c ? c->host : &here;
    const tr_cluster_host *first = c ? &c->host[c->coordinator] : &here;
    const size_t n_hosts = c ? c->n_hosts : 1;
    uint32_t left = c ? c->n_workers : here.slots;
    tr_launch_line line = { 0 };
    writer w = { &line, false };
    tr_status st = line_check(o, c, facts->words != NULL);

    if (st != TR_OK)
        return st;
    put_mpirun(&w, c, facts);
    put(&w, "--host");
    put(&w, "%s:1", first->name);
    put_all(&w, (const char *const[]){ "-n", "1", facts->program, facts->command, NULL });
    line.coordinator_is_here = is_here(first->name, facts);
    if (c)
        put_from_file(&w, o, c);
    if (facts->words) {
        put_all(&w, facts->words);
    } else {
        if (facts->shows_progress && !o->quiet && !o->progress)
            put(&w, "--progress");
        tr_run_options_each(argc, argv, put_option, &w);
    }
    for (size_t i = 0; i < n_hosts && left > 0; i++) {
        uint32_t n = host[i].slots < left ? host[i].slots : left;
        if (n == 0)
            continue;
        put_workers(&w, facts, &host[i], n, o);
        line.worker_is_here = line.worker_is_here || is_here(host[i].name, facts);
        left -= n;
    }
    if (w.failed) {
        tr_launch_line_fini(&line);
        return tr_fail(TR_E_MEMORY, "no memory for the mpirun line");
    }
    *out = line;
    return TR_OK;
}

void tr_launch_line_fini(tr_launch_line *line)
{
    for (size_t i = 0; i < line->n; i++)
        free(line->word[i]);
    free(line->word);
    *line = (tr_launch_line){ 0 };
}

/* --- quoting ------------------------------------------------------------------------------- */

static bool is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

static bool is_plain(const char *word)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789_@%+=:,./-";

    return word[0] != '\0' && word[strspn(word, safe)] == '\0';
}

/* 'it'\''s', or $'a\nb' when a control character would break the line. */
static void word_quote(FILE *to, const char *word)
{
    bool escapes = false;

    if (is_plain(word)) {
        fputs(word, to);
        return;
    }
    for (const char *c = word; *c; c++)
        escapes = escapes || is_control(*c);
    fputs(escapes ? "$'" : "'", to);
    for (const char *c = word; *c; c++) {
        if (!escapes && *c == '\'')
            fputs("'\\''", to);
        else if (is_control(*c))
            fprintf(to, "\\%03o", (unsigned)(unsigned char)*c);
        else if (escapes && (*c == '\'' || *c == '\\'))
            fprintf(to, "\\%c", *c);
        else
            fputc(*c, to);
    }
    fputc('\'', to);
}

tr_status tr_launch_line_quote(const tr_launch_line *line, char **out)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return tr_fail(TR_E_MEMORY, "no memory for the mpirun line");
    for (size_t i = 0; i < line->n; i++) {
        if (i > 0)
            fputc(' ', to);
        word_quote(to, line->word[i]);
    }
    if (fclose(to) != 0) {
        free(text);
        return tr_fail(TR_E_MEMORY, "no memory for the mpirun line");
    }
    *out = text;
    return TR_OK;
}
