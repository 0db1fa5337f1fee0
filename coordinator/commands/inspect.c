/* inspect.c - read a header, count, and say it in a table or as JSON.
 *
 * Works for any sound GGUF file: what an unknown architecture does not say is left out.  The
 * facts are collected first, as a JSON object; the table is one way to show them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/inspect.h"

#include "base/memory.h"
#include "compute/gguf.h"
#include "coordinator/commands/inspect_memory.h"
#include "coordinator/commands/json_text.h"
#include "coordinator/commands/option.h"
#include "coordinator/model/model.h"
#include "coordinator/text/tokenizer.h"
#include "proto/limits.h"

#include <jansson.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: troupe inspect FILE [options]\n"
    "\n"
    "Shows what a GGUF model file holds: architecture, sizes, parameters, bytes by type,\n"
    "tokenizer, whether troupe can run it or all that is missing, and the memory that each\n"
    "process would need.\n"
    "\n"
    "  -w, --workers N   processes that share the experts (0: the coordinator has them)\n"
    "  --ctx N           tokens of context (the model's, at most 8192)\n"
    "  --kv TYPE         of the cache: f16, f32 or q8_0 (f16)\n"
    "  --batch N         rows of a step (256)\n"
    "  --json            one JSON object\n"
    "  -h, --help        show this\n";

typedef struct {
    const char *path;
    bool is_json;
    tr_inspect_memory_options memory;
} inspect_options;

/* What the tensors add up to. */
typedef struct {
    uint64_t parameters, expert_parameters;
    uint64_t picked_parameters; /* of the experts that one token uses */
    uint64_t bytes, expert_bytes;
    uint64_t unused_bytes;                 /* of blocks that only predict further tokens */
    uint64_t n_choosable, choosable_bytes; /* experts of layers that have several */
    uint32_t n_layers;                     /* those that are run; 0: not known */
    uint64_t bytes_of[TR_TYPE_COUNT];
    uint64_t embedding; /* parameters of the embedding if there is an output matrix beside it */
} totals;

