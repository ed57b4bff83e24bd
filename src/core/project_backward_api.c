/* SPDX-License-Identifier: Apache-2.0 */
/* The public functions of the projection's gradients: tensors, plan, run. An input is looked at if
 * an output that needs it is wanted. */
#include "param_size.h"
#include "problem.h"
#include "project_backward.h"
#include "run.h"
#include "status.h"
#include "tensor.h"

void qkv_project_gradients_init(qkv_project_gradients *gradients) {
    *gradients = (qkv_project_gradients){.size = sizeof(*gradients)};
}

/* Reserves `count` floats at the end of a layout, aligned; returns their offset. */
static size_t reserve(size_t *size, int64_t count) {
    size_t offset = *size;
    *size += (size_t)qkv_round_up(count * (int64_t)sizeof(float), QKV_ALIGNMENT);
    return offset;
}

/* Rows of one head in one batch entry are at equal distances whatever the strides. */
static struct qkv_rows_layout lay_out_rows(const struct qkv_project_backward_state *s, size_t *size,
                                           int64_t heads, int64_t dim, int turned, int sums) {
    const int always_flat = s->shape.batch == 1 && heads == 1;
    struct qkv_rows_layout l;
    l.copied = reserve(size, always_flat ? 0 : s->rows * heads * dim);
    l.turned = reserve(size, turned ? heads * dim * s->turned_ld : 0);
    l.sums = reserve(size, sums ? s->groups * heads * dim : 0);
    return l;
}

static size_t lay_out_shared(struct qkv_project_backward_state *s) {
    const int in_out = s->shape.layout == QKV_W_IN_OUT;
    size_t size = 0;
    s->x = lay_out_rows(s, &size, 1, s->shape.d_model, in_out, 0);
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        const struct qkv_matrix *m = s->shape.matrix + which;
        s->dy[which] = lay_out_rows(s, &size, m->heads, m->dim, !in_out, 1);
    }
    return size;
}

/* Enough for the largest part there is. */
static size_t lay_out_worker(struct qkv_project_backward_state *s) {
    const int in_out = s->shape.layout == QKV_W_IN_OUT;
    int64_t width = 0, total = 0;
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        width = qkv_max(width, s->shape.matrix[which].width);
        total += s->shape.matrix[which].width;
    }
    const int64_t rows = qkv_max(s->rows, in_out ? s->shape.d_model : width);
    const int64_t columns = qkv_round_up(qkv_max(s->shape.d_model, width), QKV_PANEL);
    const int64_t strip = qkv_min(columns, QKV_PROJECT_COLUMNS);
    size_t size = 0;
    s->packed = reserve(&size, qkv_min(qkv_max(total, s->rows), QKV_PROJECT_DEPTH) * strip);
    s->sum = reserve(&size, qkv_min(rows, QKV_GRADIENT_ROWS) * strip);
    return size;
}

/* What the copies take has to fit in memory, too. */
static qkv_status check_sizes(const struct qkv_project_backward_state *s) {
    const int64_t most = PTRDIFF_MAX / (int64_t)sizeof(float) / 64;
    int64_t floats;
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        if (__builtin_mul_overflow(s->shape.matrix[which].width, s->turned_ld, &floats) ||
            floats > most)
            return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_OVERFLOW);
    if (__builtin_mul_overflow(s->shape.d_model, s->turned_ld, &floats) || floats > most)
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

static double flops_of(const struct qkv_project_state *s) {
    double width = 0;
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        width += (double)s->matrix[which].width;
    return 4.0 * (double)(s->batch * s->tokens) * (double)s->d_model * width;
}

qkv_status qkv_project_backward_plan(qkv_plan *plan, const qkv_project_params *params,
                                     const qkv_context *context) {
    struct qkv_project_backward_state s = {.magic = QKV_PROJECT_BACKWARD_MAGIC};
    TRY(qkv_check_plan(plan));
    TRY(qkv_project_make(&s.shape, params, QKV_PROJECT_ACCUMULATE));
    if (s.shape.layout == QKV_W_PACKED)
        return qkv_fail(QKV_ARG_LAYOUT, QKV_FAULT_RANGE);
    TRY(qkv_check_context(context));
    s.table = &qkv_context_get(context)->table;
    s.accumulate = (params->flags & QKV_PROJECT_ACCUMULATE) != 0;
    s.rows = s.shape.batch * s.shape.tokens;
    s.groups = qkv_round_up(s.rows, QKV_STRETCH) / QKV_STRETCH;
    /* An odd number of cache lines: rows a power of two apart would fall on each other there. */
    s.turned_ld = qkv_round_up(s.rows, 2 * QKV_PANEL) + QKV_PANEL;
    TRY(check_sizes(&s));

    memset(plan, 0, sizeof(*plan));
    plan->workspace_shared = lay_out_shared(&s);
    plan->workspace_worker = qkv_set_apart(lay_out_worker(&s));
    const int64_t parts = qkv_project_backward_parts(&s);
    if (s.groups > 0)
        plan->parts[plan->phases++] = s.groups;
    plan->parts[plan->phases++] = parts;
    plan->threads = qkv_worth_threads(flops_of(&s.shape), parts);
    memcpy(plan->state, &s, sizeof(s));
    return QKV_OK;
}

