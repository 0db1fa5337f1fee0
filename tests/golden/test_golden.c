/* test_golden.c - the reference models give what an independent float64 forward pass gives.
 *
 * Exact mode must meet the level "strict" on every position, whatever the weight type; the
 * default mode the tolerance of its type.  Continuations must be the reference's wherever it is
 * not nearly undecided itself, in default mode nearly so (README.md says how near).  With three
 * workers all logits are the same bytes, so what holds for one process holds for a cluster.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cluster.h"
#include "tests/support/golden.h"
#include "tests/support/tr_test.h"

#include "compute/cpu.h"
#include "coordinator/engine/engine.h"
#include "coordinator/model/model.h"
#include "coordinator/text/tokenizer.h"

#include <math.h>

enum { N_VOCAB = 512, MAX_PROMPT = 40, N_GREEDY = 32, MAX_POSITIONS = 64 };

/* The results of engines that ignore groups of experts. */
#define UNGROUPED             "ungrouped/"

#define FLOATS_AND_Q8_0(name) name ".F32", name ".F16", name ".Q8_0"

static const char *const models[] = {
    FLOATS_AND_Q8_0("qwen3moe"),
    FLOATS_AND_Q8_0("qwen3moe-kq"),
    "qwen3moe-kq.BF16",
    "qwen3moe-kq.Q4_0",
    "qwen3moe-kq.Q4_1",
    "qwen3moe-kq.Q5_0",
    "qwen3moe-kq.Q5_1",
    "qwen3moe-kq.Q2_K",
    "qwen3moe-kq.Q3_K",
    "qwen3moe-kq.Q4_K",
    "qwen3moe-kq.Q4_K_M",
    "qwen3moe-kq.Q5_K",
    "qwen3moe-kq.Q6_K",
    "qwen3moe-kq.IQ4_NL",
    "qwen3moe-kq.IQ4_XS",
    "qwen3moe-kq.MXFP4",
    FLOATS_AND_Q8_0("olmoe"),
    FLOATS_AND_Q8_0("qwen2moe"),
    FLOATS_AND_Q8_0("mixtral"),
    "mixtral.Q4_0",
    "mixtral.Q4_1",
    "mixtral.Q5_0",
    "mixtral.Q4_K",
    "mixtral.Q4_K_M",
    FLOATS_AND_Q8_0("llama"),
    FLOATS_AND_Q8_0("llama3"),
    FLOATS_AND_Q8_0("qwen3"),
    FLOATS_AND_Q8_0("granitemoe"),
    FLOATS_AND_Q8_0("glm4moe"),
    FLOATS_AND_Q8_0("gpt2"),
    FLOATS_AND_Q8_0("bailingmoe2"),
    FLOATS_AND_Q8_0("gpt-oss"),
    "gpt-oss.MXFP4",
    FLOATS_AND_Q8_0("deepseek2-lite"),
    FLOATS_AND_Q8_0("deepseek2-v3"),
    FLOATS_AND_Q8_0("deepseek2-mla"),
    UNGROUPED "deepseek2-v3.F32",
    UNGROUPED "deepseek2-v3.Q8_0",
};

typedef struct {
    golden g;
    tr_gguf *gguf;
    tr_engine *e;
    bool exact;
    double largest[MAX_POSITIONS]; /* per position, of all prompts */
    size_t n_positions;
    double kl;
} fixture;

/* With the workers of c, or alone if that is NULL. */
static void begin(fixture *f, const char *name, bool exact, const test_cluster *c)
{
    char path[512];
    tr_engine_options o = test_cluster_engine();

    *f = (fixture){ .exact = exact };
    snprintf(path, sizeof path, "%s.vec", name);
    golden_open(&f->g, path);
    o.ignores_groups = strncmp(name, UNGROUPED, strlen(UNGROUPED)) == 0;
    snprintf(path, sizeof path, "%s/%s.gguf", TR_GOLDEN_MODELS,
             name + (o.ignores_groups ? strlen(UNGROUPED) : 0));
    assert_int_equal(tr_gguf_open(path, &f->gguf), TR_OK);
    o.gguf = f->gguf;
    o.threads = 2;
    o.exact = exact;
    o.max_logits = MAX_PROMPT;
    o.context = 128;
    o.transport = c ? c->transport : NULL;
    o.n_workers = c ? c->n_workers : 0;
    assert_int_equal(tr_engine_open(&o, &f->e), TR_OK);
}

