/* bench_file.c - JSON by jansson, a chart by gnuplot, both into a file that is open already.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/bench_file.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static tr_status cant_be_written(const char *path)
{
    return tr_fail(TR_E_IO, "%s: can't be written: %s", path, strerror(errno));
}

tr_status tr_bench_file_open(const char *path, tr_bench_file *out)
{
    enum { FLAGS = O_WRONLY | O_CREAT | O_CLOEXEC };
    tr_bench_file f = { .path = path, .fd = -1 };

    if (path) {
        f.fd = open(path, FLAGS | O_EXCL, 0666);
        f.is_new = f.fd >= 0;
        if (f.fd < 0 && errno == EEXIST)
            f.fd = open(path, FLAGS, 0666);
        if (f.fd < 0)
            return cant_be_written(path);
    }
    *out = f;
    return TR_OK;
}

void tr_bench_file_close(tr_bench_file *f)
{
    if (!f->path)
        return;
    close(f->fd);
    if (f->is_new)
        unlink(f->path);
    f->path = NULL;
}

/* What it held goes.  A pipe or a terminal holds nothing. */
static tr_status begin(tr_bench_file *f)
{
    if (ftruncate(f->fd, 0) != 0 && errno != EINVAL)
        return cant_be_written(f->path);
    f->is_new = false;
    return TR_OK;
}

static tr_status write_all(const tr_bench_file *f, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t did = write(f->fd, bytes, n);
        if (did < 0 && errno != EINTR)
            return cant_be_written(f->path);
        bytes += did > 0 ? did : 0;
        n -= did > 0 ? (size_t)did : 0;
    }
    return TR_OK;
}

tr_status tr_bench_file_json(tr_bench_file *f, const json_t *value)
{
    if (!f->path)
        return TR_OK;
    tr_status st = begin(f);
    if (st == TR_OK && json_dumpfd(value, f->fd, JSON_INDENT(1)) != 0)
        st = cant_be_written(f->path);
    return st;
}

/* ---- a chart --------------------------------------------------------------------------------- */

/* gnuplot with one argument (may be NULL), commands from a file and its output to another, each of
 * which may be -1; 0 if it ended well.  What is wrong is said here, not by it. */
static int gnuplot(char *argument, int commands, int output)
{
    char name[] = "gnuplot";
    char *argv[] = { name, argument, NULL };
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int ended = 0;

    posix_spawn_file_actions_init(&actions);
    if (commands >= 0)
        posix_spawn_file_actions_adddup2(&actions, commands, STDIN_FILENO);
    else
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (output >= 0)
        posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    else
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int error = posix_spawnp(&pid, name, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
        return error;
    while (waitpid(pid, &ended, 0) < 0)
        if (errno != EINTR)
            return errno;
    return ended;
}

tr_status tr_bench_can_plot(void)
{
    char version[] = "--version";

    return gnuplot(version, -1, -1) == 0
               ? TR_OK
               : tr_fail(TR_E_IO, "--plot: gnuplot is not installed (Debian: apt-get install "
                                  "gnuplot-nox)");
}

static void put_script(FILE *f, const json_t *results)
{
    size_t i;
    json_t *r;

    fputs("set terminal svg size 900,480 background rgb 'white'\n"
          "set style data histograms\nset style fill solid 0.8\nset boxwidth 0.9\n"
          "set logscale y\nset ylabel 'tokens/s'\nset grid ytics\nset key top left\n"
          "set xtics rotate by -30\n$data << END\n",
          f);
    json_array_foreach(results, i, r)
    {
        long long context = json_integer_value(json_object_get(r, "context"));
        fprintf(f, "\"%s %lld", json_string_value(json_object_get(r, "what")),
                json_integer_value(json_object_get(r, "rows")));
        if (context > 0)
            fprintf(f, " behind %lld", context);
        fprintf(f, "\" %g %g\n", json_number_value(json_object_get(r, "tokens_per_second")),
                json_number_value(json_object_get(r, "limit")));
    }
    fputs("END\nplot $data using 2:xtic(1) title 'reached', '' using 3 title 'limit'\n", f);
}

static tr_status fill_from(tr_bench_file *f, FILE *from)
{
    char some[4096];
    size_t n;

    tr_status st = begin(f);
    rewind(from);
    while (st == TR_OK && (n = fread(some, 1, sizeof some, from)) > 0)
        st = write_all(f, some, n);
    return st;
}

tr_status tr_bench_file_plot(tr_bench_file *f, const json_t *results)
{
    if (!f->path)
        return TR_OK;
    FILE *script = tmpfile();
    FILE *chart = tmpfile(); /* gnuplot does not say when it could not write */
    if (script)
        put_script(script, results);
    bool is_ready = script && chart && fflush(script) == 0 && fseek(script, 0, SEEK_SET) == 0;
    tr_status st =
        is_ready ? TR_OK : tr_fail(TR_E_IO, "--plot: no temporary file: %s", strerror(errno));
    if (st == TR_OK && gnuplot(NULL, fileno(script), fileno(chart)) != 0)
        st = tr_fail(TR_E_IO, "%s: gnuplot could not draw it", f->path);
    if (st == TR_OK)
        st = fill_from(f, chart);
    if (chart)
        fclose(chart);
    if (script)
        fclose(script);
    return st;
}
