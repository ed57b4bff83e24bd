/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of softmax: rows, each masked a chunk of KEY_BLOCK columns at a time and then turned
 * into weights where it stands in the output. */
#include "block.h"

#include <math.h>

static void softmax_row(const struct qkv_softmax_kernels *kernels, const struct qkv_part *part,
                        const struct qkv_row *row) {
    const struct qkv_problem *p = &part->plan->problem;
    const struct qkv_sequence *s = &part->sequence;
    const qkv_tensors *t = part->tensors;
    /* Rows of no columns need no memory. */
    const int empty = p->kv_len == 0;
    const float *in = empty ? NULL : qkv_q_row(&t->scores, p, s, row->head, row->index);
    float *out = empty ? NULL : qkv_q_row(&t->weights, p, s, row->head, row->index);
    float *lse = t->lse.data ? qkv_q_row(&t->lse, p, s, row->head, row->index) : NULL;
    float sink = p->sinks && row->index < s->q_len ? p->sinks[row->head] : -INFINITY;
    float max = -INFINITY;

    for (int64_t c = 0; c < p->kv_len; c += QKV_KEY_BLOCK) {
        int n = (int)qkv_min(p->kv_len - c, QKV_KEY_BLOCK);
        const struct qkv_score_row chunk = qkv_part_chunk_row(part, row, c, n);
        float here = kernels->mask(out + c, in + c, &chunk, &p->rule, n);
        max = here > max ? here : max;
    }
    kernels->row(out, p->kv_len, max, sink, lse);
}

void qkv_softmax_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                       const qkv_workspace *workspace, int32_t phase, int64_t begin, int64_t end) {
    const struct qkv_softmax_kernels *kernels = plan->table->softmax;
    struct qkv_part part;
    (void)phase;
    for (int64_t i = begin; i < end; i++)
        if (qkv_part_begin(&part, plan, tensors, workspace->shared, workspace->worker, i))
            for (int r = 0; r < part.rows; r++)
                softmax_row(kernels, &part, part.row + r);
}
