/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient descent: what every number and array must be, the numbers that hold for all weights of
 * a step, computed once in double precision, and chunks of the arrays as parts. Clipping by the
 * global norm.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "context.h"
#include "param_size.h"
#include "problem.h"
#include "run.h"
#include "status.h"
#include "tensor.h"

enum { CHUNK = 16384 }; /* numbers of a part */

struct __attribute__((may_alias)) descent_state {
    uint64_t magic;
    qkv_descend_fn *kernel;
    struct qkv_descend numbers; /* the arrays, and n, are the run's */
    int64_t count;
    int has_mean, has_square;
};

#define MAGIC 0x63736564766b71ULL /* "qkvdesc" */

_Static_assert(sizeof(struct descent_state) <= sizeof(((qkv_plan *)0)->state), "state fits");

void qkv_descent_params_init(qkv_descent_params *params) {
    *params = (qkv_descent_params){
        .size = sizeof(*params),
        .step = 1,
        .rate = 1e-3f,
        .gradient_scale = 1.0f,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .epsilon = 1e-8f,
    };
}

void qkv_descent_arrays_init(qkv_descent_arrays *arrays) {
    *arrays = (qkv_descent_arrays){.size = sizeof(*arrays)};
}

/* ---- The parameters ---- */

static qkv_status check_not_negative(float x, qkv_arg arg) {
    if (!isfinite(x))
        return qkv_fail(arg, QKV_FAULT_VALUE);
    return x < 0.0f ? qkv_fail(arg, QKV_FAULT_NEGATIVE) : QKV_OK;
}

static qkv_status check_positive(float x, qkv_arg arg) {
    TRY(check_not_negative(x, arg));
    return x == 0.0f ? qkv_fail(arg, QKV_FAULT_ZERO) : QKV_OK;
}

/* How much of a running mean is kept: [0, 1). */
static qkv_status check_kept(float x, qkv_arg arg) {
    TRY(check_not_negative(x, arg));
    return x >= 1.0f ? qkv_fail(arg, QKV_FAULT_RANGE) : QKV_OK;
}

static qkv_status check_rule(const qkv_descent_params *p) {
    if (p->rule == QKV_DESCENT_SGD)
        return check_kept(p->momentum, QKV_ARG_MOMENTUM);
    if (p->rule != QKV_DESCENT_ADAMW)
        return qkv_fail(QKV_ARG_RULE, QKV_FAULT_RANGE);
    TRY(check_kept(p->beta1, QKV_ARG_BETA1));
    TRY(check_kept(p->beta2, QKV_ARG_BETA2));
    return check_positive(p->epsilon, QKV_ARG_EPSILON);
}

static qkv_status check_count(int64_t count) {
    if (count < 0)
        return qkv_fail(QKV_ARG_NUMBERS, QKV_FAULT_NEGATIVE);
    if (count > PTRDIFF_MAX / (int64_t)sizeof(float) / 8)
        return qkv_fail(QKV_ARG_NUMBERS, QKV_FAULT_OVERFLOW);
    return QKV_OK;
}

static qkv_status take_params(qkv_descent_params *p, const qkv_descent_params *params) {
    TRY(qkv_take_struct(p, sizeof(*p), params, sizeof(*p), QKV_ARG_PARAMS));
    if (p->flags)
        return qkv_fail(QKV_ARG_FLAGS, QKV_FAULT_FLAG);
    TRY(check_count(p->count));
    if (p->step < 1)
        return qkv_fail(QKV_ARG_STEP, p->step ? QKV_FAULT_NEGATIVE : QKV_FAULT_ZERO);
    TRY(check_not_negative(p->rate, QKV_ARG_RATE));
    TRY(check_not_negative(p->gradient_scale, QKV_ARG_GRADIENT_SCALE));
    TRY(check_not_negative(p->weight_decay, QKV_ARG_WEIGHT_DECAY));
    return check_rule(p);
}