static void end(fixture *f)
{
    tr_engine_close(&f->e);
    tr_gguf_close(&f->gguf);
    golden_close(&f->g);
}

static double log_sum(const float *x)
{
    double largest = -INFINITY;
    double sum = 0;

    for (size_t i = 0; i < N_VOCAB; i++)
        largest = fmax(largest, (double)x[i]);
    for (size_t i = 0; i < N_VOCAB; i++)
        sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

static void compare_row(fixture *f, const float *want, const float *got)
{
    double largest = 0;
    double kl = 0;
    double a = log_sum(want);
    double b = log_sum(got);

    for (size_t i = 0; i < N_VOCAB; i++) {
        double d = fabs((double)want[i] - (double)got[i]);
        assert_true(isfinite(got[i]));
        largest = fmax(largest, d);
        double p = (double)want[i] - a;
        kl += exp(p) * (p - ((double)got[i] - b));
    }
    assert_true(f->n_positions < MAX_POSITIONS);
    f->largest[f->n_positions++] = largest;
    f->kl = fmax(f->kl, kl);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

static void check_level(fixture *f, const char *level)
{
    size_t n;
    const double *bound = golden_get(&f->g, level, &n);

    assert_int_equal(n, 3);
    qsort(f->largest, f->n_positions, sizeof f->largest[0], ascending);
    double largest = f->largest[f->n_positions - 1];
    double median = f->largest[f->n_positions / 2];
    print_message("    %s: max %.2g (%.2g)  median %.2g (%.2g)  KL %.2g (%.2g)\n", level, largest,
                  bound[0], median, bound[1], f->kl, bound[2]);
    assert_true(largest <= bound[0]);
    assert_true(median <= bound[1]);
    assert_true(f->kl <= bound[2]);
}

/* Where a right implementation of this precision may choose otherwise. */
static double noise_of(const fixture *f, const char *name)
{
    if (f->exact)
        return 1e-4;
    return strstr(name, ".F") || strstr(name, ".BF") ? 0.05 : 1.0;
}

/* Steps of continuations. */
typedef struct {
    size_t n, n_equal; /* all */
    size_t n_clear, n_clear_equal;
} steps;

static uint32_t argmax(const float *x)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < N_VOCAB; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* Whether the reference is decided: between tokens; in exact mode also between the last expert
 * chosen and the first not chosen. */
static bool is_clear(const fixture *f, const char *name, double margin, double gap)
{
    return margin >= noise_of(f, name) && (gap >= 1e-4 || !f->exact);
}

/* Feeds the reference's own tokens, so that each step is checked, whatever came before. */
static void take_steps(fixture *f, const char *name, int prompt, tr_sequence *s, float *logits,
                       steps *sum)
{
    char key[32];
    uint32_t greedy[N_GREEDY];
    size_t n;

    snprintf(key, sizeof key, "p%d.greedy", prompt);
    assert_int_equal(golden_ids(&f->g, key, greedy, N_GREEDY), N_GREEDY);
    snprintf(key, sizeof key, "p%d.margin", prompt);
    const double *margin = golden_get(&f->g, key, &n);
    snprintf(key, sizeof key, "p%d.gap", prompt);
    const double *gap = golden_get(&f->g, key, &n);
    for (size_t i = 0; i < N_GREEDY; i++) {
        bool is_equal = argmax(logits) == greedy[i];
        sum->n++;
        sum->n_equal += is_equal;
        if (is_clear(f, name, margin[i], gap[i])) {
            sum->n_clear++;
            sum->n_clear_equal += is_equal;
        }
        tr_row row = { s, greedy[i], true };
        assert_int_equal(tr_engine_step(f->e, &row, 1, logits), TR_OK);
    }
}

static void check_prompt(fixture *f, const char *name, int prompt, const float *want, size_t *at,
                         steps *sum)
{
    char key[32];
    uint32_t tokens[MAX_PROMPT];
    tr_row rows[MAX_PROMPT];
    tr_sequence *s = NULL;
    float *logits = malloc((size_t)MAX_PROMPT * N_VOCAB * sizeof *logits);

    assert_non_null(logits);
    snprintf(key, sizeof key, "p%d.tokens", prompt);
    size_t n = golden_ids(&f->g, key, tokens, MAX_PROMPT);
    assert_int_equal(tr_sequence_new(f->e, &s), TR_OK);
    for (size_t i = 0; i < n; i++)
        rows[i] = (tr_row){ s, tokens[i], true };
    assert_int_equal(tr_engine_step(f->e, rows, n, logits), TR_OK);
    for (size_t i = 0; i < n; i++)
        compare_row(f, want + (*at + i) * N_VOCAB, logits + i * N_VOCAB);
    *at += n;
    memmove(logits, logits + (n - 1) * N_VOCAB, N_VOCAB * sizeof *logits);
    take_steps(f, name, prompt, s, logits, sum);
    tr_sequence_free(&s);
    free(logits);
}

/* In default mode an expert may be chosen otherwise, in the step or in any before it, and that
 * stays in the cache. */
static void check_steps(const steps *s, bool exact)
{
    print_message("    %zu of %zu clear steps equal, %zu of %zu of all\n", s->n_clear_equal,
                  s->n_clear, s->n_equal, s->n);
    assert_true(s->n_clear >= (exact ? 90 : 35));
    assert_true(s->n_clear_equal * 100 >= s->n_clear * (exact ? 100 : 95));
    assert_true(s->n_equal * 100 >= s->n * 85);
}

static void check_models(bool exact)
{
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        fixture f;
        char name[64];
        size_t at = 0;
        steps sum = { 0 };
        begin(&f, models[m], exact, NULL);
        print_message("  %s\n", models[m]);
        snprintf(name, sizeof name, "%s.ref.bin", models[m]);
        float *want = golden_floats(name, (size_t)48 * N_VOCAB);
        for (int prompt = 0; prompt < (int)golden_number(&f.g, "prompts"); prompt++)
            check_prompt(&f, models[m], prompt, want, &at, &sum);
        check_steps(&sum, exact);
        assert_int_equal(at, 48);
        check_level(&f, exact ? "strict" : "fast");
        free(want);
        end(&f);
    }
}

static void exact_mode_is_strictly_right_for_every_type(void **state)
{
    (void)state;
    check_models(true);
}

static void default_mode_is_within_the_tolerance_of_its_type(void **state)
{
    (void)state;
    check_models(false);
}

static void texts_become_the_tokens_that_other_engines_give(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        fixture f;
        tr_tokenizer *t = NULL;
        begin(&f, models[m], true, NULL);
        assert_int_equal(tr_tokenizer_new(f.gguf, &t), TR_OK);
        for (int i = 0; i < 2; i++) {
            char key[32];
            uint8_t text[256];
            uint32_t want[128];
            uint32_t bytes[256];
            uint32_t *got = NULL;
            size_t n_got;
            snprintf(key, sizeof key, "text%d.bytes", i);
            size_t size = golden_ids(&f.g, key, bytes, 256);
            for (size_t b = 0; b < size; b++)
                text[b] = (uint8_t)bytes[b];
            snprintf(key, sizeof key, "text%d.ids", i);
            size_t n = golden_ids(&f.g, key, want, 128);
            size_t n_bos = tr_tokenizer_adds_bos(t) ? 1 : 0; /* those engines put it */
            assert_int_equal(tr_tokenizer_encode(t, (tr_bytes){ text, size }, true, &got, &n_got),
                             TR_OK);
            assert_int_equal(n_got, n - n_bos);
            assert_memory_equal(got, want + n_bos, n_got * sizeof *want);
            free(got);
        }
        tr_tokenizer_free(&t);
        end(&f);
    }
}

