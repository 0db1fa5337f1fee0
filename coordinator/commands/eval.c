/* eval.c - one pass over the text, its sums, and what is said of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/eval.h"

#include "base/log.h"
#include "base/new_file.h"
#include "coordinator/cluster/launch.h"
#include "coordinator/commands/eval_base.h"
#include "coordinator/commands/json_text.h"
#include "coordinator/text/softmax.h"

#include <jansson.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOGITS_SIZE = 64 << 20 }; /* bytes of logits that are kept at once, about */

static const tr_time said_period = 10 * TR_SECOND;

/* Against a base. */
typedef struct {
    double *divergence;  /* [n_positions] */
    tr_tally mean;       /* of those */
    tr_tally difference; /* ln p of the text's tokens, here less there */
    tr_tally known;      /* the base's probability of the tokens that it kept */
    size_t n_same;       /* positions with the same most probable token */
    double median, p99, largest;
} comparison;

struct tr_eval {
    tr_eval_setting s;
    tr_eval_request request;
    tr_eval_header header;
    tr_eval_writer *writer; /* NULL: nothing is saved */
    tr_eval_reader *base;   /* NULL: nothing to compare with */
    tr_tally surprise;      /* -ln p of the text's tokens */
    comparison c;
    tr_time said;
    tr_eval_result result;
};

size_t tr_eval_window(const tr_run_options *o, const tr_model_config *c)
{
    if (o->ctx)
        return (size_t)o->ctx;
    return c->context < TR_RUN_WINDOW && c->context >= 2 ? c->context : TR_RUN_WINDOW;
}

size_t tr_eval_max_logits(const tr_run_options *o, const tr_model_config *c)
{
    size_t n = LOGITS_SIZE / (c->n_vocab * sizeof(float)) + 1;

    return n < o->batch ? n : (size_t)o->batch;
}

/* ---- before the engine ------------------------------------------------------------------------
 */

static uint64_t hash_vocabulary(const tr_tokenizer *t)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < tr_tokenizer_n_vocab(t); i++) {
        tr_bytes piece = tr_tokenizer_piece(t, (uint32_t)i);
        uint64_t size = piece.size;
        hash = tr_eval_hash(hash, &size, sizeof size);
        hash = tr_eval_hash(hash, piece.data, piece.size);
    }
    return hash;
}

static uint64_t hash_text(const tr_eval_request *r)
{
    uint64_t hash = 0;

    for (size_t w = 0; w < tr_eval_windows(r->n, r->window); w++)
        for (size_t i = 0; i < r->window; i++) {
            uint32_t id = tr_eval_token(r, w, i);
            hash = tr_eval_hash(hash, &id, sizeof id);
        }
    return hash;
}

static void fill_header(tr_eval *v)
{
    const tr_run_options *o = v->s.options;
    const tr_eval_request *r = &v->request;
    const char *slash = strrchr(o->model, '/');
    size_t n_vocab = v->s.config->n_vocab;

    v->header = (tr_eval_header){
        .n_vocab = n_vocab,
        .vocabulary = hash_vocabulary(v->s.tokenizer),
        .window = r->window,
        .skip = r->skip,
        .text = hash_text(r),
        .n_positions = tr_eval_positions(r->n, r->window, r->skip),
        .top = o->top == 0 || o->top > n_vocab ? n_vocab : (size_t)o->top,
    };
    snprintf(v->header.model, sizeof v->header.model, "%s", slash ? slash + 1 : o->model);
}

static tr_status fill_request(tr_eval *v)
{
    const tr_run_options *o = v->s.options;
    const tr_tokenizer *t = v->s.tokenizer;
    bool is_text = !o->ids && !o->ids_file;
    tr_eval_request *r = &v->request;

    r->ids = v->s.text->ids;
    r->n = v->s.text->n;
    r->window = tr_eval_window(o, v->s.config);
    r->skip = o->has_skip ? (size_t)o->skip : r->window / 2 - (r->window == 2);
    r->max_logits = tr_eval_max_logits(o, v->s.config);
    r->has_bos =
        tr_tokenizer_bos(t, &r->bos) && is_text &&
        (o->bos == TR_RUN_BOS_ON || (o->bos == TR_RUN_BOS_AUTO && tr_tokenizer_adds_bos(t)));
    if (r->n < r->window)
        return tr_fail(TR_E_REQUEST,
                       "the text has %zu tokens, and a window %zu: give a longer text or a smaller "
                       "--ctx",
                       r->n, r->window);
    if (r->skip + 2 > r->window)
        return tr_fail(TR_E_USAGE,
                       "--skip %zu: a window of %zu tokens then has no position that "
                       "counts: give a smaller one",
                       r->skip, r->window);
    return TR_OK;
}