/* x^n by squaring. Of no use is an error that grows with n, unless the power shrinks faster. */
static double power(double x, int64_t n) {
    double y = 1.0;
    for (; n > 0; n >>= 1) {
        if (n & 1)
            y *= x;
        x *= x;
    }
    return y;
}

static void prepare_adamw(struct qkv_descend *d, const qkv_descent_params *p) {
    const double correction1 = 1.0 - power((double)p->beta1, p->step);
    const double correction2 = 1.0 - power((double)p->beta2, p->step);
    d->rate = (float)((double)p->rate / correction1);
    d->decay = (float)((double)p->weight_decay * correction1);
    d->keep1 = p->beta1;
    d->take1 = (float)(1.0 - (double)p->beta1);
    d->keep2 = p->beta2;
    d->take2 = (float)(1.0 - (double)p->beta2);
    d->root = (float)(1.0 / sqrt(correction2));
    d->epsilon = p->epsilon;
}

static void prepare(struct descent_state *s, const struct qkv_descent_kernels *kernels,
                    const qkv_descent_params *p) {
    struct qkv_descend *d = &s->numbers;
    *s = (struct descent_state){.magic = MAGIC, .count = p->count};
    *d = (struct qkv_descend){
        .rate = p->rate,
        .scale = p->gradient_scale,
        .decay = p->weight_decay,
        .keep1 = p->momentum,
        .first = p->step == 1,
    };
    s->has_square = p->rule == QKV_DESCENT_ADAMW;
    s->has_mean = s->has_square || p->momentum > 0.0f;
    s->kernel = s->has_square ? kernels->adamw : s->has_mean ? kernels->momentum : kernels->plain;
    if (s->has_square)
        prepare_adamw(d, p);
}

qkv_status qkv_descent_plan(qkv_plan *plan, const qkv_descent_params *params,
                            const qkv_context *context) {
    qkv_descent_params p;
    struct descent_state s;
    TRY(qkv_check_plan(plan));
    TRY(take_params(&p, params));
    TRY(qkv_check_context(context));
    prepare(&s, qkv_context_get(context)->table.descent, &p);
    if (!isfinite(s.numbers.rate))
        return qkv_fail(QKV_ARG_RATE, QKV_FAULT_RANGE);

    memset(plan, 0, sizeof(*plan));
    if (p.count > 0)
        plan->parts[plan->phases++] = qkv_round_up(p.count, CHUNK) / CHUNK;
    /* A number costs about as much as 20 flops: it comes from memory and goes there. */
    plan->threads = qkv_worth_threads(20.0 * (double)p.count, plan->parts[0]);
    memcpy(plan->state, &s, sizeof(s));
    return QKV_OK;
}

/* ---- The arrays ---- */

static qkv_status check_array(struct qkv_footprint *f, const float *x, int64_t count, qkv_arg arg) {
    if (!x && count > 0)
        return qkv_fail(arg, QKV_FAULT_NULL);
    if ((uintptr_t)x % _Alignof(float))
        return qkv_fail(arg, QKV_FAULT_MISALIGNED);
    *f = qkv_footprint_array(x, count, sizeof(*x));
    return QKV_OK;
}

enum { WEIGHTS, GRADIENT, MEAN, SQUARE, ARRAYS };

static qkv_status take_arrays(qkv_descent_arrays *own, const struct descent_state *s,
                              const qkv_descent_arrays *arrays) {
    static const qkv_arg args[ARRAYS] = {QKV_ARG_WEIGHTS, QKV_ARG_GRADIENT, QKV_ARG_MEAN,
                                         QKV_ARG_SQUARE};
    struct qkv_footprint f[ARRAYS] = {{0}};
    TRY(qkv_take_struct(own, sizeof(*own), arrays, sizeof(*own), QKV_ARG_ARRAYS));
    TRY(check_array(f + WEIGHTS, own->weights, s->count, args[WEIGHTS]));
    TRY(check_array(f + GRADIENT, own->gradient, s->count, args[GRADIENT]));
    if (s->has_mean)
        TRY(check_array(f + MEAN, own->mean, s->count, args[MEAN]));
    if (s->has_square)
        TRY(check_array(f + SQUARE, own->square, s->count, args[SQUARE]));
    for (int i = 1; i < ARRAYS; i++)
        for (int k = 0; k < i; k++)
            if (qkv_overlap(f + i, f + k))
                return qkv_fail(args[i], QKV_FAULT_OVERLAP);
    return QKV_OK;
}

