/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of mix_backward: dA = dO V^T as scores are made, row blocks by key blocks, every
 * element written; dV = A^T dO by blocks of keys (chain.h). */
#include "backward.h"
#include "chain.h"

/* May the products of a block be written where they belong? They may if they are all of its columns
 * and whole panels, and the rows those of one head. */
static int goes_straight(const struct qkv_part *part, const struct qkv_tiles *t, int columns) {
    const struct qkv_score_row *row = t->row;
    return t->even && row->lo == 0 && row->hi == columns && row->to == columns &&
           qkv_chain_one_head(part);
}

static QKV_LARGE_FRAME void weights_block(const struct qkv_chain *chain,
                                          const struct qkv_part *part, int64_t b,
                                          const qkv_tensor *out) {
    const struct qkv_chain_kernels *kernels = chain->kernels;
    const struct qkv_problem *p = &chain->plan.problem;
    const struct qkv_key_block block = qkv_part_key_block(part, b);
    const int columns = (int)qkv_min(p->kv_len - block.key0, QKV_KEY_BLOCK);
    struct qkv_tiles t = {.even = 0};

    if (block.lo < block.hi)
        qkv_lay_tiles(&t, part, &block, kernels->mr, kernels->sees);
    const float *panels = t.any ? qkv_part_keys(part, &block, &kernels->pack) : NULL;
    if (goes_straight(part, &t, columns)) {
        float *to =
            qkv_q_row(out, p, &part->sequence, part->row->head, part->row->index) + block.key0;
        qkv_chain_products(chain, part, &t, kernels->mr, panels, chain->dim, to, out->stride[2]);
        return;
    }
    if (t.any)
        qkv_chain_products(chain, part, &t, kernels->mr, panels, chain->dim, part->scores,
                           QKV_SCORES_LD);
    for (int r = 0; r < part->rows; r++) {
        const struct qkv_row *at = part->row + r;
        kernels->keep(qkv_q_row(out, p, &part->sequence, at->head, at->index) + block.key0,
                      t.row[r].s, t.row + r, &p->rule, columns);
    }
}

static void weights_part(const struct qkv_chain *chain, const qkv_gradients *gradients,
                         int64_t index) {
    struct qkv_part part;
    if (!gradients->weights.data || !qkv_chain_begin(&part, chain, index))
        return;
    qkv_part_load_queries(&part);
    for (int64_t b = 0; b < chain->plan.blocks; b++)
        weights_block(chain, &part, b, &gradients->weights);
}

void qkv_mix_backward_layout(struct qkv_plan_state *s, qkv_plan *plan) {
    qkv_chain_layout(s, plan);
}

void qkv_mix_backward_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                            const qkv_gradients *gradients, const qkv_workspace *workspace,
                            int32_t phase, int64_t begin, int64_t end) {
    struct qkv_chain chain;
    qkv_chain_open(&chain, plan, workspace);
    chain.kernels = &plan->table->mix_backward->chain;
    chain.scale = 1.0f;
    chain.tensors.q = gradients->out;
    chain.tensors.k = tensors->v;
    chain.tensors.weights = tensors->weights;
    qkv_chain_run(&chain, weights_part, gradients, &gradients->v, phase, begin, end);
}
