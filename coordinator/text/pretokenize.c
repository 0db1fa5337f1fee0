/* pretokenize.c - the expressions of each family, and PCRE2 to run them.
 *
 * They are those that the tokenizers were published (and their models trained) with, except where
 * a comment says that other engines cut otherwise: ids are to be those that they give.  They are
 * written so that no input takes quadratic time or deep recursion: classes instead of look-ahead
 * inside loops.  White space is spelled out, because PCRE2's \s has U+180E, which is none since
 * Unicode 6.3.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/pretokenize.h"
#include "base/check.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>

/* White space, for use inside a class. */
#define WS          "\\t-\\r\\x{85}\\p{Z}"

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

/* White space up to the last line end, or all but the last one before a word, or all. */
#define SPACES "[" WS "]*[\\r\\n]+|[" WS "]+(?![^" WS "])|[" WS "]+"

#define GPT2                                                                                       \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|[" WS "]+(?![^" WS       \
    "])|[" WS "]+"

/* The successors of GPT-4's: words take the character before them. */
#define GPT4(digits)                                                                               \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" WS                                \
                "\\p{L}\\p{N}]+[\\r\\n]*|" SPACES

/* Words that end where lower case turns to upper case.  The published expressions have the
 * categories of case for all scripts, and marks inside words.  Other engines match on text in which
 * each letter beyond ASCII became one and the same sign, so they know case in ASCII alone and end a
 * word before a mark. */
#define UPPER "[^\\P{L}a-z]"
#define LOWER "[^\\P{L}A-Z]"
#define MIXED_CASE(suffix)                                                                         \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER  \
    "*" suffix

/* The ideographs as other engines have them; the script Han has some signs more. */
#define HAN                                                                                        \
    "\\x{3400}-\\x{4DBF}\\x{4E00}-\\x{9FFF}\\x{F900}-\\x{FAFF}\\x{20000}-\\x{2A6DF}"               \
    "\\x{2A700}-\\x{2EBEF}\\x{2F800}-\\x{2FA1F}"

#define CJK_OF_DEEPSEEK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

/* The cased letters of Unicode, without those of some scripts. */
#define LETTERS_OF_DEEPSEEK                                                                        \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"                 \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}"         \
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"                  \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"    \
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"                 \
    "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"                 \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}"         \
    "\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"        \
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}"                 \
    "\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"         \
    "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}"         \
    "\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"                   \
    "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}"                  \
    "\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}"                 \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"                 \
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}"             \
    "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"         \
    "\\x{1E900}-\\x{1E943}"

#define ASCII_PUNCTUATION "!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~"

/* Words up to the punctuation of several scripts. */
#define BLOOM " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

enum { MAX_EXPRESSIONS = 6, MAX_NAMES = 16 };

/* Flags of a family. */
enum {
    WHOLE_WORDS = 1,
    ADDS_BOS = 2,
    CUTS_THOUSANDS = 4, /* at last, digits into groups of three, counted from the right */
};

typedef struct {
    const char *names[MAX_NAMES];
    const char *expressions[MAX_EXPRESSIONS];
    unsigned flags;
} family;

