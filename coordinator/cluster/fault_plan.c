/* fault_plan.c - the shape of a fault plan, then the checks that a schema can't express.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/fault_plan.h"

#include "coordinator/cluster/yaml.h"
#include "proto/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *fault, *worker, *at, *pass, *layer, *read, *after_ms, *probability, *seed, *times, *ms,
        *message;
} yaml_fault;

typedef struct {
    yaml_fault *faults;
    unsigned faults_count;
} yaml_plan;

#define TEXT(field)                                                                                \
    CYAML_FIELD_STRING_PTR(#field, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, yaml_fault, field, 0, \
                           32)

static const cyaml_schema_field_t fault_fields[] = {
    CYAML_FIELD_STRING_PTR("fault", CYAML_FLAG_POINTER, yaml_fault, fault, 0, 32),
    CYAML_FIELD_STRING_PTR("worker", CYAML_FLAG_POINTER, yaml_fault, worker, 0, 32),
    TEXT(at),
    TEXT(pass),
    TEXT(layer),
    TEXT(read),
    TEXT(after_ms),
    TEXT(probability),
    TEXT(seed),
    TEXT(times),
    TEXT(ms),
    TEXT(message),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t fault_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, yaml_fault, fault_fields),
};
static const cyaml_schema_field_t plan_fields[] = {
    CYAML_FIELD_SEQUENCE("faults", CYAML_FLAG_POINTER, yaml_plan, faults, &fault_entry, 1,
                         TR_MAX_FAULTS),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t plan_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, yaml_plan, plan_fields),
};

static const tr_yaml_form form = { &plan_schema, "fault plan", TR_FAULT_PLAN_MAX_FILE, "faults",
                                   "docs/reliability.md" };

/* ---- values -------------------------------------------------------------------------------- */

static tr_status worker_get(tr_yaml_place p, const char *text, uint32_t *out)
{
    *out = 0;
    return strcmp(text, "all") == 0 ? TR_OK : tr_yaml_number(p, text, 1, TR_MAX_WORKERS, out);
}

static tr_status kind_get(tr_yaml_place p, const char *text, tr_fault_kind *out)
{
    const char *choice[TR_FAULT_N_KINDS + 1] = { NULL };
    uint32_t kind = 0;

    for (int k = 0; k < TR_FAULT_N_KINDS; k++)
        choice[k] = tr_fault_kind_name((tr_fault_kind)k);
    tr_status st = tr_yaml_choice(p, text, choice, &kind);
    *out = (tr_fault_kind)kind;
    return st;
}

/* The first moment that the kind can have and that the conditions are for. */
static tr_fault_moment usual_moment(const yaml_fault *y, tr_fault_kind kind)
{
    bool is_of_share = y->pass || y->layer || y->probability;
    tr_fault_moment first = y->read       ? TR_FAULT_AT_READ
                            : is_of_share ? TR_FAULT_AT_SHARE
                                          : TR_FAULT_AT_TIME;

    if (tr_fault_fits(kind, first))
        return first;
    return tr_fault_fits(kind, TR_FAULT_AT_SHARE) ? TR_FAULT_AT_SHARE : TR_FAULT_AT_READ;
}

static tr_status moment_get(tr_yaml_place p, const yaml_fault *y, tr_fault_rule *r)
{
    const char *choice[TR_FAULT_N_MOMENTS + 1] = { NULL };
    uint32_t moment = usual_moment(y, r->kind);
    char can[96] = "";
    size_t used = 0;

    for (int m = 0; m < TR_FAULT_N_MOMENTS; m++)
        choice[m] = tr_fault_moment_name((tr_fault_moment)m);
    tr_status st = tr_yaml_choice(p, y->at, choice, &moment);
    if (st != TR_OK)
        return st;
    r->moment = (tr_fault_moment)moment;
    if (tr_fault_fits(r->kind, r->moment))
        return TR_OK;
    for (int m = 0; m < TR_FAULT_N_MOMENTS; m++)
        if (tr_fault_fits(r->kind, (tr_fault_moment)m))
            used += (size_t)snprintf(can + used, sizeof can - used, "%s%s", used ? " or " : "",
                                     choice[m]);
    return tr_yaml_refuse(p, choice[moment], can);
}

/* 0 < p <= 1, as "0.01". */
static tr_status probability_get(tr_yaml_place p, const char *text, uint32_t *per_million)
{
    char *end;

    if (!text)
        return TR_OK;
    double v = strtod(text, &end);
    double millions = v * TR_FAULT_ALWAYS;
    if (end == text || *end != '\0' || !(millions > 1 - 1e-9 && v <= 1)) /* 0.000001 is inexact */
        return tr_yaml_refuse(p, text, "a number from 0.000001 to 1");
    *per_million = (uint32_t)(millions + 0.5);
    return TR_OK;
}

/* A condition of another moment would never be looked at. */
static tr_status conditions_check(const char *file, const yaml_fault *y, size_t n,
                                  const tr_fault_rule *r)
{
    static const char *const good[] = { "no pass, layer, read or probability with at: time",
                                        "pass or layer with at: share, not read",
                                        "read with at: read, not pass or layer" };
    bool has_share = y->pass || y->layer;
    bool is_wrong = r->moment == TR_FAULT_AT_TIME    ? has_share || y->read || y->probability
                    : r->moment == TR_FAULT_AT_SHARE ? y->read != NULL
                                                     : has_share;

    return is_wrong ? tr_yaml_refuse((tr_yaml_place){ file, "faults", "at", n },
                                     tr_fault_moment_name(r->moment), good[r->moment])
                    : TR_OK;
}

