/* SPDX-License-Identifier: Apache-2.0 */
/* The plans of scores, softmax, mix and attention: workspace, phases, parts, threads (plan.h). */
#include "plan.h"

#include <string.h>

#include "pack.h"
#include "run.h"
#include "status.h"

size_t qkv_reserve(size_t *size, int64_t bytes) {
    size_t offset = *size;
    *size += (size_t)qkv_round_up(bytes, QKV_ALIGNMENT);
    return offset;
}

void qkv_lay_out_shared(struct qkv_plan_state *s) {
    const int64_t f = sizeof(float), keys = qkv_packed_keys(&s->problem);
    if (!s->packs)
        return;
    s->shared.k = qkv_reserve(&s->shared.size, keys * s->problem.head_dim * f);
    s->shared.v = qkv_reserve(&s->shared.size, keys * s->v_pad * f);
    s->shared.flags = qkv_reserve(&s->shared.size, s->v_pad ? keys / QKV_PANEL : 0);
}

/* The same whether a phase packs or not, so that a longer q_len never needs less. */
void qkv_lay_out_worker(struct qkv_plan_state *s) {
    const int64_t f = sizeof(float), dim = s->problem.head_dim, kv_len = s->problem.kv_len;
    /* In the fused stage of several heads, of which there are fewer when they are longer. */
    const int64_t keys = s->stage == QKV_STAGE_ATTENTION && kv_len > 0
                             ? QKV_KEY_BLOCK
                             : qkv_min(qkv_round_up(kv_len, QKV_PANEL), QKV_KEY_BLOCK);
    /* Wide heads have half the rows: never more than QKV_ROWS rows of QKV_WIDE. */
    const int64_t acc = QKV_ROWS * qkv_min(s->v_pad, QKV_WIDE) * f;
    struct qkv_worker_layout *w = &s->worker;
    w->rows = qkv_reserve(&w->size, QKV_ROWS * (int64_t)sizeof(struct qkv_row));
    if (s->stage == QKV_STAGE_SOFTMAX)
        return;
    w->numbers = qkv_reserve(&w->size, QKV_NUMBERS * QKV_ROWS * f);
    w->scores = qkv_reserve(&w->size, QKV_ROWS * QKV_SCORES_LD * f);
    w->max = qkv_reserve(&w->size, QKV_ROWS * QKV_PANEL * f);
    w->acc = qkv_reserve(&w->size, acc);
    w->piece = qkv_reserve(&w->size, kv_len > QKV_PIECE ? acc : 0);
    w->q = qkv_reserve(&w->size, QKV_ROWS * qkv_min(qkv_round_up(dim, 4), QKV_WIDE) * f);
    w->block = qkv_reserve(&w->size, keys * qkv_max(dim, s->v_pad) * f);
}

double qkv_forward_flops(const struct qkv_problem *p) {
    return 2.0 * (double)p->batch * (double)p->q_heads * (double)p->q_len * (double)p->kv_len *
           (double)(p->head_dim + p->v_dim + 16);
}

int qkv_forward_stage(int stage) {
    switch (stage) {
    case QKV_STAGE_SCORES_BACKWARD:
        return QKV_STAGE_SCORES;
    case QKV_STAGE_SOFTMAX_BACKWARD:
        return QKV_STAGE_SOFTMAX;
    case QKV_STAGE_MIX_BACKWARD:
        return QKV_STAGE_MIX;
    case QKV_STAGE_ATTENTION_BACKWARD:
    case QKV_STAGE_DECODE:
        return QKV_STAGE_ATTENTION;
    default:
        return stage;
    }
}

/* Heads of few rows and keys are taken together in the fused stage, if their rows see the same of
 * their keys and nothing is added there. */
static int heads_together(const struct qkv_plan_state *s) {
    const struct qkv_problem *p = &s->problem;
    const int64_t rows = p->group * p->q_len, keys = qkv_round_up(p->kv_len, QKV_PANEL);
    if (s->stage != QKV_STAGE_ATTENTION || p->causal || p->window_left >= 0 ||
        p->window_right >= 0 || p->q_lens || p->bias.data || p->mask.data || p->slopes ||
        rows == 0 || keys == 0)
        return 1;
    const int64_t most = qkv_min(s->rows / rows, QKV_KEY_BLOCK / keys);
    return (int)qkv_max(1, qkv_min(QKV_HEADS, most));
}

