/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient descent in double precision (descent.h). */
#include "descent.h"

#include <math.h>

#include "bound.h"

static struct ref_value exactly(double x) {
    return (struct ref_value){x, 0.0};
}

/* x + y, rounded. */
static struct ref_value plus(struct ref_value x, struct ref_value y) {
    const double sum = x.value + y.value;
    return (struct ref_value){sum, x.bound + y.bound + REF_U * fabs(sum) + REF_DENORMAL};
}

/* factor * x, of which the factor has gone through `roundings`, and the product through one. */
static struct ref_value times(double factor, int roundings, struct ref_value x) {
    const double product = factor * x.value;
    return (struct ref_value){product, fabs(factor) * x.bound +
                                           (roundings + 1) * REF_U * fabs(product) + REF_DENORMAL};
}

/* x^2 where only x's own error counts. */
static struct ref_value squared(struct ref_value x) {
    return (struct ref_value){x.value * x.value, (2.0 * fabs(x.value) + x.bound) * x.bound};
}

static struct ref_value root_of(struct ref_value x) {
    const double root = sqrt(x.value);
    const double low = sqrt(fmax(x.value - x.bound, 0.0)), high = sqrt(x.value + x.bound);
    return (struct ref_value){root, fmax(root - low, high - root) + REF_U * high};
}

/* x / y for positive y, whatever the errors. */
static struct ref_value over(struct ref_value x, struct ref_value y, double least) {
    const double low = fmax(y.value - y.bound, least);
    const double worst = (fabs(x.value) + x.bound) / low;
    const double ratio = x.value / y.value;
    const double error = x.bound / low + fabs(x.value) * (1.0 / low - 1.0 / y.value);
    return (struct ref_value){ratio, error + REF_U * worst + REF_DENORMAL};
}

static void step_down(struct ref_descent *d, double rate, int roundings,
                      struct ref_value direction) {
    d->w = plus(d->w, times(-rate, roundings, direction));
    d->w.bound *= 1.0 + 0x1p-40; /* the double precision's own */
}

static void descend_sgd(struct ref_descent *d, const qkv_descent_params *p, struct ref_value g) {
    if (p->weight_decay > 0.0f)
        g = plus(g, times((double)p->weight_decay, 0, d->w));
    if (p->momentum > 0.0f) {
        const struct ref_value before = p->step == 1 ? exactly(0.0) : d->m;
        g = d->m = plus(times((double)p->momentum, 0, before), g);
    }
    step_down(d, (double)p->rate, 0, g);
}

static void descend_adamw(struct ref_descent *d, const qkv_descent_params *p, struct ref_value g) {
    const double beta1 = (double)p->beta1, beta2 = (double)p->beta2;
    const double correction1 = 1.0 - pow(beta1, (double)p->step);
    const double correction2 = 1.0 - pow(beta2, (double)p->step);
    const struct ref_value m = p->step == 1 ? exactly(0.0) : d->m;
    const struct ref_value v = p->step == 1 ? exactly(0.0) : d->v;
    d->m = plus(times(beta1, 0, m), times(1.0 - beta1, 1, g));
    d->v = plus(times(beta2, 0, v), times(1.0 - beta2, 2, squared(g)));
    const struct ref_value root = times(1.0 / sqrt(correction2), 1, root_of(d->v));
    struct ref_value direction =
        over(d->m, plus(root, exactly((double)p->epsilon)), (double)p->epsilon / 2);
    if (p->weight_decay > 0.0f)
        direction = plus(direction, times((double)p->weight_decay * correction1, 1, d->w));
    step_down(d, (double)p->rate / correction1, 1, direction);
}

void ref_descend(struct ref_descent *d, const qkv_descent_params *params, float gradient) {
    struct ref_value g = exactly((double)gradient);
    if (params->gradient_scale != 1.0f)
        g = times((double)params->gradient_scale, 0, g);
    if (params->rule == QKV_DESCENT_SGD)
        descend_sgd(d, params, g);
    else
        descend_adamw(d, params, g);
}
