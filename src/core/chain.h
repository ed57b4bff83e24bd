/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the backward stages of mix and of scores share. Both are products with a matrix W of a row
 * a query and a column a key, with rows R that come with the queries and rows C that come with the
 * keys:
 *
 *   mix_backward      W = A, R = dO, C = V:  dA = R C^T,        dV = W^T R
 *   scores_backward   W = dS, R = Q, C = K:  dQ = scale W C,    dK = scale W^T R
 *                     with W times the soft-cap's slope, which takes R C^T
 *
 * so that what the forward stages are made of (block.h) serves, R for its queries and C for its
 * keys or values. After the packing, parts of query rows and parts of QKV_KEY_BLOCK keys run in one
 * phase: no element belongs to two parts.
 *
 * Law of the bits: an element of W^T R is one ascending chain from zero over the rows of a block
 * of plan->rows rows of a query head; the blocks are joined one by one, and the heads of the group
 * one after the other.
 */
#ifndef QKV_CORE_CHAIN_H
#define QKV_CORE_CHAIN_H

#include "tiles.h"

/* A call of one of the two, and the worker that is at it. */
struct qkv_chain {
    struct qkv_plan_state plan; /* of problem.head_dim the panels of C, of v_dim its rows; 0 where
                                   the stage does without */
    qkv_tensors tensors;        /* R as q, C as k and v, W as weights */
    const struct qkv_chain_kernels *kernels;
    qkv_uncap_fn *uncap; /* NULL: no soft-cap */
    float scale;         /* of the gradients */
    int64_t dim, pad;    /* length of the rows R and C, and the same in whole panels */
    const qkv_workspace *workspace;
};

/* The layout of both stages' plans. */
qkv_layout_fn qkv_chain_layout;

/* The call as the forward stages' machinery sees it, but for tensors, kernels, uncap and scale. */
void qkv_chain_open(struct qkv_chain *chain, const struct qkv_plan_state *plan,
                    const qkv_workspace *workspace);

/* What the parts of query rows do: those of row block `index` of the plan. */
typedef void qkv_chain_rows_fn(const struct qkv_chain *chain, const qkv_gradients *gradients,
                               int64_t index);

/* The parts [begin, end) of a phase. d_keys: the gradient of C, or a tensor without data. */
void qkv_chain_run(const struct qkv_chain *chain, qkv_chain_rows_fn *rows,
                   const qkv_gradients *gradients, const qkv_tensor *d_keys, int32_t phase,
                   int64_t begin, int64_t end);

/* Row block `index`: qkv_part_begin. */
int qkv_chain_begin(struct qkv_part *part, const struct qkv_chain *chain, int64_t index);

/* R C^T of the part's rows in part->q, `ld` apart, where its tiles have columns; row r's column c
 * goes to out[r * ld_out + c]. */
void qkv_chain_products(const struct qkv_chain *chain, const struct qkv_part *part,
                        const struct qkv_tiles *tiles, int mr, const float *panels, int64_t ld,
                        float *out, int64_t ld_out);

/* W of a row block over a key block, as the products take it: element (r, c) at rows[r * ld + c].
 */
struct qkv_chain_weights {
    const float *rows;
    int64_t ld;
};

/* Are the part's rows those of one head? Then they stand one after the other in every tensor. */
static inline int qkv_chain_one_head(const struct qkv_part *part) {
    return part->row[0].head == part->row[part->rows - 1].head;
}

/* Can W be multiplied where it stands? It can if no mask cuts the block, nothing is applied to its
 * elements, and the rows are those of one head; and where it is. */
int qkv_chain_stands(const struct qkv_chain *chain, const struct qkv_part *part,
                     const struct qkv_tiles *tiles);
struct qkv_chain_weights qkv_chain_in_place(const struct qkv_chain *chain,
                                            const struct qkv_part *part,
                                            const struct qkv_key_block *block);

/* The tiles' rows of W, with what does not count marked, in part->scores. With a soft-cap, also
 * times its slope; the products are made on the way, from rows of R as above. */
struct qkv_chain_weights qkv_chain_load(const struct qkv_chain *chain, const struct qkv_part *part,
                                        const struct qkv_key_block *block,
                                        const struct qkv_tiles *tiles, int mr, int64_t ld);

/* Accumulators of so many rows, times the scale, to the user. */
void qkv_chain_store(const struct qkv_chain *chain, const struct qkv_part *part, float *out,
                     int64_t ld_out, const float *acc, int64_t rows);

#endif
