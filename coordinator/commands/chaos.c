/* chaos.c - the options of `troupe chaos`.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/chaos.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "compute/cpu.h"
#include "coordinator/chaos/campaign.h"
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
    "  --tokens N          to be generated (12)\n"
    "  --threads N         clusters at once (one a core)\n"
    "  --verbose           with --seed: what the coordinator says, too\n"
    "  -h, --help          show this\n";

enum { MAX_THREADS = 256 };

typedef struct {
    const char *model;
    uint64_t first, last, workers, tokens, threads;
    bool is_one, is_verbose;
} chaos;

static const struct option long_options[] = {
    { "model", required_argument, NULL, 'm' },
    { "seeds", required_argument, NULL, 'S' },
    { "seed", required_argument, NULL, 's' },
    { "workers", required_argument, NULL, 'w' },
    { "tokens", required_argument, NULL, 'n' },
    { "threads", required_argument, NULL, 't' },
    { "verbose", no_argument, NULL, 'v' },
    { "help", no_argument, NULL, 'h' },
    { NULL, 0, NULL, 0 },
};

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
        o->is_one = true;
        return tr_option_number("seed", optarg, 0, UINT64_MAX, &o->first);
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

static tr_status run_one(const chaos *o, const tr_trials *t)
{
    tr_trial trial = tr_trial_draw(t, o->first, (tr_peer)o->workers);
    tr_trial_result result;

    tr_status st = tr_trial_run(t, &trial, &result);
    if (st != TR_OK)
        return st;
    tr_chaos_report_trial(&trial, &result);
    if (tr_verdict_is_bad(result.verdict))
        st = tr_fail(TR_E_PEER_LOST, "seed %llu went wrong", (unsigned long long)o->first);
    tr_trial_result_fini(&result);
    return st;
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

tr_status tr_command_chaos(int argc, char **argv, tr_sim_main worker)
{
    chaos o = { .first = 1, .last = 1000, .tokens = 12 };
    tr_trials *trials = NULL;
    tr_gguf *gguf = NULL;
    bool done = false;

    tr_status st = parse(argc, argv, &o, &done);
    if (st != TR_OK || done)
        return st;
    tr_interrupt_watch();
    tr_log_set_level(o.is_one && o.is_verbose ? TR_LOG_INFO : TR_LOG_ERROR);
    st = tr_gguf_open(o.model, &gguf);
    if (st == TR_OK) {
        tr_trials_options t = { .gguf = gguf, .n_tokens = o.tokens, .worker = worker };
        st = tr_trials_new(&t, &trials);
    }
    if (st == TR_OK)
        st = o.is_one ? run_one(&o, trials) : run_many(&o, trials);
    tr_trials_free(&trials);
    tr_gguf_close(&gguf);
    return st;
}
