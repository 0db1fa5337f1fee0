/* yaml.c - see yaml.h.
 *
 * libcyaml explains an error by a backtrace of log lines; the first becomes the message and the
 * first position its line.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/yaml.h"
#include "base/check.h"

#include <cyaml/cyaml.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static tr_status complaint_say(complaint *c, const char *name, tr_bytes text,
                               const tr_yaml_form *form, cyaml_err_t error)
{
    static const char unexpected[] = "Unexpected key: ";
    char place[32] = "", key[96] = "";

    if (error == CYAML_ERR_OOM)
        return tr_fail(TR_E_MEMORY, "%s: no memory for what it says", name);
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
    return tr_fail(TR_E_CONFIG, "%s%s: %s%s; the keys are in %s", name, place, c->message, key,
                   form->manual);
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

void tr_yaml_free(const tr_yaml_form *form, void *data)
{
    complaint c = { 0 };
    cyaml_config_t settings = yaml_settings(&c);

    cyaml_free(&settings, form->schema, data, 0);
}

tr_status tr_yaml_load(const char *name, tr_bytes text, const tr_yaml_form *form, void **out)
{
    complaint c = { 0 };
    cyaml_config_t settings = yaml_settings(&c);
    cyaml_data_t *data = NULL;

    if (text.size > form->max)
        return tr_fail(TR_E_CONFIG, "%s: larger than %zu bytes, so no %s", name, form->max,
                       form->what);
    cyaml_err_t error = cyaml_load_data(text.data, text.size, &settings, form->schema, &data, NULL);

    if (error != CYAML_OK)
        return complaint_say(&c, name, text, form, error);
    if (!data)
        return tr_fail(TR_E_CONFIG, "%s: empty; %s is the key that must be there", name,
                       form->must);
    if (c.message[0]) { /* the only warning: a second document */
        tr_yaml_free(form, data);
        return tr_fail(TR_E_CONFIG, "%s: more than one document; leave the --- out", name);
    }
    *out = data;
    return TR_OK;
}

/* --- values -------------------------------------------------------------------------------- */

tr_status tr_yaml_refuse(tr_yaml_place p, const char *value, const char *allowed)
{
    char index[32] = "";

    if (p.n > 0)
        snprintf(index, sizeof index, "[%zu]", p.n);
    return tr_fail(TR_E_CONFIG, "%s: %s%s%s%s \"%.80s\": give %s", p.file, p.owner, index,
                   p.key[0] ? "." : "", p.key, value, allowed);
}

tr_status tr_yaml_number(tr_yaml_place p, const char *text, uint32_t low, uint32_t high,
                         uint32_t *out)
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
        return tr_yaml_refuse(p, text, allowed);
    }
    *out = (uint32_t)v;
    return TR_OK;
}

tr_status tr_yaml_choice(tr_yaml_place p, const char *text, const char *const *choice,
                         uint32_t *out)
{
    char allowed[256] = "";
    size_t used = 0;

    if (!text)
        return TR_OK;
    for (uint32_t i = 0; choice[i]; i++) {
        if (strcmp(text, choice[i]) == 0) {
            *out = i;
            return TR_OK;
        }
        const char *before = i == 0 ? "" : choice[i + 1] ? ", " : " or ";
        used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%s", before, choice[i]);
        TR_CHECK(used < sizeof allowed);
    }
    return tr_yaml_refuse(p, text, allowed);
}

/* --- files --------------------------------------------------------------------------------- */

/* The bytes up to one more than max. */
static ssize_t read_up_to(int fd, uint8_t *text, size_t max)
{
    size_t size = 0;
    ssize_t got = 1;

    while (got > 0 && size <= max) {
        got = read(fd, text + size, max + 1 - size);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            size += (size_t)got;
    }
    return got < 0 ? got : (ssize_t)size;
}

tr_status tr_yaml_read(const tr_yaml_form *form, const char *path, uint8_t **text, size_t *size)
{
    const char *what = form->what;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tr_fail(TR_E_IO, "%s %.256s: open: %s", what, path, strerror(errno));
    uint8_t *bytes = malloc(form->max + 1);
    ssize_t got = bytes ? read_up_to(fd, bytes, form->max) : 0;
    int error = errno;
    close(fd);
    if (!bytes)
        return tr_fail(TR_E_MEMORY, "%s %.256s: no memory", what, path);
    if (got < 0) {
        free(bytes);
        return tr_fail(TR_E_IO, "%s %.256s: read: %s", what, path, strerror(error));
    }
    *text = bytes;
    *size = (size_t)got;
    return TR_OK;
}
