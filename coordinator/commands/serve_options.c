/* serve_options.c - one table of options: getopt, the help and the launcher's words read it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/serve_options.h"

#include "compute/pool.h"
#include "coordinator/commands/option.h"
#include "coordinator/commands/run_options.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { TEXT, NUMBER, FLAG, TYPE, GROUPS, PLACEMENT, EXPERTS, TRANSPORT, HELP } kind;

typedef struct {
    const char *name, *value, *help; /* help NULL: only for launchers */
    kind kind;
    size_t offset;
    uint64_t low, high;
    char letter;
    bool is_launchers; /* not handed on */
} option_info;

#define AT(field) offsetof(tr_serve_options, field)

enum { SECONDS = 86400, MS = 3600000 };

static const option_info options[] = {
    { "model", "FILE", "the model", TEXT, AT(model), 0, 0, 'm', false },
    { "workers", "N", "launch N workers with mpirun, which host the experts", NUMBER, AT(workers),
      0, TR_MAX_WORKERS, 'w', true },
    { "cluster", "FILE", "launch what a cluster file describes", TEXT, AT(cluster), 0, 0, 0, true },
    { "worker-binary", "FILE", "with -w or --cluster: the worker (troupe-worker beside troupe)",
      TEXT, AT(worker_binary), 0, 0, 0, true },
    { "host", "ADDRESS", "to listen on (127.0.0.1)", TEXT, AT(host), 0, 0, 0, false },
    { "port", "N", "to listen on; 0: any that is free (8080)", NUMBER, AT(port), 0, 65535, 0,
      false },
    { "host-name", "NAMES", "further names of this server in URLs, such as one,two.example", TEXT,
      AT(host_names), 0, 0, 0, false },
    { "name", "TEXT", "the model's name for clients (from the file)", TEXT, AT(name), 0, 0, 0,
      false },
    { "chat-template", "NAME", "of conversations, if the file's is not recognised", TEXT,
      AT(chat_template), 0, 0, 0, false },
    { "parallel", "N", "answers written at once (64)", NUMBER, AT(parallel), 1, 1024, 0, false },
    { "queue", "N", "requests that may wait; more are refused (256)", NUMBER, AT(queue), 0, 65536,
      0, false },
    { "ctx", "N", "tokens of one prompt and its answer (the model's, at most 8192)", NUMBER,
      AT(ctx), 2, TR_RUN_MAX_TOKENS, 0, false },
    { "cache", "N", "tokens of all prompts and answers in memory (an eighth of it)", NUMBER,
      AT(cache), 0, UINT32_MAX, 0, false },
    { "kv", "TYPE", "of keys and values: f16, f32 or q8_0 (f16)", TYPE, AT(kv), 0, 0, 0, false },
    { "expert-groups", "on|off", "off: pick among all experts, though the model has groups (on)",
      GROUPS, AT(ignores_groups), 0, 0, 0, false },
    { "batch", "N", "rows of one step (256)", NUMBER, AT(batch), 1, TR_MAX_ROWS, 0, false },
    { "memory-mib", "N", "refuse what needs more in this process (0: all there is)", NUMBER,
      AT(memory_mib), 0, 1 << 30, 0, false },
    { "threads", "N", "of this process; 0: all cores (0)", NUMBER, AT(threads), 0,
      TR_POOL_MAX_THREADS, 0, false },
    { "isa", "NAME", "kernels: c, avx2, avx512 or neon (the best that all processes have)", TEXT,
      AT(isa), 0, 0, 0, false },
    { "api-keys", "FILE", "only who has one of these keys may ask", TEXT, AT(api_keys), 0, 0, 0,
      false },
    { "new-key", "FILE", "add a key to the file, show it, and end", TEXT, AT(new_key), 0, 0, 0,
      true },
    { "tls-cert", "FILE", "certificate chain, PEM: speak HTTPS", TEXT, AT(tls_cert), 0, 0, 0,
      false },
    { "tls-key", "FILE", "its private key, PEM", TEXT, AT(tls_key), 0, 0, 0, false },
    { "insecure", NULL, "listen beyond this machine without keys or TLS", FLAG, AT(is_insecure), 0,
      0, 0, false },
    { "max-body-kib", "N", "of one request (4096)", NUMBER, AT(max_body_kib), 1, 1 << 20, 0,
      false },
    { "connections", "N", "at once (512)", NUMBER, AT(connections), 1, 65536, 0, false },
    { "idle-s", "N", "a client that neither sends nor takes is cut off (60)", NUMBER, AT(idle_s), 1,
      SECONDS, 0, false },
    { "drain-s", "N", "to finish answers after SIGTERM (30)", NUMBER, AT(drain_s), 0, SECONDS, 0,
      false },
    { "placement", "even|rotate", "which experts go where; changes no output (even)", PLACEMENT,
      AT(places_rotating), 0, 0, 0, false },
    { "experts", "LIST", "experts of each layer on worker 1, 2, ..., such as 16,8,8", EXPERTS,
      AT(experts), 0, 0, 0, false },
    { "listen", "HOST[:PORT]", "where workers reach this process (loopback)", TEXT, AT(listen), 0,
      0, 0, false },
    { "join-timeout-ms", "N", "until all workers have come up (60000)", NUMBER, AT(join_ms), 100,
      SECONDS * 1000, 0, false },
    { "suspect-ms", "N", "a worker silent for longer is passed over until it speaks (600)", NUMBER,
      AT(suspect_ms), 20, MS, 0, false },
    { "silence-ms", "N", "a worker silent for longer is lost (10000)", NUMBER, AT(silence_ms), 100,
      MS, 0, false },
    { "replacement", "COMMAND", "starts one for a lost worker; none; auto: troupe-worker here",
      TEXT, AT(replacement), 0, 0, 0, false },
    { "faults", "FILE", "let workers fail as a plan says (see docs/reliability.md)", TEXT,
      AT(faults), 0, 0, 0, false },
    { "worker-memory-mib", "N", "of experts in each worker, lost ones' too (0: 90% of its share)",
      NUMBER, AT(worker_memory_mib), 0, 1 << 30, 0, false },
    { "coordinator-memory-mib", "N", "of lost workers' experts in the coordinator (0: the same)",
      NUMBER, AT(coordinator_memory_mib), 0, 1 << 30, 0, false },
    { "timeout-ms", "N", "until a worker has answered a share (30000)", NUMBER, AT(share_ms), 1, MS,
      0, false },
    { "outside", "N", "N workers more come from elsewhere: troupe-worker --join (0)", NUMBER,
      AT(outside), 0, TR_MAX_WORKERS, 0, false },
    { "invite-dir", "DIR", "with --outside: where their invitations are written", TEXT,
      AT(invite_dir), 0, 0, 0, false },
    { "transport", "NAME", "how workers get their rows: mpi, zmq or auto (auto: mpi)", TRANSPORT,
      AT(by_zmq), 0, 0, 0, false },
    { "help", NULL, "show this", HELP, 0, 0, 0, 'h', true },
};

