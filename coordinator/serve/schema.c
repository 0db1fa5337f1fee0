/* schema.c - one rule for each part of a schema; parts are compiled before what refers to them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 64,   /* of schemas within schemas */
    MAX_REFS = 256,   /* different targets of $ref */
    MAX_COUNT = 1024, /* minItems, maxLength, ... */
    MAX_DIGITS = 16,  /* before the point, and after it */
    MAX_BLANKS = 24,  /* of an indentation */
    PLACE = 200,
};

typedef struct {
    tr_grammar *g;
    json_t *root;
    int depth;
    struct {
        const json_t *target;
        uint32_t rule;
    } refs[MAX_REFS];
    size_t n_refs;
    /* rules that every schema may need; made once */
    uint32_t blank, string, character, integer, number, boolean, null, value, object, array;
} compiler;

/* Where in the schema, for error lines. */
typedef struct {
    char text[PLACE];
} place;

static place inside(const place *p, const char *name)
{
    place q;

    snprintf(q.text, sizeof q.text, "%.150s/%.40s", p->text, name);
    return q;
}

/* ---- rules of a sequence of references ----------------------------------------------------------
 */

static void alternative(tr_grammar *g, uint32_t rule, const uint32_t *parts, size_t n)
{
    tr_grammar_begin(g, rule);
    for (size_t i = 0; i < n; i++)
        tr_grammar_ref(g, parts[i]);
    tr_grammar_end(g);
}

static uint32_t text_rule(tr_grammar *g, const char *text)
{
    uint32_t rule = tr_grammar_rule(g);

    tr_grammar_begin(g, rule);
    tr_grammar_text(g, tr_bytes_of(text));
    tr_grammar_end(g);
    return rule;
}

static uint32_t range_rule(tr_grammar *g, uint8_t low, uint8_t high)
{
    uint32_t rule = tr_grammar_rule(g);

    tr_grammar_begin(g, rule);
    tr_grammar_range(g, low, high);
    tr_grammar_end(g);
    return rule;
}

/* least..most of a part, most SIZE_MAX: any number.  Each rule is one more than the next: what is
 * left is a tail, so a long repetition is no deep stack. */
static uint32_t repeat_rule(tr_grammar *g, uint32_t part, size_t least, size_t most)
{
    uint32_t rest = tr_grammar_rule(g);

    alternative(g, rest, NULL, 0);
    if (most == SIZE_MAX)
        alternative(g, rest, (uint32_t[]){ part, rest }, 2);
    for (size_t i = most == SIZE_MAX ? least : most; i > 0; i--) {
        uint32_t more = tr_grammar_rule(g);
        if (i > least)
            alternative(g, more, NULL, 0);
        alternative(g, more, (uint32_t[]){ part, rest }, 2);
        rest = more;
    }
    return rest;
}

/* ---- what every schema may need
 * ------------------------------------------------------------------- */

/* A character of a string: none that JSON wants escaped, whole UTF-8 (RFC 3629), or an escape. */
static uint32_t character_rule(tr_grammar *g)
{
    static const uint8_t heads[][6] = {
        /* first byte from, to; second from, to; how many more of 80..bf */
        { 0xc2, 0xdf, 0x80, 0xbf, 0 }, { 0xe0, 0xe0, 0xa0, 0xbf, 1 }, { 0xe1, 0xec, 0x80, 0xbf, 1 },
        { 0xed, 0xed, 0x80, 0x9f, 1 }, { 0xee, 0xef, 0x80, 0xbf, 1 }, { 0xf0, 0xf0, 0x90, 0xbf, 2 },
        { 0xf1, 0xf3, 0x80, 0xbf, 2 }, { 0xf4, 0xf4, 0x80, 0x8f, 2 },
    };
    uint32_t rule = tr_grammar_rule(g);
    uint32_t plain[8] = { 0 };
    uint32_t escapes[8] = { 0 };

    for (unsigned b = 0x20; b < 0x7f; b++)
        if (b != '"' && b != '\\')
            plain[b / 32] |= 1u << b % 32;
    for (const char *c = "\"\\/bfnrt"; *c; c++)
        escapes[(unsigned char)*c / 32] |= 1u << (unsigned char)*c % 32;
    tr_grammar_begin(g, rule);
    tr_grammar_set(g, plain);
    tr_grammar_end(g);
    tr_grammar_begin(g, rule);
    tr_grammar_range(g, '\\', '\\');
    tr_grammar_set(g, escapes);
    tr_grammar_end(g);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        tr_grammar_begin(g, rule);
        tr_grammar_range(g, heads[i][0], heads[i][1]);
        tr_grammar_range(g, heads[i][2], heads[i][3]);
        for (size_t k = 0; k < heads[i][4]; k++)
            tr_grammar_range(g, 0x80, 0xbf);
        tr_grammar_end(g);
    }
    return rule;
}

