/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public functions of scores, softmax, mix and attention: which tensors a stage reads and
 * writes, their checks, and the way to the stage's driver.
 */
#include "block.h"
#include "param_size.h"
#include "run.h"
#include "status.h"
#include "tensor.h"

/* A tensor's heads, rows and columns, as qkv.h gives its shape. */
enum shape { SHAPE_Q, SHAPE_K, SHAPE_V, SHAPE_SCORES, SHAPE_OUT, SHAPE_LSE };

enum role { READ = 1, WRITE, WRITE_OPTIONAL };

struct operand {
    qkv_arg arg;
    size_t offset;
    enum shape shape;
    unsigned char role[QKV_STAGE_COUNT]; /* by stage; 0: not looked at */
};

#define TENSOR(name) offsetof(qkv_tensors, name)
static const struct operand operands[] = {
    {QKV_ARG_Q, TENSOR(q), SHAPE_Q, {[QKV_STAGE_SCORES] = READ, [QKV_STAGE_ATTENTION] = READ}},
    {QKV_ARG_K, TENSOR(k), SHAPE_K, {[QKV_STAGE_SCORES] = READ, [QKV_STAGE_ATTENTION] = READ}},
    {QKV_ARG_V, TENSOR(v), SHAPE_V, {[QKV_STAGE_MIX] = READ, [QKV_STAGE_ATTENTION] = READ}},
    {QKV_ARG_SCORES,
     TENSOR(scores),
     SHAPE_SCORES,
     {[QKV_STAGE_SCORES] = WRITE, [QKV_STAGE_SOFTMAX] = READ}},
    {QKV_ARG_WEIGHTS,
     TENSOR(weights),
     SHAPE_SCORES,
     {[QKV_STAGE_SOFTMAX] = WRITE, [QKV_STAGE_MIX] = READ}},
    {QKV_ARG_OUT, TENSOR(out), SHAPE_OUT, {[QKV_STAGE_MIX] = WRITE, [QKV_STAGE_ATTENTION] = WRITE}},
    {QKV_ARG_LSE,
     TENSOR(lse),
     SHAPE_LSE,
     {[QKV_STAGE_SOFTMAX] = WRITE_OPTIONAL, [QKV_STAGE_ATTENTION] = WRITE_OPTIONAL}},
};
enum { OPERANDS = sizeof(operands) / sizeof(operands[0]) };

static qkv_parts_fn *const drivers[QKV_STAGE_COUNT] = {
    [QKV_STAGE_SCORES] = qkv_scores_parts,
    [QKV_STAGE_SOFTMAX] = qkv_softmax_parts,
    [QKV_STAGE_MIX] = qkv_mix_parts,
    [QKV_STAGE_ATTENTION] = qkv_attention_parts,
};

static const qkv_tensor *tensor_of(const qkv_tensors *tensors, const struct operand *o) {
    return (const qkv_tensor *)((const char *)tensors + o->offset);
}

static void shape_of(int64_t shape[4], const struct qkv_problem *p, enum shape kind) {
    const int keys = kind == SHAPE_K || kind == SHAPE_V;
    const int32_t *cu = keys ? p->cu_kv : p->cu_q;
    shape[0] = cu ? 1 : p->batch;
    shape[1] = keys ? p->kv_heads : p->q_heads;
    shape[2] = keys ? p->kv_len : p->q_len;
    if (cu) /* rows before the first sequence are not ours, but within the view */
        shape[2] = cu[p->batch];
    shape[3] = kind == SHAPE_Q || kind == SHAPE_K     ? p->head_dim
               : kind == SHAPE_V || kind == SHAPE_OUT ? p->v_dim
               : kind == SHAPE_SCORES                 ? p->kv_len
                                                      : 1;
}

static qkv_status check_operand(struct qkv_footprint *f, const struct qkv_problem *p,
                                const struct operand *o, const qkv_tensor *t) {
    int64_t shape[4];
    shape_of(shape, p, o->shape);
    if (t->data && t->dtype != QKV_F32)
        return qkv_fail(o->arg, QKV_FAULT_DTYPE);
    if (t->reserved)
        return qkv_fail(o->arg, QKV_FAULT_FUTURE);
    if (shape[3] > 1 && t->data && t->stride[3] != 1)
        return qkv_fail(o->arg, QKV_FAULT_STRIDE);
    return qkv_footprint_make(f, t, shape, sizeof(float), o->arg);
}

