/* types.c - the table of element types.
 * SPDX-License-Identifier: Apache-2.0 */
#include "compute/types.h"

#include <strings.h>

static const tr_type_info table[TR_TYPE_COUNT] = {
    [TR_TYPE_F32] = { "F32", 1, 4, true },
    [TR_TYPE_F16] = { "F16", 1, 2, true },
    [TR_TYPE_Q4_0] = { "Q4_0", 32, 18, true },
    [TR_TYPE_Q4_1] = { "Q4_1", 32, 20, true },
    [TR_TYPE_Q5_0] = { "Q5_0", 32, 22, true },
    [TR_TYPE_Q5_1] = { "Q5_1", 32, 24, true },
    [TR_TYPE_Q8_0] = { "Q8_0", 32, 34, true },
    [TR_TYPE_Q8_1] = { "Q8_1", 32, 36, false },
    [TR_TYPE_Q2_K] = { "Q2_K", 256, 84, true },
    [TR_TYPE_Q3_K] = { "Q3_K", 256, 110, true },
    [TR_TYPE_Q4_K] = { "Q4_K", 256, 144, true },
    [TR_TYPE_Q5_K] = { "Q5_K", 256, 176, true },
    [TR_TYPE_Q6_K] = { "Q6_K", 256, 210, true },
    [TR_TYPE_Q8_K] = { "Q8_K", 256, 292, false },
    [TR_TYPE_IQ2_XXS] = { "IQ2_XXS", 256, 66, false },
    [TR_TYPE_IQ2_XS] = { "IQ2_XS", 256, 74, false },
    [TR_TYPE_IQ3_XXS] = { "IQ3_XXS", 256, 98, false },
    [TR_TYPE_IQ1_S] = { "IQ1_S", 256, 50, false },
    [TR_TYPE_IQ4_NL] = { "IQ4_NL", 32, 18, true },
    [TR_TYPE_IQ3_S] = { "IQ3_S", 256, 110, false },
    [TR_TYPE_IQ2_S] = { "IQ2_S", 256, 82, false },
    [TR_TYPE_IQ4_XS] = { "IQ4_XS", 256, 136, true },
    [TR_TYPE_I8] = { "I8", 1, 1, false },
    [TR_TYPE_I16] = { "I16", 1, 2, false },
    [TR_TYPE_I32] = { "I32", 1, 4, false },
    [TR_TYPE_I64] = { "I64", 1, 8, false },
    [TR_TYPE_F64] = { "F64", 1, 8, false },
    [TR_TYPE_IQ1_M] = { "IQ1_M", 256, 56, false },
    [TR_TYPE_BF16] = { "BF16", 1, 2, true },
    [TR_TYPE_TQ1_0] = { "TQ1_0", 256, 54, false },
    [TR_TYPE_TQ2_0] = { "TQ2_0", 256, 66, false },
    [TR_TYPE_MXFP4] = { "MXFP4", 32, 17, true },
};

const tr_type_info *tr_type_get(uint32_t type)
{
    if (type >= TR_TYPE_COUNT || !table[type].name)
        return NULL;
    return &table[type];
}

bool tr_type_find(const char *name, tr_type *out)
{
    for (uint32_t t = 0; t < TR_TYPE_COUNT; t++) {
        if (table[t].name && strcasecmp(table[t].name, name) == 0) {
            *out = (tr_type)t;
            return true;
        }
    }
    return false;
}

bool tr_type_row_size(tr_type type, size_t n, size_t *out)
{
    const tr_type_info *t = tr_type_get(type);

    if (!t || n % t->block != 0)
        return false;
    return tr_mul_size(n / t->block, t->size, out);
}
