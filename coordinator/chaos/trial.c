/* trial.c - draw a cluster and its troubles, run it, judge it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/chaos/trial.h"

#include "base/check.h"
#include "base/rng.h"
#include "coordinator/engine/engine.h"
#include "proto/frame.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Two sequences; the first begins with a chunk alone, then with the second's chunk beside it. */
enum { N_SEQUENCES = 2, FIRST_CHUNK = 5, SECOND_CHUNK = 3, OTHER_CHUNK = 4, MAX_ROWS = 8 };

enum { MAX_MESSAGE = 64 << 20 };

/* Longer than any run that gets on: it waits 30 s for answers, 600 s for a coordinator that is
 * gone, and slow disks take their time. */
static const tr_time time_limit = 24 * 3600 * TR_SECOND;

struct tr_trials {
    tr_trials_options o;
    size_t n_vocab, n_rows; /* rows of logits in a whole run */
    uint64_t expert_bytes, largest_expert;
    float *want;  /* [n_rows][n_vocab] */
    tr_time calm; /* that a run without faults takes, in its world */
};

/* ---- generating ---------------------------------------------------------------------------- */

/* A run's tokens: those of the prompts by number, then the likeliest. */
typedef struct {
    tr_engine *engine;
    tr_sequence *sequence[N_SEQUENCES];
    uint32_t next[N_SEQUENCES];
    size_t n_vocab;
    size_t n_done;     /* rows of logits */
    float *scratch;    /* [N_SEQUENCES][n_vocab] of one step */
    float *out;        /* [n_rows][n_vocab]: to be kept */
    const float *want; /* or to be compared with */
    bool differs;
} run;

static uint32_t prompt_token(const run *r, size_t sequence, size_t at)
{
    return (uint32_t)((sequence * 131 + at * 97 + 1) % r->n_vocab);
}

static uint32_t likeliest(const float *logits, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (uint32_t)best;
}

/* Rows that want logits are those of the sequences in which, in order. */
static tr_status step(run *r, const tr_row *rows, size_t n, const size_t *which, size_t n_which)
{
    size_t size = n_which * r->n_vocab;

    tr_status st = tr_engine_step(r->engine, rows, n, r->scratch);
    if (st != TR_OK)
        return st;
    if (r->out)
        memcpy(r->out + r->n_done * r->n_vocab, r->scratch, size * sizeof(float));
    else
        r->differs = r->differs || memcmp(r->want + r->n_done * r->n_vocab, r->scratch,
                                          size * sizeof(float)) != 0;
    for (size_t i = 0; i < n_which; i++)
        r->next[which[i]] = likeliest(r->scratch + i * r->n_vocab, r->n_vocab);
    r->n_done += n_which;
    return TR_OK;
}

static tr_status read_prompts(run *r)
{
    static const size_t both[] = { 0, 1 };
    tr_row rows[MAX_ROWS];
    size_t n = 0;

    for (size_t i = 0; i < FIRST_CHUNK; i++)
        rows[i] = (tr_row){ r->sequence[0], prompt_token(r, 0, i), i + 1 == FIRST_CHUNK };
    tr_status st = step(r, rows, FIRST_CHUNK, both, 1);
    for (size_t i = 0; i < SECOND_CHUNK; i++)
        rows[n++] =
            (tr_row){ r->sequence[0], prompt_token(r, 0, FIRST_CHUNK + i), i + 1 == SECOND_CHUNK };
    for (size_t i = 0; i < OTHER_CHUNK; i++)
        rows[n++] = (tr_row){ r->sequence[1], prompt_token(r, 1, i), i + 1 == OTHER_CHUNK };
    return st == TR_OK ? step(r, rows, n, both, 2) : st;
}

