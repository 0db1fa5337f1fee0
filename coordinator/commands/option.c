/* option.c - strtoull without its leniency, and names of types.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/option.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

tr_status tr_option_number(const char *name, const char *text, uint64_t low, uint64_t high,
                           uint64_t *out)
{
    char *end;

    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno == ERANGE || v < low || v > high)
        return tr_fail(TR_E_USAGE, "--%s \"%.40s\": give a number from %llu to %llu", name, text,
                       (unsigned long long)low, (unsigned long long)high);
    *out = v;
    return TR_OK;
}

tr_status tr_option_type(const char *what, const char *text, tr_type *out)
{
    tr_type t;

    if (!tr_type_find(text, &t) || !tr_type_get(t)->computable)
        return tr_fail(TR_E_USAGE, "%s \"%.40s\": no such type; troupe quantize --help lists them",
                       what, text);
    *out = t;
    return TR_OK;
}

tr_status tr_option_kv(const char *text, tr_type *out)
{
    tr_type t;

    if (!tr_type_find(text, &t) || (t != TR_TYPE_F16 && t != TR_TYPE_F32 && t != TR_TYPE_Q8_0))
        return tr_fail(TR_E_USAGE, "--kv %.40s: must be f16, f32 or q8_0", text);
    *out = t;
    return TR_OK;
}

tr_status tr_option_type_rule(char *text, tr_type_rule *rules, size_t max, size_t *n_rules)
{
    char *equals = strrchr(text, '=');

    if (!equals || equals == text)
        return tr_fail(TR_E_USAGE, "--tensor \"%.80s\": give GLOB=TYPE", text);
    if (*n_rules == max)
        return tr_fail(TR_E_USAGE, "--tensor: at most %zu", max);
    *equals = '\0';
    rules[*n_rules].pattern = text;
    return tr_option_type("--tensor", equals + 1, &rules[(*n_rules)++].type);
}

tr_status tr_option_transport(const char *text, bool *by_zmq)
{
    *by_zmq = strcmp(text, "zmq") == 0;
    return *by_zmq || strcmp(text, "mpi") == 0 || strcmp(text, "auto") == 0
               ? TR_OK
               : tr_fail(TR_E_USAGE, "--transport %.40s: must be auto, mpi or zmq", text);
}
