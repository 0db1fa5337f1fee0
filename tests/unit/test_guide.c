/* test_guide.c - a guide allows exactly the tokens whose bytes can follow, whatever the grammar,
 * and every text that it lets through is of its schema. SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "coordinator/serve/schema.h"
#include "coordinator/text/guide.h"

#include <math.h>

static tr_gguf *gguf;
static tr_tokenizer *tokenizer;
static tr_guide_vocab *vocab;
static size_t n_vocab;

static int open_model(void **state)
{
    (void)state;
    if (tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &gguf) != TR_OK ||
        tr_tokenizer_new(gguf, &tokenizer) != TR_OK ||
        tr_guide_vocab_new(tokenizer, &vocab) != TR_OK)
        return -1;
    n_vocab = tr_tokenizer_n_vocab(tokenizer);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tr_guide_vocab_free(&vocab);
    tr_tokenizer_free(&tokenizer);
    tr_gguf_close(&gguf);
    return 0;
}

static const char *const schemas[] = {
    NULL,
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":\"number\"}},"
    "\"required\":[\"b\"]}",
    "{\"type\":\"array\",\"items\":{\"type\":[\"integer\",\"null\"]},\"minItems\":2,\"maxItems\":"
    "4}",
    "{\"enum\":[\"the king\",\"the queen\",7,null,{\"a\":[1]}]}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":9}",
    "{\"anyOf\":[{\"type\":\"boolean\"},{\"$ref\":\"#/$defs/"
    "n\"}],\"$defs\":{\"n\":{\"type\":\"object\","
    "\"properties\":{\"next\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/n\"}]}}}}}",
    "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
    "true",
};

enum { N_SCHEMAS = sizeof schemas / sizeof schemas[0], STEPS = 60 };

static tr_grammar *grammar_of(const char *text)
{
    json_t *s = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    tr_grammar *g = NULL;

    assert_true(!text || s);
    assert_int_equal(tr_schema_compile(s, &g), TR_OK);
    json_decref(s);
    return g;
}

/* Whether the bytes so far, and then those of a token, can begin a text; by a walk of its own. */
static bool can_follow(const tr_grammar *g, tr_bytes before, uint32_t id)
{
    tr_bytes piece = tr_tokenizer_piece(tokenizer, id);
    tr_walk *w = NULL;

    assert_int_equal(tr_walk_new(g, &w), TR_OK);
    int32_t s = tr_walk_start(w);
    for (size_t i = 0; i < before.size; i++)
        s = tr_walk_next(w, s, before.data[i]);
    assert_true(s != TR_WALK_DEAD);
    bool follows = tr_walk_is_end(w, s);
    if (!tr_tokenizer_is_eog(tokenizer, id)) {
        for (size_t i = 0; i < piece.size; i++)
            s = tr_walk_next(w, s, piece.data[i]);
        follows = s != TR_WALK_DEAD;
    }
    tr_walk_free(&w);
    return follows;
}

/* A random text: tokens that the guide allows, until it ends.  Some of them are held against a walk
 * from the beginning. */
static size_t write_text(const tr_grammar *grammar, uint64_t seed, uint8_t *text, bool *is_whole)
{
    static float logits[8192];
    tr_guide *g = NULL;
    size_t n = 0;

    assert_true(n_vocab <= 8192);
    assert_int_equal(tr_guide_new(vocab, grammar, &g), TR_OK);
    *is_whole = false;
    for (uint64_t step = 0; step < STEPS && !tr_guide_is_over(g); step++) {
        memset(logits, 0, sizeof logits);
        size_t may = tr_guide_constrain(g, logits, n_vocab);
        size_t counted = 0;
        for (uint32_t i = 0; i < n_vocab; i++)
            counted += logits[i] == 0.0f;
        assert_int_equal(may, counted);
        assert_true(may > 0);
        for (uint64_t k = 0; k < 12; k++) {
            uint32_t id = (uint32_t)(tr_rng_u64(seed, step, 100 + k) % n_vocab);
            if (tr_tokenizer_is_special(tokenizer, id) && !tr_tokenizer_is_eog(tokenizer, id))
                assert_true(logits[id] == -INFINITY);
            else
                assert_int_equal(logits[id] == 0.0f,
                                 can_follow(grammar, (tr_bytes){ text, n }, id));
        }
        size_t pick = tr_rng_u64(seed, step, 1) % may;
        uint32_t id = 0;
        while (logits[id] != 0.0f || pick-- > 0)
            id++;
        if (tr_tokenizer_is_eog(tokenizer, id)) {
            *is_whole = true;
            break;
        }
        tr_bytes piece = tr_tokenizer_piece(tokenizer, id);
        memcpy(text + n, piece.data, piece.size);
        n += piece.size;
        assert_true(tr_guide_accept(g, id));
    }
    *is_whole = *is_whole || tr_guide_is_over(g);
    tr_guide_free(&g);
    return n;
}

