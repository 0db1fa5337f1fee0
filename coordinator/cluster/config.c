/* config.c - YAML to structs through libcyaml, then the checks that a schema can't express.
 *
 * libcyaml sees strings only: its own integers accept "3x" as 3 and say "UINT" to people.  So the
 * schema fixes the shape, and every number is read here, with its range and its key at hand.
 * libcyaml explains an error by a backtrace of log lines; the first becomes the message and
 * the first position its line.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/config.h"
#include "coordinator/cluster/address.h"

#include <cyaml/cyaml.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* --- the shape ----------------------------------------------------------------------------- */

typedef struct {
    char *name, *slots, *threads, *model;
} yaml_host;

typedef struct {
    char *host, *threads, *listen, *memory_mib;
} yaml_coordinator;

typedef struct {
    char *count, *threads, *placement, *binary, *memory_mib;
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

/* --- what libcyaml has to say -------------------------------------------------------------- */

typedef struct {
    char message[256]; /* the first line of a report, "" before */
    char field[64];    /* the innermost key of the backtrace */
    unsigned line;     /* 0: unknown */
} complaint;

__attribute__((format(printf, 3, 0))) static void complaint_take(cyaml_log_t level, void *ctx,
                                                                 const char *format, va_list args)
{
    static const char prefix[] = "Load: ", field[] = "in mapping field '", at[] = "(line: ";
    complaint *c = ctx;
    char line[512], *text = line, *found;

    (void)level;
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(text, prefix, sizeof prefix - 1) == 0)
        text += sizeof prefix - 1;
    if (c->line == 0 && (found = strstr(text, at)) != NULL)
        c->line = (unsigned)strtoul(found + sizeof at - 1, NULL, 10);
    if (c->field[0] == '\0' && (found = strstr(text, field)) != NULL) {
        found += sizeof field - 1;
        snprintf(c->field, sizeof c->field, "%.*s", (int)strcspn(found, "'"), found);
    }
    if (c->message[0] == '\0' && text[0] != ' ' && strncmp(text, "Backtrace", 9) != 0)
        snprintf(c->message, sizeof c->message, "%.200s", text);
}

static unsigned line_of(tr_bytes text, size_t at)
{
    unsigned line = 1;

    for (size_t i = 0; i < at; i++)
        line += text.data[i] == '\n';
    return line;
}

/* libcyaml gives the position of what came before an unexpected key: look for the key itself. */
static unsigned key_line(tr_bytes text, unsigned from, const char *key)
{
    size_t size = strlen(key), at = 0;

    for (unsigned line = 1; line < from && at < text.size; at++)
        line += text.data[at] == '\n';
    if (size == 0 || at > text.size)
        return from;
    const uint8_t *found = memmem(text.data + at, text.size - at, key, size);
    return found ? line_of(text, (size_t)(found - text.data)) : from;
}

static tr_status complaint_say(complaint *c, const char *name, tr_bytes text, cyaml_err_t error)
{
    static const char unexpected[] = "Unexpected key: ";
    char place[32] = "", key[96] = "";

    if (error == CYAML_ERR_OOM)
        return tr_fail(TR_E_MEMORY, "%s: no memory for the configuration", name);
    if (c->message[0] == '\0')
        snprintf(c->message, sizeof c->message, "%s", cyaml_strerror(error));
    if (strncmp(c->message, unexpected, sizeof unexpected - 1) == 0)
        c->line = key_line(text, c->line, c->message + sizeof unexpected - 1);
    if (c->line > 0)
        snprintf(place, sizeof place, ":%u", c->line);
    if (c->field[0] && error != CYAML_ERR_MAPPING_FIELD_MISSING) /* then it is a neighbour */
        snprintf(key, sizeof key, " (in %s)", c->field);
    if (islower((unsigned char)c->message[1])) /* not YAML */
        c->message[0] = (char)tolower((unsigned char)c->message[0]);
    return tr_fail(TR_E_CONFIG, "%s%s: %s%s; the keys are in cluster-configs/README.md", name,
                   place, c->message, key);
}

