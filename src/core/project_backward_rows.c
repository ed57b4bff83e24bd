/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phase 0 of the projection's gradients, a stretch of tokens at a time: rows copied to equal
 * distances, the left side of dW turned, the biases' stretches summed; and where phase 1 finds
 * them.
 */
#include <string.h>

#include "problem.h"
#include "project_backward.h"

struct qkv_matrix_gradients qkv_matrix_gradients_of(const struct qkv_gradient_call *call,
                                                    int which) {
    const qkv_project_tensors *t = &call->tensors;
    const qkv_project_gradients *g = &call->gradients;
    const struct qkv_matrix_gradients of[QKV_WHICH_COUNT] = {
        [QKV_WHICH_Q] = {&t->wq, &g->q, &g->wq, &g->bq},
        [QKV_WHICH_K] = {&t->wk, &g->k, &g->wk, &g->bk},
        [QKV_WHICH_V] = {&t->wv, &g->v, &g->wv, &g->bv},
    };
    return of[which];
}

int qkv_wants_weights(const struct qkv_gradient_call *call) {
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        if (call->state->shape.matrix[which].width && qkv_matrix_gradients_of(call, which).dw->data)
            return 1;
    return 0;
}

/* ---- Rows at equal distances ---- */

/* The rows of [batch, heads, tokens, dim] by batch and token, if each is one run of heads and all
 * are at the same distance. */
static int is_flat(const qkv_tensor *t, int64_t batch, int64_t heads, int64_t tokens, int64_t dim,
                   int64_t *ld) {
    if (heads > 1 && t->stride[1] != dim)
        return 0;
    *ld = tokens > 1 ? t->stride[2] : t->stride[0];
    return batch == 1 || t->stride[0] == tokens * *ld;
}

static struct qkv_flat flat_rows(const struct qkv_project_backward_state *s, const qkv_tensor *t,
                                 const struct qkv_rows_layout *layout, int64_t heads, int64_t dim,
                                 void *shared) {
    struct qkv_flat f = {.data = t->data};
    if (is_flat(t, s->shape.batch, heads, s->shape.tokens, dim, &f.ld))
        return f;
    return (struct qkv_flat){(float *)((char *)shared + layout->copied), heads * dim};
}

struct qkv_flat qkv_flat_x(const struct qkv_gradient_call *call, void *shared) {
    const struct qkv_project_backward_state *s = call->state;
    return flat_rows(s, &call->tensors.x, &s->x, 1, s->shape.d_model, shared);
}

struct qkv_flat qkv_flat_dy(const struct qkv_gradient_call *call, int which, void *shared) {
    const struct qkv_project_backward_state *s = call->state;
    const struct qkv_matrix *m = s->shape.matrix + which;
    return flat_rows(s, qkv_matrix_gradients_of(call, which).dy, s->dy + which, m->heads, m->dim,
                     shared);
}

/* Copies the rows [begin, end) unless they are where they are wanted. */
static void flatten(const struct qkv_project_backward_state *s, const qkv_tensor *t,
                    struct qkv_flat to, int64_t heads, int64_t dim, int64_t begin, int64_t end) {
    if (to.data == t->data)
        return;
    for (int64_t r = begin; r < end; r++)
        for (int64_t h = 0; h < heads; h++)
            memcpy(to.data + r * to.ld + h * dim,
                   (const float *)t->data + r / s->shape.tokens * t->stride[0] + h * t->stride[1] +
                       r % s->shape.tokens * t->stride[2],
                   (size_t)dim * sizeof(float));
}

/* Columns that are turned at a time, so that what is written together is in the cache. */
enum { TURNED = 64 };

/* Rows [begin, end) become columns of the turned matrix. begin is a multiple of PANEL. */
static void turn(const struct qkv_project_backward_state *s, float *dst, struct qkv_flat f,
                 int64_t width, int64_t begin, int64_t end) {
    for (int64_t c = 0; c < width; c += TURNED)
        for (int64_t r = begin; r < end; r += QKV_PANEL)
            s->table->project_backward->turned(
                dst + c * s->turned_ld + r, s->turned_ld, f.data + r * f.ld + c, f.ld,
                (int)qkv_min(end - r, QKV_PANEL), qkv_min(width - c, TURNED));
}

float *qkv_turned_of(const struct qkv_rows_layout *layout, void *shared) {
    return (float *)((char *)shared + layout->turned);
}

float *qkv_sums_of(const struct qkv_rows_layout *layout, void *shared) {
    return (float *)((char *)shared + layout->sums);
}

/* ---- Phase 0 ---- */

static void prepare_x(const struct qkv_gradient_call *call, void *shared, int64_t begin,
                      int64_t end) {
    const struct qkv_project_backward_state *s = call->state;
    if (!qkv_wants_weights(call))
        return;
    const struct qkv_flat x = qkv_flat_x(call, shared);
    flatten(s, &call->tensors.x, x, 1, s->shape.d_model, begin, end);
    if (s->shape.layout == QKV_W_IN_OUT)
        turn(s, qkv_turned_of(&s->x, shared), x, s->shape.d_model, begin, end);
}

static void prepare_dy(const struct qkv_gradient_call *call, int which, void *shared,
                       int64_t group) {
    const struct qkv_project_backward_state *s = call->state;
    const struct qkv_matrix *m = s->shape.matrix + which;
    const struct qkv_matrix_gradients g = qkv_matrix_gradients_of(call, which);
    const int64_t begin = group * QKV_STRETCH, end = qkv_min(begin + QKV_STRETCH, s->rows);
    if (!m->width || !(call->gradients.x.data || g.dw->data || g.db->data))
        return;
    const struct qkv_flat dy = qkv_flat_dy(call, which, shared);
    flatten(s, g.dy, dy, m->heads, m->dim, begin, end);
    if (g.dw->data && s->shape.layout == QKV_W_OUT_IN)
        turn(s, qkv_turned_of(s->dy + which, shared), dy, m->width, begin, end);
    if (g.db->data)
        s->table->project_backward->sum_rows(qkv_sums_of(s->dy + which, shared) + group * m->width,
                                             dy.data + begin * dy.ld, dy.ld, end - begin, m->width);
}

void qkv_gradient_prepare(const struct qkv_gradient_call *call, void *shared, int64_t group) {
    const int64_t begin = group * QKV_STRETCH;
    prepare_x(call, shared, begin, qkv_min(begin + QKV_STRETCH, call->state->rows));
    for (int which = 0; which < QKV_WHICH_COUNT; which++)
        prepare_dy(call, which, shared, group);
}
