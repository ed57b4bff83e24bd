/* SPDX-License-Identifier: Apache-2.0 */
/* The reference of softmax, mix and attention. A key counts as masked when the masks say so or when
 * its score is -inf; a masked key is never read into any sum. */
#include <math.h>
#include <stdlib.h>

#include "bound.h"
#include "narrow.h"
#include "rows.h"

/* ---- softmax ---- */

const double ref_exp_errors[QKV_EXP_COUNT] = REF_EXP_ERRORS;

static double sink_of(const qkv_attention_params *params, int64_t b, int64_t h, int64_t i) {
    bool has_sink = params->sinks && i < ref_queries(params, b);
    return has_sink ? (double)params->sinks[h] : -INFINITY;
}

static bool poisons(double score) {
    return isnan(score) || score == INFINITY;
}

/* True if the row is NaN: a score is, or is +inf, or it has a key and its sink is. */
static bool poisoned(const struct ref_value *scores, int64_t n, double sink) {
    bool keys = false;
    for (int64_t j = 0; j < n; j++) {
        if (poisons(scores[j].value))
            return true;
        keys |= scores[j].value != -INFINITY;
    }
    return keys && poisons(sink);
}

/* True if there is no saying what a score is. */
static bool any_score(const qkv_attention_params *params, const struct ref_value *scores) {
    for (int64_t j = 0; j < params->kv_len; j++)
        if (ref_may_be_anything(params, &scores[j]))
            return true;
    return false;
}

/* max, kept and the largest magnitude of the scores that are not -inf. */
static double measure(struct ref_row *row, const struct ref_value *scores, int64_t n, double sink) {
    double magnitude = 0;
    row->max = sink;
    if (sink > -INFINITY)
        magnitude = fabs(sink);
    for (int64_t j = 0; j < n; j++) {
        if (scores[j].value == -INFINITY)
            continue;
        row->kept++;
        row->max = fmax(row->max, scores[j].value);
        magnitude = fmax(magnitude, fabs(scores[j].value));
    }
    return magnitude;
}

static void add_weight(struct ref_row *row, const struct ref_weight *w) {
    row->sum += w->e;
    row->relative += w->e * w->relative;
}

/* Scores to exp(s - max) and L. A row without any mass keeps sum = 0. */
static void weigh_row(struct ref_row *row, struct ref_weight *weights,
                      const struct ref_value *scores, int64_t n, double sink) {
    double magnitude = measure(row, scores, n, sink);
    if (row->alone)
        magnitude = 0;
    for (int64_t j = 0; j < n; j++) {
        weights[j] = (struct ref_weight){0};
        if (scores[j].value == -INFINITY)
            continue;
        weights[j] = ref_weigh(&scores[j], row, magnitude);
        add_weight(row, &weights[j]);
    }
    if (sink > -INFINITY) {
        struct ref_value s = {.value = sink};
        struct ref_weight w = ref_weigh(&s, row, magnitude);
        add_weight(row, &w);
    }
    if (row->sum > 0) {
        double additions = REF_U * (row->kept + row->rescales + 4);
        row->relative = row->relative / row->sum + additions;
    }
}

static struct ref_value weight_value(const struct ref_weight *w, const struct ref_row *row) {
    if (w->e == 0 && w->relative == 0)
        return (struct ref_value){0};
    double value = w->e / row->sum;
    double floor = REF_FLOOR * (1 + row->rescales);
    return (struct ref_value){
        .value = value,
        .bound = REF_SLACK * value * (w->relative + row->relative + 3 * REF_U) + floor,
    };
}

static void fill(struct ref_value *values, int64_t n, struct ref_value value) {
    for (int64_t i = 0; i < n; i++)
        values[i] = value;
}

static const struct ref_value a_nan = {.value = NAN};
static const struct ref_value anything = {.value = NAN, .bound = INFINITY};

/* Weights and LSE of a row of scores; keys[j] as in weigh_row. Returns false for a row that is
 * NaN or without a key. Of a NaN row, the LSE may be the +inf that made it so, and a masked key's
 * weight 0 or NaN. */
