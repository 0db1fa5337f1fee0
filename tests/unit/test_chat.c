/* test_chat.c - prompts are, byte by byte, what the published templates give; their ids are those
 * of the whole text encoded at once; nobody's words become a template's marks.
 *
 * The texts were written out by hand from the templates.  The vocabulary is made here: a token for
 * each byte, some merges, and the special tokens of the family.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"
#include "tests/support/vocab_file.h"

#include "base/rng.h"
#include "coordinator/text/chat.h"
#include "coordinator/text/vocab.h"

#define BAR    "\xef\xbd\x9c"
#define USER   "<" BAR "User" BAR ">"
#define ANSWER "<" BAR "Assistant" BAR ">"

enum { CONTROL = 3, USER_DEFINED = 4, MAX_MARKS = 64, MAX_TEXT = 4096 };

/* ---- a model's tokenizer and template ---- */

typedef struct {
    const char *marks; /* special tokens, with a blank between them */
    const char *bos, *eos;
    const char *template; /* or NULL */
    int32_t type;         /* of the marks; 0 is CONTROL */
    bool adds_bos, has_no_think;
} model;

typedef struct {
    vocab_file *file;
    tr_gguf *g;
    tr_tokenizer *t;
    tr_chat *c;
} opened;

static void put_token(vocab_file *f, const char *text, size_t size)
{
    vocab_file_put_text(f, (tr_bytes){ (const uint8_t *)text, size });
}

/* The marks as views; returns how many. */
static size_t marks_of(const model *m, tr_bytes out[MAX_MARKS])
{
    const char *at = m->marks ? m->marks : "";
    size_t n = 0;

    for (; *at; at += strspn(at, " ")) {
        size_t size = strcspn(at, " ");
        out[n++] = (tr_bytes){ (const uint8_t *)at, size };
        at += size;
    }
    if (!m->has_no_think) {
        out[n++] = tr_bytes_of("<think>");
        out[n++] = tr_bytes_of("</think>");
    }
    if (m->bos)
        out[n++] = tr_bytes_of(m->bos);
    if (m->eos)
        out[n++] = tr_bytes_of(m->eos);
    assert_true(n <= MAX_MARKS);
    return n;
}

/* Merges over the ends of a template's text, so that a cut there would give other ids.
 * U+010A is how a line end is written, U+0120 a space. */
static const char *const merges[] = { "\304\212 \304\212", "\304\240 H", "\304\240 B", "H e",
                                      "\304\240H e" };
static const char *const merged[] = { "\304\212\304\212", "\304\240H", "\304\240B", "He",
                                      "\304\240He" };

static void vocabulary_put(vocab_file *f, const model *m)
{
    tr_bytes marks[MAX_MARKS];
    size_t n_marks = marks_of(m, marks), n_merges = sizeof merges / sizeof merges[0];
    size_t n = 256 + n_merges + n_marks;

    vocab_file_string(f, "tokenizer.ggml.model", "gpt2");
    vocab_file_string(f, "tokenizer.ggml.pre", "gpt-2");
    vocab_file_array(f, "tokenizer.ggml.tokens", TR_GGUF_STRING, n);
    for (size_t b = 0; b < 256; b++) {
        uint8_t text[2];
        put_token(f, (char *)text, tr_vocab_encode_byte((uint8_t)b, text));
    }
    for (size_t i = 0; i < n_merges; i++)
        put_token(f, merged[i], strlen(merged[i]));
    for (size_t i = 0; i < n_marks; i++)
        vocab_file_put_text(f, marks[i]);
    vocab_file_array(f, "tokenizer.ggml.token_type", TR_GGUF_I32, n);
    for (size_t i = 0; i < n; i++) {
        int32_t type = i < n - n_marks ? 1 : m->type ? m->type : CONTROL;
        vocab_file_put(f, &type, sizeof type);
    }
    vocab_file_array(f, "tokenizer.ggml.merges", TR_GGUF_STRING, n_merges);
    for (size_t i = 0; i < n_merges; i++)
        put_token(f, merges[i], strlen(merges[i]));
    if (m->bos)
        vocab_file_u32(f, "tokenizer.ggml.bos_token_id", (uint32_t)(n - 1 - (m->eos != NULL)));
    if (m->eos)
        vocab_file_u32(f, "tokenizer.ggml.eos_token_id", (uint32_t)(n - 1));
    if (m->adds_bos)
        vocab_file_bool(f, "tokenizer.ggml.add_bos_token", true);
}

/* What tr_chat_open says.  For close also after a failure. */
static tr_status chat_open(const model *m, const char *choice, opened *o)
{
    *o = (opened){ .file = vocab_file_new() };
    vocabulary_put(o->file, m);
    if (m->template)
        vocab_file_string(o->file, "tokenizer.chat_template", m->template);
    o->g = vocab_file_parse(o->file);
    assert_non_null(o->g);
    assert_int_equal(tr_tokenizer_new(o->g, &o->t), TR_OK);
    return tr_chat_open(o->g, o->t, choice, &o->c);
}

static void chat_close(opened *o)
{
    tr_chat_close(&o->c);
    tr_tokenizer_free(&o->t);
    tr_gguf_close(&o->g);
    free(o->file);
}

/* ---- conversations ---- */

typedef struct {
    const char *role, *content;
} line;

/* Up to a line without a role. */
static size_t messages_of(const line *lines, tr_chat_message *out)
{
    size_t n = 0;

    for (; lines[n].role; n++)
        out[n] = (tr_chat_message){ tr_bytes_of(lines[n].role), tr_bytes_of(lines[n].content) };
    return n;
}

static tr_status encode(const opened *o, const line *lines, bool answer, uint32_t **ids, size_t *n)
{
    tr_chat_message messages[16];
    size_t n_messages = messages_of(lines, messages);

    return tr_chat_encode(o->c, messages, n_messages, answer, ids, n);
}

/* The bytes that the ids stand for, with a zero behind them. */
static void text_of(const tr_tokenizer *t, const uint32_t *ids, size_t n, char *out)
{
    size_t size = 0;

    for (size_t i = 0; i < n; i++) {
        tr_bytes piece = tr_tokenizer_piece(t, ids[i]);
        assert_true(size + piece.size < MAX_TEXT);
        memcpy(out + size, piece.data, piece.size);
        size += piece.size;
    }
    out[size] = 0;
}