static uint32_t string_rule(compiler *c, size_t least, size_t most)
{
    uint32_t quote = text_rule(c->g, "\"");
    uint32_t body = repeat_rule(c->g, c->character, least, most);
    uint32_t rule = tr_grammar_rule(c->g);

    alternative(c->g, rule, (uint32_t[]){ quote, body, quote }, 3);
    return rule;
}

static void number_rules(compiler *c)
{
    tr_grammar *g = c->g;
    uint32_t digit = range_rule(g, '0', '9');
    uint32_t nonzero = range_rule(g, '1', '9');
    uint32_t zero = text_rule(g, "0");
    uint32_t more = repeat_rule(g, digit, 0, MAX_DIGITS - 1);
    uint32_t some = repeat_rule(g, digit, 1, MAX_DIGITS);
    uint32_t natural = tr_grammar_rule(g), sign = tr_grammar_rule(g);
    uint32_t fraction = tr_grammar_rule(g), exponent = tr_grammar_rule(g);
    uint32_t e = tr_grammar_rule(g), power = repeat_rule(g, digit, 1, 2);

    alternative(g, natural, &zero, 1);
    alternative(g, natural, (uint32_t[]){ nonzero, more }, 2);
    alternative(g, sign, NULL, 0);
    alternative(g, sign, (uint32_t[]){ text_rule(g, "-") }, 1);
    alternative(g, fraction, NULL, 0);
    alternative(g, fraction, (uint32_t[]){ text_rule(g, "."), some }, 2);
    alternative(g, e, (uint32_t[]){ text_rule(g, "e") }, 1);
    alternative(g, e, (uint32_t[]){ text_rule(g, "E") }, 1);
    uint32_t plus = text_rule(g, "+"), minus = text_rule(g, "-");
    alternative(g, exponent, NULL, 0);
    alternative(g, exponent, (uint32_t[]){ e, power }, 2);
    alternative(g, exponent, (uint32_t[]){ e, plus, power }, 3);
    alternative(g, exponent, (uint32_t[]){ e, minus, power }, 3);
    c->integer = tr_grammar_rule(g);
    alternative(g, c->integer, (uint32_t[]){ sign, natural }, 2);
    c->number = tr_grammar_rule(g);
    alternative(g, c->number, (uint32_t[]){ sign, natural, fraction, exponent }, 4);
}

/* Nothing, one blank, or a new line with its indentation: a model can't write blanks for ever. */
static uint32_t blank_rule(tr_grammar *g)
{
    uint32_t rule = tr_grammar_rule(g);
    uint32_t indent = repeat_rule(g, range_rule(g, ' ', ' '), 0, MAX_BLANKS);

    alternative(g, rule, NULL, 0);
    alternative(g, rule, (uint32_t[]){ text_rule(g, " ") }, 1);
    alternative(g, rule, (uint32_t[]){ text_rule(g, "\n"), indent }, 2);
    return rule;
}

