/* run_options.c - the table of options, and the small machine that reads it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/run_options.h"

#include "coordinator/cluster/address.h"
#include "coordinator/engine/generate.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    KIND_HEADING, /* no option: a title in the help */
    KIND_FLAG,
    KIND_TEXT,
    KIND_COUNT, /* an unsigned number */
    KIND_REAL,
    KIND_CHOICE,
    KIND_PROMPT,
    KIND_STOP,
    KIND_IDS,
    KIND_EXPERTS,
    KIND_LISTEN,
    KIND_HELP,
} kind;

typedef enum { FOR_BOTH, FOR_RUN, FOR_EVAL } audience; /* whose option it is */

enum { NOWHERE = 0 }; /* offset 0 is model, which has no has_ flag */

typedef struct {
    const char *name, *argument, *help;
    char letter;
    bool launcher_only, hidden;
    kind kind;
    audience who;
    size_t at, has_at;
    uint64_t low, high;         /* KIND_COUNT */
    double real_low, real_high; /* KIND_REAL */
    const char *choice[5];      /* KIND_CHOICE: the value is the index; NULL-terminated */
} spec;

#define AT(field)  .at = offsetof(tr_run_options, field)
#define HAS(field) .has_at = offsetof(tr_run_options, field)

static const spec specs[] = {
    { .kind = KIND_HEADING, .who = FOR_RUN, .help = "Model and prompt" },
    { .kind = KIND_HEADING, .who = FOR_EVAL, .help = "Model and text" },
    { "model", "FILE", "the model, a GGUF file", 'm', .kind = KIND_TEXT, AT(model) },
    { "prompt", "TEXT", "the text; - reads it from standard input", 'p', .kind = KIND_PROMPT },
    { "file", "FILE", "read the text from a file", 'f', .kind = KIND_TEXT, AT(prompt_file) },
    { "chat", NULL, "talk: messages from standard input, answers to all said so far",
      .kind = KIND_FLAG, .who = FOR_RUN, AT(chat) },
    { "chat-template", "NAME", "with --chat: of conversations, if the file's is not recognised",
      .kind = KIND_TEXT, .who = FOR_RUN, AT(chat_template) },
    { "ids", "LIST", "the text as token ids, such as \"1 2 3\"", .kind = KIND_IDS, AT(ids) },
    { "ids-file", "FILE", "the same from a file", .kind = KIND_TEXT, AT(ids_file) },
    { "bos", "auto|on|off", "put the begin token in front (auto: as the model says)",
      .kind = KIND_CHOICE, AT(bos), .choice = { "auto", "on", "off" } },

    { .kind = KIND_HEADING, .who = FOR_RUN, .help = "Generation" },
    { "tokens", "N", "generate at most N tokens (128)", 'n', .kind = KIND_COUNT, .who = FOR_RUN,
      AT(tokens), .low = 0, .high = TR_RUN_MAX_TOKENS },
    { "stop", "TEXT", "end when TEXT was generated; may be given 16 times", .kind = KIND_STOP,
      .who = FOR_RUN },
    { "ignore-eos", NULL, "go on past the end token", .kind = KIND_FLAG, .who = FOR_RUN,
      AT(ignore_eos) },
    { "ctx", "N", "room for N tokens of context (0: as much as the model knows)",
      .kind = KIND_COUNT, .who = FOR_RUN, AT(ctx), .low = 0, .high = TR_RUN_MAX_TOKENS },
    { .kind = KIND_HEADING, .who = FOR_EVAL, .help = "Evaluation" },
    { "ctx", "N", "tokens of a window (0: 512, or what the model knows if less)",
      .kind = KIND_COUNT, .who = FOR_EVAL, AT(ctx), .low = 0, .high = TR_RUN_MAX_TOKENS },
    { "skip", "N", "positions at a window's begin that don't count (half of it)",
      .kind = KIND_COUNT, .who = FOR_EVAL, AT(skip), HAS(has_skip), .low = 0,
      .high = TR_RUN_MAX_TOKENS },
    { "save", "FILE", "write what this model expects at each position: a base", .kind = KIND_TEXT,
      .who = FOR_EVAL, AT(save) },
    { "overwrite", NULL, "with --save: replace FILE if it is there", .kind = KIND_FLAG,
      .who = FOR_EVAL, AT(overwrite) },
    { "top", "N", "with --save: tokens to keep of each position; 0: all (256)", .kind = KIND_COUNT,
      .who = FOR_EVAL, AT(top), .low = 0, .high = TR_RUN_MAX_TOKENS },
    { "kl", "FILE", "the divergence from a base that --save wrote", .kind = KIND_TEXT,
      .who = FOR_EVAL, AT(kl) },
    { "batch", "N", "feed a text in chunks of N tokens (256)", .kind = KIND_COUNT, AT(batch),
      .low = 1, .high = TR_MAX_ROWS },
    { "memory-mib", "N", "refuse what needs more in the coordinator (0: all there is)",
      .kind = KIND_COUNT, AT(memory_mib), .low = 0, .high = 1 << 30 },
    { "threads", "N", "threads of the coordinator (0: all cores)", .kind = KIND_COUNT, AT(threads),
      .low = 0, .high = TR_RUN_MAX_THREADS },

    { .kind = KIND_HEADING, .who = FOR_RUN, .help = "Sampling" },
    { "temp", "X", "temperature; 0 takes the most likely token (0.8)", .kind = KIND_REAL,
      .who = FOR_RUN, AT(temp), .real_low = 0, .real_high = 100 },
    { "top-k", "N", "choose among the N most likely; 0: all (40)", .kind = KIND_COUNT,
      .who = FOR_RUN, AT(top_k), .low = 0, .high = TR_RUN_MAX_TOKENS },
    { "top-p", "X", "choose among those that make up probability X (0.95)", .kind = KIND_REAL,
      .who = FOR_RUN, AT(top_p), .real_low = 0, .real_high = 1 },
    { "min-p", "X", "drop those below X times the most likely (0.05)", .kind = KIND_REAL,
      .who = FOR_RUN, AT(min_p), .real_low = 0, .real_high = 1 },
    { "repeat-penalty", "X", "above 1: make what was said less likely (1.0)", .kind = KIND_REAL,
      .who = FOR_RUN, AT(repeat_penalty), .real_low = 0.01, .real_high = 100 },
    { "seed", "N", "the same seed gives the same text (random; shown at the end)",
      .kind = KIND_COUNT, .who = FOR_RUN, AT(seed), HAS(has_seed), .low = 0, .high = UINT64_MAX },

    { .kind = KIND_HEADING, .help = "Arithmetic" },
    { "activations", "auto|f32", "auto: 8-bit blocks where weights are quantised (auto)",
      .kind = KIND_CHOICE, AT(activations), .choice = { "auto", "f32" } },
    { "kv", "f16|f32|q8_0", "type of the KV cache (f16; f32 with --activations f32)",
      .kind = KIND_CHOICE, AT(kv), .choice = { "f16", "f32", "q8_0" } },
    { "expert-groups", "on|off", "off: pick among all experts, though the model has groups (on)",
      .kind = KIND_CHOICE, AT(expert_groups), .choice = { "on", "off" } },
    { "isa", "NAME", "kernels: c, avx2, avx512 or neon (the best of this processor)",
      .kind = KIND_TEXT, AT(isa) },

    { .kind = KIND_HEADING, .help = "Output" },
    { "json", NULL, "write one JSON object to standard output instead", .kind = KIND_FLAG,
      AT(json) },
    { "logprobs", "N", "with --json: the N most likely tokens of each step (0)", .kind = KIND_COUNT,
      .who = FOR_RUN, AT(logprobs), .low = 0, .high = TR_MAX_ALTERNATIVES },
    { "verbose", NULL, "say more", .kind = KIND_FLAG, AT(verbose) },
    { "quiet", NULL, "only errors", 'q', .kind = KIND_FLAG, AT(quiet) },
    { "progress", NULL, "draw a bar while loading", .kind = KIND_FLAG, AT(progress),
      .hidden = true },

    { .kind = KIND_HEADING, .help = "Cluster" },
    { "workers", "N", "launch N workers on this machine with mpirun (0: none)", 'w',
      .kind = KIND_COUNT, AT(workers), HAS(has_workers), .low = 0, .high = TR_MAX_WORKERS,
      .launcher_only = true },
    { "cluster", "FILE", "launch what a YAML file describes (see cluster-configs/)",
      .kind = KIND_TEXT, AT(cluster), .launcher_only = true },
    { "dry-run", NULL, "with -w or --cluster: print the mpirun line, run nothing",
      .kind = KIND_FLAG, AT(dry_run), .launcher_only = true },
    { "worker-threads", "N", "with -w: threads of each worker (0: the worker decides)",
      .kind = KIND_COUNT, AT(worker_threads), .low = 0, .high = TR_RUN_MAX_THREADS,
      .launcher_only = true },
    { "worker-binary", "FILE", "with -w or --cluster: the worker (troupe-worker beside troupe)",
      .kind = KIND_TEXT, AT(worker_binary), .launcher_only = true },
    { "placement", "even|rotate", "which experts go where; changes no output (even)",
      .kind = KIND_CHOICE, AT(placement), .choice = { "even", "rotate" } },
    { "experts", "LIST", "experts of each layer on worker 1, 2, ..., such as 16,8,8",
      .kind = KIND_EXPERTS },
    { "transport", "NAME", "how workers get rows: mpi, zmq, inproc (no workers) or auto (auto)",
      .kind = KIND_CHOICE, AT(transport), .choice = { "auto", "mpi", "zmq", "inproc" } },
    { "outside", "N", "N workers more come from elsewhere: troupe-worker --join (0)",
      .kind = KIND_COUNT, AT(outside), .low = 0, .high = TR_MAX_WORKERS },
    { "invite-dir", "DIR", "with --outside: where their invitations are written", .kind = KIND_TEXT,
      AT(invite_dir) },
    { "listen", "HOST[:PORT]", "where the coordinator listens for its workers", .kind = KIND_LISTEN,
      AT(listen) },
    { "timeout-ms", "N", "longest wait for a worker's answer (30000)", .kind = KIND_COUNT,
      AT(timeout_ms), .low = 1, .high = 3600000 },
    { "suspect-ms", "N", "a worker silent for longer is passed over until it speaks (600)",
      .kind = KIND_COUNT, AT(suspect_ms), .low = 20, .high = 3600000 },
    { "silence-ms", "N", "longest silence of a worker before it counts as lost (10000)",
      .kind = KIND_COUNT, AT(silence_ms), .low = 100, .high = 3600000 },
    { "replacement", "COMMAND", "what starts one for a lost worker; none; auto: troupe-worker here",
      .kind = KIND_TEXT, AT(replacement) },
    { "faults", "FILE", "let workers fail as a plan says (see docs/reliability.md)",
      .kind = KIND_TEXT, AT(faults) },
    { "worker-memory-mib", "N", "of experts in each worker, lost ones' too (0: 90% of its share)",
      .kind = KIND_COUNT, AT(worker_memory_mib), .low = 0, .high = 1 << 30 },
    { "coordinator-memory-mib", "N", "of lost workers' experts in the coordinator (0: the same)",
      .kind = KIND_COUNT, AT(coordinator_memory_mib), .low = 0, .high = 1 << 30 },
    { "join-timeout-ms", "N", "longest wait for all workers to come up and say hello (60000)",
      .kind = KIND_COUNT, AT(join_timeout_ms), .low = 100, .high = 86400000 },
    { "help", NULL, "show this", 'h', .kind = KIND_HELP, .launcher_only = true },
};

