/* SPDX-License-Identifier: Apache-2.0 */
/* The reference of the projection's gradients: each element a sum of products of two rows of
 * numbers that are gathered first, and, if the call accumulates, what stood there. The bound is
 * that of a projected element (bound.h), with as many joins as there are stretches. */
#include "ref.h"

#include <math.h>
#include <stdlib.h>

#include "bound.h"
#include "kernels.h"

static int64_t dim_of(const qkv_project_params *p, int which) {
    return which == QKV_WHICH_V && p->v_dim ? p->v_dim : p->head_dim;
}

static int64_t width_of(const qkv_project_params *p, int which) {
    return (which == QKV_WHICH_Q ? p->q_heads : p->kv_heads) * dim_of(p, which);
}

/* Element (token, column) of X, and of the gradient of Q, K or V; tokens of all batch entries. */
static float x_at(const struct ref_projection *r, int64_t token, int64_t input) {
    const qkv_tensor *x = &r->tensors->x;
    const int64_t tokens = r->params->tokens;
    return ((const float *)
                x->data)[token / tokens * x->stride[0] + token % tokens * x->stride[2] + input];
}

static float dy_at(const struct ref_projection *r, int which, int64_t token, int64_t column) {
    const qkv_tensor *y = &r->gradients->q + which;
    const int64_t tokens = r->params->tokens, dim = dim_of(r->params, which);
    return ((const float *)y->data)[token / tokens * y->stride[0] + column / dim * y->stride[1] +
                                    token % tokens * y->stride[2] + column % dim];
}

static float w_at(const struct ref_projection *r, int which, int64_t input, int64_t column) {
    const qkv_tensor *w = &r->tensors->wq + which;
    const bool in_out = r->params->layout == QKV_W_IN_OUT;
    return ((const float *)
                w->data)[in_out ? input * w->stride[2] + column : column * w->stride[2] + input];
}

/* Two rows of n numbers, to be multiplied. */
struct pair {
    float *x, *y;
    int64_t n;
};

static struct pair pair_of(int64_t n) {
    float *memory = malloc((size_t)(2 * n + 1) * sizeof *memory);
    if (!memory)
        abort();
    return (struct pair){memory, memory + n, n};
}

/* Adds the pair's stretches, each of which goes through at most `joins` additions. */
static void add_pair(struct ref_value *sum, struct pair *pair, double joins) {
    double size = 0;
    for (int64_t first = 0; first < pair->n; first += QKV_STRETCH) {
        const int64_t left = pair->n - first;
        const struct ref_value part =
            ref_dot(pair->x + first, pair->y + first, 1, left < QKV_STRETCH ? left : QKV_STRETCH);
        sum->value += part.value;
        sum->bound += part.bound;
    }
    for (int64_t i = 0; i < pair->n; i++)
        size += fabs((double)pair->x[i] * (double)pair->y[i]);
    sum->bound += REF_SLACK * REF_U * joins * size;
    free(pair->x);
}

static double stretches(int64_t n) {
    return ceil((double)n / QKV_STRETCH);
}

/* before: what stood there, or 0. */
static struct ref_value finish(struct ref_value sum, float before) {
    sum.value += (double)before;
    sum.bound += REF_U * fabs(sum.value);
    if (!isfinite(sum.value))
        sum.bound = 0;
    return sum;
}

struct ref_value ref_gradient_x(const struct ref_projection *r, int64_t token, int64_t input,
                                float before) {
    struct ref_value sum = {0};
    double joins = 0;
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        joins += stretches(width_of(r->params, which));
    for (int which = 0; which < QKV_WHICH_COUNT; which++) {
        struct pair pair = pair_of(width_of(r->params, which));
        for (int64_t c = 0; c < pair.n; c++) {
            pair.x[c] = dy_at(r, which, token, c);
            pair.y[c] = w_at(r, which, input, c);
        }
        add_pair(&sum, &pair, joins);
    }
    return finish(sum, before);
}

struct ref_value ref_gradient_w(const struct ref_projection *r, int which, int64_t input,
                                int64_t column, float before) {
    struct ref_value sum = {0};
    struct pair pair = pair_of(r->params->batch * r->params->tokens);
    for (int64_t t = 0; t < pair.n; t++) {
        pair.x[t] = input < 0 ? 1.0f : x_at(r, t, input);
        pair.y[t] = dy_at(r, which, t, column);
    }
    add_pair(&sum, &pair, stretches(pair.n));
    return finish(sum, before);
}

/* As if an input were 1 for every token. */
struct ref_value ref_gradient_b(const struct ref_projection *r, int which, int64_t column,
                                float before) {
    return ref_gradient_w(r, which, -1, column, before);
}