static void check_text(const opened *o, const line *lines, bool answer, const char *expected)
{
    char text[MAX_TEXT];
    uint32_t *ids;
    size_t n;

    assert_int_equal(encode(o, lines, answer, &ids, &n), TR_OK);
    text_of(o->t, ids, n, text);
    if (strcmp(text, expected) != 0)
        fail_msg("%s:\n%s\nand not\n%s", tr_chat_name(o->c), text, expected);
    free(ids);
}

/* The same, and the ids are those of the text encoded at once. */
static void check_prompt(const opened *o, const line *lines, bool answer, const char *expected)
{
    uint32_t *ids, *whole;
    size_t n, n_whole;

    check_text(o, lines, answer, expected);
    assert_int_equal(encode(o, lines, answer, &ids, &n), TR_OK);
    assert_int_equal(tr_tokenizer_encode(o->t, tr_bytes_of(expected), true, &whole, &n_whole),
                     TR_OK);
    if (n != n_whole || memcmp(ids, whole, n * sizeof *ids) != 0)
        fail_msg("%s: %zu ids are not the %zu of the whole text", tr_chat_name(o->c), n, n_whole);
    free(ids);
    free(whole);
}

/* ---- every family ---- */

/* Blanks and line ends around the words show what is trimmed. */
static const line with_system[] = { { "system", "Be brief." },
                                    { "user", "Hello" },
                                    { "assistant", " Hi " },
                                    { "user", "\nBye" },
                                    { NULL, NULL } };

#define GPT_OSS_SYSTEM                                                                             \
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"       \
    "Knowledge cutoff: 2024-06\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, "   \
    "final. Channel must be included for every message.<|end|>"
#define LLAMA3(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA4(role) "<|header_start|>" role "<|header_end|>\n\n"
#define COMMAND(who) "<|START_OF_TURN_TOKEN|><|" who "_TOKEN|>"
#define GRANITE(who) "<|start_of_role|>" who "<|end_of_role|>"
#define KIMI(who)    "<|im_" who "|>" who "<|im_middle|>"

#define CHATML_MARKS "<|im_start|> <|im_end|>"
#define MISTRAL7     "[INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT]"
#define GLM_MARKS    "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>"
#define KIMI_MARKS   "<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|> <|im_end|>"
#define COMMAND_MARKS                                                                              \
    "<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|SYSTEM_TOKEN|> <|USER_TOKEN|> "               \
    "<|CHATBOT_TOKEN|>"

typedef struct {
    const char *name, *marks;
    const char *system; /* the whole prompt with and without a system message */
    const char *without;
} family;

