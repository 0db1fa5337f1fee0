/* convert.h - a Hugging Face directory as one GGUF file.
 *
 * What happens: config.json names the family (family.h), whose tables say which tensors there must
 * be (recipes.h); the header is made in memory and read as if it were a file, by the same code that
 * would run the model; then the data streams through a few megabytes, tensor by tensor, rows over
 * all threads, into a file that can be gone on with (output.h).
 *
 * The same directory and options give the same bytes, whether interrupted or not.
 *
 * FAILS   TR_E_UNSUPPORTED  a family, a tensor, a type, a tokenizer or a setting that can't be
 *                           converted
 *         TR_E_INTERRUPTED  what is written stays for the next time
 *         and what reading and writing fail with; one line says what and where
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_CONVERT_H
#define TR_COORDINATOR_CONVERT_CONVERT_H

#include "base/status.h"
#include "compute/pool.h"
#include "coordinator/model/type_rules.h"

typedef struct {
    const char *dir, *out;
    tr_type_rules types;
    const char *pre; /* the name of the way to cut words, or NULL to recognise it */
    tr_pool *pool;
    bool overwrite; /* replace what is at `out`, and a part of another conversion */
    bool progress;  /* draw a bar on stderr */
} tr_convert;

typedef struct {
    uint64_t bytes; /* of the file */
    uint64_t kept;  /* of them, those that an earlier run had written */
    size_t n_tensors;
    double error, size; /* sums of squares over what changed: of differences, of values */
} tr_convert_result;

tr_status tr_convert_run(const tr_convert *c, tr_convert_result *out);

#endif
