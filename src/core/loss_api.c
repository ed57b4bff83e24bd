/* SPDX-License-Identifier: Apache-2.0 */
/* The public functions of the losses: parameters, tensors, labels, plan and run. */
#include <string.h>

#include "loss.h"
#include "param_size.h"
#include "problem.h"
#include "run.h"
#include "status.h"
#include "tensor.h"

void qkv_loss_params_init(qkv_loss_params *params) {
    *params = (qkv_loss_params){.size = sizeof(*params)};
}

void qkv_loss_tensors_init(qkv_loss_tensors *tensors) {
    *tensors = (qkv_loss_tensors){.size = sizeof(*tensors)};
}

static qkv_status make_state(struct qkv_loss_state *s, const qkv_loss_params *params) {
    qkv_loss_params p;
    int64_t elements;
    TRY(qkv_take_struct(&p, sizeof(p), params, sizeof(p), QKV_ARG_PARAMS));
    if (p.flags)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    if (p.reserved)
        return qkv_fail(QKV_ARG_PARAMS, QKV_FAULT_FUTURE);
    if (p.kind < 0 || p.kind >= QKV_LOSS_COUNT)
        return qkv_fail(QKV_ARG_KIND, QKV_FAULT_RANGE);
    if (p.rows < 0)
        return qkv_fail(QKV_ARG_ROWS, QKV_FAULT_NEGATIVE);
    if (p.columns < 1)
        return qkv_fail(QKV_ARG_COLUMNS, p.columns ? QKV_FAULT_NEGATIVE : QKV_FAULT_ZERO);
    if (p.columns > PTRDIFF_MAX / 32)
        return qkv_fail(QKV_ARG_COLUMNS, QKV_FAULT_OVERFLOW);
    if (__builtin_mul_overflow(p.rows, p.columns, &elements) || elements > PTRDIFF_MAX / 32)
        return qkv_fail(QKV_ARG_ROWS, QKV_FAULT_OVERFLOW);

    *s = (struct qkv_loss_state){
        .magic = QKV_LOSS_MAGIC,
        .rows = p.rows,
        .columns = p.columns,
        .block_rows = qkv_max(QKV_LOSS_BLOCK / p.columns, 1),
        .block_columns = p.columns,
        .kind = p.kind,
        .first = p.kind == QKV_LOSS_SQUARED ? QKV_LOSS_BLOCKS : QKV_LOSS_COUNT_ROWS,
    };
    if (p.kind == QKV_LOSS_SQUARED)
        s->block_columns = qkv_min(p.columns, QKV_LOSS_BLOCK);
    s->column_blocks = qkv_round_up(s->columns, s->block_columns) / s->block_columns;
    s->blocks = qkv_round_up(s->rows, s->block_rows) / s->block_rows * s->column_blocks;
    return QKV_OK;
}

qkv_status qkv_loss_plan(qkv_plan *plan, const qkv_loss_params *params,
                         const qkv_context *context) {
    /* What an element is worth in flops: some loads, or an exponential as well. */
    static const double flops[QKV_LOSS_COUNT] = {
        [QKV_LOSS_SQUARED] = 8, [QKV_LOSS_CROSS_ENTROPY] = 40};
    struct qkv_loss_state s;
    TRY(qkv_check_plan(plan));
    TRY(make_state(&s, params));
    TRY(qkv_check_context(context));
    s.table = &qkv_context_get(context)->table;

    const int64_t parts[QKV_LOSS_STEPS] = {
        [QKV_LOSS_COUNT_ROWS] = 1, [QKV_LOSS_BLOCKS] = s.blocks, [QKV_LOSS_JOIN] = 1};
    memset(plan, 0, sizeof(*plan));
    for (int step = s.first; step < QKV_LOSS_STEPS; step++)
        plan->parts[plan->phases++] = parts[step];
    plan->workspace_shared = (size_t)qkv_round_up((int64_t)sizeof(struct qkv_loss_shared) +
                                                      s.blocks * (int64_t)sizeof(double),
                                                  QKV_ALIGNMENT);
    plan->threads = qkv_worth_threads(flops[s.kind] * (double)s.rows * (double)s.columns, s.blocks);
    memcpy(plan->state, &s, sizeof(s));
    return QKV_OK;
}

/* Footprints, in the order of the arguments. */
enum { F_PREDICTION, F_TARGET, F_LABELS, F_GRADIENT, F_LOSS, F_COUNT };

static qkv_status check_array(struct qkv_footprint *f, const void *data, int64_t count,
                              qkv_arg arg) {
    if (!data && count > 0)
        return qkv_fail(arg, QKV_FAULT_NULL);
    if ((uintptr_t)data % sizeof(float))
        return qkv_fail(arg, QKV_FAULT_MISALIGNED);
    *f = qkv_footprint_array(data, count, sizeof(float));
    return QKV_OK;
}