/* open, nothing or parts with commas between, close. */
static uint32_t list_rule(compiler *c, const char *open, uint32_t part, const char *close,
                          size_t least, size_t most)
{
    tr_grammar *g = c->g;
    uint32_t comma = text_rule(g, ","), begin = text_rule(g, open), end = text_rule(g, close);
    uint32_t next = tr_grammar_rule(g), rule = tr_grammar_rule(g);

    alternative(g, next, (uint32_t[]){ c->blank, comma, c->blank, part }, 4);
    if (least == 0)
        alternative(g, rule, (uint32_t[]){ begin, c->blank, end }, 3);
    if (most > 0) {
        uint32_t rest =
            repeat_rule(g, next, least > 0 ? least - 1 : 0, most == SIZE_MAX ? SIZE_MAX : most - 1);
        alternative(g, rule, (uint32_t[]){ begin, c->blank, part, rest, c->blank, end }, 6);
    }
    return rule;
}

/* name : value */
static uint32_t pair_rule(compiler *c, uint32_t name, uint32_t value)
{
    uint32_t rule = tr_grammar_rule(c->g);

    alternative(c->g, rule, (uint32_t[]){ name, c->blank, text_rule(c->g, ":"), c->blank, value },
                5);
    return rule;
}

static void common_rules(compiler *c)
{
    tr_grammar *g = c->g;

    c->blank = blank_rule(g);
    c->character = character_rule(g);
    c->string = string_rule(c, 0, SIZE_MAX);
    number_rules(c);
    c->null = text_rule(g, "null");
    c->boolean = tr_grammar_rule(g);
    alternative(g, c->boolean, (uint32_t[]){ text_rule(g, "true") }, 1);
    alternative(g, c->boolean, (uint32_t[]){ text_rule(g, "false") }, 1);
    c->value = tr_grammar_rule(g);
    c->object = list_rule(c, "{", pair_rule(c, c->string, c->value), "}", 0, SIZE_MAX);
    c->array = list_rule(c, "[", c->value, "]", 0, SIZE_MAX);
    const uint32_t all[] = { c->string, c->number, c->object, c->array, c->boolean, c->null };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        alternative(g, c->value, &all[i], 1);
}

/* ---- a schema -----------------------------------------------------------------------------------
 */

static tr_status compile(compiler *c, const json_t *s, const place *at, uint32_t *out);

static tr_status refuse_members(const json_t *s, const place *at)
{
    static const char *const known[] = {
        "type",        "properties", "required",    "additionalProperties",
        "items",       "minItems",   "maxItems",    "minLength",
        "maxLength",   "enum",       "const",       "anyOf",
        "oneOf",       "allOf",      "$ref",        "$defs",
        "definitions", "title",      "description", "default",
        "examples",    "$schema",    "$id",         "$comment",
        "format",      "deprecated", "readOnly",    "writeOnly",
        "strict",
    };
    const char *name;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)s, name, v)
    {
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && strcmp(name, known[i]) != 0)
            i++;
        if (i == sizeof known / sizeof known[0])
            return tr_fail(TR_E_REQUEST, "schema %s: %.60s is not served here", at->text, name);
    }
    return TR_OK;
}

static tr_status get_count(const json_t *s, const char *name, const place *at, size_t *out)
{
    const json_t *v = json_object_get(s, name);

    if (!v)
        return TR_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > MAX_COUNT)
        return tr_fail(TR_E_REQUEST, "schema %s/%s: must be a whole number up to %d", at->text,
                       name, MAX_COUNT);
    *out = (size_t)json_integer_value(v);
    return TR_OK;
}

/* least and most of which both may be absent. */
static tr_status get_counts(const json_t *s, const char *low, const char *high, const place *at,
                            size_t *least, size_t *most)
{
    tr_status st = get_count(s, low, at, least);

    if (st == TR_OK)
        st = get_count(s, high, at, most);
    if (st == TR_OK && *least > *most)
        st = tr_fail(TR_E_REQUEST, "schema %s: %s is more than %s", at->text, low, high);
    return st;
}

