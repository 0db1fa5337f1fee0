/* run.c - open what is needed in the order in which things can go wrong cheaply, generate, sum up.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/run.h"

#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "coordinator/cluster/cluster.h"
#include "coordinator/cluster/config.h"
#include "coordinator/cluster/job.h"
#include "coordinator/cluster/launch.h"
#include "coordinator/cluster/replacement.h"
#include "coordinator/commands/answer.h"
#include "coordinator/commands/compare.h"
#include "coordinator/commands/eval.h"
#include "coordinator/commands/talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

enum { TALK_CONTEXT = 8192 }; /* tokens of a conversation, unless told */

typedef struct {
    tr_run_options o;
    tr_job job; /* without transports when alone */
    uint32_t n_workers;
    tr_gguf *gguf;
    tr_tokenizer *tokenizer;
    tr_prompt prompt;
    tr_chat *chat; /* NULL: one prompt */
    tr_engine *engine;
    tr_answer *answer;
    tr_eval *eval;         /* NULL: the command is run */
    bool had_engine;
    tr_fault_plan *faults; /* NULL: none */
    uint32_t *kept;        /* [tokens] with faults: what was generated, to be compared */
    size_t n_kept;
    tr_finish finish;
    const char *kernels; /* of engine */
    uint64_t seed;
    size_t context, max_logits;
} run;

static tr_status open_transport(run *r)
{
    static const char *const names[] = {
        [TR_RUN_TRANSPORT_MPI] = "mpi",
        [TR_RUN_TRANSPORT_ZMQ] = "zmq",
    };
    tr_job_options o = { .listen = r->o.listen,
                         .join_timeout = (tr_time)r->o.join_timeout_ms * TR_MS,
                         .by_zmq = r->o.transport == TR_RUN_TRANSPORT_ZMQ || r->o.outside > 0,
                         .n_outside = (uint32_t)r->o.outside };

    if (r->o.transport == TR_RUN_TRANSPORT_INPROC && tr_job_exists())
        return tr_fail(TR_E_USAGE, "--transport inproc: the workers of this job need mpi or zmq");
    if (!tr_job_exists() && r->o.outside == 0)
        return r->o.transport == TR_RUN_TRANSPORT_MPI || r->o.transport == TR_RUN_TRANSPORT_ZMQ
                   ? tr_fail(TR_E_USAGE, "--transport %s: not started by mpirun: use -w N",
                             names[r->o.transport])
                   : TR_OK;
    tr_status st = tr_job_open(&o, &r->job);
    if (st == TR_OK)
        r->n_workers = r->job.data->n_peers;
    return st;
}

static tr_sampling sampling_of(const run *r)
{
    return (tr_sampling){ .temperature = (float)r->o.temp,
                          .top_p = (float)r->o.top_p,
                          .min_p = (float)r->o.min_p,
                          .repeat_penalty = (float)r->o.repeat_penalty,
                          .top_k = (uint32_t)r->o.top_k,
                          .repeat_window = tr_sampling_default().repeat_window,
                          .seed = r->seed };
}

static tr_status open_eval(run *r, const tr_model_config *config)
{
    tr_eval_setting s = { &r->o, r->tokenizer, config, &r->prompt };

    r->context = tr_eval_window(&r->o, config);
    r->max_logits = tr_eval_max_logits(&r->o, config);
    if (r->context > config->context)
        tr_log(TR_LOG_WARN, "--ctx %zu: the model was trained for %u tokens", r->context,
               config->context);
    return tr_eval_open(&s, &r->eval);
}

