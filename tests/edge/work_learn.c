/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of work.h that learn: the losses, the rules of descent, and clipping. A call begins
 * with the same weights each time. */
#include <string.h>

#include "work_learn.h"

enum { ROWS = WORK_ROWS, COLUMNS = WORK_COLUMNS };

static float prediction[ROWS][COLUMNS], target[ROWS][COLUMNS];
static int32_t labels[ROWS];
static float start[WORK_NUMBERS], gradient[WORK_NUMBERS], mean[WORK_NUMBERS], square[WORK_NUMBERS];
static _Alignas(QKV_ALIGNMENT) unsigned char workspace[4096];

float work_slope[WORK_SLOPE];
float work_weights[WORK_NUMBERS];

void work_fill_learning(float spread, float uniform(void)) {
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        prediction[i / COLUMNS][i % COLUMNS] = spread * uniform();
        target[i / COLUMNS][i % COLUMNS] = uniform();
    }
    for (int i = 0; i < ROWS; i++)
        labels[i] = i % 9 == 4 ? -1 : i * 7;
    for (int i = 0; i < WORK_NUMBERS; i++) {
        start[i] = uniform();
        gradient[i] = spread * uniform();
    }
}

static void executor(qkv_exec *exec, const qkv_context *context) {
    qkv_exec_init(exec);
    exec->context = context;
    exec->workspace = workspace;
    exec->workspace_size = sizeof workspace;
}

static qkv_status loss(int kind, const qkv_context *context) {
    qkv_loss_params params;
    qkv_loss_tensors tensors;
    qkv_exec exec;

    qkv_loss_params_init(&params);
    params.rows = ROWS;
    params.columns = COLUMNS;
    params.kind = kind;
    qkv_loss_tensors_init(&tensors);
    tensors.prediction = qkv_tensor_bhsd(prediction, 1, ROWS, COLUMNS);
    tensors.target = qkv_tensor_bhsd(target, 1, ROWS, COLUMNS);
    tensors.gradient = qkv_tensor_bhsd(work_slope, 1, ROWS, COLUMNS);
    tensors.labels = labels;
    tensors.loss = &work_slope[ROWS * COLUMNS];
    executor(&exec, context);
    return qkv_loss(&params, &tensors, &exec);
}

qkv_status work_squared(const qkv_context *context) {
    return loss(QKV_LOSS_SQUARED, context);
}

qkv_status work_cross_entropy(const qkv_context *context) {
    return loss(QKV_LOSS_CROSS_ENTROPY, context);
}

/* One step, clipped. */
static qkv_status descend(int rule, float momentum, const qkv_context *context) {
    qkv_descent_params params;
    qkv_descent_arrays arrays;
    qkv_exec exec;
    double sum = 0;
    qkv_status status = qkv_sum_squares(&sum, gradient, WORK_NUMBERS, context);

    if (status != QKV_OK)
        return status;
    memcpy(work_weights, start, sizeof start);
    memset(mean, 0, sizeof mean);
    memset(square, 0, sizeof square);
    qkv_descent_params_init(&params);
    params.count = WORK_NUMBERS;
    params.step = 3;
    params.rule = rule;
    params.momentum = momentum;
    params.weight_decay = 0.125f;
    params.gradient_scale = qkv_clip_scale(sum, 1.0f);
    qkv_descent_arrays_init(&arrays);
    arrays.weights = work_weights;
    arrays.gradient = gradient;
    arrays.mean = mean;
    arrays.square = square;
    executor(&exec, context);
    return qkv_descent(&params, &arrays, &exec);
}

qkv_status work_sgd(const qkv_context *context) {
    return descend(QKV_DESCENT_SGD, 0, context);
}

qkv_status work_momentum(const qkv_context *context) {
    return descend(QKV_DESCENT_SGD, 0.5f, context);
}

qkv_status work_adamw(const qkv_context *context) {
    return descend(QKV_DESCENT_ADAMW, 0, context);
}
