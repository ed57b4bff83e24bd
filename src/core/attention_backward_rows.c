/* SPDX-License-Identifier: Apache-2.0 */
/* What the gradients of the fused stage need beside the products: packed keys, the numbers of the
 * query rows, the sums of dQ and of the sinks' gradients (attention_backward.h). */
#include "attention_backward.h"
#include "status.h"

#include <math.h>
#include <string.h>

static void pack_block(const struct qkv_plan_state *plan, const qkv_tensors *tensors, char *shared,
                       int64_t head, int64_t block) {
    const struct qkv_problem *p = &plan->problem;
    const struct qkv_pack_kernels *pack = &plan->table->attention_backward->pack;
    const struct qkv_sequence sequence = qkv_sequence_at(p, head / p->kv_heads);
    const int64_t key0 = block * QKV_KEY_BLOCK;
    struct qkv_key_source source;
    if (!qkv_seen_source(&source, plan, &sequence, head % p->kv_heads, key0))
        return;
    const int64_t key = qkv_shared_key(p, &sequence, source.head) + key0;
    source.tensor = &tensors->v;
    source.dim = p->v_dim;
    qkv_pack_panels((float *)(shared + plan->shared.v) + key * p->v_dim, &source, pack);
    source.tensor = &tensors->k;
    source.dim = p->head_dim;
    qkv_pack_panels((float *)(shared + plan->shared.k) + key * p->head_dim, &source, pack);
    qkv_pack_rows((float *)(shared + plan->backward.k_rows) + key * plan->backward.q_pad,
                  (unsigned char *)shared + plan->shared.flags + key / QKV_PANEL, &source, pack);
}

/* The rows of the gradient of bias, of which only what is seen will be written again. */
static void clear_bias(const struct qkv_plan_state *plan, const qkv_tensor *bias,
                       const struct qkv_sequence *s, int64_t head, int64_t begin) {
    const struct qkv_problem *p = &plan->problem;
    const int64_t end = qkv_min(begin + plan->rows, p->q_len);
    for (int64_t i = begin; i < end && p->kv_len > 0; i++)
        memset((float *)bias->data + s->index * bias->stride[0] + head * bias->stride[1] +
                   i * bias->stride[2],
               0, (size_t)p->kv_len * sizeof(float));
}

/* A row block's numbers, its part of the sink's gradient among them. */
static void take_rows(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                      const qkv_tensor *d_out, char *shared, const struct qkv_sequence *s,
                      int64_t head, int64_t begin) {
    const struct qkv_attention_backward_kernels *kernels = plan->table->attention_backward;
    const struct qkv_problem *p = &plan->problem;
    const int64_t end = qkv_min(begin + plan->rows, s->q_len);
    const int64_t slot = qkv_query_slot(p, s, head, begin);
    const int64_t block = qkv_block_slot(plan, s, head, begin);
    float *delta = (float *)(shared + plan->backward.delta) + slot;
    float *base = (float *)(shared + plan->backward.base) + slot;
    const float sink = p->sinks ? p->sinks[head] : -INFINITY;
    int bad = 0;
    for (int64_t i = begin; i < end; i++) {
        const struct qkv_backward_row row = {
            .q = qkv_q_row(&tensors->q, p, s, head, i),
            .d_out = qkv_q_row(d_out, p, s, head, i),
            .out = qkv_q_row(&tensors->out, p, s, head, i),
            .head_dim = p->head_dim,
            .v_dim = p->v_dim,
            .lse = *qkv_q_row(&tensors->lse, p, s, head, i),
            .sink = sink,
        };
        bad |= kernels->row(&row, delta + i - begin, base + i - begin);
    }
    *((unsigned char *)shared + plan->backward.bad + block) = bad != 0;
    if (p->sinks)
        ((float *)(shared + plan->backward.sinks))[block] =
            kernels->sink(base, delta, qkv_max(end - begin, 0), sink);
}

void qkv_backward_prepare(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                          const qkv_gradients *gradients, char *shared, int64_t index) {
    const struct qkv_problem *p = &plan->problem;
    const int64_t parts = qkv_prepare_parts(plan), head = index / parts, part = index % parts;
    if (part < plan->blocks) {
        pack_block(plan, tensors, shared, head, part);
        return;
    }
    const int64_t blocks = plan->backward.head_blocks, block = part - plan->blocks;
    const struct qkv_sequence s = qkv_sequence_at(p, head / p->kv_heads);
    const int64_t q_head = head % p->kv_heads * p->group + block / blocks;
    const int64_t begin = block % blocks * plan->rows;
    take_rows(plan, tensors, &gradients->out, shared, &s, q_head, begin);
    if (gradients->bias.data)
        clear_bias(plan, &gradients->bias, &s, q_head, begin);
}

/* The pieces that some row of the part sees, which have left something: one run of them, since what
 * a row block sees is an interval. */
static struct qkv_piece seen_pieces(const struct qkv_part *part) {
    struct qkv_piece seen = {0};
    for (int64_t i = 0; i < part->plan->backward.pieces && part->lo < part->hi; i++) {
        const struct qkv_piece piece = qkv_piece_at(part->plan, &part->sequence, i);
        if (part->lo < piece.end * QKV_KEY_BLOCK && part->hi > piece.begin * QKV_KEY_BLOCK) {
            seen.begin = seen.begin == seen.end ? i : seen.begin;
            seen.end = i + 1;
        }
    }
    return seen;
}

static void zero_row(float *row, int64_t n) {
    memset(row, 0, (size_t)n * sizeof(float));
}

/* The rows [begin, end) of a query head, and what the pieces have left for them. */
struct rows {
    struct qkv_part part;
    int64_t head, begin, end;
    struct qkv_piece seen;
};

