/* SPDX-License-Identifier: Apache-2.0 */
/* The public functions of the projection: parameters, tensors, plan, run and packed weights. */
#include <string.h>

#include "param_size.h"
#include "problem.h"
#include "project.h"
#include "run.h"
#include "status.h"
#include "tensor.h"

void qkv_project_params_init(qkv_project_params *params) {
    *params = (qkv_project_params){.size = sizeof(*params)};
}

void qkv_project_tensors_init(qkv_project_tensors *tensors) {
    *tensors = (qkv_project_tensors){.size = sizeof(*tensors)};
}

/* a * b * c elements, twice over, fit in memory. */
static int too_large(int64_t a, int64_t b, int64_t c) {
    int64_t n;
    return __builtin_mul_overflow(a, b, &n) || __builtin_mul_overflow(n, c, &n) ||
           n > PTRDIFF_MAX / (int64_t)sizeof(float) / 8;
}

static qkv_status make_matrix(struct qkv_matrix *m, const struct qkv_project_state *s,
                              int64_t heads, int64_t dim, qkv_arg arg) {
    if (too_large(heads, dim, 1) || too_large(heads * dim + QKV_PANEL, s->d_model, 1) ||
        too_large(s->batch * s->tokens, heads * dim, 1))
        return qkv_fail(arg, QKV_FAULT_OVERFLOW);
    m->heads = heads;
    m->dim = dim;
    m->width = heads * dim;
    m->panels = qkv_round_up(m->width, QKV_PANEL) / QKV_PANEL;
    return QKV_OK;
}

/* A size by itself: not negative, and small enough to be multiplied by. */
static qkv_status check_size(int64_t n, qkv_arg arg) {
    if (n < 0)
        return qkv_fail(arg, QKV_FAULT_NEGATIVE);
    return too_large(n, 1, 1) ? qkv_fail(arg, QKV_FAULT_OVERFLOW) : QKV_OK;
}

static qkv_status check_positive(int64_t n, qkv_arg arg) {
    TRY(check_size(n, arg));
    return n == 0 ? qkv_fail(arg, QKV_FAULT_ZERO) : QKV_OK;
}

qkv_status qkv_project_make(struct qkv_project_state *s, const qkv_project_params *params,
                            uint64_t known_flags) {
    qkv_project_params p;
    TRY(qkv_take_struct(&p, sizeof(p), params, sizeof(p), QKV_ARG_PARAMS));
    if (p.flags & ~known_flags)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    if (p.reserved)
        return qkv_fail(QKV_ARG_PARAMS, QKV_FAULT_FUTURE);
    TRY(check_positive(p.batch, QKV_ARG_BATCH));
    TRY(check_size(p.tokens, QKV_ARG_TOKENS));
    TRY(check_positive(p.d_model, QKV_ARG_D_MODEL));
    TRY(check_size(p.q_heads, QKV_ARG_Q_HEADS));
    TRY(check_size(p.kv_heads, QKV_ARG_KV_HEADS));
    TRY(check_positive(p.head_dim, QKV_ARG_HEAD_DIM));
    TRY(check_size(p.v_dim, QKV_ARG_V_DIM));
    if (p.q_heads == 0 && p.kv_heads == 0)
        return qkv_fail(QKV_ARG_Q_HEADS, QKV_FAULT_ZERO);
    if (p.layout < 0 || p.layout >= QKV_W_COUNT)
        return qkv_fail(QKV_ARG_LAYOUT, QKV_FAULT_RANGE);
    if (too_large(p.batch, p.tokens, 1))
        return qkv_fail(QKV_ARG_TOKENS, QKV_FAULT_OVERFLOW);
    if (too_large(p.batch * p.tokens, p.d_model, 1))
        return qkv_fail(QKV_ARG_D_MODEL, QKV_FAULT_OVERFLOW);

    *s = (struct qkv_project_state){
        .magic = QKV_PROJECT_MAGIC,
        .batch = p.batch,
        .tokens = p.tokens,
        .d_model = p.d_model,
        .layout = p.layout,
    };
    struct qkv_matrix *m = s->matrix;
    TRY(make_matrix(m + QKV_WHICH_Q, s, p.q_heads, p.head_dim, QKV_ARG_Q_HEADS));
    TRY(make_matrix(m + QKV_WHICH_K, s, p.kv_heads, p.head_dim, QKV_ARG_KV_HEADS));
    return make_matrix(m + QKV_WHICH_V, s, p.kv_heads, p.v_dim ? p.v_dim : p.head_dim,
                       QKV_ARG_V_DIM);
}

static size_t packed_bytes(const struct qkv_project_state *s, const struct qkv_matrix *m) {
    return (size_t)(m->panels * s->d_model * QKV_PANEL) * sizeof(float);
}

