/* SPDX-License-Identifier: Apache-2.0 */
/* The jobs of work.h that learn, and what they write. */
#ifndef QKV_TESTS_WORK_LEARN_H
#define QKV_TESTS_WORK_LEARN_H

#include <qkv/qkv.h>

enum {
    WORK_ROWS = 70,
    WORK_COLUMNS = 533,
    WORK_SLOPE = WORK_ROWS * WORK_COLUMNS + 1,
    WORK_NUMBERS = 17003
};

/* Numbers from `uniform`, -1 to 1. */
void work_fill_learning(float spread, float uniform(void));

qkv_status work_squared(const qkv_context *context);
qkv_status work_cross_entropy(const qkv_context *context);
qkv_status work_sgd(const qkv_context *context);
qkv_status work_momentum(const qkv_context *context);
qkv_status work_adamw(const qkv_context *context);

extern float work_slope[WORK_SLOPE]; /* the gradient, then the loss */
extern float work_weights[WORK_NUMBERS];

#endif