static void do_parts(const struct descent_state *s, const qkv_descent_arrays *arrays, int64_t begin,
                     int64_t end) {
    const int64_t from = begin * CHUNK;
    struct qkv_descend d = s->numbers;
    d.w = arrays->weights + from;
    d.g = arrays->gradient + from;
    d.m = s->has_mean ? arrays->mean + from : NULL;
    d.v = s->has_square ? arrays->square + from : NULL;
    d.n = qkv_min(end * CHUNK, s->count) - from;
    if (d.n > 0)
        s->kernel(&d);
}

struct job {
    const struct descent_state *state;
    const qkv_descent_arrays *arrays;
};

static void run_job(const void *job, const qkv_workspace *workspace, int32_t phase, int64_t begin,
                    int64_t end) {
    const struct job *j = job;
    (void)workspace;
    (void)phase;
    do_parts(j->state, j->arrays, begin, end);
}

qkv_status qkv_descent_run(const qkv_plan *plan, const qkv_descent_arrays *arrays, int32_t phase,
                           int64_t begin, int64_t end, const qkv_workspace *workspace) {
    qkv_descent_arrays own;
    TRY(qkv_check_plan(plan));
    const struct descent_state *s = (const struct descent_state *)plan->state;
    if (s->magic != MAGIC)
        return qkv_fail(QKV_ARG_PLAN, QKV_FAULT_STALE);
    TRY(take_arrays(&own, s, arrays));
    TRY(qkv_check_run(plan, phase, begin, end, workspace));
    do_parts(s, &own, begin, end);
    return QKV_OK;
}

qkv_status qkv_descent(const qkv_descent_params *params, const qkv_descent_arrays *arrays,
                       const qkv_exec *exec) {
    qkv_plan plan;
    qkv_exec own;
    qkv_descent_arrays own_arrays;
    TRY(qkv_take_exec(&own, exec));
    TRY(qkv_descent_plan(&plan, params, own.context));
    const struct job job = {(const struct descent_state *)plan.state, &own_arrays};
    TRY(take_arrays(&own_arrays, job.state, arrays));
    TRY(qkv_check_exec(&plan, &own));
    return qkv_run_all(&plan, &own, 1, plan.phases, run_job, &job);
}

/* ---- Clipping ---- */

qkv_status qkv_sum_squares(double *sum, const float *x, int64_t count, const qkv_context *context) {
    struct qkv_footprint f, out;
    if (!sum)
        return qkv_fail(QKV_ARG_SUM, QKV_FAULT_NULL);
    if ((uintptr_t)sum % _Alignof(double))
        return qkv_fail(QKV_ARG_SUM, QKV_FAULT_MISALIGNED);
    TRY(check_count(count));
    TRY(check_array(&f, x, count, QKV_ARG_X));
    TRY(qkv_check_context(context));
    out = qkv_footprint_array(sum, 1, sizeof(*sum));
    if (qkv_overlap(&out, &f))
        return qkv_fail(QKV_ARG_SUM, QKV_FAULT_OVERLAP);
    *sum += qkv_context_get(context)->table.descent->sum_squares(x, count);
    return QKV_OK;
}

/* Rounded down, so that the clipped norm is not above max_norm. */
float qkv_clip_scale(double sum, float max_norm) {
    if (!(sum >= 0.0 && sum <= DBL_MAX && max_norm >= 0.0f))
        return NAN;
    const double norm = sqrt(sum);
    if (norm <= (double)max_norm)
        return 1.0f;
    const float scale = (float)((double)max_norm / norm);
    return (double)scale * norm > (double)max_norm ? nextafterf(scale, 0.0f) : scale;
}
