/* type_rules.c - names decide, rows' lengths correct.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/type_rules.h"

#include "base/log.h"

#include <fnmatch.h>
#include <string.h>

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name);
    size_t m = strlen(tail);

    return n >= m && strcmp(name + n - m, tail) == 0;
}

static bool fits(const tr_type_rule *rule, const char *name)
{
    return fnmatch(rule->pattern, name, 0) == 0;
}

static tr_type type_wanted(const tr_type_rules *r, const char *name, tr_type is, bool is_matrix)
{
    for (size_t i = r->n_rules; i-- > 0;)
        if (fits(&r->rules[i], name))
            return r->rules[i].type;
    if (r->keeps || !is_matrix || !ends_with(name, ".weight") || strstr(name, "ffn_gate_inp") ||
        strstr(name, "position_embd"))
        return is;
    return ends_with(name, "_exps.weight") ? r->experts : r->dense;
}

/* The type, or the nearest one whose blocks rows of n values fill. */
static tr_type type_that_fits(tr_type type, uint64_t n)
{
    const tr_type_info *info = tr_type_get(type);

    if (n % info->block == 0)
        return type;
    if (n % 32 != 0)
        return TR_TYPE_F16;
    switch (type) { /* of about the same size */
    case TR_TYPE_Q2_K:
    case TR_TYPE_Q3_K:
    case TR_TYPE_IQ4_XS:
        return TR_TYPE_IQ4_NL;
    case TR_TYPE_Q4_K:
        return TR_TYPE_Q4_1;
    case TR_TYPE_Q5_K:
        return TR_TYPE_Q5_1;
    default:
        return TR_TYPE_Q8_0;
    }
}

tr_type tr_type_rules_choose(const tr_type_rules *r, const char *name, tr_type is, uint64_t n,
                             bool is_matrix, tr_type *wanted)
{
    tr_type type = type_wanted(r, name, is, is_matrix);

    if (wanted)
        *wanted = type;
    return type_that_fits(type, n);
}

void tr_type_rules_warn(const tr_type_rules *r, const char *(*name_at)(const void *ctx, size_t i),
                        const void *ctx, size_t n)
{
    for (size_t i = 0; i < r->n_rules; i++) {
        const tr_type_rule *rule = &r->rules[i];
        size_t at = 0;
        while (at < n && !fits(rule, name_at(ctx, at)))
            at++;
        if (at == n)
            tr_log(TR_LOG_WARN,
                   "--tensor '%.80s=%s': no tensor of the GGUF file has such a name, so this rule "
                   "changes nothing; troupe quantize --help shows examples",
                   rule->pattern, tr_type_get(rule->type)->name);
    }
}

uint32_t tr_type_rules_file_type(tr_type type)
{
    static const struct {
        tr_type type;
        uint32_t number;
    } known[] = {
        { TR_TYPE_F32, 0 },     { TR_TYPE_F16, 1 },     { TR_TYPE_Q4_0, 2 },  { TR_TYPE_Q4_1, 3 },
        { TR_TYPE_Q8_0, 7 },    { TR_TYPE_Q5_0, 8 },    { TR_TYPE_Q5_1, 9 },  { TR_TYPE_Q2_K, 10 },
        { TR_TYPE_Q3_K, 12 },   { TR_TYPE_Q4_K, 14 },   { TR_TYPE_Q5_K, 16 }, { TR_TYPE_Q6_K, 18 },
        { TR_TYPE_IQ4_NL, 25 }, { TR_TYPE_IQ4_XS, 30 }, { TR_TYPE_BF16, 32 }, { TR_TYPE_MXFP4, 38 },
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].type == type)
            return known[i].number;
    return 0;
}
