/* test_launch.c - whatever the launcher does, the run ends, its status is the coordinator's, its
 * output arrives whole, and neither a process nor a file stays behind.
 *
 * Method: a shell script plays mpirun and misbehaves as FAKE says. Every process that it leaves is
 * a `sleep` with a length that names this test, so that /proc tells who is still there.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/cluster/launch.h"
#include "coordinator/cluster/supervise.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], fake[96], marker[32];

static const char script[] =
    "#!/bin/sh\n"
    "if [ \"$1\" = --version ]; then echo \"${FAKE_VERSION:-mpirun (Open MPI) 4.1.4}\"; exit 0; "
    "fi\n"
    "echo \"$TROUPE_RUN_DIR\" > \"$FAKE_DIR/run_dir\"\n"
    "report() { echo $1 > \"$TROUPE_RUN_DIR/x\"; mv \"$TROUPE_RUN_DIR/x\" "
    "\"$TROUPE_RUN_DIR/status\"; }\n"
    "stay() { while :; do sleep $FAKE_SLEEP; done; }\n"
    "case $FAKE in\n"
    "ok) echo \"$@\"; report 0; exit 137;;\n"
    "code) report 5; exit 0;;\n"
    "stdin) cat; report 0;;\n"
    "early) exit 9;;\n"
    "dies) kill -KILL $$;;\n"
    "elsewhere) exit 4;;\n"
    "orphans) sleep $FAKE_SLEEP & setsid sleep $FAKE_SLEEP & (setsid sh -c 'sleep $FAKE_SLEEP; :' "
    "&) ; report 0;;\n"
    "hangs) echo out; sleep $FAKE_SLEEP & report 3; stay;;\n"
    "deaf) trap '' TERM INT HUP; setsid sleep $FAKE_SLEEP & report 3; stay;;\n"
    "interrupted) trap 'report 130; exit 1' INT; (sleep 0.3; kill -INT $PPID) & stay;;\n"
    "terminated) kill -TERM $PPID; stay;;\n"
    "deaf_twice) trap '' INT; kill -INT $PPID; sleep 0.2; kill -INT $PPID; stay;;\n"
    "files) mkdir -p \"$TMPDIR/a/b\"; : > \"$TMPDIR/a/b/c\"; ln -s / \"$TMPDIR/root\"; report 0;;\n"
    "endless) trap '' PIPE; while echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; do :; done; stay;;\n"
    "crashes) sleep 0.1 & echo $! > \"$TROUPE_RUN_DIR/x\"; mv \"$TROUPE_RUN_DIR/x\" "
    "\"$TROUPE_RUN_DIR/pid\"; trap '' TERM; stay;;\n"
    "both) head -c 20000 /dev/zero; echo said >&2; report 0;;\n"
    "late) ln -sf \"$(command -v sleep)\" \"$FAKE_DIR/worker\"; \"$FAKE_DIR/worker\" 0.4; sleep "
    "0.2; "
    ": > \"$TROUPE_RUN_DIR/up\"; sleep 1; report 0;;\n"
    "lost) ln -sf \"$(command -v sleep)\" \"$FAKE_DIR/worker\"; \"$FAKE_DIR/worker\" 0.4; stay;;\n"
    "large) head -c 300000 /dev/zero; report 0;;\n"
    "esac\n";

static void file_write(const char *path, const char *text, mode_t mode)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static int group_setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    snprintf(dir, sizeof dir, "/tmp/test_launch.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(fake, sizeof fake, "%s/mpirun", dir);
    file_write(fake, script, 0700);
    snprintf(marker, sizeof marker, "7%06d", (int)getpid());
    setenv("FAKE_DIR", dir, 1);
    setenv("FAKE_SLEEP", marker, 1);
    unsetenv("OMPI_COMM_WORLD_SIZE");
    return 0;
}

static int group_teardown(void **state)
{
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/run_dir", dir);
    unlink(path);
    unlink(fake);
    snprintf(path, sizeof path, "%s/worker", dir);
    unlink(path);
    return rmdir(dir);
}

/* --- what must be true after every run ----------------------------------------------------- */

static bool is_marked(const char *pid)
{
    char path[64], line[512];

    snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    return n > 0 && memmem(line, (size_t)n, marker, strlen(marker)) != NULL;
}