static uint64_t elements(const tr_gguf_tensor *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

/* What workers can hold: experts, and dense feed-forward networks, which count as one expert. */
static void add_experts(const tr_expert_map *map, totals *sum)
{
    for (uint32_t l = 0; l < map->n_layers; l++) {
        const tr_expert_tensors *e = &map->layer[l];
        if (!tr_expert_map_has(map, l))
            continue;
        uint64_t bytes = tr_expert_map_bytes(map, l) * e->n_experts;
        uint64_t n = (e->gate ? elements(e->gate) : 0) + elements(e->up) + elements(e->down);
        sum->expert_parameters += n;
        sum->picked_parameters += n / e->n_experts * e->top_k;
        sum->expert_bytes += bytes;
        sum->n_choosable += e->is_dense ? 0 : e->n_experts;
        sum->choosable_bytes += e->is_dense ? 0 : bytes;
    }
}

/* Without a map where the file has none. */
static totals add_up(const tr_gguf *g)
{
    totals sum = { 0 };
    tr_expert_map map = { .n_layers = 0 };
    char reason[256];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_expert_map_read(g, &map);
    tr_fail_capture_end();
    for (size_t i = 0; i < tr_gguf_n_tensors(g); i++) {
        const tr_gguf_tensor *t = tr_gguf_tensor_at(g, i);
        sum.bytes_of[t->type] += t->size;
        if (st == TR_OK && tr_expert_map_is_behind(&map, t->name)) {
            sum.unused_bytes += t->size;
            continue;
        }
        sum.parameters += elements(t);
        sum.bytes += t->size;
    }
    if (st == TR_OK)
        add_experts(&map, &sum);
    sum.n_layers = map.n_layers;
    tr_expert_map_fini(&map);
    const tr_gguf_tensor *embedding = tr_gguf_find(g, "token_embd.weight");
    if (embedding && tr_gguf_find(g, "output.weight"))
        sum.embedding = elements(embedding);
    return sum;
}

/* A value of the architecture, or -1 where the file does not say; never an error here. */
static int64_t number_of(const tr_gguf *g, tr_bytes arch, const char *name)
{
    char key[192];
    char reason[256];
    uint32_t v = 0;

    snprintf(key, sizeof key, "%.*s.%s", (int)(arch.size < 64 ? arch.size : 64),
             (const char *)arch.data, name);
    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_gguf_get_u32(g, key, &v);
    tr_fail_capture_end();
    return st == TR_OK ? (int64_t)v : -1;
}

static tr_bytes text_of(const tr_gguf *g, const char *key)
{
    char reason[256];
    tr_bytes v = tr_bytes_of("");

    tr_fail_capture_begin(reason, sizeof reason);
    if (tr_gguf_opt_string(g, key, &v) != TR_OK)
        v = tr_bytes_of("");
    tr_fail_capture_end();
    return v;
}

static void set_text(json_t *o, const char *key, tr_bytes text)
{
    json_object_set_new(o, key, tr_json_text(text));
}

static void set_number(json_t *o, const char *key, int64_t v)
{
    if (v >= 0)
        json_object_set_new(o, key, json_integer(v));
}

/* A line for each type without kernels; the first tensor of it is named. */
static void add_missing_types(json_t *missing, const tr_gguf *g)
{
    size_t count[TR_TYPE_COUNT] = { 0 };
    const tr_gguf_tensor *first[TR_TYPE_COUNT] = { NULL };
    char line[512];

    for (size_t i = 0; i < tr_gguf_n_tensors(g); i++) {
        const tr_gguf_tensor *t = tr_gguf_tensor_at(g, i);
        if (count[t->type]++ == 0)
            first[t->type] = t;
    }
    for (uint32_t i = 0; i < TR_TYPE_COUNT; i++) {
        if (count[i] == 0 || tr_type_get(i)->computable)
            continue;
        snprintf(line, sizeof line,
                 "%zu tensors are of type %s, for which there are no kernels: "
                 "the first is %s",
                 count[i], tr_type_get(i)->name, first[i]->name);
        json_array_append_new(missing, tr_json_text(tr_bytes_of(line)));
    }
}

/* Whether `troupe run` would take it, or all that is known to be missing.  *text_bytes: what the
 * tokenizer takes. */
static void set_support(json_t *o, const tr_gguf *g, uint64_t *text_bytes)
{
    char model_reason[512], text_reason[512];
    tr_tokenizer *tokenizer = NULL;
    json_t *missing = json_array();
    uint64_t before = tr_memory_resident();

    tr_fail_capture_begin(text_reason, sizeof text_reason);
    tr_status text = tr_tokenizer_new(g, &tokenizer);
    tr_fail_capture_end();
    uint64_t after = tr_memory_resident();
    *text_bytes = after > before ? after - before : 0; /* the system may take pages back */
    tr_tokenizer_free(&tokenizer);
    tr_fail_capture_begin(model_reason, sizeof model_reason);
    tr_status model = tr_model_check(g);
    tr_fail_capture_end();
    json_object_set_new(o, "supported", json_boolean(model == TR_OK && text == TR_OK));
    if (model != TR_OK)
        json_array_append_new(missing, tr_json_text(tr_bytes_of(model_reason)));
    if (text != TR_OK)
        json_array_append_new(missing, tr_json_text(tr_bytes_of(text_reason)));
    add_missing_types(missing, g);
    if (json_array_size(missing) > 0)
        json_object_set(o, "missing", missing);
    json_decref(missing);
}

/* Of what can be run; a number of workers that can't is an error. */
static tr_status set_memory(json_t *o, const tr_gguf *g, const tr_inspect_memory_options *m,
                            uint64_t text_bytes)
{
    json_t *memory = NULL;

    if (!json_is_true(json_object_get(o, "supported")))
        return TR_OK;
    tr_status st = tr_inspect_memory(g, m, text_bytes, &memory);
    if (st == TR_OK)
        json_object_set_new(o, "memory", memory);
    return st;
}

static void set_sizes(json_t *o, const tr_gguf *g, tr_bytes arch)
{
    static const struct {
        const char *name, *key;
    } sizes[] = {
        { "layers", "block_count" },
        { "width", "embedding_length" },
        { "heads", "attention.head_count" },
        { "kv_heads", "attention.head_count_kv" },
        { "head_size", "attention.key_length" },
        { "context", "context_length" },
        { "experts", "expert_count" },
        { "experts_used", "expert_used_count" },
    };

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        set_number(o, sizes[i].name, number_of(g, arch, sizes[i].key));
}

/* Active: what one token's pass reads.  The picked experts' share of the experts, all else, but
 * of an embedding that is not the output matrix too only one row, which is left out. */
static void set_parameters(json_t *o, const totals *t)
{
    uint64_t dense = t->parameters - t->expert_parameters;
    uint64_t active = dense - t->embedding + t->picked_parameters;

    set_number(o, "parameters", (int64_t)t->parameters);
    set_number(o, "active_parameters", (int64_t)active);
    set_number(o, "dense_bytes", (int64_t)(t->bytes - t->expert_bytes));
    set_number(o, "expert_bytes", (int64_t)t->expert_bytes);
    if (t->n_choosable > 0)
        set_number(o, "bytes_per_expert", (int64_t)(t->choosable_bytes / t->n_choosable));
    if (t->unused_bytes > 0)
        set_number(o, "unused_bytes", (int64_t)t->unused_bytes);
    if (t->n_layers > 0)
        set_number(o, "layers", t->n_layers);
}

static tr_status facts_of(const tr_gguf *g, const tr_inspect_memory_options *m, json_t **out)
{
    uint64_t text_bytes = 0;
    json_t *o = json_object();
    json_t *types = json_object();
    totals t = add_up(g);
    tr_bytes arch = text_of(g, "general.architecture");
    const tr_gguf_entry *tokens = tr_gguf_entry_find(g, "tokenizer.ggml.tokens");

    set_text(o, "file", tr_bytes_of(tr_gguf_path(g)));
    set_number(o, "file_bytes", (int64_t)tr_gguf_file_size(g));
    set_number(o, "gguf_version", tr_gguf_version(g));
    set_text(o, "architecture", arch);
    set_text(o, "name", text_of(g, "general.name"));
    set_support(o, g, &text_bytes);
    set_sizes(o, g, arch);
    set_parameters(o, &t);
    for (uint32_t i = 0; i < TR_TYPE_COUNT; i++)
        if (t.bytes_of[i] > 0)
            set_number(types, tr_type_get(i)->name, (int64_t)t.bytes_of[i]);
    json_object_set_new(o, "bytes_by_type", types);
    set_number(o, "tensors", (int64_t)tr_gguf_n_tensors(g));
    set_text(o, "tokenizer", text_of(g, "tokenizer.ggml.model"));
    set_text(o, "pretokenizer", text_of(g, "tokenizer.ggml.pre"));
    set_number(o, "vocabulary", tokens ? (int64_t)tokens->n : 0);
    *out = o;
    return set_memory(o, g, m, text_bytes);
}

/* ---- the table ------------------------------------------------------------------------ */

static int64_t get(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return v ? (int64_t)json_integer_value(v) : -1;
}

static void print_text(const char *title, const char *text)
{
    printf("%-18s ", title);
    for (; *text; text++) { /* a hostile name must not steer the terminal */
        unsigned char b = (unsigned char)*text;
        bool is_c1 = b == 0xc2 && (unsigned char)text[1] < 0xa0; /* U+0080..U+009F */
        putchar(b < 0x20 || b == 0x7f || is_c1 ? '?' : b);
        text += is_c1;
    }
    putchar('\n');
}

static void row_text(const json_t *o, const char *title, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (text && text[0])
        print_text(title, text);
}

static void rows_missing(const json_t *o)
{
    const json_t *missing = json_object_get(o, "missing");

    for (size_t i = 0; i < json_array_size(missing); i++)
        print_text(i == 0 ? "missing" : "", json_string_value(json_array_get(missing, i)));
}

/* 12345678 as 12,345,678 */
static void print_grouped(int64_t v)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)v);

    for (int i = 0; i < n; i++) {
        putchar(digits[i]);
        if ((n - 1 - i) % 3 == 0 && i + 1 < n)
            putchar(',');
    }
}

