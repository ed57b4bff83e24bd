/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of a call of scores, softmax, mix, attention or of their backward stages: taken from
 * the caller, and checked as the stage needs them. */
#ifndef QKV_CORE_OPERANDS_H
#define QKV_CORE_OPERANDS_H

#include "problem.h"

struct qkv_operands {
    qkv_tensors tensors;
    qkv_gradients gradients; /* of a backward stage */
};

/* Takes the caller's structs and checks the tensors that the stage looks at. gradients is not
 * looked at by a forward stage. */
qkv_status qkv_take_operands(struct qkv_operands *own, const struct qkv_problem *problem, int stage,
                             const qkv_tensors *tensors, const qkv_gradients *gradients);

/* Does no output of the stage overlap an array of so many bytes? own has been taken. */
qkv_status qkv_outputs_apart(const struct qkv_operands *own, const struct qkv_problem *problem,
                             int stage, const void *data, size_t bytes);

#endif
