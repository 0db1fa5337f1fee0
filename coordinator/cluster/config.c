/* config.c - the shape of a cluster file, then the checks that a schema can't express.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/config.h"
#include "base/check.h"
#include "coordinator/cluster/address.h"
#include "coordinator/cluster/yaml.h"

#include <cyaml/cyaml.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- the shape ----------------------------------------------------------------------------- */

typedef struct {
    char *name, *slots, *threads, *model;
} yaml_host;

typedef struct {
    char *host, *threads, *listen, *memory_mib;
} yaml_coordinator;

typedef struct {
    char *count, *threads, *placement, *binary, *memory_mib, *replacement;
    char **experts;
    unsigned experts_count;
} yaml_workers;

typedef struct {
    char *join_ms, *suspect_ms, *silence_ms, *share_ms;
} yaml_timeouts;

typedef struct {
    char *path, *network, *eager_bytes;
    char **arguments;
    unsigned arguments_count;
} yaml_mpirun;

typedef struct {
    char *model, *transport;
    yaml_host *hosts;
    unsigned hosts_count;
    yaml_coordinator coordinator;
    yaml_workers workers;
    yaml_timeouts timeouts;
    yaml_mpirun mpirun;
} yaml_cluster;

enum { OPTIONAL_TEXT = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL };

#define TEXT(owner, field, max) CYAML_FIELD_STRING_PTR(#field, OPTIONAL_TEXT, owner, field, 0, max)
#define NUMBER(owner, field)    TEXT(owner, field, 32)
#define NAME(owner, field)      TEXT(owner, field, TR_CLUSTER_MAX_NAME)
#define PATH(owner, field)      TEXT(owner, field, TR_CLUSTER_MAX_PATH)

static const cyaml_schema_value_t number_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, 32),
};
static const cyaml_schema_value_t argument_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, TR_CLUSTER_MAX_PATH),
};

static const cyaml_schema_field_t host_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, yaml_host, name, 0, TR_CLUSTER_MAX_NAME),
    NUMBER(yaml_host, slots),
    NUMBER(yaml_host, threads),
    PATH(yaml_host, model),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t host_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, yaml_host, host_fields),
};