/* Footprints: inputs, then outputs. */
enum {
    F_X,
    F_W,
    F_DY = F_W + QKV_WHICH_COUNT,
    F_DX = F_DY + QKV_WHICH_COUNT,
    F_DW,
    F_DB = F_DW + QKV_WHICH_COUNT,
    F_COUNT = F_DB + QKV_WHICH_COUNT
};

static const qkv_arg args[F_COUNT] = {
    QKV_ARG_X,   QKV_ARG_WQ,   QKV_ARG_WK,   QKV_ARG_WV,   QKV_ARG_D_Q,  QKV_ARG_D_K,  QKV_ARG_D_V,
    QKV_ARG_D_X, QKV_ARG_D_WQ, QKV_ARG_D_WK, QKV_ARG_D_WV, QKV_ARG_D_BQ, QKV_ARG_D_BK, QKV_ARG_D_BV,
};

static qkv_status check_matrix(const struct qkv_gradient_call *call, int which,
                               struct qkv_footprint *f) {
    const struct qkv_project_state *s = &call->state->shape;
    const struct qkv_matrix *m = s->matrix + which;
    const struct qkv_matrix_gradients g = qkv_matrix_gradients_of(call, which);
    const int in_out = s->layout == QKV_W_IN_OUT, wants_x = call->gradients.x.data != NULL;
    const int64_t w[4] = {1, 1, in_out ? s->d_model : m->width, in_out ? m->width : s->d_model};
    const int64_t b[4] = {1, 1, 1, m->width}, y[4] = {s->batch, m->heads, s->tokens, m->dim};
    const struct {
        int is_wanted, at;
        const qkv_tensor *tensor;
        const int64_t *shape;
    } of[] = {
        {wants_x, F_W, g.w, w},
        {wants_x || g.dw->data || g.db->data, F_DY, g.dy, y},
        {g.dw->data != NULL, F_DW, g.dw, w},
        {g.db->data != NULL, F_DB, g.db, b},
    };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        const int at = of[i].at + which;
        if (of[i].is_wanted)
            TRY(qkv_check_tensor(f + at, of[i].tensor, of[i].shape, args[at]));
    }
    return QKV_OK;
}

static qkv_status check_outputs(const struct qkv_footprint *f) {
    for (int i = F_DX; i < F_COUNT; i++) {
        if (!f[i].element)
            continue;
        if (qkv_overlaps_itself(f + i))
            return qkv_fail(args[i], QKV_FAULT_SELF_OVERLAP);
        for (int k = 0; k < F_COUNT; k++)
            if (k != i && qkv_overlap(f + i, f + k))
                return qkv_fail(args[i], QKV_FAULT_OVERLAP);
    }
    return QKV_OK;
}

/* Takes the caller's structs into call, whose state is set. */
static qkv_status take_call(struct qkv_gradient_call *call, const qkv_project_tensors *tensors,
                            const qkv_project_gradients *gradients) {
    const struct qkv_project_state *s = &call->state->shape;
    const int64_t x[4] = {s->batch, 1, s->tokens, s->d_model};
    struct qkv_footprint f[F_COUNT] = {{0}};
    TRY(qkv_take_struct(&call->tensors, sizeof(call->tensors), tensors, sizeof(call->tensors),
                        QKV_ARG_TENSORS));
    TRY(qkv_take_struct(&call->gradients, sizeof(call->gradients), gradients,
                        sizeof(call->gradients), QKV_ARG_GRADIENTS));
    if (qkv_wants_weights(call))
        TRY(qkv_check_tensor(f + F_X, &call->tensors.x, x, args[F_X]));
    if (call->gradients.x.data)
        TRY(qkv_check_tensor(f + F_DX, &call->gradients.x, x, args[F_DX]));
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        if (s->matrix[which].width)
            TRY(check_matrix(call, which, f));
    return check_outputs(f);
}

static void run_call(const void *call, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                     int64_t end) {
    qkv_project_backward_do(call, workspace, phase, begin, end);
}

qkv_status qkv_project_backward_run(const qkv_plan *plan, const qkv_project_tensors *tensors,
                                    const qkv_project_gradients *gradients, int32_t phase,
                                    int64_t begin, int64_t end, const qkv_workspace *workspace) {
    TRY(qkv_check_plan(plan));
    struct qkv_gradient_call call = {.state =
                                         (const struct qkv_project_backward_state *)plan->state};
    if (call.state->magic != QKV_PROJECT_BACKWARD_MAGIC)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(take_call(&call, tensors, gradients));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    qkv_project_backward_do(&call, workspace, phase, begin, end);
    return QKV_OK;
}

qkv_status qkv_project_backward(const qkv_project_params *params,
                                const qkv_project_tensors *tensors,
                                const qkv_project_gradients *gradients, const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    TRY(qkv_take_exec(&own, exec));
    TRY(qkv_project_backward_plan(&plan, params, own.context));
    struct qkv_gradient_call call = {.state =
                                         (const struct qkv_project_backward_state *)plan.state};
    TRY(take_call(&call, tensors, gradients));
    TRY(qkv_check_exec(&plan, &own));
    return qkv_run_all(&plan, &own, 1, plan.phases, run_call, &call);
}
