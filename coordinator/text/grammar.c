/* grammar.c - elements in one array; stacks as linked frames, each kept once; states as sets of
 * them.
 *
 * A reading of the text is a stack of places to go on, the top one a byte set.  Frames are shared
 * and numbered, so a stack is one number and equal stacks are equal numbers; so are equal sets of
 * them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/grammar.h"

#include "base/check.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_FRAMES = 1 << 18,
    MAX_STATES = 4096,
    TRIM_STATES = 3072,
    TRIM_FRAMES = MAX_FRAMES / 2,
    MAX_READINGS = 1 << 14,  /* of one state */
    KEPT_READINGS = 1 << 20, /* of all states, before a trim is due */
    MAX_DEPTH = 2000,        /* of references without a byte between */
    MAX_WORK = 1 << 17,      /* elements looked at for one state */
    CHAINS = 1 << 14,
    UNKNOWN = -2,
    NONE = -1,
};

typedef enum { SET, REF, END } element_kind;

typedef struct {
    element_kind kind;
    uint32_t value; /* a set, or a rule */
} element;

typedef struct {
    uint32_t word[8];
} byte_set;

typedef struct {
    uint32_t first; /* element */
    int32_t next;   /* alternative of the same rule */
} alternative;

struct tr_grammar {
    element *elements;
    byte_set *sets;
    alternative *alternatives;
    int32_t *rules; /* first alternative of each */
    size_t n_elements, n_sets, n_alternatives, n_rules;
    size_t elements_room, sets_room, alternatives_room, rules_room;
    uint32_t root;
    bool failed, is_large;
};

/* ---- building -------------------------------------------------------------------------------- */

tr_grammar *tr_grammar_new(void)
{
    return calloc(1, sizeof(tr_grammar));
}

void tr_grammar_free(tr_grammar **g)
{
    if (!*g)
        return;
    free((*g)->elements);
    free((*g)->sets);
    free((*g)->alternatives);
    free((*g)->rules);
    free(*g);
    *g = NULL;
}

/* Room for one entry more; false for want of memory. */
static bool grow(tr_grammar *g, void *list, size_t size, size_t n, size_t *room)
{
    void *old;

    if (!g || g->failed)
        return false;
    if (n < *room)
        return true;
    size_t more = 2 * *room + 64;
    g->is_large = g->is_large || n >= TR_GRAMMAR_MAX_ELEMENTS;
    memcpy(&old, list, sizeof old);
    void *longer = g->is_large ? NULL : realloc(old, more * size);
    if (!longer) {
        g->failed = true;
        return false;
    }
    memcpy(list, &longer, sizeof longer);
    *room = more;
    return true;
}

uint32_t tr_grammar_rule(tr_grammar *g)
{
    if (!grow(g, &g->rules, sizeof *g->rules, g ? g->n_rules : 0, g ? &g->rules_room : NULL))
        return 0;
    g->rules[g->n_rules] = NONE;
    return (uint32_t)g->n_rules++;
}

static void add(tr_grammar *g, element_kind kind, uint32_t value)
{
    if (grow(g, &g->elements, sizeof *g->elements, g ? g->n_elements : 0,
             g ? &g->elements_room : NULL))
        g->elements[g->n_elements++] = (element){ kind, value };
}

void tr_grammar_begin(tr_grammar *g, uint32_t rule)
{
    if (!grow(g, &g->alternatives, sizeof *g->alternatives, g ? g->n_alternatives : 0,
              g ? &g->alternatives_room : NULL))
        return;
    TR_CHECK(rule < g->n_rules);
    g->alternatives[g->n_alternatives] = (alternative){ (uint32_t)g->n_elements, g->rules[rule] };
    g->rules[rule] = (int32_t)g->n_alternatives++;
}