static const cyaml_schema_field_t coordinator_fields[] = {
    NAME(yaml_coordinator, host),
    NUMBER(yaml_coordinator, threads),
    NAME(yaml_coordinator, listen),
    NUMBER(yaml_coordinator, memory_mib),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t workers_fields[] = {
    NUMBER(yaml_workers, count),
    NUMBER(yaml_workers, threads),
    NAME(yaml_workers, placement),
    PATH(yaml_workers, binary),
    NUMBER(yaml_workers, memory_mib),
    PATH(yaml_workers, replacement),
    CYAML_FIELD_SEQUENCE("experts", OPTIONAL_TEXT, yaml_workers, experts, &number_entry, 0,
                         TR_MAX_WORKERS),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t timeouts_fields[] = {
    NUMBER(yaml_timeouts, join_ms),
    NUMBER(yaml_timeouts, suspect_ms),
    NUMBER(yaml_timeouts, silence_ms),
    NUMBER(yaml_timeouts, share_ms),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t mpirun_fields[] = {
    PATH(yaml_mpirun, path),
    NAME(yaml_mpirun, network),
    NUMBER(yaml_mpirun, eager_bytes),
    CYAML_FIELD_SEQUENCE("arguments", OPTIONAL_TEXT, yaml_mpirun, arguments, &argument_entry, 0,
                         TR_CLUSTER_MAX_ARGUMENTS),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t cluster_fields[] = {
    PATH(yaml_cluster, model),
    CYAML_FIELD_SEQUENCE("hosts", CYAML_FLAG_POINTER, yaml_cluster, hosts, &host_entry, 1,
                         TR_CLUSTER_MAX_HOSTS),
    CYAML_FIELD_MAPPING("coordinator", CYAML_FLAG_OPTIONAL, yaml_cluster, coordinator,
                        coordinator_fields),
    CYAML_FIELD_MAPPING("workers", CYAML_FLAG_OPTIONAL, yaml_cluster, workers, workers_fields),
    NAME(yaml_cluster, transport),
    CYAML_FIELD_MAPPING("timeouts", CYAML_FLAG_OPTIONAL, yaml_cluster, timeouts, timeouts_fields),
    CYAML_FIELD_MAPPING("mpirun", CYAML_FLAG_OPTIONAL, yaml_cluster, mpirun, mpirun_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t cluster_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, yaml_cluster, cluster_fields),
};

static const tr_yaml_form form = { &cluster_schema, "cluster file", TR_CLUSTER_MAX_FILE, "hosts",
                                   "cluster-configs/README.md" };

bool tr_cluster_config_key(size_t index, char *out, size_t size)
{
    for (const cyaml_schema_field_t *f = cluster_fields; f->key; f++) {
        const cyaml_schema_field_t *inner = NULL;

        if (index-- == 0)
            return snprintf(out, size, "%s", f->key) < (int)size;
        if (f->value.type == CYAML_MAPPING)
            inner = f->value.mapping.fields;
        else if (f->value.type == CYAML_SEQUENCE && f->value.sequence.entry->type == CYAML_MAPPING)
            inner = f->value.sequence.entry->mapping.fields;
        for (; inner && inner->key; inner++)
            if (index-- == 0)
                return snprintf(out, size, "%s.%s", f->key, inner->key) < (int)size;
    }
    return false;
}

/* --- values -------------------------------------------------------------------------------- */

/* A path or an argument: anything a shell could hand over but control characters. */
static tr_status text_get(tr_yaml_place p, const char *text, const char **out)
{
    bool ok = text && text[0];

    if (!text)
        return TR_OK;
    for (const char *c = text; ok && *c; c++)
        ok = (unsigned char)*c >= ' ' && *c != 0x7f;
    if (!ok)
        return tr_yaml_refuse(p, text, "a text without control characters");
    *out = text;
    return TR_OK;
}

static tr_status path_get(tr_yaml_place p, const char *text, const char **out)
{
    if (text && text[0] == '-')
        return tr_yaml_refuse(p, text, "a path that does not begin with -");
    return text_get(p, text, out);
}

/* Letters, digits and the extra characters, no '-' in front: what goes into an option of mpirun
 * can't become another option. */
static tr_status word_get(tr_yaml_place p, const char *text, const char *extra, const char *allowed,
                          const char **out)
{
    bool ok = text && text[0] && text[0] != '-';

    if (!text)
        return TR_OK;
    for (const char *c = text; ok && *c; c++)
        ok = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
             strchr(extra, *c) != NULL;
    if (!ok)
        return tr_yaml_refuse(p, text, allowed);
    *out = text;
    return TR_OK;
}

/* --- sections ------------------------------------------------------------------------------ */

static tr_status host_get(const char *file, const yaml_host *y, size_t n, tr_cluster_host *h)
{
    h->slots = 1;
    tr_status st = word_get((tr_yaml_place){ file, "hosts", "name", n }, y->name, "._-",
                            "letters, digits, dots, - and _, as mpirun knows the host", &h->name);
    if (st != TR_OK)
        return st;
    st = tr_yaml_number((tr_yaml_place){ file, "hosts", "slots", n }, y->slots, 0, TR_MAX_WORKERS,
                        &h->slots);
    if (st != TR_OK)
        return st;
    st = tr_yaml_number((tr_yaml_place){ file, "hosts", "threads", n }, y->threads, 0,
                        TR_CLUSTER_MAX_THREADS, &h->threads);
    if (st != TR_OK)
        return st;
    return path_get((tr_yaml_place){ file, "hosts", "model", n }, y->model, &h->model);
}

static tr_status hosts_get(const char *file, const yaml_cluster *y, tr_cluster_config *c)
{
    uint64_t slots = 0;

    c->n_hosts = y->hosts_count;
    c->host = calloc(c->n_hosts, sizeof *c->host);
    if (!c->host)
        return tr_fail(TR_E_MEMORY, "%s: no memory for %zu hosts", file, c->n_hosts);
    for (size_t i = 0; i < c->n_hosts; i++) {
        tr_status st = host_get(file, &y->hosts[i], i + 1, &c->host[i]);
        if (st != TR_OK)
            return st;
        for (size_t j = 0; j < i; j++)
            if (strcasecmp(c->host[i].name, c->host[j].name) == 0)
                return tr_yaml_refuse((tr_yaml_place){ file, "hosts", "name", i + 1 },
                                      c->host[i].name, "each host once, with all its slots");
        slots += c->host[i].slots;
    }
    if (slots == 0 || slots > TR_MAX_WORKERS)
        return tr_fail(TR_E_CONFIG, "%s: hosts have %llu slots in all; give 1..%d", file,
                       (unsigned long long)slots, TR_MAX_WORKERS);
    c->n_workers = (uint32_t)slots;
    return TR_OK;
}

static tr_status coordinator_get(const char *file, const yaml_coordinator *y, tr_cluster_config *c)
{
    const tr_yaml_place at_listen = { file, "coordinator", "listen", 0 };
    tr_status st = tr_yaml_number((tr_yaml_place){ file, "coordinator", "threads", 0 }, y->threads,
                                  0, TR_CLUSTER_MAX_THREADS, &c->coordinator_threads);

    if (st == TR_OK)
        st = tr_yaml_number((tr_yaml_place){ file, "coordinator", "memory_mib", 0 }, y->memory_mib,
                            1, 1 << 30, &c->coordinator_memory_mib);
    if (st != TR_OK)
        return st;
    if (y->listen && !tr_address_is_sound(y->listen))
        return tr_yaml_refuse(at_listen, y->listen, TR_ADDRESS_FORM);
    c->listen = y->listen;
    if (!y->host)
        return TR_OK;
    for (size_t i = 0; i < c->n_hosts; i++) {
        if (strcasecmp(y->host, c->host[i].name) == 0) {
            c->coordinator = i;
            return TR_OK;
        }
    }
    return tr_yaml_refuse((tr_yaml_place){ file, "coordinator", "host", 0 }, y->host,
                          "one of the names under hosts (slots: 0 if no worker runs there)");
}

static tr_status experts_get(const char *file, const yaml_workers *y, tr_cluster_config *c)
{
    if (y->experts_count == 0)
        return TR_OK;
    if (y->experts_count != c->n_workers)
        return tr_fail(TR_E_CONFIG,
                       "%s: workers.experts has %u numbers for %u workers; give one "
                       "for each",
                       file, y->experts_count, c->n_workers);
    if (c->placement != TR_CLUSTER_PLACE_EVEN)
        return tr_fail(TR_E_CONFIG,
                       "%s: workers.experts and workers.placement: rotate exclude "
                       "each other; leave one out",
                       file);
    c->experts = calloc(c->n_workers, sizeof *c->experts);
    if (!c->experts)
        return tr_fail(TR_E_MEMORY, "%s: no memory for workers.experts", file);
    for (size_t i = 0; i < c->n_workers; i++) {
        tr_status st = tr_yaml_number((tr_yaml_place){ file, "workers.experts", "", i + 1 },
                                      y->experts[i], 1, TR_MAX_EXPERTS, &c->experts[i]);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

static tr_status workers_get(const char *file, const yaml_workers *y, tr_cluster_config *c)
{
    static const char *const rules[] = { "even", "rotate", NULL };
    uint32_t threads = 0;
    tr_status st = tr_yaml_number((tr_yaml_place){ file, "workers", "count", 0 }, y->count, 1,
                                  c->n_workers, &c->n_workers);

    if (st != TR_OK)
        return st;
    st = tr_yaml_number((tr_yaml_place){ file, "workers", "threads", 0 }, y->threads, 0,
                        TR_CLUSTER_MAX_THREADS, &threads);
    if (st != TR_OK)
        return st;
    for (size_t i = 0; i < c->n_hosts; i++)
        if (c->host[i].threads == 0)
            c->host[i].threads = threads;
    st = tr_yaml_choice((tr_yaml_place){ file, "workers", "placement", 0 }, y->placement, rules,
                        &c->placement);
    if (st != TR_OK)
        return st;
    st = path_get((tr_yaml_place){ file, "workers", "binary", 0 }, y->binary, &c->worker_binary);
    if (st == TR_OK)
        st = tr_yaml_number((tr_yaml_place){ file, "workers", "memory_mib", 0 }, y->memory_mib, 1,
                            1 << 30, &c->worker_memory_mib);
    if (st == TR_OK)
        st = text_get((tr_yaml_place){ file, "workers", "replacement", 0 }, y->replacement,
                      &c->replacement);
    if (st != TR_OK)
        return st;
    return experts_get(file, y, c);
}

static tr_status timeouts_get(const char *file, const yaml_timeouts *y, tr_cluster_config *c)
{
    tr_status st = tr_yaml_number((tr_yaml_place){ file, "timeouts", "join_ms", 0 }, y->join_ms,
                                  100, 86400000, &c->join_ms);

    if (st != TR_OK)
        return st;
    st = tr_yaml_number((tr_yaml_place){ file, "timeouts", "suspect_ms", 0 }, y->suspect_ms, 20,
                        3600000, &c->suspect_ms);
    if (st != TR_OK)
        return st;
    st = tr_yaml_number((tr_yaml_place){ file, "timeouts", "silence_ms", 0 }, y->silence_ms, 100,
                        3600000, &c->silence_ms);
    if (st != TR_OK)
        return st;
    return tr_yaml_number((tr_yaml_place){ file, "timeouts", "share_ms", 0 }, y->share_ms, 1,
                          3600000, &c->share_ms);
}

static tr_status mpirun_get(const char *file, const yaml_mpirun *y, tr_cluster_config *c)
{
    tr_status st = path_get((tr_yaml_place){ file, "mpirun", "path", 0 }, y->path, &c->mpirun);

    if (st != TR_OK)
        return st;
    st = word_get((tr_yaml_place){ file, "mpirun", "network", 0 }, y->network, "._-:/,",
                  "interfaces or networks such as eth0 or 10.0.0.0/24, separated by commas",
                  &c->network);
    if (st == TR_OK)
        st = tr_yaml_number((tr_yaml_place){ file, "mpirun", "eager_bytes", 0 }, y->eager_bytes,
                            1024, TR_CLUSTER_MAX_EAGER, &c->eager_bytes);
    if (st != TR_OK || y->arguments_count == 0)
        return st;
    c->argument = calloc(y->arguments_count, sizeof *c->argument);
    if (!c->argument)
        return tr_fail(TR_E_MEMORY, "%s: no memory for mpirun.arguments", file);
    for (; c->n_arguments < y->arguments_count; c->n_arguments++) {
        const char *text = y->arguments[c->n_arguments];
        const tr_yaml_place at = { file, "mpirun.arguments", "", c->n_arguments + 1 };

        if (strcmp(text, ":") == 0)
            return tr_yaml_refuse(at, text, "no : (mpirun would take it for the next program)");
        st = text_get(at, text, &c->argument[c->n_arguments]);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

static tr_status cluster_get(const char *file, const yaml_cluster *y, tr_cluster_config *c)
{
    static const char *const transports[] = { "auto", "mpi", "zmq", NULL };
    tr_status st = path_get((tr_yaml_place){ file, "model", "", 0 }, y->model, &c->model);

    if (st != TR_OK)
        return st;
    st = hosts_get(file, y, c);
    if (st != TR_OK)
        return st;
    st = coordinator_get(file, &y->coordinator, c);
    if (st != TR_OK)
        return st;
    st = workers_get(file, &y->workers, c);
    if (st != TR_OK)
        return st;
    st = tr_yaml_choice((tr_yaml_place){ file, "transport", "", 0 }, y->transport, transports,
                        &c->transport);
    if (st != TR_OK)
        return st;
    st = timeouts_get(file, &y->timeouts, c);
    if (st != TR_OK)
        return st;
    return mpirun_get(file, &y->mpirun, c);
}

tr_status tr_cluster_config_parse(const char *name, tr_bytes text, tr_cluster_config **out)
{
    void *data = NULL;

    tr_status st = tr_yaml_load(name, text, &form, &data);
    if (st != TR_OK)
        return st;

    yaml_cluster *yaml = data;
    tr_cluster_config *c = calloc(1, sizeof *c);
    if (!c) {
        tr_yaml_free(&form, yaml);
        return tr_fail(TR_E_MEMORY, "%s: no memory for the configuration", name);
    }
    c->yaml = yaml;
    st = cluster_get(name, yaml, c);
    if (st != TR_OK) {
        tr_cluster_config_free(&c);
        return st;
    }
    *out = c;
    return TR_OK;
}

void tr_cluster_config_free(tr_cluster_config **c)
{
    if (!*c)
        return;
    tr_yaml_free(&form, (*c)->yaml);
    free((*c)->host);
    free((*c)->experts);
    free((*c)->argument);
    free(*c);
    *c = NULL;
}

tr_status tr_cluster_config_load(const char *path, tr_cluster_config **out)
{
    uint8_t *text = NULL;
    size_t size;

    tr_status st = tr_yaml_read(&form, path, &text, &size);
    if (st == TR_OK)
        st = tr_cluster_config_parse(path, (tr_bytes){ text, size }, out);
    free(text);
    return st;
}
