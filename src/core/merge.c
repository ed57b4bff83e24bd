/* SPDX-License-Identifier: Apache-2.0 */
/* The joining of partial results: parameters, tensors, plan and run. A part is a few rows, each of
 * which takes its parts from left to right. */
#include <math.h>
#include <string.h>

#include <qkv/cache.h>

#include "context.h"
#include "param_size.h"
#include "problem.h"
#include "run.h"
#include "status.h"
#include "tensor.h"

/* A row takes some 50 ns; a thread that is awake is worth a few of them. */
enum { ROWS_A_PART = 16 };

struct __attribute__((may_alias)) qkv_merge_state {
    uint64_t magic;
    const struct qkv_merge_kernels *kernels;
    int64_t batch, heads, length, v_dim, parts;
    int64_t rows; /* batch * heads * length */
};

#define QKV_MERGE_MAGIC 0x6567726d766b71ULL /* "qkvmrge" */

_Static_assert(sizeof(struct qkv_merge_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

void qkv_merge_params_init(qkv_merge_params *params) {
    *params = (qkv_merge_params){.size = sizeof(*params)};
}

void qkv_merge_tensors_init(qkv_merge_tensors *tensors) {
    *tensors = (qkv_merge_tensors){.size = sizeof(*tensors)};
}

/* rows *= n, while rows of any width still fit in memory. */
static qkv_status multiply(int64_t *rows, int64_t n, qkv_arg arg) {
    const int64_t most = PTRDIFF_MAX / (int64_t)sizeof(float) / QKV_HEAD_DIM_MAX;
    if (__builtin_mul_overflow(*rows, n, rows) || *rows > most)
        return qkv_fail(arg, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

static qkv_status make_state(struct qkv_merge_state *s, const qkv_merge_params *params) {
    qkv_merge_params p;
    TRY(qkv_take_struct(&p, sizeof(p), params, sizeof(p), QKV_ARG_PARAMS));
    if (p.flags)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    TRY(qkv_check_count(p.batch, INT64_MAX, QKV_ARG_BATCH));
    TRY(qkv_check_count(p.heads, INT64_MAX, QKV_ARG_HEADS));
    if (p.length < 0)
        return qkv_fail(QKV_ARG_LENGTH, QKV_FAULT_NEGATIVE);
    TRY(qkv_check_count(p.v_dim, QKV_HEAD_DIM_MAX, QKV_ARG_V_DIM));
    TRY(qkv_check_count(p.parts, INT64_MAX, QKV_ARG_PARTS));
    if (p.parts > PTRDIFF_MAX / (int64_t)sizeof(qkv_tensor))
        return qkv_fail(QKV_ARG_PARTS, QKV_FAULT_OVERFLOW);
    *s = (struct qkv_merge_state){
        .magic = QKV_MERGE_MAGIC,
        .batch = p.batch,
        .heads = p.heads,
        .length = p.length,
        .v_dim = p.v_dim,
        .parts = p.parts,
        .rows = 1,
    };
    TRY(multiply(&s->rows, p.batch, QKV_ARG_BATCH));
    TRY(multiply(&s->rows, p.heads, QKV_ARG_HEADS));
    return multiply(&s->rows, p.length, QKV_ARG_LENGTH);
}

/* Joining two rows takes an exponential, a logarithm and two divisions beside v_dim numbers. */
static double flops_of(const struct qkv_merge_state *s) {
    return (double)s->rows * (double)s->parts * (3.0 * (double)s->v_dim + 200.0);
}

qkv_status qkv_merge_plan(qkv_plan *plan, const qkv_merge_params *params,
                          const qkv_context *context) {
    struct qkv_merge_state s;
    TRY(qkv_check_plan(plan));
    TRY(make_state(&s, params));
    TRY(qkv_check_context(context));
    s.kernels = qkv_context_get(context)->table.merge;

    memset(plan, 0, sizeof(*plan));
    if (s.rows > 0)
        plan->parts[plan->phases++] = qkv_round_up(s.rows, ROWS_A_PART) / ROWS_A_PART;
    plan->threads = qkv_worth_threads(flops_of(&s), plan->parts[0]);
    memcpy(plan->state, &s, sizeof(s));
    return QKV_OK;
}

/* ---- Tensors ---- */

struct shapes {
    int64_t out[4], lse[4];
};

static struct shapes shapes_of(const struct qkv_merge_state *s) {
    return (struct shapes){{s->batch, s->heads, s->length, s->v_dim},
                           {s->batch, s->heads, s->length, 1}};
}

static qkv_status check_array(const qkv_tensor *array, qkv_arg arg) {
    if (!array)
        return qkv_fail(arg, QKV_FAULT_NULL);
    return (uintptr_t)array % _Alignof(qkv_tensor) ? qkv_fail(arg, QKV_FAULT_MISALIGNED) : QKV_OK;
}

/* An output, on its own and beside the arrays that describe the parts. */
static qkv_status check_output(struct qkv_footprint *f, const struct qkv_merge_state *s,
                               const qkv_merge_tensors *t, const qkv_tensor *tensor,
                               const int64_t shape[4], qkv_arg arg) {
    const int64_t bytes = s->parts * (int64_t)sizeof(qkv_tensor);
    const struct qkv_footprint outs = qkv_footprint_array(t->part_out, bytes, 1);
    const struct qkv_footprint lses = qkv_footprint_array(t->part_lse, bytes, 1);
    TRY(qkv_check_tensor(f, tensor, shape, arg));
    if (f->element && qkv_overlaps_itself(f))
        return qkv_fail(arg, QKV_FAULT_SELF_OVERLAP);
    if (qkv_overlap(f, &outs) || qkv_overlap(f, &lses))
        return qkv_fail(arg, QKV_FAULT_OVERLAP);
    return QKV_OK;
}

/* A part beside the outputs. Their views may be those of the first one: a row is read before it is
 * written, and no other row is looked at. */
static qkv_status check_part(const struct qkv_merge_state *s, const qkv_merge_tensors *t, int64_t p,
                             const struct qkv_footprint *out, const struct qkv_footprint *lse) {
    const struct shapes shapes = shapes_of(s);
    const qkv_tensor *part_out = t->part_out + p, *part_lse = t->part_lse + p;
    const int out_in_place = p == 0 && qkv_same_view(&t->out, part_out, shapes.out);
    const int lse_in_place = p == 0 && qkv_same_view(&t->lse, part_lse, shapes.lse);
    struct qkv_footprint rows, numbers;
    TRY(qkv_check_tensor(&rows, part_out, shapes.out, QKV_ARG_PART_OUT));
    TRY(qkv_check_tensor(&numbers, part_lse, shapes.lse, QKV_ARG_PART_LSE));
    if ((qkv_overlap(out, &rows) && !out_in_place) || qkv_overlap(out, &numbers))
        return qkv_fail(QKV_ARG_OUT, QKV_FAULT_OVERLAP);
    if (qkv_overlap(lse, &rows) || (qkv_overlap(lse, &numbers) && !lse_in_place))
        return qkv_fail(QKV_ARG_LSE, QKV_FAULT_OVERLAP);
    return QKV_OK;
}

static qkv_status take_tensors(qkv_merge_tensors *own, const struct qkv_merge_state *s,
                               const qkv_merge_tensors *tensors) {
    const struct shapes shapes = shapes_of(s);
    struct qkv_footprint out, lse = {0};
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    TRY(check_array(own->part_out, QKV_ARG_PART_OUT));
    TRY(check_array(own->part_lse, QKV_ARG_PART_LSE));
    TRY(check_output(&out, s, own, &own->out, shapes.out, QKV_ARG_OUT));
    if (own->lse.data)
        TRY(check_output(&lse, s, own, &own->lse, shapes.lse, QKV_ARG_LSE));
    if (qkv_overlap(&lse, &out))
        return qkv_fail(QKV_ARG_LSE, QKV_FAULT_OVERLAP);
    for (int64_t p = 0; p < s->parts; p++)
        TRY(check_part(s, own, p, &out, &lse));
    return QKV_OK;
}

/* ---- The work ---- */

static float *row_of(const qkv_tensor *t, const struct qkv_merge_state *s, int64_t row) {
    const int64_t i = row % s->length, head = row / s->length;
    return (float *)t->data + head / s->heads * t->stride[0] + head % s->heads * t->stride[1] +
           i * t->stride[2];
}

static void merge_row(const struct qkv_merge_state *s, const qkv_merge_tensors *t, int64_t row) {
    float *out = row_of(&t->out, s, row);
    float lse = -INFINITY;
    for (int64_t p = 0; p < s->parts; p++)
        s->kernels->join(out, &lse, row_of(t->part_out + p, s, row),
                         *row_of(t->part_lse + p, s, row), s->v_dim);
    if (t->lse.data)
        *row_of(&t->lse, s, row) = lse;
}

struct job {
    const struct qkv_merge_state *state;
    const qkv_merge_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    const int64_t last = qkv_min(end * ROWS_A_PART, j->state->rows);
    (void)workspace;
    (void)phase;
    for (int64_t row = begin * ROWS_A_PART; row < last; row++)
        merge_row(j->state, j->tensors, row);
}

qkv_status qkv_merge_run(const qkv_plan *plan, const qkv_merge_tensors *tensors, int32_t phase,
                         int64_t begin, int64_t end, const qkv_workspace *workspace) {
    qkv_merge_tensors own;
    TRY(qkv_check_plan(plan));
    const struct job job = {(const struct qkv_merge_state *)plan->state, &own};
    if (job.state->magic != QKV_MERGE_MAGIC)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(take_tensors(&own, job.state, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    run_job(&job, workspace, phase, begin, end);
    return QKV_OK;
}

qkv_status qkv_merge(const qkv_merge_params *params, const qkv_merge_tensors *tensors,
                     const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    qkv_merge_tensors own_tensors;
    TRY(qkv_take_exec(&own, exec));
    TRY(qkv_merge_plan(&plan, params, own.context));
    const struct job job = {(const struct qkv_merge_state *)plan.state, &own_tensors};
    TRY(take_tensors(&own_tensors, job.state, tensors));
    TRY(qkv_check_exec(&plan, &own));
    return qkv_run_all(&plan, &own, 1, plan.phases, run_job, &job);
}
