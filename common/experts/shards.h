/* shards.h - the experts that this process hosts.
 *
 * USE     tr_shards *s;
 *         st = tr_shards_new(&compute, g, &map, &s);  holds nothing yet
 *         st = tr_shards_load(s, layer, expert);      reads that expert's bytes, no others
 *         const tr_expert *e = tr_shards_get(s, layer, expert);    NULL: not held
 *         tr_shards_free(&s);
 *
 * MEMORY  Experts' weights are copied from the file into slabs that can have huge pages, one expert
 *         after the other: what is resident is what is hosted.  The file and the map must
 *         outlive the shards.
 * FAILS   TR_E_UNSUPPORTED  a tensor's type has no kernels
 *         TR_E_IO, TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_EXPERTS_SHARDS_H
#define TR_EXPERTS_SHARDS_H

#include "compute/matrix.h"
#include "experts/expert_map.h"

typedef struct {
    tr_matrix gate; /* [ffn][dim]; empty in a network without a gate */
    tr_matrix up;   /* [ffn][dim] */
    tr_matrix down; /* [dim][ffn] */

    const float *gate_bias, *up_bias; /* [ffn]; NULL: none */
    const float *down_bias;           /* [dim] */
} tr_expert;

typedef struct tr_shards tr_shards;

/* compute: what the weights are laid out for; must outlive the shards. */
tr_status tr_shards_new(const tr_compute *compute, const tr_gguf *g, const tr_expert_map *map,
                        tr_shards **out);
void tr_shards_free(tr_shards **s);

/* Others of the same file and map, which hold nothing yet. */
tr_status tr_shards_new_like(const tr_shards *s, tr_shards **out);

/* Loading what is held already does nothing.  layer and expert must exist in the map. */
tr_status tr_shards_load(tr_shards *s, uint32_t layer, uint32_t expert);

const tr_expert *tr_shards_get(const tr_shards *s, uint32_t layer, uint32_t expert);

const tr_expert_map *tr_shards_map(const tr_shards *s);

/* Bytes that one expert of a layer has in memory, laid out for compute. */
uint64_t tr_shards_expert_bytes(const tr_compute *compute, const tr_expert_map *map,
                                uint32_t layer);

size_t tr_shards_count(const tr_shards *s);
uint64_t tr_shards_bytes(const tr_shards *s); /* of weights */

#endif