enum { N_SPECS = sizeof specs / sizeof specs[0], FIRST_CODE = 256, IS_BARE = 1, SHOWN = 80 };

static const tr_run_options defaults = {
    .tokens = 128,
    .batch = 256,
    .temp = 0.8,
    .top_k = 40,
    .top_p = 0.95,
    .min_p = 0.05,
    .top = 256,
    .repeat_penalty = 1.0,
    .timeout_ms = 30000,
    .suspect_ms = 600,
    .silence_ms = 10000,
    .join_timeout_ms = 60000,
};

/* --- reading one value --------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits alone: no sign, no blank, no base. */
static bool count_read(const char *text, uint64_t *out)
{
    if (text[0] == '\0')
        return false;
    for (const char *c = text; *c; c++)
        if (!is_digit(*c))
            return false;
    errno = 0;
    unsigned long long v = strtoull(text, NULL, 10);
    if (errno != 0)
        return false;
    *out = v;
    return true;
}

static bool real_read(const char *text, double *out)
{
    char *end;

    /* strtod also takes blanks, hexadecimal, "inf" and "nan". */
    if (text[0] == '\0' || strspn(text, "0123456789.eE+-") != strlen(text))
        return false;
    double v = strtod(text, &end);
    if (*end != '\0' || !isfinite(v))
        return false;
    *out = v;
    return true;
}

