/* bpe.h - byte pair encoding: join neighbours in the order in which merges were learned.
 *
 * Among all neighbours that a merge joins, the merge with the lowest rank goes first, the
 * leftmost pair first among equals, until no merge applies.  A heap keeps the candidates, so a
 * word of n symbols takes n log n steps.
 *
 * USE     st = tr_merges_init(&merges, n);
 *         tr_merges_put(&merges, left, right, rank, joined);   the first of equal pairs wins
 *         st = tr_bpe_merge(&merges, &work, ids, &n);          in place; n shrinks
 *         tr_bpe_work_fini(&work);  tr_merges_fini(&merges);
 * MEMORY  A work (zero-initialised) keeps its arrays from word to word.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_BPE_H
#define TR_COORDINATOR_TEXT_BPE_H

#include "base/bytes.h"
#include "base/status.h"

typedef struct {
    uint32_t left, right;
    uint32_t rank;
    uint32_t joined; /* the token that replaces both; UINT32_MAX in a free slot */
} tr_merge;

typedef struct {
    tr_merge *slots;
    size_t mask;
} tr_merges;

tr_status tr_merges_init(tr_merges *m, size_t n);
void tr_merges_fini(tr_merges *m);
void tr_merges_put(tr_merges *m, tr_merge merge);
const tr_merge *tr_merges_find(const tr_merges *m, uint32_t left, uint32_t right); /* or NULL */

typedef struct tr_bpe_symbol tr_bpe_symbol;
typedef struct tr_bpe_candidate tr_bpe_candidate;

typedef struct {
    tr_bpe_symbol *symbols;
    tr_bpe_candidate *heap;
    size_t n_symbols, n_heap; /* capacities */
} tr_bpe_work;

/* ids holds *n symbols, *n below UINT32_MAX / 4. */
tr_status tr_bpe_merge(const tr_merges *m, tr_bpe_work *w, uint32_t *ids, size_t *n);
void tr_bpe_work_fini(tr_bpe_work *w);

#endif
