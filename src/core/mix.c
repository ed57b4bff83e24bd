/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of mix: row blocks by key blocks, the weights copied into the worker's memory with
 * the keys that do not count marked; one ascending chain a key block, joined from left to right. */
#include "block.h"

#include <string.h>

/* The weights of a tile over one block; returns 0 if it sees nothing there. */
static int load_tile(const struct qkv_mix_kernels *kernels, const struct qkv_part *part,
                     const struct qkv_key_block *block, int r, int rows,
                     struct qkv_score_row *row) {
    const struct qkv_problem *p = &part->plan->problem;
    if (!qkv_part_score_rows(part, block, r, rows, kernels->sees, row))
        return 0;
    for (int i = 0; i < rows; i++) {
        const struct qkv_row *at = part->row + r + i;
        const float *in =
            qkv_q_row(&part->tensors->weights, p, &part->sequence, at->head, at->index);
        kernels->load(row[i].s, in + block->key0, row + i, &p->rule, block->keys);
    }
    return 1;
}

/* Factors of a tile's accumulators. */
static const float ones[QKV_PANEL] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static void mix_tile(const struct qkv_mix_kernels *kernels, const struct qkv_part *part,
                     const struct qkv_key_block *block, const float *values, int bad, int r,
                     int rows) {
    const int64_t v_pad = part->plan->v_pad;
    struct qkv_score_row row[QKV_PANEL];
    if (!load_tile(kernels, part, block, r, rows, row))
        return;
    const struct qkv_gemm g = {
        .a = row->s + row->first,
        .lda = QKV_SCORES_LD,
        .a_k = 1,
        .b = values + row->first * v_pad,
        .b_k = v_pad,
        .b_g = QKV_PANEL,
        .c = part->acc + r * v_pad,
        .ldc = v_pad,
        .m = rows,
        .n = v_pad,
        .k = row->end - row->first,
        .factor = ones,
    };
    if (!bad) {
        kernels->gemm(&g);
        return;
    }
    for (int i = 0; i < rows; i++)
        kernels->marked(g.c + i * v_pad, 1.0f, g.a + i * QKV_SCORES_LD, g.b, v_pad, g.k, v_pad);
}

static void mix_part(const struct qkv_mix_kernels *kernels, const struct qkv_part *part) {
    const struct qkv_plan_state *plan = part->plan;
    const int64_t first = part->lo / QKV_KEY_BLOCK;
    const int64_t end = qkv_round_up(part->hi, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;

    memset(part->acc, 0, (size_t)(part->rows * plan->v_pad) * sizeof(float));
    for (int64_t b = first; b < end; b++) {
        const struct qkv_key_block block = qkv_part_key_block(part, b);
        int bad;
        const float *values = qkv_part_values(part, &block, &kernels->pack, &bad);
        for (int r = 0; r < part->rows; r += kernels->mr)
            mix_tile(kernels, part, &block, values, bad, r,
                     (int)qkv_min(part->rows - r, kernels->mr));
    }
    for (int r = 0; r < part->rows; r++) {
        const struct qkv_row *row = part->row + r;
        kernels->store(
            qkv_q_row(&part->tensors->out, &plan->problem, &part->sequence, row->head, row->index),
            part->acc + r * plan->v_pad, NULL, plan->problem.v_dim);
    }
}

void qkv_mix_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                   const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    const struct qkv_mix_kernels *kernels = plan->table->mix;
    struct qkv_part part;
    for (int64_t i = begin; i < end; i++) {
        if (plan->packs && phase == 0)
            qkv_pack_part(plan, tensors, workspace->shared, &kernels->pack, i);
        else if (qkv_part_begin(&part, plan, tensors, workspace->shared, workspace->worker, i))
            mix_part(kernels, &part);
    }
}