static tr_status open_text(run *r)
{
    tr_model_config config;
    tr_sampling sampling = sampling_of(r);

    tr_status st = tr_sampling_check(&sampling);
    if (st == TR_OK)
        st = tr_gguf_open(r->o.model, &r->gguf);
    if (st == TR_OK)
        st = tr_model_config_read(r->gguf, &config);
    if (st == TR_OK)
        st = tr_tokenizer_new(r->gguf, &r->tokenizer);
    if (st != TR_OK)
        return st;
    if (r->o.chat) {
        size_t most = config.context < TALK_CONTEXT ? config.context : TALK_CONTEXT;
        r->context = r->o.ctx ? (size_t)r->o.ctx : most;
        return tr_chat_open(r->gguf, r->tokenizer, r->o.chat_template, &r->chat);
    }
    st = tr_prompt_read(&r->o, r->tokenizer, &r->prompt);
    if (st != TR_OK)
        return st;
    if (r->o.is_eval)
        return open_eval(r, &config);

    /* A cache for what can be needed, not for all that the model could do. */
    size_t limit = r->o.ctx ? (size_t)r->o.ctx : config.context;
    if (r->prompt.n > limit)
        return tr_fail(TR_E_REQUEST,
                       "the prompt has %zu tokens, but the context only %zu: shorten it%s",
                       r->prompt.n, limit, r->o.ctx ? " or raise --ctx" : "");
    if (r->o.ctx > config.context)
        tr_log(TR_LOG_WARN, "--ctx %llu: the model was trained for %u tokens",
               (unsigned long long)r->o.ctx, config.context);
    if (r->prompt.n == limit && r->o.tokens > 0)
        return tr_fail(TR_E_REQUEST,
                       "the prompt fills the context of %zu tokens, so nothing can follow: shorten "
                       "it%s",
                       limit, r->o.ctx ? " or raise --ctx" : "");
    if (r->o.tokens > limit - r->prompt.n) {
        r->o.tokens = limit - r->prompt.n;
        tr_log(TR_LOG_INFO, "the context has room for %llu tokens more",
               (unsigned long long)r->o.tokens);
    }
    r->context = r->prompt.n + (size_t)r->o.tokens;
    return TR_OK;
}

static tr_type kv_type_of(tr_run_kv kv)
{
    return kv == TR_RUN_KV_F32 ? TR_TYPE_F32 : kv == TR_RUN_KV_F16 ? TR_TYPE_F16 : TR_TYPE_Q8_0;
}

/* What this process computes, and how. */
static tr_engine_options engine_alone(const run *r)
{
    tr_engine_options e = tr_engine_defaults();

    e.gguf = r->gguf;
    e.threads = (size_t)r->o.threads;
    e.isa = r->o.isa;
    e.exact = r->o.activations == TR_RUN_ACTIVATIONS_F32;
    e.ignores_groups = r->o.expert_groups == TR_RUN_GROUPS_OFF;
    e.kv_type = kv_type_of(r->o.kv);
    e.max_rows = (size_t)r->o.batch;
    e.context = r->context;
    e.max_logits = r->max_logits;
    return e;
}

static tr_status open_engine(run *r)
{
    tr_engine_options e = engine_alone(r);

    e.transport = r->job.data;
    e.inviter = r->job.inviter;
    e.invite_dir = r->o.invite_dir;
    e.n_outside = (uint32_t)r->o.outside;
    e.n_workers = r->n_workers;
    e.listen = r->o.listen;
    e.placement = r->o.n_experts                          ? TR_PLACE_COUNTS
                  : r->o.placement == TR_RUN_PLACE_ROTATE ? TR_PLACE_ROTATE
                                                          : TR_PLACE_EVEN;
    e.expert_counts = r->o.n_experts ? r->o.experts : NULL;
    e.n_expert_counts = r->o.n_experts;
    e.join_timeout = (tr_time)r->o.join_timeout_ms * TR_MS;
    e.suspect_timeout = (tr_time)r->o.suspect_ms * TR_MS;
    e.silence_timeout = (tr_time)r->o.silence_ms * TR_MS;
    e.faults = r->faults;
    e.replacement = tr_replacement_choice(r->o.replacement, &e.replaces_here);
    e.memory = r->o.memory_mib << 20;
    e.worker_memory = r->o.worker_memory_mib << 20;
    e.coordinator_memory = r->o.coordinator_memory_mib << 20;
    e.share_timeout = (tr_time)r->o.timeout_ms * TR_MS;
    e.progress = !r->o.quiet && (r->o.progress || isatty(STDERR_FILENO));
    tr_status st = tr_engine_open(&e, &r->engine);
    if (st != TR_OK)
        return st;
    r->had_engine = true;
    r->kernels = tr_engine_kernels(r->engine)->name;
    r->kept = r->faults ? calloc((size_t)r->o.tokens + 1, sizeof *r->kept) : NULL;
    return r->faults && !r->kept ? tr_fail(TR_E_MEMORY, "run: no memory for %llu tokens",
                                           (unsigned long long)r->o.tokens)
                                 : TR_OK;
}

static tr_status choose_seed(run *r)
{
    r->seed = r->o.seed;
    if (!r->o.has_seed && getrandom(&r->seed, sizeof r->seed, 0) != (ssize_t)sizeof r->seed)
        return tr_fail(TR_E_SYSTEM, "no random seed to be had: give --seed");
    return TR_OK;
}

static double rate(size_t n, tr_time t)
{
    return t > 0 ? (double)n * (double)TR_SECOND / (double)t : 0.0;
}

