/* launch.c - facts, run directory, standard input, supervision, status: one run from start to end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/launch.h"
#include "coordinator/cluster/launch_line.h"
#include "coordinator/cluster/supervise.h"

#include "base/host.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
    MAX_PROMPT = 64 << 20, /* bytes of standard input: more than any context */
    OLDEST_OPEN_MPI = 4,
    VERSION_MS = 20000,
};

static const char status_file[] = "status";
static const char output_file[] = "output";

/* --- which mpirun -------------------------------------------------------------------------- */

bool tr_launch_version_read(const char *text, unsigned *major, unsigned *minor)
{
    const char *open_mpi = strstr(text, "Open MPI");
    unsigned a, b;

    if (!open_mpi || sscanf(open_mpi, "Open MPI%*[) v]%u.%u", &a, &b) != 2)
        return false;
    *major = a;
    *minor = b;
    return true;
}

/* Reads until the end, the deadline or a full buffer. */
static void read_all(int fd, char *text, size_t size, tr_time deadline)
{
    size_t n = 0;

    while (n < size - 1) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        tr_time left = (deadline - tr_now()) / TR_MS;
        if (left <= 0 || poll(&p, 1, (int)left) <= 0)
            break;
        ssize_t got = read(fd, text + n, size - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = '\0';
}

/* What `mpirun --version` prints; errno of the attempt in *error. */
static void version_ask(const char *mpirun, char *text, size_t size, int *error)
{
    char *argv[] = { (char *)(uintptr_t)mpirun, (char *)(uintptr_t) "--version", NULL };
    posix_spawn_file_actions_t actions;
    int out[2];
    pid_t pid;

    text[0] = '\0';
    if (pipe2(out, O_CLOEXEC) != 0) {
        *error = errno;
        return;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    *error = posix_spawnp(&pid, mpirun, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    if (*error == 0) {
        read_all(out[0], text, size, tr_deadline_after(tr_now(), VERSION_MS * TR_MS));
        kill(pid, SIGKILL); /* it has said what we want */
        waitpid(pid, NULL, 0);
    }
    close(out[0]);
}

/* Debian calls it mpirun.openmpi where mpirun is another MPI. */
static tr_status mpirun_find(const tr_cluster_config *c, tr_launch_facts *f)
{
    const char *names[] = { c && c->mpirun ? c->mpirun : "mpirun", "mpirun.openmpi" };
    const size_t n = c && c->mpirun ? 1 : 2;
    unsigned major = 0, minor = 0;
    char text[512];
    int error = 0;

    for (size_t i = 0; i < n && f->mpirun == NULL; i++) {
        int tried;
        version_ask(names[i], text, sizeof text, &tried);
        if (tried == 0 && tr_launch_version_read(text, &major, &minor))
            f->mpirun = names[i];
        if (i == 0)
            error = tried;
    }
    if (!f->mpirun && error != 0)
        return tr_fail(TR_E_CONFIG,
                       "%.256s can't be run: %s; install Open MPI (Debian: apt-get install "
                       "openmpi-bin) or name it under mpirun: path: in a cluster file",
                       names[0], strerror(error));
    if (!f->mpirun)
        return tr_fail(TR_E_CONFIG,
                       "%.256s is not Open MPI; install openmpi-bin, or name its "
                       "mpirun under mpirun: path: in a cluster file",
                       names[0]);
    if (major < OLDEST_OPEN_MPI)
        return tr_fail(TR_E_CONFIG, "%.256s is Open MPI %u.%u; %d.0 or later is needed", f->mpirun,
                       major, minor, OLDEST_OPEN_MPI);
    f->open_mpi = major;
    return TR_OK;
}

/* --- which programs ------------------------------------------------------------------------ */

typedef struct {
    char program[PATH_MAX];
    char worker[PATH_MAX + 16];
    char hostname[256];
} names;

static tr_status names_find(const tr_run_options *o, const tr_cluster_config *c, names *n)
{
    const char *given = o->worker_binary ? o->worker_binary : c ? c->worker_binary : NULL;
    ssize_t size = readlink("/proc/self/exe", n->program, sizeof n->program - 1);

    if (size <= 0)
        return tr_fail(TR_E_SYSTEM, "/proc/self/exe: %s; is /proc mounted?", strerror(errno));
    n->program[size] = '\0';
    tr_host_name(n->hostname, sizeof n->hostname);
    if (given) {
        if (strlen(given) >= sizeof n->worker)
            return tr_fail(TR_E_USAGE, "--worker-binary: longer than %d bytes", PATH_MAX);
        snprintf(n->worker, sizeof n->worker, "%s", given);
        return TR_OK;
    }
    const char *slash = strrchr(n->program, '/');
    snprintf(n->worker, sizeof n->worker, "%.*stroupe-worker", (int)(slash + 1 - n->program),
             n->program);
    return TR_OK;
}

static tr_status worker_check(const tr_launch_line *line, const char *worker)
{
    if (!line->worker_is_here || !strchr(worker, '/') || access(worker, X_OK) == 0)
        return TR_OK;
    return tr_fail(TR_E_CONFIG, "worker %.256s: %s; name it with --worker-binary", worker,
                   strerror(errno));
}

/* --- run directory and standard input ------------------------------------------------------ */

static tr_status run_dir_make(char *path, size_t size)
{
    const char *base = getenv("TMPDIR");

    if (!base || base[0] != '/' || strlen(base) > 64) /* sockets live in it: 108 bytes in all */
        base = "/tmp";
    snprintf(path, size, "%s/troupe-XXXXXX", base);
    if (!mkdtemp(path))
        return tr_fail(TR_E_IO, "run directory in %s: %s", base, strerror(errno));
    return TR_OK;
}

static int remove_entry(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
    (void)sb;
    (void)type;
    (void)ftw;
    remove(path);
    return 0;
}

static void run_dir_remove(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Standard input as a file: mpirun in a process group of its own could not read a terminal. */
static tr_status input_spool(int *out)
{
    char chunk[65536];
    size_t total = 0;
    ssize_t got;
    int fd = memfd_create("troupe-prompt", MFD_CLOEXEC);

    if (fd < 0)
        return tr_fail(TR_E_SYSTEM, "standard input: %s", strerror(errno));
    for (;;) {
        got = read(STDIN_FILENO, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        total += (size_t)got;
        if (total > MAX_PROMPT || write(fd, chunk, (size_t)got) != got) {
            close(fd);
            return tr_fail(TR_E_REQUEST, "standard input: the prompt is larger than %d MiB",
                           MAX_PROMPT >> 20);
        }
    }
    if (got < 0) {
        close(fd);
        return tr_fail(TR_E_IO, "standard input: %s", strerror(errno));
    }
    if (lseek(fd, 0, SEEK_SET) < 0) {
        close(fd);
        return tr_fail(TR_E_SYSTEM, "standard input: %s", strerror(errno));
    }
    *out = fd;
    return TR_OK;
}

static tr_status input_open(const tr_run_options *o, int *out, int *live)
{
    int ends[2];

    *live = 0;
    if (o->chat) {
        if (pipe2(ends, O_CLOEXEC) != 0)
            return tr_fail(TR_E_SYSTEM, "launch: pipe: %s", strerror(errno));
        *out = ends[0];
        *live = ends[1];
        return TR_OK;
    }
    if (o->prompt_stdin)
        return input_spool(out);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tr_fail(TR_E_SYSTEM, "/dev/null: %s", strerror(errno));
    *out = fd;
    return TR_OK;
}

/* --- how it ended -------------------------------------------------------------------------- */

/* One number in a new file of the run directory; true if there is one now. */
static bool report(const char *name, long number)
{
    const char *dir = getenv("TROUPE_RUN_DIR");
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    char temporary[PATH_MAX], path[PATH_MAX], text[24];

    /* Only who the launcher started speaks to it: what runs below a run inherits the variable. */
    if (!rank || strcmp(rank, "0") != 0)
        return false;
    if (!dir || dir[0] != '/' || strlen(dir) > PATH_MAX - 64)
        return false;
    snprintf(temporary, sizeof temporary, "%s/%s.new", dir, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int n = snprintf(text, sizeof text, "%ld\n", number);
    /* On another host than the launcher's there is no such directory: mpirun's status must do. */
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool ok = write(fd, text, (size_t)n) == n;
    close(fd);
    if (ok) /* link: the launcher must not see half a file, and the first one stays */
        ok = link(temporary, path) == 0 || errno == EEXIST;
    unlink(temporary);
    return ok;
}

void tr_launch_report_start(void)
{
    report("pid", (long)getpid());
}

void tr_launch_report_up(void)
{
    report("up", 1);
}

static long n_output;

void tr_launch_count_output(size_t n)
{
    n_output += (long)n;
}

bool tr_launch_report_status(int exit_code)
{
    if (n_output > 0) /* else nobody counted */
        report(output_file, n_output);
    return report(status_file, exit_code);
}

/* A number that the coordinator reported. */
static bool report_read(const char *dir, const char *name, long *out)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool ok = fscanf(file, "%ld", out) == 1 && *out >= 0;
    fclose(file);
    return ok;
}

static bool status_read(const char *dir, int *code)
{
    long value;

    if (!report_read(dir, status_file, &value) || value > 255)
        return false;
    *code = (int)value;
    return true;
}

/* mpirun was ended, but what the coordinator wrote had all come. */
static bool has_all_output(const char *dir, const tr_supervise_result *r)
{
    long n;

    return report_read(dir, output_file, &n) && r->n_output >= (uint64_t)n;
}

tr_status tr_launch_status(int exit_code)
{
    static const tr_status of[] = { TR_OK,          TR_E_USAGE, TR_E_FORMAT, TR_E_REQUEST,
                                    TR_E_PEER_LOST, TR_E_IO,    TR_E_SYSTEM, TR_E_INTERRUPTED };

    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++)
        if (tr_status_exit_code(of[i]) == exit_code)
            return of[i];
    return TR_E_SYSTEM;
}

/* mpirun says 0 to 255, or died of a signal itself. */
static tr_status outcome(const tr_supervise_result *r, const char *dir, bool coordinator_is_here,
                         int *exit_code)
{
    const bool exited = WIFEXITED(r->wait_status);
    const int status = exited ? WEXITSTATUS(r->wait_status) : 128 + WTERMSIG(r->wait_status);

    if (r->output_error != 0)
        return tr_fail(TR_E_IO, "standard output: %s", strerror(r->output_error));
    bool has_reported = status_read(dir, exit_code);
    /* Interrupted, but by this launcher alone: why it was says more. */
    if (has_reported && r->lost_pid != 0 && r->signal == 0 &&
        *exit_code == tr_status_exit_code(TR_E_INTERRUPTED))
        has_reported = false;
    if (has_reported && !(*exit_code == 0 && r->was_cut && !has_all_output(dir, r)))
        return TR_OK;
    if (has_reported)
        return tr_fail(TR_E_IO, "mpirun did not hand on all output in time: the text may be cut");
    if (r->lost_pid > 0)
        return tr_fail(
            TR_E_PEER_LOST,
            "a worker (process %d) ended before all had come up; what it said stands above",
            r->lost_pid);
    if (r->lost_pid < 0)
        return tr_fail(TR_E_PEER_LOST, "not all workers came up: one ended at its very start; what "
                                       "it said stands above");
    if (r->signal != 0)
        return tr_fail(TR_E_INTERRUPTED, "interrupted by signal %d (%s)", r->signal,
                       strsignal(r->signal));
    if (!coordinator_is_here && exited &&
        (status == 0 || tr_launch_status(status) != TR_E_SYSTEM)) {
        *exit_code = status;
        return TR_OK;
    }
    return tr_fail(TR_E_PEER_LOST,
                   "mpirun ended with status %d before the coordinator could say how the run went; "
                   "its own message stands above, --dry-run shows its line",
                   status);
}

/* --- the run ------------------------------------------------------------------------------- */

static tr_status line_run(const tr_run_options *o, const tr_launch_line *line, const char *worker,
                          size_t n_workers, bool is_gentle, int *exit_code)
{
    char dir[128];
    int input = -1;
    tr_supervise_result result;
    int live = 0;
    tr_status st = input_open(o, &input, &live);

    if (st != TR_OK)
        return st;
    st = run_dir_make(dir, sizeof dir);
    if (st != TR_OK)
        goto out_input;
    st = tr_supervise(&(tr_supervise_job){ .argv = line->word,
                                           .input = input,
                                           .live = live,
                                           .output = STDOUT_FILENO,
                                           .errors = STDERR_FILENO,
                                           .run_dir = dir,
                                           .worker = worker,
                                           .n_workers = n_workers,
                                           .is_gentle = is_gentle,
                                           .grace = 500 * TR_MS,
                                           .term_grace = 500 * TR_MS,
                                           .signal_grace = 1500 * TR_MS },
                      &result);
    if (st == TR_OK)
        st = outcome(&result, dir, line->coordinator_is_here, exit_code);
    run_dir_remove(dir);

out_input:
    close(input);
    return st;
}

static tr_status line_print(const tr_launch_line *line)
{
    char *text = NULL;
    tr_status st = tr_launch_line_quote(line, &text);

    if (st != TR_OK)
        return st;
    if (puts(text) < 0 || fflush(stdout) != 0)
        st = tr_fail(TR_E_IO, "standard output: %s", strerror(errno));
    free(text);
    return st;
}

static tr_status launch(const tr_run_options *o, const tr_cluster_config *c, int argc, char **argv,
                        const tr_launch_other *other, int *exit_code)
{
    tr_launch_facts facts = { .is_root = geteuid() == 0,
                              .shows_progress = isatty(STDERR_FILENO) == 1,
                              .reports = !o->dry_run,
                              .command = other        ? other->command
                                         : o->is_eval ? "eval"
                                                      : "run",
                              .words = other ? other->words : NULL };
    tr_launch_line line;
    names n;

    if (getenv("OMPI_COMM_WORLD_SIZE"))
        return tr_fail(TR_E_USAGE, "-w and --cluster call mpirun, but this process was started by "
                                   "mpirun: leave them out");
    if (!c && o->workers == 0)
        return tr_fail(TR_E_USAGE, "--workers 0: there is nothing to launch");
    tr_status st = names_find(o, c, &n);
    if (st != TR_OK)
        return st;
    st = mpirun_find(c, &facts);
    if (st != TR_OK)
        return st;
    facts.program = n.program;
    facts.worker = n.worker;
    facts.hostname = n.hostname;
    st = tr_launch_line_compose(o, c, argc, argv, &facts, &line);
    if (st != TR_OK)
        return st;
    st = worker_check(&line, n.worker);
    if (st == TR_OK && o->dry_run) {
        st = line_print(&line);
        *exit_code = 0;
    } else if (st == TR_OK) {
        const char *slash = strrchr(n.worker, '/');
        st = line_run(o, &line, slash ? slash + 1 : n.worker, c ? 0 : (size_t)o->workers,
                      other && other->is_gentle, exit_code);
    }
    tr_launch_line_fini(&line);
    return st;
}

tr_status tr_launch_run(const tr_run_options *o, const tr_cluster_config *c, int argc, char **argv,
                        int *exit_code)
{
    return launch(o, c, argc, argv, NULL, exit_code);
}

tr_status tr_launch_command(const tr_launch_other *other, int *exit_code)
{
    tr_run_options o = { .workers = other->n_workers,
                         .prompt = "",
                         .worker_binary = other->worker_binary,
                         .worker_threads = other->worker_threads };

    return launch(&o, other->cluster, 0, NULL, other, exit_code);
}