static bool soft_row(struct ref_row *row, struct ref_weight *keys, const struct ref_value *scores,
                     int64_t n, double sink, struct ref_value *weights, struct ref_value *lse) {
    if (poisoned(scores, n, sink)) {
        for (int64_t j = 0; j < n; j++)
            weights[j] = scores[j].value == -INFINITY ? anything : a_nan;
        *lse = anything;
        return false;
    }
    weigh_row(row, keys, scores, n, sink);
    if (row->kept == 0) {
        fill(weights, n, (struct ref_value){0});
        *lse = (struct ref_value){.value = sink};
        return false;
    }
    for (int64_t j = 0; j < n; j++)
        weights[j] = weight_value(&keys[j], row);
    *lse = ref_lse(row);
    return true;
}

void ref_softmax(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b,
                 int64_t h, int64_t i, struct ref_value *weights, struct ref_value *lse) {
    int64_t n = params->kv_len;
    struct ref_weight *keys = ref_allocate(n, sizeof *keys);
    struct ref_value *scores = ref_allocate(n, sizeof *scores);
    const float *given = ref_row_of(&tensors->scores, ref_query_place(params, b, i), h);
    for (int64_t j = 0; j < n; j++)
        scores[j].value = ref_keeps(params, b, h, i, j) ? (double)given[j] : -INFINITY;
    struct ref_row row = {.alone = true, .exp = ref_exp_errors[QKV_EXP_SLEEF_U10]};
    soft_row(&row, keys, scores, n, sink_of(params, b, h, i), weights, lse);
    free(keys);
    free(scores);
}

/* ---- mix ---- */

/* A sum of products over the kept keys on its way. */
struct mixing {
    double sum, bound, largest;
    bool ambiguous; /* an infinite or NaN value met a weight that may have been flushed to 0 */
};

static struct ref_value mixed(const struct mixing *m) {
    if (m->ambiguous)
        return anything;
    if (!isfinite(m->sum))
        return (struct ref_value){.value = m->sum};
    return (struct ref_value){.value = m->sum, .bound = m->bound};
}

static void mix_product(struct mixing *m, double a, double v, double roundings) {
    m->sum += a * v;
    m->bound += REF_SLACK * REF_U * roundings * fabs(a * v) + REF_DENORMAL;
}

void ref_mix(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b, int64_t h,
             int64_t i, struct ref_value *out) {
    int64_t n = params->kv_len, v_dim = ref_v_dim(params);
    struct mixing *m = ref_allocate(v_dim, sizeof *m);
    const float *a = ref_row_of(&tensors->weights, ref_query_place(params, b, i), h);
    double roundings = ref_rescales(n) + 2; /* going backwards, the last key has the fewest */
    for (int64_t j = n - 1; j >= 0; j--) {
        if (!ref_keeps(params, b, h, i, j) || a[j] == 0)
            continue;
        const float *v =
            ref_row_of(&tensors->v, ref_key_place(params, b, j), ref_kv_head(params, h));
        for (int64_t c = 0; c < v_dim; c++)
            mix_product(&m[c], (double)a[j], (double)v[c], roundings);
        roundings++;
    }
    for (int64_t c = 0; c < v_dim; c++)
        out[c] = mixed(&m[c]);
    free(m);
}

/* ---- attention ---- */

/* Below this a weight may underflow in float32 on the way. */
#define TINY_WEIGHT 0x1p-100

/* Below this, narrow arithmetic may make it zero. */
#define TINY_NARROW_WEIGHT 0x1p-15

/* narrow: what the product may be off by in narrow arithmetic, or zeros. */
static void mix_key(struct mixing *m, const struct ref_weight *key, const struct ref_row *row,
                    double v, double roundings, const struct ref_narrow_error *narrow) {
    double w = key->e / row->sum;
    m->ambiguous |= !isfinite(v) && w < (row->narrow ? TINY_NARROW_WEIGHT : TINY_WEIGHT);
    m->sum += isfinite(v) || w > 0 ? w * v : 0;
    if (fabs(v) > m->largest)
        m->largest = fabs(v);
    double floor = REF_FLOOR * (1 + row->rescales) * fabs(v) + REF_DENORMAL;
    m->bound += REF_SLACK * w * fabs(v) * (key->relative + REF_U * roundings) + floor;
    m->bound += (narrow->of_weight * fabs(v) + narrow->alone) / row->sum * (1 + row->relative);
}