/* Where a head's keys and values stay in the second-level cache, asking for them costs a percent;
 * where they do not, it wins 2 to 8 in AVX-512 (docs/performance/tried-attention.md). */
static int asks_ahead(const struct qkv_plan_state *s) {
    const int64_t numbers = s->problem.kv_len * (s->problem.head_dim + s->v_pad);
    return s->packs && numbers * (int64_t)sizeof(float) >= 1 << 20;
}

static void lay_out_forward(struct qkv_plan_state *s, qkv_plan *plan) {
    const struct qkv_problem *p = &s->problem;
    const int64_t heads = p->batch * p->kv_heads;
    s->packs = s->row_blocks > 1 && s->blocks > 0 && s->stage != QKV_STAGE_SOFTMAX;
    s->asks = asks_ahead(s);
    s->together = heads_together(s);
    qkv_lay_out_shared(s);
    qkv_lay_out_worker(s);
    if (s->packs)
        plan->parts[plan->phases++] = heads * s->blocks;
    if (s->row_blocks > 0)
        plan->parts[plan->phases++] = heads * s->row_blocks;
    plan->threads = qkv_worth_threads(qkv_forward_flops(p), heads * s->row_blocks);
    s->grouped = plan->phases;
}

qkv_status qkv_make_plan(qkv_plan *plan, int stage, const qkv_attention_params *params,
                         const qkv_context *context, qkv_layout_fn *layout) {
    struct qkv_problem problem;
    TRY(qkv_check_plan(plan));
    TRY(qkv_problem_make(&problem, qkv_forward_stage(stage), params));
    if (problem.narrow && stage != QKV_STAGE_DECODE)
        return qkv_fail(QKV_ARG_ARITHMETIC, QKV_FAULT_RANGE);
    TRY(qkv_check_context(context));

    memset(plan, 0, sizeof(*plan));
    struct qkv_plan_state *s = (struct qkv_plan_state *)plan->state;
    s->magic = QKV_PLAN_MAGIC + (uint64_t)stage;
    s->stage = stage;
    s->table = &qkv_context_get(context)->table;
    s->problem = problem;
    s->v_pad = qkv_round_up(problem.v_dim, QKV_PANEL);
    s->blocks = qkv_round_up(problem.kv_len, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;
    s->rows = qkv_max(problem.head_dim, problem.v_dim) > QKV_WIDE ? QKV_ROWS / 2 : QKV_ROWS;
    s->row_blocks = qkv_round_up(problem.group * problem.q_len, s->rows) / s->rows;
    s->together = 1;
    layout(s, plan);
    plan->workspace_shared = s->shared.size;
    plan->workspace_worker = qkv_set_apart(s->worker.size);
    return QKV_OK;
}

/* The stages of attention's parameters stand one after the other but for the projection's. */
const struct qkv_plan_state *qkv_plan_get(const qkv_plan *plan) {
    const struct qkv_plan_state *s = (const struct qkv_plan_state *)plan->state;
    const uint64_t stage = s->magic - QKV_PLAN_MAGIC;
    const int known = stage >= QKV_STAGE_SCORES && stage <= QKV_STAGE_ATTENTION_BACKWARD &&
                      stage != QKV_STAGE_PROJECT_BACKWARD;
    return known || stage == QKV_STAGE_DECODE ? s : NULL;
}

qkv_status qkv_attention_plan(qkv_plan *plan, const qkv_attention_params *params,
                              const qkv_context *context) {
    return qkv_make_plan(plan, QKV_STAGE_ATTENTION, params, context, lay_out_forward);
}

qkv_status qkv_scores_plan(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_context *context) {
    return qkv_make_plan(plan, QKV_STAGE_SCORES, params, context, lay_out_forward);
}

qkv_status qkv_softmax_plan(qkv_plan *plan, const qkv_attention_params *params,
                            const qkv_context *context) {
    return qkv_make_plan(plan, QKV_STAGE_SOFTMAX, params, context, lay_out_forward);
}

qkv_status qkv_mix_plan(qkv_plan *plan, const qkv_attention_params *params,
                        const qkv_context *context) {
    return qkv_make_plan(plan, QKV_STAGE_MIX, params, context, lay_out_forward);
}