static const family families[] = {
    { "chatml", CHATML_MARKS,
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
      "<|im_start|>assistant\n Hi <|im_end|>\n<|im_start|>user\n\nBye<|im_end|>\n"
      "<|im_start|>assistant\n",
      "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n Hi <|im_end|>\n"
      "<|im_start|>user\n\nBye<|im_end|>\n<|im_start|>assistant\n" },
    { "chatml-think", CHATML_MARKS,
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
      "<|im_start|>assistant\n Hi <|im_end|>\n<|im_start|>user\n\nBye<|im_end|>\n"
      "<|im_start|>assistant\n<think>\n",
      "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n Hi <|im_end|>\n"
      "<|im_start|>user\n\nBye<|im_end|>\n<|im_start|>assistant\n<think>\n" },
    { "llama2", NULL,
      "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHello [/INST] Hi </s><s>[INST] Bye [/INST]",
      "<s>[INST] Hello [/INST] Hi </s><s>[INST] Bye [/INST]" },
    { "llama3", "<|start_header_id|> <|end_header_id|> <|eot_id|>",
      "<s>" LLAMA3("system") "Be brief.<|eot_id|>" LLAMA3("user") "Hello<|eot_id|>" LLAMA3(
          "assistant") "Hi<|eot_id|>" LLAMA3("user") "Bye<|eot_id|>" LLAMA3("assistant"),
      "<s>" LLAMA3("user") "Hello<|eot_id|>" LLAMA3("assistant") "Hi<|eot_id|>" LLAMA3(
          "user") "Bye<|eot_id|>" LLAMA3("assistant") },
    { "llama4", "<|header_start|> <|header_end|> <|eot|>",
      "<s>" LLAMA4("system") "Be brief.<|eot|>" LLAMA4("user") "Hello<|eot|>" LLAMA4(
          "assistant") " Hi <|eot|>" LLAMA4("user") "\nBye<|eot|>" LLAMA4("assistant"),
      "<s>" LLAMA4("user") "Hello<|eot|>" LLAMA4("assistant") " Hi <|eot|>" LLAMA4(
          "user") "\nBye<|eot|>" LLAMA4("assistant") },
    { "mistral-v0", NULL, "<s>[INST] Be brief.\n\nHello [/INST] Hi </s>[INST] \nBye [/INST]",
      "<s>[INST] Hello [/INST] Hi </s>[INST] \nBye [/INST]" },
    { "mistral-v1", NULL, "<s> [INST] Be brief.\n\nHello [/INST]  Hi </s> [INST] \nBye [/INST]",
      "<s> [INST] Hello [/INST]  Hi </s> [INST] \nBye [/INST]" },
    { "mistral-v3", "[INST] [/INST]",
      "<s>[INST] Hello[/INST] Hi</s>[INST] Be brief.\n\n\nBye[/INST]",
      "<s>[INST] Hello[/INST] Hi</s>[INST] \nBye[/INST]" },
    { "mistral-v3-tekken", "[INST] [/INST]",
      "<s>[INST]Hello[/INST] Hi </s>[INST]Be brief.\n\n\nBye[/INST]",
      "<s>[INST]Hello[/INST] Hi </s>[INST]\nBye[/INST]" },
    { "mistral-v7", MISTRAL7,
      "<s>[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] Hello[/INST]  Hi </s>[INST] \n"
      "Bye[/INST]",
      "<s>[INST] Hello[/INST]  Hi </s>[INST] \nBye[/INST]" },
    { "mistral-v7-tekken", MISTRAL7,
      "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hello[/INST] Hi </s>[INST]\nBye[/INST]",
      "<s>[INST]Hello[/INST] Hi </s>[INST]\nBye[/INST]" },
    { "deepseek2", NULL,
      "<s>Be brief.\n\nUser: Hello\n\nAssistant:  Hi </s>User: \nBye\n\nAssistant:",
      "<s>User: Hello\n\nAssistant:  Hi </s>User: \nBye\n\nAssistant:" },
    { "deepseek3", USER " " ANSWER,
      "<s>Be brief." USER "Hello" ANSWER " Hi </s>" USER "\nBye" ANSWER,
      "<s>" USER "Hello" ANSWER " Hi </s>" USER "\nBye" ANSWER },
    { "deepseek3.1", USER " " ANSWER,
      "<s>Be brief." USER "Hello" ANSWER "</think> Hi </s>" USER "\nBye" ANSWER "</think>",
      "<s>" USER "Hello" ANSWER "</think> Hi </s>" USER "\nBye" ANSWER "</think>" },
    { "deepseek-r1", USER " " ANSWER,
      "<s>Be brief." USER "Hello" ANSWER " Hi </s>" USER "\nBye" ANSWER "<think>\n",
      "<s>" USER "Hello" ANSWER " Hi </s>" USER "\nBye" ANSWER "<think>\n" },
    { "gpt-oss", "<|start|> <|message|> <|channel|> <|end|>",
      GPT_OSS_SYSTEM
      "<|start|>developer<|message|># Instructions\n\nBe brief.<|end|><|start|>user<|message|>"
      "Hello<|end|><|start|>assistant<|channel|>final<|message|> Hi <|end|><|start|>user"
      "<|message|>\nBye<|end|><|start|>assistant<|channel|>final<|message|>",
      GPT_OSS_SYSTEM
      "<|start|>user<|message|>Hello<|end|><|start|>assistant<|channel|>final<|message|> Hi "
      "<|end|><|start|>user<|message|>\nBye<|end|><|start|>assistant<|channel|>final"
      "<|message|>" },
    { "glm4", GLM_MARKS,
      "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHello<|assistant|>\n Hi <|user|>\n\nBye"
      "<|assistant|>\n",
      "[gMASK]<sop><|user|>\nHello<|assistant|>\n Hi <|user|>\n\nBye<|assistant|>\n" },
    { "glm4.5", GLM_MARKS,
      "[gMASK]<sop><|system|>\nBe "
      "brief.<|user|>\nHello<|assistant|>\n<think></think>\nHi<|user|>"
      "\n\nBye<|assistant|>",
      "[gMASK]<sop><|user|>\nHello<|assistant|>\n<think></think>\nHi<|user|>\n\nBye"
      "<|assistant|>" },
    { "gemma", "<start_of_turn> <end_of_turn>",
      "<s><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n<start_of_turn>model\nHi"
      "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
      "<s><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi<end_of_turn>\n"
      "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n" },
    { "granite", "<|start_of_role|> <|end_of_role|> <|end_of_text|>",
      GRANITE("system") "Be brief.<|end_of_text|>\n" GRANITE(
          "user") "Hello<|end_of_text|>"
                  "\n" GRANITE("assistant") " Hi <|end_of_text|>\n" GRANITE(
                      "user") "\nBye<|end_"
                              "of_text|>"
                              "\n" GRANITE("assistant"),
      GRANITE("user") "Hello<|end_of_text|>\n" GRANITE("assistant") " Hi "
                                                                    "<|end_of_text|>\n" GRANITE(
                                                                        "user") "\nBye<|end_of_"
                                                                                "text|>"
                                                                                "\n" GRANITE("a"
                                                                                             "s"
                                                                                             "s"
                                                                                             "i"
                                                                                             "s"
                                                                                             "t"
                                                                                             "a"
                                                                                             "n"
                                                                                             "t") },
    { "phi3", "<|system|> <|user|> <|assistant|> <|end|>",
      "<|system|>\nBe brief.<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\n Hi <|end|>\n"
      "<|user|>\n\nBye<|end|>\n<|assistant|>\n",
      "<|user|>\nHello<|end|>\n<|assistant|>\n Hi <|end|>\n<|user|>\n\nBye<|end|>\n"
      "<|assistant|>\n" },
    { "tulu", NULL,
      "<s><|system|>\nBe brief.\n<|user|>\nHello\n<|assistant|>\n Hi </s>\n<|user|>\n\nBye\n"
      "<|assistant|>\n",
      "<s><|user|>\nHello\n<|assistant|>\n Hi </s>\n<|user|>\n\nBye\n<|assistant|>\n" },
    { "command-r", COMMAND_MARKS,
      "<s>" COMMAND("SYSTEM") "Be brief.<|END_OF_TURN_TOKEN|>" COMMAND(
          "USER") "Hello<|END_OF_TURN_TOKEN|>" COMMAND("CHATBOT") "Hi<|END_OF_TURN_TOKEN|"
                                                                  ">" COMMAND(
                                                                      "USER") "Bye<|"
                                                                              "END_OF_"
                                                                              "TURN_"
                                                                              "TOKEN|"
                                                                              ">" COMMAND(
                                                                                  "CHATBOT"),
      "<s>" COMMAND("USER") "Hello<|END_OF_TURN_TOKEN|>" COMMAND(
          "CHATBOT") "Hi<|END_OF_TURN_TOKEN|>" COMMAND("USER") "Bye<|END_OF_TURN_TOKEN|"
                                                               ">" COMMAND("CHATBOT") },
    { "kimi-k2", KIMI_MARKS,
      KIMI("system") "Be brief.<|im_end|>" KIMI("user") "Hello<|im_end|>" KIMI(
          "assistant") " Hi <|im_end|>" KIMI("user") "\nBye<|im_end|>" KIMI("assistant"),
      KIMI("user") "Hello<|im_end|>" KIMI("assistant") " Hi <|im_end|>" KIMI(
          "user") "\nBye<|im_end|>" KIMI("assistant") },
    { "kimi-k2-thinking", KIMI_MARKS,
      KIMI("system") "Be brief.<|im_end|>" KIMI("user") "Hello<|im_end|>" KIMI(
          "assistant") "<think></think> Hi <|im_end|>" KIMI("user") "\nBye<|im_end|>" KIMI("ass"
                                                                                           "ist"
                                                                                           "an"
                                                                                           "t"),
      KIMI("user") "Hello<|im_end|>" KIMI("assistant") "<think></think> Hi <|im_end|>" KIMI(
          "user") "\nBye<|im_end|>" KIMI("assistant") },
    { "minimax-m2", "]~!b[ ]~b] [e~[",
      "]~!b[]~b]system\nBe brief.[e~[\n]~b]user\nHello[e~[\n]~b]ai\n Hi [e~[\n]~b]user\n\nBye"
      "[e~[\n]~b]ai\n<think>\n",
      "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nHello[e~[\n]~b]ai\n Hi "
      "[e~[\n"
      "]~b]user\n\nBye[e~[\n]~b]ai\n<think>\n" },
    { "plain", NULL, "System: Be brief.\nUser: Hello\nAssistant: Hi\nUser: Bye\nAssistant:",
      "User: Hello\nAssistant: Hi\nUser: Bye\nAssistant:" },
};