/* Blocks of rows are about equally long: in whole entries, or else in whole tiles. */
static void cut_rows(struct qkv_project_state *s) {
    const int64_t most = s->plain ? QKV_PLAIN_ROWS : QKV_PROJECT_TOKENS;
    s->entries = qkv_even_share(s->batch, qkv_max(most / qkv_max(s->tokens, 1), 1), 1);
    s->block = qkv_even_share(s->tokens, most, s->table->project->mr);
    s->row_blocks =
        qkv_round_up(s->batch, s->entries) / s->entries * (qkv_round_up(s->tokens, most) / most);
}

static int is_wide(const struct qkv_project_state *s) {
    const int64_t from = s->table->project->wide_from;
    return !s->plain && from > 0 && s->table->second_cache >= from;
}

static int64_t most_together(const struct qkv_project_state *s) {
    if (s->plain)
        return s->layout == QKV_W_IN_OUT && s->batch * s->tokens <= QKV_PLAIN_FEW
                   ? QKV_PLAIN_TOGETHER
                   : 1;
    return s->wide ? QKV_PROJECT_TOGETHER : 1;
}

/* Do so few rows read W from memory, where several streams are faster than one? From the last-level
 * cache they are slower. */
static int has_lanes(const struct qkv_project_state *s, int64_t columns) {
    const double bytes = (double)columns * (double)s->d_model * (double)sizeof(float);
    return !s->plain && !s->table->follows && s->row_blocks == 1 &&
           s->batch * s->tokens <= s->table->project->laned &&
           bytes > (double)qkv_seldom_cached(s->table);
}