static cyaml_config_t yaml_settings(complaint *c)
{
    return (cyaml_config_t){
        .log_fn = complaint_take,
        .log_ctx = c,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_WARNING,
        .flags = CYAML_CFG_NO_ALIAS, /* an alias could make a small file large */
    };
}

static void yaml_free(yaml_cluster *y)
{
    complaint c = { 0 };
    cyaml_config_t settings = yaml_settings(&c);

    cyaml_free(&settings, &cluster_schema, y, 0);
}

static tr_status yaml_load(const char *name, tr_bytes text, yaml_cluster **out)
{
    complaint c = { 0 };
    cyaml_config_t settings = yaml_settings(&c);
    cyaml_data_t *data = NULL;
    cyaml_err_t error =
        cyaml_load_data(text.data, text.size, &settings, &cluster_schema, &data, NULL);

    if (error != CYAML_OK)
        return complaint_say(&c, name, text, error);
    if (!data)
        return tr_fail(TR_E_CONFIG, "%s: empty; hosts is the key that must be there", name);
    if (c.message[0]) { /* the only warning: a second document */
        yaml_free(data);
        return tr_fail(TR_E_CONFIG, "%s: more than one document; leave the --- out", name);
    }
    *out = data;
    return TR_OK;
}

/* --- values -------------------------------------------------------------------------------- */

/* "hosts[2].slots" and the like; n 0: no index. */
typedef struct {
    const char *file, *owner, *key;
    size_t n;
} place;

static tr_status refuse(place p, const char *value, const char *allowed)
{
    char index[32] = "";

    if (p.n > 0)
        snprintf(index, sizeof index, "[%zu]", p.n);
    return tr_fail(TR_E_CONFIG, "%s: %s%s%s%s \"%.80s\": give %s", p.file, p.owner, index,
                   p.key[0] ? "." : "", p.key, value, allowed);
}

/* Leaves *out alone when the key is not there. */
static tr_status number_get(place p, const char *text, uint32_t low, uint32_t high, uint32_t *out)
{
    uint64_t v = 0;
    bool ok = text && text[0];
    char allowed[64];

    if (!text)
        return TR_OK;
    for (const char *c = text; ok && *c; c++) {
        ok = *c >= '0' && *c <= '9' && v <= UINT32_MAX;
        v = v * 10 + (uint64_t)(*c - '0');
    }
    if (!ok || v < low || v > high) {
        snprintf(allowed, sizeof allowed, "a whole number in %u..%u", low, high);
        return refuse(p, text, allowed);
    }
    *out = (uint32_t)v;
    return TR_OK;
}

/* A path or an argument: anything a shell could hand over but control characters. */
static tr_status text_get(place p, const char *text, const char **out)
{
    bool ok = text && text[0];

    if (!text)
        return TR_OK;
    for (const char *c = text; ok && *c; c++)
        ok = (unsigned char)*c >= ' ' && *c != 0x7f;
    if (!ok)
        return refuse(p, text, "a text without control characters");
    *out = text;
    return TR_OK;
}

static tr_status path_get(place p, const char *text, const char **out)
{
    if (text && text[0] == '-')
        return refuse(p, text, "a path that does not begin with -");
    return text_get(p, text, out);
}

/* Letters, digits and the extra characters, no '-' in front: what goes into an option of mpirun
 * can't become another option. */
static tr_status word_get(place p, const char *text, const char *extra, const char *allowed,
                          const char **out)
{
    bool ok = text && text[0] && text[0] != '-';

    if (!text)
        return TR_OK;
    for (const char *c = text; ok && *c; c++)
        ok = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
             strchr(extra, *c) != NULL;
    if (!ok)
        return refuse(p, text, allowed);
    *out = text;
    return TR_OK;
}

static tr_status choice_get(place p, const char *text, const char *const choice[2], uint32_t *out)
{
    char allowed[64];

    if (!text)
        return TR_OK;
    for (uint32_t i = 0; i < 2; i++) {
        if (strcmp(text, choice[i]) == 0) {
            *out = i;
            return TR_OK;
        }
    }
    snprintf(allowed, sizeof allowed, "%s or %s", choice[0], choice[1]);
    return refuse(p, text, allowed);
}

