/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the losses for their suite: descriptions, made real in guarded memory. */
#ifndef QKV_TEST_LOSS_CASE_H
#define QKV_TEST_LOSS_CASE_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include <qkv/qkv.h>

#include "support/guard.h"
#include "support/run.h"
#include "support/tensor.h"

struct loss_desc {
    uint64_t seed;
    int32_t kind;
    int64_t rows, columns;
    float spread; /* standard deviation of the predictions */
    bool gradient, in_place;
    int left_out;            /* one row in so many; 0: none */
    struct layout layout[3]; /* of prediction, target and gradient */
};

struct loss_case {
    struct loss_desc desc;
    qkv_loss_params params;
    qkv_loss_tensors tensors;
    struct tensor prediction, target, gradient;
    struct guard labels, loss;
};

void case_make_loss(struct loss_case *c, const struct loss_desc *desc);
void case_free_loss(struct loss_case *c);

extern const struct how plainly;
struct verdict run_loss(const struct loss_case *c, const qkv_context *context, struct how how);

/* Fails the running test if the verdict did. */
void require(struct verdict verdict);

/* Shapes whose blocks end within a row, after a row, and after some. */
enum { BLOCK_SHAPES = 9 };
struct loss_desc block_desc(int shape, int kind);

void loss_add_odd_tests(TCase *tcase);
void loss_add_bits_tests(TCase *tcase);

#endif
