/* recipes.h - which tensors a converted file has, and where the rows of each come from.
 *
 * They follow from the family's tables and the directory's tensors; every name, shape and type
 * is checked here, before anything is written, and a rule of types that fits no tensor gets a line.
 * Nothing of the data is read.
 *
 * USE     tr_recipes p;
 *         st = tr_recipes_make(&model, checkpoint, &types, &p);
 *         for (size_t i = 0; i < p.n; i++) ...  p.recipe[i]
 *         tr_recipes_fini(&p);
 * MEMORY  Sources belong to the checkpoint, which must outlive the recipes.
 * FAILS   TR_E_FORMAT       a tensor is missing, or of another shape than config.json promises
 *         TR_E_UNSUPPORTED  a type that can't be converted, a tensor that the family does not have
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_RECIPES_H
#define TR_COORDINATOR_CONVERT_RECIPES_H

#include "coordinator/convert/checkpoint.h"
#include "coordinator/convert/family.h"
#include "coordinator/model/type_rules.h"

/* One tensor of the file to come.  Its rows are those of its sources, one after the other; a source
 * is cut into groups of rows, within which `order` says which row of the group is the next. */
typedef struct {
    char name[TR_GGUF_MAX_NAME];
    uint32_t n_dims;
    uint64_t dim[TR_GGUF_MAX_DIMS]; /* dim[0] is contiguous */
    tr_type from, to;               /* of rows as tr_rows_read gives them; as they are written */
    size_t row_len;                 /* values that are read as a row: dim[0], or 1 */
    uint64_t n_rows;                /* of the whole tensor */

    size_t n_sources;
    const tr_source **source; /* [n_sources] */
    const tr_source **scale;  /* [n_sources], or NULL: what scales them (F8, MXFP4) */
    uint32_t scale_block[2];  /* F8: rows and columns that share a scale */
    tr_rows order;
    uint64_t group;      /* rows of a source that belong together: a head's, an expert's */
    const float *values; /* computed: no sources */
} tr_recipe;

typedef struct {
    tr_recipe *recipe;
    size_t n;
} tr_recipes;

tr_status tr_recipes_make(const tr_hf_model *m, tr_checkpoint *c, const tr_type_rules *types,
                          tr_recipes *out);
void tr_recipes_fini(tr_recipes *p);

#endif