static tr_status compile_string(compiler *c, const json_t *s, const place *at, uint32_t *out)
{
    size_t least = 0, most = SIZE_MAX;
    tr_status st = get_counts(s, "minLength", "maxLength", at, &least, &most);

    if (st == TR_OK)
        *out = least == 0 && most == SIZE_MAX ? c->string : string_rule(c, least, most);
    return st;
}

static tr_status compile_array(compiler *c, const json_t *s, const place *at, uint32_t *out)
{
    const json_t *items = json_object_get(s, "items");
    size_t least = 0, most = SIZE_MAX;
    uint32_t item = c->value;
    place below = inside(at, "items");

    tr_status st = get_counts(s, "minItems", "maxItems", at, &least, &most);
    if (st == TR_OK && json_is_false(items))
        most = 0;
    else if (st == TR_OK && items)
        st = compile(c, items, &below, &item);
    if (st == TR_OK && least > most)
        st = tr_fail(TR_E_REQUEST, "schema %s: no list can have %zu items", at->text, least);
    if (st == TR_OK)
        *out = list_rule(c, "[", item, "]", least, most);
    return st;
}

static bool is_required(const json_t *s, const char *name)
{
    const json_t *list = json_object_get(s, "required");
    size_t i;
    json_t *v;

    json_array_foreach(list, i, v) if (json_is_string(v) &&
                                       strcmp(json_string_value(v), name) == 0) return true;
    return false;
}

static uint32_t literal_rule(compiler *c, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    uint32_t rule = text_rule(c->g, text ? text : "null");

    free(text);
    return rule;
}

/* Properties in order, from the last to the first: rest[0] is what may follow when none has come
 * yet, rest[1] when one has, and a comma is needed. */
static tr_status compile_properties(compiler *c, const json_t *s, const place *at,
                                    const json_t *properties, uint32_t *out)
{
    size_t n = json_object_size(properties), i = 0;
    uint32_t *pair = calloc(n + 1, sizeof *pair);
    bool *required = calloc(n + 1, sizeof *required);
    tr_status st = pair && required ? TR_OK : tr_fail(TR_E_MEMORY, "schema: no memory");
    place here = inside(at, "properties");
    const char *name;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)properties, name, v)
    {
        uint32_t value = 0;
        place below = inside(&here, name);
        json_t *key = json_string(name);
        if (st == TR_OK)
            st = compile(c, v, &below, &value);
        if (st == TR_OK) {
            pair[i] = pair_rule(c, literal_rule(c, key), value);
            required[i++] = is_required(s, name);
        }
        json_decref(key);
    }
    uint32_t end = tr_grammar_rule(c->g), comma = text_rule(c->g, ",");
    alternative(c->g, end, (uint32_t[]){ c->blank, text_rule(c->g, "}") }, 2);
    uint32_t rest[2] = { end, end };
    while (st == TR_OK && i-- > 0) {
        uint32_t first = tr_grammar_rule(c->g), later = tr_grammar_rule(c->g);
        alternative(c->g, first, (uint32_t[]){ c->blank, pair[i], rest[1] }, 3);
        alternative(c->g, later, (uint32_t[]){ c->blank, comma, c->blank, pair[i], rest[1] }, 5);
        if (!required[i]) {
            alternative(c->g, first, &rest[0], 1);
            alternative(c->g, later, &rest[1], 1);
        }
        rest[0] = first;
        rest[1] = later;
    }
    *out = tr_grammar_rule(c->g);
    alternative(c->g, *out, (uint32_t[]){ text_rule(c->g, "{"), rest[0] }, 2);
    free(pair);
    free(required);
    return st;
}