static tr_status count_set(const spec *s, const char *value, void *field)
{
    uint64_t v;

    if (!count_read(value, &v) || v < s->low || v > s->high)
        return tr_fail(TR_E_USAGE, "--%s \"%.*s\": give a whole number in %llu..%llu", s->name,
                       SHOWN, value, (unsigned long long)s->low, (unsigned long long)s->high);
    memcpy(field, &v, sizeof v);
    return TR_OK;
}

static tr_status real_set(const spec *s, const char *value, void *field)
{
    double v;

    if (!real_read(value, &v) || v < s->real_low || v > s->real_high)
        return tr_fail(TR_E_USAGE, "--%s \"%.*s\": give a number in %g..%g", s->name, SHOWN, value,
                       s->real_low, s->real_high);
    memcpy(field, &v, sizeof v);
    return TR_OK;
}

static tr_status choice_set(const spec *s, const char *value, void *field)
{
    for (uint32_t i = 0; s->choice[i]; i++) {
        if (strcmp(value, s->choice[i]) == 0) {
            memcpy(field, &i, sizeof i);
            return TR_OK;
        }
    }
    return tr_fail(TR_E_USAGE, "--%s \"%.*s\": give one of %s", s->name, SHOWN, value, s->argument);
}

static tr_status text_set(const spec *s, const char *value, void *field)
{
    if (value[0] == '\0')
        return tr_fail(TR_E_USAGE, "--%s \"\": the value is empty; give %s", s->name, s->argument);
    memcpy(field, &value, sizeof value);
    return TR_OK;
}

