/* test_golden_demo.c - the shipped model says what its training code says.
 *
 * Reference: float32 on the dequantised weights, made by the code that trained the model.
 * Exact mode must give all continuations token for token; the default mode may differ only
 * where the reference's two best tokens are within 0.1 of each other.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/golden.h"
#include "tests/support/tr_test.h"

#include "coordinator/engine/engine.h"
#include "coordinator/text/sampler.h"
#include "coordinator/text/tokenizer.h"

#include <math.h>

enum {
    N_VOCAB = 4096,
    N_LAYERS = 6,
    TOP_K = 2,
    MAX_PROMPT = 256,
    N_GREEDY = 48,
    N_TOP = 20,
    WINDOW = 512,
    SLICE = 4096,
};

static tr_gguf *gguf;
static tr_pick seen[N_LAYERS][TOP_K]; /* of the last row of the last step */

static void watch_picks(void *ctx, uint32_t layer, const tr_pick *picks, size_t n_rows,
                        size_t top_k)
{
    (void)ctx;
    assert_int_equal(top_k, TOP_K);
    memcpy(seen[layer], picks + (n_rows - 1) * TOP_K, sizeof seen[layer]);
}

static tr_engine *engine(bool exact, size_t max_logits)
{
    tr_engine_options o = tr_engine_defaults();
    tr_engine *e = NULL;

    o.gguf = gguf;
    o.threads = 2;
    o.exact = exact;
    o.max_rows = WINDOW;
    o.max_logits = max_logits;
    o.on_picks = watch_picks;
    assert_int_equal(tr_engine_open(&o, &e), TR_OK);
    return e;
}

static int open_model(void **state)
{
    (void)state;
    return tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &gguf) == TR_OK ? 0 : -1;
}

static int close_model(void **state)
{
    (void)state;
    tr_gguf_close(&gguf);
    return 0;
}

static uint32_t argmax(const float *x)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < N_VOCAB; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static size_t ids_of(const golden *g, int prompt, const char *what, uint32_t *out, size_t max)
{
    char key[32];

    snprintf(key, sizeof key, "p%d.%s", prompt, what);
    return golden_ids(g, key, out, max);
}

static const double *numbers_of(const golden *g, int prompt, const char *what, size_t *n)
{
    char key[32];

    snprintf(key, sizeof key, "p%d.%s", prompt, what);
    return golden_get(g, key, n);
}

static void check_top(const golden *g, int prompt, const float *logits, double bound)
{
    uint32_t id[N_TOP];
    size_t n;

    assert_int_equal(ids_of(g, prompt, "top_id", id, N_TOP), N_TOP);
    const double *want = numbers_of(g, prompt, "top_logit", &n);
    for (size_t i = 0; i < N_TOP; i++)
        assert_true(fabs((double)logits[id[i]] - want[i]) <= bound);
}

/* The reference lists experts by weight, picks come by expert number. */
static void check_experts(const golden *g, int prompt)
{
    uint32_t expert[N_LAYERS * TOP_K];
    size_t n;

    assert_int_equal(ids_of(g, prompt, "experts", expert, N_LAYERS * TOP_K), N_LAYERS * TOP_K);
    const double *weight = numbers_of(g, prompt, "weights", &n);
    for (size_t l = 0; l < N_LAYERS; l++) {
        for (size_t i = 0; i < TOP_K; i++) {
            bool is_found = false;
            for (size_t j = 0; j < TOP_K; j++)
                is_found =
                    is_found || (seen[l][j].expert == expert[l * TOP_K + i] &&
                                 fabs((double)seen[l][j].weight - weight[l * TOP_K + i]) < 1e-3);
            assert_true(is_found);
        }
    }
}

/* Feeds the reference's tokens; returns how many of our own choices were others. */
static size_t check_continuation(const golden *g, int prompt, tr_engine *e, bool exact)
{
    uint32_t tokens[MAX_PROMPT];
    uint32_t greedy[N_GREEDY];
    tr_row rows[MAX_PROMPT];
    tr_sequence *s = NULL;
    size_t n;
    size_t n_other = 0;
    static float logits[N_VOCAB];

    size_t n_tokens = ids_of(g, prompt, "tokens", tokens, MAX_PROMPT);
    assert_int_equal(ids_of(g, prompt, "greedy", greedy, N_GREEDY), N_GREEDY);
    const double *margin = numbers_of(g, prompt, "margin", &n);
    assert_int_equal(tr_sequence_new(e, &s), TR_OK);
    for (size_t i = 0; i < n_tokens; i++)
        rows[i] = (tr_row){ s, tokens[i], i + 1 == n_tokens };
    assert_int_equal(tr_engine_step(e, rows, n_tokens, logits), TR_OK);
    check_top(g, prompt, logits, exact ? 1e-3 : 0.5);
    if (exact)
        check_experts(g, prompt);
    for (size_t i = 0; i < N_GREEDY; i++) {
        if (argmax(logits) != greedy[i]) {
            n_other++;
            assert_false(exact);
            assert_true(margin[i] < 0.1);
        }
        assert_int_equal(tr_engine_step(e, &(tr_row){ s, greedy[i], true }, 1, logits), TR_OK);
    }
    tr_sequence_free(&s);
    return n_other;
}

