/* golden.h - read the reference results that tests/golden/make_golden.py wrote.
 *
 * USE     golden g;
 *         golden_open(&g, "qwen3moe.F32.vec");             in tests/golden/vec; asserts
 *         size_t n;
 *         const double *v = golden_get(&g, "p0.margin", &n);
 *         uint32_t ids[40];  n = golden_ids(&g, "p0.tokens", ids, 40);
 *         golden_close(&g);
 *
 * A line is `KEY COUNT VALUE...`.  Whatever is missing or malformed fails the test that asks.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_SUPPORT_GOLDEN_H
#define TR_TESTS_SUPPORT_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *key;
    double *value; /* [n]; NULL where the line holds text */
    size_t n;
} golden_line;

typedef struct {
    golden_line *line;
    size_t n_lines;
    char path[512];
} golden;

void golden_open(golden *g, const char *name);
void golden_close(golden *g);

bool golden_has(const golden *g, const char *key);
const double *golden_get(const golden *g, const char *key, size_t *n);
double golden_number(const golden *g, const char *key);

/* As unsigned integers; returns how many, at most max. */
size_t golden_ids(const golden *g, const char *key, uint32_t *out, size_t max);

/* The n float32 of a binary file beside the .vec files; the file must hold exactly n.  free(). */
float *golden_floats(const char *name, size_t n);

#endif