/* One token, then one of each sequence, and so on. */
static tr_status generate(run *r, size_t n_rows)
{
    static const size_t both[] = { 0, 1 };
    tr_status st = TR_OK;

    for (size_t i = 0; i < N_SEQUENCES && st == TR_OK; i++)
        st = tr_sequence_new(r->engine, &r->sequence[i]);
    if (st == TR_OK)
        st = read_prompts(r);
    for (size_t round = 0; r->n_done < n_rows && st == TR_OK && !r->differs; round++) {
        size_t n = round % 2 == 0 || r->n_done + 1 == n_rows ? 1 : 2;
        tr_row rows[N_SEQUENCES];
        for (size_t i = 0; i < n; i++)
            rows[i] = (tr_row){ r->sequence[i], r->next[i], true };
        st = step(r, rows, n, both, n);
    }
    for (size_t i = 0; i < N_SEQUENCES; i++)
        tr_sequence_free(&r->sequence[i]);
    return st;
}

static tr_engine_options engine_options(const tr_trials *t)
{
    tr_engine_options o = tr_engine_defaults();

    o.gguf = t->o.gguf;
    o.threads = 1;
    o.max_rows = MAX_ROWS;
    o.max_logits = N_SEQUENCES;
    o.n_sequences = N_SEQUENCES;
    o.context = FIRST_CHUNK + SECOND_CHUNK + t->o.n_tokens;
    return o;
}

/* ---- what is right ------------------------------------------------------------------------- */

static tr_status compute_right(tr_trials *t)
{
    tr_engine_options o = engine_options(t);
    run r = { 0 };

    tr_status st = tr_engine_open(&o, &r.engine);
    if (st != TR_OK)
        return st;
    t->n_vocab = r.n_vocab = tr_engine_model(r.engine)->config.n_vocab;
    t->n_rows = 3 + t->o.n_tokens; /* the prompts' last rows, then a token each */
    t->want = r.out = calloc(t->n_rows * t->n_vocab, sizeof(float));
    r.scratch = calloc(N_SEQUENCES * t->n_vocab, sizeof(float));
    if (!r.out || !r.scratch)
        st = tr_fail(TR_E_MEMORY, "chaos: no memory for the logits of %zu tokens", t->n_rows);
    if (st == TR_OK)
        st = generate(&r, t->n_rows);
    free(r.scratch);
    tr_engine_close(&r.engine);
    return st;
}

/* As the budgets of recovery count them. */
static tr_status measure_experts(tr_trials *t)
{
    tr_expert_map map;

    tr_status st = tr_expert_map_read(t->o.gguf, &map);
    if (st != TR_OK)
        return st;
    for (uint32_t l = 0; l < map.n_layers; l++) {
        if (!tr_expert_map_has(&map, l))
            continue;
        uint64_t bytes = tr_expert_map_bytes(&map, l);
        t->expert_bytes += map.layer[l].n_experts * bytes;
        t->largest_expert = bytes > t->largest_expert ? bytes : t->largest_expert;
    }
    tr_expert_map_fini(&map);
    return TR_OK;
}

/* Faults come while a run goes on, so it must be known how long one takes. */
static tr_status measure_calm(tr_trials *t)
{
    tr_trial calm = { .n_workers = 2,
                      .rules = tr_sim_calm(),
                      .worker_memory = t->expert_bytes,
                      .coordinator_memory = t->expert_bytes };
    tr_trial_result result;

    tr_status st = tr_trial_run(t, &calm, &result);
    if (st != TR_OK)
        return st;
    t->calm = result.elapsed;
    if (result.verdict != TR_VERDICT_EQUAL)
        st = tr_fail(TR_E_SYSTEM, "chaos: the simulated cluster fails without faults: %s: %s",
                     tr_verdict_name(result.verdict), result.line);
    tr_trial_result_fini(&result);
    return st;
}

tr_status tr_trials_new(const tr_trials_options *o, tr_trials **out)
{
    tr_trials *t = calloc(1, sizeof *t);

    TR_CHECK(o->n_tokens >= 1);
    if (!t)
        return tr_fail(TR_E_MEMORY, "chaos: no memory");
    t->o = *o;
    tr_status st = measure_experts(t);
    if (st == TR_OK)
        st = compute_right(t);
    if (st == TR_OK)
        st = measure_calm(t);
    if (st != TR_OK) {
        tr_trials_free(&t);
        return st;
    }
    *out = t;
    return TR_OK;
}

void tr_trials_free(tr_trials **t)
{
    if (!*t)
        return;
    free((*t)->want);
    free(*t);
    *t = NULL;
}