static void nothing_is_left(void)
{
    char path[128], run_dir[256] = "";
    DIR *proc = opendir("/proc");

    assert_non_null(proc);
    for (const struct dirent *e; (e = readdir(proc)) != NULL;)
        if (e->d_name[0] >= '0' && e->d_name[0] <= '9')
            assert_false(is_marked(e->d_name));
    closedir(proc);
    assert_true(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);

    snprintf(path, sizeof path, "%s/run_dir", dir);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    if (fgets(run_dir, sizeof run_dir, file))
        run_dir[strcspn(run_dir, "\n")] = '\0';
    fclose(file);
    assert_true(run_dir[0] == '/');
    assert_int_not_equal(access(run_dir, F_OK), 0);
    unlink(path);
}

typedef struct {
    tr_status status;
    int code;
    char reason[512];
    char out[400000];
    size_t n_out;
} ended;

/* tr_launch_run with its standard output in e->out; YAML says where, NULL is this machine. */
static void launch(const char *mode, const char *yaml, const char *extra, ended *e)
{
    char text[256], run[] = "run", model[] = "-mm", prompt[] = "-px", workers[] = "-w1";
    char binary[] = "--worker-binary=/bin/true", cluster[] = "--cluster=c", more[64];
    char *argv[] = { run, model, binary, yaml ? cluster : workers, prompt, more, NULL };
    tr_cluster_config *c = NULL;
    tr_run_options o;
    bool done;
    FILE *to = tmpfile();
    int keep = dup(1);

    assert_non_null(to);
    setenv("FAKE", mode, 1);
    snprintf(more, sizeof more, "%s", extra);
    snprintf(text, sizeof text, "%s\nmpirun: {path: %s}\n", yaml ? yaml : "", fake);
    if (yaml)
        assert_int_equal(tr_cluster_config_parse("c", tr_bytes_of(text), &c), TR_OK);
    assert_int_equal(tr_run_options_parse(6, argv, &o, &done), TR_OK);
    fflush(stdout);
    dup2(fileno(to), 1);
    e->code = -1;
    tr_fail_capture_begin(e->reason, sizeof e->reason);
    e->status = tr_launch_run(&o, c, 6, argv, &e->code);
    tr_fail_capture_end();
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    rewind(to);
    e->n_out = fread(e->out, 1, sizeof e->out - 1, to);
    e->out[e->n_out] = '\0';
    fclose(to);
    tr_cluster_config_free(&c);
    nothing_is_left();
}

#define LOCAL "hosts: [{name: localhost}]"

static ended result;

/* --- whole runs ---------------------------------------------------------------------------- */

static void the_coordinators_status_counts_and_not_mpiruns(void **state)
{
    (void)state;
    launch("ok", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_OK);
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.out, " run --model=m --prompt=x --quiet : --host"));
    launch("code", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_OK);
    assert_int_equal(result.code, 5);
}

static void mpirun_in_the_path_is_found(void **state)
{
    char *path = strdup(getenv("PATH")), mine[4096];

    (void)state;
    snprintf(mine, sizeof mine, "%s:%s", dir, path);
    setenv("PATH", mine, 1);
    launch("ok", NULL, "-q", &result);
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.out, "--host localhost:1 -n 1 /bin/true"));
    setenv("PATH", path, 1);
    free(path);
}

static void mpirun_that_fails_before_the_coordinator_ends_is_a_cluster_error(void **state)
{
    (void)state;
    launch("early", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_E_PEER_LOST);
    assert_non_null(strstr(result.reason, "mpirun ended with status 9"));
    launch("dies", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_E_PEER_LOST);
    assert_non_null(strstr(result.reason, "status 137"));
}

static void a_coordinator_elsewhere_ends_as_mpirun_says(void **state)
{
    (void)state;
    launch("elsewhere", "hosts: [{name: far.example}]", "-q", &result);
    assert_int_equal(result.status, TR_OK);
    assert_int_equal(result.code, 4);
    launch("early", "hosts: [{name: far.example}]", "-q", &result);
    assert_int_equal(result.status, TR_E_PEER_LOST);
}

static void files_in_the_run_directory_go_with_it(void **state)
{
    (void)state;
    launch("files", LOCAL, "-q", &result);
    assert_int_equal(result.code, 0);
    assert_int_equal(access("/tmp", F_OK), 0); /* the link was not followed */
}

static void output_arrives_whole(void **state)
{
    (void)state;
    launch("large", LOCAL, "-q", &result);
    assert_int_equal(result.code, 0);
    assert_int_equal(result.n_out, 300000);
}

