/* bench_report.h - what a benchmark found, for people (a table) and programs (JSON).
 *
 * USE     tr_bench_heading();
 *         tr_bench_show("prefill", &result);             a line of the table
 *         tr_bench_keep(results, "prefill", &result);    an entry of a JSON array
 *         st = tr_bench_compare("a.json", "b.json");
 *
 * FAILS   TR_E_IO     a file can't be read, standard output not written
 *         TR_E_USAGE  a file that isn't such a result
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_BENCH_REPORT_H
#define TR_COORDINATOR_COMMANDS_BENCH_REPORT_H

#include "coordinator/engine/measure.h"

#include <jansson.h>

void tr_bench_heading(void);
tr_status tr_bench_show(const char *what, const tr_measure_result *r);
void tr_bench_keep(json_t *results, const char *what, const tr_measure_result *r);

/* Two files that `bench --json` wrote, side by side: what was measured, and each speed with its
 * share of the limit.  A warning if the models differ. */
tr_status tr_bench_compare(const char *path_a, const char *path_b);

#endif