void tr_grammar_set(tr_grammar *g, const uint32_t set[8])
{
    if (!grow(g, &g->sets, sizeof *g->sets, g ? g->n_sets : 0, g ? &g->sets_room : NULL))
        return;
    memcpy(g->sets[g->n_sets].word, set, sizeof g->sets[0].word);
    add(g, SET, (uint32_t)g->n_sets++);
}

void tr_grammar_range(tr_grammar *g, uint8_t low, uint8_t high)
{
    uint32_t set[8] = { 0 };

    for (unsigned b = low; b <= high; b++)
        set[b / 32] |= 1u << b % 32;
    tr_grammar_set(g, set);
}

void tr_grammar_text(tr_grammar *g, tr_bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        tr_grammar_range(g, text.data[i], text.data[i]);
}

void tr_grammar_ref(tr_grammar *g, uint32_t rule)
{
    add(g, REF, rule);
}

void tr_grammar_end(tr_grammar *g)
{
    add(g, END, 0);
}

/* ---- walking --------------------------------------------------------------------------------- */

typedef struct {
    int32_t parent; /* frame to go on with after this one, or NONE */
    uint32_t at;    /* element */
    int32_t next;   /* in its chain */
    uint32_t seen;  /* number of the state for which it was last expanded */
} frame;

typedef struct {
    uint32_t first, n; /* readings [n] */
    bool is_end;
    int32_t chain;
    int32_t next[256];
} state;

struct tr_walk {
    const tr_grammar *g;
    frame *frames;
    size_t n_frames, frames_room;
    int32_t frame_chain[CHAINS], state_chain[CHAINS];
    state *states; /* [MAX_STATES] grown as needed */
    size_t n_states, states_room;
    int32_t *readings; /* of all states */
    size_t n_readings, readings_room;

    /* the state being made */
    int32_t *made;
    size_t n_made, made_room, depth, work;
    uint32_t number;
    bool made_end, made_too_many;
    int32_t start;
};

static bool has_byte(const byte_set *s, uint8_t b)
{
    return (s->word[b / 32] >> b % 32 & 1) != 0;
}

static size_t chain_of(uint64_t a, uint64_t b)
{
    return (size_t)(tr_rng_mix(a * 0x10001 ^ tr_rng_mix(b)) & (CHAINS - 1));
}

/* The frame's number; NONE - 1 if there is no room for another. */
static int32_t frame_of(tr_walk *w, int32_t parent, uint32_t at)
{
    int32_t *chain = &w->frame_chain[chain_of((uint32_t)parent, at)];

    for (int32_t i = *chain; i != NONE; i = w->frames[i].next)
        if (w->frames[i].parent == parent && w->frames[i].at == at)
            return i;
    if (w->n_frames == w->frames_room) {
        size_t room = 2 * w->frames_room + 1024;
        frame *longer = room > MAX_FRAMES ? NULL : realloc(w->frames, room * sizeof *longer);
        if (!longer)
            return UNKNOWN;
        w->frames = longer;
        w->frames_room = room;
    }
    w->frames[w->n_frames] = (frame){ parent, at, *chain, 0 };
    *chain = (int32_t)w->n_frames;
    return (int32_t)w->n_frames++;
}

static void add_reading(tr_walk *w, int32_t f)
{
    if (w->n_made == w->made_room) {
        size_t room = 2 * w->made_room + 64;
        int32_t *longer =
            w->n_made >= MAX_READINGS ? NULL : realloc(w->made, room * sizeof *longer);
        if (!longer) {
            w->made_too_many = true;
            return;
        }
        w->made = longer;
        w->made_room = room;
    }
    w->made[w->n_made++] = f;
}

/* All readings that go on at an element, with `parent` after it.  What was expanded for this state
 * before is not again: many references may lead to the same place. */
