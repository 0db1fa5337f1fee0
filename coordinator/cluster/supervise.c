/* supervise.c - fork, hand on, wait, and clean up: see supervise.h.
 *
 * Signals arrive through a signalfd, so that one poll waits for them, for the child's output and
 * for the next deadline, and no code runs in a handler.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/supervise.h"
#include "coordinator/cluster/relay.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LOOK_MS = 100, /* how often the status file is looked for */
    ALONE_MS = 500,
    LOST_MS = 700,     /* for the coordinator's own word on a lost worker */
    START_MS = 4000,   /* from the coordinator's start until all workers are seen */
    HOLD_MS = 30,      /* of standard error, so that the text comes before what is said about it */
    MAX_DEPTH = 64,    /* of the tree below us */
    MAX_WORKERS = 256, /* watched while they start */
};

typedef enum {
    STAGE_RUNS,
    STAGE_MAY_END, /* reported: it should end by itself */
    STAGE_ENDING,  /* a signal was handed on, or SIGTERM sent */
    STAGE_ALONE,   /* what was below it is killed: it may still clean up */
    STAGE_KILLED,
} stage;

typedef struct {
    const tr_supervise_job *job;
    tr_supervise_result result;
    pid_t pid;
    bool is_gone;
    int signals; /* signalfd */
    tr_relay output, errors, input;
    int live; /* 0: nobody types */
    stage stage;
    tr_time deadline;
    bool is_up;
    bool were_workers_ended; /* after the coordinator reported */
    bool was_asked;          /* the coordinator was told to finish */
    tr_time started;         /* of the coordinator, 0: not yet */
    size_t n_workers;
    pid_t worker[MAX_WORKERS]; /* seen so far, until all are up */
} supervisor;

/* --- start --------------------------------------------------------------------------------- */

/* The signals to hand on; one that is ignored (nohup) stays so. */
static void signals_choose(sigset_t *set)
{
    static const int wanted[] = { SIGINT, SIGTERM, SIGHUP };

    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct sigaction now;
        if (sigaction(wanted[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            sigaddset(set, wanted[i]);
    }
}

/* In the child; returns only if it can't be done. */
static void child_become(const tr_supervise_job *job, pid_t parent, int output, int errors,
                         const sigset_t *mask)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* should this process be killed outright */
    if (getppid() != parent)
        _exit(127);
    if (dup2(job->input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
        dup2(errors, STDERR_FILENO) < 0)
        return;
    setenv("HWLOC_HIDE_ERRORS", "2", 0); /* a container without /sys is no matter of our user's */
    if (setenv("TROUPE_RUN_DIR", job->run_dir, 1) != 0 || setenv("TMPDIR", job->run_dir, 1) != 0)
        return;
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(job->argv[0], job->argv);
}

static void pipe_close(int ends[2])
{
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
}

/* The child's errno comes through a pipe that a successful exec closes. */
static tr_status child_wait_exec(supervisor *s, int failure)
{
    int error = 0;
    ssize_t got;

    do
        got = read(failure, &error, sizeof error);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return TR_OK;
    waitpid(s->pid, NULL, 0);
    return tr_fail(TR_E_CONFIG, "%.256s can't be run: %s", s->job->argv[0], strerror(error));
}

static tr_status child_start(supervisor *s, const sigset_t *mask)
{
    tr_status st = TR_OK;
    int out[2] = { -1, -1 }, err[2] = { -1, -1 }, failure[2] = { -1, -1 };
    const pid_t self = getpid();

    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 ||
        pipe2(failure, O_CLOEXEC) != 0) {
        st = tr_fail(TR_E_SYSTEM, "launch: pipe: %s", strerror(errno));
        goto out_pipes;
    }
    s->pid = fork();
    if (s->pid < 0) {
        st = tr_fail(TR_E_SYSTEM, "launch: fork: %s", strerror(errno));
        goto out_pipes;
    }
    if (s->pid == 0) {
        child_become(s->job, self, out[1], err[1], mask);
        int error = errno;
        _exit(write(failure[1], &error, sizeof error) < 0 ? 126 : 127);
    }
    setpgid(s->pid, s->pid); /* whoever is first */
    close(failure[1]);
    failure[1] = -1;
    st = child_wait_exec(s, failure[0]);
    if (st != TR_OK)
        goto out_pipes;
    s->output = (tr_relay){ .from = out[0], .to = s->job->output };
    s->errors = (tr_relay){ .from = err[0], .to = s->job->errors, .hold = HOLD_MS * TR_MS };
    s->live = s->job->live;
    s->input = (tr_relay){ .from = s->live ? dup(STDIN_FILENO) : -1, .to = s->live };
    out[0] = err[0] = -1;

out_pipes:
    pipe_close(out);
    pipe_close(err);
    pipe_close(failure);
    return st;
}

/* --- while it runs ------------------------------------------------------------------------- */

/* The parent of a process and, unless NULL, its name of at most 15 bytes; 0 if it is gone or dead.
 * The name stands in brackets and may contain any. */
static pid_t parent_of(const char *pid, char name[16])
{
    char path[64], text[512];
    ssize_t size;

    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    const char *before = strchr(text, '(');
    const char *after = strrchr(text, ')');
    if (!before || !after || after < before || strlen(after) < 5 || after[2] == 'Z')
        return 0;
    if (name)
        snprintf(name, 16, "%.*s", (int)(after - before - 1), before + 1);
    return (pid_t)strtol(after + 4, NULL, 10); /* ") S PPID" */
}

static bool is_below(pid_t pid, pid_t top)
{
    for (int depth = 0; depth < MAX_DEPTH && pid > 1; depth++) {
        char name[16];
        snprintf(name, sizeof name, "%d", (int)pid);
        pid = parent_of(name, NULL);
        if (pid == top)
            return true;
    }
    return false;
}

/* A signal for every process below us but one.  Ranks have process groups of their own, so the
 * launcher's group does not reach them. */
static void signal_below(int signal, pid_t except)
{
    const pid_t self = getpid();
    const struct dirent *entry;

    DIR *dir = opendir("/proc");
    if (!dir)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid != except && is_below(pid, self))
            kill(pid, signal);
    }
    closedir(dir);
}

