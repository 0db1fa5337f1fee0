/* bench_report.c - a table on the terminal, JSON for programs, two of these side by side.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/bench_report.h"

#include "base/log.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The parts of the time, in the order they are shown. */
typedef struct {
    const char *name, *heading;
    size_t offset; /* of a tr_time in tr_measure_times */
} part;

static const part parts[] = {
    { "dense", "dense", offsetof(tr_measure_times, step.dense) },
    { "attention", "attn", offsetof(tr_measure_times, step.attention) },
    { "router", "router", offsetof(tr_measure_times, step.router) },
    { "dispatch", "disp", offsetof(tr_measure_times, step.dispatch) },
    { "shared", "shared", offsetof(tr_measure_times, step.shared) },
    { "experts", "experts", offsetof(tr_measure_times, step.experts) },
    { "wait", "wait", offsetof(tr_measure_times, step.wait) },
    { "combine", "comb", offsetof(tr_measure_times, step.combine) },
    { "output", "output", offsetof(tr_measure_times, step.output) },
    { "sampling", "sampling", offsetof(tr_measure_times, sampling) },
    { "other", "other", offsetof(tr_measure_times, other) },
};

enum { N_PARTS = sizeof parts / sizeof parts[0] };

/* Of the wall's time. */
static double percent(const tr_measure_times *t, size_t i)
{
    tr_time v;

    memcpy(&v, (const char *)t + parts[i].offset, sizeof v);
    return t->wall > 0 ? 100.0 * (double)v / (double)t->wall : 0.0;
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

static double number_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Text of a file without what could move a terminal's cursor; "?" if there is none. */
static void put_text(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));

    for (const char *c = text ? text : "?"; *c; c++)
        putchar((unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c);
}

static void show_origin(const char *name, const json_t *o)
{
    printf("%s: ", name);
    put_text(o, "model");
    printf(", kernels ");
    put_text(o, "kernels");
    printf(", %lld threads, %lld workers, cache ",
           json_integer_value(json_object_get(o, "threads")),
           json_integer_value(json_object_get(o, "workers")));
    put_text(o, "kv");
    printf("; memory %.1f GB/s, int8 %.0f, float %.0f, bf16 %.0f GOP/s\n",
           number_of(o, "memory_gb_per_second"), number_of(o, "int8_gop_per_second"),
           number_of(o, "float_gop_per_second"), number_of(o, "bf16_gop_per_second"));
}

/* By what is in the files, or by their names where a result doesn't tell. */
static bool are_of_one_model(const json_t *a, const json_t *b)
{
    const json_t *x = json_object_get(a, "identity");
    const json_t *y = json_object_get(b, "identity");

    return x && y ? json_equal(x, y)
                  : json_equal(json_object_get(a, "model"), json_object_get(b, "model"));
}

static void show_pair(const json_t *a, const json_t *b)
{
    const char *what = json_string_value(json_object_get(a, "what"));
    double p = number_of(a, "tokens_per_second");
    double q = number_of(b, "tokens_per_second");

    if (b && what && p > 0.0)
        printf("%-8s %4lld %7lld %12.1f %5.0f %% %12.1f %5.0f %% %8.2f\n", what,
               json_integer_value(json_object_get(a, "rows")),
               json_integer_value(json_object_get(a, "context")), p,
               number_of(a, "percent_of_limit"), q, number_of(b, "percent_of_limit"), q / p);
}

static void show_both(const json_t *a, const json_t *b)
{
    const json_t *one;
    size_t i;

    show_origin("A", a);
    show_origin("B", b);
    if (!are_of_one_model(a, b))
        tr_log(TR_LOG_WARN, "A and B are of different models: B / A says nothing of one alone");
    printf("%-8s %4s %7s %12s %7s %12s %7s %8s\n", "", "rows", "context", "A tokens/s", "reached",
           "B tokens/s", "reached", "B / A");
    json_array_foreach(json_object_get(a, "results"), i, one)
        show_pair(one, counterpart(one, json_object_get(b, "results")));
}

tr_status tr_bench_compare(const char *path_a, const char *path_b)
{
    json_t *a = NULL, *b = NULL;

    tr_status st = result_load(path_a, &a);
    if (st == TR_OK)
        st = result_load(path_b, &b);
    if (st == TR_OK)
        show_both(a, b);
    json_decref(a);
    json_decref(b);
    return st;
}
