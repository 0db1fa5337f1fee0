/* test_api.c - requests are read as they were meant, or refused by the member that is wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/serve/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 512, N_PARTS = 300000 };

static tr_gguf *gguf;
static tr_tokenizer *tokenizer;
static tr_chat *chat;
static tr_api_model model;

static int open_model(void **state)
{
    (void)state;
    if (tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &gguf) != TR_OK ||
        tr_tokenizer_new(gguf, &tokenizer) != TR_OK ||
        tr_chat_open(gguf, tokenizer, NULL, &chat) != TR_OK)
        return -1;
    model = (tr_api_model){ "demo", tokenizer, chat, CONTEXT, 16, 4000 };
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tr_chat_close(&chat);
    tr_tokenizer_free(&tokenizer);
    tr_gguf_close(&gguf);
    return 0;
}

static tr_status parse(tr_api_kind kind, const char *body, tr_api_request *r, char *why,
                       size_t size)
{
    *why = '\0';
    tr_fail_capture_begin(why, size);
    tr_status st = tr_api_parse(&model, kind, tr_bytes_of(body), r);
    tr_fail_capture_end();
    return st;
}

static void what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *body, *word; /* word NULL: it is taken */
    } cases[] = {
        { "", "empty" },
        { "{}", "prompt" },
        { "{\"prompt\": \"a\"}", NULL },
        { "{\"prompt\": [4294967295]}", "prompt[0]" },
        { "{\"prompt\": [4095, 4096]}", "prompt[1]" },
        { "{\"prompt\": \"a\", \"suffix\": \"\"}", NULL },
        { "{\"prompt\": \"a\", \"suffix\": \"auto\"}", "suffix" },
        { "{\"prompt\": \"a\", \"suffix\": {\"type\": \"text\"}}", "suffix" },
        { "{\"prompt\": \"a\", \"tools\": []}", NULL },
        { "{\"prompt\": \"a\", \"tools\": null}", NULL },
        { "{\"prompt\": \"a\", \"tools\": \"none\"}", "tools" },
        { "{\"prompt\": \"a\", \"tools\": [{\"type\": \"function\"}]}", "tools" },
        { "{\"prompt\": \"a\", \"tool_choice\": \"auto\"}", NULL },
        { "{\"prompt\": \"a\", \"tool_choice\": \"required\"}", "tool_choice" },
        { "{\"prompt\": \"a\", \"tool_choice\": []}", "tool_choice" },
        { "{\"prompt\": \"a\", \"function_call\": \"none\"}", NULL },
        { "{\"prompt\": \"a\", \"functions\": {\"type\": \"text\"}}", "functions" },
        { "{\"prompt\": \"a\", \"audio\": []}", "audio" },
        { "{\"prompt\": \"a\", \"stream_options\": \"x\"}", "stream_options" },
        { "{\"prompt\": \"a\", \"stream_options\": {\"include_usage\": true}}", NULL },
    };
    tr_api_request r;
    char why[512];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        print_message("  %s\n", cases[i].body);
        tr_status st = parse(TR_API_COMPLETION, cases[i].body, &r, why, sizeof why);
        assert_int_equal(st, cases[i].word ? TR_E_REQUEST : TR_OK);
        if (cases[i].word)
            assert_non_null(strstr(why, cases[i].word));
        else
            tr_api_fini(&r);
    }
}

/* A conversation of n parts, each of text. */
static char *in_parts(const char *text, size_t n)
{
    char *body = NULL;
    size_t size;
    FILE *f = open_memstream(&body, &size);

    assert_non_null(f);
    fputs("{\"messages\": [{\"role\": \"user\", \"content\": [", f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s{\"type\": \"text\", \"text\": \"%s\"}", i ? "," : "", text);
    fputs("]}]}", f);
    assert_int_equal(fclose(f), 0);
    return body;
}

/* As many parts as a body may hold: joining each to a copy of all before it would take an hour. */
static void parts_of_a_message_are_one_text(void **state)
{
    tr_api_request whole, parts;
    char why[512];

    (void)state;
    char *body = in_parts("he ki", 20);
    assert_int_equal(parse(TR_API_CHAT, body, &parts, why, sizeof why), TR_OK);
    free(body);
    body = in_parts("he kihe kihe kihe kihe ki", 4);
    assert_int_equal(parse(TR_API_CHAT, body, &whole, why, sizeof why), TR_OK);
    free(body);
    assert_int_equal(parts.n_prompt, whole.n_prompt);
    assert_memory_equal(parts.prompt, whole.prompt, whole.n_prompt * sizeof *whole.prompt);
    tr_api_fini(&parts);
    tr_api_fini(&whole);

    body = in_parts("", N_PARTS);
    assert_int_equal(parse(TR_API_CHAT, body, &whole, why, sizeof why), TR_OK);
    tr_api_fini(&whole);
    free(body);
    body = in_parts("king ", N_PARTS);
    assert_int_equal(parse(TR_API_CHAT, body, &whole, why, sizeof why), TR_E_REQUEST);
    assert_non_null(strstr(why, "1500000 bytes"));
    free(body);
}

static void a_text_that_cannot_fit_is_not_tokenised(void **state)
{
    (void)state;
    assert_int_equal(tr_api_check_text(&model, "prompt", model.max_text), TR_OK);
    assert_int_equal(tr_api_check_text(&model, "prompt", model.max_text + 1), TR_E_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(parts_of_a_message_are_one_text),
        cmocka_unit_test(a_text_that_cannot_fit_is_not_tokenised),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