static void continuations_are_those_of_the_training_code(void **state)
{
    golden g;

    (void)state;
    golden_open(&g, "demo.vec");
    assert_int_equal((int)golden_number(&g, "prompts"), 12);
    for (int exact = 1; exact >= 0; exact--) {
        tr_engine *e = engine(exact == 1, 1);
        size_t n_other = 0;
        for (int prompt = 0; prompt < 12; prompt++)
            n_other += check_continuation(&g, prompt, e, exact == 1);
        print_message("  %s mode: %zu of %d tokens chosen otherwise\n", exact ? "exact" : "default",
                      n_other, 12 * N_GREEDY);
        tr_engine_close(&e);
    }
    golden_close(&g);
}

static void prompts_are_tokenised_alike(void **state)
{
    golden g;
    tr_tokenizer *t = NULL;

    (void)state;
    golden_open(&g, "demo.vec");
    assert_int_equal(tr_tokenizer_new(gguf, &t), TR_OK);
    for (int prompt = 0; prompt < 12; prompt++) {
        uint32_t bytes[2048];
        uint8_t text[2048];
        uint32_t want[MAX_PROMPT];
        uint32_t bos;
        uint32_t *got = NULL;
        size_t n_got;
        size_t size = ids_of(&g, prompt, "bytes", bytes, 2048);
        size_t n = ids_of(&g, prompt, "tokens", want, MAX_PROMPT);
        uint32_t has_bos;
        assert_int_equal(ids_of(&g, prompt, "bos", &has_bos, 1), 1);
        for (size_t i = 0; i < size; i++)
            text[i] = (uint8_t)bytes[i];
        assert_int_equal(tr_tokenizer_encode(t, (tr_bytes){ text, size }, true, &got, &n_got),
                         TR_OK);
        assert_int_equal(n_got + has_bos, n);
        assert_true(n_got == 0 || memcmp(got, want + has_bos, n_got * sizeof *got) == 0);
        assert_true(tr_tokenizer_bos(t, &bos));
        assert_true(!has_bos || bos == want[0]);
        free(got);
    }
    tr_tokenizer_free(&t);
    golden_close(&g);
}

/* Mean negative log-likelihood of positions 1..511 of windows that start from nothing. */
static double nll_of(tr_engine *e, const uint32_t *ids, size_t n_windows)
{
    float *logits = malloc((size_t)WINDOW * N_VOCAB * sizeof *logits);
    double sum = 0;

    assert_non_null(logits);
    for (size_t w = 0; w < n_windows; w++) {
        static tr_row rows[WINDOW];
        tr_sequence *s = NULL;
        const uint32_t *window = ids + w * WINDOW;
        assert_int_equal(tr_sequence_new(e, &s), TR_OK);
        for (size_t i = 0; i < WINDOW; i++)
            rows[i] = (tr_row){ s, window[i], true };
        assert_int_equal(tr_engine_step(e, rows, WINDOW, logits), TR_OK);
        for (size_t i = 0; i + 1 < WINDOW; i++)
            sum -= tr_log_prob(logits + i * N_VOCAB, N_VOCAB, window[i + 1]);
        tr_sequence_free(&s);
    }
    free(logits);
    return sum / (double)(n_windows * (WINDOW - 1));
}

static void perplexity_is_within_half_a_percent_of_the_report(void **state)
{
    static const char *const domain[] = { "shakespeare", "bible", "c" };
    golden g;

    (void)state;
    golden_open(&g, "demo.vec");
    for (int exact = 0; exact < 2; exact++) {
        tr_engine *e = engine(exact == 1, WINDOW);
        for (int d = 0; d < 3; d++) {
            static uint32_t ids[SLICE];
            char key[32];
            snprintf(key, sizeof key, "%s.tokens", domain[d]);
            assert_int_equal(golden_ids(&g, key, ids, SLICE), SLICE);
            snprintf(key, sizeof key, "%s.nll", domain[d]);
            double want = exp(golden_number(&g, key));
            double got = exp(nll_of(e, ids, SLICE / WINDOW));
            print_message("  %s, %s mode: perplexity %.4f (reference %.4f, %+.3f %%)\n", domain[d],
                          exact ? "exact" : "default", got, want, 100 * (got / want - 1));
            assert_true(fabs(got / want - 1) < 0.005);
        }
        tr_engine_close(&e);
    }
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_tokenised_alike),
        cmocka_unit_test(continuations_are_those_of_the_training_code),
        cmocka_unit_test(perplexity_is_within_half_a_percent_of_the_report),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