static tr_status numbers_get(const char *file, const yaml_fault *y, size_t n, tr_fault_rule *r)
{
    uint32_t seed = 0;
    const struct {
        const char *key, *text;
        uint32_t low, high, *out;
    } numbers[] = {
        { "pass", y->pass, 0, INT32_MAX, &r->nth },
        { "read", y->read, 0, INT32_MAX, &r->nth },
        { "layer", y->layer, 0, TR_MAX_LAYERS - 1, &r->layer },
        { "after_ms", y->after_ms, 0, TR_FAULT_MAX_MS, &r->after_ms },
        { "seed", y->seed, 0, UINT32_MAX, &seed },
        { "times", y->times, 1, UINT32_MAX, &r->times },
        { "ms", y->ms, 1, TR_FAULT_MAX_MS, &r->ms },
    };

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        tr_status st =
            tr_yaml_number((tr_yaml_place){ file, "faults", numbers[i].key, n }, numbers[i].text,
                           numbers[i].low, numbers[i].high, numbers[i].out);
        if (st != TR_OK)
            return st;
    }
    r->seed = seed;
    return probability_get((tr_yaml_place){ file, "faults", "probability", n }, y->probability,
                           &r->per_million);
}

static bool needs_ms(tr_fault_kind kind)
{
    return kind == TR_FAULT_MUTE || kind == TR_FAULT_DELAY || kind == TR_FAULT_SLOW_DISK ||
           kind == TR_FAULT_CUT;
}

/* What has no effect was meant for something else. */
static tr_status effects_check(const char *file, const yaml_fault *y, size_t n,
                               const tr_fault_rule *r)
{
    if (y->ms && !needs_ms(r->kind) && r->kind != TR_FAULT_STOP)
        return tr_yaml_refuse((tr_yaml_place){ file, "faults", "ms", n }, y->ms,
                              "none: it is for stop, mute, cut, delay and slow-disk");
    if (y->seed && !y->probability)
        return tr_yaml_refuse((tr_yaml_place){ file, "faults", "seed", n }, y->seed,
                              "a probability too, or no seed");
    return TR_OK;
}

static tr_status message_get(tr_yaml_place p, const char *text, tr_fault_rule *r)
{
    const char *choice[TR_FAULT_N_MESSAGES + 1] = { NULL };
    uint32_t message = r->message;

    for (int m = 0; m < TR_FAULT_N_MESSAGES; m++)
        choice[m] = tr_fault_message_name((tr_fault_message)m);
    tr_status st = tr_yaml_choice(p, text, choice, &message);
    r->message = (tr_fault_message)message;
    if (st == TR_OK && text && !tr_fault_is_of_messages(r->kind))
        st = tr_yaml_refuse(p, text, "none: it is for delay, drop, duplicate and corrupt");
    return st;
}

static tr_status fault_get(const char *file, const yaml_fault *y, size_t n, uint32_t *worker,
                           tr_fault_rule *r)
{
    *r = (tr_fault_rule){ .layer = TR_FAULT_ANY_LAYER, .per_million = TR_FAULT_ALWAYS, .times = 1 };
    tr_status st = kind_get((tr_yaml_place){ file, "faults", "fault", n }, y->fault, &r->kind);
    if (st == TR_OK)
        st = worker_get((tr_yaml_place){ file, "faults", "worker", n }, y->worker, worker);
    if (st == TR_OK)
        st = moment_get((tr_yaml_place){ file, "faults", "at", n }, y, r);
    if (st == TR_OK)
        st = conditions_check(file, y, n, r);
    if (st == TR_OK)
        st = message_get((tr_yaml_place){ file, "faults", "message", n }, y->message, r);
    if (st == TR_OK)
        st = numbers_get(file, y, n, r);
    if (st == TR_OK)
        st = effects_check(file, y, n, r);
    if (st == TR_OK && needs_ms(r->kind) && r->ms == 0)
        st =
            tr_yaml_refuse((tr_yaml_place){ file, "faults", "ms", n }, "", "how long, such as 200");
    return st;
}

/* ---- plans --------------------------------------------------------------------------------- */

tr_status tr_fault_plan_parse(const char *name, tr_bytes text, tr_fault_plan **out)
{
    void *data = NULL;

    tr_status st = tr_yaml_load(name, text, &form, &data);
    if (st != TR_OK)
        return st;
    const yaml_plan *y = data;
    tr_fault_plan *p = calloc(1, sizeof *p);
    if (!p)
        st = tr_fail(TR_E_MEMORY, "%s: no memory", name);
    for (uint32_t i = 0; st == TR_OK && i < y->faults_count; i++, p->n++)
        st = fault_get(name, &y->faults[i], i + 1, &p->fault[i].worker, &p->fault[i].rule);
    tr_yaml_free(&form, data);
    if (st != TR_OK) {
        free(p);
        return st;
    }
    *out = p;
    return TR_OK;
}

tr_status tr_fault_plan_load(const char *path, tr_fault_plan **out)
{
    uint8_t *text = NULL;
    size_t size;

    tr_status st = tr_yaml_read(&form, path, &text, &size);
    if (st == TR_OK)
        st = tr_fault_plan_parse(path, (tr_bytes){ text, size }, out);
    free(text);
    return st;
}

tr_status tr_fault_plan_open(const char *path, uint32_t n_workers, tr_fault_plan **out)
{
    *out = NULL;
    if (!path)
        return TR_OK;
    if (n_workers == 0)
        return tr_fail(TR_E_USAGE, "--faults: it is workers that fail, and there are none: give "
                                   "-w N");
    return tr_fault_plan_load(path, out);
}

void tr_fault_plan_free(tr_fault_plan **p)
{
    free(*p);
    *p = NULL;
}
