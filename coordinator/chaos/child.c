/* child.c - posix_spawn, a pipe for the text, a nameless file for the rest.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/chaos/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { MAX_TEXT = 64 << 20, PIECE = 4096 };

/* The environment with one string more; the strings are borrowed. */
static char **environment_with(const char *mark)
{
    size_t n = 0;

    while (environ[n])
        n++;
    char **all = calloc(n + 2, sizeof *all);
    if (!all)
        return NULL;
    memcpy(all, environ, n * sizeof *all);
    all[n] = (char *)(uintptr_t)mark;
    return all;
}

static tr_status spawn(tr_child *c, char **argv, char **environment, int out)
{
    posix_spawn_file_actions_t files;

    int error = posix_spawn_file_actions_init(&files);
    if (error != 0)
        return tr_fail(TR_E_SYSTEM, "chaos: %s", strerror(error));
    error = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (error == 0)
        error = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    if (error == 0)
        error = posix_spawn_file_actions_adddup2(&files, fileno(c->err), STDERR_FILENO);
    if (error == 0)
        error = posix_spawn(&c->pid, argv[0], &files, NULL, argv, environment);
    posix_spawn_file_actions_destroy(&files);
    if (error != 0) {
        c->pid = 0;
        return tr_fail(TR_E_SYSTEM, "chaos: %s can't be started: %s", argv[0], strerror(error));
    }
    return TR_OK;
}

tr_status tr_child_start(tr_child *c, char **argv, const char *mark)
{
    static char program[] = "/proc/self/exe";
    int out[2] = { -1, -1 };
    tr_status st = TR_OK;

    *c = (tr_child){ .out = -1, .err = tmpfile() };
    argv[0] = program;
    char **environment = environment_with(mark);
    if (!environment)
        st = tr_fail(TR_E_MEMORY, "chaos: no memory for an environment");
    else if (!c->err || pipe2(out, O_CLOEXEC) != 0)
        st = tr_fail(TR_E_SYSTEM, "chaos: no pipe or file for a process: %s", strerror(errno));
    else
        st = spawn(c, argv, environment, out[1]);
    if (out[1] >= 0)
        close(out[1]);
    c->out = out[0];
    free(environment);
    if (st != TR_OK)
        tr_child_fini(c);
    return st;
}

static void read_text(tr_child *c)
{
    if (c->room - c->size < PIECE) {
        size_t room = 2 * c->room + PIECE;
        char *larger = room <= MAX_TEXT ? realloc(c->text, room) : NULL;
        if (!larger) { /* then it differs, which is right for such a text */
            close(c->out);
            c->out = -1;
            return;
        }
        c->text = larger;
        c->room = room;
    }
    ssize_t n = read(c->out, c->text + c->size, PIECE);
    if (n > 0) {
        c->size += (size_t)n;
    } else if (n == 0 || errno != EINTR) {
        close(c->out);
        c->out = -1;
    }
}

/* The last line that says what is wrong. */
static void read_last_line(tr_child *c)
{
    char line[sizeof c->last_line];

    rewind(c->err);
    while (fgets(line, sizeof line, c->err)) {
        line[strcspn(line, "\n")] = '\0';
        if (strstr(line, "error: "))
            memcpy(c->last_line, line, sizeof line);
    }
}

static void reap(tr_child *c)
{
    int status;

    if (c->pid == 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
        return;
    c->pid = 0;
    c->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    read_last_line(c);
}

/* A worker that is left behind keeps the pipe open: the end of the program is what counts. */
bool tr_child_look(tr_child *c, tr_time timeout)
{
    struct pollfd p = { .fd = c->out, .events = POLLIN };

    if (c->out < 0)
        tr_sleep(timeout);
    else if (poll(&p, 1, (int)(timeout / TR_MS)) > 0)
        read_text(c);
    reap(c);
    while (c->pid == 0 && c->out >= 0 && poll(&p, 1, 0) > 0) {
        read_text(c);
        p.fd = c->out;
    }
    return c->pid == 0;
}

void tr_child_fini(tr_child *c)
{
    if (c->pid != 0) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
    }
    if (c->out >= 0)
        close(c->out);
    if (c->err)
        fclose(c->err);
    free(c->text);
    *c = (tr_child){ .out = -1 };
}