static void row_number(const json_t *o, const char *title, const char *key, const char *unit)
{
    int64_t v = get(o, key);

    if (v < 0)
        return;
    printf("%-18s ", title);
    print_grouped(v);
    printf("%s\n", unit);
}

static void row_experts(const json_t *o)
{
    int64_t n = get(o, "experts");
    int64_t used = get(o, "experts_used");
    int64_t bytes = get(o, "bytes_per_expert");

    if (n <= 0)
        return;
    printf("%-18s %lld a layer", "experts", (long long)n);
    if (used >= 0)
        printf(", %lld of them used by a token", (long long)used);
    if (bytes >= 0) {
        printf("; about ");
        print_grouped(bytes);
        printf(" bytes each");
    }
    putchar('\n');
}

static void show_table(const json_t *o)
{
    const char *type;
    json_t *bytes;
    bool is_supported = json_is_true(json_object_get(o, "supported"));

    row_text(o, "file", "file");
    row_number(o, "size", "file_bytes", " bytes");
    row_text(o, "architecture", "architecture");
    row_text(o, "name", "name");
    printf("%-18s %s\n", "runs", is_supported ? "yes" : "no");
    rows_missing(o);
    row_number(o, "layers", "layers", "");
    row_number(o, "width", "width", "");
    row_number(o, "heads", "heads", "");
    row_number(o, "key/value heads", "kv_heads", "");
    row_number(o, "head size", "head_size", "");
    row_experts(o);
    row_number(o, "parameters", "parameters", "");
    row_number(o, "active a token", "active_parameters", "");
    row_number(o, "dense", "dense_bytes", " bytes, in the coordinator");
    row_number(o, "experts, all", "expert_bytes", " bytes, in the workers");
    row_number(o, "not used", "unused_bytes", " bytes, which predict further tokens");
    json_object_foreach(json_object_get(o, "bytes_by_type"), type, bytes)
    {
        printf("  %-16s ", type);
        print_grouped((int64_t)json_integer_value(bytes));
        printf(" bytes\n");
    }
    row_number(o, "context", "context", " tokens");
    row_text(o, "tokenizer", "tokenizer");
    row_text(o, "pre-tokenizer", "pretokenizer");
    row_number(o, "vocabulary", "vocabulary", " tokens");
    if (json_object_get(o, "memory"))
        tr_inspect_memory_print(json_object_get(o, "memory"));
}