/* As many workers on a line as fit. */
static void sum_up_workers(const run *r, const tr_engine_stats *s)
{
    enum { PER_LINE = 16 };
    char line[PER_LINE * 34];

    for (uint32_t w = 1; w <= r->n_workers;) {
        size_t used = 0;
        for (int i = 0; i < PER_LINE && w <= r->n_workers; i++, w++)
            used += (size_t)snprintf(line + used, sizeof line - used, " %u: %llu", w,
                                     (unsigned long long)s->dispatch.peer_rows[w]);
        tr_log(TR_LOG_INFO, "rows per worker:%s", line);
    }
}

static void sum_up(const run *r, const tr_generate_result *g, const tr_engine_stats *s)
{
    size_t n = g->n_prompt + g->n_generated;

    tr_log(TR_LOG_INFO,
           "prompt %zu tokens, %.1f tokens/s; generated %zu tokens, %.1f tokens/s; loaded in "
           "%.2f s; kernels %s; seed %llu",
           g->n_prompt, rate(g->n_prompt, g->prefill), g->n_generated,
           rate(g->n_generated > 0 ? g->n_generated - 1 : 0, g->decode), s->load_seconds,
           tr_engine_kernels(r->engine)->name, (unsigned long long)r->seed);
    if (r->n_workers == 0)
        return;
    tr_log(TR_LOG_INFO, "sent %.0f and received %.0f bytes per token",
           (double)s->transport.bytes_sent / (double)n,
           (double)s->transport.bytes_received / (double)n);
    sum_up_workers(r, s);
    if (s->recovery.lost + s->recovery.suspected > 0)
        tr_log(
            TR_LOG_INFO,
            "%llu workers lost, %llu replaced, %llu suspected, %llu back; %llu experts moved, %llu "
            "shares sent again, longest stall %.0f ms",
            (unsigned long long)s->recovery.lost, (unsigned long long)s->recovery.replaced,
            (unsigned long long)s->recovery.suspected, (unsigned long long)s->recovery.returned,
            (unsigned long long)s->recovery.experts_moved,
            (unsigned long long)s->recovery.shares_resent,
            (double)s->recovery.longest_stall / (double)TR_MS);
}

static bool is_end(void *ctx, uint32_t id)
{
    return tr_answer_is_end(((run *)ctx)->answer, id);
}

static bool take_token(void *ctx, const tr_generated *token)
{
    run *r = ctx;

    if (r->kept)
        r->kept[r->n_kept++] = token->id;
    return tr_answer_token(r->answer, token);
}

static tr_generate_request request_of(run *r)
{
    return (tr_generate_request){ .prompt = r->prompt.ids,
                                  .n_prompt = r->prompt.n,
                                  .max_tokens = (size_t)r->o.tokens,
                                  .sampling = sampling_of(r),
                                  .wants_log_probs = r->o.json,
                                  .n_alternatives = (size_t)r->o.logprobs,
                                  .is_end = is_end,
                                  .on_token = take_token,
                                  .ctx = r };
}

static tr_status generate(run *r)
{
    tr_generate_request q = request_of(r);
    tr_generate_result g;

    tr_status st = tr_generate(r->engine, &q, &g);
    if (st != TR_OK)
        return st;
    r->finish = g.finish;
    tr_engine_stats s = tr_engine_get_stats(r->engine);
    tr_report report = { &r->o,   &r->prompt,  &g, &s, tr_engine_kernels(r->engine)->name,
                         r->seed, r->n_workers };
    st = tr_answer_finish(r->answer, &report);
    if (st == TR_OK)
        sum_up(r, &g, &s);
    return st;
}

/* All experts in this process: is there room? */
static tr_status has_room(const run *r, bool *out)
{
    uint64_t limit = r->o.coordinator_memory_mib ? r->o.coordinator_memory_mib << 20
                                                 : tr_memory_available() / 10 * 9;
    uint64_t size = 0;
    tr_expert_map map;

    tr_status st = tr_expert_map_read(r->gguf, &map);
    if (st != TR_OK)
        return st;
    for (uint32_t l = 0; l < map.n_layers; l++)
        if (tr_expert_map_has(&map, l))
            size += map.layer[l].n_experts * tr_expert_map_bytes(&map, l);
    tr_expert_map_fini(&map);
    *out = size <= limit;
    if (!*out)
        tr_log(TR_LOG_INFO,
               "faults: the output is not compared: the coordinator alone would need %llu MiB for "
               "all experts and has %llu: compare with a run without --faults",
               (unsigned long long)(size >> 20), (unsigned long long)(limit >> 20));
    return TR_OK;
}

