/* expert_map.h - where a model file keeps its experts, and of what shape they are.
 *
 * A worker needs no more than this of a model: no dense tensor, no architecture.
 *
 * A layer whose feed-forward network is a single one (blk.N.ffn_gate.weight, up, down) counts as a
 * layer with one expert, which every row picks.  So dense models, and dense layers beside others,
 * take the same way as experts do.  It may lack a gate; then it has biases (blk.N.ffn_up.bias,
 * down).
 *
 * USE     tr_expert_map map;
 *         st = tr_expert_map_read(g, &map);
 *         map.layer[3].up      the 3-D tensor of layer 3, or NULL: a layer without experts
 *         tr_expert_map_fini(&map);
 *
 * MEMORY  Tensors belong to the file; the map must not outlive it.
 * FAILS   TR_E_FORMAT  a count in the metadata and a tensor's shape disagree, and which
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_EXPERTS_EXPERT_MAP_H
#define TR_EXPERTS_EXPERT_MAP_H

#include "compute/gguf.h"
#include "compute/kernels.h"

typedef struct {
    const tr_gguf_tensor *gate; /* [n_experts][ffn][dim]; NULL in a network without a gate */
    const tr_gguf_tensor *up;   /* [n_experts][ffn][dim] */
    const tr_gguf_tensor *down; /* [n_experts][dim][ffn] */

    /* Added to the products; all NULL or, float32, those of the matrices above.  What has them also
     * has another activation (apply.h). */
    const tr_gguf_tensor *gate_bias, *up_bias; /* [n_experts][ffn] */
    const tr_gguf_tensor *down_bias;           /* [n_experts][dim] */

    uint32_t n_experts;
    uint32_t top_k; /* picks of a row */
    uint32_t ffn;   /* hidden units of an expert */
    bool is_dense;  /* one network that every row goes through: no router */
} tr_expert_tensors;

typedef struct {
    uint32_t n_layers;              /* without those that only predict further tokens */
    uint32_t dim;                   /* values of a row */
    uint32_t n_experts, top_k, ffn; /* the largest of any layer */
    tr_expert_tensors *layer;       /* [n_layers]; all NULL where a layer has none */
} tr_expert_map;

tr_status tr_expert_map_read(const tr_gguf *g, tr_expert_map *out);
void tr_expert_map_fini(tr_expert_map *m);

static inline bool tr_expert_map_has(const tr_expert_map *m, uint32_t layer)
{
    return m->layer[layer].up != NULL;
}

/* Whether it is one without a gate. */
static inline bool tr_expert_is_plain(const tr_expert_tensors *e)
{
    return e->gate == NULL;
}

/* Whether a tensor belongs to a block behind the layers that are run. */
bool tr_expert_map_is_behind(const tr_expert_map *m, const char *tensor);

/* The form in which a layer's rows reach its experts. */
tr_act tr_expert_map_act(const tr_expert_map *m, uint32_t layer, bool exact);

/* Bytes of one expert of a layer in the file. */
uint64_t tr_expert_map_bytes(const tr_expert_map *m, uint32_t layer);

#endif
