/* eval_base.c - lines of JSON, written one by one and read with suspicion.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/eval_base.h"

#include "base/check.h"
#include "base/new_file.h"
#include "coordinator/commands/json_text.h"
#include "coordinator/text/sampler.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    VERSION = 1,
    LINE_ROOM = 4096, /* of a header's line, and of a position's without its tokens */
    TOKEN_ROOM = 64,  /* of one token in a position's line: its id and ln p take 35 bytes */
};

static const double deepest = -1e39; /* no ln p of finite logits is lower */
static const double rounding = 1e-9; /* by which probabilities may add up to more than 1 */

uint64_t tr_eval_hash(uint64_t so_far, const void *data, size_t size)
{
    const uint8_t *byte = data;
    uint64_t hash = so_far ? so_far : UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* ---- writing --------------------------------------------------------------------------- */

struct tr_eval_writer {
    tr_new_file place;
    FILE *file;
    size_t top, n;
    tr_alternative *kept; /* [top] */
};

static tr_status write_failed(const tr_eval_writer *w, const char *what)
{
    return tr_fail(TR_E_IO, "%s: %s: %s", w->place.part, what, strerror(errno));
}

static tr_status write_line(tr_eval_writer *w, json_t *value)
{
    if (!value)
        return tr_fail(TR_E_MEMORY, "%s: no memory for a line", w->place.part);
    bool is_good = json_dumpf(value, w->file, JSON_COMPACT) == 0 && fputc('\n', w->file) != EOF;
    json_decref(value);
    return is_good ? TR_OK : write_failed(w, "write");
}

static tr_status write_header(tr_eval_writer *w, const tr_eval_header *h)
{
    return write_line(
        w, json_pack("{s:i, s:o, s:s, s:I, s:o, s:I, s:I, s:o, s:I, s:I}", "troupe_eval", VERSION,
                     "model", tr_json_text(tr_bytes_of(h->model)), "kernels", h->kernels, "n_vocab",
                     (json_int_t)h->n_vocab, "vocabulary",
                     json_sprintf("%016" PRIx64, h->vocabulary), "ctx", (json_int_t)h->window,
                     "skip", (json_int_t)h->skip, "text", json_sprintf("%016" PRIx64, h->text),
                     "positions", (json_int_t)h->n_positions, "top", (json_int_t)h->top));
}

tr_status tr_eval_writer_new(const char *path, bool overwrite, const tr_eval_header *h,
                             tr_eval_writer **out)
{
    tr_eval_writer *w = calloc(1, sizeof *w);

    if (w)
        w->kept = calloc(h->top, sizeof *w->kept);
    if (!w || !w->kept) {
        free(w);
        return tr_fail(TR_E_MEMORY, "%s: no memory", path);
    }
    w->top = h->top;
    tr_status st = tr_new_file_open(path, overwrite, &w->place);
    if (st == TR_OK)
        st = tr_new_file_stream(&w->place, &w->file);
    if (st == TR_OK)
        st = write_header(w, h);
    if (st != TR_OK) {
        tr_eval_writer_abandon(&w);
        return st;
    }
    *out = w;
    return TR_OK;
}

/* More probable, or as probable and of a lower id. */
static int by_rank(const void *a, const void *b)
{
    const tr_alternative *x = a;
    const tr_alternative *y = b;

    if (x->log_prob != y->log_prob)
        return x->log_prob > y->log_prob ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Whole vocabularies are sorted at once: putting one into place after the other takes too long. */
static void keep_top(tr_eval_writer *w, const tr_eval_position *p)
{
    if (w->top < p->n_vocab) {
        tr_alternatives(p->logits, p->n_vocab, w->kept, w->top);
        return;
    }
    for (size_t i = 0; i < p->n_vocab; i++)
        w->kept[i] = (tr_alternative){ (uint32_t)i, (double)p->logits[i] - p->log_total };
    qsort(w->kept, p->n_vocab, sizeof *w->kept, by_rank);
}

tr_status tr_eval_writer_add(tr_eval_writer *w, const tr_eval_position *p)
{
    json_t *ids = json_array(), *log_probs = json_array();

    keep_top(w, p);
    for (size_t i = 0; i < w->top; i++) {
        json_array_append_new(ids, json_integer(w->kept[i].id));
        json_array_append_new(log_probs, json_real(w->kept[i].log_prob));
    }
    w->n++;
    if (json_array_size(ids) != w->top || json_array_size(log_probs) != w->top) {
        json_decref(ids);
        json_decref(log_probs);
        return tr_fail(TR_E_MEMORY, "%s: no memory for a line", w->place.part);
    }
    return write_line(w, json_pack("{s:I, s:f, s:o, s:o}", "token", (json_int_t)p->token, "logprob",
                                   (double)p->logits[p->token] - p->log_total, "top", ids,
                                   "logprobs", log_probs));
}

tr_status tr_eval_writer_finish(tr_eval_writer **writer)
{
    tr_eval_writer *w = *writer;

    tr_status st = write_line(w, json_pack("{s:I}", "end", (json_int_t)w->n));
    if (st == TR_OK) {
        int closed = fclose(w->file);
        w->file = NULL; /* it is gone in either case */
        if (closed != 0)
            st = write_failed(w, "write");
    }
    if (st == TR_OK)
        st = tr_new_file_place(&w->place);
    tr_eval_writer_abandon(writer);
    return st;
}

void tr_eval_writer_abandon(tr_eval_writer **writer)
{
    tr_eval_writer *w = *writer;

    if (!w)
        return;
    if (w->file)
        fclose(w->file);
    tr_new_file_close(&w->place, TR_NEW_FILE_REMOVE);
    free(w->kept);
    free(w);
    *writer = NULL;
}

/* ---- reading --------------------------------------------------------------------------- */

struct tr_eval_reader {
    FILE *file;
    const char *name;
    tr_eval_header h;
    size_t line; /* number of the last that was read */
    size_t room;
    char *text;        /* [room] */
    uint32_t *ids;     /* [top] */
    double *log_probs; /* [top] */
    size_t *seen;      /* [n_vocab] the line in which an id was last seen */
};

static tr_status wrong(const tr_eval_reader *r, const char *what)
{
    return tr_fail(TR_E_REQUEST,
                   "base %s: line %zu: %s: is it whole, and made by troupe eval --save?", r->name,
                   r->line, what);
}

/* The next line as a JSON object. */
static tr_status read_line(tr_eval_reader *r, json_t **out)
{
    size_t n = 0;
    int c = 0;

    r->line++;
    while (n < r->room && (c = getc(r->file)) != EOF && c != '\n')
        r->text[n++] = (char)c;
    if (ferror(r->file))
        return tr_fail(TR_E_IO, "base %s: read: %s", r->name, strerror(errno));
    if (n == r->room)
        return wrong(r, "too long");
    if (c == EOF)
        return wrong(r, "the file ends here");
    json_t *v = json_loadb(r->text, n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(v)) {
        json_decref(v);
        return wrong(r, "no JSON object");
    }
    *out = v;
    return TR_OK;
}

/* A whole number in low..high. */
static bool count_of(const json_t *o, const char *key, size_t low, size_t high, size_t *out)
{
    const json_t *v = json_object_get(o, key);
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < 0 || (uint64_t)n < low || (uint64_t)n > high)
        return false;
    *out = (size_t)n;
    return true;
}

static bool hash_of(const json_t *o, const char *key, uint64_t *out)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

/* For people: what could steer a terminal is taken out. */
static bool name_of(const json_t *o, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (!text)
        return false;
    snprintf(out, size, "%s", text);
    for (char *c = out; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return true;
}

static bool log_prob_of(const json_t *v, double *out)
{
    double x = json_number_value(v);

    if (!json_is_number(v) || !(x <= 0) || x < deepest)
        return false;
    *out = x;
    return true;
}

static bool header_of(const json_t *o, tr_eval_header *h)
{
    const size_t most = (size_t)1 << 40;

    return name_of(o, "model", h->model, sizeof h->model) &&
           name_of(o, "kernels", h->kernels, sizeof h->kernels) &&
           count_of(o, "n_vocab", 1, TR_EVAL_MAX_VOCAB, &h->n_vocab) &&
           hash_of(o, "vocabulary", &h->vocabulary) && count_of(o, "ctx", 2, most, &h->window) &&
           count_of(o, "skip", 0, h->window - 2, &h->skip) && hash_of(o, "text", &h->text) &&
           count_of(o, "positions", 1, most, &h->n_positions) &&
           count_of(o, "top", 1, h->n_vocab, &h->top);
}

static tr_status read_header(tr_eval_reader *r)
{
    json_t *o = NULL;
    size_t version;

    tr_status st = read_line(r, &o);
    if (st != TR_OK)
        return st;
    if (!count_of(o, "troupe_eval", VERSION, VERSION, &version))
        st = wrong(r, "no header of a base (\"troupe_eval\": 1)");
    else if (!header_of(o, &r->h))
        st = wrong(r, "a key of the header is missing or out of range");
    json_decref(o);
    return st;
}

/* Only for a header that fits a model: a hostile one could ask for much. */
static tr_status reserve(tr_eval_reader *r)
{
    size_t room = LINE_ROOM + r->h.top * TOKEN_ROOM;
    char *grown = realloc(r->text, room);

    if (grown) {
        r->text = grown;
        r->room = room;
    }
    r->ids = calloc(r->h.top, sizeof *r->ids);
    r->log_probs = calloc(r->h.top, sizeof *r->log_probs);
    r->seen = calloc(r->h.n_vocab, sizeof *r->seen);
    return grown && r->ids && r->log_probs && r->seen
               ? TR_OK
               : tr_fail(TR_E_MEMORY, "base %s: no memory for a line of %zu bytes", r->name, room);
}

tr_status tr_eval_reader_from(FILE *file, const char *name, tr_eval_reader **out)
{
    tr_eval_reader *r = calloc(1, sizeof *r);

    if (!r) {
        fclose(file);
        return tr_fail(TR_E_MEMORY, "base %s: no memory", name);
    }
    *r = (tr_eval_reader){ .file = file, .name = name, .room = LINE_ROOM };
    r->text = malloc(r->room);
    tr_status st = r->text ? read_header(r) : tr_fail(TR_E_MEMORY, "base %s: no memory", name);
    if (st != TR_OK) {
        tr_eval_reader_close(&r);
        return st;
    }
    *out = r;
    return TR_OK;
}

tr_status tr_eval_reader_open(const char *path, tr_eval_reader **out)
{
    FILE *f = fopen(path, "re");

    if (!f)
        return tr_fail(TR_E_IO, "base %s: open: %s", path, strerror(errno));
    return tr_eval_reader_from(f, path, out);
}

const tr_eval_header *tr_eval_reader_header(const tr_eval_reader *r)
{
    return &r->h;
}

tr_status tr_eval_reader_check(tr_eval_reader *r, const tr_eval_header *mine)
{
    const tr_eval_header *h = &r->h;

    if (h->n_vocab != mine->n_vocab || h->vocabulary != mine->vocabulary)
        return tr_fail(TR_E_REQUEST,
                       "base %s: is of another vocabulary (%zu tokens, this model has %zu%s): only "
                       "models with the same tokens can be compared",
                       r->name, h->n_vocab, mine->n_vocab,
                       h->n_vocab == mine->n_vocab ? ", others" : "");
    if (h->window != mine->window || h->skip != mine->skip)
        return tr_fail(TR_E_REQUEST,
                       "base %s: was made with --ctx %zu --skip %zu, this run has --ctx %zu --skip "
                       "%zu: give the same",
                       r->name, h->window, h->skip, mine->window, mine->skip);
    if (h->text != mine->text || h->n_positions != mine->n_positions)
        return tr_fail(TR_E_REQUEST,
                       "base %s: is of another text (%zu positions that count, this one has %zu): "
                       "give the same text and --bos",
                       r->name, h->n_positions, mine->n_positions);
    return reserve(r);
}

/* The tokens of a position: all different, the most probable first, together no more than 1. */
static const char *known_wrong(tr_eval_reader *r, const json_t *ids, const json_t *log_probs)
{
    double mass = 0;

    if (json_array_size(ids) != r->h.top || json_array_size(log_probs) != r->h.top)
        return "\"top\" or \"logprobs\" has another length than the header says";
    for (size_t i = 0; i < r->h.top; i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t n = json_integer_value(id);
        if (!json_is_integer(id) || n < 0 || (uint64_t)n >= r->h.n_vocab || r->seen[n] == r->line)
            return "\"top\" has something else than different tokens";
        r->seen[n] = r->line;
        r->ids[i] = (uint32_t)n;
        if (!log_prob_of(json_array_get(log_probs, i), &r->log_probs[i]) ||
            (i > 0 && r->log_probs[i] > r->log_probs[i - 1]))
            return "\"logprobs\" has something else than falling numbers below 0";
        mass += exp(r->log_probs[i]);
    }
    return mass <= 1 + rounding ? NULL : "the probabilities add up to more than 1";
}

tr_status tr_eval_reader_next(tr_eval_reader *r, uint32_t token, tr_known *known, double *log_prob)
{
    json_t *o = NULL;
    size_t id = 0;
    const char *what;

    TR_CHECK(r->seen);
    tr_status st = read_line(r, &o);
    if (st != TR_OK)
        return st;
    if (!count_of(o, "token", 0, r->h.n_vocab - 1, &id) || id != token)
        what = "\"token\" is not the one that follows in the text";
    else if (!log_prob_of(json_object_get(o, "logprob"), log_prob))
        what = "\"logprob\" is no number below 0";
    else
        what = known_wrong(r, json_object_get(o, "top"), json_object_get(o, "logprobs"));
    json_decref(o);
    if (what)
        return wrong(r, what);
    *known = (tr_known){ r->ids, r->log_probs, r->h.top, r->h.top == r->h.n_vocab };
    return TR_OK;
}

tr_status tr_eval_reader_end(tr_eval_reader *r)
{
    json_t *o = NULL;
    size_t n;

    tr_status st = read_line(r, &o);
    if (st != TR_OK)
        return st;
    if (!count_of(o, "end", r->h.n_positions, r->h.n_positions, &n))
        st = wrong(r, "the number of positions at the end is another than the header's");
    else if (getc(r->file) != EOF)
        st = wrong(r, "something follows the end");
    json_decref(o);
    return st;
}

void tr_eval_reader_close(tr_eval_reader **reader)
{
    tr_eval_reader *r = *reader;

    if (!r)
        return;
    fclose(r->file);
    free(r->text);
    free(r->ids);
    free(r->log_probs);
    free(r->seen);
    free(r);
    *reader = NULL;
}