tr_status tr_eval_open(const tr_eval_setting *s, tr_eval **out)
{
    tr_eval *v = calloc(1, sizeof *v);

    if (!v)
        return tr_fail(TR_E_MEMORY, "eval: no memory");
    v->s = *s;
    tr_status st = fill_request(v);
    if (st == TR_OK && s->options->save)
        st = tr_new_file_check(s->options->save, s->options->overwrite);
    if (st == TR_OK)
        fill_header(v);
    if (st == TR_OK && s->options->kl) {
        st = tr_eval_reader_open(s->options->kl, &v->base);
        if (st == TR_OK)
            st = tr_eval_reader_check(v->base, &v->header);
        v->c.divergence = calloc(v->header.n_positions, sizeof *v->c.divergence);
        if (st == TR_OK && !v->c.divergence)
            st = tr_fail(TR_E_MEMORY, "eval: no memory for %zu positions", v->header.n_positions);
    }
    if (st != TR_OK) {
        tr_eval_close(&v);
        return st;
    }
    *out = v;
    return TR_OK;
}

void tr_eval_close(tr_eval **eval)
{
    tr_eval *v = *eval;

    if (!v)
        return;
    tr_eval_writer_abandon(&v->writer);
    tr_eval_reader_close(&v->base);
    free(v->c.divergence);
    free(v);
    *eval = NULL;
}

/* ---- the pass ----------------------------------------------------------------------------------
 */

static double perplexity_of(const tr_eval *v)
{
    double e = tr_exp(v->surprise.mean > 0 ? -v->surprise.mean : 0);

    return 1 / e; /* beyond e^700: infinite */
}

static uint32_t most_probable(const tr_eval_position *p)
{
    size_t best = 0;

    for (size_t i = 1; i < p->n_vocab; i++)
        if (p->logits[i] > p->logits[best])
            best = i;
    return (uint32_t)best;
}

static tr_status compare(tr_eval *v, const tr_eval_position *p, double log_prob)
{
    comparison *c = &v->c;
    tr_known known;
    double theirs = 0;

    tr_status st = tr_eval_reader_next(v->base, p->token, &known, &theirs);
    if (st != TR_OK)
        return st;
    double d = tr_divergence(&known, p->logits, p->log_total);
    c->divergence[c->mean.n] = d;
    tr_tally_add(&c->mean, d);
    tr_tally_add(&c->difference, log_prob - theirs);
    tr_tally_add(&c->known, known.is_whole ? 1 : tr_known_mass(&known));
    c->n_same += most_probable(p) == known.ids[0];
    return TR_OK;
}

/* A long text takes long: how it goes is said now and then. */
static void say_so_far(tr_eval *v)
{
    tr_time now = tr_now();

    if (now - v->said < said_period)
        return;
    v->said = now;
    tr_log(TR_LOG_INFO, "%zu of %zu positions: perplexity %.4f so far", v->surprise.n,
           v->header.n_positions, perplexity_of(v));
}

static tr_status on_position(void *ctx, const tr_eval_position *p)
{
    tr_eval *v = ctx;
    double log_prob = (double)p->logits[p->token] - p->log_total;
    tr_status st = TR_OK;

    tr_tally_add(&v->surprise, -log_prob);
    if (v->writer)
        st = tr_eval_writer_add(v->writer, p);
    if (st == TR_OK && v->base)
        st = compare(v, p, log_prob);
    say_so_far(v);
    return st;
}

static tr_status conclude(tr_eval *v)
{
    comparison *c = &v->c;
    size_t n = c->mean.n;
    tr_status st = TR_OK;

    if (v->base) {
        st = tr_eval_reader_end(v->base);
        tr_sort_ascending(c->divergence, n);
        c->median = tr_quantile(c->divergence, n, 0.5);
        c->p99 = tr_quantile(c->divergence, n, 0.99);
        c->largest = c->divergence[n - 1];
    }
    if (st == TR_OK && v->writer)
        st = tr_eval_writer_finish(&v->writer);
    return st;
}

/* ---- what is said ------------------------------------------------------------------------------
 */

static double rate(const tr_eval *v)
{
    tr_time t = v->result.elapsed;

    return t > 0 ? (double)v->result.n_fed * (double)TR_SECOND / (double)t : 0.0;
}

/* JSON has no infinities. */
static json_t *number(double x)
{
    json_t *v = json_real(x);

    return v ? v : json_null();
}