static void prompt_set(const char *value, tr_run_options *o)
{
    o->prompt_stdin = strcmp(value, "-") == 0;
    o->prompt = o->prompt_stdin ? NULL : value;
}

static tr_status stop_add(const char *value, tr_run_options *o)
{
    size_t size = strlen(value);

    if (size == 0 || size > TR_RUN_MAX_STOP_SIZE)
        return tr_fail(TR_E_USAGE, "--stop \"%.*s\": %zu bytes; give 1..%d", SHOWN, value, size,
                       TR_RUN_MAX_STOP_SIZE);
    if (o->n_stops == TR_RUN_MAX_STOPS)
        return tr_fail(TR_E_USAGE, "--stop \"%.*s\": given more than %d times", SHOWN, value,
                       TR_RUN_MAX_STOPS);
    o->stop[o->n_stops++] = value;
    return TR_OK;
}

static tr_status experts_set(const char *value, tr_run_options *o)
{
    size_t n = 0;
    tr_status st = tr_run_ids_parse(value, "--experts", o->experts, TR_MAX_WORKERS, &n);

    if (st != TR_OK)
        return st;
    for (size_t i = 0; i < n; i++)
        if (o->experts[i] == 0 || o->experts[i] > TR_MAX_EXPERTS)
            return tr_fail(TR_E_USAGE, "--experts \"%.*s\": number %zu is %u; give 1..%d", SHOWN,
                           value, i + 1, o->experts[i], TR_MAX_EXPERTS);
    o->n_experts = n;
    return TR_OK;
}

static tr_status listen_set(const spec *s, const char *value, void *field)
{
    if (!tr_address_is_sound(value))
        return tr_fail(TR_E_USAGE, "--listen \"%.*s\": give %s", SHOWN, value, TR_ADDRESS_FORM);
    return text_set(s, value, field);
}

static tr_status ids_set(const spec *s, const char *value, void *field)
{
    size_t n = 0;
    tr_status st = tr_run_ids_parse(value, "--ids", NULL, TR_RUN_MAX_TOKENS, &n);

    if (st != TR_OK)
        return st;
    return text_set(s, value, field);
}

static tr_status option_set(const spec *s, const char *value, tr_run_options *o)
{
    char *field = (char *)o + s->at;
    bool yes = true;

    if (s->has_at != NOWHERE)
        memcpy((char *)o + s->has_at, &yes, sizeof yes);
    switch (s->kind) {
    case KIND_FLAG:
        memcpy(field, &yes, sizeof yes);
        return TR_OK;
    case KIND_TEXT:
        return text_set(s, value, field);
    case KIND_COUNT:
        return count_set(s, value, field);
    case KIND_REAL:
        return real_set(s, value, field);
    case KIND_CHOICE:
        return choice_set(s, value, field);
    case KIND_PROMPT:
        prompt_set(value, o);
        return TR_OK;
    case KIND_STOP:
        return stop_add(value, o);
    case KIND_IDS:
        return ids_set(s, value, field);
    case KIND_EXPERTS:
        return experts_set(value, o);
    case KIND_LISTEN:
        return listen_set(s, value, field);
    case KIND_HEADING:
    case KIND_HELP:
        break;
    }
    return TR_OK;
}