/* The same for the workers of this host alone. */
static void signal_workers(const supervisor *s, int signal)
{
    const pid_t self = getpid();
    const struct dirent *entry;
    char name[16];

    DIR *dir = s->job->worker ? opendir("/proc") : NULL;
    if (!dir)
        return;
    while ((entry = readdir(dir)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && parent_of(entry->d_name, name) != 0 &&
            strncmp(name, s->job->worker, sizeof name - 1) == 0 && is_below(pid, self))
            kill(pid, signal);
    }
    closedir(dir);
}

static void signal_group(const supervisor *s, int signal)
{
    if (!s->is_gone)
        kill(-s->pid, signal);
}

static void stage_enter(supervisor *s, stage next, tr_time wait)
{
    s->stage = next;
    s->deadline = wait == TR_FOREVER ? TR_FOREVER : tr_deadline_after(tr_now(), wait);
}

static void end_all(supervisor *s)
{
    s->result.was_ended = true;
    signal_below(SIGTERM, 0);
    stage_enter(s, STAGE_ENDING, s->job->term_grace);
}

/* Ranks first: mpirun then removes what they left (shared memory), which nobody else knows. */
static void kill_all(supervisor *s)
{
    s->result.was_ended = true;
    if (s->stage < STAGE_ALONE) {
        signal_below(SIGKILL, s->pid);
        stage_enter(s, STAGE_ALONE, ALONE_MS * TR_MS);
        return;
    }
    signal_group(s, SIGKILL);
    stage_enter(s, STAGE_KILLED, TR_FOREVER);
}

static void children_reap(supervisor *s)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != s->pid)
            continue; /* an orphan that we adopted */
        s->is_gone = true;
        s->result.wait_status = status;
    }
}

static pid_t coordinator_pid(const supervisor *s)
{
    char path[PATH_MAX], pid[16];

    snprintf(path, sizeof path, "%s/pid", s->job->run_dir);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    bool is_whole = fgets(pid, sizeof pid, file) && strchr(pid, '\n');
    fclose(file);
    return is_whole ? (pid_t)strtol(pid, NULL, 10) : 0;
}

static bool ask_gently(supervisor *s, int signal)
{
    pid_t pid = s->job->is_gentle && s->is_up && !s->was_asked ? coordinator_pid(s) : 0;

    if (pid <= 0 || s->stage != STAGE_RUNS || kill(pid, signal) != 0)
        return false;
    s->was_asked = true;
    return true;
}