/* The gradient may take the prediction's place, element by element. */
static int in_place(const struct qkv_loss_state *s, const qkv_loss_tensors *t) {
    return t->gradient.data == t->prediction.data &&
           (s->rows < 2 || t->gradient.stride[2] == t->prediction.stride[2]);
}

static qkv_status check_outputs(const struct qkv_loss_state *s, const qkv_loss_tensors *t,
                                const struct qkv_footprint *f) {
    if (f[F_GRADIENT].element && qkv_overlaps_itself(f + F_GRADIENT))
        return qkv_fail(QKV_ARG_GRADIENT, QKV_FAULT_SELF_OVERLAP);
    for (int i = 0; i < F_GRADIENT; i++)
        if (qkv_overlap(f + F_GRADIENT, f + i) && !(i == F_PREDICTION && in_place(s, t)))
            return qkv_fail(QKV_ARG_GRADIENT, QKV_FAULT_OVERLAP);
    for (int i = 0; i < F_LOSS; i++)
        if (qkv_overlap(f + F_LOSS, f + i))
            return qkv_fail(QKV_ARG_LOSS, QKV_FAULT_OVERLAP);
    return QKV_OK;
}

static qkv_status take_tensors(qkv_loss_tensors *own, const struct qkv_loss_state *s,
                               const qkv_loss_tensors *tensors) {
    const int64_t shape[4] = {1, 1, s->rows, s->columns};
    struct qkv_footprint f[F_COUNT] = {{0}};
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    TRY(qkv_check_tensor(f + F_PREDICTION, &own->prediction, shape, QKV_ARG_PREDICTION));
    if (s->kind == QKV_LOSS_SQUARED)
        TRY(qkv_check_tensor(f + F_TARGET, &own->target, shape, QKV_ARG_TARGET));
    else
        TRY(check_array(f + F_LABELS, own->labels, s->rows, QKV_ARG_LABELS));
    if (own->gradient.data)
        TRY(qkv_check_tensor(f + F_GRADIENT, &own->gradient, shape, QKV_ARG_GRADIENT));
    TRY(check_array(f + F_LOSS, own->loss, 1, QKV_ARG_LOSS));
    return check_outputs(s, own, f);
}

/* Labels are columns, or -1. The squared loss has none. */
static qkv_status check_labels(const struct qkv_loss_state *s, const int32_t *labels, int64_t begin,
                               int64_t end) {
    int bad = 0;
    if (s->kind == QKV_LOSS_SQUARED)
        return QKV_OK;
    for (int64_t row = begin; row < end; row++)
        bad |= labels[row] < -1 || labels[row] >= s->columns;
    return bad ? qkv_fail(QKV_ARG_LABELS, QKV_FAULT_RANGE) : QKV_OK;
}

struct job {
    const struct qkv_loss_state *state;
    const qkv_loss_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    qkv_loss_do(j->state, j->tensors, workspace, phase, begin, end);
}

/* Each label is looked at before the first phase writes anything, and again only by its block. */
static qkv_status check_labels_of(const struct qkv_loss_state *s, const int32_t *labels,
                                  int32_t phase, int64_t begin, int64_t end) {
    const int step = s->first + phase;
    if (step == QKV_LOSS_COUNT_ROWS)
        return check_labels(s, labels, 0, s->rows);
    if (step == QKV_LOSS_JOIN)
        return QKV_OK;
    return check_labels(s, labels, begin * s->block_rows, qkv_min(end * s->block_rows, s->rows));
}

qkv_status qkv_loss_run(const qkv_plan *plan, const qkv_loss_tensors *tensors, int32_t phase,
                        int64_t begin, int64_t end, const qkv_workspace *workspace) {
    qkv_loss_tensors own;
    TRY(qkv_check_plan(plan));
    const struct qkv_loss_state *s = (const struct qkv_loss_state *)plan->state;
    if (s->magic != QKV_LOSS_MAGIC)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(take_tensors(&own, s, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    TRY(check_labels_of(s, own.labels, phase, begin, end));
    qkv_loss_do(s, &own, workspace, phase, begin, end);
    return QKV_OK;
}

qkv_status qkv_loss(const qkv_loss_params *params, const qkv_loss_tensors *tensors,
                    const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    qkv_loss_tensors own_tensors;
    TRY(qkv_take_exec(&own, exec));
    TRY(qkv_loss_plan(&plan, params, own.context));
    const struct job job = {(const struct qkv_loss_state *)plan.state, &own_tensors};
    TRY(take_tensors(&own_tensors, job.state, tensors));
    TRY(check_labels(job.state, own_tensors.labels, 0, job.state->rows));
    TRY(qkv_check_exec(&plan, &own));
    return qkv_run_all(&plan, &own, 1, plan.phases, run_job, &job);
}