/* Bytes of so many rows' sums and of so many packed inputs. */
static size_t strip_bytes(int64_t rows, int64_t inputs, int64_t columns) {
    return (size_t)(qkv_round_up(rows * columns, QKV_PANEL) + inputs * columns) * sizeof(float);
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* A worker's memory: the sums of its parts at a time, and what they pack. More rows never need
 * less, whichever way they go. */
static size_t lay_out_worker(struct qkv_project_state *s, int64_t widest) {
    const int64_t padded = qkv_round_up(widest, QKV_PANEL), rows = s->batch * s->tokens;
    const int64_t strip = qkv_min(padded, QKV_PROJECT_COLUMNS);
    const int64_t wide = qkv_min(padded, QKV_PROJECT_TOGETHER * QKV_PROJECT_COLUMNS);
    const int64_t widest_plain = qkv_min(padded, QKV_PLAIN_TOGETHER * QKV_PROJECT_COLUMNS);
    const int64_t few = qkv_min(rows, QKV_PLAIN_FEW), many = qkv_min(rows, QKV_PLAIN_ROWS);
    const size_t sums = strip_bytes(qkv_min(rows, QKV_PROJECT_TOKENS), 0, s->wide ? wide : strip);
    if (s->layout == QKV_W_PACKED)
        return sums;
    s->packed = s->together > 1 ? strip_bytes(few, 0, widest_plain) : strip_bytes(many, 0, strip);
    return larger(sums, larger(strip_bytes(few, QKV_STRETCH, widest_plain),
                               strip_bytes(many, QKV_PROJECT_DEPTH, strip)));
}

qkv_status qkv_project_plan(qkv_plan *plan, const qkv_project_params *params,
                            const qkv_context *context) {
    struct qkv_project_state s;
    int64_t pack_parts = 0, parts = 0, width = 0, widest = 0;
    TRY(qkv_check_plan(plan));
    TRY(qkv_project_make(&s, params, 0));
    TRY(qkv_check_context(context));
    s.table = &qkv_context_get(context)->table;
    const int packed = s.layout == QKV_W_PACKED;
    s.plain = !packed && s.batch * s.tokens <= QKV_PLAIN_ROWS;
    s.packs = !packed && !s.plain;
    cut_rows(&s);
    s.wide = is_wide(&s);
    s.together = most_together(&s);

    memset(plan, 0, sizeof(*plan));
    for (int i = 0; i < QKV_WHICH_COUNT; i++) {
        struct qkv_matrix *m = s.matrix + i;
        pack_parts += qkv_project_pack_parts(m);
        parts += qkv_project_parts(&s, m);
        width += m->width;
        widest = qkv_max(widest, m->width);
        if (s.packs) {
            m->packed = plan->workspace_shared;
            plan->workspace_shared += packed_bytes(&s, m);
        }
    }
    s.lanes = has_lanes(&s, width);
    plan->workspace_worker = qkv_set_apart(lay_out_worker(&s, widest));
    if (parts > 0 && s.packs)
        plan->parts[plan->phases++] = pack_parts;
    if (parts > 0)
        plan->parts[plan->phases++] = parts;

    double flops = 2.0 * (double)(s.batch * s.tokens) * (double)s.d_model * (double)width;
    plan->threads = qkv_worth_threads(flops, parts);
    memcpy(plan->state, &s, sizeof(s));
    return QKV_OK;
}

struct qkv_packed_header qkv_packed_header_of(const struct qkv_project_state *s,
                                              const struct qkv_matrix *m) {
    return (struct qkv_packed_header){
        .magic = "qkvpack",
        .version = 1,
        .layout = 1,
        .dtype = QKV_F32,
        .panel = QKV_PANEL,
        .d_model = s->d_model,
        .width = m->width,
    };
}

static qkv_status check_packed(const struct qkv_project_state *s, const struct qkv_matrix *m,
                               const qkv_tensor *w, struct qkv_footprint *f, qkv_arg arg) {
    const struct qkv_packed_header want = qkv_packed_header_of(s, m);
    if (!w->data)
        return qkv_fail(arg, QKV_FAULT_NULL);
    if ((uintptr_t)w->data % QKV_ALIGNMENT)
        return qkv_fail(arg, QKV_FAULT_MISALIGNED);
    if (memcmp(w->data, &want, sizeof(want)) != 0)
        return qkv_fail(arg, QKV_FAULT_LAYOUT);
    *f = qkv_footprint_array(w->data, (int64_t)(sizeof(want) + packed_bytes(s, m)), 1);
    return QKV_OK;
}

static qkv_status check_weights(const struct qkv_project_state *s, int layout,
                                const struct qkv_matrix *m, const qkv_tensor *w,
                                struct qkv_footprint *f, qkv_arg arg) {
    const int64_t in_out[4] = {1, 1, s->d_model, m->width};
    const int64_t out_in[4] = {1, 1, m->width, s->d_model};
    if (layout != QKV_W_PACKED)
        return qkv_check_tensor(f, w, layout == QKV_W_IN_OUT ? in_out : out_in, arg);
    if (w->data && w->dtype != QKV_F32)
        return qkv_fail(arg, QKV_FAULT_DTYPE);
    if (w->reserved)
        return qkv_fail(arg, QKV_FAULT_FUTURE);
    return check_packed(s, m, w, f, arg);
}

static const qkv_arg weight_args[] = {QKV_ARG_WQ, QKV_ARG_WK, QKV_ARG_WV};
static const qkv_arg bias_args[] = {QKV_ARG_BQ, QKV_ARG_BK, QKV_ARG_BV};
static const qkv_arg out_args[] = {QKV_ARG_Q, QKV_ARG_K, QKV_ARG_V};

/* Footprints: x, then weights, biases and outputs of each matrix. */
enum { F_X, F_W, F_BIAS = F_W + 3, F_OUT = F_BIAS + 3, F_COUNT = F_OUT + 3 };

static qkv_status check_matrix(const struct qkv_project_state *s, const qkv_project_tensors *t,
                               int which, struct qkv_footprint *f) {
    const struct qkv_matrix *m = s->matrix + which;
    const struct qkv_matrix_tensors of = qkv_matrix_tensors_of(t, which);
    const int64_t bias[4] = {1, 1, 1, m->width};
    const int64_t out[4] = {s->batch, m->heads, s->tokens, m->dim};
    if (m->width == 0)
        return QKV_OK;
    TRY(check_weights(s, s->layout, m, of.w, f + F_W + which, weight_args[which]));
    if (of.bias->data)
        TRY(qkv_check_tensor(f + F_BIAS + which, of.bias, bias, bias_args[which]));
    return qkv_check_tensor(f + F_OUT + which, of.out, out, out_args[which]);
}

static qkv_status take_tensors(qkv_project_tensors *own, const struct qkv_project_state *s,
                               const qkv_project_tensors *tensors) {
    const int64_t x[4] = {s->batch, 1, s->tokens, s->d_model};
    struct qkv_footprint f[F_COUNT] = {{0}};
    TRY(qkv_take_struct(own, sizeof(*own), tensors, sizeof(*own), QKV_ARG_TENSORS));
    TRY(qkv_check_tensor(f + F_X, &own->x, x, QKV_ARG_X));
    for (int i = 0; i < QKV_WHICH_COUNT; i++)
        TRY(check_matrix(s, own, i, f));
    for (int i = 0; i < QKV_WHICH_COUNT; i++) {
        const struct qkv_footprint *out = f + F_OUT + i;
        if (!out->element)
            continue;
        if (qkv_overlaps_itself(out))
            return qkv_fail(out_args[i], QKV_FAULT_SELF_OVERLAP);
        for (int k = 0; k < F_COUNT; k++)
            if (k != F_OUT + i && qkv_overlap(out, f + k))
                return qkv_fail(out_args[i], QKV_FAULT_OVERLAP);
    }
    return QKV_OK;
}

struct job {
    const struct qkv_project_state *state;
    const qkv_project_tensors *tensors;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    qkv_project_do(j->state, j->tensors, workspace, phase, begin, end);
}

static const struct qkv_project_state *state_of(const qkv_plan *plan) {
    return (const struct qkv_project_state *)plan->state;
}

/* A plan of this stage, or STALE. */
static qkv_status check_project_plan(const qkv_plan *plan) {
    TRY(qkv_check_plan(plan));
    return state_of(plan)->magic == QKV_PROJECT_MAGIC ? QKV_OK
                                                      : qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
}

qkv_status qkv_project_run(const qkv_plan *plan, const qkv_project_tensors *tensors, int32_t phase,
                           int64_t begin, int64_t end, const qkv_workspace *workspace) {
    qkv_project_tensors own;
    TRY(check_project_plan(plan));
    const struct qkv_project_state *s = state_of(plan);
    TRY(take_tensors(&own, s, tensors));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    qkv_project_do(s, &own, workspace, phase, begin, end);
    return QKV_OK;
}

static qkv_status run_plan(const qkv_plan *plan, const qkv_project_tensors *tensors,
                           const qkv_exec *exec) {
    qkv_project_tensors own;
    const struct job job = {state_of(plan), &own};
    TRY(take_tensors(&own, job.state, tensors));
    TRY(qkv_check_exec(plan, exec));
    return qkv_run_all(plan, exec, 1, plan->phases, run_job, &job);
}

qkv_status qkv_project(const qkv_project_params *params, const qkv_project_tensors *tensors,
                       const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    TRY(qkv_take_exec(&own, exec));
    TRY(qkv_project_plan(&plan, params, own.context));
    return run_plan(&plan, tensors, &own);
}

qkv_status qkv_project_execute(const qkv_plan *plan, const qkv_project_tensors *tensors,
                               const qkv_exec *exec) {
    qkv_exec own;
    TRY(check_project_plan(plan));
    TRY(qkv_take_exec(&own, exec));
    return run_plan(plan, tensors, &own);
}

/* The matrix to be packed, whose layout must be that of plain weights. */
static qkv_status pack_matrix(struct qkv_project_state *s, const qkv_project_params *params,
                              int which, const qkv_context *context) {
    qkv_project_params p;
    TRY(qkv_take_struct(&p, sizeof(p), params, sizeof(p), QKV_ARG_PARAMS));
    p.batch = 1; /* weights know no tokens */
    p.tokens = 0;
    TRY(qkv_project_make(s, &p, 0));
    if (s->layout == QKV_W_PACKED)
        return qkv_fail(QKV_ARG_LAYOUT, QKV_FAULT_RANGE);
    if (which < 0 || which >= QKV_WHICH_COUNT || s->matrix[which].width == 0)
        return qkv_fail(QKV_ARG_WHICH, QKV_FAULT_RANGE);
    return qkv_check_context(context);
}

size_t qkv_project_pack_size(const qkv_project_params *params, int which,
                             const qkv_context *context) {
    struct qkv_project_state s;
    if (pack_matrix(&s, params, which, context))
        return 0;
    return sizeof(struct qkv_packed_header) + packed_bytes(&s, s.matrix + which);
}

qkv_status qkv_project_pack(const qkv_project_params *params, int which, const qkv_tensor *w,
                            void *packed, size_t packed_size, const qkv_context *context) {
    struct qkv_project_state s;
    struct qkv_footprint in, out;
    TRY(pack_matrix(&s, params, which, context));
    const struct qkv_matrix *m = s.matrix + which;
    const size_t size = sizeof(struct qkv_packed_header) + packed_bytes(&s, m);
    if (!w)
        return qkv_fail(weight_args[which], QKV_FAULT_NULL);
    if ((uintptr_t)w % _Alignof(qkv_tensor))
        return qkv_fail(weight_args[which], QKV_FAULT_MISALIGNED);
    TRY(check_weights(&s, s.layout, m, w, &in, weight_args[which]));
    if (!packed)
        return qkv_fail(QKV_ARG_PACKED, QKV_FAULT_NULL);
    if ((uintptr_t)packed % QKV_ALIGNMENT)
        return qkv_fail(QKV_ARG_PACKED, QKV_FAULT_MISALIGNED);
    if (packed_size < size)
        return qkv_fail(QKV_ARG_PACKED, QKV_FAULT_TOO_SMALL);
    out = qkv_footprint_array(packed, (int64_t)size, 1);
    if (qkv_overlap(&in, &out))
        return qkv_fail(QKV_ARG_PACKED, QKV_FAULT_OVERLAP);

    const struct qkv_packed_header header = qkv_packed_header_of(&s, m);
    memcpy(packed, &header, sizeof(header));
    s.table = &qkv_context_get(context)->table;
    for (int64_t i = 0; i < qkv_project_pack_parts(m); i++)
        qkv_project_pack_strip(&s, m, w, (float *)((char *)packed + sizeof(header)), i);
    return QKV_OK;
}