static void standard_input_reaches_the_coordinator(void **state)
{
    char path[128], line[64] = "";
    int keep = dup(0);

    (void)state;
    snprintf(path, sizeof path, "%s/in", dir);
    file_write(path, "first\nlast, without newline", 0600);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    dup2(fd, 0);
    launch("stdin", LOCAL, "-p-", &result);
    assert_string_equal(result.out, "first\nlast, without newline");
    lseek(0, 0, SEEK_SET); /* without -p - nobody may eat it */
    launch("stdin", LOCAL, "-q", &result);
    assert_string_equal(result.out, "");
    assert_int_equal(read(0, line, 5), 5);
    assert_string_equal(line, "first");
    dup2(keep, 0);
    close(keep);
    close(fd);
    unlink(path);
}

static void a_missing_or_wrong_launcher_is_named(void **state)
{
    (void)state;
    setenv("FAKE_VERSION", "mpirun (Open MPI) 3.1.6", 1);
    launch("ok", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_E_CONFIG);
    assert_non_null(strstr(result.reason, "Open MPI 3.1; 4.0 or later"));
    setenv("FAKE_VERSION", "HYDRA build details: Version 4.0", 1);
    launch("ok", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_E_CONFIG);
    assert_non_null(strstr(result.reason, "is not Open MPI"));
    unsetenv("FAKE_VERSION");

    fake[strlen(fake) - 1] = 'x';
    launch("ok", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_E_CONFIG);
    assert_non_null(strstr(result.reason, "can't be run"));
    assert_non_null(strstr(result.reason, fake));
    fake[strlen(fake) - 1] = 'n';
}

static void a_missing_worker_is_named_before_anything_starts(void **state)
{
    (void)state;
    launch("ok", LOCAL, "--worker-binary=/no/such/worker", &result);
    assert_int_equal(result.status, TR_E_CONFIG);
    assert_non_null(strstr(result.reason, "/no/such/worker"));
    assert_non_null(strstr(result.reason, "--worker-binary"));
}

static void under_mpirun_nothing_is_launched(void **state)
{
    (void)state;
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    launch("ok", LOCAL, "-q", &result);
    unsetenv("OMPI_COMM_WORLD_SIZE");
    assert_int_equal(result.status, TR_E_USAGE);
    assert_non_null(strstr(result.reason, "started by mpirun"));
}

static void a_dry_run_prints_one_line_and_runs_nothing(void **state)
{
    (void)state;
    launch("ok", LOCAL, "--dry-run", &result);
    assert_int_equal(result.status, TR_OK);
    assert_int_equal(result.code, 0);
    assert_memory_equal(result.out, fake, strlen(fake));
    assert_ptr_equal(strchr(result.out, '\n'), result.out + result.n_out - 1);
    assert_null(strstr(result.out, "TROUPE_RUN_DIR"));
    assert_null(strstr(result.out, "dry-run"));
}

static void versions_are_read(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        unsigned major, minor;
    } table[] = {
        { "mpirun (Open MPI) 4.1.4\n\nReport bugs to", true, 4, 1 },
        { "mpirun (Open MPI) 5.0.7\n", true, 5, 0 },
        { "Open MPI v5.1.0rc1", true, 5, 1 },
        { "mpirun (Open MPI) 12.34", true, 12, 34 },
        { "mpirun (Open MPI)", false, 0, 0 },
        { "Intel(R) MPI Library for Linux* OS, Version 2021.9", false, 0, 0 },
        { "", false, 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        unsigned major = 0, minor = 0;
        assert_int_equal(tr_launch_version_read(table[i].text, &major, &minor), table[i].ok);
        assert_int_equal(major, table[i].major);
        assert_int_equal(minor, table[i].minor);
    }
}

static void only_the_first_report_counts(void **state)
{
    char path[128], text[16] = "";

    (void)state;
    assert_false(tr_launch_report_status(1)); /* nobody asked */
    setenv("TROUPE_RUN_DIR", "/no/such/directory", 1);
    assert_false(tr_launch_report_status(1)); /* another host's */
    setenv("TROUPE_RUN_DIR", dir, 1);
    assert_false(tr_launch_report_status(1)); /* inherited, but nobody launched this one */
    setenv("OMPI_COMM_WORLD_RANK", "1", 1);
    assert_false(tr_launch_report_status(1)); /* a worker */
    setenv("OMPI_COMM_WORLD_RANK", "0", 1);
    assert_true(tr_launch_report_status(6));
    assert_true(tr_launch_report_status(7));
    tr_launch_report_start();
    unsetenv("TROUPE_RUN_DIR");
    unsetenv("OMPI_COMM_WORLD_RANK");
    snprintf(path, sizeof path, "%s/status", dir);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, "6\n");
    unlink(path);
    snprintf(path, sizeof path, "%s/pid", dir);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_int_equal(strtol(text, NULL, 10), getpid());
    unlink(path);
}

