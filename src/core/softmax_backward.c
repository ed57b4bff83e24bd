/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of softmax_backward: rows, each in two passes a chunk of KEY_BLOCK columns at a time;
 * with sinks, a second phase that adds up each head's rows, in double precision and in order. */
#include "backward.h"
#include "block.h"
#include "run.h"

#include <math.h>

void qkv_softmax_backward_layout(struct qkv_plan_state *s, qkv_plan *plan) {
    const struct qkv_problem *p = &s->problem;
    const int64_t parts = p->batch * p->kv_heads * s->row_blocks;
    const int64_t rows = p->batch * p->q_heads * p->q_len;
    s->worker.rows = qkv_reserve(&s->worker.size, QKV_ROWS * (int64_t)sizeof(struct qkv_row));
    if (p->sinks)
        s->backward.sinks = qkv_reserve(&s->shared.size, rows * (int64_t)sizeof(float));
    if (parts > 0)
        plan->parts[plan->phases++] = parts;
    s->grouped = plan->phases;
    if (p->sinks)
        plan->parts[plan->phases++] = p->q_heads;
    plan->threads = qkv_worth_threads(16.0 * (double)rows * (double)p->kv_len, parts);
}

/* What the rows of a head leave for the gradient of its sink, one number each. */
static float *sink_terms(const struct qkv_plan_state *plan, void *shared, int64_t sequence,
                         int64_t head) {
    const struct qkv_problem *p = &plan->problem;
    return (float *)((char *)shared + plan->backward.sinks) +
           (sequence * p->q_heads + head) * p->q_len;
}

/* The mean of the weights' gradient over the row, weighted by the weights. */
static float row_mean(const struct qkv_softmax_backward_kernels *kernels,
                      const struct qkv_part *part, const struct qkv_row *row, const float *weight,
                      const float *dw) {
    const struct qkv_problem *p = &part->plan->problem;
    float mean = 0.0f;
    for (int64_t c = 0; c < p->kv_len; c += QKV_KEY_BLOCK) {
        const int n = (int)qkv_min(p->kv_len - c, QKV_KEY_BLOCK);
        const struct qkv_score_row chunk = qkv_part_chunk_row(part, row, c, n);
        mean += kernels->sum(weight + c, dw + c, &chunk, &p->rule, n);
    }
    return mean;
}

static void row_gradient(const struct qkv_softmax_backward_kernels *kernels,
                         const struct qkv_part *part, const struct qkv_row *row,
                         const float *weight, const float *dw, float mean, float *out) {
    const struct qkv_problem *p = &part->plan->problem;
    for (int64_t c = 0; c < p->kv_len; c += QKV_KEY_BLOCK) {
        const int n = (int)qkv_min(p->kv_len - c, QKV_KEY_BLOCK);
        const struct qkv_score_row chunk = qkv_part_chunk_row(part, row, c, n);
        kernels->gradient(out + c, weight + c, dw + c, mean, &chunk, &p->rule, n);
    }
}

static void sink_term(const struct qkv_softmax_backward_kernels *kernels,
                      const struct qkv_part *part, const struct qkv_row *row, float mean) {
    const struct qkv_problem *p = &part->plan->problem;
    const struct qkv_sequence *s = &part->sequence;
    const float sink = p->sinks[row->head];
    float share = 0.0f; /* a sink of -inf is none */
    if (sink != -INFINITY)
        share =
            kernels->sink_share(sink, *qkv_q_row(&part->tensors->lse, p, s, row->head, row->index));
    sink_terms(part->plan, part->shared, s->index, row->head)[row->index] = share * mean;
}

static void softmax_row(const struct qkv_softmax_backward_kernels *kernels,
                        const struct qkv_part *part, const struct qkv_row *row,
                        const qkv_gradients *gradients) {
    const struct qkv_problem *p = &part->plan->problem;
    const struct qkv_sequence *s = &part->sequence;
    float mean = 0.0f;
    if (p->kv_len > 0) { /* rows of no columns need no memory */
        const float *w = qkv_q_row(&part->tensors->weights, p, s, row->head, row->index);
        const float *dw = qkv_q_row(&gradients->weights, p, s, row->head, row->index);
        mean = row_mean(kernels, part, row, w, dw);
        if (gradients->scores.data)
            row_gradient(kernels, part, row, w, dw, mean,
                         qkv_q_row(&gradients->scores, p, s, row->head, row->index));
    }
    if (gradients->sinks.data && row->index < s->q_len)
        sink_term(kernels, part, row, mean);
}

static void sum_sink(const struct qkv_plan_state *plan, void *shared, int64_t head, float *out) {
    double sum = 0.0;
    for (int64_t b = 0; b < plan->problem.batch; b++) {
        const float *terms = sink_terms(plan, shared, b, head);
        const int64_t rows = qkv_sequence_at(&plan->problem, b).q_len;
        for (int64_t i = 0; i < rows; i++)
            sum -= (double)terms[i];
    }
    *out = (float)sum;
}

void qkv_softmax_backward_parts(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                                const qkv_gradients *gradients, const qkv_workspace *workspace,
                                int32_t phase, int64_t begin, int64_t end) {
    const struct qkv_softmax_backward_kernels *kernels = plan->table->softmax_backward;
    struct qkv_part part;
    for (int64_t i = begin; i < end; i++) {
        if (phase == (plan->row_blocks > 0)) {
            if (gradients->sinks.data)
                sum_sink(plan, workspace->shared, i, (float *)gradients->sinks.data + i);
        } else if (qkv_part_begin(&part, plan, tensors, workspace->shared, workspace->worker, i)) {
            for (int r = 0; r < part.rows; r++)
                softmax_row(kernels, &part, part.row + r, gradients);
        }
    }
}