static tr_status compile_object(compiler *c, const json_t *s, const place *at, uint32_t *out)
{
    const json_t *properties = json_object_get(s, "properties");
    const json_t *others = json_object_get(s, "additionalProperties");
    const json_t *required = json_object_get(s, "required");
    place below = inside(at, "additionalProperties");
    uint32_t value = c->value;
    size_t i;
    json_t *v;

    if (properties && !json_is_object(properties))
        return tr_fail(TR_E_REQUEST, "schema %s/properties: must be an object", at->text);
    json_array_foreach(required, i, v)
    {
        const char *name = json_string_value(v);
        if (!name || !json_object_get(properties, name))
            return tr_fail(TR_E_REQUEST, "schema %s/required: names no property of it", at->text);
    }
    if (json_object_size(properties) > 0)
        return compile_properties(c, s, at, properties, out);
    tr_status st = json_is_object(others) ? compile(c, others, &below, &value) : TR_OK;
    if (st == TR_OK)
        *out = list_rule(c, "{", pair_rule(c, c->string, value), "}", 0,
                         json_is_false(others) ? 0 : SIZE_MAX);
    return st;
}

static tr_status compile_type(compiler *c, const json_t *s, const char *type, const place *at,
                              uint32_t *out)
{
    if (strcmp(type, "object") == 0)
        return compile_object(c, s, at, out);
    if (strcmp(type, "array") == 0)
        return compile_array(c, s, at, out);
    if (strcmp(type, "string") == 0)
        return compile_string(c, s, at, out);
    *out = strcmp(type, "integer") == 0   ? c->integer
           : strcmp(type, "number") == 0  ? c->number
           : strcmp(type, "boolean") == 0 ? c->boolean
                                          : c->null;
    if (*out == c->null && strcmp(type, "null") != 0)
        return tr_fail(TR_E_REQUEST, "schema %s/type: \"%.40s\" is no type", at->text, type);
    return TR_OK;
}

/* Any one of a list of schemas. */
static tr_status compile_any(compiler *c, const json_t *list, const place *at, uint32_t *out)
{
    size_t i;
    json_t *v;

    if (!json_is_array(list) || json_array_size(list) == 0)
        return tr_fail(TR_E_REQUEST, "schema %s: must be a list of schemas", at->text);
    *out = tr_grammar_rule(c->g);
    json_array_foreach(list, i, v)
    {
        uint32_t one = 0;
        tr_status st = compile(c, v, at, &one);
        if (st != TR_OK)
            return st;
        alternative(c->g, *out, &one, 1);
    }
    return TR_OK;
}

static tr_status compile_types(compiler *c, const json_t *s, const json_t *types, const place *at,
                               uint32_t *out)
{
    size_t i;
    json_t *v;

    if (json_is_string(types))
        return compile_type(c, s, json_string_value(types), at, out);
    if (!json_is_array(types) || json_array_size(types) == 0)
        return tr_fail(TR_E_REQUEST, "schema %s/type: must be a type or a list of types", at->text);
    *out = tr_grammar_rule(c->g);
    json_array_foreach(types, i, v)
    {
        uint32_t one = 0;
        tr_status st = compile_type(c, s, json_is_string(v) ? json_string_value(v) : "", at, &one);
        if (st != TR_OK)
            return st;
        alternative(c->g, *out, &one, 1);
    }
    return TR_OK;
}