static void every_exit_class_maps_back(void **state)
{
    static const int codes[] = { 0, 2, 3, 4, 5, 6, 7, 130 };

    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        assert_int_equal(tr_status_exit_code(tr_launch_status(codes[i])), codes[i]);
    assert_int_equal(tr_launch_status(139), TR_E_SYSTEM);
}

/* --- supervision, with short patience ------------------------------------------------------ */

static tr_supervise_result supervise(const char *mode, int output, int errors)
{
    char run_dir[] = "/tmp/test_launch_run.XXXXXX", path[64];
    char *argv[] = { fake, NULL };
    tr_supervise_result r;

    setenv("FAKE", mode, 1);
    assert_non_null(mkdtemp(run_dir));
    int input = open("/dev/null", O_RDONLY);
    assert_true(input >= 0);
    assert_int_equal(tr_supervise(&(tr_supervise_job){ .argv = argv,
                                                       .input = input,
                                                       .output = output,
                                                       .errors = errors,
                                                       .run_dir = run_dir,
                                                       .worker = "worker",
                                                       .grace = 200 * TR_MS,
                                                       .term_grace = 200 * TR_MS,
                                                       .signal_grace = 5 * TR_SECOND },
                                  &r),
                     TR_OK);
    close(input);
    snprintf(path, sizeof path, "%s/status", run_dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/pid", run_dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/up", run_dir);
    unlink(path);
    assert_int_equal(rmdir(run_dir), 0);
    nothing_is_left();
    return r;
}

static int null_output(void)
{
    int fd = open("/dev/null", O_WRONLY);

    assert_true(fd >= 0);
    return fd;
}

static void orphans_are_adopted_and_killed(void **state)
{
    int null = null_output();
    tr_supervise_result r = supervise("orphans", null, 2);

    (void)state;
    close(null);
    assert_true(r.left_some);
    assert_false(r.was_ended);
    assert_true(WIFEXITED(r.wait_status));
}

static void a_launcher_that_hangs_after_the_report_is_ended(void **state)
{
    int null = null_output();

    (void)state;
    tr_supervise_result r = supervise("hangs", null, 2);
    assert_true(r.was_ended);
    assert_true(WIFSIGNALED(r.wait_status) && WTERMSIG(r.wait_status) == SIGTERM);
    r = supervise("deaf", null, 2);
    assert_true(r.was_ended);
    assert_true(WIFSIGNALED(r.wait_status) && WTERMSIG(r.wait_status) == SIGKILL);
    close(null);
}

/* mpirun is told to survive dead ranks, and takes the coordinator for one of them. */
static void a_coordinator_that_dies_without_a_report_ends_the_run(void **state)
{
    int null = null_output();
    tr_supervise_result r = supervise("crashes", null, 2);

    (void)state;
    close(null);
    assert_true(r.was_ended);
    assert_int_equal(r.signal, 0);
}

static void a_worker_that_ends_before_all_are_up_ends_the_run(void **state)
{
    int null = null_output();
    tr_supervise_result r = supervise("lost", null, 2);

    (void)state;
    assert_true(r.was_ended);
    assert_true(r.lost_pid > 0);
    r = supervise("late", null, 2);
    assert_false(r.was_ended);
    assert_int_equal(r.lost_pid, 0);
    assert_true(WIFEXITED(r.wait_status) && WEXITSTATUS(r.wait_status) == 0);
    close(null);
}

