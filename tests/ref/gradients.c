/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of scores, softmax, mix and attention, pair by pair of query and key. A masked pair
 * is left out of every sum; so nothing that stands in its rows can matter. */
#include "gradients.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "bound.h"
#include "kernels.h"
#include "rows.h"

/* Everything that the pairs of a call share. */
struct backward {
    const qkv_attention_params *params;
    const qkv_tensors *tensors;
    const qkv_gradients *given;
    struct ref_gradients made;
    double row_roundings, key_roundings; /* of a term of dK or dV, and of dQ */
    double exp;                          /* E */
};

/* A query row on its way: its place, its D, and what float32 makes of the query's weights. */
struct query {
    int64_t b, h, i;
    struct ref_value d;
    double lse;
};

/* ---- Sums with bounds ---- */

/* Below this a number may be zero in float32, and zero times infinity is something else. */
#define TINY 0x1p-100

static const struct ref_value anything = {.value = NAN, .bound = INFINITY};

/* What float32 cannot hold, or not surely, is infinite. */
static void settle(struct ref_value *x) {
    if (isinf(x->bound))
        *x = anything;
    else if (fabs(x->value) > (double)FLT_MAX)
        x->value = copysign(INFINITY, x->value);
    if (!isfinite(x->value) && isfinite(x->bound))
        x->bound = 0;
}

static bool is_anything(const struct ref_value *x) {
    return isinf(x->bound);
}

/* x * y, where y has no error, after so many roundings. */
static struct ref_value times(const struct ref_value *x, double y, double roundings) {
    struct ref_value z = {.value = x->value * y};
    if (is_anything(x) || (!isfinite(y) && fabs(x->value) < TINY))
        return anything;
    if (isfinite(z.value))
        z.bound =
            REF_SLACK * (x->bound * fabs(y) + REF_U * roundings * fabs(z.value)) + REF_DENORMAL;
    return z;
}

static void add(struct ref_value *sum, struct ref_value term) {
    sum->value += term.value;
    sum->bound += term.bound;
}

/* A product of two rows, in any order of the sum. */
static struct ref_value dot_in_any_order(const float *x, const float *y, int64_t n) {
    struct ref_value sum = {0};
    for (int64_t c = 0; c < n; c++) {
        struct ref_value term = {.value = (double)x[c]};
        add(&sum, times(&term, (double)y[c], (double)(n + 4)));
    }
    settle(&sum);
    return sum;
}

static struct ref_value chain(const float *x, const float *y, int64_t n) {
    struct ref_value sum = ref_dot(x, y, 1, n);
    if (!isfinite(sum.value))
        sum.bound = 0;
    settle(&sum);
    return sum;
}

static struct ref_value difference(const struct ref_value *x, const struct ref_value *y) {
    struct ref_value z = {.value = x->value - y->value, .bound = x->bound + y->bound};
    if (isfinite(z.value))
        z.bound += REF_U * fabs(z.value);
    settle(&z);
    return z;
}

/* x * y, both with errors. */
static struct ref_value product(const struct ref_value *x, const struct ref_value *y) {
    if (is_anything(x) || is_anything(y))
        return anything;
    struct ref_value z = times(x, y->value, 2);
    if (isfinite(z.value) && isfinite(z.bound))
        z.bound += REF_SLACK * (fabs(x->value) + x->bound) * y->bound;
    settle(&z);
    return z;
}

/* ---- Where elements stand ---- */

static const float *query_row(const struct backward *w, const qkv_tensor *x,
                              const struct query *q) {
    return ref_row_of(x, ref_query_place(w->params, q->b, q->i), q->h);
}

static const float *key_row(const struct backward *w, const qkv_tensor *x, const struct query *q,
                            int64_t j) {
    return ref_row_of(x, ref_key_place(w->params, q->b, j), ref_kv_head(w->params, q->h));
}

static int64_t query_index(const struct backward *w, const struct query *q) {
    return (q->b * w->params->q_heads + q->h) * w->params->q_len + q->i;
}

static int64_t key_index(const struct backward *w, const struct query *q, int64_t j) {
    int64_t h = ref_kv_head(w->params, q->h);
    return (q->b * w->params->kv_heads + h) * w->params->kv_len + j;
}

