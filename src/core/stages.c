/* SPDX-License-Identifier: Apache-2.0 */
/* The public functions of scores, softmax, mix and attention: the way to the stage's driver. */
#include "block.h"
#include "decode.h"
#include "operands.h"
#include "run.h"
#include "status.h"

static qkv_parts_fn *const drivers[QKV_STAGE_COUNT] = {
    [QKV_STAGE_SCORES] = qkv_scores_parts,
    [QKV_STAGE_SOFTMAX] = qkv_softmax_parts,
    [QKV_STAGE_MIX] = qkv_mix_parts,
    [QKV_STAGE_ATTENTION] = qkv_attention_parts,
};

struct job {
    const struct qkv_plan_state *state;
    const qkv_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    drivers[j->state->stage](j->state, j->tensors, workspace, phase, begin, end);
}

static int is_decode(const struct qkv_plan_state *s) {
    return s && s->stage == QKV_STAGE_DECODE;
}

/* Is it a plan of one of these stages? */
static qkv_status check_stage(const struct qkv_plan_state *s) {
    return s && s->stage <= QKV_STAGE_ATTENTION ? QKV_OK : qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
}

qkv_status qkv_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase, int64_t begin,
                   int64_t end, const qkv_workspace *workspace) {
    struct qkv_operands own;
    TRY(qkv_check_plan(plan));
    const struct qkv_plan_state *s = qkv_plan_get(plan);
    TRY(check_stage(s));
    TRY(qkv_take_operands(&own, &s->problem, s->stage, tensors, NULL));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    drivers[s->stage](s, &own.tensors, workspace, phase, begin, end);
    return QKV_OK;
}

/* The checks of a call with a plan that stands, and its phases. */
static qkv_status run_plan(const qkv_plan *plan, const qkv_tensors *tensors, const qkv_exec *exec) {
    struct qkv_operands operands;
    const struct job job = {qkv_plan_get(plan), &operands.tensors};
    const struct qkv_problem *p = &job.state->problem;
    TRY(qkv_take_operands(&operands, p, job.state->stage, tensors, NULL));
    TRY(qkv_check_exec(plan, exec));
    return qkv_run_all(plan, exec, p->batch * p->kv_heads, job.state->grouped, run_job, &job);
}

qkv_status qkv_execute(const qkv_plan *plan, const qkv_tensors *tensors, const qkv_exec *exec) {
    qkv_exec own;
    TRY(qkv_check_plan(plan));
    const struct qkv_plan_state *s = qkv_plan_get(plan);
    if (!is_decode(s))
        TRY(check_stage(s));
    TRY(qkv_take_exec(&own, exec));
    return is_decode(s) ? qkv_decode_with(plan, tensors, &own) : run_plan(plan, tensors, &own);
}

typedef qkv_status plan_fn(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_context *context);

static qkv_status run_plain(plan_fn *make, const qkv_attention_params *params,
                            const qkv_tensors *tensors, const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    TRY(qkv_take_exec(&own, exec));
    TRY(make(&plan, params, own.context));
    return run_plan(&plan, tensors, &own);
}

qkv_status qkv_attention(const qkv_attention_params *params, const qkv_tensors *tensors,
                         const qkv_exec *exec) {
    return run_plain(qkv_attention_plan, params, tensors, exec);
}

qkv_status qkv_scores(const qkv_attention_params *params, const qkv_tensors *tensors,
                      const qkv_exec *exec) {
    return run_plain(qkv_scores_plan, params, tensors, exec);
}

qkv_status qkv_softmax(const qkv_attention_params *params, const qkv_tensors *tensors,
                       const qkv_exec *exec) {
    return run_plain(qkv_softmax_plan, params, tensors, exec);
}

qkv_status qkv_mix(const qkv_attention_params *params, const qkv_tensors *tensors,
                   const qkv_exec *exec) {
    return run_plain(qkv_mix_plan, params, tensors, exec);
}