enum { N_FAMILIES = sizeof families / sizeof families[0] };

static model model_of(const family *f, int32_t type)
{
    return (model){ .marks = f->marks, .bos = "<s>", .eos = "</s>", .type = type };
}

static void every_family_writes_what_its_template_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        static const int32_t types[] = { CONTROL, USER_DEFINED };
        for (size_t j = 0; j < 2; j++) {
            opened o;
            model m = model_of(&families[i], types[j]);
            m.has_no_think = i % 2;
            assert_int_equal(chat_open(&m, families[i].name, &o), TR_OK);
            assert_string_equal(tr_chat_name(o.c), families[i].name);
            check_prompt(&o, with_system, true, families[i].system);
            check_prompt(&o, with_system + 1, true, families[i].without);
            chat_close(&o);
        }
    }
}

static void every_family_that_can_be_chosen_is_tested(void **state)
{
    size_t n = 0;

    (void)state;
    for (; tr_chat_name_at(n); n++) {
        bool is_found = false;
        for (size_t i = 0; i < N_FAMILIES; i++)
            is_found = is_found || strcmp(families[i].name, tr_chat_name_at(n)) == 0;
        assert_true(is_found);
    }
    assert_int_equal(n, N_FAMILIES);
}

/* No family has a mark of these characters alone. */
static void random_words(uint64_t seed, uint64_t round, uint64_t which, char out[32])
{
    static const char alphabet[] = "HeB :\n\n  \t{}'|>";
    size_t n = tr_rng_u64(seed, round, 100 * which) % 31;

    for (size_t i = 0; i < n; i++)
        out[i] = alphabet[tr_rng_u64(seed, round, 100 * which + i + 1) % (sizeof alphabet - 1)];
    out[n] = 0;
}

static void ids_are_those_of_the_whole_text_for_any_words(void **state)
{
    uint64_t seed = tr_test_seed();

    (void)state;
    for (uint64_t round = 0; round < 20 * N_FAMILIES; round++) {
        const family *f = &families[round % N_FAMILIES];
        model m = model_of(f, round % 3 ? CONTROL : USER_DEFINED);
        char words[4][32], text[MAX_TEXT];
        line lines[5];
        uint32_t *ids;
        size_t n;
        opened o;
        memcpy(lines, with_system, sizeof lines);
        for (size_t i = 0; i < 4; i++) {
            random_words(seed, round, i, words[i]);
            lines[i].content = words[i];
        }
        assert_int_equal(chat_open(&m, f->name, &o), TR_OK);
        assert_int_equal(encode(&o, lines, round % 2, &ids, &n), TR_OK);
        text_of(o.t, ids, n, text);
        free(ids);
        check_prompt(&o, lines, round % 2, text);
        chat_close(&o);
    }
}

/* ---- break-outs ---- */

/* All marks one after the other, and each again inside itself. */
static void marks_typed(const model *m, char out[MAX_TEXT])
{
    tr_bytes marks[MAX_MARKS];
    size_t n = marks_of(m, marks), used = 1;

    out[0] = 'x';
    for (size_t i = 0; i < n; i++) {
        const char *text = (const char *)marks[i].data;
        int size = (int)marks[i].size;
        used += (size_t)snprintf(out + used, MAX_TEXT - used, "%.*s%.1s%.*s%.*s", size, text, text,
                                 size, text, size - 1, text + 1);
        assert_true(used < MAX_TEXT - 2);
    }
    /* Thoughts would be left out of an answer. */
    for (char *at; (at = strstr(out, "</think>"));)
        *at = '.';
    memcpy(out + used, ".", 2);
}

/* The marks in the prompt, and its text with Q for what people said. */
static size_t skeleton(const opened *o, const model *m, const char *content, uint32_t *marks_found,
                       char text[MAX_TEXT])
{
    const line lines[] = { { "system", content },
                           { "user", content },
                           { "assistant", content },
                           { "user", content },
                           { NULL, NULL } };
    static char whole[8 * MAX_TEXT];
    tr_bytes marks[MAX_MARKS];
    size_t n_marks = marks_of(m, marks), n, n_found = 0, size = 0;
    uint32_t *ids;

    assert_int_equal(encode(o, lines, true, &ids, &n), TR_OK);
    for (size_t i = 0; i < n; i++) {
        tr_bytes piece = tr_tokenizer_piece(o->t, ids[i]);
        memcpy(whole + size, piece.data, piece.size);
        size += piece.size;
        for (size_t k = 0; k < n_marks; k++)
            if (tr_bytes_equal(piece, marks[k]))
                marks_found[n_found++] = ids[i];
    }
    whole[size] = 0;
    size = 0;
    for (const char *at = whole; *at; size++) {
        bool is_content = strncmp(at, content, strlen(content)) == 0;
        text[size] = is_content ? 'Q' : *at;
        at += is_content ? strlen(content) : 1;
    }
    text[size] = 0;
    free(ids);
    return n_found;
}

static void what_people_type_is_never_a_mark(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_FAMILIES; i++) {
        model m = model_of(&families[i / 2], i % 2 ? CONTROL : USER_DEFINED);
        char typed[MAX_TEXT], harmless_text[MAX_TEXT], text[MAX_TEXT];
        uint32_t harmless[8 * MAX_MARKS], found[8 * MAX_TEXT];
        opened o;
        marks_typed(&m, typed);
        assert_int_equal(chat_open(&m, families[i / 2].name, &o), TR_OK);
        size_t n_harmless = skeleton(&o, &m, "Q", harmless, harmless_text);
        size_t n = skeleton(&o, &m, typed, found, text);
        assert_string_equal(text, harmless_text);
        assert_int_equal(n, n_harmless);
        assert_memory_equal(found, harmless, n * sizeof *found);
        chat_close(&o);
    }
}

/* SentencePiece puts a space in front of text, but not where the writer cuts a mark that somebody
 * typed: there the text goes on. */