static void what_a_guide_lets_through_is_json(void **state)
{
    uint64_t seed = tr_test_seed();
    static uint8_t text[STEPS * 1024];

    (void)state;
    for (size_t i = 0; i < N_SCHEMAS; i++) {
        tr_grammar *grammar = grammar_of(schemas[i]);
        size_t n_whole = 0;
        for (uint64_t k = 0; k < 12; k++) {
            bool is_whole;
            size_t n = write_text(grammar, seed + 1000 * i + k, text, &is_whole);
            if (!is_whole)
                continue;
            n_whole++;
            json_t *o = json_loadb((const char *)text, n, JSON_DECODE_ANY, NULL);
            if (!o)
                print_message("  %.*s\n", (int)n, (const char *)text);
            assert_non_null(o);
            json_decref(o);
        }
        print_message("  schema %zu: %zu whole texts\n", i, n_whole);
        tr_grammar_free(&grammar);
    }
}

static bool fits(const char *schema, const char *text)
{
    tr_grammar *g = grammar_of(schema);
    tr_walk *w = NULL;

    assert_int_equal(tr_walk_new(g, &w), TR_OK);
    int32_t s = tr_walk_start(w);
    for (const char *c = text; *c; c++)
        s = tr_walk_next(w, s, (uint8_t)*c);
    bool is_end = tr_walk_is_end(w, s);
    tr_walk_free(&w);
    tr_grammar_free(&g);
    return is_end;
}

