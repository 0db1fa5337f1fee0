/* sim_faults.c - which faults there are, what each does, and the record of those that happened.
 *
 * What is drawn is a function of the seed, the kind and the place, never of what was drawn before:
 * a run without one of its faults meets the others again.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "base/rng.h"
#include "transport/sim_world.h"

#include <stdio.h>
#include <stdlib.h>

/* Streams of random numbers; a kind of fault has its own, those from TR_SIM_LATE on. */
enum { DRAW_DELAY = 64, DRAW_WORK, DRAW_BYTE, DRAW_TIME, DRAW_DURATION, DRAW_FOR_EVER };

tr_sim_rules tr_sim_calm(void)
{
    return (tr_sim_rules){
        .delay_min = 20 * TR_US,
        .delay_max = 200 * TR_US,
        .work_min = 50 * TR_US,
        .work_max = 500 * TR_US,
        .short_block = 1 << 20,
    };
}

static uint64_t draw(const tr_sim *s, uint32_t what, tr_peer from, tr_peer to, bool is_control,
                     uint64_t nth)
{
    uint64_t stream = (uint64_t)what << 49 | (uint64_t)is_control << 48 | (uint64_t)from << 24 | to;

    return tr_rng_u64(s->o.seed, stream, nth);
}

static tr_time between(tr_time min, tr_time max, uint64_t r)
{
    return max > min ? min + (tr_time)(r % (uint64_t)(max - min + 1)) : min;
}

tr_time tr_world_draw_work(const tr_sim *s, tr_peer who, uint64_t nth)
{
    return between(s->o.rules.work_min, s->o.rules.work_max,
                   draw(s, DRAW_WORK, who, 0, false, nth));
}

/* ---- the record ---------------------------------------------------------------------------- */

static void write_down(tr_sim *s, const tr_sim_fault *f)
{
    if (s->n_record == s->record_room) {
        size_t room = 2 * s->record_room + 16;
        tr_sim_event *larger = realloc(s->record, room * sizeof *larger);
        if (!larger) {
            tr_world_end(s, tr_fail(TR_E_MEMORY, "simulation: no memory for the record"));
            return;
        }
        s->record = larger;
        s->record_room = room;
    }
    s->record[s->n_record++] = (tr_sim_event){ tr_sim_elapsed(s), *f };
    s->hash = tr_rng_u64(s->hash, (uint64_t)f->what, (uint64_t)f->from << 32 | f->to);
}

const tr_sim_event *tr_sim_record(const tr_sim *s, size_t *n)
{
    *n = s->n_record;
    return s->record;
}

/* ---- messages ------------------------------------------------------------------------------ */

static bool is_of_message(tr_sim_what what)
{
    return what <= TR_SIM_NOT_A_NUMBER;
}

/* Of a process or a way, at a time or before a message. */
static bool is_timed(tr_sim_what what)
{
    return what > TR_SIM_NO_BLOCK;
}

static void apply_to_message(tr_world_fate *fate, const tr_sim_fault *f)
{
    if (f->what == TR_SIM_LATE)
        fate->delay += f->duration;
    else if (f->what == TR_SIM_LOST)
        fate->is_lost = true;
    else if (f->what == TR_SIM_TWICE)
        fate->is_twice = true;
    else if (f->what == TR_SIM_CORRUPT)
        fate->is_corrupt = true;
    else
        fate->is_not_a_number = true;
    if (f->what == TR_SIM_CORRUPT)
        fate->byte = f->byte;
    if (f->what == TR_SIM_NOT_A_NUMBER)
        fate->number = f->byte;
}

static tr_sim_rate rate_of(const tr_sim_rules *r, tr_sim_what what)
{
    switch (what) {
    case TR_SIM_LATE:
        return r->late;
    case TR_SIM_LOST:
        return r->lost;
    case TR_SIM_TWICE:
        return r->twice;
    case TR_SIM_CORRUPT:
        return r->corrupt;
    case TR_SIM_NOT_A_NUMBER:
        return r->not_a_number;
    case TR_SIM_NO_BLOCK:
        return r->no_block;
    case TR_SIM_KILL:
        return r->killed;
    case TR_SIM_VANISH:
        return r->vanished;
    case TR_SIM_HANG:
        return r->hung;
    case TR_SIM_SLOW_DISK:
        return r->slow_disk;
    case TR_SIM_SHORT_OF_MEMORY:
        return r->short_of_memory;
    case TR_SIM_WRONG:
        return r->wrong;
    case TR_SIM_CUT:
        return r->cut;
    case TR_SIM_UNLINK:
        return r->unlinked;
    case TR_SIM_STICK:
        return r->stuck;
    }
    return 0;
}