tr_status tr_run_ids_parse(const char *text, const char *what, uint32_t *out, size_t max, size_t *n)
{
    static const char between[] = " \t\r\n,";
    size_t count = 0;

    for (const char *at = text + strspn(text, between); *at; at += strspn(at, between)) {
        uint64_t v = 0;
        size_t digits = strspn(at, "0123456789"), size = strcspn(at, between);

        for (size_t i = 0; i < digits && v <= INT32_MAX; i++)
            v = v * 10 + (uint64_t)(at[i] - '0');
        if (digits != size || v > INT32_MAX)
            return tr_fail(TR_E_USAGE, "%s: \"%.*s\" is no whole number in 0..%d", what,
                           (int)(size < SHOWN ? size : SHOWN), at, INT32_MAX);
        if (count == max)
            return tr_fail(TR_E_USAGE, "%s: more than %zu numbers", what, max);
        if (out)
            out[count] = (uint32_t)v;
        count++;
        at += size;
    }
    if (count == 0)
        return tr_fail(TR_E_USAGE, "%s: no number given", what);
    *n = count;
    return TR_OK;
}

/* --- walking argv -------------------------------------------------------------------------- */

typedef struct {
    struct option longs[N_SPECS + 1];
    char shorts[2 * N_SPECS + 3];
} getopt_tables;

static bool is_eval(char **argv)
{
    return strcmp(argv[0], "eval") == 0;
}

static bool is_for(const spec *s, bool eval)
{
    return s->who == FOR_BOTH || (s->who == FOR_EVAL) == eval;
}

/* An option's code is FIRST_CODE + its place in the table, so that it can't meet a letter. */
static void tables_fill(bool eval, getopt_tables *t)
{
    size_t n = 0, at = 0;

    memset(t, 0, sizeof *t);
    /* The first thing that is no option ends the walk, or is told as IS_BARE. */
    t->shorts[at++] = eval ? '-' : '+';
    t->shorts[at++] = ':'; /* and the messages are ours */
    for (size_t i = 0; i < N_SPECS; i++) {
        if (specs[i].kind == KIND_HEADING || !is_for(&specs[i], eval))
            continue;
        t->longs[n++] =
            (struct option){ specs[i].name, specs[i].argument ? required_argument : no_argument,
                             NULL, FIRST_CODE + (int)i };
        if (!specs[i].letter)
            continue;
        t->shorts[at++] = specs[i].letter;
        if (specs[i].argument)
            t->shorts[at++] = ':';
    }
}

/* NULL for what getopt reports as wrong. */
static const spec *spec_of(int code)
{
    for (size_t i = 0; i < N_SPECS; i++)
        if (code == FIRST_CODE + (int)i || (specs[i].letter && code == specs[i].letter) ||
            (code == IS_BARE && specs[i].name && strcmp(specs[i].name, "file") == 0))
            return &specs[i];
    return NULL;
}

static tr_status option_refuse(int code, char **argv)
{
    const spec *s = optopt ? spec_of(optopt) : NULL;
    const char *command = is_eval(argv) ? "eval" : "run";

    if (code == ':' && s)
        return tr_fail(TR_E_USAGE, "--%s: its value is missing; give %s", s->name, s->argument);
    if (s && optopt >= FIRST_CODE)
        return tr_fail(TR_E_USAGE, "--%s: takes no value", s->name);
    if (optopt)
        return tr_fail(TR_E_USAGE, "option -%c is unknown; troupe %s --help lists all", optopt,
                       command);
    return tr_fail(TR_E_USAGE, "option %.*s is unknown or ambiguous; troupe %s --help lists all",
                   SHOWN, argv[optind - 1], command);
}