uint64_t tr_trials_expert_bytes(const tr_trials *t)
{
    return t->expert_bytes;
}

/* ---- drawing ------------------------------------------------------------------------------- */

/* How many troubles a world has. */
enum { FEW, SOME, MANY, N_MOODS };

/* Streams of random numbers, none of them sim's. */
enum { DRAW_SHAPE = 1 << 20, DRAW_RATE, DRAW_MEMORY };

static uint64_t draw(uint64_t seed, uint32_t stream, uint64_t nth, uint64_t below)
{
    return tr_rng_u64(seed, stream, nth) % below;
}

/* The rates, in the order of tr_sim_what, and the highest that is drawn for each. */
static tr_sim_rate *rate_of(tr_sim_rules *r, size_t what, tr_sim_rate *max)
{
    tr_sim_rate *const rate[TR_TRIAL_N_FAULTS] = {
        &r->late,   &r->lost,     &r->twice, &r->corrupt,   &r->not_a_number,    &r->no_block,
        &r->killed, &r->vanished, &r->hung,  &r->slow_disk, &r->short_of_memory, &r->wrong,
        &r->cut,    &r->unlinked, &r->stuck,
    };
    /* of a thousand messages or blocks few, of a thousand workers many */
    static const tr_sim_rate highest[TR_TRIAL_N_FAULTS] = { 20,  8,   20,  8,   20,  40,  400, 300,
                                                            500, 500, 200, 200, 400, 300, 300 };

    *max = highest[what];
    return rate[what];
}

static void draw_rates(uint64_t seed, tr_sim_rules *r)
{
    uint64_t mood = draw(seed, DRAW_SHAPE, 0, N_MOODS);
    size_t one = draw(seed, DRAW_SHAPE, 1, TR_TRIAL_N_FAULTS);
    size_t other = draw(seed, DRAW_SHAPE, 2, TR_TRIAL_N_FAULTS);

    for (size_t what = 0; what < TR_TRIAL_N_FAULTS; what++) {
        tr_sim_rate max;
        tr_sim_rate *rate = rate_of(r, what, &max);
        bool is_on = mood == MANY || (mood == FEW && (what == one || what == other)) ||
                     (mood == SOME && draw(seed, DRAW_SHAPE, 16 + what, 3) == 0);
        *rate = is_on ? 1 + (tr_sim_rate)draw(seed, DRAW_RATE, what, max) : 0;
    }
}

/* Mostly there is room for everything everywhere.  Else the workers have little more than their
 * own, or the coordinator has none, or both. */
static void draw_memory(const tr_trials *t, uint64_t seed, tr_trial *trial)
{
    uint64_t all = t->expert_bytes;
    uint64_t own = all / trial->n_workers + t->largest_expert;

    trial->worker_memory = trial->coordinator_memory = all;
    if (draw(seed, DRAW_MEMORY, 0, 4) != 0)
        return;
    if (draw(seed, DRAW_MEMORY, 1, 3) != 0)
        trial->worker_memory = own + draw(seed, DRAW_MEMORY, 2, all / 2 + 1);
    if (draw(seed, DRAW_MEMORY, 3, 3) != 0)
        trial->coordinator_memory = 1 + draw(seed, DRAW_MEMORY, 4, all / 2 + 1);
}

tr_trial tr_trial_draw(const tr_trials *t, uint64_t seed, tr_peer n_workers)
{
    tr_trial trial = { .seed = seed, .n_workers = n_workers, .rules = tr_sim_calm() };
    tr_sim_rules *r = &trial.rules;

    if (n_workers == 0)
        trial.n_workers = 2 + (tr_peer)draw(seed, DRAW_SHAPE, 3, 5);
    r->delay_max = TR_US * (tr_time)(200 << draw(seed, DRAW_SHAPE, 4, 6));
    r->tells_losses = draw(seed, DRAW_SHAPE, 5, 2) != 0;
    r->spared = 1 + draw(seed, DRAW_SHAPE, 6, 4);
    draw_rates(seed, r);
    r->late_max = TR_MS << draw(seed, DRAW_SHAPE, 7, 12);
    /* A worker that is lost before it has joined is the end by design, so most worlds wait. */
    r->onset = draw(seed, DRAW_SHAPE, 8, 16) == 0 ? 0 : 4 * r->delay_max + 20 * TR_MS;
    r->horizon = r->onset + (t->calm << draw(seed, DRAW_SHAPE, 9, 6));
    r->hang_max = TR_MS << draw(seed, DRAW_SHAPE, 10, 15);
    r->cut_max = TR_MS << draw(seed, DRAW_SHAPE, 11, 15);
    r->read_max = TR_US << draw(seed, DRAW_SHAPE, 12, 15);
    r->short_block = t->largest_expert / 8 + 1;
    draw_memory(t, seed, &trial);
    return trial;
}

