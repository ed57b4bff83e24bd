/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensors a stage of attention reads and writes, and their checks (operands.h). */
#include "operands.h"

#include "param_size.h"
#include "status.h"
#include "tensor.h"

/* A tensor's heads, rows and columns, as qkv.h gives its shape. */
enum shape {
    SHAPE_Q,
    SHAPE_K,
    SHAPE_V,
    SHAPE_SCORES,
    SHAPE_OUT,
    SHAPE_LSE,
    SHAPE_BIAS,
    SHAPE_SINKS
};

/* The tensors of all stages, in the order in which faults are looked for. */
enum {
    Q,
    K,
    V,
    SCORES,
    WEIGHTS,
    OUT,
    LSE,
    D_OUT,
    D_WEIGHTS,
    D_SCORES,
    D_Q,
    D_K,
    D_V,
    D_BIAS,
    D_SINKS,
    OPERANDS
};

struct operand {
    qkv_arg arg;
    size_t offset;
    enum shape shape;
};

#define TENSOR(name) offsetof(struct qkv_operands, tensors.name)
#define GRADIENT(name) offsetof(struct qkv_operands, gradients.name)
static const struct operand operands[OPERANDS] = {
    [Q] = {QKV_ARG_Q, TENSOR(q), SHAPE_Q},
    [K] = {QKV_ARG_K, TENSOR(k), SHAPE_K},
    [V] = {QKV_ARG_V, TENSOR(v), SHAPE_V},
    [SCORES] = {QKV_ARG_SCORES, TENSOR(scores), SHAPE_SCORES},
    [WEIGHTS] = {QKV_ARG_WEIGHTS, TENSOR(weights), SHAPE_SCORES},
    [OUT] = {QKV_ARG_OUT, TENSOR(out), SHAPE_OUT},
    [LSE] = {QKV_ARG_LSE, TENSOR(lse), SHAPE_LSE},
    [D_OUT] = {QKV_ARG_D_OUT, GRADIENT(out), SHAPE_OUT},
    [D_WEIGHTS] = {QKV_ARG_D_WEIGHTS, GRADIENT(weights), SHAPE_SCORES},
    [D_SCORES] = {QKV_ARG_D_SCORES, GRADIENT(scores), SHAPE_SCORES},
    [D_Q] = {QKV_ARG_D_Q, GRADIENT(q), SHAPE_Q},
    [D_K] = {QKV_ARG_D_K, GRADIENT(k), SHAPE_K},
    [D_V] = {QKV_ARG_D_V, GRADIENT(v), SHAPE_V},
    [D_BIAS] = {QKV_ARG_D_BIAS, GRADIENT(bias), SHAPE_BIAS},
    [D_SINKS] = {QKV_ARG_D_SINKS, GRADIENT(sinks), SHAPE_SINKS},
};

enum role { NONE, READ, READ_FOR_SINKS, WRITE, WRITE_OPTIONAL };

struct use {
    unsigned char operand, role;
};

enum { USES = 11 };

/* What each stage does with which; the rest of a row is NONE. */
static const struct use uses[QKV_STAGE_COUNT][USES + 1] = {
    [QKV_STAGE_SCORES] = {{Q, READ}, {K, READ}, {SCORES, WRITE}},
    [QKV_STAGE_SOFTMAX] = {{SCORES, READ}, {WEIGHTS, WRITE}, {LSE, WRITE_OPTIONAL}},
    [QKV_STAGE_MIX] = {{V, READ}, {WEIGHTS, READ}, {OUT, WRITE}},
    [QKV_STAGE_ATTENTION] = {{Q, READ}, {K, READ}, {V, READ}, {OUT, WRITE}, {LSE, WRITE_OPTIONAL}},
    [QKV_STAGE_DECODE] = {{Q, READ}, {OUT, WRITE}, {LSE, WRITE_OPTIONAL}},
    [QKV_STAGE_SCORES_BACKWARD] = {{Q, READ},
                                   {K, READ},
                                   {D_SCORES, READ},
                                   {D_Q, WRITE_OPTIONAL},
                                   {D_K, WRITE_OPTIONAL},
                                   {D_BIAS, WRITE_OPTIONAL}},
    [QKV_STAGE_SOFTMAX_BACKWARD] = {{WEIGHTS, READ},
                                    {LSE, READ_FOR_SINKS},
                                    {D_WEIGHTS, READ},
                                    {D_SCORES, WRITE_OPTIONAL},
                                    {D_SINKS, WRITE_OPTIONAL}},
    [QKV_STAGE_MIX_BACKWARD] = {{V, READ},
                                {WEIGHTS, READ},
                                {D_OUT, READ},
                                {D_WEIGHTS, WRITE_OPTIONAL},
                                {D_V, WRITE_OPTIONAL}},
    [QKV_STAGE_ATTENTION_BACKWARD] = {{Q, READ},
                                      {K, READ},
                                      {V, READ},
                                      {OUT, READ},
                                      {LSE, READ},
                                      {D_OUT, READ},
                                      {D_Q, WRITE_OPTIONAL},
                                      {D_K, WRITE_OPTIONAL},
                                      {D_V, WRITE_OPTIONAL},
                                      {D_BIAS, WRITE_OPTIONAL},
                                      {D_SINKS, WRITE_OPTIONAL}},
};