static const family families[] = {
    { { "default" }, { "[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" }, 0 },
    { { "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "roberta-bpe", "exaone4",
        "granite-docling" },
      { GPT2 },
      0 },
    { { "refact", "starcoder", "command-r", "smollm", "codeshell", "exaone", "minerva-7b" },
      { "\\p{N}", GPT2 },
      0 },
    { { "falcon" }, { "[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]" }, 0 },
    { { "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2" },
      { GPT4("\\p{N}{1,3}") },
      WHOLE_WORDS | ADDS_BOS },
    { { "dbrx", "smaug-bpe", "glm4", "chatglm-bpe" }, { GPT4("\\p{N}{1,3}") }, 0 },
    { { "qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2" },
      { GPT4("\\p{N}") },
      0 },
    { { "qwen35" },
      { CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"
                    "| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES },
      0 },
    { { "bailingmoe", "bailingmoe2", "llada-moe" },
      { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
        "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|[" WS "]*[\\r\\n]|[" WS "]+(?![^" WS "])|[" WS "]+" },
      0 },
    { { "seed-coder" },
      { CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                    "| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" SPACES },
      0 },
    { { "tekken" },
      { MIXED_CASE("") "|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES },
      WHOLE_WORDS | ADDS_BOS },
    { { "gpt-4o", "llama4", "minimax-m2" },
      { MIXED_CASE(CONTRACTION "?") "|\\p{N}{1,3}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES },
      0 },
    /* Published with words that end at a change of case, marks inside words, and contractions in
     * capitals as well.  Other engines take all letters up to the next ideograph. */
    { { "kimi-k2" },
      { "[" HAN "]+|[^\\r\\n\\p{L}\\p{N}]?[^\\P{L}" HAN "]+(?:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}"
        "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" SPACES },
      0 },
    { { "deepseek-llm" },
      { "[\\r\\n]", "[" WS "]?[" LETTERS_OF_DEEPSEEK "]+",
        "[" WS "]?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}"
        "\\x{3000}-\\x{3002}]+",
        /* The look-behind changes no match, but without it every space of a long run that
         * something follows would scan to the end of the run. */
        "(?<![" WS "])[" WS "]+$", CJK_OF_DEEPSEEK, "\\p{N}+" },
      0 },
    { { "deepseek-coder" },
      { "[\\r\\n]", "[" WS "]?\\p{L}+", "[" WS "]?\\p{P}+", CJK_OF_DEEPSEEK, "\\p{N}" },
      0 },
    { { "deepseek-v3", "hunyuan-dense" },
      { "\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
        "[" ASCII_PUNCTUATION "][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES },
      0 },
    { { "bloom", "poro-chat", "gpt3-finnish" }, { BLOOM }, 0 },
    { { "viking" }, { BLOOM, "\\p{N}" }, 0 },
    { { "superbpe" }, { "\\p{N}+" }, CUTS_THOUSANDS },
};

struct tr_pretokenizer {
    const family *family;
    pcre2_code *code[MAX_EXPRESSIONS];
    size_t n;
};

struct tr_match_work {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static bool is_named(const char *name, tr_bytes wanted)
{
    return tr_bytes_equal(tr_bytes_of(name), wanted);
}

static const family *find_family(tr_bytes name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        for (size_t j = 0; j < MAX_NAMES && families[i].names[j]; j++)
            if (is_named(families[i].names[j], name))
                return &families[i];
    return NULL;
}

const char *tr_pretokenizer_name_at(size_t i)
{
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++)
        for (size_t j = 0; j < MAX_NAMES && families[f].names[j]; j++)
            if (i-- == 0)
                return families[f].names[j];
    return NULL;
}

static tr_status compile(const char *expression, pcre2_code **out)
{
    int error;
    size_t offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &offset, NULL);

    if (!code)
        return tr_fail(TR_E_SYSTEM, "pre-tokenizer: PCRE2 error %d at %zu of %s", error, offset,
                       expression);
    /* Without a just-in-time compiler for this processor the interpreter runs. */
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    *out = code;
    return TR_OK;
}

tr_status tr_pretokenizer_new(tr_bytes name, tr_pretokenizer **out)
{
    const family *f = find_family(name);

    if (!f)
        return tr_fail(TR_E_UNSUPPORTED, "pre-tokenizer \"%.*s\" (tokenizer.ggml.pre) is not known",
                       name.size < 64 ? (int)name.size : 64, (const char *)name.data);
    tr_pretokenizer *p = calloc(1, sizeof *p);
    if (!p)
        return tr_fail(TR_E_MEMORY, "pre-tokenizer: no memory");
    p->family = f;
    for (; p->n < MAX_EXPRESSIONS && f->expressions[p->n]; p->n++) {
        tr_status st = compile(f->expressions[p->n], &p->code[p->n]);
        if (st != TR_OK) {
            tr_pretokenizer_free(&p);
            return st;
        }
    }
    *out = p;
    return TR_OK;
}

void tr_pretokenizer_free(tr_pretokenizer **p)
{
    if (!*p)
        return;
    for (size_t i = 0; i < (*p)->n; i++)
        pcre2_code_free((*p)->code[i]);
    free(*p);
    *p = NULL;
}

bool tr_pretokenizer_takes_whole_words(const tr_pretokenizer *p)
{
    return p->family->flags & WHOLE_WORDS;
}

bool tr_pretokenizer_adds_bos(const tr_pretokenizer *p)
{
    return p->family->flags & ADDS_BOS;
}

tr_status tr_pieces_init(tr_pieces *pieces)
{
    tr_match_work *w = calloc(1, sizeof *w);

    if (w) {
        w->data = pcre2_match_data_create(1, NULL);
        w->context = pcre2_match_context_create(NULL);
        w->stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)1 << 20, NULL);
    }
    *pieces = (tr_pieces){ .match = w };
    if (!w || !w->data || !w->context || !w->stack) {
        tr_pieces_fini(pieces);
        return tr_fail(TR_E_MEMORY, "pre-tokenizer: no memory");
    }
    pcre2_jit_stack_assign(w->context, NULL, w->stack);
    /* No expression here backtracks more than linearly, so long words are no reason to stop. */
    pcre2_set_match_limit(w->context, UINT32_MAX);
    return TR_OK;
}

void tr_pieces_fini(tr_pieces *pieces)
{
    if (pieces->match) {
        pcre2_match_data_free(pieces->match->data);
        pcre2_match_context_free(pieces->match->context);
        pcre2_jit_stack_free(pieces->match->stack);
        free(pieces->match);
    }
    free(pieces->end);
    free(pieces->other);
    *pieces = (tr_pieces){ 0 };
}

static tr_status add(tr_pieces *pieces, size_t end)
{
    if (pieces->n == pieces->capacity) {
        size_t capacity = pieces->capacity ? 2 * pieces->capacity : 64;
        uint32_t *grown = realloc(pieces->end, capacity * sizeof *grown);
        if (!grown)
            return tr_fail(TR_E_MEMORY, "pre-tokenizer: no memory for %zu pieces", capacity);
        pieces->end = grown;
        pieces->capacity = capacity;
    }
    pieces->end[pieces->n++] = (uint32_t)end;
    return TR_OK;
}

/* Cut one piece of the text, from..to. */
static tr_status cut(const pcre2_code *code, const uint8_t *text, size_t from, size_t to,
                     tr_pieces *pieces)
{
    tr_match_work *w = pieces->match;
    const size_t *range = pcre2_get_ovector_pointer(w->data);
    size_t size = to - from, pos = 0;
    tr_status st = TR_OK;

    while (st == TR_OK && pos < size) {
        int rc = pcre2_match(code, text + from, size, pos, PCRE2_NO_UTF_CHECK, w->data, w->context);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return tr_fail(TR_E_REQUEST,
                           "the text can't be cut into words: PCRE2 error %d at byte "
                           "%zu",
                           rc, from + pos);
        TR_CHECK(range[1] > range[0]); /* no expression matches nothing */
        if (range[0] > pos)
            st = add(pieces, from + range[0]);
        if (st == TR_OK)
            st = add(pieces, from + range[1]);
        pos = range[1];
    }
    if (st == TR_OK && pos < size)
        st = add(pieces, to);
    return st;
}

/* The pieces so far become the input of the next expression. */
static size_t turn_over(tr_pieces *pieces)
{
    uint32_t *end = pieces->end;
    size_t n = pieces->n, capacity = pieces->capacity;

    pieces->end = pieces->other;
    pieces->capacity = pieces->other_capacity;
    pieces->n = 0;
    pieces->other = end;
    pieces->other_capacity = capacity;
    return n;
}

static size_t run_of_digits(const uint8_t *text, size_t from, size_t to)
{
    size_t at = from;

    while (at < to && text[at] >= '0' && text[at] <= '9')
        at++;
    return at - from;
}

/* Cut one piece where a multiple of three digits follows up to the end of their run.  As an
 * expression this would look ahead to that end from every digit. */
static tr_status cut_thousands(const uint8_t *text, size_t from, size_t to, tr_pieces *pieces)
{
    tr_status st = TR_OK;

    for (size_t at = from; st == TR_OK && at < to;) {
        size_t n = run_of_digits(text, at, to);
        for (size_t left = n - n % 3; st == TR_OK && left > 0; left -= 3)
            if (at + n - left > from)
                st = add(pieces, at + n - left);
        at += n > 0 ? n : 1;
    }
    return st == TR_OK ? add(pieces, to) : st;
}

tr_status tr_pretokenize(const tr_pretokenizer *p, tr_bytes text, tr_pieces *pieces)
{
    tr_status st = TR_OK;

    TR_CHECK(text.size < UINT32_MAX / 2);
    pieces->n = 0;
    if (text.size > 0)
        st = add(pieces, text.size);
    for (size_t i = 0; st == TR_OK && i < p->n; i++) {
        size_t n = turn_over(pieces), from = 0;
        for (size_t j = 0; st == TR_OK && j < n; j++) {
            st = cut(p->code[i], text.data, from, pieces->other[j], pieces);
            from = pieces->other[j];
        }
    }
    if (st != TR_OK || !(p->family->flags & CUTS_THOUSANDS))
        return st;
    size_t n = turn_over(pieces), from = 0;
    for (size_t j = 0; st == TR_OK && j < n; j++) {
        st = cut_thousands(text.data, from, pieces->other[j], pieces);
        from = pieces->other[j];
    }
    return st;
}