static json_t *comparison_json(const tr_eval *v)
{
    const comparison *c = &v->c;
    const tr_eval_header *h = tr_eval_reader_header(v->base);

    return json_pack("{s:o, s:o, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f, s:f}",
                     "base", tr_json_text(tr_bytes_of(v->s.options->kl)), "base_model",
                     tr_json_text(tr_bytes_of(h->model)), "base_kernels", h->kernels, "base_top",
                     (json_int_t)h->top, "base_known", c->known.mean, "mean", c->mean.mean,
                     "mean_error", tr_tally_error(&c->mean), "median", c->median, "p99", c->p99,
                     "largest", c->largest, "same_top", (json_int_t)c->n_same, "same_top_share",
                     (double)c->n_same / (double)c->mean.n, "log_prob_difference",
                     c->difference.mean, "log_prob_difference_error",
                     tr_tally_error(&c->difference));
}

static tr_status print_json(const tr_eval *v, const tr_engine *e)
{
    const tr_eval_request *r = &v->request;
    double perplexity = perplexity_of(v), error = tr_tally_error(&v->surprise);
    json_t *o = json_pack(
        "{s:o, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:o, s:o, s:f, s:f}", "model",
        tr_json_text(tr_bytes_of(v->s.options->model)), "kernels", tr_engine_kernels(e)->name,
        "workers", (int)tr_engine_n_workers(e), "tokens", (json_int_t)r->n, "windows",
        (json_int_t)v->result.n_windows, "ctx", (json_int_t)r->window, "skip", (json_int_t)r->skip,
        "positions", (json_int_t)v->result.n_positions, "bos", (int)r->has_bos, "mean_surprise",
        v->surprise.mean, "mean_surprise_error", error, "perplexity", number(perplexity),
        "perplexity_error", number(perplexity * error), "load_seconds",
        tr_engine_get_stats(e).load_seconds, "tokens_per_second", rate(v));
    if (o && v->base)
        json_object_set_new(o, "kl", comparison_json(v));
    char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    json_decref(o);
    if (!text)
        return tr_fail(TR_E_MEMORY, "eval: no memory for the JSON object");
    tr_launch_count_output(strlen(text) + 1);
    puts(text);
    free(text);
    return TR_OK;
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    tr_launch_count_output(strlen(line));
    fputs(line, stdout);
}

static void print_comparison(const tr_eval *v)
{
    const comparison *c = &v->c;
    const tr_eval_header *h = tr_eval_reader_header(v->base);

    say("against %s, kernels %s:\n", h->model, h->kernels);
    say("divergence        mean %.6g +- %.2g, median %.6g, 99 %% %.6g, largest %.6g\n",
        c->mean.mean, tr_tally_error(&c->mean), c->median, c->p99, c->largest);
    say("same first token  %.2f %% (%zu of %zu)\n", 100.0 * (double)c->n_same / (double)c->mean.n,
        c->n_same, c->mean.n);
    say("ln p of the text  %+.6g +- %.2g beside the base\n", c->difference.mean,
        tr_tally_error(&c->difference));
    if (h->top < h->n_vocab)
        say("the base kept %zu tokens of each position, %.2f %% of the probability; the rest is "
            "taken as one, so the divergence is a lower bound\n",
            h->top, 100.0 * c->known.mean);
}

static void print_text(const tr_eval *v)
{
    double perplexity = perplexity_of(v), error = tr_tally_error(&v->surprise);

    say("perplexity        %.4f +- %.4f (mean -ln p %.5f +- %.5f)\n", perplexity,
        perplexity * error, v->surprise.mean, error);
    say("positions         %zu, from %zu on in %zu windows of %zu tokens\n", v->result.n_positions,
        v->request.skip, v->result.n_windows, v->request.window);
    if (v->base)
        print_comparison(v);
}

tr_status tr_eval_run(tr_eval *v, tr_engine *e)
{
    const tr_run_options *o = v->s.options;
    tr_status st = TR_OK;

    snprintf(v->header.kernels, sizeof v->header.kernels, "%s", tr_engine_kernels(e)->name);
    if (o->save)
        st = tr_eval_writer_new(o->save, o->overwrite, &v->header, &v->writer);
    v->request.on_position = on_position;
    v->request.ctx = v;
    v->said = tr_now();
    if (st == TR_OK)
        st = tr_evaluate(e, &v->request, &v->result);
    if (st == TR_OK)
        st = conclude(v);
    if (st != TR_OK)
        return st;
    if (o->json)
        st = print_json(v, e);
    else
        print_text(v);
    if (st == TR_OK && (fflush(stdout) != 0 || ferror(stdout)))
        st = tr_fail(TR_E_IO, "standard output: write: %s", strerror(errno));
    tr_log(TR_LOG_INFO, "read %zu tokens of %zu, %.1f tokens/s; loaded in %.2f s; kernels %s",
           v->result.n_fed, v->request.n, rate(v), tr_engine_get_stats(e).load_seconds,
           tr_engine_kernels(e)->name);
    return st;
}
