/* SPDX-License-Identifier: Apache-2.0 */
/* The public functions of the backward stages of scores, softmax, mix and attention: the way to
 * the stage's driver. */
#include "backward.h"

#include "operands.h"
#include "run.h"
#include "status.h"

struct driver {
    qkv_layout_fn *layout;
    qkv_backward_parts_fn *parts;
};

static const struct driver drivers[QKV_STAGE_COUNT] = {
    [QKV_STAGE_SCORES_BACKWARD] = {qkv_scores_backward_layout, qkv_scores_backward_parts},
    [QKV_STAGE_SOFTMAX_BACKWARD] = {qkv_softmax_backward_layout, qkv_softmax_backward_parts},
    [QKV_STAGE_MIX_BACKWARD] = {qkv_mix_backward_layout, qkv_mix_backward_parts},
    [QKV_STAGE_ATTENTION_BACKWARD] = {qkv_attention_backward_layout, qkv_attention_backward_parts},
};

struct job {
    const struct qkv_plan_state *state;
    const struct qkv_operands *operands;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    drivers[j->state->stage].parts(j->state, &j->operands->tensors, &j->operands->gradients,
                                   workspace, phase, begin, end);
}

/* attention_backward tells afterwards if the LSE can't be that of its scores. */
static qkv_status verdict(const struct qkv_plan_state *s, const void *shared, int32_t phase,
                          int64_t begin, int64_t end) {
    if (s->stage != QKV_STAGE_ATTENTION_BACKWARD || phase != QKV_BACKWARD_VERDICT_PHASE ||
        begin == end)
        return QKV_OK;
    return qkv_backward_verdict(s, shared, begin, end);
}

qkv_status qkv_backward_run(const qkv_plan *plan, const qkv_tensors *tensors,
                            const qkv_gradients *gradients, int32_t phase, int64_t begin,
                            int64_t end, const qkv_workspace *workspace) {
    struct qkv_operands own;
    TRY(qkv_check_plan(plan));
    const struct qkv_plan_state *s = qkv_plan_get(plan);
    if (!s || s->stage <= QKV_STAGE_ATTENTION || s->stage > QKV_STAGE_ATTENTION_BACKWARD)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(qkv_take_operands(&own, &s->problem, s->stage, tensors, gradients));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    const struct job job = {s, &own};
    run_job(&job, workspace, phase, begin, end);
    return verdict(s, workspace->shared, phase, begin, end);
}

static qkv_status make_plan(qkv_plan *plan, int stage, const qkv_attention_params *params,
                            const qkv_context *context) {
    return qkv_make_plan(plan, stage, params, context, drivers[stage].layout);
}

static qkv_status run_plain(int stage, const qkv_attention_params *params,
                            const qkv_tensors *tensors, const qkv_gradients *gradients,
                            const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    struct qkv_operands operands;
    TRY(qkv_take_exec(&own, exec));
    TRY(make_plan(&plan, stage, params, own.context));
    const struct job job = {qkv_plan_get(&plan), &operands};
    const struct qkv_problem *p = &job.state->problem;
    TRY(qkv_take_operands(&operands, p, stage, tensors, gradients));
    TRY(qkv_check_exec(&plan, &own));
    TRY(qkv_run_all(&plan, &own, p->batch * p->kv_heads, job.state->grouped, run_job, &job));
    return verdict(job.state, own.workspace, QKV_BACKWARD_VERDICT_PHASE, 0,
                   plan.parts[QKV_BACKWARD_VERDICT_PHASE]);
}

qkv_status qkv_attention_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                       const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_ATTENTION_BACKWARD, params, context);
}

qkv_status qkv_attention_backward(const qkv_attention_params *params, const qkv_tensors *tensors,
                                  const qkv_gradients *gradients, const qkv_exec *exec) {
    return run_plain(QKV_STAGE_ATTENTION_BACKWARD, params, tensors, gradients, exec);
}

qkv_status qkv_mix_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                 const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_MIX_BACKWARD, params, context);
}

qkv_status qkv_mix_backward(const qkv_attention_params *params, const qkv_tensors *tensors,
                            const qkv_gradients *gradients, const qkv_exec *exec) {
    return run_plain(QKV_STAGE_MIX_BACKWARD, params, tensors, gradients, exec);
}

qkv_status qkv_softmax_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                     const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_SOFTMAX_BACKWARD, params, context);
}

qkv_status qkv_softmax_backward(const qkv_attention_params *params, const qkv_tensors *tensors,
                                const qkv_gradients *gradients, const qkv_exec *exec) {
    return run_plain(QKV_STAGE_SOFTMAX_BACKWARD, params, tensors, gradients, exec);
}

qkv_status qkv_scores_backward_plan(qkv_plan *plan, const qkv_attention_params *params,
                                    const qkv_context *context) {
    return make_plan(plan, QKV_STAGE_SCORES_BACKWARD, params, context);
}

qkv_status qkv_scores_backward(const qkv_attention_params *params, const qkv_tensors *tensors,
                               const qkv_gradients *gradients, const qkv_exec *exec) {
    return run_plain(QKV_STAGE_SCORES_BACKWARD, params, tensors, gradients, exec);
}
