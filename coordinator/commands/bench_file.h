/* bench_file.h - a file that a benchmark will write: opened first, filled in the end.
 *
 * So a name that can't be written is refused before minutes of measuring, and what a file of that
 * name held is lost only to a new result.
 *
 * USE     tr_bench_file f;
 *         st = tr_bench_file_open("out.json", &f);       path NULL: none, and nothing happens to it
 *         ... measure ...
 *         st = tr_bench_file_json(&f, summary);          or _plot(&f, results)
 *         tr_bench_file_close(&f);                       one that was made here and not filled goes
 *
 * FAILS   TR_E_IO  it can't be written, gnuplot is missing or failed
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_BENCH_FILE_H
#define TR_COORDINATOR_COMMANDS_BENCH_FILE_H

#include "base/status.h"

#include <jansson.h>

#include <stdbool.h>

typedef struct {
    const char *path; /* borrowed; NULL: no file */
    int fd;
    bool is_new; /* and still empty */
} tr_bench_file;

tr_status tr_bench_file_open(const char *path, tr_bench_file *out);
void tr_bench_file_close(tr_bench_file *f);

tr_status tr_bench_file_json(tr_bench_file *f, const json_t *value);

/* TR_E_IO if there is no gnuplot: said before hours of measuring rather than after. */
tr_status tr_bench_can_plot(void);

/* Bars of what was reached and of the limit, one pair for each entry of results, as SVG. */
tr_status tr_bench_file_plot(tr_bench_file *f, const json_t *results);

#endif
