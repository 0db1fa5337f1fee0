/* schedule.c - a table of kinds with the values that each must have, read both ways.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/chaos/schedule.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 16 << 20, MAX_LINE = 256 };

/* What a line must say beside its word. */
enum {
    MESSAGE = 1 << 0, /* data N or control N */
    FROM = 1 << 1,
    TO = 1 << 2,
    PROCESS = 1 << 3,
    BLOCK = 1 << 4,
    WHEN = 1 << 5, /* at T or before-message N */
    HOW_LONG = 1 << 6,
    BY = 1 << 7,
    BYTE = 1 << 8,
    TAKES = 1 << 9,
    ABOVE = 1 << 10,
};

/* In the order of tr_sim_what. */
static const struct {
    const char *word;
    unsigned needs;
    const char *form;
} kinds[TR_TRIAL_N_FAULTS] = {
    { "late", MESSAGE | FROM | TO | BY, "late data|control N from N to N by NANOSECONDS" },
    { "lost", MESSAGE | FROM | TO, "lost data|control N from N to N" },
    { "twice", MESSAGE | FROM | TO, "twice data|control N from N to N" },
    { "corrupt", MESSAGE | FROM | TO | BYTE, "corrupt data|control N from N to N byte N" },
    { "not-a-number", MESSAGE | FROM | TO | BYTE, "not-a-number data N from N to 0 byte N" },
    { "no-block", PROCESS | BLOCK, "no-block process N block N" },
    { "killed", PROCESS | WHEN, "killed process N at NANOSECONDS" },
    { "vanished", PROCESS | WHEN, "vanished process N at NANOSECONDS" },
    { "hung", PROCESS | WHEN | HOW_LONG, "hung process N at NANOSECONDS for NANOSECONDS|ever" },
    { "slow-disk", PROCESS | WHEN | TAKES, "slow-disk process N at NANOSECONDS takes NANOSECONDS" },
    { "short-of-memory", PROCESS | WHEN | ABOVE,
      "short-of-memory process N at NANOSECONDS above BYTES" },
    { "wrong", PROCESS | WHEN | HOW_LONG | BYTE,
      "wrong process N at NANOSECONDS for NANOSECONDS|ever byte N" },
    { "cut", FROM | TO | WHEN | HOW_LONG, "cut from 0 to N at NANOSECONDS for NANOSECONDS|ever" },
    { "unlinked", FROM | TO | WHEN, "unlinked from 0 to N at NANOSECONDS" },
    { "stuck", FROM | TO | WHEN | HOW_LONG,
      "stuck from 0 to N at NANOSECONDS for NANOSECONDS|ever" },
};

const char *tr_schedule_word(tr_sim_what what)
{
    return kinds[what].word;
}

/* ---- out ----------------------------------------------------------------------------------- */

static void print_fault(FILE *f, const tr_sim_fault *x)
{
    unsigned needs = kinds[x->what].needs;

    fputs(kinds[x->what].word, f);
    if (needs & MESSAGE)
        fprintf(f, " %s %" PRIu64, x->is_control ? "control" : "data", x->nth);
    if (needs & PROCESS)
        fprintf(f, " process %" PRIu32, x->from);
    if (needs & FROM)
        fprintf(f, " from %" PRIu32 " to %" PRIu32, x->from, x->to);
    if (needs & BLOCK)
        fprintf(f, " block %" PRIu64, x->nth);
    if ((needs & WHEN) && x->at == TR_SIM_AT_MESSAGE)
        fprintf(f, " before-message %" PRIu64, x->nth);
    else if (needs & WHEN)
        fprintf(f, " at %" PRId64, x->at);
    if ((needs & HOW_LONG) && x->duration == TR_FOREVER)
        fputs(" for ever", f);
    else if (needs & (HOW_LONG | BY | TAKES))
        fprintf(f, " %s %" PRId64, needs & HOW_LONG ? "for" : (needs & BY ? "by" : "takes"),
                x->duration);
    if (needs & (BYTE | ABOVE))
        fprintf(f, " %s %" PRIu64, needs & BYTE ? "byte" : "above", x->byte);
    fputc('\n', f);
}

