/* main.c - troupe: find the command, run it, end with its status.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "base/standard_files.h"
#include "base/status.h"
#include "base/version.h"
#include "coordinator/cluster/job.h"
#include "coordinator/cluster/launch.h"
#include "coordinator/commands/bench.h"
#include "coordinator/commands/chaos.h"
#include "coordinator/commands/convert.h"
#include "coordinator/commands/inspect.h"
#include "coordinator/commands/quantize.h"
#include "coordinator/commands/remote_shell.h"
#include "coordinator/commands/run.h"
#include "coordinator/commands/serve.h"
#include "coordinator/commands/synth.h"
#include "worker/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const char *name;
    tr_status (*run)(int argc, char **argv); /* argv[0] is the command's name */
    const char *summary;                     /* NULL: not for users */
} command;

/* A worker of chaos's simulated clusters: here, where both halves of the project meet. */
static tr_status simulated_worker(tr_transport *t, void *ctx)
{
    bool had_losses = false;

    (void)ctx;
    return tr_worker_run(t, &(tr_worker_options){ .version = TR_VERSION, .threads = 1 },
                         &had_losses);
}

static tr_status command_chaos(int argc, char **argv)
{
    return tr_command_chaos(argc, argv, simulated_worker);
}

static const command commands[] = {
    { "run", tr_command_run, "generate text, alone or as the coordinator of workers" },
    { "eval", tr_command_run, "say how well a model expects a text, and what another run changed" },
    { "serve", tr_command_serve, "answer many users over HTTP, with a page for people" },
    { "bench", tr_command_bench, "measure speed beside the limits of this machine" },
    { "inspect", tr_command_inspect, "show what a model file holds" },
    { "convert", tr_command_convert, "write a Hugging Face directory as a model file" },
    { "quantize", tr_command_quantize, "write a model file with other types of weights" },
    { "synth", tr_command_synth, "write a model of a known shape with random weights" },
    { "chaos", command_chaos, "test a cluster under thousands of faults, simulated or real" },
    { "remote-shell", tr_command_remote_shell, NULL },
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const command *command_find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}

static tr_status command_unknown(const char *name)
{
    return tr_fail(TR_E_USAGE, "\"%.80s\" is no command; troupe --help lists them", name);
}

static tr_status help_print(void)
{
    fputs("usage: troupe COMMAND [options]\n"
          "\n"
          "Runs Mixture-of-Experts language models with the experts in MPI workers.\n"
          "\n"
          "Commands\n",
          stdout);
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (commands[i].summary)
            printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\n"
          "  troupe help COMMAND    all options of a command\n"
          "  troupe --version       the version\n",
          stdout);
    return TR_OK;
}

static tr_status help_command(const char *name)
{
    const command *c = command_find(name);
    char flag[] = "--help", copy[16];
    char *argv[] = { copy, flag, NULL };

    if (!c)
        return command_unknown(name);
    snprintf(copy, sizeof copy, "%s", c->name);
    return c->run(2, argv);
}

static tr_status dispatch(int argc, char **argv)
{
    if (argc < 2)
        return tr_fail(TR_E_USAGE, "no command given; troupe --help lists them");
    const char *name = argv[1];
    const command *c = command_find(name);

    if (c)
        return c->run(argc - 1, argv + 1);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help_print();
    if (strcmp(name, "help") == 0)
        return argc > 2 ? help_command(argv[2]) : help_print();
    if (strcmp(name, "--version") == 0) {
        puts("troupe " TR_VERSION);
        return TR_OK;
    }
    return command_unknown(name);
}

int main(int argc, char **argv)
{
    tr_standard_files_open();
    signal(SIGPIPE, SIG_IGN); /* who stops reading is an error of write, not our death */
    tr_log_init("troupe", TR_LOG_INFO);
    tr_launch_report_start();

    tr_status st = dispatch(argc, argv);
    errno = EIO; /* should an earlier write have failed, whose reason is gone */
    if ((fflush(stdout) != 0 || ferror(stdout)) && st == TR_OK)
        st = tr_fail(TR_E_IO, "standard output: %s", strerror(errno));
    int code = tr_status_exit_code(st);
    /* A launcher that was told ends with the code; mpirun would only add a complaint to it. */
    code = tr_launch_report_status(code) ? 0 : code;
    if (!tr_job_exists())
        return code;
    fflush(NULL);
    _exit(code); /* MPI may have been abandoned: its exit handlers could hang */
}