/* logits [MAX_PROMPT][N_VOCAB] of the longest prompt, cut into chunks. */
static void logits_of(fixture *f, size_t chunk, float *logits)
{
    uint32_t tokens[MAX_PROMPT];
    tr_row rows[MAX_PROMPT];
    tr_sequence *s = NULL;

    assert_int_equal(golden_ids(&f->g, "p2.tokens", tokens, MAX_PROMPT), MAX_PROMPT);
    assert_int_equal(tr_sequence_new(f->e, &s), TR_OK);
    for (size_t at = 0; at < MAX_PROMPT; at += chunk) {
        size_t n = MAX_PROMPT - at < chunk ? MAX_PROMPT - at : chunk;
        for (size_t i = 0; i < n; i++)
            rows[i] = (tr_row){ s, tokens[at + i], true };
        assert_int_equal(tr_engine_step(f->e, rows, n, logits + at * N_VOCAB), TR_OK);
    }
    tr_sequence_free(&s);
}

static void check_workers(const char *name, bool exact)
{
    size_t size = (size_t)MAX_PROMPT * N_VOCAB * sizeof(float);
    float *alone = malloc(size);
    float *together = malloc(size);
    test_cluster c;
    fixture f;

    assert_non_null(alone);
    assert_non_null(together);
    begin(&f, name, exact, NULL);
    logits_of(&f, MAX_PROMPT, alone);
    end(&f);
    test_cluster_start(&c, 3, 1);
    begin(&f, name, exact, &c);
    logits_of(&f, 13, together);
    end(&f);
    test_cluster_stop(&c);
    if (memcmp(alone, together, size) != 0)
        fail_msg("%s, %s: other bytes with three workers", name, exact ? "exact" : "default");
    free(alone);
    free(together);
}

