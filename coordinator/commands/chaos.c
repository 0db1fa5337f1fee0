/* chaos.c - the options of `troupe chaos`.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/chaos.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "compute/cpu.h"
#include "coordinator/chaos/campaign.h"
#include "coordinator/chaos/shrink.h"
#include "coordinator/chaos/storm.h"
#include "coordinator/commands/chaos_report.h"
#include "coordinator/commands/option.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: troupe chaos -m MODEL [options]\n"
    "\n"
    "Runs clusters in which messages are lost, workers die, hang and run out of memory, and\n"
    "compares what they compute with what one process computes, to the last bit.\n"
    "\n"
    "  -m, --model FILE    the model\n"
    "  --seeds A..B        a simulated cluster for each seed (1..1000)\n"
    "  --seed N            one seed alone, with all that happened\n"
    "  -w, --workers N     2 to 16; without it each seed draws 2 to 6\n"
    "  --tokens N          to be generated (12; real: 300)\n"
    "  --threads N         clusters at once (one a core)\n"
    "  --verbose           with --seed or --schedule: what the coordinator says, too\n"
    "  --shrink N          leave faults out of a seed that goes wrong, while it still does, and\n"
    "                      print what remains as a schedule\n"
    "  --schedule FILE     the seed, the workers and the faults of such a file\n"
    "\n"
    "  --real              real processes instead: troupe run, again and again, whose workers\n"
    "                      are killed, stopped and continued at random\n"
    "  --minutes M         of it (1)\n"
    "  --transport T       of it: mpi or zmq\n"
    "  -w, --workers N     of it (4)\n"
    "  -h, --help          show this\n";

enum { MAX_THREADS = 256 };

typedef enum { MANY_SEEDS, ONE_SEED, SHRINK, SCHEDULE, REAL } mode;

typedef struct {
    mode mode;
    const char *model, *schedule, *transport;
    uint64_t first, last, workers, tokens, threads, minutes;
    bool is_verbose;
} chaos;

static const struct option long_options[] = {
    { "model", required_argument, NULL, 'm' },
    { "seeds", required_argument, NULL, 'S' },
    { "seed", required_argument, NULL, 's' },
    { "workers", required_argument, NULL, 'w' },
    { "tokens", required_argument, NULL, 'n' },
    { "threads", required_argument, NULL, 't' },
    { "shrink", required_argument, NULL, 'k' },
    { "schedule", required_argument, NULL, 'f' },
    { "real", no_argument, NULL, 'R' },
    { "minutes", required_argument, NULL, 'M' },
    { "transport", required_argument, NULL, 'T' },
    { "verbose", no_argument, NULL, 'v' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

static const char *const mode_names[] = { "seeds", "seed", "shrink", "schedule", "real" };

/* One thing at a time. */
static tr_status set_mode(chaos *c, mode m)
{
    if (c->mode != MANY_SEEDS && c->mode != m)
        return tr_fail(TR_E_USAGE, "--%s and --%s: give one of them", mode_names[c->mode],
                       mode_names[m]);
    c->mode = m;
    return TR_OK;
}

static tr_status read_mode(chaos *c, mode m, const char *text)
{
    tr_status st = set_mode(c, m);

    if (st != TR_OK || m == REAL)
        return st;
    c->schedule = text;
    return m == SCHEDULE ? TR_OK : tr_option_number(mode_names[m], text, 0, UINT64_MAX, &c->first);
}

static tr_status read_transport(chaos *c, const char *text)
{
    bool by_zmq;

    c->transport = text;
    return tr_option_transport(text, &by_zmq);
}

static tr_status read_seeds(chaos *c, const char *text)
{
    const char *dots = strstr(text, "..");
    char first[32];

    if (!dots || (size_t)(dots - text) >= sizeof first)
        return tr_fail(TR_E_USAGE, "--seeds \"%.40s\": give two numbers, such as 1..1000", text);
    memcpy(first, text, (size_t)(dots - text));
    first[dots - text] = '\0';
    tr_status st = tr_option_number("seeds", first, 0, UINT64_MAX - 1, &c->first);
    return st == TR_OK ? tr_option_number("seeds", dots + 2, c->first, UINT64_MAX - 1, &c->last)
                       : st;
}

static tr_status read_option(int c, chaos *o, const char *word)
{
    switch (c) {
    case 'm':
        o->model = optarg;
        return TR_OK;
    case 'S':
        return read_seeds(o, optarg);
    case 's':
        return read_mode(o, ONE_SEED, optarg);
    case 'k':
        return read_mode(o, SHRINK, optarg);
    case 'f':
        return read_mode(o, SCHEDULE, optarg);
    case 'R':
        return read_mode(o, REAL, NULL);
    case 'M':
        return tr_option_number("minutes", optarg, 1, 7 * 24 * 60, &o->minutes);
    case 'T':
        return read_transport(o, optarg);
    case 'w':
        return tr_option_number("workers", optarg, 2, TR_TRIAL_MAX_WORKERS, &o->workers);
    case 'n':
        return tr_option_number("tokens", optarg, 1, TR_TRIAL_MAX_TOKENS, &o->tokens);
    case 't':
        return tr_option_number("threads", optarg, 1, MAX_THREADS, &o->threads);
    case 'v':
        o->is_verbose = true;
        return TR_OK;
    case ':':
        return tr_fail(TR_E_USAGE, "%s needs a value; see troupe chaos --help", word);
    default:
        return tr_fail(TR_E_USAGE, "unknown option %.80s; see troupe chaos --help", word);
    }
}