static void no_space_comes_where_a_typed_mark_is_cut(void **state)
{
    static const char *const first[] = { "<unk>",        "<s>",        "</s>",
                                         "<|im_start|>", "<|im_end|>", "\xe2\x96\x81" };
    static const int32_t types[] = { 2, 3, 3, 4, 4, 1 };
    enum { N_FIRST = 6, BYTE = 6 };
    const tr_chat_message message = { tr_bytes_of("user"), tr_bytes_of("x<|im_end|>y") };
    vocab_file *f = vocab_file_new();
    char text[MAX_TEXT];
    uint32_t *ids;
    size_t n;
    tr_tokenizer *t;
    tr_chat *c;

    (void)state;
    vocab_file_string(f, "tokenizer.ggml.model", "llama");
    vocab_file_array(f, "tokenizer.ggml.tokens", TR_GGUF_STRING, N_FIRST + 256);
    for (size_t i = 0; i < N_FIRST; i++)
        put_token(f, first[i], strlen(first[i]));
    for (size_t b = 0; b < 256; b++) {
        char byte[8];
        put_token(f, byte, (size_t)snprintf(byte, sizeof byte, "<0x%02X>", (unsigned)b));
    }
    vocab_file_array(f, "tokenizer.ggml.token_type", TR_GGUF_I32, N_FIRST + 256);
    for (size_t i = 0; i < N_FIRST + 256; i++)
        vocab_file_put_u32(f, i < N_FIRST ? (uint32_t)types[i] : BYTE);
    vocab_file_array(f, "tokenizer.ggml.scores", TR_GGUF_F32, N_FIRST + 256);
    for (size_t i = 0; i < N_FIRST + 256; i++)
        vocab_file_put_u32(f, 0);
    vocab_file_bool(f, "tokenizer.ggml.add_bos_token", false);
    tr_gguf *g = vocab_file_parse(f);
    assert_int_equal(tr_tokenizer_new(g, &t), TR_OK);
    assert_int_equal(tr_chat_open(g, t, "chatml", &c), TR_OK);
    assert_int_equal(tr_chat_encode(c, &message, 1, false, &ids, &n), TR_OK);
    text_of(t, ids, n, text);
    assert_string_equal(text, "<|im_start|> user\nx<|im_end|>y<|im_end|> \n");
    free(ids);
    tr_chat_close(&c);
    tr_tokenizer_free(&t);
    tr_gguf_close(&g);
    free(f);
}

/* ---- recognition ---- */

static void templates_are_recognised_by_what_they_have(void **state)
{
    static const struct {
        const char *name, *template;
    } cases[] = {
        { "chatml", "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                    "'<|im_end|>' + '\n'}}{{ '<|im_start|>assistant\\n' }}" },
        { "chatml", "{{- '<|im_start|>assistant\\n' }}{%- if not t %}"
                    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}'<|im_end|>'" },
        { "chatml-think", "'<|im_end|>\\n' {{- '<|im_start|>assistant\\n<think>\\n' }}" },
        { "chatml-think", "'<|im_end|>' {{- '<|im_start|>assistant\n' }}{{- '<think>\n' }}" },
        { "llama2", "{{ bos_token + '[INST] ' + '<<SYS>>\\n' + s + '\\n<</SYS>>\\n\\n' }}" },
        { "llama3", "'<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' '<|eot_id|>'" },
        { "llama4", "'<|header_start|>' + role + '<|header_end|>\\n\\n' \"<|eot|>\"" },
        { "mistral-v0", "{{ '[INST] ' + message['content'] + ' [/INST]' }}" },
        { "mistral-v1", "{{- ' [INST] ' + message['content'] + ' [/INST]' }}" },
        { "mistral-v1", "{{- \" [INST] \" + message[\"content\"] + \" [/INST]\" }}" },
        { "mistral-v3", "{{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}" },
        { "mistral-v3-tekken", "{{- \"[INST]\" + message[\"content\"] + \"[/INST]\" }}" },
        { "mistral-v7", "'[SYSTEM_PROMPT] ' + s + '[/SYSTEM_PROMPT]' '[INST] ' '[/INST]'" },
        { "mistral-v7-tekken", "'[SYSTEM_PROMPT]' + s + '[/SYSTEM_PROMPT]' '[INST]' '[/INST]'" },
        { "deepseek2", "'User: ' {{ 'Assistant: ' + message['content'] + eos_token }}" },
        { "deepseek3", "{{'" USER "' + m}}{{'" ANSWER "' + m}}{{'" ANSWER "'}}" },
        { "deepseek3", "split('</think>') {{'" USER "' + m}}{{'" ANSWER "'}}" },
        { "deepseek3.1", "{{'" USER "'}}{{'" ANSWER "</think>'}}{{'<think>'}}" },
        { "deepseek-r1", "'</think>' {{'" USER "'}}{{'" ANSWER "<think>\\n'}}" },
        { "gpt-oss", "\"<|start|>system<|message|>\" \"<|channel|>\" \"<|end|>\"" },
        { "glm4", "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>" },
        { "glm4.5", "[gMASK]<sop>\n{{ '\\n<think></think>' }}" },
        { "gemma", "'<start_of_turn>' + role + '\\n' '<end_of_turn>\\n'" },
        { "granite", "'<|start_of_role|>user<|end_of_role|>' '<|end_of_text|>\\n'" },
        { "phi3", "'<|' + message['role'] + '|>' + '\\n' '<|end|>\\n' '<|assistant|>\\n'" },
        { "phi3", "'<|user|>' + '\n' '<|end|>' + '\n' + '<|assistant|>' + '\n'" },
        { "tulu", "'<|user|>\\n' + message['content'] + '\\n' eos_token '<|assistant|>\\n'" },
        { "command-r", "'<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' '<|CHATBOT_TOKEN|>'" },
        { "kimi-k2", "'<|im_assistant|>assistant<|im_middle|>' '<|im_end|>'" },
        { "kimi-k2-thinking", "<|im_assistant|>{{r}}<|im_middle|><think></think>" },
        { "minimax-m2", "']~!b[' ~ ']~b]system' '[e~[' '<think>'" },
        /* Relatives that write other text. */
        { NULL, "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}" },
        { NULL, "'<|im_end|>' {{ '<|im_start|>assistant\\n<think>' }}" },
        { NULL, "'<|user|>\\n' + message['content'] + '<|endoftext|>' '<|assistant|>\\n'" },
        { NULL, "'<|user|>' + message['content'] + '<|end|>' '<|assistant|>'" },
        { NULL, "[gMASK]<sop><|user|>{{'<think>'}}" },
        { NULL, "'<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>'" },
        { NULL, "{% for m in messages %}{{ m['content'] }}{% endfor %}" },
    };
    static const char all[] =
        CHATML_MARKS " " MISTRAL7 " " GLM_MARKS " " COMMAND_MARKS " " KIMI_MARKS " " USER " " ANSWER
                     " ]~!b[ ]~b] [e~[ <|start_header_id|> <|end_header_id|> <|eot_id|> "
                     "<|header_start|> <|header_end|> <|eot|> <|start|> <|message|> <|channel|> "
                     "<|end|> <start_of_turn> <end_of_turn> <|start_of_role|> <|end_of_role|> "
                     "<|end_of_text|>";

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char said[1200];
        opened o;
        model m = { .marks = all, .bos = "<s>", .eos = "</s>", .template = cases[i].template };
        tr_fail_capture_begin(said, sizeof said);
        tr_status st = chat_open(&m, NULL, &o);
        tr_fail_capture_end();
        if (st != (cases[i].name ? TR_OK : TR_E_UNSUPPORTED))
            fail_msg("%s: status %d", cases[i].template, st);
        if (cases[i].name)
            assert_string_equal(tr_chat_name(o.c), cases[i].name);
        chat_close(&o);
    }
}

