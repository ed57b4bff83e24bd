/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotate: every row of x turned to its position. A part is a run of one sequence's rows of one
 * head; parts that follow each other share the run, so that angles are computed once for all heads.
 */
#include <string.h>

#include "context.h"
#include "param_size.h"
#include "rope.h"
#include "run.h"
#include "tensor.h"

struct __attribute__((may_alias)) rotate_state {
    uint64_t magic;
    const struct qkv_table *kernels;
    struct qkv_token_rows rows;
    struct qkv_rope_state rope;
    const int32_t *first;
    int64_t heads, head_dim;
    int64_t runs, run; /* of a sequence, and the rows of one */
};

#define MAGIC 0x61746f72766b71ULL /* "qkvrota" */

_Static_assert(sizeof(struct rotate_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

void qkv_rotate_params_init(qkv_rotate_params *params) {
    *params = (qkv_rotate_params){.size = sizeof(*params), .rope = {.theta = 10000.0}};
}

/* ---- The plan ---- */

static int64_t first_of(const struct rotate_state *s, int64_t b) {
    return s->first ? s->first[b] : 0;
}

/* Where tokens [from, to) of a sequence stand. */
static qkv_status check_places(const struct rotate_state *s, int64_t b, int64_t from, int64_t to) {
    if (first_of(s, b) < 0)
        return qkv_fail(QKV_ARG_FIRST, QKV_FAULT_NEGATIVE);
    return qkv_check_positions(&s->rope, &s->rows, b, first_of(s, b), from, to);
}

/* Where nothing tells sequences apart, one stands for all. */
static qkv_status check_all_places(const struct rotate_state *s) {
    const struct qkv_token_rows *r = &s->rows;
    const int differ = s->first || r->lens || r->cu || s->rope.rope.positions;
    for (int64_t b = 0; b < (differ ? r->batch : 1); b++)
        TRY(check_places(s, b, 0, qkv_tokens_of(r, b)));
    return QKV_OK;
}

static qkv_status make_state(struct rotate_state *s, const qkv_rotate_params *params) {
    qkv_rotate_params p;
    TRY(qkv_take_struct(&p, sizeof(p), params, sizeof(p), QKV_ARG_PARAMS));
    if (p.flags)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    *s = (struct rotate_state){
        .magic = MAGIC,
        .rows = {p.batch, p.tokens, p.lens, p.cu},
        .heads = p.heads,
        .head_dim = p.head_dim,
    };
    TRY(qkv_check_token_rows(&s->rows));
    TRY(qkv_check_count(p.heads, INT32_MAX, QKV_ARG_HEADS));
    TRY(qkv_check_count(p.head_dim, QKV_HEAD_DIM_MAX, QKV_ARG_HEAD_DIM));
    TRY(qkv_take_rope(&s->rope, &p.rope, p.head_dim));
    s->first = s->rope.rope.positions ? NULL : p.first;
    if ((uintptr_t)s->first % sizeof(int32_t))
        return qkv_fail(QKV_ARG_FIRST, QKV_FAULT_MISALIGNED);
    return check_all_places(s);
}

/* Parts: sequences, runs and heads. */
static qkv_status count_parts(struct rotate_state *s, int64_t tokens, int64_t *parts) {
    s->run = qkv_min(tokens, QKV_RUN);
    s->runs = (tokens - 1) / QKV_RUN + 1;
    if (__builtin_mul_overflow(s->rows.batch, s->heads, parts))
        return qkv_fail(QKV_ARG_HEADS, QKV_FAULT_OVERFLOW);
    if (__builtin_mul_overflow(*parts, s->runs, parts))
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

/* For at most `most` tokens a sequence. */
static qkv_status lay_out(struct rotate_state *s, qkv_plan *plan, int64_t most) {
    int64_t parts = 0;
    if (most > 0)
        TRY(count_parts(s, most, &parts));
    memset(plan, 0, sizeof(*plan));
    plan->threads = 1;
    if (most > 0) {
        const int64_t angles = qkv_angles_size(&s->rope, s->run), tokens = qkv_longest(&s->rows);
        const double numbers = (double)(s->rows.batch * s->heads) * (double)(tokens * s->head_dim);
        plan->phases = 1;
        plan->parts[0] = parts;
        plan->workspace_worker = qkv_set_apart((size_t)qkv_round_up(angles, QKV_ALIGNMENT));
        /* A number costs about as much as 20 flops: it comes from memory and goes there. */
        plan->threads = qkv_worth_threads(20.0 * numbers, parts);
    }
    memcpy(plan->state, s, sizeof(*s));
    return QKV_OK;
}

/* lasts: the lengths may grow until the plan runs. */
static qkv_status make_plan(qkv_plan *plan, const qkv_rotate_params *params,
                            const qkv_context *context, int lasts) {
    struct rotate_state s;
    TRY(qkv_check_plan(plan));
    TRY(make_state(&s, params));
    TRY(qkv_check_context(context));
    s.kernels = &qkv_context_get(context)->table;
    return lay_out(&s, plan, lasts ? s.rows.tokens : qkv_longest(&s.rows));
}

qkv_status qkv_rotate_plan(qkv_plan *plan, const qkv_rotate_params *params,
                           const qkv_context *context) {
    return make_plan(plan, params, context, 1);
}

/* ---- The tensors ---- */

static qkv_status take_tensors(qkv_tensors *own, const struct rotate_state *s,
                               const qkv_tensors *tensors) {
    struct qkv_footprint x, out;
    int64_t shape[4];
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    qkv_token_shape(shape, &s->rows, s->heads, s->head_dim);
    TRY(qkv_check_tensor(&x, &own->q, shape, QKV_ARG_Q));
    TRY(qkv_check_tensor(&out, &own->out, shape, QKV_ARG_OUT));
    if (!out.element)
        return QKV_OK;
    if (qkv_overlaps_itself(&out))
        return qkv_fail(QKV_ARG_OUT, QKV_FAULT_SELF_OVERLAP);
    if ((!qkv_same_view(&own->q, &own->out, shape) && qkv_overlap(&out, &x)) ||
        qkv_overlaps_rope(&out, &s->rope, &s->rows) || qkv_overlaps_rows(&out, &s->rows) ||
        qkv_overlaps_array(&out, s->first, s->rows.batch))
        return qkv_fail(QKV_ARG_OUT, QKV_FAULT_OVERLAP);
    return QKV_OK;
}

/* ---- The parts ---- */

/* Tokens [from, to) of sequence b, which may be none. */
struct run {
    int64_t b, from, to;
};

static struct run run_at(const struct rotate_state *s, int64_t index) {
    const int64_t run = index / s->heads, b = run / s->runs, from = run % s->runs * QKV_RUN;
    return (struct run){b, from, qkv_min(from + QKV_RUN, qkv_tokens_of(&s->rows, b))};
}

static void rotate_run(const struct rotate_state *s, const qkv_tensors *tensors,
                       struct qkv_angles *angles, int64_t index) {
    const struct run run = run_at(s, index);
    const int64_t b = run.b, head = index % s->heads;
    qkv_angles_move(angles, b, first_of(s, b), run.from, run.to);
    for (int64_t i = run.from; i < run.to; i++)
        qkv_angles_turn(angles, s->kernels->rotate->turn,
                        qkv_token_row(&tensors->out, &s->rows, b, head, i),
                        qkv_token_row(&tensors->q, &s->rows, b, head, i), i, s->head_dim);
}

struct job {
    const struct rotate_state *state;
    const qkv_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    const struct rotate_state *s = j->state;
    struct qkv_angles angles;
    (void)phase;
    qkv_angles_begin(&angles, &s->rope, &s->rows, workspace->worker, s->run);
    for (int64_t i = begin; i < end; i++)
        rotate_run(s, j->tensors, &angles, i);
}

static const struct rotate_state *state_of(const qkv_plan *plan) {
    const struct rotate_state *s = (const struct rotate_state *)plan->state;
    return s->magic == MAGIC ? s : NULL;
}

/* What the arrays hold by now of the rows of these parts, which follow each other by heads. */
static qkv_status check_parts(const struct rotate_state *s, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i = (i / s->heads + 1) * s->heads) {
        const struct run run = run_at(s, i);
        TRY(check_places(s, run.b, run.from, run.to));
    }
    return QKV_OK;
}

qkv_status qkv_rotate_run(const qkv_plan *plan, const qkv_tensors *tensors, int32_t phase,
                          int64_t begin, int64_t end, const qkv_workspace *workspace) {
    qkv_tensors own;
    TRY(qkv_check_plan(plan));
    const struct job job = {state_of(plan), &own};
    if (!job.state)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(qkv_check_token_rows(&job.state->rows));
    TRY(take_tensors(&own, job.state, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    TRY(check_parts(job.state, begin, end));
    run_job(&job, workspace, phase, begin, end);
    return QKV_OK;
}

qkv_status qkv_rotate(const qkv_rotate_params *params, const qkv_tensors *tensors,
                      const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    qkv_tensors own_tensors;
    TRY(qkv_take_exec(&own, exec));
    TRY(make_plan(&plan, params, own.context, 0));
    const struct job job = {state_of(&plan), &own_tensors};
    TRY(take_tensors(&own_tensors, job.state, tensors));
    TRY(qkv_check_exec(&plan, &own));
    return qkv_run_all(&plan, &own, 1, 0, run_job, &job);
}