static void texts_fit_or_do_not(void **state)
{
    static const struct {
        int schema;
        const char *text;
        bool fits;
    } cases[] = {
        { 0, "{}", true },
        { 0, "{ }", true },
        { 0, "[]", false },
        { 0, "{\"a\": [1, 2.5e-3, {\"b\": null}], \"\\n\": \"\xc3\xa9\"}", true },
        { 0, "{\"a\":01}", false },
        { 0, "{\"a\":1,}", false },
        { 0, "{\"a\" 1}", false },
        { 0, "{\"\xff\":1}", false },
        { 0, "{\"\x01\":1}", false },
        { 0, "{\"\xc0\x80\":1}", false },
        { 0, "{\"a\":    1}", false },
        { 1, "{\"b\":1}", true },
        { 1, "{\"a\":\"x\",\"b\":1}", true },
        { 1, "{\"a\":\"x\"}", false },
        { 1, "{\"b\":1,\"a\":\"x\"}", false },
        { 1, "{\"b\":\"1\"}", false },
        { 1, "{\n  \"a\": \"x\",\n  \"b\": -1.5\n}", true },
        { 2, "[1,2]", true },
        { 2, "[1]", false },
        { 2, "[1,null,3,4]", true },
        { 2, "[1,2,3,4,5]", false },
        { 2, "[1,2.5]", false },
        { 3, "\"the king\"", true },
        { 3, "7", true },
        { 3, "{\"a\":[1]}", true },
        { 3, "8", false },
        { 4, "\"ab\"", false },
        { 4, "\"a\\n\xe2\x82\xac\"", true },
        { 4, "\"abcdefghij\"", false },
        { 5, "true", true },
        { 5, "{\"next\":{\"next\":null}}", true },
        { 5, "{}", true },
        { 5, "{\"next\":true}", false },
        { 6, "{\"a\":1,\"b\":2}", true },
        { 6, "{\"a\":\"1\"}", false },
        { 7, "[[[[]]]]", true },
        { 7, "", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (fits(schemas[cases[i].schema], cases[i].text) != cases[i].fits)
            print_message("  schema %d: %s\n", cases[i].schema, cases[i].text);
        assert_int_equal(fits(schemas[cases[i].schema], cases[i].text), cases[i].fits);
    }
}

static void what_cannot_be_held_is_refused_by_name(void **state)
{
    static const char *const bad[][2] = {
        { "{\"type\":\"string\",\"pattern\":\"a\"}", "pattern" },
        { "{\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":1}}}",
          "#/properties/a: minimum" },
        { "{\"not\":{}}", "not" },
        { "{\"$ref\":\"#\"}", "no text fits" },
        { "{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}", "no text fits" },
        { "{\"$ref\":\"http://x\"}", "not within" },
        { "{\"allOf\":[{},{}]}", "allOf" },
        { "{\"type\":\"array\",\"minItems\":5,\"maxItems\":1}", "minItems" },
        { "{\"type\":\"array\",\"items\":false,\"minItems\":1}", "items" },
        { "{\"type\":\"string\",\"maxLength\":1000000}", "maxLength" },
        { "{\"enum\":[]}", "enum" },
        { "{\"type\":\"object\",\"required\":[\"x\"]}", "required" },
        { "[]", "object" },
        { "{\"type\":\"array\",\"anyOf\":[{\"type\":\"integer\"}]}", "anyOf and type" },
        { "{\"$ref\":\"#/$defs/a\",\"minLength\":3,\"$defs\":{\"a\":{\"type\":\"string\"}}}",
          "$ref and minLength" },
        { "{\"minLength\":1,\"items\":{}}", "minLength" },
        { "{\"type\":\"string\",\"enum\":[\"a\",1]}", "enum" },
        { "{\"type\":\"integer\",\"const\":\"a\"}", "const" },
    };
    char why[300];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *s = json_loads(bad[i][0], 0, NULL);
        tr_grammar *g = NULL;
        assert_non_null(s);
        tr_fail_capture_begin(why, sizeof why);
        assert_int_equal(tr_schema_compile(s, &g), TR_E_REQUEST);
        tr_fail_capture_end();
        if (!strstr(why, bad[i][1]))
            print_message("  %s\n", why);
        assert_non_null(strstr(why, bad[i][1]));
        json_decref(s);
    }
}

/* Without a type, or with one beside values, the texts are some that the schema allows. */
static void what_stands_side_by_side_is_met_together(void **state)
{
    (void)state;
    assert_true(fits("{\"minLength\":2}", "\"ab\""));
    assert_false(fits("{\"minLength\":2}", "\"a\""));
    assert_false(fits("{\"minLength\":2}", "18"));
    assert_true(fits("{\"items\":{\"type\":\"integer\"}}", "[1,2]"));
    assert_false(fits("{\"items\":{\"type\":\"integer\"}}", "\"a\""));
    assert_true(fits("{\"type\":\"string\",\"enum\":[\"a\",\"b\"]}", "\"b\""));
    assert_true(fits("{\"type\":\"number\",\"const\":1}", "1"));
}

/* Choices of choices of choices lead to the same places: 6 to the 20th ways, but few places. */
static void choices_that_lead_to_the_same_are_followed_once(void **state)
{
    json_t *defs = json_object();
    json_t *s = json_pack("{s:s}", "$ref", "#/$defs/d0");
    tr_grammar *g = NULL;
    tr_walk *w = NULL;
    char ref[32], name[16];

    (void)state;
    for (int i = 0; i < 20; i++) {
        json_t *any = json_array();
        snprintf(ref, sizeof ref, "#/$defs/d%d", i + 1);
        snprintf(name, sizeof name, "d%d", i);
        for (int k = 0; k < 6; k++)
            json_array_append_new(any, json_pack("{s:s}", "$ref", ref));
        json_object_set_new(defs, name, json_pack("{s:o}", "anyOf", any));
    }
    json_object_set_new(defs, "d20", json_pack("{s:s}", "type", "null"));
    json_object_set_new(s, "$defs", defs);
    assert_int_equal(tr_schema_compile(s, &g), TR_OK);
    assert_int_equal(tr_walk_new(g, &w), TR_OK);
    int32_t at = tr_walk_start(w);
    for (const char *c = "null"; *c; c++)
        at = tr_walk_next(w, at, (uint8_t)*c);
    assert_true(tr_walk_is_end(w, at));
    tr_walk_free(&w);
    tr_grammar_free(&g);
    json_decref(s);
}