static void a_file_without_template_is_recognised_by_tokens_of_one_family_only(void **state)
{
    static const struct {
        const char *name, *marks, *eos;
    } cases[] = {
        { "chatml", "<|im_start|>", "<|im_end|>" },
        { "llama3", "<|start_header_id|> <|end_header_id|>", "<|eot_id|>" },
        { "gpt-oss", "<|start|> <|message|> <|channel|> <|end|>", "<|return|>" },
        { "plain", NULL, "</s>" },
        { "plain", "<|im_start|>", "</s>" },
        { "plain", CHATML_MARKS, "</s>" }, /* as in models before they learn to chat */
        { "gpt-oss", CHATML_MARKS " <|start|> <|message|> <|channel|>", "<|end|>" },
        { "plain", "<|system|> <|user|> <|assistant|> <|start|> <|message|> <|channel|>",
          "<|end|>" },                           /* phi3 and gpt-oss */
        { "plain", GLM_MARKS, "<|endoftext|>" }, /* glm4 and glm4.5 have the same */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        opened o;
        model m = { .marks = cases[i].marks, .bos = "<s>", .eos = cases[i].eos };
        m.template = i % 2 ? "" : NULL; /* empty is none */
        assert_int_equal(chat_open(&m, NULL, &o), TR_OK);
        if (strcmp(tr_chat_name(o.c), cases[i].name) != 0)
            fail_msg("%zu: %s", i, tr_chat_name(o.c));
        chat_close(&o);
    }
}

static void the_shipped_model_gets_plain(void **state)
{
    tr_gguf *g;
    tr_tokenizer *t;
    tr_chat *c;

    (void)state;
    assert_int_equal(tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &g), TR_OK);
    assert_int_equal(tr_tokenizer_new(g, &t), TR_OK);
    assert_int_equal(tr_chat_open(g, t, NULL, &c), TR_OK);
    assert_string_equal(tr_chat_name(c), "plain");
    tr_chat_close(&c);
    tr_tokenizer_free(&t);
    tr_gguf_close(&g);
}

/* ---- what cannot be opened ---- */

/* Opens, which must fail with st and a line that has words. */
static void check_refused(const model *m, const char *choice, tr_status st, const char *words)
{
    char said[1200];
    opened o;

    tr_fail_capture_begin(said, sizeof said);
    tr_status found = chat_open(m, choice, &o);
    tr_fail_capture_end();
    assert_int_equal(found, st);
    assert_null(o.c);
    if (!strstr(said, words))
        fail_msg("\"%s\" has no \"%s\"", said, words);
    chat_close(&o);
}

static void what_is_not_known_is_refused_with_the_choices(void **state)
{
    model m = { .bos = "<s>", .eos = "</s>", .template = "{{ x }}" };

    (void)state;
    check_refused(&m, NULL, TR_E_UNSUPPORTED, "--chat-template one of chatml, ");
    check_refused(&m, NULL, TR_E_UNSUPPORTED, ", plain");
    check_refused(&m, "cobol", TR_E_USAGE, "\"cobol\" is none of chatml, ");
    check_refused(&m, "cobol", TR_E_USAGE, ", plain");
    check_refused(&m, "", TR_E_USAGE, "\"\" is none of");
    check_refused(&m, "chatml", TR_E_UNSUPPORTED, "no special token <|im_start|>");
    m.template = "'<|im_start|>' '<|im_end|>'";
    check_refused(&m, NULL, TR_E_UNSUPPORTED, "no special token <|im_start|>");
    m = (model){ .bos = "<s>" };
    check_refused(&m, "llama2", TR_E_UNSUPPORTED, "no tokenizer.ggml.eos_token_id");
}

static void a_template_that_is_no_string_is_refused(void **state)
{
    vocab_file *f = vocab_file_new();
    model m = { .bos = "<s>", .eos = "</s>" };
    tr_tokenizer *t;
    tr_chat *c;
    char said[1200];

    (void)state;
    vocabulary_put(f, &m);
    vocab_file_u32(f, "tokenizer.chat_template", 7);
    tr_gguf *g = vocab_file_parse(f);
    assert_int_equal(tr_tokenizer_new(g, &t), TR_OK);
    tr_fail_capture_begin(said, sizeof said);
    assert_int_equal(tr_chat_open(g, t, NULL, &c), TR_E_FORMAT);
    tr_fail_capture_end();
    assert_non_null(strstr(said, "tokenizer.chat_template"));
    tr_tokenizer_free(&t);
    tr_gguf_close(&g);
    free(f);
}

/* ---- roles ---- */

static void check_request(const char *name, const line *lines, bool answer, const char *words)
{
    const family *f = families;
    char said[1200];
    uint32_t *ids;
    size_t n;
    opened o;

    while (strcmp(f->name, name) != 0)
        f++;
    model m = model_of(f, CONTROL);
    assert_int_equal(chat_open(&m, name, &o), TR_OK);
    tr_fail_capture_begin(said, sizeof said);
    assert_int_equal(encode(&o, lines, answer, &ids, &n), TR_E_REQUEST);
    tr_fail_capture_end();
    if (!strstr(said, words))
        fail_msg("\"%s\" has no \"%s\"", said, words);
    chat_close(&o);
}