/* ---- running ------------------------------------------------------------------------------- */

/* What the coordinator of a world came to. */
typedef struct {
    tr_status st;
    bool is_open; /* the engine opened */
    bool differs;
    uint32_t n_ready; /* workers, at the end */
    tr_recovery_stats recovery;
    char line[512];
} outcome;

static void run_coordinator(const tr_trials *t, const tr_trial *trial, tr_transport *transport,
                            float *scratch, outcome *out)
{
    tr_engine_options o = engine_options(t);
    run r = { .n_vocab = t->n_vocab, .scratch = scratch, .want = t->want };

    o.transport = transport;
    o.n_workers = trial->n_workers;
    o.worker_memory = trial->worker_memory;
    o.coordinator_memory = trial->coordinator_memory;
    tr_fail_capture_begin(out->line, sizeof out->line);
    out->st = tr_engine_open(&o, &r.engine);
    out->is_open = out->st == TR_OK;
    if (out->is_open) {
        out->st = generate(&r, t->n_rows);
        out->differs = r.differs;
        out->recovery = tr_engine_get_stats(r.engine).recovery;
        for (uint32_t w = 1; w <= trial->n_workers; w++)
            out->n_ready += strcmp(tr_engine_worker(r.engine, w).state, "ready") == 0;
    }
    tr_fail_capture_end();
    tr_engine_close(&r.engine);
}

static tr_status copy_record(const tr_sim *sim, tr_trial_result *out)
{
    const tr_sim_event *event = tr_sim_record(sim, &out->n_record);

    out->record = calloc(out->n_record + 1, sizeof *out->record);
    if (!out->record)
        return tr_fail(TR_E_MEMORY, "chaos: no memory for a record");
    if (out->n_record > 0)
        memcpy(out->record, event, out->n_record * sizeof *event);
    return TR_OK;
}

/* ---- judging ------------------------------------------------------------------------------- */

static bool has_happened(const tr_trial_result *r, tr_sim_what what)
{
    for (size_t i = 0; i < r->n_record; i++)
        if (r->record[i].fault.what == what)
            return true;
    return false;
}

/* Could those who are left have had room?  Blocks that were refused make a worker full, which
 * nobody sees from here; substitutes keep what they took for one who came back, and the
 * coordinator what it loaded to judge a worker's numbers; and the room for an expert may be there
 * in several pieces. */
static bool was_short(const tr_trials *t, const tr_trial *trial, const outcome *o,
                      const tr_trial_result *r)
{
    if (trial->coordinator_memory >= t->expert_bytes)
        return false;
    if (!o->is_open || has_happened(r, TR_SIM_NO_BLOCK) || has_happened(r, TR_SIM_SHORT_OF_MEMORY))
        return true;
    bool has_judged = has_happened(r, TR_SIM_NOT_A_NUMBER) || has_happened(r, TR_SIM_WRONG);
    uint64_t here = has_judged ? 0 : trial->coordinator_memory;
    uint64_t room = here + o->n_ready * trial->worker_memory;
    uint64_t pieces = o->n_ready + 1;
    uint64_t kept = o->recovery.returned > 0 ? o->recovery.experts_moved : 0;
    return room < t->expert_bytes + (pieces + kept) * t->largest_expert;
}

static bool says_no_room(const outcome *o)
{
    return o->st == TR_E_PEER_LOST && strstr(o->line, "no process that is left has memory for");
}

