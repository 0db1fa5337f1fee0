/* test_eval_base.c - a base gives back what was written to the last bit; a line that can't be is
 * refused and named; divergences and means are those worked out by hand.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/commands/eval_base.h"
#include "coordinator/text/sampler.h"

#include <math.h>
#include <unistd.h>

enum { N_VOCAB = 5 };

static const char path[] = "test_eval_base.json";

static const float logits[2][N_VOCAB] = { { 0.5f, -1.25f, 3.0f, 0.5f, -7.0f },
                                          { 1.0f, 1.0f, 1.0f, 1.0f, 1.0f } };

static tr_eval_header header_of(size_t top)
{
    return (tr_eval_header){ .model = "m.gguf",
                             .kernels = "c",
                             .n_vocab = N_VOCAB,
                             .vocabulary = 7,
                             .window = 4,
                             .skip = 1,
                             .text = UINT64_MAX,
                             .n_positions = 2,
                             .top = top };
}

static tr_eval_position position_of(size_t i)
{
    return (tr_eval_position){ .token = 3,
                               .logits = logits[i],
                               .n_vocab = N_VOCAB,
                               .log_total = tr_log_total(logits[i], N_VOCAB) };
}

static void write_base(size_t top)
{
    tr_eval_header h = header_of(top);
    tr_eval_writer *w = NULL;

    assert_int_equal(tr_eval_writer_new(path, true, &h, &w), TR_OK);
    for (size_t i = 0; i < 2; i++) {
        tr_eval_position p = position_of(i);
        assert_int_equal(tr_eval_writer_add(w, &p), TR_OK);
    }
    assert_int_equal(tr_eval_writer_finish(&w), TR_OK);
}

static void what_was_written_comes_back_to_the_last_bit(void **state)
{
    tr_eval_header h = header_of(N_VOCAB);
    tr_eval_reader *r = NULL;
    tr_known known;
    double log_prob;

    (void)state;
    write_base(N_VOCAB);
    assert_int_equal(tr_eval_reader_open(path, &r), TR_OK);
    assert_string_equal(tr_eval_reader_header(r)->model, "m.gguf");
    assert_int_equal(tr_eval_reader_check(r, &h), TR_OK);
    for (size_t i = 0; i < 2; i++) {
        tr_eval_position p = position_of(i);
        assert_int_equal(tr_eval_reader_next(r, 3, &known, &log_prob), TR_OK);
        assert_true(known.is_whole && known.n == N_VOCAB);
        for (size_t k = 0; k < N_VOCAB; k++)
            assert_true(known.log_probs[k] == (double)logits[i][known.ids[k]] - p.log_total);
        assert_true(log_prob == (double)logits[i][3] - p.log_total);
        assert_true(tr_divergence(&known, p.logits, p.log_total) == 0);
    }
    /* The last position's are all equal: the lower id is first. */
    for (uint32_t k = 0; k < N_VOCAB; k++)
        assert_int_equal(known.ids[k], k);
    assert_int_equal(tr_eval_reader_end(r), TR_OK);
    tr_eval_reader_close(&r);
    unlink(path);
}

/* Reads a text as a base of header_of(2); the error line. */
static tr_status read_text(const char *text, char *line, size_t size)
{
    char *copy = strdup(text);
    tr_eval_header h = header_of(2);
    tr_eval_reader *r = NULL;
    tr_known known;
    double log_prob;

    assert_non_null(copy);
    FILE *f = fmemopen(copy, strlen(copy), "r");
    assert_non_null(f);
    tr_fail_capture_begin(line, size);
    tr_status st = tr_eval_reader_from(f, "x", &r);
    if (st == TR_OK)
        st = tr_eval_reader_check(r, &h);
    for (int i = 0; i < 2 && st == TR_OK; i++)
        st = tr_eval_reader_next(r, 3, &known, &log_prob);
    if (st == TR_OK)
        st = tr_eval_reader_end(r);
    tr_fail_capture_end();
    tr_eval_reader_close(&r);
    free(copy);
    return st;
}

#define HEAD                                                                                       \
    "{\"troupe_eval\":1,\"model\":\"m\",\"kernels\":\"c\",\"n_vocab\":5,"                          \
    "\"vocabulary\":\"0000000000000007\",\"ctx\":4,\"skip\":1,"                                    \
    "\"text\":\"ffffffffffffffff\",\"positions\":2,\"top\":2}\n"
#define GOOD "{\"token\":3,\"logprob\":-2,\"top\":[4,0],\"logprobs\":[-1.0,-1.5]}\n"
#define END  "{\"end\":2}\n"