static void signals_take(supervisor *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        if (ask_gently(s, (int)info.ssi_signo))
            continue;
        if (s->result.signal != 0) {
            kill_all(s);
            continue;
        }
        s->result.signal = (int)info.ssi_signo;
        /* The coordinator ends its workers at once; mpirun would take seconds. */
        pid_t pid = coordinator_pid(s);
        if (pid <= 0 || kill(pid, (int)info.ssi_signo) != 0)
            signal_group(s, (int)info.ssi_signo);
        stage_enter(s, STAGE_ENDING, s->job->signal_grace);
    }
}

/* It reported, or it died without: mpirun, told to survive dead ranks, would not mind. */
static bool run_is_over(const supervisor *s)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/status", s->job->run_dir);
    if (access(path, F_OK) == 0)
        return true;
    pid_t pid = coordinator_pid(s);
    return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
}

/* The coordinator runs, and after START_MS there are fewer workers than were asked for. */
static bool some_never_came(supervisor *s)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/pid", s->job->run_dir);
    if (s->started == 0 && access(path, F_OK) == 0)
        s->started = tr_now();
    return s->started != 0 && s->n_workers < s->job->n_workers &&
           s->n_workers < (size_t)MAX_WORKERS && tr_now() - s->started > (tr_time)START_MS * TR_MS;
}

/* Remember the workers that live now; the first of those known that is gone, or 0. */
static pid_t workers_count(supervisor *s)
{
    const pid_t self = getpid();
    bool lives[MAX_WORKERS] = { false };
    const struct dirent *entry;
    char name[16];

    DIR *dir = opendir("/proc");
    if (!dir)
        return 0;
    while ((entry = readdir(dir)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]) || parent_of(entry->d_name, name) == 0 ||
            strncmp(name, s->job->worker, sizeof name - 1) != 0)
            continue;
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        size_t i = 0;
        while (i < s->n_workers && s->worker[i] != pid)
            i++;
        if (i == MAX_WORKERS || !is_below(pid, self))
            continue;
        if (i == s->n_workers)
            s->worker[s->n_workers++] = pid;
        lives[i] = true;
    }
    closedir(dir);
    for (size_t i = 0; i < s->n_workers; i++)
        if (!lives[i])
            return s->worker[i];
    return 0;
}

static bool look_whether_up(supervisor *s)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/up", s->job->run_dir);
    s->is_up = s->is_up || access(path, F_OK) == 0;
    return s->is_up;
}

/* MPI's start-up waits for ever for a rank that ended, and mpirun, told to survive dead ranks, does
 * not mind: so somebody must look. */
static void start_watch(supervisor *s)
{
    if (s->is_up || !s->job->worker)
        return;
    s->result.lost_pid = (int)workers_count(s);
    if (s->result.lost_pid == 0 && some_never_came(s))
        s->result.lost_pid = -1;
    /* Looked at last: who is gone now may have gone after all had come up. */
    if (look_whether_up(s))
        s->result.lost_pid = 0;
    if (s->result.lost_pid != 0) /* the coordinator may know better why: a moment for its report */
        stage_enter(s, STAGE_MAY_END, LOST_MS * TR_MS);
}

/* In that moment: the run goes on if all came up after all, and the coordinator sees the loss. */
static bool goes_on(supervisor *s)
{
    if (s->result.lost_pid == 0 || run_is_over(s) || !look_whether_up(s))
        return false;
    s->result.lost_pid = 0;
    stage_enter(s, STAGE_RUNS, TR_FOREVER);
    return true;
}

static void deadline_check(supervisor *s)
{
    if (s->stage == STAGE_RUNS) {
        if (run_is_over(s))
            stage_enter(s, STAGE_MAY_END, s->job->grace);
        else
            start_watch(s);
        return;
    }
    if ((s->stage == STAGE_MAY_END && goes_on(s)) || tr_now() < s->deadline)
        return;
    if (s->stage == STAGE_MAY_END && tr_relay_is_blocked(&s->output))
        stage_enter(s, STAGE_MAY_END, s->job->grace); /* our reader pauses: not its fault */
    else if (s->stage == STAGE_MAY_END && !s->were_workers_ended && s->result.lost_pid == 0) {
        /* One that hangs, and was given up, keeps mpirun from ending. */
        s->were_workers_ended = true;
        signal_workers(s, SIGKILL);
        stage_enter(s, STAGE_MAY_END, s->job->grace);
    } else if (s->stage == STAGE_MAY_END) {
        s->result.was_cut = s->result.lost_pid == 0;
        end_all(s);
    } else
        kill_all(s);
}