enum { N = sizeof options / sizeof options[0], LETTERS = 256 };

static void help_print(void)
{
    fputs("usage: troupe serve -m FILE [options]\n"
          "       troupe serve -m FILE -w 3 --port 8080\n"
          "\n"
          "Serves a model over HTTP, as the OpenAI interface does, to many users at once, with a "
          "page\n"
          "at / that shows the cluster at work.  SIGTERM lets answers finish first.\n"
          "\n",
          stdout);
    for (size_t i = 0; i < N; i++) {
        const option_info *o = &options[i];
        char left[40], letter[8] = "";
        if (!o->help)
            continue;
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %-25s %s\n", left, o->help);
    }
}

static tr_status set_experts(const char *text, tr_serve_options *o)
{
    size_t n;
    tr_status st = tr_run_ids_parse(text, "--experts", o->experts, TR_MAX_WORKERS, &n);

    for (size_t i = 0; st == TR_OK && i < n; i++)
        if (o->experts[i] == 0 || o->experts[i] > TR_MAX_EXPERTS)
            st = tr_fail(TR_E_USAGE, "--experts: number %zu is %u; give 1..%d", i + 1,
                         o->experts[i], TR_MAX_EXPERTS);
    o->n_experts = st == TR_OK ? n : 0;
    return st;
}

static tr_status set_word(const option_info *info, const char *text, const char *a, const char *b,
                          bool *is_b)
{
    *is_b = strcmp(text, b) == 0;
    return *is_b || strcmp(text, a) == 0
               ? TR_OK
               : tr_fail(TR_E_USAGE, "--%s %.40s: must be %s or %s", info->name, text, a, b);
}

static tr_status set(const option_info *info, const char *text, tr_serve_options *o, bool *done)
{
    void *at = (char *)o + info->offset;

    switch (info->kind) {
    case TEXT:
        memcpy(at, &text, sizeof text);
        return TR_OK;
    case NUMBER:
        return tr_option_number(info->name, text, info->low, info->high, at);
    case FLAG:
        *(bool *)at = true;
        return TR_OK;
    case TYPE:
        return tr_option_kv(text, at);
    case PLACEMENT:
        return set_word(info, text, "even", "rotate", at);
    case GROUPS:
        return set_word(info, text, "on", "off", at);
    case EXPERTS:
        return set_experts(text, o);
    case TRANSPORT:
        return tr_option_transport(text, at);
    case HELP:
        break;
    }
    help_print();
    *done = true;
    return TR_OK;
}

