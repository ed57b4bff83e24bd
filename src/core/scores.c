/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of scores: row blocks by key blocks, every element of the output written. */
#include "block.h"

/* The scores of a tile over one key block, and -inf for what it does not see. */
static void score_tile(const struct qkv_scores_kernels *kernels, const struct qkv_part *part,
                       const struct qkv_key_block *block, const float *keys, int r, int rows) {
    const struct qkv_problem *p = &part->plan->problem;
    const int columns = (int)qkv_min(p->kv_len - block->key0, QKV_KEY_BLOCK);
    struct qkv_score_row row[QKV_PANEL] = {0};

    if (qkv_part_score_rows(part, block, r, rows, kernels->sees, row)) {
        const struct qkv_gemm g = {
            .a = part->q + r * p->head_dim,
            .lda = p->head_dim,
            .a_k = 1,
            .b = keys + row->from * p->head_dim,
            .b_k = QKV_PANEL,
            .b_g = QKV_PANEL * p->head_dim,
            .c = row->s + row->from,
            .ldc = QKV_SCORES_LD,
            .m = rows,
            .n = row->to - row->from,
            .k = p->head_dim,
        };
        kernels->gemm(&g);
    } else {
        for (int i = 0; i < rows; i++)
            row[i] = (struct qkv_score_row){0};
    }
    for (int i = 0; i < rows; i++) {
        const struct qkv_row *at = part->row + r + i;
        float *out = qkv_q_row(&part->tensors->scores, p, &part->sequence, at->head, at->index);
        kernels->store(out + block->key0, row + i, &p->rule, columns);
    }
}

static void score_part(const struct qkv_scores_kernels *kernels, const struct qkv_part *part) {
    const struct qkv_plan_state *plan = part->plan;
    qkv_part_load_queries(part);
    for (int64_t b = 0; b < plan->blocks; b++) {
        const struct qkv_key_block block = qkv_part_key_block(part, b);
        const float *keys = NULL;
        if (block.lo < block.hi)
            keys = qkv_part_keys(part, &block, &kernels->pack);
        for (int r = 0; r < part->rows; r += kernels->mr)
            score_tile(kernels, part, &block, keys, r, (int)qkv_min(part->rows - r, kernels->mr));
    }
}

void qkv_scores_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                      const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    const struct qkv_scores_kernels *kernels = plan->table->scores;
    struct qkv_part part;
    for (int64_t i = begin; i < end; i++) {
        if (plan->packs && phase == 0)
            qkv_pack_part(plan, tensors, workspace->shared, &kernels->pack, i);
        else if (qkv_part_begin(&part, plan, tensors, workspace->shared, workspace->worker, i))
            score_part(kernels, &part);
    }
}
