/* matrix.h - weights in memory, and a linear map over a batch of rows.
 *
 * USE     tr_weights w;
 *         st = tr_weights_load(g, t, 0, 1, &w);                   copies from the file
 *         tr_linear(&c, &w.matrix, act, x, x_stride, n_rows, y);  y [n_rows][n_out]
 *         tr_weights_free(&w);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COMPUTE_MATRIX_H
#define TR_COMPUTE_MATRIX_H

#include "compute/gguf.h"
#include "compute/kernels.h"
#include "compute/pool.h"

/* What computing needs everywhere: borrowed, set once at start. */
typedef struct {
    const tr_kernels *kernels;
    tr_pool *pool;
    bool exact; /* float32 activations everywhere, whatever the weights */
} tr_compute;

/* A matrix and the memory it owns. */
typedef struct {
    tr_matrix matrix;
    void *data;  /* what matrix.data points to */
    size_t size; /* bytes of it */
} tr_weights;

/* Whether there are kernels for the type of t; TR_E_UNSUPPORTED names the tensor. */
tr_status tr_weights_check(const tr_gguf *g, const tr_gguf_tensor *t);

/* Copy matrices first..first+count-1 of tensor t (dim[2] of them, one for a 2-D tensor) into one
 * matrix of count * dim[1] rows of dim[0] inputs.  The tensor's bounds must have been checked. */
tr_status tr_weights_load(const tr_gguf *g, const tr_gguf_tensor *t, size_t first, size_t count,
                          tr_weights *out);

/* The same, laid out as the kernel table likes it best: for matrices that are only multiplied
 * with.  All threads read and lay out a few panels at a time, so no second copy is ever resident.
 */
tr_status tr_weights_load_for(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                              size_t first, size_t count, tr_weights *out);

/* The same into memory of the caller's: tr_weights_size_for bytes, 64-byte aligned. */
tr_status tr_matrix_load_into(const tr_compute *c, const tr_gguf *g, const tr_gguf_tensor *t,
                              size_t first, size_t count, void *memory, tr_matrix *out);
size_t tr_weights_size_for(const tr_compute *c, const tr_gguf_tensor *t, size_t count);

/* Take the pages of memory (tr_memory_new) that weights are about to fill from the system, each
 * huge one by one thread: two that touch it first at once would both clear one. */
void tr_pages_take(tr_pool *pool, void *memory, size_t size);
void tr_weights_free(tr_weights *w);

/* Row r of a matrix as n_in floats, however it lies. */
void tr_matrix_row(const tr_matrix *m, size_t r, float *out);

/* Load a tensor of any computable type as n floats: norms, biases.  *out is new memory of
 * n * sizeof(float) bytes, freed with tr_memory_free. */
tr_status tr_vector_load(const tr_gguf *g, const tr_gguf_tensor *t, float **out);

/* y[r][o], rows n_out floats apart, over the pool. x as tr_matmul_fn takes it. */
void tr_linear(const tr_compute *c, const tr_matrix *w, tr_act act, const void *x, size_t x_stride,
               size_t n_rows, float *y);

/* Make activation rows of n values from float rows (n floats apart), over the pool.
 * For TR_ACT_F32 this copies. out rows are tr_act_row_size(act, n) apart. */
void tr_act_rows(const tr_compute *c, tr_act act, const float *x, size_t n, size_t n_rows,
                 void *out);

/* The values begin..end-1 (x holds only them; multiples of 32) of a TR_ACT_Q8 row of n: parts of a
 * row that different tasks make give the bytes of act_q8 of the whole row. */
void tr_act_q8_part(const tr_kernels *k, const float *x, size_t begin, size_t end, size_t n,
                    void *row);

#endif
