/* SPDX-License-Identifier: Apache-2.0 */
/* The bounds of narrow arithmetic that narrow.h derives. */
#include "narrow.h"

#include <math.h>

#include "kernels.h"

enum { GROUP = 8, STEPS = 127 };

/* The larger; most if x is NaN. gcc 12 breaks off at a loop of fmax for AArch64. */
static double larger(double most, double x) {
    return x > most ? x : most;
}

static double largest(const float *x, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = larger(most, fabs((double)x[i]));
    return most;
}

static bool all_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Of a product x y of n, where x is one of a row whose largest is m. */
static struct ref_narrow_error error_of(int32_t dtype, double x, double m, double n) {
    switch (dtype) {
    case QKV_BF16:
        return (struct ref_narrow_error){(0x1p-8 + (n + 4) * 0x1p-23) * x + REF_FLOOR,
                                         4 * REF_FLOOR};
    case QKV_F16:
        return (struct ref_narrow_error){
            ((1 + GROUP) * 0x1p-11 + (n / GROUP + 4) * REF_U) * x + 0x1p-21 * m, 0x1p-21 * m};
    case QKV_I8:
        return (struct ref_narrow_error){m / (2 * STEPS) + 4 * REF_U * x, 0};
    default:
        return (struct ref_narrow_error){0, 0};
    }
}

void ref_narrow_dot(struct ref_value *dot, int32_t dtype, const float *q, const float *k,
                    int64_t n) {
    const double m = largest(q, n);
    if (dtype == QKV_F32)
        return;
    if (!all_finite(k, n) && dtype != QKV_I8)
        *dot = (struct ref_value){NAN, INFINITY};
    else if (!all_finite(q, n) && dtype != QKV_BF16)
        dot->value = NAN;
    else
        for (int64_t p = 0; p < n; p++) {
            const struct ref_narrow_error e = error_of(dtype, fabs((double)q[p]), m, (double)n);
            dot->bound += REF_SLACK * (e.of_weight * fabs((double)k[p]) + e.alone);
        }
}

bool ref_may_be_anything(const qkv_attention_params *params, const struct ref_value *score) {
    return params->arithmetic == QKV_ARITHMETIC_NARROW && isnan(score->value) &&
           isinf(score->bound);
}

/* The scale that a row of int8 values has, as 127 of its numbers are the largest; else 1. */
static double scale_of(const struct ref_narrow_values *values, int64_t j) {
    return values->dtype == QKV_I8 ? largest(values->v[j], values->v_dim) / STEPS : 1;
}

/* As large as a weight can come out. */
static double most_of(const struct ref_weight *weight) {
    return weight->e * (1 + weight->relative);
}

/* Weights are multiplied by the scales on their way, and so are their errors. */
static struct ref_narrow_error weight_error(const struct ref_weight *weight, double scale, double m,
                                            int32_t dtype) {
    const double x = most_of(weight);
    if (x == 0 || scale == 0)
        return (struct ref_narrow_error){0, 0};
    const struct ref_narrow_error e = error_of(dtype, x * scale, m, QKV_KEY_BLOCK);
    return (struct ref_narrow_error){REF_SLACK * e.of_weight / scale, REF_SLACK * e.alone};
}

static void weigh_block(struct ref_narrow_error *errors, const struct ref_weight *weights,
                        const struct ref_narrow_values *values, int64_t first, int64_t end) {
    double m = 0;
    for (int64_t j = first; j < end; j++)
        m = larger(m, most_of(&weights[j]) * scale_of(values, j));
    for (int64_t j = first; j < end; j++)
        errors[j] = weight_error(&weights[j], scale_of(values, j), m, values->dtype);
}

void ref_narrow_weights(struct ref_narrow_error *errors, const struct ref_weight *weights,
                        const struct ref_narrow_values *values) {
    for (int64_t first = 0; first < values->n; first += QKV_KEY_BLOCK) {
        const int64_t end = first + QKV_KEY_BLOCK < values->n ? first + QKV_KEY_BLOCK : values->n;
        weigh_block(errors, weights, values, first, end);
    }
}
