/* replacement.c - see replacement.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/replacement.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { MAX_WORDS = 64 };

/* From the order to stop to SIGKILL, and from there to giving up: a process that waits for a dead
 * disk or a file server does not even take that. */
static const tr_time patience = 500 * TR_MS;

struct tr_replacement {
    char *text; /* that the words lie in */
    char *command[MAX_WORDS + 1];
    uint32_t n_workers;
    pid_t *pid;  /* [n_workers + 1]; 0: none */
    pid_t *dead; /* [n_dead] that were killed, but have not ended yet */
    size_t n_dead;
};

/* The words of a command; the text is cut into them. */
static tr_status split(tr_replacement *r)
{
    char *save = NULL;
    size_t n = 0;

    for (char *word = strtok_r(r->text, " ", &save); word && n < MAX_WORDS;
         word = strtok_r(NULL, " ", &save))
        r->command[n++] = word;
    if (n == 0 || n == MAX_WORDS)
        return tr_fail(TR_E_CONFIG, "the command of a replacement has %s words: give 1 to %d",
                       n == 0 ? "no" : "too many", MAX_WORDS - 1);
    return TR_OK;
}

static tr_status find_worker(tr_replacement *r)
{
    static char join[] = "--join", input[] = "-";
    static const char name[] = "troupe-worker";
    char path[PATH_MAX + sizeof name];

    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX);
    if (size <= 0)
        return tr_fail(TR_E_SYSTEM, "/proc/self/exe: %s; is /proc mounted?", strerror(errno));
    path[size] = '\0';
    memcpy(strrchr(path, '/') + 1, name, sizeof name);
    r->text = strdup(path);
    r->command[0] = r->text;
    r->command[1] = join;
    r->command[2] = input;
    return r->text ? TR_OK : tr_fail(TR_E_MEMORY, "replacement: no memory");
}

tr_status tr_replacement_new(const char *command, uint32_t n_workers, tr_replacement **out)
{
    tr_replacement *r = calloc(1, sizeof *r);
    bool is_auto = strcmp(command, "auto") == 0;
    tr_status st;

    if (!r)
        return tr_fail(TR_E_MEMORY, "replacement: no memory");
    r->n_workers = n_workers;
    r->pid = calloc((size_t)n_workers + 1, sizeof *r->pid);
    r->text = is_auto ? NULL : strdup(command);
    if (!r->pid || (!is_auto && !r->text))
        st = tr_fail(TR_E_MEMORY, "replacement: no memory");
    else
        st = is_auto ? find_worker(r) : split(r);
    if (st != TR_OK) {
        tr_replacement_free(&r);
        return st;
    }
    *out = r;
    return TR_OK;
}

const char *tr_replacement_choice(const char *given, bool *is_here)
{
    *is_here = !given || strcmp(given, "auto") == 0;
    if (*is_here)
        return "auto";
    return strcmp(given, "none") == 0 ? NULL : given;
}

/* Take note of those that have ended at last. */
static void bury(tr_replacement *r)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n_dead; i++)
        if (waitpid(r->dead[i], NULL, WNOHANG) == 0)
            r->dead[n++] = r->dead[i];
    r->n_dead = n;
}

static bool all_have_ended(tr_replacement *r)
{
    bury(r);
    bool all = r->n_dead == 0;

    for (uint32_t w = 1; w <= r->n_workers; w++)
        all = tr_replacement_has_ended(r, w) && all;
    return all;
}

/* Waits for nothing: requests are served meanwhile. */
static void end_process(tr_replacement *r, uint32_t worker)
{
    if (tr_replacement_has_ended(r, worker))
        return;
    kill(r->pid[worker], SIGKILL);
    bury(r);
    pid_t *more = realloc(r->dead, (r->n_dead + 1) * sizeof *more);
    if (more) { /* else init buries it when this process ends */
        r->dead = more;
        r->dead[r->n_dead++] = r->pid[worker];
    }
    r->pid[worker] = 0;
}

static void await_ends(tr_replacement *r)
{
    tr_time until = tr_now() + patience;

    while (!all_have_ended(r) && tr_now() < until)
        tr_sleep(2 * TR_MS);
}

static void end_all(tr_replacement *r)
{
    await_ends(r);
    for (uint32_t w = 1; w <= r->n_workers; w++)
        end_process(r, w);
    await_ends(r);
}

void tr_replacement_free(tr_replacement **replacement)
{
    tr_replacement *r = *replacement;

    if (!r)
        return;
    if (r->pid)
        end_all(r);
    free(r->text);
    free(r->pid);
    free(r->dead);
    free(r);
    *replacement = NULL;
}

/* Reads from `input`; standard output belongs to the generated text. */
static int spawn(tr_replacement *r, int input, pid_t *pid)
{
    posix_spawn_file_actions_t files;

    int error = posix_spawn_file_actions_init(&files);
    if (error != 0)
        return error;
    error = posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
    if (error == 0)
        error = posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (error == 0) /* nor does it need our sockets */
        error = posix_spawn_file_actions_addclosefrom_np(&files, 3);
    if (error == 0)
        error = posix_spawnp(pid, r->command[0], &files, NULL, r->command, environ);
    posix_spawn_file_actions_destroy(&files);
    return error;
}

tr_status tr_replacement_start(tr_replacement *r, uint32_t worker, tr_bytes invitation)
{
    int ends[2];
    ssize_t written = -1;
    int error = pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno;

    end_process(r, worker); /* it had the place before, and may only hang */
    if (error == 0) {
        /* A pipe holds it: nobody has to read for the write to end. */
        error = invitation.size <= 4096 ? spawn(r, ends[0], &r->pid[worker]) : EMSGSIZE;
        if (error == 0)
            written = write(ends[1], invitation.data, invitation.size);
        close(ends[0]);
        close(ends[1]);
    }
    if (error != 0) {
        r->pid[worker] = 0;
        return tr_fail(TR_E_SYSTEM, "replacement of worker %u: %.256s can't be run: %s", worker,
                       r->command[0], strerror(error));
    }
    return written == (ssize_t)invitation.size
               ? TR_OK
               : tr_fail(TR_E_SYSTEM,
                         "replacement of worker %u: %.256s did not take its invitation", worker,
                         r->command[0]);
}

bool tr_replacement_has_ended(tr_replacement *r, uint32_t worker)
{
    if (r->pid[worker] != 0 && waitpid(r->pid[worker], NULL, WNOHANG) != 0)
        r->pid[worker] = 0;
    return r->pid[worker] == 0;
}
