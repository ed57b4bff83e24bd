/* SPDX-License-Identifier: Apache-2.0 */
/* The losses in double precision (loss.h). */
#include "loss.h"

#include <math.h>

#include "bound.h"

static const double exp_error[] = REF_EXP_ERRORS;

static double element(const qkv_tensor *t, int64_t row, int64_t column) {
    return (double)((const float *)t->data)[row * t->stride[2] + column];
}

/* A row of logits: its maximum, sum of exponentials and that sum's relative error. */
struct logits {
    double max, sum, relative;
};

/* 1 and 0 are exact. */
static double exp_relative(double x, double max) {
    if (x == max || x == -INFINITY)
        return 0.0;
    return 3.0 * REF_U * fabs(x - max) + exp_error[QKV_EXP_SLEEF_U10];
}

static struct logits logits_of(const qkv_loss_params *p, const qkv_tensor *t, int64_t row) {
    struct logits l = {.max = -INFINITY};
    for (int64_t c = 0; c < p->columns; c++)
        if (element(t, row, c) > l.max)
            l.max = element(t, row, c);
    for (int64_t c = 0; c < p->columns; c++) {
        const double x = element(t, row, c), e = exp(x - l.max);
        l.sum += e;
        l.relative += e * exp_relative(x, l.max) + REF_DENORMAL;
    }
    l.relative = l.relative / l.sum;
    return l;
}

static int64_t counted_rows(const qkv_loss_params *p, const int32_t *labels) {
    int64_t counted = 0;
    for (int64_t row = 0; row < p->rows; row++)
        counted += labels[row] >= 0;
    return counted;
}

static struct ref_value squared_loss(const qkv_loss_params *p, const qkv_loss_tensors *t) {
    struct ref_value loss = {0.0, 0.0};
    for (int64_t row = 0; row < p->rows; row++)
        for (int64_t c = 0; c < p->columns; c++) {
            const double d = element(&t->prediction, row, c) - element(&t->target, row, c);
            loss.value += d * d;
        }
    if (p->rows > 0)
        loss.value /= (double)p->rows * (double)p->columns;
    loss.bound = 3.0 * REF_U * loss.value * REF_SLACK + REF_DENORMAL;
    return loss;
}

static struct ref_value entropy_loss(const qkv_loss_params *p, const qkv_loss_tensors *t) {
    const double counted = (double)counted_rows(p, t->labels);
    struct ref_value loss = {0.0, 0.0};
    for (int64_t row = 0; row < p->rows; row++) {
        if (t->labels[row] < 0)
            continue;
        const struct logits l = logits_of(p, &t->prediction, row);
        /* log of 1 and the others: they may be far smaller than 1 */
        double others = -1.0;
        for (int64_t c = 0; c < p->columns; c++)
            others += exp(element(&t->prediction, row, c) - l.max);
        const double log_sum = log1p(others);
        const double logit = element(&t->prediction, row, t->labels[row]);
        loss.value += l.max - logit + log_sum;
        loss.bound += l.relative + 4.0 * REF_U * fabs(log_sum) +
                      0x1p-50 * ((double)p->columns + fabs(l.max) + fabs(logit));
    }
    if (counted > 0.0) {
        loss.value /= counted;
        loss.bound /= counted;
    }
    loss.bound = (loss.bound + REF_U * fabs(loss.value)) * REF_SLACK + REF_DENORMAL;
    if (isinf(loss.value)) /* a label's logit of -inf: exactly that */
        loss.bound = 0.0;
    return loss;
}

struct ref_value ref_loss(const qkv_loss_params *params, const qkv_loss_tensors *tensors) {
    return params->kind == QKV_LOSS_SQUARED ? squared_loss(params, tensors)
                                            : entropy_loss(params, tensors);
}

static void squared_gradient(const qkv_loss_params *p, const qkv_loss_tensors *t, int64_t row,
                             struct ref_value *gradient) {
    for (int64_t c = 0; c < p->columns; c++) {
        const double d = element(&t->prediction, row, c) - element(&t->target, row, c);
        gradient[c].value = 2.0 * d / ((double)p->rows * (double)p->columns);
        gradient[c].bound = 3.0 * REF_U * fabs(gradient[c].value) * REF_SLACK + REF_DENORMAL;
    }
}

static void entropy_gradient(const qkv_loss_params *p, const qkv_loss_tensors *t, int64_t row,
                             struct ref_value *gradient) {
    const double counted = (double)counted_rows(p, t->labels);
    const int32_t label = t->labels[row];
    const struct logits l = logits_of(p, &t->prediction, row);
    double others = 0.0, others_error = 0.0;
    for (int64_t c = 0; c < p->columns; c++) {
        const double x = element(&t->prediction, row, c);
        const double share = exp(x - l.max) / l.sum, relative = exp_relative(x, l.max);
        gradient[c].value = share / counted;
        gradient[c].bound =
            (share * (relative + l.relative + 3.0 * REF_U) * REF_SLACK + 2.0 * REF_DENORMAL) /
                counted +
            2.0 * REF_DENORMAL;
        others += c == label ? 0.0 : share;
        others_error += c == label ? 0.0 : share * relative;
    }
    gradient[label].value = -others / counted;
    gradient[label].bound =
        (others_error + others * (l.relative + REF_U) + 0x1p-50 * (double)p->columns) * REF_SLACK /
            counted +
        REF_DENORMAL;
}

void ref_loss_gradient(const qkv_loss_params *params, const qkv_loss_tensors *tensors, int64_t row,
                       struct ref_value *gradient) {
    if (params->kind == QKV_LOSS_SQUARED)
        squared_gradient(params, tensors, row, gradient);
    else if (tensors->labels[row] >= 0)
        entropy_gradient(params, tensors, row, gradient);
    else
        for (int64_t c = 0; c < params->columns; c++)
            gradient[c] = (struct ref_value){0.0, 0.0};
}