/* --- sections ------------------------------------------------------------------------------ */

static tr_status host_get(const char *file, const yaml_host *y, size_t n, tr_cluster_host *h)
{
    h->slots = 1;
    tr_status st = word_get((place){ file, "hosts", "name", n }, y->name, "._-",
                            "letters, digits, dots, - and _, as mpirun knows the host", &h->name);
    if (st != TR_OK)
        return st;
    st = number_get((place){ file, "hosts", "slots", n }, y->slots, 0, TR_MAX_WORKERS, &h->slots);
    if (st != TR_OK)
        return st;
    st = number_get((place){ file, "hosts", "threads", n }, y->threads, 0, TR_CLUSTER_MAX_THREADS,
                    &h->threads);
    if (st != TR_OK)
        return st;
    return path_get((place){ file, "hosts", "model", n }, y->model, &h->model);
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
                return refuse((place){ file, "hosts", "name", i + 1 }, c->host[i].name,
                              "each host once, with all its slots");
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
    const place at_listen = { file, "coordinator", "listen", 0 };
    tr_status st = number_get((place){ file, "coordinator", "threads", 0 }, y->threads, 0,
                              TR_CLUSTER_MAX_THREADS, &c->coordinator_threads);

    if (st == TR_OK)
        st = number_get((place){ file, "coordinator", "memory_mib", 0 }, y->memory_mib, 1, 1 << 30,
                        &c->coordinator_memory_mib);
    if (st != TR_OK)
        return st;
    if (y->listen && !tr_address_is_sound(y->listen))
        return refuse(at_listen, y->listen, TR_ADDRESS_FORM);
    c->listen = y->listen;
    if (!y->host)
        return TR_OK;
    for (size_t i = 0; i < c->n_hosts; i++) {
        if (strcasecmp(y->host, c->host[i].name) == 0) {
            c->coordinator = i;
            return TR_OK;
        }
    }
    return refuse((place){ file, "coordinator", "host", 0 }, y->host,
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
        tr_status st = number_get((place){ file, "workers.experts", "", i + 1 }, y->experts[i], 1,
                                  TR_MAX_EXPERTS, &c->experts[i]);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

static tr_status workers_get(const char *file, const yaml_workers *y, tr_cluster_config *c)
{
    static const char *const rules[2] = { "even", "rotate" };
    uint32_t threads = 0;
    tr_status st = number_get((place){ file, "workers", "count", 0 }, y->count, 1, c->n_workers,
                              &c->n_workers);

    if (st != TR_OK)
        return st;
    st = number_get((place){ file, "workers", "threads", 0 }, y->threads, 0, TR_CLUSTER_MAX_THREADS,
                    &threads);
    if (st != TR_OK)
        return st;
    for (size_t i = 0; i < c->n_hosts; i++)
        if (c->host[i].threads == 0)
            c->host[i].threads = threads;
    st = choice_get((place){ file, "workers", "placement", 0 }, y->placement, rules, &c->placement);
    if (st != TR_OK)
        return st;
    st = path_get((place){ file, "workers", "binary", 0 }, y->binary, &c->worker_binary);
    if (st == TR_OK)
        st = number_get((place){ file, "workers", "memory_mib", 0 }, y->memory_mib, 1, 1 << 30,
                        &c->worker_memory_mib);
    if (st != TR_OK)
        return st;
    return experts_get(file, y, c);
}

static tr_status timeouts_get(const char *file, const yaml_timeouts *y, tr_cluster_config *c)
{
    tr_status st = number_get((place){ file, "timeouts", "join_ms", 0 }, y->join_ms, 100, 86400000,
                              &c->join_ms);

    if (st != TR_OK)
        return st;
    st = number_get((place){ file, "timeouts", "suspect_ms", 0 }, y->suspect_ms, 20, 3600000,
                    &c->suspect_ms);
    if (st != TR_OK)
        return st;
    st = number_get((place){ file, "timeouts", "silence_ms", 0 }, y->silence_ms, 100, 3600000,
                    &c->silence_ms);
    if (st != TR_OK)
        return st;
    return number_get((place){ file, "timeouts", "share_ms", 0 }, y->share_ms, 1, 3600000,
                      &c->share_ms);
}

static tr_status mpirun_get(const char *file, const yaml_mpirun *y, tr_cluster_config *c)
{
    tr_status st = path_get((place){ file, "mpirun", "path", 0 }, y->path, &c->mpirun);

    if (st != TR_OK)
        return st;
    st = word_get((place){ file, "mpirun", "network", 0 }, y->network, "._-:/,",
                  "interfaces or networks such as eth0 or 10.0.0.0/24, separated by commas",
                  &c->network);
    if (st == TR_OK)
        st = number_get((place){ file, "mpirun", "eager_bytes", 0 }, y->eager_bytes, 1024,
                        TR_CLUSTER_MAX_EAGER, &c->eager_bytes);
    if (st != TR_OK || y->arguments_count == 0)
        return st;
    c->argument = calloc(y->arguments_count, sizeof *c->argument);
    if (!c->argument)
        return tr_fail(TR_E_MEMORY, "%s: no memory for mpirun.arguments", file);
    for (; c->n_arguments < y->arguments_count; c->n_arguments++) {
        const char *text = y->arguments[c->n_arguments];
        const place at = { file, "mpirun.arguments", "", c->n_arguments + 1 };

        if (strcmp(text, ":") == 0)
            return refuse(at, text, "no : (mpirun would take it for the next program)");
        st = text_get(at, text, &c->argument[c->n_arguments]);
        if (st != TR_OK)
            return st;
    }
    return TR_OK;
}

static tr_status cluster_get(const char *file, const yaml_cluster *y, tr_cluster_config *c)
{
    static const char *const transports[2] = { "auto", "mpi" };
    tr_status st = path_get((place){ file, "model", "", 0 }, y->model, &c->model);

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
    st = choice_get((place){ file, "transport", "", 0 }, y->transport, transports, &c->transport);
    if (st != TR_OK)
        return st;
    st = timeouts_get(file, &y->timeouts, c);
    if (st != TR_OK)
        return st;
    return mpirun_get(file, &y->mpirun, c);
}

tr_status tr_cluster_config_parse(const char *name, tr_bytes text, tr_cluster_config **out)
{
    yaml_cluster *yaml = NULL;

    if (text.size > TR_CLUSTER_MAX_FILE)
        return tr_fail(TR_E_CONFIG, "%s: larger than %d bytes, so no cluster file", name,
                       TR_CLUSTER_MAX_FILE);
    tr_status st = yaml_load(name, text, &yaml);
    if (st != TR_OK)
        return st;

    tr_cluster_config *c = calloc(1, sizeof *c);
    if (!c) {
        yaml_free(yaml);
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
    yaml_free((*c)->yaml);
    free((*c)->host);
    free((*c)->experts);
    free((*c)->argument);
    free(*c);
    *c = NULL;
}

tr_status tr_cluster_config_load(const char *path, tr_cluster_config **out)
{
    tr_status st = TR_OK;
    size_t size = 0;
    ssize_t got = 1;

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tr_fail(TR_E_IO, "cluster file %.256s: open: %s", path, strerror(errno));
    uint8_t *text = malloc(TR_CLUSTER_MAX_FILE + 1);
    if (!text) {
        st = tr_fail(TR_E_MEMORY, "cluster file %.256s: no memory", path);
        goto out_close;
    }
    while (got > 0 && size <= TR_CLUSTER_MAX_FILE) {
        got = read(fd, text + size, TR_CLUSTER_MAX_FILE + 1 - size);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            size += (size_t)got;
    }
    if (got < 0) {
        st = tr_fail(TR_E_IO, "cluster file %.256s: read: %s", path, strerror(errno));
        goto out_free;
    }
    st = tr_cluster_config_parse(path, (tr_bytes){ text, size }, out);

out_free:
    free(text);
out_close:
    close(fd);
    return st;
}