#define LINES(...)                                                                                 \
    (const line[])                                                                                 \
    {                                                                                              \
        __VA_ARGS__,                                                                               \
        {                                                                                          \
            NULL, NULL                                                                             \
        }                                                                                          \
    }

static void conversations_that_a_family_does_not_have_are_refused(void **state)
{
    (void)state;
    check_request("chatml", with_system + 4, true, "no messages");
    check_request(
        "chatml", LINES({ "user", "a" }, { "User", "b" }), true,
        "message 2: its role \"User\" is none of system, developer, user, assistant, tool");
    check_request("chatml", LINES({ "", "a" }), true, "message 1: its role \"\"");
    check_request("chatml", LINES({ "user", "a\xff" }), true,
                  "message 1 is not valid UTF-8: byte 0xff at position 1");
    check_request("llama3", LINES({ "user", "a" }, { "tool", "b" }), true, "no place for a tool");
    check_request("mistral-v7", LINES({ "user", "a" }, { "system", "b" }), true,
                  "message 2: the chat template mistral-v7 has system messages only in front");
    check_request("gemma", LINES({ "assistant", "a" }), false, "message 1: ");
    check_request("gemma", LINES({ "user", "a" }, { "user", "b" }), true, "message 2: ");
    check_request("gemma", LINES({ "system", "a" }, { "user", "a" }, { "user", "b" }), true,
                  "message 3: the chat template gemma wants user and assistant in turns");
    check_request("gemma", LINES({ "user", "a" }, { "assistant", "b" }), true, "has no answer");
    check_request("gemma", LINES({ "system", "a" }), false, "needs a message of the user");
}

static void families_that_take_any_order_do(void **state)
{
    model m = { .marks = CHATML_MARKS, .eos = "</s>" };
    opened o;

    (void)state;
    assert_int_equal(chat_open(&m, "chatml", &o), TR_OK);
    check_prompt(&o, LINES({ "assistant", "a" }, { "assistant", "b" }, { "system", "c" }), false,
                 "<|im_start|>assistant\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                 "<|im_start|>system\nc<|im_end|>\n");
    check_prompt(&o, LINES({ "user", "" }), true,
                 "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n");
    chat_close(&o);
}

static void developer_is_another_word_for_system(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        line lines[5];
        opened o;
        model m = model_of(&families[i], CONTROL);
        memcpy(lines, with_system, sizeof lines);
        lines[0].role = "developer";
        assert_int_equal(chat_open(&m, families[i].name, &o), TR_OK);
        check_prompt(&o, lines, true, families[i].system);
        chat_close(&o);
    }
}

static void several_system_messages_in_front_become_one_where_they_are_no_turns(void **state)
{
    const line *lines = LINES({ "system", "a" }, { "developer", "b" }, { "user", "c" });
    model m = { .marks = "<start_of_turn> <end_of_turn> " USER " " ANSWER,
                .bos = "<s>",
                .eos = "</s>" };
    opened o;

    (void)state;
    assert_int_equal(chat_open(&m, "gemma", &o), TR_OK);
    check_prompt(&o, lines, false, "<s><start_of_turn>user\na\n\nb\n\nc<end_of_turn>\n");
    chat_close(&o);
    assert_int_equal(chat_open(&m, "deepseek3", &o), TR_OK);
    check_prompt(&o, lines, true, "<s>a\n\nb" USER "c" ANSWER);
    chat_close(&o);
}

static void answers_of_tools_in_a_row_share_a_turn(void **state)
{
    const line *lines = LINES({ "user", "u" }, { "tool", "1" }, { "tool", "2" }, { "user", "v" });
    model m = { .marks =
                    CHATML_MARKS " <tool_response> </tool_response> ]~!b[ ]~b] [e~[ " GLM_MARKS,
                .eos = "</s>" };
    opened o;

    (void)state;
    assert_int_equal(chat_open(&m, "chatml", &o), TR_OK);
    check_prompt(&o, lines, false,
                 "<|im_start|>user\nu<|im_end|>\n<|im_start|>user\n<tool_response>\n1\n"
                 "</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
                 "<|im_start|>user\nv<|im_end|>\n");
    chat_close(&o);
    assert_int_equal(chat_open(&m, "glm4.5", &o), TR_OK);
    check_prompt(&o, lines, false,
                 "[gMASK]<sop><|user|>\nu<|observation|>\n<tool_response>\n1\n</tool_response>\n"
                 "<tool_response>\n2\n</tool_response><|user|>\nv");
    chat_close(&o);
    assert_int_equal(chat_open(&m, "glm4", &o), TR_OK);
    check_prompt(&o, lines, false,
                 "[gMASK]<sop><|user|>\nu<|observation|>\n1<|observation|>\n2<|user|>\nv");
    chat_close(&o);
    assert_int_equal(chat_open(&m, "minimax-m2", &o), TR_OK);
    check_prompt(&o, lines, false,
                 "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nu[e~[\n]~b]tool\n"
                 "<response>1</response>\n<response>2</response>[e~[\n]~b]user\nv[e~[\n");
    chat_close(&o);
}

static void the_last_answer_of_tulu_has_no_line_end(void **state)
{
    model m = { .bos = "<s>", .eos = "</s>" };
    opened o;

    (void)state;
    assert_int_equal(chat_open(&m, "tulu", &o), TR_OK);
    check_prompt(&o, LINES({ "user", "u" }, { "assistant", "a" }), false,
                 "<s><|user|>\nu\n<|assistant|>\na</s>");
    chat_close(&o);
}

/* ---- BOS, thoughts, default system message ---- */

static void bos_stands_first_once_if_anything_asks_for_it(void **state)
{
    const line *lines = LINES({ "user", "u" });
    static const char asking[] = "{{ bos_token }}'<|im_start|>' '<|im_end|>'";
    model m = { .marks = CHATML_MARKS " <sop> <|system|> <|user|> <|assistant|> <|observation|>",
                .bos = "[gMASK]",
                .eos = "</s>",
                .template = asking + 15 };
    opened o;

    (void)state;
    assert_int_equal(chat_open(&m, NULL, &o), TR_OK);
    check_prompt(&o, lines, false, "<|im_start|>user\nu<|im_end|>\n");
    chat_close(&o);
    m.template = asking;
    assert_int_equal(chat_open(&m, NULL, &o), TR_OK);
    check_prompt(&o, lines, false, "[gMASK]<|im_start|>user\nu<|im_end|>\n");
    chat_close(&o);
    m.template = NULL;
    m.adds_bos = true;
    assert_int_equal(chat_open(&m, "chatml", &o), TR_OK);
    check_prompt(&o, lines, false, "[gMASK]<|im_start|>user\nu<|im_end|>\n");
    chat_close(&o);
    assert_int_equal(chat_open(&m, "glm4", &o), TR_OK);
    check_prompt(&o, lines, false, "[gMASK]<sop><|user|>\nu");
    chat_close(&o);
    m.bos = NULL;
    assert_int_equal(chat_open(&m, "deepseek2", &o), TR_OK);
    check_prompt(&o, lines, false, "User: u\n\n");
    chat_close(&o);
}

