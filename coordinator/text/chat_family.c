/* chat_family.c - the tables of families, and what their templates are recognised by.
 *
 * Every blank and line end counts: models saw exactly these in training.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/chat_family.h"

#define BOS TR_CHAT_BOS
#define EOS TR_CHAT_EOS

/* Tokens of DeepSeek, whose bars are fullwidth (U+FF5C) and whose blanks are U+2581. */
#define BAR            "\xef\xbd\x9c"
#define DS_USER        "<" BAR "User" BAR ">"
#define DS_ANSWER      "<" BAR "Assistant" BAR ">"

#define LLAMA3(role)   "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define LLAMA4(role)   "<|header_start|>" role "<|header_end|>\n\n"
#define COMMAND_R(who) "<|START_OF_TURN_TOKEN|><|" who "_TOKEN|>"
#define GRANITE(role)  "<|start_of_role|>" role "<|end_of_role|>"

static const tr_chat_family families[] = {
    {
        .name = "chatml",
        .marks = { "<|im_start|>", "<|im_end|>" },
        .system = { "<|im_start|>system\n", "<|im_end|>\n" },
        .user = { "<|im_start|>user\n", "<|im_end|>\n" },
        .assistant = { "<|im_start|>assistant\n", "<|im_end|>\n" },
        .tool = { "\n<tool_response>\n", "\n</tool_response>" },
        .tools = { "<|im_start|>user", "<|im_end|>\n" },
        .generate = "<|im_start|>assistant\n",
        .ends = { "<|im_end|>" },
        .flags = TR_CHAT_BY_TOKENS | TR_CHAT_DROP_LINES,
    },
    {
        .name = "chatml-think",
        .marks = { "<|im_start|>", "<|im_end|>" },
        .system = { "<|im_start|>system\n", "<|im_end|>\n" },
        .user = { "<|im_start|>user\n", "<|im_end|>\n" },
        .assistant = { "<|im_start|>assistant\n", "<|im_end|>\n" },
        .tool = { "\n<tool_response>\n", "\n</tool_response>" },
        .tools = { "<|im_start|>user", "<|im_end|>\n" },
        .generate = "<|im_start|>assistant\n<think>\n",
        .ends = { "<|im_end|>" },
        .flags = TR_CHAT_DROP_LINES | TR_CHAT_THINKS,
    },
    {
        .name = "llama2",
        .system = { "<<SYS>>\n", "\n<</SYS>>\n\n" },
        .user = { BOS "[INST] ", " [/INST]" },
        .assistant = { " ", " " EOS },
        .generate = "",
        .system_place = TR_CHAT_SYSTEM_IN_FIRST,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES | TR_CHAT_TRIM_USER |
                 TR_CHAT_TRIM_ASSISTANT,
    },
    {
        .name = "llama3",
        .marks = { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" },
        .system = { LLAMA3("system"), "<|eot_id|>" },
        .user = { LLAMA3("user"), "<|eot_id|>" },
        .assistant = { LLAMA3("assistant"), "<|eot_id|>" },
        .generate = LLAMA3("assistant"),
        .ends = { "<|eot_id|>", "<|eom_id|>" },
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_TRIM | TR_CHAT_BY_TOKENS,
    },
    {
        .name = "llama4",
        .marks = { "<|header_start|>", "<|header_end|>", "<|eot|>" },
        .system = { LLAMA4("system"), "<|eot|>" },
        .user = { LLAMA4("user"), "<|eot|>" },
        .assistant = { LLAMA4("assistant"), "<|eot|>" },
        .generate = LLAMA4("assistant"),
        .ends = { "<|eot|>", "<|eom|>" },
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_TRIM_SYSTEM | TR_CHAT_BY_TOKENS,
    },
    {
        /* Mixtral 8x7B as first published. */
        .name = "mistral-v0",
        .system = { "", "\n\n" },
        .user = { "[INST] ", " [/INST]" },
        .assistant = { "", EOS },
        .generate = "",
        .system_place = TR_CHAT_SYSTEM_IN_FIRST,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES,
    },
    {
        .name = "mistral-v1",
        .system = { "", "\n\n" },
        .user = { " [INST] ", " [/INST]" },
        .assistant = { " ", EOS },
        .generate = "",
        .system_place = TR_CHAT_SYSTEM_IN_FIRST,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES,
    },
    {
        .name = "mistral-v3",
        .marks = { "[INST]", "[/INST]" },
        .system = { "", "\n\n" },
        .user = { "[INST] ", "[/INST]" },
        .assistant = { " ", EOS },
        .generate = "",
        .system_place = TR_CHAT_SYSTEM_IN_LAST,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES | TR_CHAT_TRIM_ASSISTANT,
    },
    {
        .name = "mistral-v3-tekken",
        .marks = { "[INST]", "[/INST]" },
        .system = { "", "\n\n" },
        .user = { "[INST]", "[/INST]" },
        .assistant = { "", EOS },
        .generate = "",
        .system_place = TR_CHAT_SYSTEM_IN_LAST,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES,
    },
    {
        .name = "mistral-v7",
        .marks = { "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]" },
        .system = { "[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]" },
        .user = { "[INST] ", "[/INST]" },
        .assistant = { " ", EOS },
        .generate = "",
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES,
    },
    {
        .name = "mistral-v7-tekken",
        .marks = { "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]" },
        .system = { "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]" },
        .user = { "[INST]", "[/INST]" },
        .assistant = { "", EOS },
        .generate = "",
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES,
    },
    {
        .name = "deepseek2",
        .system = { "", "\n\n" },
        .user = { "User: ", "\n\n" },
        .assistant = { "Assistant: ", EOS },
        .generate = "Assistant:",
        .flags = TR_CHAT_BEGINS_WITH_BOS,
    },
    {
        .name = "deepseek3",
        .marks = { DS_USER, DS_ANSWER },
        .system = { "", "" },
        .user = { DS_USER, "" },
        .assistant = { DS_ANSWER, EOS },
        .generate = DS_ANSWER,
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BEGINS_WITH_BOS,
    },
    {
        /* Without thinking, which the published template also takes for granted. */
        .name = "deepseek3.1",
        .marks = { DS_USER, DS_ANSWER },
        .system = { "", "" },
        .user = { DS_USER, "" },
        .assistant = { DS_ANSWER "</think>", EOS },
        .generate = DS_ANSWER "</think>",
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_THINKS,
    },
    {
        .name = "deepseek-r1",
        .marks = { DS_USER, DS_ANSWER },
        .system = { "", "" },
        .user = { DS_USER, "" },
        .assistant = { DS_ANSWER, EOS },
        .generate = DS_ANSWER "<think>\n",
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_THINKS,
    },
    {
        .name = "gpt-oss",
        .marks = { "<|start|>", "<|message|>", "<|channel|>", "<|end|>" },
        .start = "<|start|>system<|message|>You are ChatGPT, a large language model trained by "
                 "OpenAI.\nKnowledge cutoff: 2024-06\n\nReasoning: medium\n\n# Valid channels: "
                 "analysis, commentary, final. Channel must be included for every message.<|end|>",
        .system = { "<|start|>developer<|message|># Instructions\n\n", "<|end|>" },
        .user = { "<|start|>user<|message|>", "<|end|>" },
        .assistant = { "<|start|>assistant<|channel|>final<|message|>", "<|end|>" },
        .generate = "<|start|>assistant<|channel|>final<|message|>",
        .ends = { "<|return|>", "<|end|>", "<|call|>" },
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BY_TOKENS,
    },
    {
        .name = "glm4",
        .marks = { "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
                   "<|observation|>" },
        .start = "[gMASK]<sop>",
        .system = { "<|system|>\n", "" },
        .user = { "<|user|>\n", "" },
        .assistant = { "<|assistant|>\n", "" },
        .tool = { "<|observation|>\n", "" },
        .tools = { "", "" },
        .generate = "<|assistant|>\n",
        .ends = { "<|user|>", "<|observation|>", "<|endoftext|>" },
    },
    {
        /* Also 4.6.  The answer's own first token is the line end. */
        .name = "glm4.5",
        .marks = { "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
                   "<|observation|>" },
        .start = "[gMASK]<sop>",
        .system = { "<|system|>\n", "" },
        .user = { "<|user|>\n", "" },
        .assistant = { "<|assistant|>\n<think></think>\n", "" },
        .tool = { "\n<tool_response>\n", "\n</tool_response>" },
        .tools = { "<|observation|>", "" },
        .generate = "<|assistant|>",
        .ends = { "<|user|>", "<|observation|>", "<|endoftext|>" },
        .flags = TR_CHAT_TRIM_ASSISTANT | TR_CHAT_THINKS,
    },
    {
        .name = "gemma",
        .marks = { "<start_of_turn>", "<end_of_turn>" },
        .system = { "", "\n\n" },
        .user = { "<start_of_turn>user\n", "<end_of_turn>\n" },
        .assistant = { "<start_of_turn>model\n", "<end_of_turn>\n" },
        .generate = "<start_of_turn>model\n",
        .ends = { "<end_of_turn>" },
        .system_place = TR_CHAT_SYSTEM_IN_FIRST,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES | TR_CHAT_TRIM_USER |
                 TR_CHAT_TRIM_ASSISTANT | TR_CHAT_BY_TOKENS,
    },
    {
        .name = "granite",
        .marks = { "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>" },
        .system = { GRANITE("system"), "<|end_of_text|>\n" },
        .user = { GRANITE("user"), "<|end_of_text|>\n" },
        .assistant = { GRANITE("assistant"), "<|end_of_text|>\n" },
        .generate = GRANITE("assistant"),
        .ends = { "<|end_of_text|>" },
        .flags = TR_CHAT_BY_TOKENS,
    },
    {
        /* Also Phi-3.5-MoE. */
        .name = "phi3",
        .marks = { "<|system|>", "<|user|>", "<|assistant|>", "<|end|>" },
        .system = { "<|system|>\n", "<|end|>\n" },
        .user = { "<|user|>\n", "<|end|>\n" },
        .assistant = { "<|assistant|>\n", "<|end|>\n" },
        .generate = "<|assistant|>\n",
        .ends = { "<|end|>", "<|endoftext|>" },
        .flags = TR_CHAT_BY_TOKENS,
    },
    {
        /* OLMoE and other models of Ai2; the marks are text. */
        .name = "tulu",
        .system = { "<|system|>\n", "\n" },
        .user = { "<|user|>\n", "\n" },
        .assistant = { "<|assistant|>\n", EOS "\n" },
        .last_assistant = EOS,
        .generate = "<|assistant|>\n",
        .flags = TR_CHAT_BEGINS_WITH_BOS,
    },
    {
        .name = "command-r",
        .marks = { "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>",
                   "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>" },
        .system = { COMMAND_R("SYSTEM"), "<|END_OF_TURN_TOKEN|>" },
        .user = { COMMAND_R("USER"), "<|END_OF_TURN_TOKEN|>" },
        .assistant = { COMMAND_R("CHATBOT"), "<|END_OF_TURN_TOKEN|>" },
        .generate = COMMAND_R("CHATBOT"),
        .ends = { "<|END_OF_TURN_TOKEN|>" },
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BEGINS_WITH_BOS | TR_CHAT_ALTERNATES | TR_CHAT_TRIM_USER |
                 TR_CHAT_TRIM_ASSISTANT | TR_CHAT_BY_TOKENS,
    },
    {
        .name = "kimi-k2",
        .marks = { "<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>",
                   "<|im_end|>" },
        .system = { "<|im_system|>system<|im_middle|>", "<|im_end|>" },
        .user = { "<|im_user|>user<|im_middle|>", "<|im_end|>" },
        .assistant = { "<|im_assistant|>assistant<|im_middle|>", "<|im_end|>" },
        .generate = "<|im_assistant|>assistant<|im_middle|>",
        .ends = { "<|im_end|>" },
    },
    {
        .name = "kimi-k2-thinking",
        .marks = { "<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>",
                   "<|im_end|>" },
        .system = { "<|im_system|>system<|im_middle|>", "<|im_end|>" },
        .user = { "<|im_user|>user<|im_middle|>", "<|im_end|>" },
        .assistant = { "<|im_assistant|>assistant<|im_middle|><think></think>", "<|im_end|>" },
        .generate = "<|im_assistant|>assistant<|im_middle|>",
        .ends = { "<|im_end|>" },
        .flags = TR_CHAT_THINKS,
    },
    {
        .name = "minimax-m2",
        .marks = { "]~!b[", "]~b]", "[e~[" },
        .start = "]~!b[",
        .default_system = "You are a helpful assistant.",
        .system = { "]~b]system\n", "[e~[\n" },
        .user = { "]~b]user\n", "[e~[\n" },
        .assistant = { "]~b]ai\n", "[e~[\n" },
        .tool = { "\n<response>", "</response>" },
        .tools = { "]~b]tool", "[e~[\n" },
        .generate = "]~b]ai\n<think>\n",
        .ends = { "[e~[" },
        .system_place = TR_CHAT_SYSTEM_FRONT,
        .flags = TR_CHAT_BY_TOKENS | TR_CHAT_DROP_LINES | TR_CHAT_THINKS,
    },
    {
        /* For models that nobody trained for chats. */
        .name = "plain",
        .system = { "System: ", "\n" },
        .user = { "User: ", "\n" },
        .assistant = { "Assistant: ", "\n" },
        .generate = "Assistant:",
        .stops = { "\nUser:", "\nSystem:" },
        .flags = TR_CHAT_TRIM,
    },
};

enum { MAX_STRINGS = 3 };

/* A template belongs to the first line whose strings it has and lacks. */
static const struct {
    const char *name, *has[MAX_STRINGS], *lacks[MAX_STRINGS];
} signs[] = {
    { "gpt-oss", { "<|start|>", "<|channel|>", "<|message|>" }, { NULL } },
    { "kimi-k2-thinking", { "<|im_middle|>", "<|im_assistant|>", "<think></think>" }, { NULL } },
    { "kimi-k2", { "<|im_middle|>", "<|im_assistant|>" }, { "<think>" } },
    { "deepseek3.1", { DS_USER, DS_ANSWER, DS_ANSWER "</think>" }, { NULL } },
    { "deepseek-r1", { DS_USER, DS_ANSWER, DS_ANSWER "<think>\n" }, { NULL } },
    { "deepseek3", { DS_USER, DS_ANSWER }, { "<think>" } },
    { "llama4", { "<|header_start|>", "<|header_end|>" }, { NULL } },
    { "llama3", { "<|start_header_id|>", "<|end_header_id|>" }, { NULL } },
    { "chatml-think", { "<|im_start|>assistant\n<think>\n", "<|im_end|>" }, { NULL } },
    { "chatml-think", { "<|im_start|>assistant\n", "<|im_end|>", "'<think>\n' }}" }, { NULL } },
    { "chatml",
      { "<|im_start|>", "<|im_end|>" },
      { "<|im_sep|>", "<end_of_utterance>", "<|im_start|>assistant\n<think>" } },
    { "glm4.5", { "[gMASK]<sop>", "\n<think></think>" }, { NULL } },
    { "glm4", { "[gMASK]<sop>" }, { "<think>" } },
    { "gemma", { "<start_of_turn>", "<end_of_turn>" }, { NULL } },
    { "granite", { "<|start_of_role|>", "<|end_of_role|>" }, { NULL } },
    { "phi3", { "<|end|>", "<|assistant|>\n" }, { NULL } },
    { "phi3", { "<|end|>", "'<|assistant|>' + '\n'" }, { NULL } },
    { "tulu",
      { "'<|user|>\n' + message['content'] + '\n'", "<|assistant|>\n", "eos_token" },
      { NULL } },
    { "command-r",
      { "<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>" },
      { "<|START_RESPONSE|>", "<|START_THINKING|>" } },
    { "minimax-m2", { "]~!b[", "]~b]", "[e~[" }, { NULL } },
    { "mistral-v7", { "[INST]", "[SYSTEM_PROMPT] " }, { NULL } },
    { "mistral-v7-tekken", { "[INST]", "[SYSTEM_PROMPT]" }, { NULL } },
    { "llama2", { "[INST]", "<<SYS>>" }, { NULL } },
    { "mistral-v1", { "' [INST] ", " [/INST]" }, { NULL } },
    { "mistral-v1", { "\" [INST] ", " [/INST]" }, { NULL } },
    { "mistral-v0", { "[INST] ", " [/INST]" }, { NULL } },
    { "mistral-v3", { "[INST] ", "[/INST]" }, { NULL } },
    { "mistral-v3-tekken", { "[INST]", "[/INST]" }, { NULL } },
    { "deepseek2", { "'Assistant: ' + message['content'] + eos_token" }, { NULL } },
};

const tr_chat_family *tr_chat_family_at(size_t i)
{
    return i < sizeof families / sizeof families[0] ? &families[i] : NULL;
}

const tr_chat_family *tr_chat_family_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

/* How many bytes of text at pos are needle; 0 if they aren't. */
static size_t match_at(tr_bytes text, size_t pos, const char *needle)
{
    size_t at = pos;

    for (; *needle; needle++) {
        size_t left = text.size - at;
        if (left >= 1 && text.data[at] == (uint8_t)*needle)
            at += 1;
        else if (*needle == '\n' && left >= 2 && text.data[at] == '\\' && text.data[at + 1] == 'n')
            at += 2;
        else
            return 0;
    }
    return at - pos;
}

bool tr_chat_template_find(tr_bytes text, const char *needle, size_t from, size_t *begin,
                           size_t *end)
{
    for (size_t pos = from; pos < text.size; pos++) {
        size_t size = match_at(text, pos, needle);
        if (size > 0) {
            *begin = pos;
            *end = pos + size;
            return true;
        }
    }
    return false;
}

static bool has(tr_bytes text, const char *string)
{
    size_t begin, end;

    return tr_chat_template_find(text, string, 0, &begin, &end);
}

const tr_chat_family *tr_chat_family_by_template(tr_bytes text)
{
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        bool fits = true;
        for (size_t j = 0; fits && j < MAX_STRINGS; j++) {
            fits = fits && (!signs[i].has[j] || has(text, signs[i].has[j]));
            fits = fits && (!signs[i].lacks[j] || !has(text, signs[i].lacks[j]));
        }
        if (fits)
            return tr_chat_family_by_name(signs[i].name);
    }
    return NULL;
}