/* A state with very many readings: many values that begin alike, many properties that may be left
 * out. */
static void many_values_and_many_properties_can_be_followed(void **state)
{
    json_t *values = json_array();
    json_t *properties = json_object();
    char name[16];

    (void)state;
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "v%d", i);
        json_array_append_new(values, json_string(name));
        if (i < 400)
            json_object_set_new(properties, name, json_pack("{s:s}", "type", "null"));
    }
    json_t *s = json_pack("{s:s, s:o}", "type", "object", "properties", properties);
    json_object_set_new(properties, "one", json_pack("{s:o}", "enum", values));
    char *text = json_dumps(s, 0);
    assert_true(fits(text, "{\"v7\":null,\"v399\":null,\"one\":\"v2999\"}"));
    assert_true(fits(text, "{\"one\":\"v0\"}"));
    assert_false(fits(text, "{\"one\":\"v3000\"}"));
    free(text);
    json_decref(s);
}

/* However deep: what is forgotten on the way is not what is still open. */
static void deep_texts_end_when_all_is_closed(void **state)
{
    enum { DEPTH = 5000 };
    tr_grammar *g = NULL;
    tr_walk *w = NULL;

    (void)state;
    assert_int_equal(tr_schema_compile(NULL, &g), TR_OK);
    assert_int_equal(tr_walk_new(g, &w), TR_OK);
    int32_t at = tr_walk_start(w);
    for (const char *c = "{\"a\":"; *c; c++)
        at = tr_walk_next(w, at, (uint8_t)*c);
    for (int i = 0; i < 2 * DEPTH; i++) {
        at = tr_walk_trim(w, tr_walk_next(w, at, i < DEPTH ? '[' : ']'));
        assert_int_not_equal(at, TR_WALK_DEAD);
        assert_false(tr_walk_is_end(w, at));
    }
    assert_true(tr_walk_is_end(w, tr_walk_next(w, at, '}')));
    tr_walk_free(&w);
    tr_grammar_free(&g);
}

/* A long text in few states, and the states that are kept stay few. */
static void a_long_text_keeps_little(void **state)
{
    static float logits[8192];
    tr_grammar *grammar = grammar_of(
        "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":200},\"maxItems\":900}");
    tr_guide *g = NULL;
    uint32_t *ids;
    size_t n;

    (void)state;
    assert_int_equal(tr_guide_new(vocab, grammar, &g), TR_OK);
    for (int i = 0; i < 400; i++) {
        const char *text = i == 0 ? "[\"the king and the queen of it all\"" : ", \"my lord\"";
        assert_int_equal(tr_tokenizer_encode(tokenizer, tr_bytes_of(text), false, &ids, &n), TR_OK);
        for (size_t k = 0; k < n; k++) {
            memset(logits, 0, sizeof logits);
            assert_true(tr_guide_constrain(g, logits, n_vocab) > 0);
            assert_true(logits[ids[k]] == 0.0f);
            assert_true(tr_guide_accept(g, ids[k]));
        }
        free(ids);
    }
    tr_guide_free(&g);
    tr_grammar_free(&grammar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_guide_lets_through_is_json),
        cmocka_unit_test(texts_fit_or_do_not),
        cmocka_unit_test(what_cannot_be_held_is_refused_by_name),
        cmocka_unit_test(what_stands_side_by_side_is_met_together),
        cmocka_unit_test(choices_that_lead_to_the_same_are_followed_once),
        cmocka_unit_test(many_values_and_many_properties_can_be_followed),
        cmocka_unit_test(deep_texts_end_when_all_is_closed),
        cmocka_unit_test(a_long_text_keeps_little),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