static void thoughts_are_left_out_of_earlier_answers(void **state)
{
    const line *lines =
        LINES({ "user", "</think>u" }, { "assistant", "<think>a</think>b</think>\n\nc" });
    model m = {
        .marks = CHATML_MARKS " " USER " " ANSWER, .bos = "<s>", .eos = "</s>", .has_no_think = true
    };
    opened o;

    (void)state;
    assert_int_equal(chat_open(&m, "chatml", &o), TR_OK);
    check_prompt(&o, lines, false,
                 "<|im_start|>user\n</think>u<|im_end|>\n<|im_start|>assistant\n"
                 "<think>a</think>b</think>\n\nc<|im_end|>\n");
    chat_close(&o);
    m.template = "'<|im_start|>' '<|im_end|>' split('</think>')";
    assert_int_equal(chat_open(&m, NULL, &o), TR_OK);
    check_prompt(&o, lines, false,
                 "<|im_start|>user\n</think>u<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n");
    chat_close(&o);
    assert_int_equal(chat_open(&m, "deepseek-r1", &o), TR_OK);
    check_prompt(&o, lines, false, "<s>" USER "</think>u" ANSWER "\n\nc</s>");
    chat_close(&o);
}

static void a_system_message_that_the_template_spells_out_is_the_default(void **state)
{
    static const struct {
        const char *template, *words;
    } cases[] = {
        { "'<|im_start|>system\\nBe kind.<|im_end|>\\n'", "Be kind." },
        { "'<|im_start|>system\nBe kind.<|im_end|>\n'", "Be kind." },
        { "'<|im_start|>system\\n' }} '<|im_start|>system\\nBe it.<|im_end|>'", "Be it." },
        { "'<|im_start|>system\\n' + m + '<|im_end|>'", NULL },
        { "<|im_start|>system\n{{ m }}<|im_end|>", NULL },
        { "<|im_start|>system\n<|im_end|>", NULL },
        { "'<|im_end|><|im_start|>system\nBe", NULL },
    };
    const line *lines = LINES({ "user", "u" });

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model m = { .marks = CHATML_MARKS, .eos = "</s>", .template = cases[i].template };
        char expected[256];
        opened o;
        assert_int_equal(chat_open(&m, NULL, &o), TR_OK);
        snprintf(expected, sizeof expected, "%s%s%s<|im_start|>user\nu<|im_end|>\n",
                 cases[i].words ? "<|im_start|>system\n" : "", cases[i].words ? cases[i].words : "",
                 cases[i].words ? "<|im_end|>\n" : "");
        check_prompt(&o, lines, false, expected);
        check_prompt(&o, LINES({ "system", "s" }), false, "<|im_start|>system\ns<|im_end|>\n");
        chat_close(&o);
    }
}

/* ---- stops ---- */

static void stops_are_what_the_vocabulary_does_not_know(void **state)
{
    model m = { .marks = "<|header_start|> <|header_end|> <|eot|> <|eom|> " CHATML_MARKS,
                .eos = "</s>" };
    tr_chat_stops stops;
    opened o;

    (void)state;
    assert_int_equal(chat_open(&m, "llama4", &o), TR_OK);
    stops = tr_chat_stops_of(o.c);
    assert_int_equal(stops.n_strings, 0);
    assert_int_equal(stops.n_ids, 2);
    assert_true(tr_bytes_equal(tr_tokenizer_piece(o.t, stops.ids[0]), tr_bytes_of("<|eot|>")));
    assert_true(tr_bytes_equal(tr_tokenizer_piece(o.t, stops.ids[1]), tr_bytes_of("<|eom|>")));
    chat_close(&o);
    /* <|im_end|> ends any text already. */
    assert_int_equal(chat_open(&m, "chatml", &o), TR_OK);
    assert_int_equal(tr_chat_stops_of(o.c).n_ids, 0);
    chat_close(&o);
    assert_int_equal(chat_open(&m, "plain", &o), TR_OK);
    stops = tr_chat_stops_of(o.c);
    assert_int_equal(stops.n_ids, 0);
    assert_int_equal(stops.n_strings, 2);
    assert_true(tr_bytes_equal(stops.strings[0], tr_bytes_of("\nUser:")));
    assert_true(tr_bytes_equal(stops.strings[1], tr_bytes_of("\nSystem:")));
    chat_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_writes_what_its_template_does),
        cmocka_unit_test(every_family_that_can_be_chosen_is_tested),
        cmocka_unit_test(ids_are_those_of_the_whole_text_for_any_words),
        cmocka_unit_test(what_people_type_is_never_a_mark),
        cmocka_unit_test(no_space_comes_where_a_typed_mark_is_cut),
        cmocka_unit_test(templates_are_recognised_by_what_they_have),
        cmocka_unit_test(a_file_without_template_is_recognised_by_tokens_of_one_family_only),
        cmocka_unit_test(the_shipped_model_gets_plain),
        cmocka_unit_test(what_is_not_known_is_refused_with_the_choices),
        cmocka_unit_test(a_template_that_is_no_string_is_refused),
        cmocka_unit_test(conversations_that_a_family_does_not_have_are_refused),
        cmocka_unit_test(families_that_take_any_order_do),
        cmocka_unit_test(developer_is_another_word_for_system),
        cmocka_unit_test(several_system_messages_in_front_become_one_where_they_are_no_turns),
        cmocka_unit_test(answers_of_tools_in_a_row_share_a_turn),
        cmocka_unit_test(the_last_answer_of_tulu_has_no_line_end),
        cmocka_unit_test(bos_stands_first_once_if_anything_asks_for_it),
        cmocka_unit_test(thoughts_are_left_out_of_earlier_answers),
        cmocka_unit_test(a_system_message_that_the_template_spells_out_is_the_default),
        cmocka_unit_test(stops_are_what_the_vocabulary_does_not_know),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