/* f has its place; true if the seed says that it happens there, and then the rest too. */
static bool is_drawn(const tr_sim *s, tr_sim_fault *f)
{
    uint64_t r = draw(s, f->what, f->from, f->to, f->is_control, f->nth);

    if (r % 1000 >= rate_of(&s->o.rules, f->what))
        return false;
    if (f->what == TR_SIM_LATE)
        f->duration = between(0, s->o.rules.late_max, r / 1000);
    if (f->what == TR_SIM_CORRUPT || f->what == TR_SIM_NOT_A_NUMBER || f->what == TR_SIM_WRONG)
        f->byte = draw(s, DRAW_BYTE, f->from, f->to, f->is_control, f->nth);
    return true;
}

static void draw_message(tr_sim *s, tr_world_fate *fate, const tr_sim_fault *place)
{
    tr_sim_what last = place->is_control ? TR_SIM_LATE /* TCP is reliable */
                       : place->to != 0  ? TR_SIM_CORRUPT
                                         : TR_SIM_NOT_A_NUMBER;

    if (!place->is_control && place->nth < s->o.rules.spared)
        return;
    for (tr_sim_what what = TR_SIM_LATE; what <= last; what++) {
        tr_sim_fault f = *place;
        f.what = what;
        if (!is_drawn(s, &f))
            continue;
        apply_to_message(fate, &f);
        write_down(s, &f);
    }
}

static bool is_at(const tr_sim_fault *f, const tr_sim_fault *place)
{
    return f->from == place->from && f->to == place->to && f->is_control == place->is_control &&
           f->nth == place->nth;
}

static void look_up_message(tr_sim *s, tr_world_fate *fate, const tr_sim_fault *place)
{
    for (size_t i = 0; i < s->o.n_schedule; i++) {
        const tr_sim_fault *f = &s->o.schedule[i];
        if (!is_of_message(f->what) || !is_at(f, place))
            continue;
        apply_to_message(fate, f);
        write_down(s, f);
    }
}

tr_world_fate tr_world_fate_of(tr_sim *s, tr_peer from, tr_peer to, bool is_control, uint64_t nth)
{
    const tr_sim_fault place = { .from = from, .to = to, .is_control = is_control, .nth = nth };
    tr_world_fate fate = { .delay = between(s->o.rules.delay_min, s->o.rules.delay_max,
                                            draw(s, DRAW_DELAY, from, to, is_control, nth)) };

    if (s->o.has_schedule)
        look_up_message(s, &fate, &place);
    else
        draw_message(s, &fate, &place);
    return fate;
}

/* ---- processes and ways -------------------------------------------------------------------- */

static void push_fault(tr_sim *s, const tr_sim_fault *f)
{
    tr_world_push(
        s, &(tr_world_event){ .time = s->now + f->at, .kind = TR_WORLD_FAULT, .u.fault = *f });
}

static tr_time longest(const tr_sim_rules *r, tr_sim_what what)
{
    if (what == TR_SIM_SLOW_DISK)
        return r->read_max;
    return what == TR_SIM_HANG || what == TR_SIM_WRONG ? r->hang_max : r->cut_max;
}

static void draw_fault_of(tr_sim *s, tr_peer worker, tr_sim_what what)
{
    bool is_way = what >= TR_SIM_CUT;
    bool can_be_for_ever =
        what == TR_SIM_HANG || what == TR_SIM_WRONG || what == TR_SIM_CUT || what == TR_SIM_STICK;
    tr_sim_fault f = { .what = what, .from = is_way ? 0 : worker, .to = is_way ? worker : 0 };

    if (!is_drawn(s, &f))
        return;
    f.at = between(s->o.rules.onset, s->o.rules.horizon,
                   draw(s, DRAW_TIME, f.from, f.to, false, what));
    if (what == TR_SIM_SLOW_DISK || can_be_for_ever)
        f.duration = between(0, longest(&s->o.rules, what),
                             draw(s, DRAW_DURATION, f.from, f.to, false, what));
    if (can_be_for_ever && draw(s, DRAW_FOR_EVER, f.from, f.to, false, what) % 4 == 0)
        f.duration = TR_FOREVER;
    if (what == TR_SIM_SHORT_OF_MEMORY)
        f.byte = s->o.rules.short_block;
    push_fault(s, &f);
}