static void finish_mixing(struct mixing *m, const struct ref_row *row) {
    m->bound += REF_SLACK * fabs(m->sum) * (row->relative + 3 * REF_U);
    double most = 2 * REF_SLACK * m->largest;
    m->bound = fmin(m->bound, row->narrow ? 2 * most : most);
}

static const float *value_row(const qkv_attention_params *params, const qkv_tensors *tensors,
                              int64_t b, int64_t h, int64_t j) {
    return ref_row_of(&tensors->v, ref_key_place(params, b, j), ref_kv_head(params, h));
}

/* errors[j] of weight j in narrow arithmetic; zeros in float32's. */
static struct ref_narrow_error *narrow_errors(const qkv_attention_params *params,
                                              const qkv_tensors *tensors, int64_t b, int64_t h,
                                              const struct ref_weight *keys,
                                              const struct ref_row *row) {
    int64_t n = ref_keys(params, b);
    struct ref_narrow_error *errors = ref_allocate(params->kv_len, sizeof *errors);
    const float **v = ref_allocate(n, sizeof *v);
    const struct ref_narrow_values values = {v, n, ref_v_dim(params), tensors->v.dtype};
    for (int64_t j = 0; j < n; j++)
        v[j] = value_row(params, tensors, b, h, j);
    if (row->narrow)
        ref_narrow_weights(errors, keys, &values);
    free(v);
    return errors;
}

static void mix_row(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b,
                    int64_t h, const struct ref_weight *keys, const struct ref_value *scores,
                    const struct ref_row *row, struct ref_value *out) {
    int64_t v_dim = ref_v_dim(params);
    struct mixing *m = ref_allocate(v_dim, sizeof *m);
    double apart = tensors->v.dtype == QKV_I8 ? 2 : 0; /* as for scores (scores.c) */
    double roundings = row->kept + row->rescales + 1 + apart;
    struct ref_narrow_error *narrow = narrow_errors(params, tensors, b, h, keys, row);
    for (int64_t j = 0; j < params->kv_len; j++) {
        if (scores[j].value == -INFINITY)
            continue;
        const float *v = value_row(params, tensors, b, h, j);
        for (int64_t c = 0; c < v_dim; c++)
            mix_key(&m[c], &keys[j], row, (double)v[c], roundings, &narrow[j]);
        roundings--;
    }
    free(narrow);
    for (int64_t c = 0; c < v_dim; c++) {
        finish_mixing(&m[c], row);
        out[c] = mixed(&m[c]);
    }
    free(m);
}

void ref_attention(const qkv_attention_params *params, const qkv_tensors *tensors, int64_t b,
                   int64_t h, int64_t i, struct ref_value *weights, struct ref_value *out,
                   struct ref_value *lse) {
    int64_t n = params->kv_len;
    struct ref_weight *keys = ref_allocate(n, sizeof *keys);
    struct ref_value *scores = ref_allocate(n, sizeof *scores);
    ref_scores(params, tensors, b, h, i, scores);
    struct ref_row row = {.rescales = ref_rescales(n),
                          .exp = ref_exp_errors[params->exp],
                          .narrow = params->arithmetic == QKV_ARITHMETIC_NARROW};
    double sink = sink_of(params, b, h, i);
    bool has_mass = soft_row(&row, keys, scores, n, sink, weights, lse);
    if (any_score(params, scores))
        fill(out, ref_v_dim(params), *lse = anything);
    else if (has_mass)
        mix_row(params, tensors, b, h, keys, scores, &row, out);
    else
        fill(out, ref_v_dim(params), poisoned(scores, n, sink) ? a_nan : (struct ref_value){0});
    free(keys);
    free(scores);
}