/* "#/a/b" within the whole schema; a target that is being compiled is its rule already. */
static tr_status compile_ref(compiler *c, const char *ref, const place *at, uint32_t *out)
{
    const json_t *target = c->root;
    char name[PLACE];
    place there;

    if (ref[0] != '#' || (ref[1] != '\0' && ref[1] != '/'))
        return tr_fail(TR_E_REQUEST, "schema %s/$ref: \"%.80s\" is not within this schema",
                       at->text, ref);
    for (const char *p = ref + 1; *p == '/';) {
        size_t n = strcspn(++p, "/");
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        target = json_object_get(target, name);
        p += n;
    }
    if (!target)
        return tr_fail(TR_E_REQUEST, "schema %s/$ref: there is no %.80s", at->text, ref);
    for (size_t i = 0; i < c->n_refs; i++) {
        if (c->refs[i].target == target) {
            *out = c->refs[i].rule;
            return TR_OK;
        }
    }
    if (c->n_refs == MAX_REFS)
        return tr_fail(TR_E_REQUEST, "schema %s/$ref: more than %d are too many", at->text,
                       MAX_REFS);
    *out = tr_grammar_rule(c->g);
    c->refs[c->n_refs].target = target;
    c->refs[c->n_refs++].rule = *out;
    snprintf(there.text, sizeof there.text, "%.150s", ref);
    uint32_t rule = 0;
    tr_status st = compile(c, target, &there, &rule);
    if (st == TR_OK)
        alternative(c->g, *out, &rule, 1);
    return st;
}

static tr_status compile_enum(compiler *c, const json_t *list, const place *at, uint32_t *out)
{
    size_t i;
    json_t *v;

    if (!json_is_array(list) || json_array_size(list) == 0)
        return tr_fail(TR_E_REQUEST, "schema %s/enum: must be a list of values", at->text);
    *out = tr_grammar_rule(c->g);
    json_array_foreach(list, i, v)
    {
        uint32_t one = literal_rule(c, v);
        alternative(c->g, *out, &one, 1);
    }
    return TR_OK;
}

/* The type of a value, as schemas call it; an integer is a number too. */
static bool is_of_type(const json_t *v, const char *type)
{
    static const struct {
        const char *name;
        json_type is, or_is;
    } types[] = {
        { "null", JSON_NULL, JSON_NULL },       { "boolean", JSON_TRUE, JSON_FALSE },
        { "string", JSON_STRING, JSON_STRING }, { "number", JSON_REAL, JSON_INTEGER },
        { "array", JSON_ARRAY, JSON_ARRAY },    { "integer", JSON_INTEGER, JSON_INTEGER },
        { "object", JSON_OBJECT, JSON_OBJECT },
    };

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i].name) == 0)
            return json_typeof(v) == types[i].is || json_typeof(v) == types[i].or_is;
    return false;
}

/* Beside values that are listed a type may stand if all of them are of it. */
static tr_status check_values(const json_t *values, const json_t *type, const char *found,
                              const place *at)
{
    size_t i;
    json_t *v;

    json_array_foreach(values, i, v)
    {
        if (!json_is_string(type) || !is_of_type(v, json_string_value(type)))
            return tr_fail(TR_E_REQUEST,
                           "schema %s: %s has a value that is not of the type beside it: leave one "
                           "of them out",
                           at->text, found);
    }
    return TR_OK;
}

/* A member that alone decides which values there are has no other beside it that narrows them:
 * both would have to be met.  A type may stand beside listed values, if it says nothing new. */
static tr_status refuse_siblings(const json_t *s, const char *found, const place *at)
{
    static const char *const narrowing[] = { "properties", "required",  "additionalProperties",
                                             "items",      "minItems",  "maxItems",
                                             "minLength",  "maxLength", "type" };
    const json_t *type = json_object_get(s, "type");
    const json_t *value = json_object_get(s, found);
    bool is_list = strcmp(found, "enum") == 0;

    for (size_t i = 0; i < sizeof narrowing / sizeof narrowing[0]; i++) {
        if (!json_object_get(s, narrowing[i]))
            continue;
        if (strcmp(narrowing[i], "type") != 0 || (!is_list && strcmp(found, "const") != 0))
            return tr_fail(TR_E_REQUEST, "schema %s: %s and %s together are not served here",
                           at->text, found, narrowing[i]);
    }
    if (!type || (is_list && !json_is_array(value)))
        return TR_OK;
    if (is_list)
        return check_values(value, type, found, at);
    json_t *one = json_pack("[O]", value);
    tr_status st =
        one ? check_values(one, type, found, at) : tr_fail(TR_E_MEMORY, "schema: no memory");
    json_decref(one);
    return st;
}