void tr_world_plan_faults(tr_sim *s)
{
    for (size_t i = 0; s->o.has_schedule && i < s->o.n_schedule; i++) {
        const tr_sim_fault *f = &s->o.schedule[i];
        TR_CHECK(f->from <= s->o.n_workers);
        TR_CHECK(f->to <= s->o.n_workers);
        if (is_timed(f->what) && f->at != TR_SIM_AT_MESSAGE)
            push_fault(s, f);
    }
    for (tr_peer worker = 1; !s->o.has_schedule && worker <= s->o.n_workers; worker++)
        for (tr_sim_what what = TR_SIM_KILL; what <= TR_SIM_STICK; what++)
            draw_fault_of(s, worker, what);
}

static void die(tr_world_process *p, bool is_noticed)
{
    if (is_noticed) {
        tr_world_link_died(p);
        tr_world_data_close(p);
    }
    p->is_dead = true;
    p->ghost = p->sim->now;
}

static void lengthen(tr_time *until, tr_time by)
{
    *until = by > *until ? by : *until;
}

static void happen_to_process(tr_world_process *p, const tr_sim_fault *f)
{
    tr_time until = tr_deadline_after(p->sim->now, f->duration);

    if (f->what == TR_SIM_KILL || f->what == TR_SIM_VANISH)
        die(p, f->what == TR_SIM_KILL);
    else if (f->what == TR_SIM_HANG)
        lengthen(&p->hung_until, until);
    else if (f->what == TR_SIM_SLOW_DISK)
        p->read_time = f->duration;
    else if (f->what == TR_SIM_SHORT_OF_MEMORY)
        p->memory_limit = f->byte;
    else if (f->what == TR_SIM_WRONG) {
        lengthen(&p->wrong_until, until);
        p->wrong_number = f->byte;
    }
}

/* Both directions. */
static void happen_to_way(tr_sim *s, const tr_sim_fault *f)
{
    tr_time until = tr_deadline_after(s->now, f->duration);
    tr_world_way *there = tr_world_way_of(s, f->from, f->to);
    tr_world_way *back = tr_world_way_of(s, f->to, f->from);

    lengthen(f->what == TR_SIM_CUT ? &there->cut_until : &there->stuck_until, until);
    lengthen(f->what == TR_SIM_CUT ? &back->cut_until : &back->stuck_until, until);
}

void tr_world_fault_happens(tr_sim *s, const tr_sim_fault *f)
{
    if (f->what == TR_SIM_CUT || f->what == TR_SIM_STICK) {
        happen_to_way(s, f);
    } else if (f->what == TR_SIM_UNLINK) {
        tr_peer worker = f->from == 0 ? f->to : f->from;
        if (!s->connection[worker].is_up)
            return;
        tr_world_link_break(s, worker);
    } else {
        tr_world_process *p = &s->process[f->from];
        if (!p->is_started || p->has_ended || p->is_dead)
            return;
        happen_to_process(p, f);
    }
    write_down(s, f);
}

void tr_world_faults_before_message(tr_world_process *p)
{
    tr_sim *s = p->sim;
    bool is_first_try = p->n_tried == p->n_sent;

    p->n_tried = p->n_sent + 1;
    for (size_t i = 0; is_first_try && s->o.has_schedule && i < s->o.n_schedule && !p->is_dead;
         i++) {
        const tr_sim_fault *f = &s->o.schedule[i];
        if (is_timed(f->what) && f->at == TR_SIM_AT_MESSAGE && f->from == p->base.self &&
            f->nth == p->n_sent)
            tr_world_fault_happens(s, f);
    }
    if (p->hung_until > s->now)
        tr_world_wait(p, s->now, TR_WORLD_FOR_TIME);
}

