/* pre_name.c - the published expressions, and the names of those that cut alike.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/convert/pre_name.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_STEPS = 8 };

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES      "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT4(digits)                                                                               \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define MIXED_CASE(suffix)                                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER  \
    "*" suffix

/* U+4E00-U+9FA5 U+3040-U+309F U+30A0-U+30FF, as deepseek-v3 has them */
#define CJK_OF_V3 "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"

/* A step is an expression, or one of these. */
static const char gpt2[] = "ByteLevel"; /* cuts by GPT-2's expression */
static const char each_digit[] = "Digits:each";
static const char digits[] = "Digits:runs";

/* What ends in a star is followed by anything; no whole expression here ends so. */
static const struct {
    const char *name;
    const char *step[MAX_STEPS];
    int merges; /* 1: ignore_merges must be set, 0: must not, -1: either */
} known[] = {
    { "qwen2", { GPT4("\\p{N}") }, -1 },
    { "llama-bpe", { GPT4("\\p{N}{1,3}") }, 1 },
    { "glm4", { GPT4("\\p{N}{1,3}") }, 0 },
    { "gpt-4o",
      { MIXED_CASE(CONTRACTION "?") "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES },
      -1 },
    { "tekken", { MIXED_CASE("") "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES }, -1 },
    { "gpt-2", { gpt2 }, -1 },
    { "refact", { each_digit, gpt2 }, -1 },
    { "deepseek-v3",
      { "\\p{N}{1,3}", CJK_OF_V3,
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
        "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES },
      -1 },
    /* The classes are long lists of letters, punctuation and ideographs. */
    { "deepseek-llm",
      { "[\\r\\n]", "\\s?[A-Za-z\xc2\xb5\xc3\x80-\xc3\x96*", "\\s?[!-/:-~*", "\\s+$",
        "[\xe4\xb8\x80-\xe9\xbe\xa5*", each_digit },
      -1 },
    { "deepseek-coder",
      { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\xe4\xb8\x80-\xe9\xbe\xa5*", each_digit },
      -1 },
};

/* ---- the steps of a file -------------------------------------------------------------------- */

typedef struct {
    const tr_json_file *f;
    char *step[MAX_STEPS];
    size_t n;
} steps;

/* Some files have line ends in their expressions, some the escapes for them. */
static char *with_escapes(const char *text)
{
    char *out = malloc(2 * strlen(text) + 1);
    char *at = out;

    for (; out && *text; text++) {
        if (*text == '\r' || *text == '\n') {
            *at++ = '\\';
            *at++ = *text == '\r' ? 'r' : 'n';
        } else {
            *at++ = *text;
        }
    }
    if (out)
        *at = '\0';
    return out;
}

static tr_status add(steps *s, const char *text)
{
    if (s->n == MAX_STEPS)
        return tr_fail(TR_E_UNSUPPORTED, "%s: \"pre_tokenizer\" has more than %d steps", s->f->path,
                       MAX_STEPS);
    s->step[s->n] = with_escapes(text);
    if (!s->step[s->n])
        return tr_fail(TR_E_MEMORY, "%s: no memory", s->f->path);
    s->n++;
    return TR_OK;
}

static bool is_set(const json_t *o, const char *name, bool absent)
{
    const json_t *v = tr_json_member(o, name);

    return v ? json_is_true(v) : absent;
}

static tr_status add_step(steps *s, const json_t *step)
{
    const json_t *type = tr_json_member(step, "type");
    const char *expression =
        json_string_value(tr_json_member(tr_json_member(step, "pattern"), "Regex"));

    if (tr_json_is_text(type, "ByteLevel")) {
        if (is_set(step, "add_prefix_space", true))
            return tr_fail(TR_E_UNSUPPORTED,
                           "%s: a pre_tokenizer that puts a space in front is not supported",
                           s->f->path);
        return is_set(step, "use_regex", true) ? add(s, gpt2) : TR_OK;
    }
    if (tr_json_is_text(type, "Digits"))
        return add(s, is_set(step, "individual_digits", false) ? each_digit : digits);
    if (tr_json_is_text(type, "Split") && expression &&
        tr_json_is_text(tr_json_member(step, "behavior"), "Isolated") &&
        !is_set(step, "invert", false))
        return add(s, expression);
    return tr_fail(TR_E_UNSUPPORTED, "%s: pre_tokenizer of type \"%.40s\" is not supported%s",
                   s->f->path, json_is_string(type) ? json_string_value(type) : "?",
                   tr_json_is_text(type, "Split") ? " in this form" : "");
}

static tr_status read_steps(steps *s)
{
    const json_t *pre = tr_json_member(s->f->root, "pre_tokenizer");
    tr_status st = TR_OK;
    size_t i;
    json_t *step;

    if (!tr_json_is_text(tr_json_member(pre, "type"), "Sequence"))
        return add_step(s, pre);
    json_array_foreach(tr_json_member(pre, "pretokenizers"), i, step)
    {
        if (st == TR_OK)
            st = add_step(s, step);
    }
    return st;
}

/* ---- against the known ones ----------------------------------------------------------------- */

static bool is_step(const char *wanted, const char *text)
{
    size_t n = strlen(wanted);

    if (wanted[n - 1] == '*')
        return strncmp(wanted, text, n - 1) == 0;
    return strcmp(wanted, text) == 0;
}

static bool is_known(size_t k, const steps *s, bool ignores_merges)
{
    if (known[k].merges >= 0 && known[k].merges != ignores_merges)
        return false;
    for (size_t i = 0; i < s->n; i++)
        if (!known[k].step[i] || !is_step(known[k].step[i], s->step[i]))
            return false;
    return s->n == MAX_STEPS || !known[k].step[s->n];
}

tr_status tr_pre_name_find(const tr_json_file *f, const char **name)
{
    steps s = { .f = f };
    bool ignores_merges = is_set(tr_json_member(f->root, "model"), "ignore_merges", false);
    const char *found = NULL;

    tr_status st = read_steps(&s);
    for (size_t k = 0; k < sizeof known / sizeof known[0] && st == TR_OK && !found; k++)
        if (s.n > 0 && is_known(k, &s, ignores_merges))
            found = known[k].name;
    if (st == TR_OK && !found)
        st = tr_fail(TR_E_UNSUPPORTED,
                     "%s: cuts text into words in a way that is not known (\"%.100s\"%s): give "
                     "--pre NAME if you know which of the known ones cuts alike",
                     f->path, s.n > 0 ? s.step[0] : "not at all", s.n > 1 ? " ..." : "");
    for (size_t i = 0; i < s.n; i++)
        free(s.step[i]);
    if (st == TR_OK)
        *name = found;
    return st;
}

const char *tr_pre_name_at(size_t i)
{
    return i < sizeof known / sizeof known[0] ? known[i].name : NULL;
}