/* Without a type, members that say something of one type mean that type: what the grammar has is
 * then less than the schema allows, never more. */
static tr_status infer_type(const json_t *s, const place *at, const char **out)
{
    static const char *const of[][2] = {
        { "properties", "object" }, { "required", "object" },  { "additionalProperties", "object" },
        { "items", "array" },       { "minItems", "array" },   { "maxItems", "array" },
        { "minLength", "string" },  { "maxLength", "string" },
    };

    *out = NULL;
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        if (!json_object_get(s, of[i][0]))
            continue;
        if (*out && strcmp(*out, of[i][1]) != 0)
            return tr_fail(TR_E_REQUEST,
                           "schema %s: %s is of another type than what stands beside "
                           "it: give a type",
                           at->text, of[i][0]);
        *out = of[i][1];
    }
    return TR_OK;
}

/* Members that say which values there are; each alone decides, and two of them would have to be met
 * together. */
static tr_status compile_kind(compiler *c, const json_t *s, const place *at, uint32_t *out)
{
    static const char *const names[] = { "$ref", "const", "enum", "anyOf", "oneOf", "allOf" };
    const char *found = NULL;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!json_object_get(s, names[i]))
            continue;
        if (found)
            return tr_fail(TR_E_REQUEST, "schema %s: %s and %s together are not served here",
                           at->text, found, names[i]);
        found = names[i];
    }
    const json_t *v = found ? json_object_get(s, found) : NULL;
    const json_t *types = json_object_get(s, "type");
    const char *type = NULL;
    tr_status st = v ? refuse_siblings(s, found, at) : infer_type(s, at, &type);
    if (st != TR_OK)
        return st;
    if (!v && types)
        return compile_types(c, s, types, at, out);
    if (!v && type)
        return compile_type(c, s, type, at, out);
    if (!v) {
        *out = c->value;
        return TR_OK;
    }
    place below = inside(at, found);
    if (strcmp(found, "$ref") == 0)
        return compile_ref(c, json_is_string(v) ? json_string_value(v) : "", at, out);
    if (strcmp(found, "enum") == 0)
        return compile_enum(c, v, at, out);
    if (strcmp(found, "allOf") == 0 && json_array_size(v) != 1)
        return tr_fail(TR_E_REQUEST, "schema %s: only one schema is served here", below.text);
    if (strcmp(found, "const") != 0)
        return compile_any(c, v, &below, out);
    *out = literal_rule(c, v);
    return TR_OK;
}

static tr_status compile(compiler *c, const json_t *s, const place *at, uint32_t *out)
{
    if (json_is_true(s)) {
        *out = c->value;
        return TR_OK;
    }
    if (!json_is_object(s))
        return tr_fail(TR_E_REQUEST, "schema %s: must be an object", at->text);
    if (c->depth == MAX_DEPTH)
        return tr_fail(TR_E_REQUEST, "schema %s: more than %d levels deep", at->text, MAX_DEPTH);
    c->depth++;
    tr_status st = refuse_members(s, at);
    if (st == TR_OK)
        st = compile_kind(c, s, at, out);
    c->depth--;
    return st;
}

tr_status tr_schema_compile(json_t *schema, tr_grammar **out)
{
    compiler c = { .g = tr_grammar_new(), .root = schema };
    place top = { "#" };
    uint32_t root = 0;
    tr_status st = TR_OK;

    common_rules(&c);
    if (schema)
        st = compile(&c, schema, &top, &root);
    else
        root = c.object;
    if (st == TR_OK)
        st = tr_grammar_close(c.g, root);
    if (st != TR_OK) {
        tr_grammar_free(&c.g);
        return st;
    }
    *out = c.g;
    return TR_OK;
}