void tr_run_options_each(int argc, char **argv,
                         void (*fn)(void *ctx, const char *name, const char *value,
                                    bool launcher_only),
                         void *ctx)
{
    getopt_tables t;
    int code;

    tables_fill(is_eval(argv), &t);
    optind = 0;
    opterr = 0;
    while ((code = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
        const spec *s = spec_of(code);

        if (s)
            fn(ctx, s->name, s->argument ? optarg : NULL, s->launcher_only);
    }
}

/* --- what must hold between options -------------------------------------------------------- */

static tr_status eval_check(const tr_run_options *o)
{
    uint64_t window = o->ctx ? o->ctx : TR_RUN_WINDOW;

    if (o->has_skip && o->skip + 2 > window)
        return tr_fail(TR_E_USAGE,
                       "--skip %llu: a window of %llu tokens then has no position that counts: "
                       "give a smaller one, or a larger --ctx",
                       (unsigned long long)o->skip, (unsigned long long)window);
    if (o->ctx == 1)
        return tr_fail(TR_E_USAGE, "--ctx 1: a window needs a token and one that follows it");
    if (o->overwrite && !o->save)
        return tr_fail(TR_E_USAGE, "--overwrite: only --save writes a file");
    if (o->save && o->kl && strcmp(o->save, o->kl) == 0)
        return tr_fail(TR_E_USAGE, "--save and --kl: give two different files");
    return TR_OK;
}

static tr_status prompt_check(const tr_run_options *o)
{
    int n = (o->prompt || o->prompt_stdin) + (o->prompt_file != NULL) + (o->ids != NULL) +
            (o->ids_file != NULL);

    if (o->chat && n > 0)
        return tr_fail(TR_E_USAGE, "--chat: takes messages from standard input, so leave -p, -f, "
                                   "--ids and --ids-file out");
    if (o->chat && o->json)
        return tr_fail(TR_E_USAGE, "--chat and --json: give only one of them");
    if (o->chat)
        return TR_OK;

    if (n == 0 && o->is_eval)
        return tr_fail(TR_E_USAGE, "no text: give FILE, or one of -p TEXT, --ids LIST");
    if (n == 0)
        return tr_fail(TR_E_USAGE, "no prompt: give one of -p TEXT, -f FILE, --ids LIST, --chat");
    if (n > 1)
        return tr_fail(TR_E_USAGE,
                       "more than one %s: give only one of -p, -f, --ids, "
                       "--ids-file",
                       o->is_eval ? "text" : "prompt");
    return TR_OK;
}

static tr_status cluster_check(const tr_run_options *o)
{
    bool launches = o->workers > 0 || o->cluster;

    if (o->has_workers && o->cluster)
        return tr_fail(TR_E_USAGE, "--workers and --cluster: give only one of them");
    if (o->dry_run && !launches)
        return tr_fail(TR_E_USAGE, "--dry-run: shows what -w N or --cluster FILE would launch; "
                                   "give one of them");
    if (launches && o->transport == TR_RUN_TRANSPORT_INPROC)
        return tr_fail(TR_E_USAGE, "--transport inproc: workers of other processes need mpi "
                                   "or zmq");
    if (o->n_experts > 0 && o->placement != TR_RUN_PLACE_EVEN)
        return tr_fail(TR_E_USAGE, "--experts and --placement rotate: give only one of them");
    if (o->n_experts > 0 && o->has_workers && o->n_experts != o->workers + o->outside)
        return tr_fail(TR_E_USAGE, "--experts: %zu numbers for %llu workers; give one for each",
                       o->n_experts, (unsigned long long)(o->workers + o->outside));
    if ((o->outside > 0) != (o->invite_dir != NULL))
        return tr_fail(TR_E_USAGE, "--outside and --invite-dir: give both or none of them");
    if (o->outside > 0 && o->transport != TR_RUN_TRANSPORT_AUTO &&
        o->transport != TR_RUN_TRANSPORT_ZMQ)
        return tr_fail(TR_E_USAGE, "--outside: such workers are reached by zmq only; leave "
                                   "--transport out");
    return TR_OK;
}

static tr_status options_check(const tr_run_options *o, bool has_kv)
{
    tr_status st;

    if (!o->model && !o->cluster)
        return tr_fail(TR_E_USAGE, "no model: give -m FILE");
    st = prompt_check(o);
    if (st == TR_OK && o->is_eval)
        st = eval_check(o);
    if (st != TR_OK)
        return st;
    if (o->verbose && o->quiet)
        return tr_fail(TR_E_USAGE, "--verbose and --quiet: give only one of them");
    if (o->logprobs > 0 && !o->json)
        return tr_fail(TR_E_USAGE, "--logprobs %llu: only shown by --json; add it",
                       (unsigned long long)o->logprobs);
    if (o->activations == TR_RUN_ACTIVATIONS_F32 && has_kv && o->kv != TR_RUN_KV_F32)
        return tr_fail(TR_E_USAGE, "--kv: --activations f32 needs f32; leave --kv out");
    return cluster_check(o);
}

/* --- help ---------------------------------------------------------------------------------- */

static void help_option(const spec *s)
{
    char left[64];

    snprintf(left, sizeof left, "%s%c%s --%s%s%s", s->letter ? "-" : " ",
             s->letter ? s->letter : ' ', s->letter ? "," : " ", s->name, s->argument ? " " : "",
             s->argument ? s->argument : "");
    printf("  %-31s %s\n", left, s->help);
}

static const char help_eval[] =
    "usage: troupe eval FILE -m MODEL [options]\n"
    "\n"
    "Says how well a model expects a text: its perplexity, exp of the mean of -ln p over\n"
    "the tokens that count.  The text is cut into windows of --ctx tokens that don't\n"
    "overlap and that each begin with an empty cache; what is left at the end is not used.\n"
    "Where a begin token is put in front (--bos), it stands in place of the first token of\n"
    "each window.  Position i of a window expects token i + 1; those from --skip on count,\n"
    "the second half if not told, as in llama.cpp's perplexity tool.\n"
    "\n"
    "--save writes what the model expects to a file, and --kl holds another run against it:\n"
    "another type of weights or cache, other kernels.  docs/eval.md defines both.\n";

static void help_print(bool eval)
{
    fputs(eval ? help_eval
               : "usage: troupe run -m FILE (-p TEXT | -f FILE | --ids LIST) [options]\n"
                 "\n"
                 "Generates text from a Mixture-of-Experts model.  The text goes to standard\n"
                 "output as it is made, everything else to standard error.  Alone it hosts all\n"
                 "experts itself; -w and --cluster launch workers with mpirun; under mpirun it is\n"
                 "the coordinator:\n"
                 "\n"
                 "  mpirun -n 1 troupe run -m FILE -p TEXT : -n 3 troupe-worker\n",
          stdout);
    for (size_t i = 0; i < N_SPECS; i++) {
        if (!is_for(&specs[i], eval))
            continue;
        if (specs[i].kind == KIND_HEADING)
            printf("\n%s\n", specs[i].help);
        else if (!specs[i].hidden)
            help_option(&specs[i]);
    }
    fputs("\nExit status: 0 success, 2 usage or configuration, 3 model file, 4 request,\n"
          "5 cluster, 6 input or output, 7 memory or system, 130 interrupted.\n",
          stdout);
}

tr_status tr_run_options_parse(int argc, char **argv, tr_run_options *out, bool *done)
{
    tr_run_options o = defaults;
    getopt_tables t;
    bool has_kv = false;
    int code;

    o.is_eval = is_eval(argv);
    tables_fill(o.is_eval, &t);
    optind = 0; /* GNU: start over, whoever used getopt before */
    opterr = 0;
    while ((code = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
        const spec *s = code == '?' || code == ':' ? NULL : spec_of(code);

        if (!s)
            return option_refuse(code, argv);
        if (s->kind == KIND_HELP) {
            help_print(o.is_eval);
            *done = true;
            return TR_OK;
        }
        tr_status st =
            code == IS_BARE && o.prompt_file
                ? tr_fail(TR_E_USAGE, "\"%.*s\": more than one text: give only one", SHOWN, optarg)
                : option_set(s, optarg, &o);
        if (st != TR_OK)
            return st;
        has_kv = has_kv || strcmp(s->name, "kv") == 0;
    }
    if (optind < argc)
        return tr_fail(TR_E_USAGE, "\"%.*s\" is no option; a %s goes behind -p", SHOWN,
                       argv[optind], o.is_eval ? "text" : "prompt");
    tr_status st = options_check(&o, has_kv);
    if (st != TR_OK)
        return st;
    if (o.activations == TR_RUN_ACTIVATIONS_F32)
        o.kv = TR_RUN_KV_F32;
    *out = o;
    *done = false;
    return TR_OK;
}