static bool keeps(const struct backward *w, const struct query *q, int64_t j) {
    return ref_keeps(w->params, q->b, q->h, q->i, j);
}

/* ---- What a pair adds to the sums ---- */

/* dV_j += weight * dO_i */
static void add_to_v(struct backward *w, const struct query *q, int64_t j,
                     const struct ref_value *weight) {
    const int64_t n = ref_v_dim(w->params);
    const float *d_out = query_row(w, &w->given->out, q);
    struct ref_value *d_v = w->made.v + key_index(w, q, j) * n;
    for (int64_t c = 0; c < n; c++)
        add(&d_v[c], times(weight, (double)d_out[c], w->row_roundings));
}

/* dQ_i += dS K_j and dK_j += dS Q_i, before the scale */
static void add_to_q_and_k(struct backward *w, const struct query *q, int64_t j,
                           const struct ref_value *d_s) {
    const int64_t n = w->params->head_dim;
    const float *q_row = query_row(w, &w->tensors->q, q);
    const float *k_row = key_row(w, &w->tensors->k, q, j);
    struct ref_value *d_q = w->made.q + query_index(w, q) * n;
    struct ref_value *d_k = w->made.k + key_index(w, q, j) * n;
    for (int64_t c = 0; c < n; c++) {
        add(&d_q[c], times(d_s, (double)k_row[c], w->key_roundings));
        add(&d_k[c], times(d_s, (double)q_row[c], w->row_roundings));
    }
}

/* The factor 1 - tanh(s / softcap)^2 of the way from the scores' gradient to those of Q and K. */
static struct ref_value through_softcap(const struct backward *w, const struct query *q, int64_t j,
                                        const struct ref_value *d_s) {
    const double cap = (double)w->params->softcap;
    if (!(cap > 0))
        return *d_s;
    struct ref_value s = ref_scaled(w->params, w->tensors, q->b, q->h, q->i, j);
    double x = s.value / cap, t = tanh(x);
    double nearest = fmax(0, fabs(x) - s.bound / cap - 2 * REF_U * fabs(x));
    double slope = 1 / (cosh(nearest) * cosh(nearest));
    double t_error = (s.bound / cap + 2 * REF_U * fabs(x)) * slope;
    t_error = (isinf(x) ? 0 : t_error) + REF_U * (2 * REF_TANH_ULPS + 3) * fabs(t);
    struct ref_value factor = {
        .value = 1 / (cosh(x) * cosh(x)),
        .bound = REF_SLACK * ((2 * fabs(t) + t_error) * t_error + 3 * REF_U),
    };
    settle(&factor);
    return product(d_s, &factor);
}

static void add_pair(struct backward *w, const struct query *q, int64_t j,
                     const struct ref_value *d_s) {
    if (w->made.bias)
        w->made.bias[query_index(w, q) * w->params->kv_len + j] = *d_s;
    struct ref_value inner = through_softcap(w, q, j, d_s);
    add_to_q_and_k(w, q, j, &inner);
}

/* exp(x - lse); error: that of x. */
static struct ref_value weight_of(const struct backward *w, double x, double error, double lse) {
    if (lse == -INFINITY)
        return anything; /* not the LSE of this call */
    double roundings = 3 * fabs(lse) + 3 * fabs(x - lse);
    struct ref_value p = {.value = exp(x - lse)};
    if (isfinite(roundings))
        p.bound = p.value * expm1(REF_SLACK * (error + REF_U * roundings + w->exp)) + REF_FLOOR;
    settle(&p);
    return p;
}

/* dsink_h -= exp(sink - LSE_i) D_i. A row without keys has no part in it, since its output is zero;
 * but a kernel need not look whether its gradient is a number. */
static void add_to_sink(struct backward *w, const struct query *q, bool sees) {
    if (!w->made.sinks || (!sees && isfinite(q->d.value)))
        return;
    if (!sees) {
        w->made.sinks[q->h] = anything;
        return;
    }
    const double rows = (double)(w->params->batch * w->params->q_len);
    struct ref_value p = weight_of(w, (double)w->params->sinks[q->h], 0, q->lse);
    struct ref_value minus = product(&p, &q->d);
    minus.value = -minus.value;
    add(&w->made.sinks[q->h], times(&minus, 1, rows + 4));
}

