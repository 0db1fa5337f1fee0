/* latent_weights.h - the matrices that keys and values are made of a latent with (latent.h), a
 * head's at a time, in the file's own blocks.
 *
 * Keys' matrices are multiplied from the left: a query with K_h gives what a latent is held
 * against. Newer files have them turned for that (K_h'), so it is a product like any other.  Older
 * files have K_h, whose blocks run along the latent.  Rows of floats, of half precision or of Q8_0
 * stay and are added up, each times a value of the query.  From rows of other types floats are made
 * too slowly; they are turned into blocks of Q8_0, which err far less than such weights do, but not
 * in exact mode.
 *
 * USE     st = tr_latent_load(compute, g, keys, values, &w);          attn_k_b and attn_v_b
 *         st = tr_latent_load_joint(compute, g, config, t, &w);       attn_kv_b
 *         tr_matrix v = tr_head_matrix(&w.values, h);
 *         tr_latent_weights_free(&w);
 *
 * MEMORY  The file's bytes, and what panels add (compute/panels.h); 8.5 bits for a turned weight.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_LATENT_WEIGHTS_H
#define TR_COORDINATOR_MODEL_LATENT_WEIGHTS_H

#include "compute/matrix.h"
#include "coordinator/model/arch.h"

/* One matrix a head, of equal shape, one after the other. */
typedef struct {
    tr_matrix first;
    size_t head_size; /* bytes from one head's to the next one's */
    void *data;
    size_t size;
} tr_head_weights;

typedef struct {
    tr_head_weights keys;   /* K_h [head_dim - n_rot][latent], or turned */
    bool has_turned_keys;   /* K_h' [latent][head_dim - n_rot] */
    tr_head_weights values; /* V_h [value_dim][latent] */
} tr_latent_weights;

static inline tr_matrix tr_head_matrix(const tr_head_weights *w, size_t head)
{
    tr_matrix m = w->first;

    m.data = (const uint8_t *)w->data + head * w->head_size;
    return m;
}

/* keys is a tensor [n_heads][latent][head_dim - n_rot], values [n_heads][value_dim][latent]. */
tr_status tr_latent_load(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *keys,
                         const tr_gguf_tensor *values, tr_latent_weights *out);

/* t is [n_heads][head_dim - n_rot + value_dim][latent]: K_h, then V_h. */
tr_status tr_latent_load_joint(const tr_compute *c, const tr_gguf *g, const tr_model_config *config,
                               const tr_gguf_tensor *t, tr_latent_weights *out);

/* Bytes that the two would take of it; values is NULL where keys is a joint tensor. */
uint64_t tr_latent_size(const tr_compute *c, const tr_model_config *config,
                        const tr_gguf_tensor *keys, const tr_gguf_tensor *values);

void tr_latent_weights_free(tr_latent_weights *w);

#endif