/* softmax may work in place: the same view, element by element. */
static int in_place(const struct qkv_problem *p, const qkv_tensors *t, const struct operand *a,
                    const struct operand *b) {
    int64_t shape[4];
    if (a->arg != QKV_ARG_WEIGHTS || b->arg != QKV_ARG_SCORES || t->scores.data != t->weights.data)
        return 0;
    shape_of(shape, p, SHAPE_SCORES);
    for (int d = 0; d < 3; d++)
        if (shape[d] > 1 && t->scores.stride[d] != t->weights.stride[d])
            return 0;
    return 1;
}

static int overlaps_array(const struct qkv_footprint *out, const void *data, int64_t count) {
    if (!data)
        return 0;
    const struct qkv_footprint f = qkv_footprint_array(data, count, 4);
    return qkv_overlap(out, &f);
}

/* The arrays of the parameters, which no output may overlap either. */
static int overlaps_params(const struct qkv_problem *p, const struct qkv_footprint *out) {
    const int64_t shape[4] = {p->batch, p->q_heads, p->q_len, p->kv_len};
    struct qkv_footprint f;
    int overlaps =
        overlaps_array(out, p->slopes, p->q_heads) | overlaps_array(out, p->sinks, p->q_heads) |
        overlaps_array(out, p->q_lens, p->batch) | overlaps_array(out, p->kv_lens, p->batch) |
        overlaps_array(out, p->cu_q, p->batch + 1) | overlaps_array(out, p->cu_kv, p->batch + 1);
    /* Both were checked when the plan was made. */
    if (p->bias.data && !qkv_footprint_make(&f, &p->bias, shape, sizeof(float), QKV_ARG_BIAS))
        overlaps |= qkv_overlap(out, &f);
    if (p->mask.data && !qkv_footprint_make(&f, &p->mask, shape, 1, QKV_ARG_MASK))
        overlaps |= qkv_overlap(out, &f);
    return overlaps;
}

static qkv_status check_outputs(const struct qkv_problem *p, int stage, const qkv_tensors *t,
                                const struct qkv_footprint *f) {
    for (int i = 0; i < OPERANDS; i++) {
        const struct operand *o = operands + i;
        if (o->role[stage] < WRITE || !f[i].element)
            continue;
        if (qkv_overlaps_itself(f + i))
            return qkv_fail(o->arg, QKV_FAULT_SELF_OVERLAP);
        int overlaps = overlaps_params(p, f + i);
        for (int k = 0; k < OPERANDS; k++)
            if (k != i && f[k].element && !in_place(p, t, o, operands + k))
                overlaps |= qkv_overlap(f + i, f + k);
        if (overlaps)
            return qkv_fail(o->arg, QKV_FAULT_OVERLAP);
    }
    return QKV_OK;
}

/* Takes the caller's tensors and checks those that the stage looks at. */
static qkv_status take_tensors(qkv_tensors *own, const struct qkv_plan_state *s,
                               const qkv_tensors *tensors) {
    struct qkv_footprint f[OPERANDS];
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    for (int i = 0; i < OPERANDS; i++) {
        const qkv_tensor *t = tensor_of(own, operands + i);
        int role = operands[i].role[s->stage];
        f[i].element = 0;
        if (role && !(role == WRITE_OPTIONAL && !t->data))
            TRY(check_operand(f + i, &s->problem, operands + i, t));
    }
    return check_outputs(&s->problem, s->stage, own, f);
}

struct job {
    const struct qkv_plan_state *state;
    const qkv_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    drivers[j->state->stage](j->state, j->tensors, workspace, phase, begin, end);
}

qkv_status qkv_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase, int64_t begin,
                   int64_t end, const qkv_workspace *workspace) {
    qkv_tensors own;
    TRY(qkv_check_plan(plan));
    const struct qkv_plan_state *s = qkv_plan_get(plan);
    if (!s)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(take_tensors(&own, s, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    drivers[s->stage](s, &own, workspace, phase, begin, end);
    return QKV_OK;
}

typedef qkv_status plan_fn(qkv_plan *plan, const qkv_attention_params *params,
                           const qkv_context *context);

static qkv_status run_plain(plan_fn *make, const qkv_attention_params *params,
                            const qkv_tensors *tensors, const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    qkv_tensors own_tensors;
    TRY(qkv_take_exec(&own, exec));
    TRY(make(&plan, params, own.context));
    const struct job job = {qkv_plan_get(&plan), &own_tensors};
    TRY(take_tensors(&own_tensors, job.state, tensors));
    TRY(qkv_check_exec(&plan, &own));
    const struct qkv_problem *p = &job.state->problem;
    return qkv_run_all(&plan, &own, p->batch * p->kv_heads, run_job, &job);
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