void tr_schedule_print(FILE *stream, const tr_schedule *s)
{
    fprintf(stream, "seed %" PRIu64 "\nworkers %" PRIu32 "\n", s->seed, s->n_workers);
    for (size_t i = 0; i < s->n; i++)
        print_fault(stream, &s->fault[i]);
}

/* ---- in ------------------------------------------------------------------------------------ */

/* Where an error is. */
typedef struct {
    const char *name;
    size_t line;
} place;

static tr_status wrong(const place *p, const char *what, const char *form)
{
    return tr_fail(TR_E_CONFIG, "%s, line %zu: %.60s: must be %s", p->name, p->line, what, form);
}

static bool read_number(const char *text, uint64_t max, uint64_t *out)
{
    char *end;

    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n > max)
        return false;
    *out = n;
    return true;
}

static bool read_time(const char *text, tr_time *out)
{
    uint64_t n;

    if (!read_number(text, INT64_MAX / 4, &n))
        return false;
    *out = (tr_time)n;
    return true;
}

static bool read_peer(const char *text, tr_peer *out)
{
    uint64_t n;

    if (!read_number(text, TR_TRIAL_MAX_WORKERS, &n))
        return false;
    *out = (tr_peer)n;
    return true;
}

/* The value that a name stands for in f; 0 for one that is unknown or has another form. */
static unsigned read_value(const char *name, const char *value, tr_sim_fault *f)
{
    bool is_before = strcmp(name, "before-message") == 0;
    bool is_control = strcmp(name, "control") == 0;

    if (is_before || is_control || strcmp(name, "data") == 0) {
        f->is_control = is_control;
        if (is_before)
            f->at = TR_SIM_AT_MESSAGE;
        return read_number(value, UINT64_MAX, &f->nth) ? (is_before ? WHEN : MESSAGE) : 0;
    }
    if (strcmp(name, "from") == 0)
        return read_peer(value, &f->from) ? FROM : 0;
    if (strcmp(name, "to") == 0)
        return read_peer(value, &f->to) ? TO : 0;
    if (strcmp(name, "process") == 0)
        return read_peer(value, &f->from) ? PROCESS : 0;
    if (strcmp(name, "block") == 0)
        return read_number(value, UINT64_MAX, &f->nth) ? BLOCK : 0;
    if (strcmp(name, "at") == 0)
        return read_time(value, &f->at) ? WHEN : 0;
    if (strcmp(name, "for") == 0 && strcmp(value, "ever") == 0) {
        f->duration = TR_FOREVER;
        return HOW_LONG;
    }
    if (strcmp(name, "for") == 0)
        return read_time(value, &f->duration) ? HOW_LONG : 0;
    if (strcmp(name, "by") == 0)
        return read_time(value, &f->duration) ? BY : 0;
    if (strcmp(name, "takes") == 0)
        return read_time(value, &f->duration) ? TAKES : 0;
    if (strcmp(name, "byte") == 0)
        return read_number(value, UINT64_MAX, &f->byte) ? BYTE : 0;
    if (strcmp(name, "above") == 0)
        return read_number(value, UINT64_MAX, &f->byte) ? ABOVE : 0;
    return 0;
}

/* The coordinator has one end of every way, and is itself spared. */
static bool has_sound_ends(const tr_schedule *s, const tr_sim_fault *f, unsigned needs)
{
    if (f->from > s->n_workers || f->to > s->n_workers)
        return false;
    if (needs & PROCESS)
        return f->from > 0;
    return (f->from == 0) != (f->to == 0) && ((needs & MESSAGE) || f->from == 0);
}

static tr_status read_fault(const place *p, char *word, char **rest, tr_schedule *s)
{
    tr_sim_fault f = { .what = TR_SIM_LATE };
    size_t what = 0;
    unsigned seen = 0;
    const char *name;

    while (what < TR_TRIAL_N_FAULTS && strcmp(word, kinds[what].word) != 0)
        what++;
    if (what == TR_TRIAL_N_FAULTS)
        return wrong(p, word, "seed, workers, or the word of a fault such as killed");
    f.what = (tr_sim_what)what;
    while ((name = strtok_r(NULL, " ", rest))) {
        const char *value = strtok_r(NULL, " ", rest);
        unsigned bit = value ? read_value(name, value, &f) : 0;
        if (bit == 0 || (seen & bit) || !(kinds[what].needs & bit))
            return wrong(p, name, kinds[what].form);
        seen |= bit;
    }
    if (seen != kinds[what].needs)
        return wrong(p, word, kinds[what].form);
    if (!has_sound_ends(s, &f, kinds[what].needs))
        return wrong(p, word, "of processes that there are, and one end of a way is 0");
    if (f.is_control && f.what != TR_SIM_LATE)
        return wrong(p, word, "of data: control messages can only be late");
    if (f.what == TR_SIM_NOT_A_NUMBER && f.to != 0)
        return wrong(p, word, "of an answer, which goes to 0");
    s->fault[s->n++] = f;
    return TR_OK;
}