static void what_can_not_be_is_refused(void **state)
{
    static const struct {
        const char *text, *word;
    } cases[] = {
        { "", "line 1: the file ends here" },
        { "{\n", "line 1: no JSON object" },
        { "[1]\n", "line 1: no JSON object" },
        { "{\"troupe_eval\":2}\n", "line 1: no header" },
        { "{\"troupe_eval\":1}\n", "line 1: a key of the header" },
        { HEAD GOOD, "line 3: the file ends here" },
        { HEAD GOOD GOOD, "line 4: the file ends here" },
        { HEAD GOOD GOOD "{\"end\":3}\n", "line 4: the number of positions" },
        { HEAD GOOD GOOD END "\n", "something follows" },
        { HEAD "{\"token\":2,\"logprob\":-2,\"top\":[4,0],\"logprobs\":[-1,-2]}\n", "\"token\"" },
        { HEAD "{\"token\":3,\"logprob\":0.5,\"top\":[4,0],\"logprobs\":[-1,-2]}\n",
          "\"logprob\"" },
        { HEAD "{\"token\":3,\"logprob\":-2,\"top\":[4],\"logprobs\":[-1,-2]}\n", "length" },
        { HEAD "{\"token\":3,\"logprob\":-2,\"top\":[4,4],\"logprobs\":[-1,-2]}\n", "different" },
        { HEAD "{\"token\":3,\"logprob\":-2,\"top\":[4,5],\"logprobs\":[-1,-2]}\n", "different" },
        { HEAD "{\"token\":3,\"logprob\":-2,\"top\":[4,0],\"logprobs\":[-2,-1]}\n", "falling" },
        { HEAD "{\"token\":3,\"logprob\":-2,\"top\":[4,0],\"logprobs\":[-1,null]}\n", "falling" },
        { HEAD "{\"token\":3,\"logprob\":-2,\"top\":[4,0],\"logprobs\":[-0.1,-0.2]}\n",
          "more than" },
        { HEAD "{\"token\":3,\"logprob\":-2,\"top\":[4,0],\"top\":[4,0],\"logprobs\":[-1,-2]}\n",
          "no JSON object" },
    };
    char line[512];

    (void)state;
    assert_int_equal(read_text(HEAD GOOD GOOD END, line, sizeof line), TR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(read_text(cases[i].text, line, sizeof line), TR_E_REQUEST);
        if (!strstr(line, cases[i].word))
            print_message("  %s: %s\n", cases[i].word, line);
        assert_non_null(strstr(line, cases[i].word));
    }
    /* A line without end takes no memory without end. */
    size_t n = 1 << 20;
    char *longest = malloc(n + 1);
    assert_non_null(longest);
    memset(longest, ' ', n);
    longest[n] = '\0';
    assert_int_equal(read_text(longest, line, sizeof line), TR_E_REQUEST);
    assert_non_null(strstr(line, "line 1: too long"));
    free(longest);
}

static void an_abandoned_base_leaves_nothing(void **state)
{
    tr_eval_header h = header_of(2);
    tr_eval_writer *w = NULL;

    (void)state;
    assert_int_equal(tr_eval_writer_new(path, false, &h, &w), TR_OK);
    assert_int_equal(access("test_eval_base.json.part", F_OK), 0);
    tr_eval_writer_abandon(&w);
    assert_int_equal(access("test_eval_base.json.part", F_OK), -1);
    assert_int_equal(access(path, F_OK), -1);
}

static void a_base_is_replaced_only_when_told(void **state)
{
    tr_eval_header h = header_of(2);
    tr_eval_writer *w = NULL;
    char line[512] = "";

    (void)state;
    write_base(2);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_eval_writer_new(path, false, &h, &w), TR_E_IO);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "--overwrite"));
    write_base(1);
    assert_int_equal(unlink(path), 0);
}

/* p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): D = 1/4 ln 2.  With the first alone known the others
 * are one: 1/2 ln 2 + 1/2 ln(2/3). */
static void divergences_are_those_of_the_definition(void **state)
{
    static const uint32_t ids[] = { 0, 1, 2 };
    const double log_probs[] = { log(0.5), log(0.25), log(0.25) };
    const float q[] = { logf(0.25f), logf(0.25f), logf(0.5f) };
    tr_known whole = { ids, log_probs, 3, true };
    tr_known first = { ids, log_probs, 1, false };

    (void)state;
    assert_true(fabs(tr_divergence(&whole, q, 0) - 0.25 * log(2)) < 1e-6);
    assert_true(fabs(tr_divergence(&first, q, 0) - 0.5 * (log(2) + log(2.0 / 3))) < 1e-6);
    assert_true(fabs(tr_known_mass(&first) - 0.5) < 1e-12);

    /* q leaves next to nothing for what p has not kept: large, but finite. */
    const float sure[] = { 0.0f, -200.0f, -200.0f };
    double d = tr_divergence(&first, sure, 0);
    assert_true(isfinite(d) && d > 10);
}

static void means_errors_and_quantiles_are_those_of_the_definition(void **state)
{
    double x[] = { 4, 1, 3, 2 };
    tr_tally t = { 0 };

    (void)state;
    assert_true(tr_tally_error(&t) == 0);
    for (size_t i = 0; i < 4; i++)
        tr_tally_add(&t, x[i]);
    assert_true(fabs(t.mean - 2.5) < 1e-15);
    assert_true(fabs(tr_tally_error(&t) - sqrt(5.0 / 3 / 4)) < 1e-15);
    tr_sort_ascending(x, 4);
    assert_true(tr_quantile(x, 4, 0.5) == 2);
    assert_true(tr_quantile(x, 4, 0.99) == 4);
    assert_true(tr_quantile(x, 4, 0.25) == 1);
    assert_true(tr_quantile(x, 1, 0.5) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_comes_back_to_the_last_bit),
        cmocka_unit_test(what_can_not_be_is_refused),
        cmocka_unit_test(an_abandoned_base_leaves_nothing),
        cmocka_unit_test(a_base_is_replaced_only_when_told),
        cmocka_unit_test(divergences_are_those_of_the_definition),
        cmocka_unit_test(means_errors_and_quantiles_are_those_of_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