static void expand(tr_walk *w, int32_t parent, uint32_t at)
{
    const element *e = &w->g->elements[at];

    if (w->made_too_many || w->depth == MAX_DEPTH || ++w->work > MAX_WORK) {
        w->made_too_many = true;
        return;
    }
    if (e->kind == END && parent == NONE) {
        w->made_end = true;
        return;
    }
    int32_t here = frame_of(w, parent, at);
    if (here == UNKNOWN) {
        w->made_too_many = true;
        return;
    }
    if (w->frames[here].seen == w->number)
        return;
    w->frames[here].seen = w->number;
    w->depth++;
    if (e->kind == SET) {
        add_reading(w, here);
    } else if (e->kind == REF) {
        bool is_last = w->g->elements[at + 1].kind == END;
        int32_t after = is_last ? parent : frame_of(w, parent, at + 1);
        w->made_too_many = w->made_too_many || after == UNKNOWN;
        for (int32_t a = w->g->rules[e->value]; a != NONE; a = w->g->alternatives[a].next)
            expand(w, after, w->g->alternatives[a].first);
    } else {
        expand(w, w->frames[parent].parent, w->frames[parent].at);
    }
    w->depth--;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a;
    int32_t y = *(const int32_t *)b;

    return (x > y) - (x < y);
}

/* The number of the state that was made; DEAD if it is empty, or there is no room for it. */
static int32_t state_of(tr_walk *w)
{
    uint64_t h = w->made_end;

    if ((w->n_made == 0 && !w->made_end) || w->made_too_many)
        return TR_WALK_DEAD;
    if (w->n_made > 0)
        qsort(w->made, w->n_made, sizeof w->made[0], ascending);
    for (size_t i = 0; i < w->n_made; i++)
        h = tr_rng_mix(h ^ (uint32_t)w->made[i]);
    int32_t *chain = &w->state_chain[h & (CHAINS - 1)];
    for (int32_t i = *chain; i != NONE; i = w->states[i].chain) {
        const state *s = &w->states[i];
        if (s->n == w->n_made && s->is_end == w->made_end &&
            memcmp(w->readings + s->first, w->made, s->n * sizeof w->made[0]) == 0)
            return i;
    }
    if (w->n_states == w->states_room) {
        size_t room = 2 * w->states_room + 16;
        state *longer =
            w->n_states >= MAX_STATES ? NULL : realloc(w->states, room * sizeof *longer);
        if (!longer)
            return TR_WALK_DEAD;
        w->states = longer;
        w->states_room = room;
    }
    if (w->n_readings + w->n_made > w->readings_room) {
        size_t room = 2 * (w->n_readings + w->n_made);
        int32_t *longer = realloc(w->readings, room * sizeof *longer);
        if (!longer)
            return TR_WALK_DEAD;
        w->readings = longer;
        w->readings_room = room;
    }
    state *s = &w->states[w->n_states];
    *s = (state){ (uint32_t)w->n_readings, (uint32_t)w->n_made, w->made_end, *chain, { 0 } };
    for (size_t b = 0; b < 256; b++)
        s->next[b] = UNKNOWN;
    if (w->n_made > 0)
        memcpy(w->readings + w->n_readings, w->made, w->n_made * sizeof w->made[0]);
    w->n_readings += w->n_made;
    *chain = (int32_t)w->n_states;
    return (int32_t)w->n_states++;
}

static void make_nothing(tr_walk *w)
{
    w->n_made = w->depth = w->work = 0;
    w->number++;
    w->made_end = w->made_too_many = false;
}

static int32_t make_start(tr_walk *w)
{
    make_nothing(w);
    for (int32_t a = w->g->rules[w->g->root]; a != NONE; a = w->g->alternatives[a].next)
        expand(w, NONE, w->g->alternatives[a].first);
    return state_of(w);
}