/* getopt moves on to the next word only behind the last of several letters. */
static tr_status unknown_option(const char *word)
{
    if (optopt && strncmp(word, "--", 2) != 0)
        return tr_fail(TR_E_USAGE, "unknown option -%c; see troupe inspect --help", optopt);
    return tr_fail(TR_E_USAGE, "unknown option %.80s; see troupe inspect --help", word);
}

static tr_status read_option(int c, inspect_options *o, const char *word)
{
    tr_inspect_memory_options *m = &o->memory;

    switch (c) {
    case 'j':
        o->is_json = true;
        return TR_OK;
    case 'w':
        return tr_option_number("workers", optarg, 0, TR_MAX_WORKERS, &m->workers);
    case 'c':
        return tr_option_number("ctx", optarg, 1, 1 << 24, &m->ctx);
    case 'b':
        return tr_option_number("batch", optarg, 1, TR_MAX_ROWS, &m->batch);
    case 'k':
        return tr_option_kv(optarg, &m->kv);
    case ':':
        return tr_fail(TR_E_USAGE, "%.80s needs a value; see troupe inspect --help", word);
    default:
        return unknown_option(word);
    }
}

static tr_status parse(int argc, char **argv, inspect_options *o, bool *done)
{
    static const struct option options[] = {
        { "json", no_argument, NULL, 'j' },
        { "workers", required_argument, NULL, 'w' },
        { "ctx", required_argument, NULL, 'c' },
        { "batch", required_argument, NULL, 'b' },
        { "kv", required_argument, NULL, 'k' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    optind = 1;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":w:h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            *done = true;
            return TR_OK;
        }
        tr_status st = read_option(c, o, argv[optind - 1]);
        if (st != TR_OK)
            return st;
    }
    if (optind + 1 != argc)
        return tr_fail(TR_E_USAGE, "give one model file: troupe inspect FILE");
    o->path = argv[optind];
    return TR_OK;
}

tr_status tr_command_inspect(int argc, char **argv)
{
    inspect_options o = { .memory = { .batch = 256, .kv = TR_TYPE_F16 } };
    bool done = false;
    tr_gguf *g = NULL;
    json_t *facts = NULL;

    tr_status st = parse(argc, argv, &o, &done);
    if (st != TR_OK || done)
        return st;
    st = tr_gguf_open(o.path, &g);
    if (st != TR_OK)
        return st;
    st = facts_of(g, &o.memory, &facts);
    if (st == TR_OK && o.is_json) {
        json_dumpf(facts, stdout, JSON_INDENT(1));
        putchar('\n');
    } else if (st == TR_OK) {
        show_table(facts);
    }
    json_decref(facts);
    tr_gguf_close(&g);
    return st;
}