static const qkv_tensor *tensor_of(const struct qkv_operands *own, const struct operand *o) {
    return (const qkv_tensor *)((const char *)own + o->offset);
}

static int columns_of(const struct qkv_problem *p, enum shape kind) {
    switch (kind) {
    case SHAPE_Q:
    case SHAPE_K:
        return (int)p->head_dim;
    case SHAPE_V:
    case SHAPE_OUT:
        return (int)p->v_dim;
    default:
        return 1;
    }
}

static void shape_of(int64_t shape[4], const struct qkv_problem *p, enum shape kind) {
    const int keys = kind == SHAPE_K || kind == SHAPE_V;
    const int32_t *cu = kind == SHAPE_BIAS ? NULL : keys ? p->cu_kv : p->cu_q;
    shape[0] = cu ? 1 : p->batch;
    shape[1] = keys ? p->kv_heads : p->q_heads;
    shape[2] = keys ? p->kv_len : p->q_len;
    if (cu) /* rows before the first sequence are not ours, but within the view */
        shape[2] = cu[p->batch];
    shape[3] = kind == SHAPE_SCORES || kind == SHAPE_BIAS ? p->kv_len : columns_of(p, kind);
    if (kind == SHAPE_SINKS) {
        shape[0] = shape[1] = shape[2] = 1;
        shape[3] = p->q_heads;
    }
}

static qkv_status check_operand(struct qkv_footprint *f, const struct qkv_problem *p,
                                const struct operand *o, const qkv_tensor *t) {
    int64_t shape[4];
    shape_of(shape, p, o->shape);
    return qkv_check_tensor(f, t, shape, o->arg);
}

/* softmax, and its backward stage, may work in place: the same view, element by element. */
static int in_place(const struct qkv_problem *p, const struct qkv_operands *own,
                    const struct operand *a, const struct operand *b) {
    const qkv_tensor *x = tensor_of(own, a), *y = tensor_of(own, b);
    int64_t shape[4];
    if (!(a->arg == QKV_ARG_WEIGHTS && b->arg == QKV_ARG_SCORES) &&
        !(a->arg == QKV_ARG_D_SCORES && b->arg == QKV_ARG_D_WEIGHTS))
        return 0;
    shape_of(shape, p, SHAPE_SCORES);
    return qkv_same_view(x, y, shape);
}

/* The arrays of the parameters, which no output may overlap either. */
static int overlaps_params(const struct qkv_problem *p, const struct qkv_footprint *out) {
    const int64_t shape[4] = {p->batch, p->q_heads, p->q_len, p->kv_len};
    struct qkv_footprint f;
    int overlaps = qkv_overlaps_array(out, p->slopes, p->q_heads) |
                   qkv_overlaps_array(out, p->sinks, p->q_heads) |
                   qkv_overlaps_array(out, p->q_lens, p->batch) |
                   qkv_overlaps_array(out, p->kv_lens, p->batch) |
                   qkv_overlaps_array(out, p->cu_q, p->batch + 1) |
                   qkv_overlaps_array(out, p->cu_kv, p->batch + 1);
    /* Both were checked when the plan was made. */
    if (p->bias.data && !qkv_footprint_make(&f, &p->bias, shape, sizeof(float), QKV_ARG_BIAS))
        overlaps |= qkv_overlap(out, &f);
    if (p->mask.data && !qkv_footprint_make(&f, &p->mask, shape, 1, QKV_ARG_MASK))
        overlaps |= qkv_overlap(out, &f);
    return overlaps;
}