static tr_status read_head(const place *p, const char *word, char **rest, tr_schedule *s)
{
    bool is_seed = strcmp(word, "seed") == 0;
    const char *value = strtok_r(NULL, " ", rest);
    uint64_t n;

    if (!value || strtok_r(NULL, " ", rest) ||
        !read_number(value, is_seed ? UINT64_MAX : TR_TRIAL_MAX_WORKERS, &n) || (!is_seed && n < 2))
        return wrong(p, word, is_seed ? "seed N" : "workers N, from 2 to 16");
    if (is_seed)
        s->seed = n;
    else
        s->n_workers = (tr_peer)n;
    return TR_OK;
}

/* seed, workers, then faults. */
static tr_status read_line(const place *p, char *line, unsigned *n_heads, tr_schedule *s)
{
    static const char *const head[] = { "seed", "workers" };
    char *rest = NULL;
    char *word = strtok_r(line, " ", &rest);

    if (!word || word[0] == '#')
        return TR_OK;
    if (*n_heads == 2)
        return read_fault(p, word, &rest, s);
    if (strcmp(word, head[*n_heads]) != 0)
        return wrong(p, word, *n_heads == 0 ? "seed N first" : "workers N after the seed");
    ++*n_heads;
    return read_head(p, word, &rest, s);
}

static size_t count_lines(const char *text)
{
    size_t n = 1;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

tr_status tr_schedule_parse(const char *name, const char *text, tr_schedule *out)
{
    tr_schedule s = { .seed = 0 };
    place p = { .name = name };
    unsigned n_heads = 0;
    tr_status st = TR_OK;

    s.fault = calloc(count_lines(text), sizeof *s.fault);
    if (!s.fault)
        return tr_fail(TR_E_MEMORY, "%s: no memory", name);
    while (*text && st == TR_OK) {
        char line[MAX_LINE];
        size_t size = strcspn(text, "\n");
        p.line++;
        if (size >= sizeof line) {
            st = wrong(&p, "too long", "shorter than 256 characters");
            break;
        }
        memcpy(line, text, size);
        line[size] = '\0';
        text += size + (text[size] == '\n');
        st = read_line(&p, line, &n_heads, &s);
    }
    if (st == TR_OK && n_heads < 2)
        st = tr_fail(TR_E_CONFIG, "%s: must begin with seed N and workers N", name);
    if (st != TR_OK) {
        tr_schedule_fini(&s);
        return st;
    }
    *out = s;
    return TR_OK;
}

tr_status tr_schedule_read(const char *path, tr_schedule *out)
{
    FILE *f = fopen(path, "re");
    tr_status st;

    if (!f)
        return tr_fail(TR_E_IO, "schedule %s: %s", path, strerror(errno));
    char *text = malloc(MAX_FILE + 1);
    if (!text) {
        fclose(f);
        return tr_fail(TR_E_MEMORY, "schedule %s: no memory", path);
    }
    errno = 0;
    size_t size = fread(text, 1, MAX_FILE + 1, f);
    if (ferror(f))
        st = tr_fail(TR_E_IO, "schedule %s: %s", path, strerror(errno));
    else if (size > MAX_FILE)
        st = tr_fail(TR_E_CONFIG, "schedule %s: larger than %d bytes", path, MAX_FILE);
    else if (memchr(text, '\0', size))
        st = tr_fail(TR_E_CONFIG, "schedule %s: this is no text", path);
    else {
        text[size] = '\0';
        st = tr_schedule_parse(path, text, out);
    }
    free(text);
    fclose(f);
    return st;
}

void tr_schedule_fini(tr_schedule *s)
{
    free(s->fault);
    s->fault = NULL;
    s->n = 0;
}