/* After a run under faults: the same request, by the coordinator alone. */
static tr_status compare(run *r)
{
    const tr_output output = { r->kept, r->n_kept, r->finish };
    tr_generate_request q = request_of(r);
    size_t place = 0;
    bool fits = false;

    tr_engine_close(&r->engine);
    tr_status st = has_room(r, &fits);
    if (st != TR_OK || !fits)
        return st;
    tr_engine_options e = engine_alone(r);
    e.isa = r->kernels;
    st = tr_engine_open(&e, &r->engine);
    if (st == TR_OK)
        st = tr_compare(r->engine, &q, &output, &place);
    if (st != TR_OK)
        return st;
    if (place != TR_SAME)
        return tr_fail(
            TR_E_PEER_LOST,
            "faults: the output is wrong from token %zu of %zu on: the coordinator alone "
            "goes on in another way; please report it, with the plan, the model and "
            "--seed %llu",
            place + 1, output.n, (unsigned long long)r->seed);
    tr_log(TR_LOG_INFO,
           "faults: the output is equal to that of the coordinator alone, all %zu "
           "tokens",
           output.n);
    return TR_OK;
}

static tr_status talk(run *r)
{
    tr_talk_options t = { .engine = r->engine,
                          .tokenizer = r->tokenizer,
                          .chat = r->chat,
                          .options = &r->o,
                          .sampling = sampling_of(r),
                          .context = r->context };

    return tr_talk(&t);
}

static void close_all(run *r, tr_status st)
{
    tr_eval_close(&r->eval);
    tr_answer_free(&r->answer);
    tr_engine_close(&r->engine);
    tr_fault_plan_free(&r->faults);
    free(r->kept);
    tr_chat_close(&r->chat);
    tr_prompt_fini(&r->prompt);
    tr_tokenizer_free(&r->tokenizer);
    tr_gguf_close(&r->gguf);
    tr_job_close(&r->job, st, r->had_engine);
}

static tr_status coordinate(run *r)
{
    tr_interrupt_watch();
    tr_status st = open_transport(r);
    if (st == TR_OK)
        st = choose_seed(r);
    if (st == TR_OK)
        st = tr_fault_plan_open(r->o.faults, r->n_workers, &r->faults);
    if (st == TR_OK)
        st = open_text(r);
    if (st == TR_OK)
        st = open_engine(r);
    if (st == TR_OK && !r->chat && !r->eval)
        st = tr_answer_new(&r->o, r->tokenizer, &r->answer);
    if (st == TR_OK)
        st = r->eval ? tr_eval_run(r->eval, r->engine) : r->chat ? talk(r) : generate(r);
    if (r->engine)
        tr_engine_print_faults(r->engine);
    if (st == TR_OK && r->faults && !r->chat && !r->eval)
        st = compare(r);
    if (st == TR_E_INTERRUPTED)
        tr_log(TR_LOG_WARN, "interrupted");
    close_all(r, st);
    return st;
}

/* Start everything with mpirun, and end as the coordinator ended. */
static tr_status launch(const tr_run_options *o, int argc, char **argv)
{
    tr_cluster_config *config = NULL;
    tr_fault_plan *faults = NULL;
    int exit_code = 0;
    tr_status st = o->cluster ? tr_cluster_config_load(o->cluster, &config) : TR_OK;

    if (st == TR_OK && o->faults) /* a mistake is said before anything starts */
        st = tr_fault_plan_load(o->faults, &faults);
    tr_fault_plan_free(&faults);
    if (st == TR_OK)
        st = tr_launch_run(o, config, argc, argv, &exit_code);
    tr_cluster_config_free(&config);
    return st == TR_OK ? tr_launch_status(exit_code) : st;
}

tr_status tr_command_run(int argc, char **argv)
{
    run *r = calloc(1, sizeof *r);
    bool done = false;

    if (!r)
        return tr_fail(TR_E_MEMORY, "run: no memory");
    r->max_logits = tr_engine_defaults().max_logits;
    tr_status st = tr_run_options_parse(argc, argv, &r->o, &done);
    if (st == TR_OK && !done) {
        tr_log_set_level(r->o.verbose ? TR_LOG_DEBUG : r->o.quiet ? TR_LOG_ERROR : TR_LOG_INFO);
        if (r->o.workers > 0 || r->o.cluster)
            st = launch(&r->o, argc, argv);
        else
            st = coordinate(r);
    }
    free(r);
    return st;
}