static void three_workers_give_the_same_bytes(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        check_workers(models[m], true);
        check_workers(models[m], false);
    }
}

/* gpt2's file has a vector for each of 512 positions. */
static void a_context_beyond_learned_positions_is_refused(void **state)
{
    tr_engine_options o = test_cluster_engine();
    tr_engine *e = NULL;
    char line[512] = "";

    (void)state;
    assert_int_equal(tr_gguf_open(TR_GOLDEN_MODELS "/gpt2.F32.gguf", (tr_gguf **)&o.gguf), TR_OK);
    o.context = 513;
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_engine_open(&o, &e), TR_E_USAGE);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "513 tokens is more than the 512 positions"));
    tr_gguf_close((tr_gguf **)&o.gguf);
}

static void check_measure(const char *name, bool exact)
{
    tr_compute c = { .kernels = tr_kernels_select(tr_cpu_features(), NULL), .exact = exact };
    char path[512];
    tr_gguf *g = NULL;
    tr_model *m = NULL;
    uint64_t measured = 0;

    snprintf(path, sizeof path, "%s/%s.gguf", TR_GOLDEN_MODELS, name);
    assert_int_equal(tr_gguf_open(path, &g), TR_OK);
    assert_int_equal(tr_model_measure(g, &c, &measured), TR_OK);
    assert_int_equal(tr_model_open(g, &c, NULL, NULL, &m), TR_OK);
    if (measured != m->bytes)
        fail_msg("%s: measured %llu bytes, %llu were loaded", name, (unsigned long long)measured,
                 (unsigned long long)m->bytes);
    tr_model_close(&m);
    tr_gguf_close(&g);
}

static void what_is_measured_is_what_is_loaded(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        if (strncmp(models[m], UNGROUPED, strlen(UNGROUPED)) == 0)
            continue; /* the file of another entry */
        check_measure(models[m], true);
        check_measure(models[m], false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_mode_is_strictly_right_for_every_type),
        cmocka_unit_test(default_mode_is_within_the_tolerance_of_its_type),
        cmocka_unit_test(texts_become_the_tokens_that_other_engines_give),
        cmocka_unit_test(three_workers_give_the_same_bytes),
        cmocka_unit_test(a_context_beyond_learned_positions_is_refused),
        cmocka_unit_test(what_is_measured_is_what_is_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