/* ---- disk and memory ----------------------------------------------------------------------- */

static tr_status before_read(void *ctx, size_t size)
{
    tr_world_process *p = ctx;

    (void)size;
    if (p->read_time > 0)
        tr_world_wait(p, tr_deadline_after(p->sim->now, p->read_time), TR_WORLD_FOR_TIME);
    return p->is_dead ? TR_E_INTERRUPTED : TR_OK;
}

/* Whether the block that a process asks for is one that it does not get. */
static bool is_refused(tr_world_process *p)
{
    tr_sim *s = p->sim;
    tr_sim_fault place = { TR_SIM_NO_BLOCK, .from = p->base.self, .nth = p->n_blocks++ };
    bool is = !s->o.has_schedule && place.from != 0 && is_drawn(s, &place);

    for (size_t i = 0; s->o.has_schedule && i < s->o.n_schedule; i++)
        is = is || (s->o.schedule[i].what == TR_SIM_NO_BLOCK && is_at(&s->o.schedule[i], &place));
    if (is)
        write_down(s, &place);
    return is;
}

static tr_status before_memory(void *ctx, size_t size)
{
    tr_world_process *p = ctx;

    if (p->is_dead)
        return TR_OK;
    return is_refused(p) || size > p->memory_limit ? TR_E_MEMORY : TR_OK;
}

void tr_world_faults_of_process(tr_world_process *p)
{
    p->faults = (tr_fault_source){ before_read, before_memory, p };
}

/* ---- words --------------------------------------------------------------------------------- */

static void describe_message(const tr_sim_fault *f, char *out, size_t size)
{
    static const char *const what[] = { "comes late by", "is lost", "comes twice", "is corrupted",
                                        "has a number that is none" };
    const char *plane = f->is_control ? "control" : "data";
    char more[48] = "";

    if (f->what == TR_SIM_LATE)
        snprintf(more, sizeof more, " %.6f s", (double)f->duration / (double)TR_SECOND);
    snprintf(out, size, "%s message %llu from %u to %u %s%s", plane, (unsigned long long)f->nth,
             f->from, f->to, what[f->what], more);
}

static void describe_rest(const tr_sim_fault *f, char *out, size_t size)
{
    double seconds = (double)f->duration / (double)TR_SECOND;
    char how_long[48] = "for ever";

    if (f->duration != TR_FOREVER)
        snprintf(how_long, sizeof how_long, "for %.6f s", seconds);
    if (f->what == TR_SIM_NO_BLOCK)
        snprintf(out, size, "process %u does not get its block of memory number %llu", f->from,
                 (unsigned long long)f->nth);
    else if (f->what == TR_SIM_KILL)
        snprintf(out, size, "process %u is killed", f->from);
    else if (f->what == TR_SIM_VANISH)
        snprintf(out, size, "process %u vanishes with its host", f->from);
    else if (f->what == TR_SIM_HANG)
        snprintf(out, size, "process %u hangs %s", f->from, how_long);
    else if (f->what == TR_SIM_SLOW_DISK)
        snprintf(out, size, "process %u takes %.6f s for each read", f->from, seconds);
    else if (f->what == TR_SIM_SHORT_OF_MEMORY)
        snprintf(out, size, "process %u gets no block of memory above %llu bytes", f->from,
                 (unsigned long long)f->byte);
    else if (f->what == TR_SIM_WRONG)
        snprintf(out, size, "process %u answers a number that is none %s", f->from, how_long);
    else if (f->what == TR_SIM_CUT)
        snprintf(out, size, "the way between %u and %u is cut %s", f->from, f->to, how_long);
    else if (f->what == TR_SIM_STICK)
        snprintf(out, size, "the way between %u and %u takes no data %s", f->from, f->to, how_long);
    else
        snprintf(out, size, "the control connection of %u and %u ends", f->from, f->to);
}

void tr_sim_describe(tr_time time, const tr_sim_fault *f, char *out, size_t size)
{
    char text[160];

    if (is_of_message(f->what))
        describe_message(f, text, sizeof text);
    else
        describe_rest(f, text, sizeof text);
    if (time < 0)
        snprintf(out, size, "%s", text);
    else
        snprintf(out, size, "%.9f s: %s", (double)time / (double)TR_SECOND, text);
}