/* ---- The stages, row by row ---- */

static void attention_row(struct backward *w, struct query *q) {
    const int64_t n = ref_v_dim(w->params);
    const float *d_out = query_row(w, &w->given->out, q);
    bool sees = false;
    q->d = dot_in_any_order(d_out, query_row(w, &w->tensors->out, q), n);
    q->lse = (double)*query_row(w, &w->tensors->lse, q);
    for (int64_t j = 0; j < w->params->kv_len; j++) {
        struct ref_value s = ref_score(w->params, w->tensors, q->b, q->h, q->i, j);
        if (s.value == -INFINITY)
            continue;
        sees = true;
        struct ref_value p = weight_of(w, s.value, s.bound, q->lse);
        struct ref_value d_p = chain(d_out, key_row(w, &w->tensors->v, q, j), n);
        struct ref_value rest = difference(&d_p, &q->d);
        struct ref_value d_s = product(&p, &rest);
        add_to_v(w, q, j, &p);
        add_pair(w, q, j, &d_s);
    }
    add_to_sink(w, q, sees);
}

static void mix_row(struct backward *w, struct query *q) {
    const float *weights = query_row(w, &w->tensors->weights, q);
    const float *d_out = query_row(w, &w->given->out, q);
    struct ref_value *d_weights = w->made.weights + query_index(w, q) * w->params->kv_len;
    for (int64_t j = 0; j < w->params->kv_len; j++) {
        if (!keeps(w, q, j))
            continue;
        struct ref_value weight = {.value = (double)weights[j]};
        d_weights[j] = chain(d_out, key_row(w, &w->tensors->v, q, j), ref_v_dim(w->params));
        add_to_v(w, q, j, &weight);
    }
}

/* sum_j A_ij dA_ij, in any order. */
static struct ref_value weighted_sum(const struct backward *w, const struct query *q,
                                     const float *weights, const float *d_weights) {
    struct ref_value sum = {0};
    for (int64_t j = 0; j < w->params->kv_len; j++) {
        struct ref_value weight = {.value = (double)weights[j]};
        if (keeps(w, q, j))
            add(&sum, times(&weight, (double)d_weights[j], (double)(w->params->kv_len + 4)));
    }
    settle(&sum);
    return sum;
}

static void softmax_row(struct backward *w, struct query *q) {
    const float *weights = query_row(w, &w->tensors->weights, q);
    const float *d_weights = query_row(w, &w->given->weights, q);
    struct ref_value *d_scores = w->made.scores + query_index(w, q) * w->params->kv_len;
    bool sees = false;
    q->d = weighted_sum(w, q, weights, d_weights);
    for (int64_t j = 0; j < w->params->kv_len; j++) {
        if (!keeps(w, q, j))
            continue;
        sees = true;
        struct ref_value d_a = {.value = (double)d_weights[j]};
        struct ref_value rest = difference(&d_a, &q->d);
        d_scores[j] = times(&rest, (double)weights[j], 2);
        if (weights[j] == 0 && !isfinite(rest.value))
            d_scores[j] = anything;
        settle(&d_scores[j]);
    }
    if (!w->tensors->lse.data)
        return;
    q->lse = (double)*query_row(w, &w->tensors->lse, q);
    add_to_sink(w, q, sees);
}

static void scores_row(struct backward *w, struct query *q) {
    const float *d_scores = query_row(w, &w->given->scores, q);
    for (int64_t j = 0; j < w->params->kv_len; j++) {
        struct ref_value d_s = {.value = (double)d_scores[j]};
        if (keeps(w, q, j))
            add_pair(w, q, j, &d_s);
    }
}

/* ---- The whole call ---- */

static void scale_all(struct ref_value *x, int64_t n, double scale) {
    for (int64_t e = 0; e < n; e++) {
        if (isfinite(x[e].value) && isfinite(x[e].bound))
            x[e].bound = fabs(scale) * (x[e].bound + 4 * REF_U * fabs(x[e].value)) + REF_DENORMAL;
        x[e].value *= scale;
        settle(&x[e]);
    }
}

