/* SPDX-License-Identifier: Apache-2.0 */
/* The plans of scores, softmax, mix and attention: workspace, phases, parts, threads (plan.h). */
#include "plan.h"

#include <string.h>

#include "block.h"
#include "run.h"
#include "status.h"

/* Reserves `bytes` at the end of a layout, aligned; returns their offset. */
static size_t reserve(size_t *size, int64_t bytes) {
    size_t offset = *size;
    *size += (size_t)qkv_round_up(bytes, QKV_ALIGNMENT);
    return offset;
}

/* Panels of keys that all sequences and heads take when packed; see pack.c for the ragged sum. */
static int64_t packed_keys(const struct qkv_problem *p) {
    int64_t keys = p->batch * qkv_round_up(p->kv_len, QKV_PANEL);
    if (p->cu_kv)
        keys = qkv_round_up((int64_t)p->cu_kv[p->batch] - p->cu_kv[0], QKV_PANEL) +
               p->batch * QKV_PANEL;
    return keys * p->kv_heads;
}

static void lay_out_shared(struct qkv_plan_state *s) {
    const int64_t f = sizeof(float), keys = packed_keys(&s->problem);
    if (!s->packs)
        return;
    s->shared.k = reserve(&s->shared.size, keys * s->problem.head_dim * f);
    s->shared.v = reserve(&s->shared.size, keys * s->v_pad * f);
    s->shared.flags = reserve(&s->shared.size, s->v_pad ? keys / QKV_PANEL : 0);
}

/* The same whether a phase packs or not, so that a longer q_len never needs less. */
static void lay_out_worker(struct qkv_plan_state *s) {
    const int64_t f = sizeof(float), dim = s->problem.head_dim, kv_len = s->problem.kv_len;
    const int64_t keys = qkv_min(qkv_round_up(kv_len, QKV_PANEL), QKV_KEY_BLOCK);
    /* Wide heads have half the rows: never more than QKV_ROWS rows of QKV_WIDE. */
    const int64_t acc = QKV_ROWS * qkv_min(s->v_pad, QKV_WIDE) * f;
    struct qkv_worker_layout *w = &s->worker;
    w->rows = reserve(&w->size, QKV_ROWS * (int64_t)sizeof(struct qkv_row));
    if (s->stage == QKV_STAGE_SOFTMAX)
        return;
    w->numbers = reserve(&w->size, QKV_NUMBERS * QKV_ROWS * f);
    w->scores = reserve(&w->size, QKV_ROWS * QKV_KEY_BLOCK * f);
    w->max = reserve(&w->size, QKV_ROWS * QKV_PANEL * f);
    w->acc = reserve(&w->size, acc);
    w->piece = reserve(&w->size, kv_len > QKV_PIECE ? acc : 0);
    w->q = reserve(&w->size, QKV_ROWS * qkv_min(dim, QKV_WIDE) * f);
    w->block = reserve(&w->size, keys * qkv_max(dim, s->v_pad) * f);
}

static double flops_of(const struct qkv_problem *p) {
    return 2.0 * (double)p->batch * (double)p->q_heads * (double)p->q_len * (double)p->kv_len *
           (double)(p->head_dim + p->v_dim + 16);
}

static void fill_plan(qkv_plan *plan, const struct qkv_plan_state *s) {
    const struct qkv_problem *p = &s->problem;
    const int64_t heads = p->batch * p->kv_heads;
    memset(plan, 0, sizeof(*plan));
    if (s->packs)
        plan->parts[plan->phases++] = heads * s->blocks;
    if (s->row_blocks > 0)
        plan->parts[plan->phases++] = heads * s->row_blocks;
    plan->workspace_shared = s->shared.size;
    plan->workspace_worker = s->worker.size;
    plan->threads = qkv_worth_threads(flops_of(p), heads * s->row_blocks);
    memcpy(plan->state, s, sizeof(*s));
}

static qkv_status make_plan(qkv_plan *plan, int stage, const qkv_attention_params *params,
                            const qkv_context *context) {
    struct qkv_plan_state s = {.magic = QKV_PLAN_MAGIC + (uint64_t)stage, .stage = stage};
    TRY(qkv_check_plan(plan));
    TRY(qkv_problem_make(&s.problem, stage, params));
    TRY(qkv_check_context(context));
    s.table = &qkv_context_get(context)->table;

    const struct qkv_problem *p = &s.problem;
    s.v_pad = qkv_round_up(p->v_dim, QKV_PANEL);
    s.blocks = qkv_round_up(p->kv_len, QKV_KEY_BLOCK) / QKV_KEY_BLOCK;
    s.rows = qkv_max(p->head_dim, p->v_dim) > QKV_WIDE ? QKV_ROWS / 2 : QKV_ROWS;
    s.row_blocks = qkv_round_up(p->group * p->q_len, s.rows) / s.rows;
    s.packs = s.row_blocks > 1 && s.blocks > 0 && stage != QKV_STAGE_SOFTMAX;
    lay_out_shared(&s);
    lay_out_worker(&s);
    fill_plan(plan, &s);
    return QKV_OK;
}

const struct qkv_plan_state *qkv_plan_get(const qkv_plan *plan) {
    const struct qkv_plan_state *s = (const struct qkv_plan_state *)plan->state;
    int known = s->magic == QKV_PLAN_MAGIC + QKV_STAGE_SCORES ||
                s->magic == QKV_PLAN_MAGIC + QKV_STAGE_SOFTMAX ||
                s->magic == QKV_PLAN_MAGIC + QKV_STAGE_MIX ||
                s->magic == QKV_PLAN_MAGIC + QKV_STAGE_ATTENTION;
    return known ? s : NULL;
}

qkv_status qkv_attention_plan(qkv_plan *plan, const qkv_attention_params *params,
                              const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_ATTENTION, params, context);
}

qkv_status qkv_scores_plan(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_SCORES, params, context);
}

qkv_status qkv_softmax_plan(qkv_plan *plan, const qkv_attention_params *params,
                            const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_SOFTMAX, params, context);
}

qkv_status qkv_mix_plan(qkv_plan *plan, const qkv_attention_params *params,
                        const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_MIX, params, context);
}
