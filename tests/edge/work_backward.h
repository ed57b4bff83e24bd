/* SPDX-License-Identifier: Apache-2.0 */
/* The part of work.h's calls that goes backward. */
#ifndef QKV_TESTS_WORK_BACKWARD_H
#define QKV_TESTS_WORK_BACKWARD_H

#include <qkv/qkv.h>

/* What the calls write: the gradients of Q, K and V, of scores, weights or bias, and of sinks. */
struct work_gradients {
    float q[2 * 2 * 103 * 20];
    float k[2 * 1057 * 20];
    float v[2 * 1057 * 23];
    float pairs[2 * 2 * 103 * 1057];
    float sinks[2];
};
extern struct work_gradients work_gradients;

void work_fill_backward(float spread);

/* which: one of the four backward stages. */
qkv_status work_backward(int which, int every_option, const qkv_context *context);

#endif