tr_status tr_walk_new(const tr_grammar *g, tr_walk **out)
{
    tr_walk *w = calloc(1, sizeof *w);

    if (!w)
        return tr_fail(TR_E_MEMORY, "grammar: no memory");
    w->g = g;
    memset(w->frame_chain, 0xff, sizeof w->frame_chain);
    memset(w->state_chain, 0xff, sizeof w->state_chain);
    w->start = make_start(w);
    if (w->start == TR_WALK_DEAD) {
        tr_walk_free(&w);
        return tr_fail(
            TR_E_REQUEST,
            "no text fits the schema, or its beginning has too many forms (%d) or is too "
            "deep (%d levels) to be followed",
            MAX_READINGS, MAX_DEPTH);
    }
    *out = w;
    return TR_OK;
}

void tr_walk_free(tr_walk **w)
{
    if (!*w)
        return;
    free((*w)->frames);
    free((*w)->states);
    free((*w)->readings);
    free((*w)->made);
    free(*w);
    *w = NULL;
}

int32_t tr_walk_start(const tr_walk *w)
{
    return w->start;
}

int32_t tr_walk_next(tr_walk *w, int32_t from, uint8_t byte)
{
    if (from == TR_WALK_DEAD)
        return TR_WALK_DEAD;
    int32_t known = w->states[from].next[byte];
    if (known != UNKNOWN)
        return known;
    make_nothing(w);
    for (uint32_t i = 0; i < w->states[from].n; i++) {
        frame f = w->frames[w->readings[w->states[from].first + i]];
        if (has_byte(&w->g->sets[w->g->elements[f.at].value], byte))
            expand(w, f.parent, f.at + 1);
    }
    int32_t next = state_of(w);
    if (!w->made_too_many)
        w->states[from].next[byte] = next;
    return next;
}

bool tr_walk_is_end(const tr_walk *w, int32_t s)
{
    return s != TR_WALK_DEAD && w->states[s].is_end;
}

bool tr_walk_is_over(tr_walk *w, int32_t s)
{
    return s == TR_WALK_DEAD || w->states[s].n == 0;
}

/* A frame and those below it, made again; below first.  path has room for as many as there are. */
static int32_t copy_frame(tr_walk *w, const frame *old, int32_t f, int32_t *path)
{
    size_t n = 0;
    int32_t parent = NONE;

    for (; f != NONE; f = old[f].parent)
        path[n++] = f;
    while (n > 0 && parent != UNKNOWN)
        parent = frame_of(w, parent, old[path[--n]].at);
    return parent;
}

int32_t tr_walk_trim(tr_walk *w, int32_t s)
{
    frame *old = w->frames;

    if (s == TR_WALK_DEAD ||
        (w->n_states < TRIM_STATES && w->n_frames < TRIM_FRAMES && w->n_readings < KEPT_READINGS))
        return s;
    size_t n = w->states[s].n;
    bool is_end = w->states[s].is_end;
    int32_t *kept = malloc((n + w->n_frames + 1) * sizeof *kept);
    if (!kept)
        return TR_WALK_DEAD;
    if (n > 0)
        memcpy(kept, w->readings + w->states[s].first, n * sizeof *kept);
    w->frames = NULL;
    w->n_frames = w->frames_room = w->n_states = w->n_readings = 0;
    memset(w->frame_chain, 0xff, sizeof w->frame_chain);
    memset(w->state_chain, 0xff, sizeof w->state_chain);
    make_nothing(w);
    w->made_end = is_end;
    for (size_t i = 0; i < n; i++) {
        int32_t f = copy_frame(w, old, kept[i], kept + n);
        w->made_too_many = w->made_too_many || f == UNKNOWN;
        add_reading(w, f);
    }
    free(old);
    free(kept);
    return state_of(w);
}

/* ---- whole? ------------------------------------------------------------------------------------
 */

tr_status tr_grammar_close(tr_grammar *g, uint32_t root)
{
    tr_walk *w = NULL;

    if (!g || (g->failed && !g->is_large))
        return tr_fail(TR_E_MEMORY, "grammar: no memory");
    if (g->is_large)
        return tr_fail(TR_E_REQUEST, "the schema is too large");
    g->root = root;
    tr_status st = tr_walk_new(g, &w);
    tr_walk_free(&w);
    return st;
}
