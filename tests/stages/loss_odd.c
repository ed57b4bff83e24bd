/* SPDX-License-Identifier: Apache-2.0 */
/* What is special about the losses: logits that are not finite, rows left out, the mean of nothing,
 * and losses near zero. */
#include <math.h>

#include "loss_case.h"
#include "ref/bound.h"
#include "support/rng.h"
#include "support/rooms.h"

enum { ROWS = 3, COLUMNS = 21 };

/* Row 1 of ROWS gets an odd logit at column 9; its label is `label`. */
static void run_with(const qkv_context *context, float odd, int32_t label, float *loss,
                     float gradient[ROWS][COLUMNS]) {
    float x[ROWS][COLUMNS];
    const int32_t labels[ROWS] = {0, label, 2};
    qkv_loss_params params;
    qkv_loss_tensors tensors;
    for (int i = 0; i < ROWS * COLUMNS; i++)
        x[i / COLUMNS][i % COLUMNS] = rng_normal(rng_hash(3, (uint64_t)i));
    x[1][9] = odd;
    qkv_loss_params_init(&params);
    params.rows = ROWS;
    params.columns = COLUMNS;
    params.kind = QKV_LOSS_CROSS_ENTROPY;
    qkv_loss_tensors_init(&tensors);
    tensors.prediction = qkv_tensor_bhsd(x, 1, ROWS, COLUMNS);
    tensors.gradient = qkv_tensor_bhsd(gradient, 1, ROWS, COLUMNS);
    tensors.labels = labels;
    tensors.loss = loss;
    const struct call call = {context, QKV_STAGE_LOSS, &params, &tensors};
    require(run_call(&call, plainly));
}

static bool finite_row(const float *row) {
    int finite = 0;
    for (int c = 0; c < COLUMNS; c++)
        finite += isfinite(row[c]) != 0;
    ck_assert(finite == 0 || finite == COLUMNS);
    return finite == COLUMNS;
}

START_TEST(logits_that_are_not_finite) {
    const qkv_context *context = &rooms_get(_i)->context;
    const float odd[] = {NAN, INFINITY};
    float loss, gradient[ROWS][COLUMNS];
    for (int k = 0; k < 2; k++)
        for (int32_t label = 8; label <= 9; label++) {
            run_with(context, odd[k], label, &loss, gradient);
            ck_assert(isnan(loss));
            ck_assert(finite_row(gradient[0]) && !finite_row(gradient[1]) &&
                      finite_row(gradient[2]));
        }
    run_with(context, -INFINITY, 8, &loss, gradient);
    ck_assert(isfinite(loss) && finite_row(gradient[1]) && gradient[1][9] == 0.0f);
    run_with(context, -INFINITY, 9, &loss, gradient);
    ck_assert(loss == INFINITY && finite_row(gradient[1]));
    ck_assert_msg(gradient[1][9] == -1.0f / ROWS, "%a", (double)gradient[1][9]);
    run_with(context, NAN, -1, &loss, gradient); /* left out: not read */
    ck_assert(isfinite(loss) && finite_row(gradient[1]) && gradient[1][9] == 0.0f);
}
END_TEST

START_TEST(the_mean_of_nothing_is_zero) {
    for (int kind = 0; kind < QKV_LOSS_COUNT; kind++)
        for (int rows = 0; rows < 3; rows += 2) {
            struct loss_desc d = {.kind = kind, .rows = rows, .columns = 5, .gradient = true};
            struct loss_case c;
            if (kind == QKV_LOSS_SQUARED && rows > 0)
                continue;
            d.left_out = 1;
            d.spread = INFINITY;
            case_make_loss(&c, &d);
            require(run_loss(&c, &rooms_get(_i)->context, plainly));
            ck_assert(*c.tensors.loss == 0.0f);
            for (int64_t i = 0; i < rows * 5; i++)
                ck_assert(*tensor_f32(&c.tensors.gradient, 0, 0, i / 5, i % 5) == 0.0f);
            case_free_loss(&c);
        }
}
END_TEST

START_TEST(a_squared_loss_of_nan_is_nan) {
    struct loss_desc d = {.rows = 40, .columns = 500, .spread = 1.0f, .gradient = true};
    struct loss_case c;
    case_make_loss(&c, &d);
    *tensor_f32(&c.tensors.prediction, 0, 0, 21, 300) = NAN;
    require(run_loss(&c, &rooms_get(_i)->context, plainly));
    ck_assert(isnan(*c.tensors.loss));
    for (int64_t i = 0; i < 40 * 500; i++)
        ck_assert_int_eq(isnan(*tensor_f32(&c.tensors.gradient, 0, 0, i / 500, i % 500)) != 0,
                         i == 21 * 500 + 300);
    case_free_loss(&c);
}
END_TEST

/* One logit stands far above n - 1 others: the loss log(1 + (n - 1) e^-far), and the gradient at
 * the label, have a relative error of float32 as far as a sum in double precision can tell it
 * from 1. */
START_TEST(a_loss_near_zero_keeps_its_digits) {
    for (int far = 1; far <= 80; far++) {
        struct loss_desc d = {.kind = QKV_LOSS_CROSS_ENTROPY, .rows = 1, .columns = 11};
        struct loss_case c;
        d.gradient = true;
        case_make_loss(&c, &d);
        const int32_t label = c.tensors.labels[0];
        *tensor_f32(&c.prediction.view, 0, 0, 0, label) = (float)far;
        require(run_loss(&c, &rooms_get(_i)->context, plainly));
        const double others = 10.0 * exp(-(double)far), slope = -others / (1.0 + others);
        const double most = (4.0 * far + 10.0) * REF_U * others + 0x1p-50;
        const float got = *tensor_f32(&c.tensors.gradient, 0, 0, 0, label);
        ck_assert_msg(fabs((double)*c.tensors.loss - log1p(others)) <= most, "%d: %g, not %g", far,
                      (double)*c.tensors.loss, log1p(others));
        ck_assert_msg(fabs((double)got - slope) <= most, "%d: %g, not %g", far, (double)got, slope);
        case_free_loss(&c);
    }
}
END_TEST

void loss_add_odd_tests(TCase *tcase) {
    const TTest *const tests[] = {
        logits_that_are_not_finite,
        the_mean_of_nothing_is_zero,
        a_squared_loss_of_nan_is_nan,
        a_loss_near_zero_keeps_its_digits,
    };
    tcase_add_room_tests(tcase, tests, sizeof tests / sizeof *tests);
}