/* getopt's tables from ours: an option's number in ours is LETTERS + index. */
static void tables(struct option *longs, char *letters)
{
    size_t used = 0;

    letters[used++] = ':';
    for (size_t i = 0; i < N; i++) {
        bool has_value = options[i].value != NULL;
        longs[i] = (struct option){ options[i].name, has_value ? required_argument : no_argument,
                                    NULL, LETTERS + (int)i };
        if (options[i].letter) {
            letters[used++] = options[i].letter;
            if (has_value)
                letters[used++] = ':';
        }
    }
    longs[N] = (struct option){ 0 };
    letters[used] = '\0';
}

static const option_info *info_of(int c)
{
    if (c >= LETTERS)
        return &options[c - LETTERS];
    for (size_t i = 0; i < N; i++)
        if (c > 0 && options[i].letter == c)
            return &options[i];
    return NULL;
}

/* The next option; NULL at the end or for something wrong (*st). */
static const option_info *next_option(int argc, char **argv, tr_status *st)
{
    struct option longs[N + 1];
    char letters[2 * N + 2];

    tables(longs, letters);
    int c = getopt_long(argc, argv, letters, longs, NULL);
    const char *word = argv[optind - 1];
    *st = TR_OK;
    if (c == -1) {
        if (optind < argc)
            *st = tr_fail(TR_E_USAGE, "unexpected argument \"%.80s\"", argv[optind]);
        return NULL;
    }
    const option_info *info = c == ':' || c == '?' ? NULL : info_of(c);
    if (!info)
        *st = tr_fail(TR_E_USAGE,
                      c == ':' ? "%.80s needs a value; see troupe serve --help"
                               : "unknown option %.80s; see troupe serve --help",
                      word);
    return info;
}

static tr_status check(const tr_serve_options *o)
{
    bool is_far = strcmp(o->host, "::1") != 0 && strncmp(o->host, "127.", 4) != 0;

    if (o->new_key)
        return TR_OK;
    if (!o->model && !o->cluster)
        return tr_fail(TR_E_USAGE, "no model: give -m FILE");
    if (!o->tls_cert != !o->tls_key)
        return tr_fail(TR_E_USAGE, "--tls-cert and --tls-key belong together");
    if (is_far && !o->is_insecure && (!o->api_keys || !o->tls_cert))
        return tr_fail(TR_E_USAGE,
                       "--host %s: others can reach it, so give --api-keys, --tls-cert and "
                       "--tls-key, or say --insecure",
                       o->host);
    if (o->n_experts > 0 && o->places_rotating)
        return tr_fail(TR_E_USAGE, "--experts and --placement rotate: give only one of them");
    if (o->workers > 0 && o->cluster)
        return tr_fail(TR_E_USAGE, "--workers and --cluster: give only one of them");
    if ((o->outside > 0) != (o->invite_dir != NULL))
        return tr_fail(TR_E_USAGE, "--outside and --invite-dir: give both or none of them");
    return TR_OK;
}

tr_status tr_serve_options_parse(int argc, char **argv, tr_serve_options *o, bool *done)
{
    const option_info *info;
    tr_status st = TR_OK;

    memset(o, 0, sizeof *o);
    o->host = "127.0.0.1";
    o->port = 8080;
    o->parallel = 64;
    o->queue = 256;
    o->batch = 256;
    o->kv = TR_TYPE_F16;
    o->max_body_kib = 4096;
    o->connections = 512;
    o->idle_s = 60;
    o->drain_s = 30;
    o->join_ms = 60000;
    o->suspect_ms = 600;
    o->silence_ms = 10000;
    o->share_ms = 30000;
    optind = 1;
    opterr = 0;
    while (st == TR_OK && !*done && (info = next_option(argc, argv, &st)) != NULL)
        st = set(info, optarg, o, done);
    return st == TR_OK && !*done ? check(o) : st;
}

tr_status tr_serve_options_words(int argc, char **argv, const char ***words)
{
    const option_info *info;
    tr_status st = TR_OK;
    size_t size = 0, n = 0;

    for (int i = 0; i < argc; i++)
        size += strlen(argv[i]) + 64; /* an abbreviated name becomes a whole one */
    const char **list = calloc(1, ((size_t)argc + 1) * sizeof *list + size);
    if (!list)
        return tr_fail(TR_E_MEMORY, "serve: no memory");
    char *text = (char *)(list + argc + 1);
    optind = 1;
    while ((info = next_option(argc, argv, &st)) != NULL) {
        if (info->is_launchers)
            continue;
        list[n++] = text;
        int used = snprintf(text, size, "--%s%s%s", info->name, info->value ? "=" : "",
                            info->value ? optarg : "");
        text += used + 1;
        size -= (size_t)used + 1;
    }
    *words = list;
    return st;
}
