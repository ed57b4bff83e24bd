/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the losses made real (loss_case.h). */
#include "loss_case.h"

#include <check.h>
#include <string.h>

#include "support/rng.h"

static float normal(void *argument, uint64_t hash) {
    return *(const float *)argument * rng_normal(hash);
}

static void make_labels(struct loss_case *c) {
    const struct loss_desc *d = &c->desc;
    c->labels = guard_alloc((size_t)d->rows * sizeof(int32_t), sizeof(int32_t), GUARD_END, 0);
    int32_t *label = (int32_t *)c->labels.data;
    for (int64_t row = 0; row < d->rows; row++) {
        const uint64_t hash = rng_hash(d->seed + 5, (uint64_t)row);
        label[row] = (int32_t)(hash % (uint64_t)d->columns);
        if (d->left_out && hash / 7 % (uint64_t)d->left_out == 0)
            label[row] = -1;
    }
    c->tensors.labels = label;
}

void case_make_loss(struct loss_case *c, const struct loss_desc *d) {
    const int64_t dim[4] = {1, 1, d->rows, d->columns};
    float one = 1.0f, spread = d->spread;
    memset(c, 0, sizeof *c);
    c->desc = *d;
    qkv_loss_params_init(&c->params);
    c->params.rows = d->rows;
    c->params.columns = d->columns;
    c->params.kind = d->kind;
    qkv_loss_tensors_init(&c->tensors);
    c->prediction = tensor_make(QKV_F32, dim, d->layout[0]);
    tensor_fill(&c->prediction, d->seed, normal, &spread);
    c->tensors.prediction = c->prediction.view;
    if (d->kind == QKV_LOSS_SQUARED) {
        c->target = tensor_make(QKV_F32, dim, d->layout[1]);
        tensor_fill(&c->target, d->seed + 1, normal, &one);
        c->tensors.target = c->target.view;
    } else {
        make_labels(c);
    }
    if (d->gradient && !d->in_place) {
        c->gradient = tensor_make(QKV_F32, dim, d->layout[2]);
        c->tensors.gradient = c->gradient.view;
    } else if (d->gradient) {
        c->tensors.gradient = c->prediction.view;
    }
    c->loss = guard_alloc(sizeof(float), sizeof(float), GUARD_END, 0);
    c->tensors.loss = (float *)c->loss.data;
    if (!d->in_place)
        tensor_freeze(&c->prediction);
    if (d->kind == QKV_LOSS_SQUARED)
        tensor_freeze(&c->target);
}

void case_free_loss(struct loss_case *c) {
    tensor_free(&c->prediction);
    tensor_free(&c->target);
    tensor_free(&c->gradient);
    guard_free(&c->labels);
    guard_free(&c->loss);
}

struct verdict run_loss(const struct loss_case *c, const qkv_context *context, struct how how) {
    const struct call call = {context, QKV_STAGE_LOSS, &c->params, &c->tensors};
    return run_call(&call, how);
}

const struct how plainly = {WAY_PLAIN, 1, 0};

void require(struct verdict verdict) {
    if (!verdict.ok)
        ck_abort_msg("%s", verdict.message);
}

static const int64_t block_shapes[BLOCK_SHAPES][2] = {{1, 16383}, {1, 16384}, {2, 16385},
                                                      {3, 40000}, {700, 50},  {2, 8192},
                                                      {17000, 1}, {5, 5000},  {3, 1 << 17}};
struct loss_desc block_desc(int shape, int kind) {
    return (struct loss_desc){.seed = 3,
                              .kind = kind,
                              .rows = block_shapes[shape][0],
                              .columns = block_shapes[shape][1],
                              .spread = 2.0f,
                              .gradient = true,
                              .left_out = shape % 2 ? 5 : 0};
}
