/* SPDX-License-Identifier: Apache-2.0 */
/* The error bounds that bound.h derives. */
#include "bound.h"

#include <math.h>

#include "kernels.h"

struct ref_value ref_dot(const float *x, const float *y, int64_t y_step, int64_t n) {
    double sum = 0, error = 0;
    for (int64_t p = 0; p < n; p++) {
        double product = (double)x[p] * (double)y[p * y_step];
        sum += product;
        error += (double)(n - p + 1) * fabs(product);
    }
    struct ref_value dot = {.value = sum,
                            .bound = REF_SLACK * REF_U * error + (double)n * REF_DENORMAL};
    return dot;
}

/* A stretch of n products, and its way through the sums that follow. */
static void add_stretch(struct ref_value *dot, const float *x, const float *y, int64_t y_step,
                        int64_t n, double joins) {
    struct ref_value part = ref_dot(x, y, y_step, n);
    double size = 0;
    for (int64_t i = 0; i < n; i++)
        size += fabs((double)x[i] * (double)y[i * y_step]);
    dot->value += part.value;
    dot->bound += part.bound + REF_SLACK * REF_U * joins * size;
}

struct ref_value ref_stretches(const float *x, const float *y, int64_t y_step, int64_t n) {
    struct ref_value dot = {0};
    const int64_t count = (n + QKV_STRETCH - 1) / QKV_STRETCH;
    for (int64_t i = 0; i < count; i++) {
        int64_t p = i * QKV_STRETCH, length = n - p < QKV_STRETCH ? n - p : QKV_STRETCH;
        double joins = (double)(count - (i > 0 ? i : 1));
        add_stretch(&dot, x + p, y + p * y_step, y_step, length, joins);
    }
    return dot;
}

double ref_rescales(int64_t kv_len) {
    return ceil((double)kv_len / QKV_KEY_BLOCK) + ceil((double)kv_len / QKV_PIECE) + 1;
}

struct ref_weight ref_weigh(const struct ref_value *score, const struct ref_row *row,
                            double magnitude) {
    double times = 1 + row->rescales;
    double roundings = 3 * fabs(score->value - row->max) + 2 * magnitude * times + row->rescales;
    double common = REF_U * roundings + row->exp * times;
    return (struct ref_weight){
        .e = exp(score->value - row->max),
        .relative = expm1(REF_SLACK * (score->bound + common)),
    };
}

struct ref_value ref_lse(const struct ref_row *row) {
    double of_sum = log(row->sum);
    double value = row->max + of_sum;
    double roundings = 2 * fabs(of_sum) + fabs(value) + 3 * fabs(row->max);
    return (struct ref_value){
        .value = value,
        .bound = REF_SLACK * (row->relative + REF_U * roundings),
    };
}