static int64_t first_slot(const struct rows *rows) {
    const struct qkv_plan_state *plan = rows->part.plan;
    return rows->seen.begin * plan->backward.query_rows +
           qkv_query_slot(&plan->problem, &rows->part.sequence, rows->head, rows->begin);
}

static void store_queries(const struct rows *rows, const qkv_tensor *t) {
    const struct qkv_plan_state *plan = rows->part.plan;
    const struct qkv_problem *p = &plan->problem;
    const int64_t pad = plan->backward.q_pad, step = plan->backward.query_rows * pad;
    const int pieces = (int)(rows->seen.end - rows->seen.begin);
    const float *partial =
        (const float *)(rows->part.shared + plan->backward.partial) + first_slot(rows) * pad;
    const int64_t end = qkv_min(rows->begin + plan->rows, rows->part.sequence.rows);
    for (int64_t i = rows->begin; i < end; i++) {
        float *row = qkv_q_row(t, p, &rows->part.sequence, rows->head, i);
        if (i < rows->end && pieces > 0)
            plan->table->attention_backward->store_sum(row, partial + (i - rows->begin) * pad, step,
                                                       pieces, p->rule.scale, p->head_dim);
        else
            zero_row(row, p->head_dim);
    }
}

/* The sink's weight in a row. */
static float sink_mass(const struct rows *rows, int64_t i) {
    const struct qkv_plan_state *plan = rows->part.plan;
    const float one = 1.0f, *sinks = plan->problem.sinks;
    const float *base = (const float *)(rows->part.shared + plan->backward.base) +
                        qkv_query_slot(&plan->problem, &rows->part.sequence, rows->head, i);
    return sinks ? -plan->table->attention_backward->sink(base, &one, 1, sinks[rows->head]) : 0.0f;
}

/* Weights that are made of a row's own LSE sum up to 1, or to 0 if it sees nothing. The rounding of
 * a large LSE, and of the scores beside it, moves all weights by the same factor, whose logarithm
 * is a few 2^-24 of the LSE; the slack leaves room for one that another program computed. Where the
 * slack is as large as the sum, from an LSE of 2^18 on, nothing can be said. */
static int row_is_stale(const struct rows *rows, const qkv_tensor *t, int64_t i) {
    const struct qkv_plan_state *plan = rows->part.plan;
    const int64_t pieces = rows->seen.end - rows->seen.begin;
    const float lse = *qkv_q_row(t, &plan->problem, &rows->part.sequence, rows->head, i);
    const int empty = lse == -INFINITY;
    const float slack = 0x1p-6f + 0x1p-18f * fabsf(lse);
    const float *mass = (const float *)(rows->part.shared + plan->backward.mass) +
                        first_slot(rows) + i - rows->begin;
    float sum = empty ? 0.0f : sink_mass(rows, i);
    for (int64_t piece = 0; piece < pieces; piece++)
        sum += mass[piece * plan->backward.query_rows];
    if (empty) /* a key that is seen has infinite weight */
        return sum > 0.0f;
    /* e^slack < 1 + 1.75 slack and 1 - slack < e^-slack. */
    return slack < 1.0f && !(sum >= 1.0f - slack && sum <= 1.0f + 1.75f * slack);
}

/* One row block of one query head: its dQ, and whether its LSE was its own. */
void qkv_backward_sum(const struct qkv_plan_state *plan, const qkv_tensors *tensors,
                      const qkv_gradients *gradients, const qkv_workspace *workspace,
                      int64_t index) {
    const struct qkv_problem *p = &plan->problem;
    const int64_t blocks = plan->backward.head_blocks, heads = index / blocks;
    struct rows rows = {.head = heads % p->q_heads, .begin = index % blocks * plan->rows};
    qkv_part_open(&rows.part, plan, tensors, workspace->shared, workspace->worker,
                  heads / p->group);
    const struct qkv_sequence *s = &rows.part.sequence;
    rows.end = qkv_min(rows.begin + plan->rows, s->q_len);
    if (rows.begin < rows.end) {
        qkv_part_rows(&rows.part, rows.head, rows.begin, rows.end - rows.begin);
        rows.seen = seen_pieces(&rows.part);
    }
    if (gradients->q.data)
        store_queries(&rows, &gradients->q);

    int stale = 0;
    for (int64_t i = rows.begin; i < rows.end; i++)
        stale |= row_is_stale(&rows, &tensors->lse, i);
    ((unsigned char *)workspace->shared)[plan->backward.stale + (size_t)index] = stale != 0;
}

qkv_status qkv_backward_verdict(const struct qkv_plan_state *plan, const void *shared,
                                int64_t begin, int64_t end) {
    const unsigned char *stale = (const unsigned char *)shared + plan->backward.stale;
    for (int64_t i = begin; i < end; i++)
        if (stale[i])
            return qkv_fail(QKV_ARG_LSE, QKV_FAULT_STALE);
    return QKV_OK;
}

/* Row blocks in the order of their rows, sequence after sequence. */
void qkv_backward_sinks(const struct qkv_plan_state *plan, const qkv_gradients *gradients,
                        const char *shared) {
    const struct qkv_problem *p = &plan->problem;
    const float *parts = (const float *)(shared + plan->backward.sinks);
    const int64_t blocks = plan->backward.head_blocks;
    for (int64_t h = 0; h < p->q_heads && gradients->sinks.data; h++) {
        double sum = 0.0;
        for (int64_t b = 0; b < p->batch; b++)
            for (int64_t i = 0; i < blocks; i++)
                sum += parts[(b * p->q_heads + h) * blocks + i];
        ((float *)gradients->sinks.data)[h] = (float)sum;
    }
}