static int wait_ms(const supervisor *s)
{
    if (s->stage == STAGE_RUNS || s->deadline == TR_FOREVER)
        return LOOK_MS;
    tr_time left = (s->deadline - tr_now()) / TR_MS + 1;
    return left < 0 ? 0 : left < LOOK_MS ? (int)left : LOOK_MS;
}

/* What is typed goes on to the coordinator; the end of it too. */
static void input_turn(supervisor *s, short revents, tr_time now)
{
    if (s->live == 0)
        return;
    tr_relay_turn(&s->input, revents, now);
    if (s->input.from >= 0)
        return;
    close(s->live);
    s->live = 0;
}

/* One turn: wait for something, at most ms, and deal with it. */
static void turn(supervisor *s, int ms)
{
    tr_time now = tr_now();
    struct pollfd polled[4] = { { .fd = s->signals, .events = POLLIN },
                                tr_relay_poll(&s->output, now),
                                tr_relay_poll(&s->errors, now),
                                tr_relay_poll(&s->input, now) };

    if (poll(polled, 4, tr_relay_wait_ms(&s->errors, now, ms)) < 0) {
        if (errno != EINTR)
            tr_sleep(10 * TR_MS);
        return;
    }
    now = tr_now();
    if (polled[0].revents)
        signals_take(s);
    tr_relay_turn(&s->output, polled[1].revents, now);
    tr_relay_turn(&s->errors, polled[2].revents, now);
    input_turn(s, polled[3].revents, now);
    children_reap(s);
    if (s->output.error != 0 && s->stage < STAGE_ENDING)
        end_all(s); /* nobody reads on */
}

/* --- the end ------------------------------------------------------------------------------- */

/* Until no process is left below us; an unkillable one (in a dead file system) is given 2 s. */
static void leave_nothing(supervisor *s)
{
    const tr_time deadline = tr_deadline_after(tr_now(), 2 * TR_SECOND);
    pid_t pid;

    while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0 && tr_now() < deadline) {
        if (pid > 0)
            continue;
        s->result.left_some = true;
        signal_below(SIGKILL, 0);
        tr_sleep(2 * TR_MS);
    }
}

/* What the dead have written is still in the pipes, and who reads from us may take their time;
 * after a signal only a second of it. */
static void output_drain(supervisor *s)
{
    const tr_time deadline = tr_deadline_after(tr_now(), TR_SECOND);

    while ((s->output.from >= 0 || s->errors.from >= 0) &&
           (s->result.signal == 0 || tr_now() < deadline))
        turn(s, LOOK_MS);
    tr_relay_close(&s->output);
    tr_relay_close(&s->errors);
    tr_relay_close(&s->input);
    if (s->live != 0)
        close(s->live);
    s->result.output_error = s->output.error;
    s->result.n_output = s->output.total;
}

tr_status tr_supervise(const tr_supervise_job *job, tr_supervise_result *out)
{
    supervisor s = { .job = job, .deadline = TR_FOREVER };
    sigset_t handled, before;

    signal(SIGCHLD, SIG_DFL); /* ignored, children could not be waited for */
    signals_choose(&handled);
    sigprocmask(SIG_BLOCK, &handled, &before);
    s.signals = signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s.signals < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
        tr_status bad = tr_fail(TR_E_SYSTEM, "launch: signals: %s", strerror(errno));
        sigprocmask(SIG_SETMASK, &before, NULL);
        return bad;
    }
    tr_status st = child_start(&s, &before);
    if (st != TR_OK)
        goto out_signals;

    while (!s.is_gone) {
        turn(&s, wait_ms(&s));
        deadline_check(&s);
    }
    leave_nothing(&s);
    output_drain(&s);
    signals_take(&s); /* late ones must not end us before the caller has cleaned up */
    *out = s.result;

out_signals:
    close(s.signals);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return st;
}