static tr_status parse(int argc, char **argv, chaos *o, bool *done)
{
    int c;

    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":m:w:h", long_options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            *done = true;
            return TR_OK;
        }
        tr_status st = read_option(c, o, argv[optind - 1]);
        if (st != TR_OK)
            return st;
    }
    if (optind < argc)
        return tr_fail(TR_E_USAGE, "unexpected argument \"%.80s\"", argv[optind]);
    if (!o->model)
        return tr_fail(TR_E_USAGE, "-m MODEL is missing; see troupe chaos --help");
    return TR_OK;
}

static tr_status run_trial(const tr_trials *t, const tr_trial *trial)
{
    tr_trial_result result;

    tr_status st = tr_trial_run(t, trial, &result);
    if (st != TR_OK)
        return st;
    tr_chaos_report_trial(trial, &result);
    if (tr_verdict_is_bad(result.verdict))
        st = tr_fail(TR_E_PEER_LOST, "seed %llu goes wrong", (unsigned long long)trial->seed);
    tr_trial_result_fini(&result);
    return st;
}

static tr_status run_one(const chaos *o, const tr_trials *t)
{
    tr_trial trial = tr_trial_draw(t, o->first, (tr_peer)o->workers);

    return run_trial(t, &trial);
}

static tr_status run_schedule(const chaos *o, const tr_trials *t)
{
    tr_schedule s;

    tr_status st = tr_schedule_read(o->schedule, &s);
    if (st != TR_OK)
        return st;
    tr_trial trial = tr_trial_draw(t, s.seed, s.n_workers);
    trial.schedule = s.fault;
    trial.n_schedule = s.n;
    trial.has_schedule = true;
    st = run_trial(t, &trial);
    tr_schedule_fini(&s);
    return st;
}

static tr_status run_shrink(const chaos *o, const tr_trials *t)
{
    tr_trial trial = tr_trial_draw(t, o->first, (tr_peer)o->workers);
    tr_schedule s;
    size_t n_runs;

    tr_status st = tr_shrink(t, &trial, &s, &n_runs);
    if (st != TR_OK)
        return st;
    printf("# what makes it go wrong, found in %zu runs; troupe chaos --schedule runs it\n",
           n_runs);
    tr_schedule_print(stdout, &s);
    tr_schedule_fini(&s);
    return TR_OK;
}

static tr_status run_many(const chaos *o, const tr_trials *t)
{
    tr_campaign_options c = { .first = o->first,
                              .last = o->last,
                              .n_workers = (tr_peer)o->workers,
                              .threads = o->threads ? o->threads : tr_cpu_cores(),
                              .shows_progress = isatty(STDERR_FILENO) != 0 };
    tr_campaign_report report;

    tr_status st = tr_campaign_run(t, &c, &report);
    if (st != TR_OK)
        return st;
    tr_chaos_report_campaign(&report);
    if (report.n_bad > 0)
        return tr_fail(TR_E_PEER_LOST, "%zu seeds went wrong", report.n_bad);
    return tr_interrupted() ? TR_E_INTERRUPTED : TR_OK;
}

static tr_status run_simulated(const chaos *o, tr_sim_main worker)
{
    tr_trials_options options = { .n_tokens = o->tokens ? o->tokens : 12, .worker = worker };
    tr_trials *t = NULL;
    tr_gguf *gguf = NULL;

    tr_status st = tr_gguf_open(o->model, &gguf);
    options.gguf = gguf;
    if (st == TR_OK)
        st = tr_trials_new(&options, &t);
    if (st == TR_OK)
        st = o->mode == ONE_SEED   ? run_one(o, t)
             : o->mode == SCHEDULE ? run_schedule(o, t)
             : o->mode == SHRINK   ? run_shrink(o, t)
                                   : run_many(o, t);
    tr_trials_free(&t);
    tr_gguf_close(&gguf);
    return st;
}

static tr_status run_real(const chaos *o)
{
    tr_storm_options s = { .model = o->model,
                           .transport = o->transport,
                           .n_workers = o->workers ? (uint32_t)o->workers : 4,
                           .n_tokens = o->tokens ? o->tokens : 300,
                           .seed = o->first,
                           .duration = (tr_time)o->minutes * 60 * TR_SECOND,
                           .shows_progress = isatty(STDERR_FILENO) != 0 };
    tr_storm_report report;

    tr_status st = tr_storm_run(&s, &report);
    if (st != TR_OK)
        return st;
    tr_chaos_report_storm(&report);
    if (report.n_bad > 0)
        return tr_fail(TR_E_PEER_LOST, "%llu of %llu runs went wrong",
                       (unsigned long long)report.n_bad, (unsigned long long)report.n_runs);
    return tr_interrupted() ? TR_E_INTERRUPTED : TR_OK;
}

tr_status tr_command_chaos(int argc, char **argv, tr_sim_main worker)
{
    chaos o = { .first = 1, .last = 1000, .tokens = 0, .minutes = 1 };
    bool done = false;

    tr_status st = parse(argc, argv, &o, &done);
    if (st != TR_OK || done)
        return st;
    tr_interrupt_watch();
    tr_log_set_level(o.is_verbose && o.mode != MANY_SEEDS ? TR_LOG_INFO : TR_LOG_ERROR);
    return o.mode == REAL ? run_real(&o) : run_simulated(&o, worker);
}
