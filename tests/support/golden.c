/* golden.c - a strict reader of a small text format.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/golden.h"

#include "tests/support/tr_test.h"

static char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "re");

    if (!f)
        fail_msg("%s can't be opened", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long n = ftell(f);
    assert_true(n >= 0);
    rewind(f);
    char *text = malloc((size_t)n + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    fclose(f);
    text[n] = '\0';
    *size = (size_t)n;
    return text;
}

/* Numbers after the count; a first value that is no number makes it a line of text. */
static void parse_line(golden *g, char *text)
{
    char *rest = NULL;
    char *key = strtok_r(text, " ", &rest);
    char *count = strtok_r(NULL, " ", &rest);

    if (!key || !count)
        fail_msg("%s: a line without key and count", g->path);
    golden_line *l = &g->line[g->n_lines++];
    l->key = strdup(key);
    l->n = strtoul(count, NULL, 10);
    l->value = calloc(l->n ? l->n : 1, sizeof *l->value);
    assert_non_null(l->key);
    assert_non_null(l->value);
    for (size_t i = 0; i < l->n; i++) {
        char *word = strtok_r(NULL, " ", &rest);
        char *end;
        if (!word)
            fail_msg("%s: %s promises %zu values, has %zu", g->path, key, l->n, i);
        l->value[i] = strtod(word, &end);
        if (*end != '\0') {
            free(l->value);
            l->value = NULL;
            return;
        }
    }
    if (strtok_r(NULL, " ", &rest))
        fail_msg("%s: %s has more values than it promises", g->path, key);
}

void golden_open(golden *g, const char *name)
{
    size_t size;
    char *rest = NULL;

    *g = (golden){ 0 };
    snprintf(g->path, sizeof g->path, "%s/golden/vec/%s", TR_TEST_DIR, name);
    char *text = read_file(g->path, &size);
    size_t lines = 0;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    g->line = calloc(lines + 1, sizeof *g->line);
    assert_non_null(g->line);
    for (char *l = strtok_r(text, "\n", &rest); l; l = strtok_r(NULL, "\n", &rest))
        parse_line(g, l);
    free(text);
}

void golden_close(golden *g)
{
    for (size_t i = 0; i < g->n_lines; i++) {
        free(g->line[i].key);
        free(g->line[i].value);
    }
    free(g->line);
    *g = (golden){ 0 };
}

static const golden_line *find(const golden *g, const char *key)
{
    for (size_t i = 0; i < g->n_lines; i++)
        if (strcmp(g->line[i].key, key) == 0)
            return &g->line[i];
    return NULL;
}

bool golden_has(const golden *g, const char *key)
{
    return find(g, key) != NULL;
}

const double *golden_get(const golden *g, const char *key, size_t *n)
{
    const golden_line *l = find(g, key);

    if (!l || !l->value)
        fail_msg("%s: no numbers called %s", g->path, key);
    *n = l->n;
    return l->value;
}

double golden_number(const golden *g, const char *key)
{
    size_t n;
    const double *v = golden_get(g, key, &n);

    assert_int_equal(n, 1);
    return v[0];
}

size_t golden_ids(const golden *g, const char *key, uint32_t *out, size_t max)
{
    size_t n;
    const double *v = golden_get(g, key, &n);

    assert_true(n <= max);
    for (size_t i = 0; i < n; i++) {
        assert_true(v[i] >= 0 && v[i] <= UINT32_MAX);
        out[i] = (uint32_t)v[i];
    }
    return n;
}

float *golden_floats(const char *name, size_t n)
{
    char path[512];
    size_t size;

    snprintf(path, sizeof path, "%s/golden/vec/%s", TR_TEST_DIR, name);
    char *data = read_file(path, &size);
    assert_int_equal(size, n * sizeof(float));
    return (float *)(void *)data;
}