/* Only who is killed, silent or cut off can fail to join. */
static bool says_not_joined(const outcome *o)
{
    return !o->is_open && (o->st == TR_E_PEER_LOST || o->st == TR_E_DEADLINE) &&
           !strstr(o->line, "did not load in time");
}

static tr_verdict judge(const tr_trials *t, const tr_trial *trial, const outcome *o,
                        const tr_trial_result *r, tr_status left)
{
    if (o->differs)
        return TR_VERDICT_DIFFERS;
    if (left != TR_OK)
        return TR_VERDICT_LEFT_BEHIND;
    if (o->st == TR_OK)
        return TR_VERDICT_EQUAL;
    if (says_no_room(o))
        return was_short(t, trial, o, r) ? TR_VERDICT_NO_ROOM : TR_VERDICT_FALSE_NO_ROOM;
    return says_not_joined(o) ? TR_VERDICT_NOT_JOINED : TR_VERDICT_FAILED;
}

bool tr_verdict_is_bad(tr_verdict v)
{
    return v >= TR_VERDICT_DIFFERS;
}

const char *tr_verdict_name(tr_verdict v)
{
    static const char *const name[TR_VERDICT_N] = {
        "equal",        "no memory left", "a worker was lost before it had its experts",
        "other logits", "failed",         "no memory left, though there was some",
        "left behind",
    };

    return name[v];
}

/* What a worker would send whose weights are damaged. */
static void spoil(uint8_t *message, size_t size, uint64_t which)
{
    const float none = NAN;
    tr_frame_header h;

    TR_CHECK(size >= sizeof h);
    memcpy(&h, message, sizeof h);
    if (h.kind != TR_FRAME_ANSWER)
        return;
    size_t at = which % ((size_t)h.n_picks * h.dim);
    memcpy(tr_frame_rows(message) + at * sizeof none, &none, sizeof none);
    tr_frame_seal(message);
}

static tr_status run_world(const tr_trials *t, const tr_trial *trial, tr_sim *sim, float *scratch,
                           tr_trial_result *out)
{
    outcome o = { .st = TR_OK };
    tr_status st = TR_OK;

    for (tr_peer p = 1; p <= trial->n_workers && st == TR_OK; p++)
        st = tr_sim_start(sim, p, t->o.worker, NULL);
    tr_transport *transport = tr_sim_enter(sim);
    if (st == TR_OK)
        run_coordinator(t, trial, transport, scratch, &o);
    tr_status left = tr_sim_leave(sim);
    if (st == TR_OK)
        st = copy_record(sim, out);
    if (st != TR_OK)
        return st;
    if (tr_status_scope(o.st) == TR_SCOPE_PROCESS) /* of this process, not of the simulated one */
        return o.st == TR_E_INTERRUPTED ? o.st : tr_fail(o.st, "%s", o.line);
    out->verdict = judge(t, trial, &o, out, left);
    out->recovery = o.recovery;
    out->elapsed = tr_sim_elapsed(sim);
    memcpy(out->line, o.line, sizeof out->line);
    return TR_OK;
}

tr_status tr_trial_run(const tr_trials *t, const tr_trial *trial, tr_trial_result *out)
{
    tr_sim_options o = { .seed = trial->seed,
                         .n_workers = trial->n_workers,
                         .max_size = MAX_MESSAGE,
                         .rules = trial->rules,
                         .spoil = spoil,
                         .schedule = trial->schedule,
                         .n_schedule = trial->n_schedule,
                         .has_schedule = trial->has_schedule,
                         .time_limit = time_limit };
    float *scratch = calloc(N_SEQUENCES * t->n_vocab, sizeof(float));
    tr_sim *sim = NULL;

    *out = (tr_trial_result){ .verdict = TR_VERDICT_EQUAL };
    if (!scratch)
        return tr_fail(TR_E_MEMORY, "chaos: no memory for a step's logits");
    tr_status st = tr_sim_new(&o, &sim);
    if (st == TR_OK)
        st = run_world(t, trial, sim, scratch, out);
    if (st != TR_OK)
        tr_trial_result_fini(out);
    tr_sim_free(&sim);
    free(scratch);
    return st;
}

void tr_trial_result_fini(tr_trial_result *r)
{
    free(r->record);
    r->record = NULL;
    r->n_record = 0;
}