/* The tensors that take part in a call. */
struct taken {
    int count;
    unsigned char role[USES];
    const struct operand *operand[USES];
    struct qkv_footprint footprint[USES];
};

static qkv_status check_output(const struct qkv_problem *p, const struct qkv_operands *own,
                               const struct taken *t, int i) {
    const struct operand *o = t->operand[i];
    const struct qkv_footprint *f = t->footprint;
    if (qkv_overlaps_itself(f + i))
        return qkv_fail(o->arg, QKV_FAULT_SELF_OVERLAP);
    int overlaps = overlaps_params(p, f + i);
    for (int k = 0; k < t->count; k++)
        if (k != i && qkv_overlap(f + i, f + k))
            overlaps |= !in_place(p, own, o, t->operand[k]);
    return overlaps ? qkv_fail(o->arg, QKV_FAULT_OVERLAP) : QKV_OK;
}

static qkv_status check_outputs(const struct qkv_problem *p, const struct qkv_operands *own,
                                const struct taken *t) {
    for (int i = 0; i < t->count; i++)
        if (t->role[i] >= WRITE && t->footprint[i].element)
            TRY(check_output(p, own, t, i));
    return QKV_OK;
}

/* Does the stage look at the tensor in this call? */
static int takes_part(const struct qkv_operands *own, const struct use *use) {
    if (use->role == READ_FOR_SINKS)
        return own->gradients.sinks.data != NULL;
    return use->role != WRITE_OPTIONAL || tensor_of(own, operands + use->operand)->data;
}

static int is_backward(int stage) {
    return stage >= QKV_STAGE_PROJECT_BACKWARD && stage <= QKV_STAGE_ATTENTION_BACKWARD;
}

qkv_status qkv_outputs_apart(const struct qkv_operands *own, const struct qkv_problem *p, int stage,
                             const void *data, size_t bytes) {
    const struct qkv_footprint array = qkv_footprint_array(data, (int64_t)bytes, 1);
    struct qkv_footprint f;
    for (const struct use *use = uses[stage]; use->role != NONE; use++) {
        const struct operand *o = operands + use->operand;
        if (use->role < WRITE || !takes_part(own, use))
            continue;
        TRY(check_operand(&f, p, o, tensor_of(own, o)));
        if (qkv_overlap(&f, &array))
            return qkv_fail(o->arg, QKV_FAULT_OVERLAP);
    }
    return QKV_OK;
}

/* What says how much memory is read may have changed since the plan was made: lengths as they like,
 * within its sizes; where sequences begin not at all. */
static qkv_status check_lengths(const struct qkv_problem *p) {
    TRY(qkv_check_lengths(p->q_lens, p->batch, p->q_len, QKV_ARG_Q_LENS));
    TRY(qkv_check_lengths(p->kv_lens, p->batch, p->kv_len, QKV_ARG_KV_LENS));
    if (qkv_cumulative_bits(p->cu_q, p->batch) != p->cu_q_bits)
        return qkv_fail(QKV_ARG_CU_Q, QKV_FAULT_STALE);
    if (qkv_cumulative_bits(p->cu_kv, p->batch) != p->cu_kv_bits)
        return qkv_fail(QKV_ARG_CU_KV, QKV_FAULT_STALE);
    return QKV_OK;
}

qkv_status qkv_take_operands(struct qkv_operands *own, const struct qkv_problem *p, int stage,
                             const qkv_tensors *tensors, const qkv_gradients *gradients) {
    struct taken t;
    const size_t size = sizeof(own->tensors), gradients_size = sizeof(own->gradients);
    TRY(qkv_take_struct(&own->tensors, size, tensors, size, QKV_ARG_TENSORS));
    if (is_backward(stage))
        TRY(qkv_take_struct(&own->gradients, gradients_size, gradients, gradients_size,
                            QKV_ARG_GRADIENTS));
    TRY(check_lengths(p));
    t.count = 0;
    for (const struct use *use = uses[stage]; use->role != NONE; use++)
        if (takes_part(own, use)) {
            const struct operand *o = operands + use->operand;
            TRY(check_operand(t.footprint + t.count, p, o, tensor_of(own, o)));
            t.role[t.count] = use->role;
            t.operand[t.count++] = o;
        }
    if (is_backward(stage) && own->gradients.sinks.data && !p->sinks)
        return qkv_fail(QKV_ARG_SINKS, QKV_FAULT_NULL);
    return check_outputs(p, own, &t);
}
