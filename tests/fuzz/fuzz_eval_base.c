/* fuzz_eval_base.c - any bytes as a base of troupe eval: refused, or distributions that hold.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/eval_base.h"

#include "base/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_TOKENS = 4096, MOST_POSITIONS = 64 };

static void read_positions(tr_eval_reader *r, const tr_eval_header *h)
{
    float *logits = calloc(h->n_vocab, sizeof *logits);
    tr_known known;
    double log_prob;

    TR_CHECK(logits);
    for (size_t i = 0; i < h->n_positions && i < MOST_POSITIONS; i++) {
        if (tr_eval_reader_next(r, 3, &known, &log_prob) != TR_OK)
            break;
        double mass = tr_known_mass(&known);
        double d = tr_divergence(&known, logits, log((double)h->n_vocab));
        TR_CHECK(log_prob <= 0 && mass >= 0 && mass <= 1);
        TR_CHECK(known.n == h->top && isfinite(d) && d >= 0);
    }
    free(logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[512];
    tr_eval_reader *r = NULL;
    uint8_t *copy = malloc(size ? size : 1);

    TR_CHECK(copy);
    if (size > 0)
        memcpy(copy, data, size);
    FILE *f = size > 0 ? fmemopen(copy, size, "r") : NULL;
    tr_fail_capture_begin(why, sizeof why);
    if (f && tr_eval_reader_from(f, "fuzz", &r) == TR_OK) {
        tr_eval_header h = *tr_eval_reader_header(r);
        if (h.n_vocab <= MOST_TOKENS && tr_eval_reader_check(r, &h) == TR_OK) {
            read_positions(r, &h);
            if (tr_eval_reader_end(r) != TR_OK)
                TR_CHECK(why[0] != '\0');
        }
    }
    tr_fail_capture_end();
    tr_eval_reader_close(&r);
    free(copy);
    return 0;
}
