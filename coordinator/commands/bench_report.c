/* bench_report.c - a table on the terminal, JSON for programs, a chart by gnuplot.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/bench_report.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The parts of a step, in the order they are shown. */
typedef struct {
    const char *name, *heading;
    size_t offset; /* of a tr_time in tr_forward_times */
} part;

static const part parts[] = {
    { "dense", "dense", offsetof(tr_forward_times, dense) },
    { "attention", "attn", offsetof(tr_forward_times, attention) },
    { "router", "router", offsetof(tr_forward_times, router) },
    { "dispatch", "disp", offsetof(tr_forward_times, dispatch) },
    { "shared", "shared", offsetof(tr_forward_times, shared) },
    { "experts", "experts", offsetof(tr_forward_times, experts) },
    { "wait", "wait", offsetof(tr_forward_times, wait) },
    { "combine", "comb", offsetof(tr_forward_times, combine) },
    { "output", "output", offsetof(tr_forward_times, output) },
};

enum { N_PARTS = sizeof parts / sizeof parts[0] };

static tr_time part_of(const tr_forward_times *t, size_t i)
{
    tr_time v;

    memcpy(&v, (const char *)t + parts[i].offset, sizeof v);
    return v;
}

static double percent(const tr_forward_times *t, size_t i)
{
    tr_time all = 0;

    for (size_t k = 0; k < N_PARTS; k++)
        all += part_of(t, k);
    return all > 0 ? 100.0 * (double)part_of(t, i) / (double)all : 0.0;
}

void tr_bench_heading(void)
{
    printf("%-8s %4s %7s %9s %20s %9s %7s  %-6s %6s %7s  ", "", "rows", "context", "tokens/s",
           "(slowest..fastest)", "limit", "reached", "bound", "GB/s", "GOP/s");
    for (size_t i = 0; i < N_PARTS; i++)
        printf(" %s%%", parts[i].heading);
    putchar('\n');
}

tr_status tr_bench_show(const char *what, const tr_measure_result *r)
{
    printf("%-8s %4zu %7zu %9.1f %9.1f..%-9.1f %9.1f %5.0f %%  %-6s %6.1f %7.1f  ", what, r->rows,
           r->context, r->median, r->slowest, r->fastest, r->limit, 100.0 * r->median / r->limit,
           r->bound, r->bytes * 1e-9, r->ops * 1e-9);
    for (size_t i = 0; i < N_PARTS; i++)
        printf(" %*.0f", (int)strlen(parts[i].heading) + 1, percent(&r->times, i));
    putchar('\n');
    return fflush(stdout) == 0 ? TR_OK : tr_fail(TR_E_IO, "standard output: %s", strerror(errno));
}

void tr_bench_keep(json_t *results, const char *what, const tr_measure_result *r)
{
    json_t *one =
        json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f}", "what", what, "rows",
                  (int)r->rows, "context", (int)r->context, "tokens_per_second", r->median,
                  "slowest", r->slowest, "fastest", r->fastest, "limit", r->limit,
                  "percent_of_limit", 100.0 * r->median / r->limit, "bound_by", r->bound,
                  "gb_per_second", r->bytes * 1e-9, "gop_per_second", r->ops * 1e-9);

    for (size_t i = 0; i < N_PARTS; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_percent", parts[i].name);
        json_object_set_new(one, key, json_real(percent(&r->times, i)));
    }
    json_array_append_new(results, one);
}

/* ---- two results side by side --------------------------------------------------------------- */

static tr_status result_load(const char *path, json_t **out)
{
    json_error_t error;
    json_t *o = json_load_file(path, 0, &error);

    if (!o)
        return tr_fail(TR_E_IO, "%s: %s", path, error.text);
    if (!json_is_array(json_object_get(o, "results"))) {
        json_decref(o);
        return tr_fail(TR_E_USAGE, "%s: is no result of troupe bench --json", path);
    }
    *out = o;
    return TR_OK;
}

/* The entry of b that measures what a does, or NULL. */
static json_t *counterpart(const json_t *a, const json_t *results)
{
    size_t i;
    json_t *b;

    json_array_foreach(results, i, b)
    {
        if (json_equal(json_object_get(a, "what"), json_object_get(b, "what")) &&
            json_equal(json_object_get(a, "rows"), json_object_get(b, "rows")) &&
            json_equal(json_object_get(a, "context"), json_object_get(b, "context")))
            return b;
    }
    return NULL;
}

tr_status tr_bench_compare(const char *path_a, const char *path_b)
{
    json_t *a = NULL, *b = NULL, *x;
    size_t i;

    tr_status st = result_load(path_a, &a);
    if (st == TR_OK)
        st = result_load(path_b, &b);
    if (st != TR_OK) {
        json_decref(a);
        return st;
    }
    printf("%-8s %4s %7s %12s %12s %8s\n", "", "rows", "context", "A tokens/s", "B tokens/s",
           "B / A");
    json_array_foreach(json_object_get(a, "results"), i, x)
    {
        const json_t *y = counterpart(x, json_object_get(b, "results"));
        double p = json_number_value(json_object_get(x, "tokens_per_second"));
        double q = json_number_value(json_object_get(y, "tokens_per_second"));
        const char *what = json_string_value(json_object_get(x, "what"));
        if (y && what && p > 0.0)
            printf("%-8s %4lld %7lld %12.1f %12.1f %7.2f\n", what,
                   json_integer_value(json_object_get(x, "rows")),
                   json_integer_value(json_object_get(x, "context")), p, q, q / p);
    }
    json_decref(a);
    json_decref(b);
    return TR_OK;
}

/* ---- a chart --------------------------------------------------------------------------------- */

/* gnuplot with one argument (may be NULL) and commands from a file; 0 if it ended well. */
static int gnuplot(char *argument, int commands)
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
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
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

    return gnuplot(version, -1) == 0
               ? TR_OK
               : tr_fail(TR_E_IO, "--plot: gnuplot is not installed (Debian: apt-get install "
                                  "gnuplot-nox)");
}

/* A name inside single quotes, as gnuplot takes it. */
static void put_quoted(FILE *f, const char *text)
{
    fputc('\'', f);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', f);
        fputc(*text, f);
    }
    fputc('\'', f);
}

static void put_script(FILE *f, const json_t *results, const char *path)
{
    size_t i;
    json_t *r;

    fputs("set terminal svg size 900,480 background rgb 'white'\nset output ", f);
    put_quoted(f, path);
    fputs("\nset style data histograms\nset style fill solid 0.8\nset boxwidth 0.9\n"
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

tr_status tr_bench_plot(const json_t *results, const char *path)
{
    if (strchr(path, '\n'))
        return tr_fail(TR_E_USAGE, "--plot: a file name of two lines");
    FILE *f = tmpfile();
    if (!f)
        return tr_fail(TR_E_IO, "--plot: no temporary file: %s", strerror(errno));
    put_script(f, results, path);
    bool is_written = fflush(f) == 0 && fseek(f, 0, SEEK_SET) == 0;
    int failed = is_written ? gnuplot(NULL, fileno(f)) : -1;
    fclose(f);
    return failed == 0 ? TR_OK : tr_fail(TR_E_IO, "%s: gnuplot could not write it", path);
}
