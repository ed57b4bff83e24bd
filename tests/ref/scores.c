/* SPDX-License-Identifier: Apache-2.0 */
/* The reference of scores: dot products, scale, soft-cap, ALiBi, bias, and where an input's rows
 * stand. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "bound.h"
#include "narrow.h"
#include "rows.h"

const float *ref_row_of(const qkv_tensor *x, struct ref_place place, int64_t h) {
    return (const float *)x->data + place.b * x->stride[0] + h * x->stride[1] +
           place.t * x->stride[2];
}

int64_t ref_kv_head(const qkv_attention_params *params, int64_t h) {
    return h / (params->q_heads / params->kv_heads);
}

static void round_score(struct ref_value *s, double roundings) {
    s->bound += REF_SLACK * REF_U * roundings * fabs(s->value);
}

double ref_scale(const qkv_attention_params *params) {
    return params->flags & QKV_FLAG_SCALE ? (double)params->scale
                                          : 1 / sqrt((double)params->head_dim);
}

static void apply_scale(struct ref_value *s, const qkv_attention_params *params) {
    double scale = ref_scale(params);
    s->value *= scale;
    s->bound *= fabs(scale);
    round_score(s, REF_SCALE_ROUNDINGS);
}

static void apply_softcap(struct ref_value *s, double cap) {
    double x = s->value / cap;
    double y = tanh(x);
    double x_error = s->bound / cap + 2 * REF_U * fabs(x);
    double nearest = fmax(0, fabs(x) - x_error); /* where tanh is steepest */
    double slope = 1 / (cosh(nearest) * cosh(nearest));
    double own = REF_SLACK * 2 * REF_U * REF_TANH_ULPS * fabs(y);
    s->value = cap * y;
    s->bound = isinf(x) ? 0 : cap * x_error * slope;
    s->bound += cap * own;
    round_score(s, 1);
}

static void apply_alibi(struct ref_value *s, const qkv_attention_params *params, int64_t b,
                        int64_t h, int64_t i, int64_t j) {
    int64_t shift =
        params->align == QKV_ALIGN_TOP_LEFT ? 0 : ref_keys(params, b) - ref_queries(params, b);
    double penalty = (double)params->alibi_slopes[h] * (double)llabs(i + shift - j);
    s->bound += REF_U * fabs(penalty);
    s->value -= penalty;
    round_score(s, 1);
}

static void apply_bias(struct ref_value *s, const qkv_attention_params *params, int64_t b,
                       int64_t h, int64_t i, int64_t j) {
    const float *row = ref_row_of(&params->bias, (struct ref_place){b, i}, h);
    s->value += (double)row[j * params->bias.stride[3]];
    round_score(s, 1);
}

/* What float32 cannot hold is infinite. */
static void overflow(struct ref_value *s) {
    if (fabs(s->value) > (double)FLT_MAX)
        s->value = s->value > 0 ? INFINITY : -INFINITY;
    if (!isfinite(s->value))
        s->bound = 0;
}

/* An integer times its scale was rounded for the reference, and the kernel rounds the product with
 * the scale. */
static void scale_apart(struct ref_value *s, const float *q, const float *k, int64_t n) {
    double size = fabs(s->value);
    for (int64_t p = 0; p < n; p++)
        size += fabs((double)q[p] * (double)k[p]);
    s->bound += REF_SLACK * REF_U * size;
}

struct ref_value ref_scaled(const qkv_attention_params *params, const qkv_tensors *tensors,
                            int64_t b, int64_t h, int64_t i, int64_t j) {
    const float *q = ref_row_of(&tensors->q, ref_query_place(params, b, i), h);
    const float *k = ref_row_of(&tensors->k, ref_key_place(params, b, j), ref_kv_head(params, h));
    struct ref_value s = ref_dot(q, k, 1, params->head_dim);
    if (tensors->k.dtype == QKV_I8)
        scale_apart(&s, q, k, params->head_dim);
    if (params->arithmetic == QKV_ARITHMETIC_NARROW)
        ref_narrow_dot(&s, tensors->k.dtype, q, k, params->head_dim);
    if (ref_may_be_anything(params, &s))
        return s;
    overflow(&s);
    apply_scale(&s, params);
    overflow(&s);
    return s;
}

struct ref_value ref_score(const qkv_attention_params *params, const qkv_tensors *tensors,
                           int64_t b, int64_t h, int64_t i, int64_t j) {
    if (!ref_keeps(params, b, h, i, j))
        return (struct ref_value){.value = -INFINITY};
    struct ref_value s = ref_scaled(params, tensors, b, h, i, j);
    if (ref_may_be_anything(params, &s))
        return s;
    if (params->softcap > 0)
        apply_softcap(&s, (double)params->softcap);
    if (params->alibi_slopes)
        apply_alibi(&s, params, b, h, i, j);
    if (params->bias.data)
        apply_bias(&s, params, b, h, i, j);
    overflow(&s);
    return s;
}

void ref_scores(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b,
                int64_t h, int64_t i, struct ref_value *scores) {
    for (int64_t j = 0; j < params->kv_len; j++)
        scores[j] = ref_score(params, tensors, b, h, i, j);
}

void *ref_allocate(int64_t n, size_t size) {
    void *memory = calloc((size_t)n + 1, size);
    if (!memory)
        abort();
    return memory;
}
