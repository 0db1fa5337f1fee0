/* test_prompt.c - a prompt has its begin and end token where the file or the user wants them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"
#include "tests/support/vocab_file.h"

#include "coordinator/commands/prompt.h"

/* "a" is token 3, a space in front of it token 4. */
static tr_tokenizer *tokenizer_new(bool has_ends, bool add_bos, bool add_eos)
{
    static const char *const tokens[] = { "<unk>", "<s>", "</s>", "a", "\xe2\x96\x81" };
    static const uint32_t types[] = { 2, 3, 3, 1, 1 };
    vocab_file *f = vocab_file_new();
    tr_tokenizer *t = NULL;

    vocab_file_string(f, "tokenizer.ggml.model", "llama");
    vocab_file_array(f, "tokenizer.ggml.tokens", TR_GGUF_STRING, 5);
    for (size_t i = 0; i < 5; i++)
        vocab_file_put_text(f, tr_bytes_of(tokens[i]));
    vocab_file_array(f, "tokenizer.ggml.token_type", TR_GGUF_I32, 5);
    for (size_t i = 0; i < 5; i++)
        vocab_file_put_u32(f, has_ends ? types[i] : 1);
    vocab_file_array(f, "tokenizer.ggml.scores", TR_GGUF_F32, 5);
    for (size_t i = 0; i < 5; i++)
        vocab_file_put_u32(f, 0);
    vocab_file_bool(f, "tokenizer.ggml.add_bos_token", add_bos);
    vocab_file_bool(f, "tokenizer.ggml.add_eos_token", add_eos);
    tr_gguf *g = vocab_file_parse(f);
    assert_int_equal(tr_tokenizer_new(g, &t), TR_OK);
    tr_gguf_close(&g);
    free(f);
    return t;
}

static void begin_and_end_stand_where_they_are_wanted(void **state)
{
    static const struct {
        bool add_bos, add_eos;
        uint32_t bos;
        size_t n;
        uint32_t ids[4];
    } cases[] = {
        { false, false, TR_RUN_BOS_AUTO, 2, { 4, 3 } },
        { true, false, TR_RUN_BOS_AUTO, 3, { 1, 4, 3 } },
        { true, true, TR_RUN_BOS_AUTO, 4, { 1, 4, 3, 2 } },
        { false, true, TR_RUN_BOS_ON, 4, { 1, 4, 3, 2 } },
        { true, false, TR_RUN_BOS_OFF, 2, { 4, 3 } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tr_run_options o = { .prompt = "a", .bos = cases[i].bos };
        tr_tokenizer *t = tokenizer_new(true, cases[i].add_bos, cases[i].add_eos);
        tr_prompt p;
        assert_int_equal(tr_prompt_read(&o, t, &p), TR_OK);
        assert_int_equal(p.n, cases[i].n);
        assert_memory_equal(p.ids, cases[i].ids, p.n * sizeof *p.ids);
        tr_prompt_fini(&p);
        tr_tokenizer_free(&t);
    }
}

static void a_begin_token_that_is_not_there_is_refused_only_if_asked_for(void **state)
{
    tr_run_options o = { .prompt = "a", .bos = TR_RUN_BOS_AUTO };
    tr_tokenizer *t = tokenizer_new(false, true, true);
    char reason[128];
    tr_prompt p;

    (void)state;
    assert_int_equal(tr_prompt_read(&o, t, &p), TR_OK);
    assert_int_equal(p.n, 2);
    tr_prompt_fini(&p);
    o.bos = TR_RUN_BOS_ON;
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(tr_prompt_read(&o, t, &p), TR_E_USAGE);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "--bos on"));
    tr_tokenizer_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begin_and_end_stand_where_they_are_wanted),
        cmocka_unit_test(a_begin_token_that_is_not_there_is_refused_only_if_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
