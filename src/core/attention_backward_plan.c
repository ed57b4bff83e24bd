/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of the fused stage's gradients: workspace, phases, parts (attention_backward.h). */
#include "attention_backward.h"
#include "run.h"

/* With few heads the keys are cut into pieces, so that there are parts for many threads; each piece
 * costs as much memory as Q. */
enum { PARTS_WANTED = 32, PIECES_MAX = 8 };

static int64_t pieces_of(const struct qkv_plan_state *s) {
    const int64_t wanted = (PARTS_WANTED + s->problem.kv_heads - 1) / s->problem.kv_heads;
    return qkv_max(qkv_min(qkv_min(wanted, PIECES_MAX), s->blocks), 1);
}

static void lay_out_shared(struct qkv_plan_state *s) {
    const struct qkv_problem *p = &s->problem;
    const int64_t f = sizeof(float), keys = qkv_packed_keys(p);
    const int64_t row_blocks = p->batch * p->q_heads * s->backward.head_blocks;
    struct qkv_backward_layout *b = &s->backward;
    size_t *size = &s->shared.size;
    s->shared.k = qkv_reserve(size, keys * p->head_dim * f);
    s->shared.v = qkv_reserve(size, keys * p->v_dim * f);
    b->k_rows = qkv_reserve(size, keys * b->q_pad * f);
    s->shared.flags = qkv_reserve(size, keys / QKV_PANEL);
    b->delta = qkv_reserve(size, b->query_rows * f);
    b->base = qkv_reserve(size, b->query_rows * f);
    b->bad = qkv_reserve(size, row_blocks);
    b->mass = qkv_reserve(size, b->pieces * b->query_rows * f);
    b->stale = qkv_reserve(size, row_blocks);
    b->sinks = qkv_reserve(size, p->sinks ? row_blocks * f : 0);
    b->partial = qkv_reserve(size, b->pieces * b->query_rows * b->q_pad * f);
}

static void lay_out_worker(struct qkv_plan_state *s) {
    const struct qkv_problem *p = &s->problem;
    const int64_t f = sizeof(float), scores = QKV_ROWS * QKV_SCORES_LD * f;
    struct qkv_backward_layout *b = &s->backward;
    size_t *size = &s->worker.size;
    s->worker.rows = qkv_reserve(size, QKV_ROWS * (int64_t)sizeof(struct qkv_row));
    s->worker.scores = qkv_reserve(size, scores);
    b->d_scores = qkv_reserve(size, scores);
    b->slope = qkv_reserve(size, p->rule.softcap > 0.0f ? scores : 0);
    /* Wide heads have half the rows: never more than QKV_ROWS rows of QKV_WIDE. */
    s->worker.q = qkv_reserve(size, QKV_ROWS * qkv_min(b->q_pad, QKV_WIDE) * f);
    b->d_out = qkv_reserve(size, QKV_ROWS * qkv_min(s->v_pad, QKV_WIDE) * f);
    b->d_k = qkv_reserve(size, QKV_KEY_BLOCK * b->q_pad * f);
    b->d_v = qkv_reserve(size, QKV_KEY_BLOCK * s->v_pad * f);
}

static double flops_of(const struct qkv_problem *p) {
    return 2.0 * (double)p->batch * (double)p->q_heads * (double)p->q_len * (double)p->kv_len *
           (double)(3 * p->head_dim + 2 * p->v_dim + 16);
}

void qkv_attention_backward_layout(struct qkv_plan_state *s, qkv_plan *plan) {
    const struct qkv_problem *p = &s->problem;
    const int64_t heads = p->batch * p->kv_heads;
    struct qkv_backward_layout *b = &s->backward;
    plan->threads = 1;
    if (p->q_len == 0 && p->kv_len == 0 && !p->sinks)
        return; /* nothing to read, and nothing to write */
    b->q_pad = qkv_round_up(p->head_dim, QKV_PANEL);
    b->query_rows = p->cu_q ? ((int64_t)p->cu_q[p->batch] - p->cu_q[0]) * p->q_heads
                            : p->batch * p->q_heads * p->q_len;
    b->head_blocks = qkv_round_up(p->q_len, s->rows) / s->rows;
    b->pieces = pieces_of(s);
    lay_out_shared(s);
    lay_out_worker(s);
    plan->phases = p->sinks ? 4 : 3;
    plan->parts[0] = heads * qkv_prepare_parts(s);
    plan->parts[1] = heads * b->pieces;
    plan->parts[2] = heads * p->group * b->head_blocks;
    plan->parts[3] = p->sinks ? 1 : 0;
    plan->threads = qkv_worth_threads(flops_of(p), heads * b->pieces);
    s->grouped = 3;
}