static struct ref_value *elements(int64_t n) {
    return ref_allocate(n, sizeof(struct ref_value));
}

struct sizes {
    int64_t q, k, v, pairs;
};

static struct sizes sizes_of(const qkv_attention_params *p) {
    const int64_t rows = p->batch * p->q_heads * p->q_len;
    const int64_t keys = p->batch * p->kv_heads * p->kv_len;
    return (struct sizes){rows * p->head_dim, keys * p->head_dim, keys * ref_v_dim(p),
                          rows * p->kv_len};
}

static void make_room(struct backward *w, int stage) {
    const struct sizes n = sizes_of(w->params);
    const bool whole = stage == QKV_STAGE_ATTENTION_BACKWARD;
    struct ref_gradients *made = &w->made;
    if (whole || stage == QKV_STAGE_SCORES_BACKWARD) {
        made->q = elements(n.q);
        made->k = elements(n.k);
        made->bias = w->given->bias.data ? elements(n.pairs) : NULL;
    }
    if (whole || stage == QKV_STAGE_SOFTMAX_BACKWARD)
        made->sinks = w->params->sinks ? elements(w->params->q_heads) : NULL;
    if (whole || stage == QKV_STAGE_MIX_BACKWARD)
        made->v = elements(n.v);
    if (stage == QKV_STAGE_SOFTMAX_BACKWARD)
        made->scores = elements(n.pairs);
    if (stage == QKV_STAGE_MIX_BACKWARD)
        made->weights = elements(n.pairs);
}

/* How many roundings the terms of the long sums go through. */
static void count_roundings(struct backward *w) {
    const double rows = (double)w->params->q_len, keys = (double)w->params->kv_len;
    const double group = (double)(w->params->q_heads / w->params->kv_heads);
    const double blocks = group * ceil(rows / ((double)QKV_ROWS / 2));
    w->row_roundings = fmin(group * rows, QKV_ROWS) + blocks + 4;
    w->key_roundings = fmin(keys, QKV_KEY_BLOCK) + 2 * ceil(keys / QKV_KEY_BLOCK) + 4;
}

static void finish(struct backward *w) {
    const struct sizes n = sizes_of(w->params);
    struct ref_gradients *made = &w->made;
    if (made->q)
        scale_all(made->q, n.q, ref_scale(w->params));
    if (made->k)
        scale_all(made->k, n.k, ref_scale(w->params));
    for (int64_t e = 0; made->v && e < n.v; e++)
        settle(&made->v[e]);
    for (int64_t h = 0; made->sinks && h < w->params->q_heads; h++)
        settle(&made->sinks[h]);
}

struct ref_gradients ref_backward(int stage, const qkv_attention_params *params,
                                  const qkv_tensors *tensors, const qkv_gradients *given) {
    typedef void row_fn(struct backward * w, struct query * q);
    row_fn *row = stage == QKV_STAGE_SCORES_BACKWARD    ? scores_row
                  : stage == QKV_STAGE_SOFTMAX_BACKWARD ? softmax_row
                  : stage == QKV_STAGE_MIX_BACKWARD     ? mix_row
                                                        : attention_row;
    struct backward w = {.params = params, .tensors = tensors, .given = given};
    w.exp = fmax(ref_exp_errors[params->exp], ref_exp_errors[QKV_EXP_POLY5]);
    make_room(&w, stage);
    count_roundings(&w);
    for (int64_t b = 0; b < params->batch; b++)
        for (int64_t h = 0; h < params->q_heads; h++)
            for (int64_t i = 0; i < ref_queries(params, b); i++) {
                struct query q = {.b = b, .h = h, .i = i};
                row(&w, &q);
            }
    finish(&w);
    return w.made;
}

void ref_gradients_free(struct ref_gradients *made) {
    struct ref_value *all[] = {made->q,       made->k,    made->v,    made->scores,
                               made->weights, made->bias, made->sinks};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    *made = (struct ref_gradients){0};
}