static void signals_are_handed_on_and_the_second_kills(void **state)
{
    int null = null_output();

    (void)state;
    tr_supervise_result r = supervise("interrupted", null, 2);
    assert_int_equal(r.signal, SIGINT);
    assert_true(WIFEXITED(r.wait_status) && WEXITSTATUS(r.wait_status) == 1);
    assert_false(r.was_ended);
    r = supervise("terminated", null, 2);
    assert_int_equal(r.signal, SIGTERM);
    assert_true(WIFSIGNALED(r.wait_status) && WTERMSIG(r.wait_status) == SIGTERM);
    r = supervise("deaf_twice", null, 2);
    assert_int_equal(r.signal, SIGINT);
    assert_true(WIFSIGNALED(r.wait_status) && WTERMSIG(r.wait_status) == SIGKILL);
    close(null);
}

static void an_interrupted_run_says_so(void **state)
{
    (void)state;
    launch("terminated", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_E_INTERRUPTED);
    assert_non_null(strstr(result.reason, "signal 15"));
    launch("interrupted", LOCAL, "-q", &result);
    assert_int_equal(result.status, TR_OK);
    assert_int_equal(result.code, 130);
}

static void output_that_nobody_takes_ends_the_run(void **state)
{
    int full = open("/dev/full", O_WRONLY), ends[2];

    (void)state;
    assert_true(full >= 0);
    tr_supervise_result r = supervise("endless", full, 2);
    assert_int_equal(r.output_error, ENOSPC);
    assert_true(r.was_ended);
    close(full);

    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    r = supervise("endless", ends[1], 2);
    assert_int_equal(r.output_error, EPIPE);
    close(ends[1]);
}

/* A reader that pauses for longer than all graces together must lose nothing. */
static void a_slow_reader_gets_everything(void **state)
{
    int ends[2], back[2];
    size_t total = 0;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(pipe(back), 0);
    pid_t reader = fork();
    if (reader == 0) { /* its child reads, so that the supervisor has no child but its own */
        if (fork() != 0)
            _exit(0);
        char chunk[4096];
        close(ends[1]);
        usleep(900000);
        for (ssize_t n; (n = read(ends[0], chunk, sizeof chunk)) > 0;)
            total += (size_t)n;
        _exit(write(back[1], &total, sizeof total) != sizeof total);
    }
    assert_int_equal(waitpid(reader, NULL, 0), reader);
    close(ends[0]);
    tr_supervise_result r = supervise("large", ends[1], 2);
    close(ends[1]);
    assert_int_equal(read(back[0], &total, sizeof total), sizeof total);
    close(back[0]);
    close(back[1]);
    assert_int_equal(total, 300000);
    assert_false(r.was_ended);
}

static void text_comes_before_what_is_said_about_it(void **state)
{
    char text[30000];
    FILE *to = tmpfile();

    (void)state;
    assert_non_null(to);
    supervise("both", fileno(to), fileno(to));
    rewind(to);
    assert_int_equal(fread(text, 1, sizeof text, to), 20005);
    assert_memory_equal(text + 20000, "said\n", 5);
    fclose(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_coordinators_status_counts_and_not_mpiruns),
        cmocka_unit_test(mpirun_in_the_path_is_found),
        cmocka_unit_test(mpirun_that_fails_before_the_coordinator_ends_is_a_cluster_error),
        cmocka_unit_test(a_coordinator_elsewhere_ends_as_mpirun_says),
        cmocka_unit_test(files_in_the_run_directory_go_with_it),
        cmocka_unit_test(output_arrives_whole),
        cmocka_unit_test(standard_input_reaches_the_coordinator),
        cmocka_unit_test(a_missing_or_wrong_launcher_is_named),
        cmocka_unit_test(a_missing_worker_is_named_before_anything_starts),
        cmocka_unit_test(under_mpirun_nothing_is_launched),
        cmocka_unit_test(a_dry_run_prints_one_line_and_runs_nothing),
        cmocka_unit_test(versions_are_read),
        cmocka_unit_test(only_the_first_report_counts),
        cmocka_unit_test(every_exit_class_maps_back),
        cmocka_unit_test(orphans_are_adopted_and_killed),
        cmocka_unit_test(a_launcher_that_hangs_after_the_report_is_ended),
        cmocka_unit_test(a_coordinator_that_dies_without_a_report_ends_the_run),
        cmocka_unit_test(a_worker_that_ends_before_all_are_up_ends_the_run),
        cmocka_unit_test(signals_are_handed_on_and_the_second_kills),
        cmocka_unit_test(an_interrupted_run_says_so),
        cmocka_unit_test(output_that_nobody_takes_ends_the_run),
        cmocka_unit_test(a_slow_reader_gets_everything),
        cmocka_unit_test(text_comes_before_what_is_said_about_it),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
